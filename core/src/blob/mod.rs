//! Rules of the blob plane: what blobs are called on the way, when bytes of an upload count, what fits into one message.
//!
//! Source: `build/bazel/remote/execution/v2/remote_execution.proto` (`ContentAddressableStorage`) and
//! `google/bytestream/bytestream.proto`. Everything here comes from the wire or goes there, and is total.

pub mod batch;
pub mod name;
pub mod upload;
