//! What people want to know: how much is queued and why something does not run.

use serde::{Deserialize, Serialize};

use super::arena::Class;
use super::effect::{Evidence, Standing};
use super::job::{Attempt, JobId, Needs, Priority};
use super::jobs::Place;
use super::{Farm, policy};
use crate::id::{SeriesId, UserId, WorkerId};

/// The farm in figures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overview {
    /// Jobs that somebody waits for.
    pub jobs: usize,
    /// Of them those that run.
    pub running: usize,
    /// Slots of workers that get work.
    pub slots: u64,
    /// By needs: what is wanted, and who could do it.
    pub needs: Vec<NeedsView>,
    /// All workers that are known.
    pub workers: Vec<WorkerView>,
}

/// Jobs with the same needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeedsView {
    /// What they need.
    pub needs: Needs,
    /// How many there are, those that run counted in.
    pub jobs: usize,
    /// Workers that get work and can run them. None: they wait until one comes.
    pub workers: usize,
}

/// A worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerView {
    /// Its name.
    pub worker: WorkerId,
    /// It is heard.
    pub live: bool,
    /// What is thought of it.
    pub standing: Standing,
    /// How many jobs it can run at once.
    pub slots: u32,
    /// How many occupy it.
    pub used: usize,
}

/// A series that is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeriesView {
    /// Its id.
    pub series: SeriesId,
    /// Whose it is.
    pub user: UserId,
    /// How urgent it is.
    pub priority: Priority,
    /// Jobs that it waits for and that wait for a worker.
    pub queued: u64,
    /// Jobs that run for it.
    pub running: u32,
    /// How long what it waits for will take, in milliseconds, if it takes as long as expected, the series gets the slots that
    /// it would have if all series of its priority shared them evenly, and nothing more is wanted; `None` without workers.
    pub estimate_ms: Option<u64>,
}

/// A job that somebody waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobView {
    /// Which.
    pub job: JobId,
    /// What it needs.
    pub needs: Needs,
    /// Where it is.
    pub state: JobState,
    /// Who waits for it.
    pub waiters: Vec<SeriesId>,
    /// Workers that get work and can run it.
    pub workers: usize,
    /// What went wrong so far.
    pub evidence: Vec<Evidence>,
}

/// Where a job is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// It waits for a slot.
    Queued,
    /// It waits for the worker that has its lane, for a while.
    WaitsFor(WorkerId),
    /// Something went wrong; it is tried again soon.
    Delayed,
    /// It is tried again where nothing else runs, and waits for such a worker.
    WaitsAlone,
    /// It runs.
    Running {
        /// Where.
        worker: WorkerId,
        /// As which attempt.
        attempt: Attempt,
    },
}

impl Farm {
    /// The epoch of this leader.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How many jobs somebody waits for.
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether nobody waits for anything.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The farm in figures: looks at all workers, not at jobs.
    pub fn overview(&self) -> Overview {
        let now = self.clock.now();
        let workers = || self.workers.all.iter().map(|(_, worker)| worker);
        let serving = || workers().filter(|worker| worker.serves(now));
        let needs = self.classes.iter().filter(|(_, _, jobs)| *jobs > 0).map(|(class, needs, jobs)| NeedsView {
            needs: needs.clone(),
            jobs,
            workers: self.serving(class),
        });
        let view = |worker: &super::workers::Worker| WorkerView {
            worker: worker.id.clone(),
            live: worker.live,
            standing: worker.standing(now),
            slots: worker.capabilities.slots,
            used: worker.used(),
        };
        Overview {
            jobs: self.len(),
            running: workers().map(|worker| worker.leases.len()).sum(),
            slots: serving().map(|worker| u64::from(worker.capabilities.slots)).sum(),
            needs: needs.collect(),
            workers: workers().map(view).collect(),
        }
    }

    /// A series that is open.
    pub fn series(&self, id: &SeriesId) -> Option<SeriesView> {
        let key = self.fair.find(id)?;
        let series = self.fair.series(key)?;
        let now = self.clock.now();
        let serving = self.workers.all.iter().filter(|(_, worker)| worker.serves(now));
        let slots: u64 = serving.map(|(_, worker)| u64::from(worker.capabilities.slots)).sum();
        let before = self.fair.all_series().filter(|other| other.priority < series.priority);
        let before_ms: u64 = before.map(|other| other.queued_ms).fold(0, u64::saturating_add);
        let beside = self.fair.all_series().filter(|other| other.priority == series.priority);
        // With an even share, nobody who has more to do than this series delays it by more than it has itself.
        let beside_ms: u64 = beside.map(|other| other.queued_ms.min(series.queued_ms)).fold(0, u64::saturating_add);
        Some(SeriesView {
            series: id.clone(),
            user: self.fair.user_of(key)?.clone(),
            priority: series.priority,
            queued: series.queued,
            running: series.running,
            estimate_ms: before_ms.saturating_add(beside_ms).checked_div(slots),
        })
    }

    /// A job that somebody waits for.
    pub fn job(&self, id: &JobId) -> Option<JobView> {
        let key = self.jobs.find(id)?;
        let job = self.jobs.get(key)?;
        let name = |worker| self.workers.get(worker).map(|worker: &super::workers::Worker| worker.id.clone());
        let state = match job.place {
            Place::Queues | Place::Again => JobState::Queued,
            Place::Lane(worker) => JobState::WaitsFor(name(worker)?),
            Place::Delayed => JobState::Delayed,
            Place::Alone => JobState::WaitsAlone,
            Place::Running(worker) => {
                JobState::Running { worker: name(worker)?, attempt: self.attempt_of(worker, key)? }
            }
        };
        let waiters = job.waiters.as_slice().iter().filter_map(|waiter| self.fair.series(waiter.series));
        let history = job.extra.iter().flat_map(|extra| &extra.history);
        Some(JobView {
            job: *id,
            needs: self.classes.needs(job.class)?.clone(),
            state,
            waiters: waiters.map(|series| series.id.clone()).collect(),
            workers: self.serving(job.class),
            evidence: history.map(|past| past.evidence.clone()).collect(),
        })
    }

    /// How many workers get work and can run jobs of that class.
    fn serving(&self, class: Class) -> usize {
        let Some(needs) = self.classes.needs(class) else { return 0 };
        let workers = self.workers.all.iter().filter(|(_, worker)| worker.serves(self.clock.now()));
        workers.filter(|(_, worker)| policy::fits(&worker.capabilities, needs).is_ok()).count()
    }
}
