//! Files of a lane: their content by digest, and what their text says, each read once as long as it does not change.

use std::collections::HashMap;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bombproof_core::action::InputFile;
use bombproof_core::digest::BlobDigest;
use bombproof_core::source::Facts;
use bombproof_store::cas::Cas;

use crate::beneath::Root;

/// What is known of one version of a file.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its content and whether it may be run.
    pub file: InputFile,
    /// What its text says, if it was asked for.
    pub facts: Arc<Facts>,
}

/// Enough of a file's status to see that it was written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Status {
    inode: u64,
    size_bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Reads files once. Their contents go to the store of blobs, so that an action that names them can be run anywhere.
pub struct Files {
    cas: Arc<dyn Cas>,
    seen: Mutex<HashMap<PathBuf, (Status, Known)>>,
    /// Versions of files are the same in many lanes.
    facts: Mutex<HashMap<BlobDigest, Arc<Facts>>>,
}

impl Files {
    /// Reads files into this store.
    pub fn new(cas: Arc<dyn Cas>) -> Self {
        Self { cas, seen: Mutex::default(), facts: Mutex::default() }
    }

    /// What is known of a file below a folder that a build may have written; `None`: there is no regular file.
    ///
    /// # Errors
    /// When it cannot be read or kept.
    pub(crate) fn get(&self, root: &Root, path: &str) -> std::io::Result<Option<Known>> {
        let (mut file, kind) = match root.file(path) {
            Ok(found) => found,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
            Err(error) => return Err(error),
        };
        let path = root.path().join(path);
        let status = Status {
            inode: kind.ino(),
            size_bytes: kind.len(),
            modified: (kind.mtime(), kind.mtime_nsec()),
            changed: (kind.ctime(), kind.ctime_nsec()),
        };
        let seen = lock(&self.seen).get(&path).filter(|(then, _)| *then == status).map(|(_, known)| known.clone());
        // What the store has evicted since, or found damaged, has to be put there again: the file is still what it was.
        if let Some(known) = seen.filter(|known| self.cas.missing(&[known.file.blob]).is_empty()) {
            return Ok(Some(known));
        }
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let blob = self.cas.put(&text).map_err(|error| std::io::Error::other(error.to_string()))?;
        let facts = self.facts_of(&blob, &text);
        let known = Known { file: InputFile { blob, executable: kind.mode() & 0o111 != 0 }, facts };
        lock(&self.seen).insert(path, (status, known.clone()));
        Ok(Some(known))
    }

    /// What a text says.
    pub fn facts_of(&self, blob: &BlobDigest, text: &[u8]) -> Arc<Facts> {
        if let Some(facts) = lock(&self.facts).get(blob) {
            return Arc::clone(facts);
        }
        let facts = Arc::new(Facts::of(text));
        lock(&self.facts).insert(*blob, Arc::clone(&facts));
        facts
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use bombproof_store::cas::MemoryCas;

    use super::*;

    #[test]
    fn what_a_file_holds_is_in_the_store_whenever_it_is_told() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("auto.conf"), "CONFIG_A=y\n").unwrap();
        let cas: Arc<dyn Cas> = Arc::new(MemoryCas::default());
        let files = Files::new(Arc::clone(&cas));
        let root = Root::at(folder.path()).unwrap();
        let first = files.get(&root, "auto.conf").unwrap().unwrap();
        assert_eq!(cas.gc(0).unwrap().kept, 0);
        let again = files.get(&root, "auto.conf").unwrap().unwrap();
        assert_eq!(first.file, again.file);
        assert_eq!(cas.get(&again.file.blob).unwrap().as_deref(), Some(&b"CONFIG_A=y\n"[..]));
    }
}
