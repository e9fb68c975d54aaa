//! What goes over the wire, and how it becomes domain types.
//!
//! [`reapi`] gives an action the identity that the Remote Execution API gives it, [`results`] says what an action gave.
//! The messages themselves come from the crate `bazel-remote-apis`. Only the two edges use them, the services of the
//! coordinator and the client in `store`, through [`wire`]; behind an edge there are domain types alone.

pub mod farm;
pub mod reapi;
pub mod results;

/// Messages, clients and servers of the Remote Execution API and of what it builds on.
pub mod wire {
    pub use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
    pub use bazel_remote_apis::build::bazel::semver::SemVer;
    pub use bazel_remote_apis::google::bytestream;
    pub use bazel_remote_apis::google::rpc::Status as RpcStatus;
}
