//! A simulated farm: the real queue, and everything around it made up, in simulated time.
//!
//! A [`Plan`] (from a seed) says what is to be done, by how many workers, over what sort of network, and what goes wrong
//! when. [`run`] plays it: coordinators of which one leads, with series whose jobs depend on each other; workers that call,
//! run, upload and report; calls and answers that are late, lost, repeated and out of order; a store that outlives
//! coordinators and does not listen to deposed ones. While it plays, [`laws`](Violation) are looked after that the queue
//! itself knows nothing of. Nothing but the plan decides what happens: a seed can be played again.

mod laws;
mod leader;
mod plan;
mod worker;
mod world;

pub use laws::Violation;
pub use plan::{Fault, JobPlan, Nature, Network, Plan, SeriesPlan, WorkerPlan};
pub use world::{End, Outcome, config, run};
