//! Single steps on single files, with "there is none" told apart from errors.

use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::time::{Duration, SystemTime};

use bombproof_core::digest::{BlobDigest, BlobHasher};

use crate::cas::CasError;

/// Bytes that are read at once to hash a file.
const PIECE_BYTES: usize = 64 << 10;

fn if_there<T>(action: &'static str, path: &Path, result: std::io::Result<T>) -> Result<Option<T>, CasError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CasError::new(action, path, error)),
    }
}

/// What lies at this path itself, should it be a link.
pub(super) fn stat(path: &Path) -> Result<Option<Metadata>, CasError> {
    if_there("look at", path, path.symlink_metadata())
}

pub(super) fn open(path: &Path) -> Result<Option<File>, CasError> {
    if_there("read", path, File::open(path))
}

/// Whether it was there.
pub(super) fn remove(path: &Path) -> Result<bool, CasError> {
    Ok(if_there("remove", path, std::fs::remove_file(path))?.is_some())
}

pub(super) fn modified(meta: &Metadata, path: &Path) -> Result<SystemTime, CasError> {
    meta.modified().map_err(|error| CasError::new("look at", path, error))
}

/// The time between two moments, in either order: the clock of a machine can be set back.
pub(super) fn apart(one: SystemTime, other: SystemTime) -> Duration {
    one.duration_since(other).unwrap_or_else(|error| error.duration())
}

/// Names what is left to read; each piece is passed on.
pub(super) fn hash_of(
    file: &mut File,
    mut each: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> std::io::Result<BlobDigest> {
    let mut hasher = BlobHasher::default();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(read) => {
                let bytes = piece.get(..read).unwrap_or_default();
                hasher.update(bytes);
                each(bytes)?;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
