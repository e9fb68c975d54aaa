//! What a kbuild `make` and its compiler shim said, as records.
//!
//! [`invocation`] understands a compiler's command line, [`record`] is the line that the shim writes for each compile,
//! [`depfile`] and [`cmdfile`] read dependency lists, [`log`] reads make's own output: steps, failures, stages.

pub mod cmdfile;
pub mod depfile;
pub mod invocation;
pub mod log;
pub mod record;
