//! What a kbuild `make` and its compiler shim said.
//!
//! [`record`] is the line that the shim writes for each run of a compiler, [`invocation`] understands its command line,
//! [`depfile`] its dependency list, [`log`] reads what make itself printed, [`roots`] turns paths into those of the tree.
//! [`cmdfile`] reads what kbuild keeps beside each target, [`reach`] says how far a change reaches, [`interface`] what a link
//! sees of an object, [`constants`] what a build takes from an assembly text.

pub mod cmdfile;
pub mod constants;
pub mod depfile;
pub mod exports;
pub mod interface;
pub mod invocation;
pub mod log;
pub mod reach;
pub mod record;
pub mod roots;
