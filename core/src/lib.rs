//! The rules of bombproof: what a series is, what a build's output means, and what follows from it.
//!
//! Everything here is a pure function of its arguments: no clock, no file, no environment, no process, no randomness
//! (`core/clippy.toml` holds that line). Untrusted text (patches, mails, compiler output, stored results) is parsed
//! here by total functions: any input gives a value or an error, never a panic.
//!
//! The flow through the modules: [`series`] -> [`tree`] -> [`target`] -> [`kbuild`] (what a build said) ->
//! [`diagnostic`] -> [`outcome`] (one state on one target) -> [`verdict`] (one patch on one target) -> [`report`].
//! [`schedule`] decides what runs next in one run, [`farm`] what runs next on many workers, [`order`] what that is, [`submission`] what users hand in, [`quota`] how much of it, and [`protocol`] which versions of all that go together; in [`shared`] is what results of neighbouring states hold in common.

pub mod access;
pub mod action;
pub mod blob;
pub mod diagnostic;
pub mod digest;
pub mod farm;
pub mod id;
pub mod kbuild;
pub mod order;
pub mod outcome;
pub mod plan;
pub mod protocol;
pub mod quota;
pub mod reign;
pub mod report;
pub mod schedule;
pub mod series;
pub mod shared;
pub mod size;
pub mod source;
pub mod submission;
pub mod target;
pub mod tree;
pub mod verdict;
