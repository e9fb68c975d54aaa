//! What living processes hold.
//!
//! A pin is a file with the digests that are held, locked by the process that made it: the lock goes when that process
//! ends, however it ends, and what it held is free. Pins are made while the folder's lock is taken shared, and read while
//! it is taken alone; so after [`pin`] has returned nothing that it names is evicted, not even by an eviction that
//! had begun before.

use std::collections::{HashMap, HashSet};
use std::fs::{File, TryLockError};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bombproof_core::digest::{BlobDigest, Digest};
use tempfile::NamedTempFile;

use super::file::{open, remove};
use super::walk::list;
use crate::cas::CasError;

const PINS: &str = "pins";

/// Taken shared to pin, and alone to evict.
pub(super) fn lock_file(folder: &Path) -> Result<File, CasError> {
    let path = folder.join("lock");
    let opened = std::fs::create_dir_all(folder)
        .and_then(|()| File::options().create(true).truncate(false).write(true).open(&path));
    opened.map_err(|error| CasError::new("lock", &path, error))
}

/// Holds these blobs until what it gives is dropped or the process ends.
pub(super) fn pin(folder: &Path, blobs: &[BlobDigest]) -> Result<NamedTempFile, CasError> {
    let pins = folder.join(PINS);
    let failed = |error| CasError::new("pin in", &pins, error);
    let lock = lock_file(folder)?;
    lock.lock_shared().map_err(failed)?;
    std::fs::create_dir_all(&pins).map_err(failed)?;
    let mut file =
        tempfile::Builder::new().prefix(&format!("{}-", std::process::id())).tempfile_in(&pins).map_err(failed)?;
    file.as_file().lock().map_err(failed)?;
    let text: String = blobs.iter().map(|blob| format!("{}\n", blob.hash)).collect();
    file.write_all(text.as_bytes()).map_err(failed)?;
    Ok(file)
}

/// The pins of all processes, read again as they come and go.
#[derive(Debug, Default)]
pub(super) struct Pins {
    /// By path and file number: a pin is never changed after it was made.
    read: HashMap<(PathBuf, u64), HashSet<Digest>>,
}

impl Pins {
    /// Reads what is new, and removes what dead processes left. Only while the folder's lock is taken alone.
    pub(super) fn refresh(&mut self, folder: &Path) -> Result<(), CasError> {
        let mut before = std::mem::take(&mut self.read);
        for entry in list(&folder.join(PINS))? {
            let path = entry.path();
            let Some(file) = open(&path)? else { continue };
            let failed = |error| CasError::new("read", &path, error);
            match file.try_lock() {
                // Nobody holds it any more.
                Ok(()) => {
                    remove(&path)?;
                    continue;
                }
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
            let number = file.metadata().map_err(failed)?.ino();
            let held = match before.remove(&(path.clone(), number)) {
                Some(held) => held,
                None => {
                    let text = std::io::read_to_string(&file).map_err(failed)?;
                    text.lines().filter_map(|line| line.parse().ok()).collect()
                }
            };
            self.read.insert((path, number), held);
        }
        Ok(())
    }

    pub(super) fn hold(&self, hash: &Digest) -> bool {
        self.read.values().any(|held| held.contains(hash))
    }
}
