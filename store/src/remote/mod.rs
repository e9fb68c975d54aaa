//! Blobs and results of actions on a server of the Remote Execution API, version 2.
//!
//! [`RemoteBlobs`] and [`RemoteActions`] speak to any such server: batches below its limit, streams above, which go on
//! where they were cut off; what comes is compared with its digest, whoever the server is. [`Transfer`] moves blobs
//! between a server and a local store, each once however many ask for it at the same time. [`RemoteCas`] and [`SyncActions`] are both
//! for code that knows the store's traits alone.
//!
//! Trouble of the network is tried again for some seconds; what is left of it is a [`RemoteError`] that says so.

mod actions;
mod batches;
mod blobs;
mod claims;
mod connect;
mod error;
mod retry;
mod several;
mod stream;
mod sync;
mod transfer;

pub use actions::RemoteActions;
pub use blobs::RemoteBlobs;
pub use connect::{Bearer, Channel, Connection, Tls};
pub use error::{RemoteError, TransferError};
pub use retry::Retry;
pub use several::Several;
pub use sync::{RemoteCas, SyncActions};
pub use transfer::{Traffic, Transfer};
