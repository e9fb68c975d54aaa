//! What goes over the wire, and how it becomes domain types.
//!
//! [`reapi`] gives an action the identity that the Remote Execution API gives it. The messages themselves come from the
//! crate `bazel-remote-apis`; they never leave this room.

pub mod reapi;
