//! Blobs by the digest of their content: the content-addressed store.
//!
//! A blob is served whole and right or not at all: damage that a disk or a writer did is found, the blob is dropped and
//! counted, and the answer is the same as for a blob that was never there. Whoever asks makes it again. What is in use is
//! pinned; everything else may be evicted at any time, and an eviction is never more than lost work.

use std::any::Any;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use bombproof_core::digest::{BlobDigest, Digest};
use thiserror::Error;

use crate::atomic::FileError;

mod disk;
#[cfg(any(test, feature = "laws"))]
pub mod laws;
mod memory;

pub use disk::{CasStats, DiskCas};
pub use memory::MemoryCas;

/// The store could not do what was asked.
#[derive(Debug, Error)]
pub enum CasError {
    /// No room is left; nothing is half-written.
    #[error("no room is left on the disk: {0}")]
    Full(FileError),
    /// Only regular files become blobs: through a link, a build could have any file of the machine stored.
    #[error("'{}' is not a regular file", path.display())]
    NotAFile {
        /// Which file.
        path: PathBuf,
    },
    /// The disk.
    #[error(transparent)]
    File(FileError),
    /// The server that this store asks.
    #[error(transparent)]
    Remote(crate::remote::RemoteError),
}

impl CasError {
    pub(crate) fn new(action: &'static str, path: &Path, error: std::io::Error) -> Self {
        FileError::new(action, path, error).into()
    }
}

impl From<FileError> for CasError {
    fn from(error: FileError) -> Self {
        if matches!(error.source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
            Self::Full(error)
        } else {
            Self::File(error)
        }
    }
}

/// What an eviction did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Blobs that went.
    pub evicted: u64,
    /// Their bytes.
    pub evicted_bytes: u64,
    /// Blobs that stay.
    pub kept: u64,
    /// Their bytes.
    pub kept_bytes: u64,
    /// Files of writers that are long dead, removed.
    pub leftovers: u64,
}

/// What reading everything showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Blobs that are right.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs with a file that was damaged, in order; these files are gone now.
    pub damaged: Vec<Digest>,
}

/// While this lives, no eviction of any process takes the blobs that it names.
#[derive(Debug)]
#[must_use = "the blobs are held only as long as this lives"]
pub struct PinGuard {
    _hold: Box<dyn Any + Send + Sync>,
}

impl PinGuard {
    fn new(hold: impl Any + Send + Sync) -> Self {
        Self { _hold: Box::new(hold) }
    }
}

/// Keeps blobs.
///
/// Laws, written once in `laws` and applied to every implementation: what was put is got, byte for byte, until it is
/// evicted; putting again changes nothing; a blob that was never put, or is asked for with a wrong size, is not there, and
/// asking harms nothing; `missing`, `get`, `open`, `check`, `link` and `copy` agree; a linked file cannot be written and a copied one can,
/// without any change to the blob; an eviction takes what was used longest ago, as little as the limit asks, and nothing
/// that is pinned.
pub trait Cas: Send + Sync {
    /// Keeps these bytes.
    ///
    /// # Errors
    /// When they cannot be written; nothing is half-written then.
    fn put(&self, bytes: &[u8]) -> Result<BlobDigest, CasError>;

    /// Keeps the content of a file, which is gone afterwards. Nobody may write to it any more.
    ///
    /// # Errors
    /// When it is not a regular file, or cannot be read or kept; it may be there still then.
    fn put_file(&self, path: &Path) -> Result<BlobDigest, CasError>;

    /// Those of the blobs that are not there, in the given order. Being asked for counts as use.
    fn missing(&self, blobs: &[BlobDigest]) -> Vec<BlobDigest>;

    /// The content, if it is there and right.
    ///
    /// # Errors
    /// When it cannot be read.
    fn get(&self, blob: &BlobDigest) -> Result<Option<Vec<u8>>, CasError>;

    /// Puts a file with this content at `to`, where nothing may be yet. It may be shared with the store and cannot be
    /// written: mode 0444, or 0555. False: the blob is not there.
    ///
    /// # Errors
    /// When `to` cannot be made.
    fn link(&self, blob: &BlobDigest, to: &Path, executable: bool) -> Result<bool, CasError>;

    /// Puts a file with this content at `to`, where nothing may be yet. It is the caller's own and can be written. False:
    /// the blob is not there.
    ///
    /// # Errors
    /// When `to` cannot be made.
    fn copy(&self, blob: &BlobDigest, to: &Path, executable: bool) -> Result<bool, CasError>;

    /// The content as a file that is open at its beginning. It may be the very file of the store: nobody writes to it.
    ///
    /// # Errors
    /// When it cannot be read.
    fn open(&self, blob: &BlobDigest) -> Result<Option<File>, CasError>;

    /// Whether it is there and right, by reading all of it; one that is damaged is dropped.
    ///
    /// # Errors
    /// When it cannot be read.
    fn check(&self, blob: &BlobDigest) -> Result<bool, CasError>;

    /// Holds these blobs, whether or not they are there yet.
    ///
    /// # Errors
    /// When that cannot be told to other processes.
    fn pin(&self, blobs: &[BlobDigest]) -> Result<PinGuard, CasError>;

    /// Evicts what was used longest ago until at most `limit_bytes` of content are left, or all that is left is pinned or
    /// was used only just now.
    ///
    /// # Errors
    /// When the store cannot be read or changed.
    fn gc(&self, limit_bytes: u64) -> Result<GcReport, CasError>;

    /// Reads every blob, and drops what is damaged.
    ///
    /// # Errors
    /// When the store cannot be read at all.
    fn verify(&self) -> Result<VerifyReport, CasError>;

    /// Damaged blobs that were found and dropped since this value was made.
    fn damaged(&self) -> u64;
}
