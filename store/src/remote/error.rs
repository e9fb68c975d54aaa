//! What can go wrong with a server.

use bombproof_core::digest::BlobDigest;
use thiserror::Error;
use tonic::{Code, Status};

use crate::atomic::FileError;
use crate::cas::CasError;

/// The server did not do what was asked.
#[derive(Debug, Error)]
pub enum RemoteError {
    /// The address cannot be used.
    #[error("cannot use the server '{url}': {why}")]
    Address {
        /// As it was given.
        url: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// It could not be reached, was busy or broke off, each time it was tried.
    #[error("cannot {what} at '{url}', tried {tries} times: {message}")]
    Unreachable {
        /// The server.
        url: String,
        /// What was asked.
        what: &'static str,
        /// How often.
        tries: u32,
        /// The last answer.
        message: String,
    },
    /// It does not know us, or not for this.
    #[error("'{url}' does not let us {what}: {message}")]
    Denied {
        /// The server.
        url: String,
        /// What was asked.
        what: &'static str,
        /// Its words.
        message: String,
    },
    /// It said no, and would again.
    #[error("'{url}' refused to {what} ({code:?}): {message}")]
    Refused {
        /// The server.
        url: String,
        /// What was asked.
        what: &'static str,
        /// The code of gRPC.
        code: Code,
        /// Its words.
        message: String,
    },
    /// What it gave is not what was asked for: damage on its disk or on the way.
    #[error("'{url}' gave bytes for the blob {blob} that are not its content")]
    Wrong {
        /// The server.
        url: String,
        /// Which blob.
        blob: BlobDigest,
    },
    /// No server would take it.
    #[error("the blob {blob} is larger than '{url}' takes, {limit} bytes")]
    TooLarge {
        /// The server.
        url: String,
        /// Which blob.
        blob: BlobDigest,
        /// What it says of itself, in bytes.
        limit: u64,
    },
    /// A file on this side.
    #[error(transparent)]
    File(#[from] FileError),
}

impl RemoteError {
    /// Whether it may go well another time, or with another server: it says nothing of what was asked.
    pub fn is_trouble(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Wrong { .. } | Self::File(_) => true,
            Self::Address { .. } | Self::Denied { .. } | Self::Refused { .. } | Self::TooLarge { .. } => false,
        }
    }

    /// From the last answer to something that was tried so often.
    pub(super) fn from_status(url: &str, what: &'static str, tries: u32, status: &Status) -> Self {
        let (url, message) = (url.to_owned(), words(status));
        let code = status.code();
        if matches!(code, Code::Unauthenticated | Code::PermissionDenied) {
            Self::Denied { url, what, message }
        } else if is_transient(status) {
            Self::Unreachable { url, what, tries, message }
        } else {
            Self::Refused { url, what, code, message }
        }
    }
}

/// What the server or the network said.
fn words(status: &Status) -> String {
    let source = std::error::Error::source(status);
    let mut text = status.message().to_owned();
    // The cause of "transport error" is what a person needs.
    let mut cause = source;
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

/// Whether the same may go well in a moment.
pub(super) fn is_transient(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::ResourceExhausted | Code::Aborted | Code::DeadlineExceeded => true,
        // An error with a cause comes from the connection on this side, not from the server.
        Code::Cancelled | Code::Unknown | Code::Internal => std::error::Error::source(status).is_some(),
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::DataLoss
        | Code::Unauthenticated => false,
    }
}

/// Blobs did not come over.
#[derive(Debug, Error)]
pub enum TransferError {
    /// The server does not have them (any more).
    #[error("'{url}' does not have {} of the blobs, {} among them", blobs.len(), first(blobs))]
    Gone {
        /// The server.
        url: String,
        /// Which.
        blobs: Vec<BlobDigest>,
    },
    /// Neither does the local store have them, which was to give them.
    #[error("{} of the blobs are not in the local store (any more), {} among them", blobs.len(), first(blobs))]
    NotHere {
        /// Which.
        blobs: Vec<BlobDigest>,
    },
    /// The server.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The local store.
    #[error(transparent)]
    Local(#[from] CasError),
    /// A thread of ours ended without a word.
    #[error("an operation on the local store did not come to its end")]
    Lost,
}

fn first(blobs: &[BlobDigest]) -> String {
    blobs.first().map(ToString::to_string).unwrap_or_default()
}
