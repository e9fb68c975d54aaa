//! The farm's queue: which worker runs which job, and what becomes of jobs when parts die.
//!
//! Jobs of all series and users are in one queue, each once, whoever wants it. Workers call in and say what they do
//! ([`Report`]); the answer ([`Answer`]) says what they should do. One leader owns a [`Farm`] and tells it what happens,
//! with the time; nothing else decides. The queue does not know what jobs are or what they gave: it knows digests.
//!
//! What holds:
//! - A job that a series waits for is settled for it exactly once: with the result of the attempt that holds the lease, or
//!   as trouble with the evidence. Trouble is never the fault of a patch.
//! - At most one attempt of a job holds a lease. What others say of it does not count.
//! - Everything that workers say may be lost, repeated, late or out of order.
//!
//! Assignments are not kept anywhere: a new leader begins with an empty queue and a larger epoch, is told what is still
//! wanted, and takes over what workers say they run.

mod config;
mod effect;
mod event;
mod job;

pub use config::Config;
pub use effect::{Answer, Assignment, Effects, Evidence, Fault, Notice, Settled, Settlement, Standing};
pub use event::{Ended, Event, Finished, Report, Running};
pub use job::{Attempt, Capabilities, JobId, Kind, LaneId, Millis, Needs, Platform, Priority, Share, Wanted};

/// The queue and everything that it knows of workers.
#[derive(Debug)]
pub struct Farm {
    epoch: u64,
    config: Config,
}

impl Farm {
    /// An empty queue of a leader. `epoch` is larger than that of every leader before; the first one has 1.
    pub fn new(epoch: u64, config: Config, now: Millis) -> Self {
        let _ = now;
        Self { epoch, config }
    }

    /// Takes in what happened at `now`; gives what is to be done. A time before the latest counts as the latest.
    pub fn step(&mut self, event: Event, now: Millis) -> Effects {
        let _ = (event, now, self.epoch, &self.config);
        Effects::default()
    }
}
