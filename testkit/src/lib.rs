//! What tests share: a simulated farm, and chance that can be repeated.
//!
//! Only tests and benchmarks use this crate; nothing of it is in the program.

pub mod chance;
pub mod farm;
