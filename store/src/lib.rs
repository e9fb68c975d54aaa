//! Where things are kept: results of states, stored runs, blobs, results of actions, and where the files of a tree come
//! from.
//!
//! What a store must do is a trait with laws (`results::laws` holds those of the result store); the embedded default
//! keeps everything as files in one state folder ([`home`]), which several processes may use at once: files are written
//! under another name and renamed, so a reader sees the old text or the new one. What cannot be made again is synced
//! before, so a crash loses nothing that was announced; of the rest a power loss costs the work of making it again.

pub mod action_cache;
pub mod atomic;
pub mod cas;
pub mod complete_actions;
pub mod graphs;
pub mod home;
pub mod manifests;
pub mod register;
pub mod remote;
pub mod results;
pub mod runs;
pub mod table;
pub mod trees;
