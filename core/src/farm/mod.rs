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
//! - What an assignment costs does not depend on how much is queued.
//!
//! Assignments are not kept anywhere: a new leader begins with an empty queue and a larger epoch, is told what is still
//! wanted, and takes over what workers say they run.
//!
//! Where to look: whose turn it is, `fair`; what is wanted, `wants`; what a worker says, `hear`; what it gets, `assign`; what
//! an ended attempt means, `ending`; what time does, `time`; rules without a state, `policy`.

use std::collections::{BTreeMap, BTreeSet};

mod arena;
mod assign;
mod check;
mod config;
mod effect;
mod ending;
mod event;
mod fair;
mod figures;
mod hear;
mod job;
mod jobs;
mod place;
mod policy;
#[cfg(test)]
mod tests;
mod time;
mod usage;
mod view;
mod wants;
mod workers;

pub use config::Config;
pub use effect::{Answer, Assignment, Effects, Evidence, Fault, Notice, Settled, Settlement, Standing};
pub use event::{Ended, Event, Finished, Report, Running};
pub use figures::Figures;
pub use job::{Attempt, Capabilities, JobId, Kind, LaneId, Millis, Needs, Platform, Priority, Share, Wanted};
pub use policy::{Misfit, fits};
pub use view::{JobState, JobView, NeedsView, Overview, SeriesView, WorkerView};

use arena::{Class, JobKey, WorkerKey};
use fair::Fair;
use jobs::Jobs;
use time::{Clock, Timer};
use workers::{Classes, Workers};

/// The queue and everything that it knows of workers.
#[derive(Debug)]
pub struct Farm {
    epoch: u64,
    config: Config,
    clock: Clock,
    /// The number of the last attempt.
    number: u64,
    fair: Fair,
    jobs: Jobs,
    classes: Classes,
    workers: Workers,
    /// Jobs that are tried again, in the order in which they were given back.
    again: BTreeMap<(Priority, Class), BTreeSet<(u64, JobKey)>>,
    /// Jobs that are to be run where nothing else runs.
    alone: BTreeSet<((Priority, u64), JobKey)>,
    /// How many workers are kept free for them, or run one.
    apart: usize,
    /// Who has which lane.
    lanes: BTreeMap<LaneId, WorkerKey>,
    /// What workers have of an earlier epoch that nobody wants yet.
    orphans: BTreeMap<JobId, (WorkerKey, Attempt)>,
    timers: BTreeSet<(u64, Timer)>,
    /// Nothing is assigned before.
    quiet_until: u64,
    /// What workers have of an earlier epoch is waited for until then.
    adopt_until: u64,
}

impl Farm {
    /// An empty queue of a leader. `epoch` is larger than that of every leader before; the first one has 1.
    pub fn new(epoch: u64, config: Config, now: Millis) -> Self {
        let clock = Clock::new(now, config.longest_gap_ms);
        let start = clock.now();
        let takes_over = epoch > 1;
        let after = |ms: u64| if takes_over { start.saturating_add(ms) } else { start };
        let (quiet_until, adopt_until) = (after(config.quiet_ms), after(config.adopt_ms));
        Self {
            epoch,
            clock,
            number: 0,
            fair: Fair::new(config.share, config.half_life_ms, start),
            jobs: Jobs::default(),
            classes: Classes::default(),
            workers: Workers::default(),
            again: BTreeMap::new(),
            alone: BTreeSet::new(),
            apart: 0,
            lanes: BTreeMap::new(),
            orphans: BTreeMap::new(),
            timers: BTreeSet::new(),
            quiet_until,
            adopt_until,
            config,
        }
    }

    /// Takes in what happened at `now`; gives what is to be done. A time before the latest counts as the latest.
    pub fn step(&mut self, event: Event, now: Millis) -> Effects {
        let mut effects = Effects::default();
        self.clock.advance(now);
        self.run_timers(&mut effects);
        match event {
            Event::UserSet { user, share } => self.fair.set_share(&user, share),
            Event::SeriesOpened { series, user, priority } => self.fair.open(&series, &user, priority),
            Event::JobWanted { series, job } => self.want(series, &job, &mut effects),
            Event::JobUnwanted { series, job } => self.unwant(&series, &job, &mut effects),
            Event::SeriesCancelled { series } => self.cancel(&series, &mut effects),
            Event::WorkerSynchronized(report) => {
                let answer = self.hear(&report, &mut effects);
                effects.answer = Some(answer);
            }
            Event::WorkerDrained { worker, drain } => self.drain(&worker, drain, &mut effects),
            Event::Tick => self.tick(&mut effects),
        }
        effects
    }
}
