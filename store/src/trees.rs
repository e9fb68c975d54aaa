//! Where a worker gets the files of a state from.

use bombproof_core::id::Oid;
use bombproof_core::tree::Change;
use thiserror::Error;

/// Reading a tree failed. Always the machine's or the request's fault, never a patch's.
#[derive(Debug, Error)]
pub enum TreeError {
    /// The object is not there.
    #[error("object {oid} is missing from the object store: {detail}")]
    Missing {
        /// Which object.
        oid: String,
        /// The store's words.
        detail: String,
    },
    /// The store could not be read.
    #[error("the object store could not be read: {detail}")]
    Unreadable {
        /// The store's words.
        detail: String,
    },
    /// What came from elsewhere could not be kept on this machine.
    #[error("objects cannot be kept here: {detail}")]
    Local {
        /// The words of the store on this machine.
        detail: String,
    },
}

/// Takes one blob and its content; an error stops the reading.
pub type BlobSink<'a> = dyn FnMut(&Oid, &[u8]) -> Result<(), TreeError> + 'a;

/// The files of states, by tree id. Shared by all slots of a worker.
pub trait TreeSource: Send + Sync {
    /// What must be written (or removed) to turn tree `from` into tree `to`; `None`: from nothing. Sorted by path.
    ///
    /// # Errors
    /// When a tree is missing or cannot be read.
    fn changes(&self, from: Option<&Oid>, to: &Oid) -> Result<Vec<Change>, TreeError>;

    /// Calls `sink` with the content of each blob, in the order of `blobs`; stops at the first error. Reads in a
    /// stream: at most one blob is held in memory.
    ///
    /// # Errors
    /// When a blob is missing or cannot be read, or with what `sink` returned.
    fn blobs(&self, blobs: &[Oid], sink: &mut BlobSink<'_>) -> Result<(), TreeError>;
}
