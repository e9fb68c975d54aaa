//! What the coordinator serves over the network.
//!
//! Here is the edge: messages become domain types on the way in, errors become `Status` codes on the way out. The blob
//! plane is the Remote Execution API, version 2: `Capabilities`, `ContentAddressableStorage`, `ByteStream` and
//! `ActionCache` over the store's own traits.

mod action_cache;
pub mod auth;
mod blobs;
mod bytestream;
mod capabilities;
mod plane;
pub mod server;
mod tree;
mod uploads;

pub use plane::{BlobPlane, Limits, PlaneError};
