//! The jobs that somebody waits for: one small record each, found by id.

use hashbrown::HashTable;

use super::arena::{Arena, Class, JobKey, SeriesKey, WorkerKey};
use super::effect::Evidence;
use super::job::{JobId, LaneId, Priority};
use super::policy::Tally;

/// A series that waits for a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiter {
    pub(super) series: SeriesKey,
    pub(super) rank: u32,
}

/// Nearly all jobs have one waiter; that takes no memory of its own.
#[derive(Debug)]
pub(super) enum Waiters {
    One(Waiter),
    Many(Box<[Waiter]>),
}

impl Waiters {
    pub(super) fn as_slice(&self) -> &[Waiter] {
        match self {
            Self::One(waiter) => std::slice::from_ref(waiter),
            Self::Many(waiters) => waiters,
        }
    }

    pub(super) fn add(&mut self, waiter: Waiter) {
        match self {
            Self::One(first) => *self = Self::Many(Box::new([*first, waiter])),
            Self::Many(waiters) => *self = Self::Many(waiters.iter().copied().chain([waiter]).collect()),
        }
    }

    /// Takes one out; whether any is left.
    pub(super) fn remove(&mut self, series: SeriesKey) -> bool {
        match self {
            Self::One(waiter) => waiter.series != series,
            Self::Many(waiters) => {
                *waiters = waiters.iter().copied().filter(|waiter| waiter.series != series).collect();
                !waiters.is_empty()
            }
        }
    }
}

/// Where a job is. In every place but the queues each series that waits for it has it among its `elsewhere`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In the queues of the series that wait for it.
    Queues,
    /// With the worker that has its lane, until its timer runs out.
    Lane(WorkerKey),
    /// It waits for its timer before it is tried again.
    Delayed,
    /// It is to be tried again, first by workers that it did not fail on; after its timer by any.
    Again,
    /// It is to be tried again where nothing else runs.
    Alone,
    /// A worker holds the lease.
    Running(WorkerKey),
}

/// Something that went wrong, and when by the queue's own clock.
#[derive(Clone, Debug)]
pub(super) struct Past {
    pub(super) evidence: Evidence,
    pub(super) clock: u64,
}

/// What few jobs have.
#[derive(Debug, Default)]
pub(super) struct Extra {
    pub(super) lane: Option<LaneId>,
    pub(super) tally: Tally,
    pub(super) history: Vec<Past>,
    /// The job is moved at this moment.
    pub(super) timer: Option<u64>,
    /// How it is sorted where it is: priority and since when.
    pub(super) sorted: (Priority, u64),
    /// Until then it is not given to workers that it failed on.
    pub(super) avoid_until: u64,
    /// A worker is kept free for it.
    pub(super) reserved: Option<WorkerKey>,
}

impl Extra {
    /// Whether a worker should be spared, or the job from it.
    pub(super) fn avoids(&self, worker: &crate::id::WorkerId, now: u64) -> bool {
        now < self.avoid_until && self.history.iter().any(|past| past.evidence.worker == *worker)
    }
}

/// A job that somebody waits for.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: JobId,
    pub(super) waiters: Waiters,
    pub(super) place: Place,
    pub(super) class: Class,
    pub(super) expected_ms: u32,
    pub(super) limit_ms: u32,
    pub(super) extra: Option<Box<Extra>>,
}

// A million of them are kept.
const _: () = assert!(size_of::<Job>() <= 80);

impl Job {
    pub(super) fn extra_mut(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    pub(super) fn lane(&self) -> Option<LaneId> {
        self.extra.as_ref()?.lane
    }

    pub(super) fn waits(&self, series: SeriesKey) -> bool {
        self.waiters.as_slice().iter().any(|waiter| waiter.series == series)
    }
}

/// All jobs.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    jobs: Arena<JobKey, Job>,
    /// By id. Ids are digests: their own bits are the hash.
    keys: HashTable<JobKey>,
}

impl Jobs {
    pub(super) fn find(&self, id: &JobId) -> Option<JobKey> {
        let same = |key: &JobKey| self.jobs.get(*key).is_some_and(|job| job.id == *id);
        self.keys.find(id.0.head(), same).copied()
    }

    /// Adds a job whose id is not there yet.
    pub(super) fn insert(&mut self, job: Job) -> JobKey {
        let head = job.id.0.head();
        let key = self.jobs.insert(job);
        let jobs = &self.jobs;
        self.keys.insert_unique(head, key, |key| jobs.get(*key).map_or(0, |job| job.id.0.head()));
        key
    }

    pub(super) fn remove(&mut self, key: JobKey) -> Option<Job> {
        let job = self.jobs.remove(key)?;
        if let Ok(found) = self.keys.find_entry(job.id.0.head(), |other| *other == key) {
            found.remove();
        }
        Some(job)
    }

    pub(super) fn get(&self, key: JobKey) -> Option<&Job> {
        self.jobs.get(key)
    }

    pub(super) fn get_mut(&mut self, key: JobKey) -> Option<&mut Job> {
        self.jobs.get_mut(key)
    }

    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (JobKey, &Job)> {
        self.jobs.iter()
    }
}
