//! The blob plane from both sides: our server and our client, over loopback.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests: helpers of them too")]
#![allow(clippy::print_stderr, reason = "what could not be tested is said")]

mod about;
mod access;
mod actions;
mod blobs;
mod casd;
mod cuts;
mod gate;
mod restarts;
mod served;
mod streams;
mod tls;
mod tree;
