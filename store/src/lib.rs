//! Where things are kept: results of states, stored runs, and where the files of a tree come from.
//!
//! Every store is a trait, an implementation for the embedded default, and one set of laws that all implementations
//! must obey. Several processes may use one state folder at once: files are written under another name, synced and renamed.

pub mod trees;
