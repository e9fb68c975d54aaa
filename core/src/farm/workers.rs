//! What is known of workers.

use std::collections::{BTreeMap, BTreeSet};

use super::arena::{Arena, Class, JobKey, SeriesKey, WorkerKey};
use super::config::Config;
use super::effect::Standing;
use super::job::{Attempt, Capabilities, JobId, Kind, LaneId, Needs};
use super::policy;
use crate::id::WorkerId;

/// More classes of needs than this are not kept when nothing is queued in them.
const KEPT_CLASSES: usize = 1_024;

/// Later than everything.
pub(super) const NEVER: u64 = u64::MAX;

/// The right of one attempt to settle its job.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) job: JobKey,
    /// For whom it runs: whose share it counts to.
    pub(super) series: SeriesKey,
    pub(super) kind: Kind,
    pub(super) expected_ms: u32,
    pub(super) since: u64,
    /// It ends then, if the worker does not say that it runs. [`NEVER`] while a call is answered.
    pub(super) until: u64,
    /// It ends then, whatever the worker says.
    pub(super) overdue: u64,
    /// Nothing else runs on the worker.
    pub(super) alone: bool,
}

/// An attempt of an earlier epoch that nobody wants yet.
#[derive(Debug)]
pub(super) struct Orphan {
    pub(super) job: JobId,
    /// It runs; otherwise it has ended, and the worker keeps what it gave.
    pub(super) running: bool,
}

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) id: WorkerId,
    pub(super) session: u64,
    /// The number of the last call that was listened to.
    pub(super) call: u64,
    pub(super) capabilities: Capabilities,
    /// What of all that is queued it can run.
    pub(super) classes: Vec<(Class, Kind)>,
    /// It was heard at least once.
    pub(super) met: bool,
    /// It is heard.
    pub(super) live: bool,
    /// It is not, if it has not called by then.
    pub(super) silent_at: u64,
    pub(super) leases: BTreeMap<Attempt, Lease>,
    pub(super) orphans: BTreeMap<Attempt, Orphan>,
    /// What it runs without a lease, and since when it is told to stop.
    pub(super) ghosts: BTreeMap<Attempt, u64>,
    /// What it was told that need not be told again.
    pub(super) noted: BTreeSet<Attempt>,
    /// The lanes that it has, or will have.
    pub(super) lanes: BTreeSet<LaneId>,
    /// Jobs that wait for it because it has their lane: by priority and since when.
    pub(super) waiting: BTreeSet<((super::Priority, u64), JobKey)>,
    /// It wants nothing new.
    pub(super) leaving: bool,
    /// Somebody else wants it to get nothing new.
    pub(super) drained: bool,
    /// Its call may be held back.
    pub(super) held: bool,
    /// But not longer than until then.
    pub(super) held_until: u64,
    /// Its call is held back, and it has a free slot that it may fill.
    pub(super) hungry: bool,
    /// It is kept free for this job.
    pub(super) reserved: Option<JobKey>,
    /// Deaths of jobs that were put down to its silence.
    pub(super) mourned: Vec<(JobId, Attempt)>,
    /// Faults in a row that were its own.
    pub(super) faults: u32,
    pub(super) last_fault: u64,
    pub(super) last_result: u64,
    pub(super) quarantines: u32,
    pub(super) quarantined_until: u64,
    /// Something is to be looked at then.
    pub(super) timer: Option<u64>,
}

impl Worker {
    pub(super) fn new(id: WorkerId) -> Self {
        Self {
            id,
            session: 0,
            call: 0,
            capabilities: Capabilities::default(),
            classes: Vec::new(),
            met: false,
            live: false,
            silent_at: 0,
            leases: BTreeMap::new(),
            orphans: BTreeMap::new(),
            ghosts: BTreeMap::new(),
            noted: BTreeSet::new(),
            lanes: BTreeSet::new(),
            waiting: BTreeSet::new(),
            leaving: false,
            drained: false,
            held: false,
            held_until: 0,
            hungry: false,
            reserved: None,
            mourned: Vec::new(),
            faults: 0,
            last_fault: 0,
            last_result: 0,
            quarantines: 0,
            quarantined_until: 0,
            timer: None,
        }
    }

    /// It gets new work.
    pub(super) fn serves(&self, now: u64) -> bool {
        self.live && !self.leaving && !self.drained && now >= self.quarantined_until
    }

    /// What is thought of it.
    pub(super) fn standing(&self, now: u64) -> Standing {
        if self.leaving || self.drained {
            Standing::Draining
        } else if now < self.quarantined_until {
            Standing::Quarantined { for_ms: self.quarantined_until - now }
        } else {
            Standing::Good
        }
    }

    /// How many jobs occupy it.
    pub(super) fn used(&self) -> usize {
        self.leases.len() + self.ghosts.len() + self.orphans.values().filter(|orphan| orphan.running).count()
    }

    /// Whether it has room for one more job of that kind. What it runs without a lease may be of any kind.
    pub(super) fn has_room(&self, kind: Kind) -> bool {
        let limit = |slots: u32| usize::try_from(slots).unwrap_or(usize::MAX);
        let used = self.used();
        if used >= limit(self.capabilities.slots) {
            return false;
        }
        let actions = self.leases.values().filter(|lease| lease.kind == Kind::Action).count();
        kind == Kind::Action || used - actions < limit(self.capabilities.step_slots)
    }

    pub(super) fn can_run(&self, class: Class) -> bool {
        self.classes.iter().any(|(known, _)| *known == class)
    }

    /// When something of it is to be looked at next.
    pub(super) fn next_look(&self, config: &Config) -> u64 {
        if !self.live {
            return self.silent_at.saturating_add(config.forget_ms);
        }
        let leases = self.leases.values().map(|lease| lease.until.min(lease.overdue));
        leases.fold(self.silent_at, u64::min)
    }
}

/// All workers, by name too.
#[derive(Debug, Default)]
pub(super) struct Workers {
    pub(super) all: Arena<WorkerKey, Worker>,
    keys: BTreeMap<WorkerId, WorkerKey>,
    /// How many are heard.
    pub(super) live: usize,
}

impl Workers {
    pub(super) fn find(&self, id: &WorkerId) -> Option<WorkerKey> {
        self.keys.get(id).copied()
    }

    pub(super) fn find_or_add(&mut self, id: &WorkerId) -> WorkerKey {
        if let Some(key) = self.find(id) {
            return key;
        }
        let key = self.all.insert(Worker::new(id.clone()));
        self.keys.insert(id.clone(), key);
        key
    }

    pub(super) fn remove(&mut self, key: WorkerKey) {
        if let Some(worker) = self.all.remove(key) {
            self.keys.remove(&worker.id);
        }
    }

    pub(super) fn get(&self, key: WorkerKey) -> Option<&Worker> {
        self.all.get(key)
    }

    pub(super) fn get_mut(&mut self, key: WorkerKey) -> Option<&mut Worker> {
        self.all.get_mut(key)
    }
}

/// Jobs with the same needs.
#[derive(Debug)]
struct Known {
    needs: Needs,
    jobs: usize,
    /// Workers that can run them, have a free slot and whose calls are held back.
    hungry: BTreeSet<WorkerKey>,
}

/// All needs that jobs have: few, however many jobs there are.
#[derive(Debug, Default)]
pub(super) struct Classes {
    known: Arena<Class, Known>,
    keys: BTreeMap<Needs, Class>,
}

impl Classes {
    /// The class of these needs, for one more job.
    pub(super) fn join(&mut self, needs: &Needs, workers: &mut Workers) -> Class {
        if let Some(class) = self.keys.get(needs).copied() {
            if let Some(known) = self.known.get_mut(class) {
                known.jobs += 1;
            }
            return class;
        }
        if self.known.len() >= KEPT_CLASSES {
            self.drop_empty(workers);
        }
        let mut hungry = BTreeSet::new();
        let fitting = workers.all.iter_mut().filter(|(_, worker)| policy::fits(&worker.capabilities, needs).is_ok());
        let fitting: Vec<_> = fitting.collect();
        let class = self.known.insert(Known { needs: needs.clone(), jobs: 1, hungry: BTreeSet::new() });
        for (key, worker) in fitting {
            worker.classes.push((class, needs.kind));
            if worker.hungry {
                hungry.insert(key);
            }
        }
        if let Some(known) = self.known.get_mut(class) {
            known.hungry = hungry;
        }
        self.keys.insert(needs.clone(), class);
        class
    }

    /// One job less.
    pub(super) fn leave(&mut self, class: Class) {
        if let Some(known) = self.known.get_mut(class) {
            known.jobs = known.jobs.saturating_sub(1);
        }
    }

    fn drop_empty(&mut self, workers: &mut Workers) {
        let empty: BTreeSet<Class> =
            self.known.iter().filter(|(_, known)| known.jobs == 0).map(|(class, _)| class).collect();
        for class in &empty {
            if let Some(known) = self.known.remove(*class) {
                self.keys.remove(&known.needs);
            }
        }
        for (_, worker) in workers.all.iter_mut() {
            worker.classes.retain(|(class, _)| !empty.contains(class));
        }
    }

    /// What of all that is queued a worker with these capabilities can run.
    pub(super) fn of(&self, capabilities: &Capabilities) -> Vec<(Class, Kind)> {
        let fitting = self.known.iter().filter(|(_, known)| policy::fits(capabilities, &known.needs).is_ok());
        fitting.map(|(class, known)| (class, known.needs.kind)).collect()
    }

    /// A worker begins or ceases to wait for work.
    pub(super) fn set_hungry(&mut self, key: WorkerKey, worker: &mut Worker, hungry: bool) {
        if worker.hungry != hungry {
            worker.hungry = hungry;
            for (class, _) in &worker.classes {
                let Some(known) = self.known.get_mut(*class) else { continue };
                if hungry {
                    known.hungry.insert(key)
                } else {
                    known.hungry.remove(&key)
                };
            }
        }
    }

    /// Workers that wait for work of that class.
    pub(super) fn hungry(&self, class: Class) -> impl Iterator<Item = WorkerKey> {
        self.known.get(class).into_iter().flat_map(|known| known.hungry.iter().copied())
    }

    pub(super) fn needs(&self, class: Class) -> Option<&Needs> {
        self.known.get(class).map(|known| &known.needs)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Class, &Needs, usize)> {
        self.known.iter().map(|(class, known)| (class, &known.needs, known.jobs))
    }
}
