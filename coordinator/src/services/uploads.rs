//! Uploads that are not whole yet.
//!
//! Each is a file beside the store and the digest of what is in it. A connection that breaks leaves it where it is, and
//! another stream goes on there; the newest one has it, whatever an older one still sends. Their number and their bytes are
//! bounded: what nobody writes to goes first, and then new ones are refused.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bombproof_core::blob::name::WriteName;
use bombproof_core::digest::{BlobDigest, BlobHasher};
use bombproof_store::atomic::FileError;
use bombproof_store::cas::{Cas, CasError};
use tempfile::{NamedTempFile, TempPath};
use thiserror::Error;

use super::plane::Limits;

/// How files of uploads are called.
const PREFIX: &str = "upload-";
/// A file of an upload to which nobody wrote for this long is of a server that died.
const LEFTOVER: Duration = Duration::from_secs(3600);

/// An upload that does not go on.
#[derive(Debug, Error)]
pub(super) enum UploadFailure {
    #[error("{0} uploads are under way, and none of them rests: try again later")]
    TooMany(usize),
    #[error("uploads that are under way have {0} bytes, and none of them rests: try again later")]
    TooMuch(u64),
    #[error("another stream took this upload over")]
    TakenOver,
    #[error("the content is that of {found}, not of {expected}")]
    Wrong { found: BlobDigest, expected: BlobDigest },
    #[error("the disk of the server failed: {0}")]
    Disk(std::io::Error),
    #[error(transparent)]
    Store(CasError),
}

/// All uploads of a server.
#[derive(Debug)]
pub(super) struct Uploads {
    folder: PathBuf,
    most: usize,
    most_bytes: u64,
    idle: Duration,
    parts: Mutex<HashMap<Key, Entry>>,
    bytes: Arc<AtomicU64>,
}

type Key = (String, BlobDigest);

#[derive(Debug)]
struct Entry {
    part: Arc<Mutex<Part>>,
    touched: Instant,
}

/// One upload. What it holds of the bound goes with it.
#[derive(Debug)]
struct Part {
    file: File,
    path: TempPath,
    hasher: BlobHasher,
    committed: u64,
    /// Counts the streams that had it; the last one has it.
    stream: u64,
    /// No more can be written: a write failed half-way, or it is whole.
    closed: bool,
    all: Arc<AtomicU64>,
}

impl Drop for Part {
    fn drop(&mut self) {
        self.all.fetch_sub(self.committed, Ordering::Relaxed);
    }
}

/// The right of one stream to go on with an upload.
#[derive(Debug)]
pub(super) struct Hold {
    key: Key,
    part: Arc<Mutex<Part>>,
    stream: u64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Uploads {
    /// Uploads in this folder. Files that a server left there which died are removed.
    pub(super) fn new(folder: PathBuf, limits: &Limits) -> Result<Self, FileError> {
        let failed = |source| FileError { action: "use", path: folder.clone(), source };
        std::fs::create_dir_all(&folder).map_err(failed)?;
        let now = SystemTime::now();
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
            let changed = entry.metadata().and_then(|meta| meta.modified()).unwrap_or(now);
            // Of a server that lives a file was changed not long ago; it would have swept it else.
            if ours && now.duration_since(changed).unwrap_or_default() >= LEFTOVER {
                // Somebody else may have been faster.
                let _ = std::fs::remove_file(entry.path());
            }
        }
        Ok(Self {
            folder,
            most: limits.uploads,
            most_bytes: limits.uploads_bytes,
            idle: limits.upload_idle,
            parts: Mutex::default(),
            bytes: Arc::default(),
        })
    }

    /// How many bytes of an upload are there; `None`: it is not known.
    pub(super) fn committed(&self, name: &WriteName) -> Option<u64> {
        let mut parts = locked(&self.parts);
        let entry = parts.get_mut(&key(name))?;
        entry.touched = Instant::now();
        let part = Arc::clone(&entry.part);
        drop(parts);
        let part = locked(&part);
        (!part.closed).then_some(part.committed)
    }

    /// Begins an upload or goes on with it, and says how many bytes are there. With `anew` it begins again where it was
    /// begun before.
    pub(super) fn begin(&self, name: &WriteName, anew: bool) -> Result<(Hold, u64), UploadFailure> {
        self.sweep();
        let key = key(name);
        let known = locked(&self.parts).get(&key).map(|entry| Arc::clone(&entry.part));
        if let Some(part) = known {
            // A write of an older stream may be under way: nothing else waits for it.
            let mut held = locked(&part);
            held.closed |= anew && held.committed > 0;
            if !held.closed {
                held.stream += 1;
                let (stream, committed) = (held.stream, held.committed);
                drop(held);
                self.touch(&key);
                return Ok((Hold { key, part, stream }, committed));
            }
            drop(held);
            self.forget(&key, &part);
        }
        self.create(key)
    }

    fn create(&self, key: Key) -> Result<(Hold, u64), UploadFailure> {
        let mut parts = locked(&self.parts);
        if parts.len() >= self.most && !evict(&mut parts) {
            return Err(UploadFailure::TooMany(self.most));
        }
        let file = tempfile::Builder::new().prefix(PREFIX).tempfile_in(&self.folder).map_err(UploadFailure::Disk)?;
        let (file, path) = NamedTempFile::into_parts(file);
        let all = Arc::clone(&self.bytes);
        let part = Part { file, path, hasher: BlobHasher::default(), committed: 0, stream: 0, closed: false, all };
        let part = Arc::new(Mutex::new(part));
        parts.insert(key.clone(), Entry { part: Arc::clone(&part), touched: Instant::now() });
        Ok((Hold { key, part, stream: 0 }, 0))
    }

    /// Adds the next bytes.
    pub(super) fn append(&self, hold: &Hold, bytes: &[u8]) -> Result<(), UploadFailure> {
        let mut part = held(hold)?;
        let more = bytes.len() as u64;
        while self.bytes.load(Ordering::Relaxed).saturating_add(more) > self.most_bytes {
            if !evict(&mut locked(&self.parts)) {
                return Err(UploadFailure::TooMuch(self.most_bytes));
            }
        }
        if let Err(error) = part.file.write_all(bytes) {
            // Nobody knows how much of it is there.
            part.closed = true;
            self.forget(&hold.key, &hold.part);
            return Err(UploadFailure::Disk(error));
        }
        part.hasher.update(bytes);
        part.committed += more;
        self.bytes.fetch_add(more, Ordering::Relaxed);
        self.touch(&hold.key);
        Ok(())
    }

    /// Compares what is there with the digest, and keeps it.
    pub(super) fn finish(&self, hold: &Hold, cas: &dyn Cas) -> Result<(), UploadFailure> {
        let mut part = held(hold)?;
        part.closed = true;
        let found = std::mem::take(&mut part.hasher).finish();
        self.forget(&hold.key, &hold.part);
        let expected = hold.key.1;
        if found != expected {
            return Err(UploadFailure::Wrong { found, expected });
        }
        cas.put_file(&part.path).map(|_| ()).map_err(UploadFailure::Store)
    }

    /// Forgets what nobody went on with for long.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        locked(&self.parts).retain(|_, entry| now.duration_since(entry.touched) < self.idle || in_use(entry));
    }

    /// Forgets this upload, unless another one has its name by now.
    fn forget(&self, key: &Key, part: &Arc<Mutex<Part>>) {
        let mut parts = locked(&self.parts);
        if parts.get(key).is_some_and(|entry| Arc::ptr_eq(&entry.part, part)) {
            parts.remove(key);
        }
    }

    fn touch(&self, key: &Key) {
        if let Some(entry) = locked(&self.parts).get_mut(key) {
            entry.touched = Instant::now();
        }
    }

    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

fn key(name: &WriteName) -> Key {
    (name.upload.clone(), name.blob)
}

/// The upload, if this stream still has it.
fn held(hold: &Hold) -> Result<MutexGuard<'_, Part>, UploadFailure> {
    let part = locked(&hold.part);
    if part.stream == hold.stream && !part.closed { Ok(part) } else { Err(UploadFailure::TakenOver) }
}

/// Whether a stream has it.
fn in_use(entry: &Entry) -> bool {
    Arc::strong_count(&entry.part) > 1
}

/// Forgets the upload that rests for longest; false: none rests.
fn evict(parts: &mut HashMap<Key, Entry>) -> bool {
    let resting = parts.iter().filter(|(_, entry)| !in_use(entry)).min_by_key(|(_, entry)| entry.touched);
    let Some(key) = resting.map(|(key, _)| key.clone()) else { return false };
    parts.remove(&key);
    true
}

#[cfg(test)]
#[path = "uploads_tests.rs"]
mod tests;
