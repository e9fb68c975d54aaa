//! Moving jobs from place to place.

use super::arena::{Class, JobKey, WorkerKey};
use super::effect::Effects;
use super::fair::Entry;
use super::job::Priority;
use super::jobs::{Place, Waiter};
use super::time::Timer;
use super::{Attempt, Farm};

/// How many workers are called for at once and for one class of jobs when some were forgotten.
const WOKEN: usize = 64;

impl Farm {
    /// Takes a job out of its place. It has to be put into another one, or dropped.
    pub(super) fn lift(&mut self, key: JobKey) {
        let Some(job) = self.jobs.get_mut(key) else { return };
        let (place, class, expected_ms) = (job.place, job.class, job.expected_ms);
        if let Some(timer) = job.extra.as_mut().and_then(|extra| extra.timer.take()) {
            self.timers.remove(&(timer, Timer::Job(key)));
        }
        let sorted = job.extra.as_ref().map(|extra| extra.sorted).unwrap_or_default();
        match place {
            Place::Queues => {
                for waiter in job.waiters.as_slice() {
                    self.fair.remove(waiter.series, class, Entry::new(waiter.rank, expected_ms, key));
                    self.fair.keep_elsewhere(waiter.series, key);
                }
            }
            Place::Lane(worker) => {
                if let Some(worker) = self.workers.get_mut(worker) {
                    worker.waiting.remove(&(sorted, key));
                }
            }
            Place::Again => {
                let spot = (sorted.0, class);
                if let Some(set) = self.again.get_mut(&spot) {
                    set.remove(&(sorted.1, key));
                    if set.is_empty() {
                        self.again.remove(&spot);
                    }
                }
            }
            Place::Alone => {
                self.alone.remove(&(sorted, key));
                if let Some(worker) = job.extra.as_ref().and_then(|extra| extra.reserved) {
                    self.free(worker);
                }
            }
            Place::Delayed | Place::Running(_) => {}
        }
    }

    /// Puts a job that was lifted into a place, and calls for a worker where that helps.
    pub(super) fn put(&mut self, key: JobKey, place: Place, effects: &mut Effects) {
        let now = self.clock.now();
        let urgency = self.urgency(key);
        let Some(job) = self.jobs.get_mut(key) else { return };
        job.place = place;
        let (class, expected_ms) = (job.class, job.expected_ms);
        match place {
            Place::Queues => {
                for waiter in job.waiters.as_slice() {
                    self.fair.drop_elsewhere(waiter.series, key);
                    self.fair.add(waiter.series, class, Entry::new(waiter.rank, expected_ms, key));
                }
                self.wake_one(class, None, effects);
            }
            Place::Lane(worker) => {
                let sorted = (urgency, now);
                let timer = now.saturating_add(self.config.lane_wait_ms);
                let extra = job.extra_mut();
                extra.sorted = sorted;
                extra.timer = Some(timer);
                self.timers.insert((timer, Timer::Job(key)));
                if let Some(found) = self.workers.get_mut(worker) {
                    found.waiting.insert((sorted, key));
                }
                self.wake(worker, effects);
            }
            Place::Again => {
                let timer = now.saturating_add(self.config.avoid_ms);
                let extra = job.extra_mut();
                extra.sorted = (urgency, now);
                extra.timer = Some(timer);
                self.timers.insert((timer, Timer::Job(key)));
                self.again.entry((urgency, class)).or_default().insert((now, key));
                self.wake_one(class, Some(key), effects);
            }
            Place::Alone => {
                job.extra_mut().sorted = (urgency, now);
                self.alone.insert(((urgency, now), key));
                self.wake_one(class, Some(key), effects);
            }
            Place::Delayed | Place::Running(_) => {}
        }
    }

    /// The place of a job that nothing went wrong with: with the worker that has its lane, if that takes work.
    pub(super) fn home_of(&self, key: JobKey) -> Place {
        let at_home = || {
            let job = self.jobs.get(key)?;
            let holder = *self.lanes.get(&job.lane()?)?;
            let worker = self.workers.get(holder)?;
            (worker.serves(self.clock.now()) && worker.can_run(job.class)).then_some(Place::Lane(holder))
        };
        at_home().unwrap_or(Place::Queues)
    }

    /// How urgent it is for the most urgent of those that wait.
    pub(super) fn urgency(&self, key: JobKey) -> Priority {
        let waiters = self.jobs.get(key).map(|job| job.waiters.as_slice()).unwrap_or_default();
        let priorities = waiters.iter().filter_map(|waiter| Some(self.fair.series(waiter.series)?.priority));
        priorities.min().unwrap_or_default()
    }

    /// One more series waits for a job.
    pub(super) fn add_waiter(&mut self, key: JobKey, waiter: Waiter, effects: &mut Effects) {
        let before = self.urgency(key);
        let Some(job) = self.jobs.get_mut(key) else { return };
        job.waiters.add(waiter);
        let (place, class, expected_ms) = (job.place, job.class, job.expected_ms);
        match place {
            Place::Queues => {
                self.fair.add(waiter.series, class, Entry::new(waiter.rank, expected_ms, key));
                self.wake_one(class, None, effects);
            }
            Place::Lane(_) | Place::Again | Place::Alone => {
                self.fair.keep_elsewhere(waiter.series, key);
                if self.urgency(key) < before {
                    self.lift(key);
                    self.put(key, place, effects);
                }
            }
            Place::Delayed | Place::Running(_) => self.fair.keep_elsewhere(waiter.series, key),
        }
    }

    /// Takes a job out of everything; the attempt that ran it, if any, is in vain.
    pub(super) fn drop_job(&mut self, key: JobKey, effects: &mut Effects) {
        self.lift(key);
        let Some(job) = self.jobs.remove(key) else { return };
        self.classes.leave(job.class);
        for waiter in job.waiters.as_slice() {
            self.fair.drop_elsewhere(waiter.series, key);
        }
        if let Place::Running(worker) = job.place
            && let Some(attempt) = self.attempt_of(worker, key)
        {
            self.end_lease(worker, attempt, true);
            self.wake(worker, effects);
        }
    }

    /// The attempt of a job that runs there.
    pub(super) fn attempt_of(&self, worker: WorkerKey, key: JobKey) -> Option<Attempt> {
        let leases = &self.workers.get(worker)?.leases;
        leases.iter().find(|(_, lease)| lease.job == key).map(|(attempt, _)| *attempt)
    }

    /// Calls for a worker that waits for work of that class; for a job that failed, one on which it did not.
    pub(super) fn wake_one(&mut self, class: Class, job: Option<JobKey>, effects: &mut Effects) {
        let now = self.clock.now();
        if now < self.quiet_until {
            return;
        }
        let extra = job.and_then(|job| self.jobs.get(job)?.extra.as_deref());
        let spared = |worker: &WorkerKey| {
            let worker = self.workers.get(*worker);
            worker.is_none_or(|worker| extra.is_some_and(|extra| extra.avoids(&worker.id, now)))
        };
        let found = self.classes.hungry(class).find(|worker| !spared(worker));
        if let Some(worker) = found {
            self.wake(worker, effects);
        }
    }

    /// A call that is held back is to be told once more.
    pub(super) fn wake(&mut self, key: WorkerKey, effects: &mut Effects) {
        let Some(worker) = self.workers.get_mut(key) else { return };
        if worker.live && worker.held {
            worker.held = false;
            effects.wake.push(worker.id.clone());
            self.classes.set_hungry(key, worker, false);
        }
    }

    /// Calls for workers wherever something is queued and somebody waits for work.
    pub(super) fn wake_for_waiting(&mut self, effects: &mut Effects) {
        let now = self.clock.now();
        let classes: Vec<Class> =
            self.classes.iter().filter(|(_, _, jobs)| *jobs > 0).map(|(class, ..)| class).collect();
        let mut woken = Vec::new();
        for class in classes {
            let queued = self.fair.has(class);
            let again = self.again.iter().any(|((_, other), _)| *other == class);
            let alone = self.alone.iter().any(|(_, job)| self.jobs.get(*job).is_some_and(|job| job.class == class));
            if queued || again || alone {
                woken.extend(self.classes.hungry(class).take(WOKEN));
            }
        }
        let waiting = self.workers.all.iter().filter(|(_, worker)| !worker.waiting.is_empty() && worker.serves(now));
        woken.extend(waiting.map(|(key, _)| key));
        for worker in woken {
            self.wake(worker, effects);
        }
    }
}
