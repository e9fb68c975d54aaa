//! From a series to results: reading it, making its states, and giving out the work.
//!
//! It owns the run: which states there are, which results are known, what runs next. It does not know how a state is
//! built: that is an [`dispatcher::Executor`], which the program wires in.

pub mod audit;
pub mod dispatcher;
pub mod farm;
pub mod ingest;
pub mod planner;
pub mod run;
pub mod services;
pub mod states;
