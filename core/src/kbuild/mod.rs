//! What a kbuild `make` and its compiler shim said.
//!
//! [`record`] is the line that the shim writes for each run of a compiler, [`invocation`] understands its command line,
//! [`depfile`] its dependency list, [`log`] reads what make itself printed, [`roots`] turns paths into those of the tree.

pub mod depfile;
pub mod invocation;
pub mod log;
pub mod record;
pub mod roots;
