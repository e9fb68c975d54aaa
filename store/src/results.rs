//! Settled results of states, by what was built and for what.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Mutex;

use bombproof_core::digest::{Digest, DigestBuilder};
use bombproof_core::id::Oid;
use bombproof_core::outcome::{Outcome, StateResult};

use crate::atomic::{self, FileError};

/// Changed whenever the meaning of a stored result changes: older results are then not found.
///
/// A version of bombproof that meets results of another version ignores them and builds again.
pub const RULES_VERSION: u32 = 2;

/// At most this much inflated text is read for one result: 1 GiB. A larger one is not ours.
const MAX_RESULT_BYTES: u64 = 1 << 30;

/// Names a result: a target (with its toolchain) and a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResultKey(Digest);

impl ResultKey {
    /// The key of a target's digest and a tree, under the rules of this version.
    pub fn new(target: &Digest, tree: &Oid) -> Self {
        let builder = DigestBuilder::new("bombproof/result/v1");
        let builder = builder.field(&RULES_VERSION.to_be_bytes()).field(target.to_string().as_bytes());
        Self(builder.field(tree.as_str().as_bytes()).finish())
    }

    /// The digest.
    pub fn digest(&self) -> Digest {
        self.0
    }
}

/// Keeps settled results.
///
/// Laws, written once in `laws` and applied to every implementation: what was put is got, equal in every field; a
/// key that was never put gives `None`; a result whose outcome is trouble is never kept, because it says nothing of the
/// source; a damaged entry is `None`, never an error and never another result; what was forgotten is not there.
pub trait ResultStore: Send + Sync {
    /// The result, if it is known and undamaged.
    ///
    /// # Errors
    /// When the store cannot be read at all.
    fn get(&self, key: &ResultKey) -> Result<Option<StateResult>, FileError>;

    /// Keeps a result; one that is trouble is not kept.
    ///
    /// # Errors
    /// When it cannot be written; nothing is half-written then.
    fn put(&self, key: &ResultKey, result: &StateResult) -> Result<(), FileError>;

    /// Drops a result that turned out to be wrong.
    ///
    /// # Errors
    /// When it cannot be removed.
    fn forget(&self, key: &ResultKey) -> Result<(), FileError>;
}

/// Whether a result may be kept: only answers about the source are.
fn settles(result: &StateResult) -> bool {
    match &result.outcome {
        Outcome::Built | Outcome::Failed(_) | Outcome::Skipped => true,
        Outcome::Trouble(_) => false,
    }
}

/// Results as files: the digest of the text on the first line, then the text, deflated.
#[derive(Clone, Debug)]
pub struct FileResults {
    folder: PathBuf,
}

impl FileResults {
    /// Results in this folder.
    pub fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn path(&self, key: &ResultKey) -> PathBuf {
        let name = key.0.to_string();
        let (head, tail) = name.split_at(2);
        self.folder.join(head).join(tail)
    }
}

impl ResultStore for FileResults {
    fn get(&self, key: &ResultKey) -> Result<Option<StateResult>, FileError> {
        Ok(atomic::read(&self.path(key))?.and_then(|bytes| decode(key, &bytes)))
    }

    fn put(&self, key: &ResultKey, result: &StateResult) -> Result<(), FileError> {
        if !settles(result) {
            return Ok(());
        }
        let path = self.path(key);
        let bytes = encode(key, result).map_err(|error| FileError::new("encode", &path, error))?;
        atomic::write(&path, &bytes)
    }

    fn forget(&self, key: &ResultKey) -> Result<(), FileError> {
        let path = self.path(key);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(FileError::new("remove", &path, error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// The first line binds the text to its key, so that a file copied to another name is not believed.
fn seal(key: &ResultKey, deflated: &[u8]) -> String {
    DigestBuilder::new("bombproof/result-file/v1")
        .field(key.0.to_string().as_bytes())
        .field(deflated)
        .finish()
        .to_string()
}

fn encode(key: &ResultKey, result: &StateResult) -> std::io::Result<Vec<u8>> {
    let text = serde_json::to_vec(result)?;
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&text)?;
    let deflated = encoder.finish()?;
    let mut bytes = seal(key, &deflated).into_bytes();
    bytes.push(b'\n');
    bytes.extend_from_slice(&deflated);
    Ok(bytes)
}

fn decode(key: &ResultKey, bytes: &[u8]) -> Option<StateResult> {
    let (head, deflated) = bytes.split_at_checked(65)?;
    if head.split_last()? != (&b'\n', seal(key, deflated).as_bytes()) {
        return None;
    }
    let mut text = Vec::new();
    flate2::read::ZlibDecoder::new(deflated).take(MAX_RESULT_BYTES).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Results in memory, for tests.
#[derive(Debug, Default)]
pub struct MemoryResults(Mutex<HashMap<ResultKey, StateResult>>);

impl ResultStore for MemoryResults {
    fn get(&self, key: &ResultKey) -> Result<Option<StateResult>, FileError> {
        Ok(self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(key).cloned())
    }

    fn put(&self, key: &ResultKey, result: &StateResult) -> Result<(), FileError> {
        if settles(result) {
            self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(*key, result.clone());
        }
        Ok(())
    }

    fn forget(&self, key: &ResultKey) -> Result<(), FileError> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(key);
        Ok(())
    }
}

/// The laws of every result store.
#[cfg(test)]
pub(crate) mod laws {
    use bombproof_core::outcome::{Cost, Failure, LinkCheck, Stage, Trouble};

    use super::*;

    pub(crate) fn result(outcome: Outcome) -> StateResult {
        StateResult {
            outcome,
            inputs: ["kernel/fork.c"].into(),
            config: [("SMP", "y")].into(),
            cost: Cost { compiles: 3, ..Cost::default() },
            link: LinkCheck::Symbols,
            why: "the link sees no difference".to_owned(),
            made: [("a.o".to_owned(), "a.c".to_owned())].into(),
            ..StateResult::trouble(Trouble::Interrupted)
        }
    }

    pub(crate) fn key(tree: char) -> ResultKey {
        ResultKey::new(&Digest::of(b"target"), &Oid::parse(&tree.to_string().repeat(40)).unwrap())
    }

    pub(crate) fn hold(store: &dyn ResultStore) {
        assert_eq!(store.get(&key('a')).unwrap(), None, "nothing was put");
        let failure =
            Failure { stage: Stage::Compile, what: "a.o".to_owned(), message: "é\u{1}".to_owned(), werror: true };
        let failed = result(Outcome::Failed(vec![failure]));
        for (tree, kept) in [('a', result(Outcome::Built)), ('b', failed), ('c', result(Outcome::Skipped))] {
            store.put(&key(tree), &kept).unwrap();
            assert_eq!(store.get(&key(tree)).unwrap(), Some(kept.clone()));
            store.put(&key(tree), &kept).unwrap();
            assert_eq!(store.get(&key(tree)).unwrap(), Some(kept), "putting again changes nothing");
        }
        store.forget(&key('a')).unwrap();
        store.forget(&key('a')).unwrap();
        assert_eq!(store.get(&key('a')).unwrap(), None, "it was forgotten");
        assert!(store.get(&key('b')).unwrap().is_some(), "and nothing else");
        for trouble in [Trouble::Interrupted, Trouble::Timeout { limit_s: 1 }] {
            store.put(&key('d'), &result(Outcome::Trouble(trouble))).unwrap();
            assert_eq!(store.get(&key('d')).unwrap(), None, "trouble is never a result");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_laws_hold() {
        laws::hold(&MemoryResults::default());
        let folder = tempfile::tempdir().unwrap();
        laws::hold(&FileResults::at(folder.path().to_owned()));
    }

    #[test]
    fn damage_of_any_byte_is_found_and_never_served() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileResults::at(folder.path().to_owned());
        let key = laws::key('a');
        store.put(&key, &laws::result(Outcome::Built)).unwrap();
        let path = store.path(&key);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(store.get(&key).unwrap(), None, "byte {at}");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(store.get(&key).unwrap(), None, "cut at {at}");
        }
    }

    #[test]
    fn a_result_under_another_name_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileResults::at(folder.path().to_owned());
        store.put(&laws::key('a'), &laws::result(Outcome::Built)).unwrap();
        let other = store.path(&laws::key('b'));
        std::fs::create_dir_all(other.parent().unwrap()).unwrap();
        std::fs::copy(store.path(&laws::key('a')), other).unwrap();
        assert_eq!(store.get(&laws::key('b')).unwrap(), None);
    }
}
