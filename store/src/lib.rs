//! Where things are kept: results of states, stored runs, and where the files of a tree come from.
//!
//! What a store must do is a trait with laws (`results::laws` holds those of the result store); the embedded default
//! keeps everything as files in one state folder ([`home`]), which several processes may use at once: files are written
//! under another name, synced and renamed, so a reader sees the old text or the new one, and a crash loses nothing
//! that was announced.

pub mod atomic;
pub mod home;
pub mod results;
pub mod runs;
pub mod trees;
