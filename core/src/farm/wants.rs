//! What series want, and do not want any more.

use super::Farm;
use super::arena::{JobKey, SeriesKey};
use super::effect::{Effects, Settled, Settlement};
use super::job::{JobId, Wanted};
use super::jobs::{Extra, Job, Place, Waiter, Waiters};
use crate::id::{SeriesId, WorkerId};

impl Farm {
    pub(super) fn want(&mut self, id: SeriesId, wanted: &Wanted, effects: &mut Effects) {
        let Some(series) = self.fair.find(&id) else {
            let settlement = Settlement { job: wanted.job, waiters: vec![id], settled: Settled::Closed };
            effects.settled.push(settlement);
            return;
        };
        let waiter = Waiter { series, rank: wanted.rank };
        match self.jobs.find(&wanted.job) {
            Some(key) if self.jobs.get(key).is_some_and(|job| job.waits(series)) => {}
            Some(key) => self.add_waiter(key, waiter, effects),
            None => self.add_job(wanted, waiter, effects),
        }
    }

    fn add_job(&mut self, wanted: &Wanted, waiter: Waiter, effects: &mut Effects) {
        let class = self.classes.join(&wanted.needs, &mut self.workers);
        let key = self.jobs.insert(Job {
            id: wanted.job,
            waiters: Waiters::One(waiter),
            place: Place::Delayed,
            class,
            expected_ms: wanted.expected_ms,
            limit_ms: wanted.limit_ms,
            extra: wanted.lane.map(|lane| Box::new(Extra { lane: Some(lane), ..Extra::default() })),
        });
        self.fair.keep_elsewhere(waiter.series, key);
        if let Some((worker, attempt)) = self.orphans.remove(&wanted.job) {
            self.adopt(worker, attempt, key, effects);
        } else {
            self.put(key, self.home_of(key), effects);
        }
    }

    pub(super) fn unwant(&mut self, id: &SeriesId, job: &JobId, effects: &mut Effects) {
        if let (Some(series), Some(key)) = (self.fair.find(id), self.jobs.find(job)) {
            self.remove_waiter(series, key, effects);
        }
    }

    /// A series does not wait for a job any more.
    fn remove_waiter(&mut self, series: SeriesKey, key: JobKey, effects: &mut Effects) {
        let Some(job) = self.jobs.get(key).filter(|job| job.waits(series)) else { return };
        if job.waiters.as_slice().len() == 1 {
            self.drop_job(key, effects);
            return;
        }
        let place = job.place;
        self.lift_from(series, key);
        let Some(job) = self.jobs.get_mut(key) else { return };
        job.waiters.remove(series);
        if let Place::Running(worker) = place {
            self.pass_on(worker, series, key);
        }
    }

    /// Takes a job out of what one series waits for.
    fn lift_from(&mut self, series: SeriesKey, key: JobKey) {
        let Some(job) = self.jobs.get(key) else { return };
        let waiter = job.waiters.as_slice().iter().find(|waiter| waiter.series == series);
        if let (Place::Queues, Some(waiter)) = (job.place, waiter) {
            let entry = super::fair::Entry::new(waiter.rank, job.expected_ms, key);
            self.fair.remove(series, job.class, entry);
        }
        self.fair.drop_elsewhere(series, key);
    }

    /// Nobody waits for anything of this series any more.
    pub(super) fn cancel(&mut self, id: &SeriesId, effects: &mut Effects) {
        let Some(series) = self.fair.find(id) else { return };
        // The queues are emptied at once; then each job is looked at, whether somebody else waits for it.
        for key in self.fair.clear(series) {
            self.remove_waiter(series, key, effects);
        }
        self.fair.close(series);
    }

    pub(super) fn drain(&mut self, id: &WorkerId, drain: bool, effects: &mut Effects) {
        let Some(key) = self.workers.find(id) else { return };
        if let Some(worker) = self.workers.get_mut(key) {
            worker.drained = drain;
        }
        if drain {
            self.release(key, effects);
        }
        self.wake(key, effects);
    }
}
