//! What runs next.
//!
//! [`lanes`] is the order of work of a run that judges every state; [`search`] is the search for the first failing state
//! of an opaque command. Both are pure: the caller tells what happened and does what it is told.

pub mod lanes;
pub mod sample;
pub mod search;
