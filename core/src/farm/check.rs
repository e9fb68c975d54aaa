//! Whether everything that is written down twice agrees.

use std::collections::BTreeSet;

use super::Farm;
use super::arena::{JobKey, WorkerKey};
use super::fair::Entry;
use super::jobs::Place;
use super::time::Timer;

macro_rules! hold {
    ($condition:expr, $($what:tt)*) => {
        if !$condition {
            return Err(format!($($what)*));
        }
    };
}

impl Farm {
    /// Looks at everything: for tests, after each step.
    ///
    /// # Errors
    /// When something does not fit, what.
    pub fn check(&self) -> Result<(), String> {
        for (key, job) in self.jobs.iter() {
            self.check_job(key, job.place)?;
        }
        for (key, _) in self.workers.all.iter() {
            self.check_worker(key)?;
        }
        let leases = || self.workers.all.iter().flat_map(|(_, worker)| worker.leases.values());
        let leased: BTreeSet<JobKey> = leases().map(|lease| lease.job).collect();
        hold!(leased.len() == leases().count(), "two leases for one job");
        let running = self.jobs.iter().filter(|(_, job)| matches!(job.place, Place::Running(_))).count();
        hold!(running == leased.len(), "{running} jobs run, {} have a lease", leased.len());
        let live = self.workers.all.iter().filter(|(_, worker)| worker.live).count();
        hold!(live == self.workers.live, "{live} workers are heard, {} are counted", self.workers.live);
        let reserved = self.workers.all.iter().filter(|(_, worker)| worker.reserved.is_some()).count();
        let alone = leases().filter(|lease| lease.alone).count();
        hold!(reserved + alone == self.apart, "{reserved} + {alone} workers are apart, {} are counted", self.apart);
        for (at, timer) in &self.timers {
            let agrees = match timer {
                Timer::Worker(key) => self.workers.get(*key).is_some_and(|worker| worker.timer == Some(*at)),
                Timer::Job(key) => self
                    .jobs
                    .get(*key)
                    .is_some_and(|job| job.extra.as_ref().is_some_and(|extra| extra.timer == Some(*at))),
            };
            hold!(agrees, "a timer of nothing: {timer:?}");
        }
        for (job, (worker, attempt)) in &self.orphans {
            let orphan = self.workers.get(*worker).and_then(|worker| worker.orphans.get(attempt));
            hold!(orphan.is_some_and(|orphan| orphan.job == *job), "an orphan that its worker does not have");
        }
        hold!(self.lanes.values().all(|worker| self.workers.get(*worker).is_some()), "a lane of no worker");
        let series = leases().map(|lease| lease.series);
        self.fair.check(&series.collect::<Vec<_>>())
    }

    fn check_job(&self, key: JobKey, place: Place) -> Result<(), String> {
        let Some(job) = self.jobs.get(key) else { return Ok(()) };
        hold!(self.jobs.find(&job.id) == Some(key), "job {:?} is not found by its id", job.id);
        let waiters = job.waiters.as_slice();
        hold!(!waiters.is_empty(), "job {:?} has no waiters", job.id);
        for waiter in waiters {
            let queued = self.fair.is_queued(waiter.series, job.class, Entry::new(waiter.rank, job.expected_ms, key));
            hold!(queued == (place == Place::Queues), "job {:?} is queued or not, and in {place:?}", job.id);
            let elsewhere = self.fair.series(waiter.series).is_some_and(|series| series.elsewhere.contains(&key));
            hold!(elsewhere != queued, "job {:?} in {place:?} is elsewhere or not", job.id);
        }
        let sorted = job.extra.as_ref().map(|extra| extra.sorted).unwrap_or_default();
        let timer = job.extra.as_ref().and_then(|extra| extra.timer);
        let timed = timer.is_some_and(|timer| self.timers.contains(&(timer, Timer::Job(key))));
        let (found, wants_timer) = match place {
            Place::Queues => (true, false),
            Place::Delayed => (true, true),
            Place::Lane(worker) => {
                (self.workers.get(worker).is_some_and(|worker| worker.waiting.contains(&(sorted, key))), true)
            }
            Place::Again => {
                (self.again.get(&(sorted.0, job.class)).is_some_and(|set| set.contains(&(sorted.1, key))), true)
            }
            Place::Alone => (self.alone.contains(&(sorted, key)), false),
            Place::Running(worker) => (self.attempt_of(worker, key).is_some(), false),
        };
        hold!(found, "job {:?} is not in its place {place:?}", job.id);
        hold!(timed == wants_timer && timer.is_some() == timed, "job {:?} in {place:?} has a timer or not", job.id);
        Ok(())
    }

    fn check_worker(&self, key: WorkerKey) -> Result<(), String> {
        let Some(worker) = self.workers.get(key) else { return Ok(()) };
        let id = &worker.id;
        hold!(worker.live || (worker.leases.is_empty() && worker.orphans.is_empty()), "{id} is lost and has leases");
        for lease in worker.leases.values() {
            let place = self.jobs.get(lease.job).map(|job| job.place);
            hold!(place == Some(Place::Running(key)), "{id} has the lease of a job in {place:?}");
            let waits = self.jobs.get(lease.job).is_some_and(|job| job.waits(lease.series));
            hold!(waits, "{id} runs a job for a series that does not wait for it");
        }
        hold!(!worker.leases.values().any(|lease| lease.alone) || worker.leases.len() == 1, "{id}: not alone");
        let timed = worker.timer.is_some_and(|timer| self.timers.contains(&(timer, Timer::Worker(key))));
        hold!(timed, "nobody looks at {id}");
        hold!(worker.timer <= Some(worker.next_look(&self.config)), "{id} is looked at too late");
        for (class, _) in self.classes.of(&worker.capabilities) {
            hold!(worker.can_run(class), "{id} does not know what it can run");
            let hungry = self.classes.hungry(class).any(|other| other == key);
            hold!(hungry == worker.hungry, "{id} is hungry or not");
        }
        Ok(())
    }
}
