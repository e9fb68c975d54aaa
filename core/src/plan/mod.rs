//! What a build is made of, and what of it a change reaches.
//!
//! [`graph`] is what one run of the project's make left behind: every unit with its command and what it reads. [`compile`]
//! says which commands are understood well enough to be actions, and makes them. [`affected`] finds the units that a change
//! reaches; [`link`] says what a link would make of new objects.

pub mod affected;
pub mod compile;
pub mod graph;
pub mod link;
