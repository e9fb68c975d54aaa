//! What time does: leases, delays, quarantines and waits end.

use super::arena::{JobKey, WorkerKey};
use super::effect::{Effects, Fault, Notice};
use super::job::Millis;
use super::jobs::Place;
use super::{Attempt, Farm};

/// The queue's own clock. It never goes back, and it goes on by little at a time: when the coordinator itself stood still (or
/// its clock was set), all workers would seem to have been silent for that long.
#[derive(Debug)]
pub(super) struct Clock {
    /// The latest time of the caller.
    seen: u64,
    now: u64,
    longest_gap_ms: u64,
}

impl Clock {
    pub(super) fn new(now: Millis, longest_gap_ms: u64) -> Self {
        Self { seen: now.0, now: now.0, longest_gap_ms }
    }

    pub(super) fn advance(&mut self, now: Millis) {
        let gap = now.0.saturating_sub(self.seen).min(self.longest_gap_ms);
        self.seen = self.seen.max(now.0);
        self.now = self.now.saturating_add(gap);
    }

    pub(super) fn now(&self) -> u64 {
        self.now
    }

    /// The caller's time.
    pub(super) fn outside(&self) -> Millis {
        Millis(self.seen)
    }

    /// A moment of the queue's clock that is still to come, by the caller's.
    pub(super) fn outside_at(&self, moment: u64) -> Millis {
        Millis(self.seen.saturating_add(moment.saturating_sub(self.now)))
    }
}

/// What is to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Worker(WorkerKey),
    Job(JobKey),
}

impl Farm {
    /// Does what was due.
    pub(super) fn run_timers(&mut self, effects: &mut Effects) {
        if !self.orphans.is_empty() && self.clock.now() >= self.adopt_until {
            self.abandon_orphans();
        }
        while let Some((at, timer)) = self.timers.first().copied() {
            if at > self.clock.now() {
                break;
            }
            self.timers.pop_first();
            match timer {
                Timer::Worker(key) => self.look_at(key, effects),
                Timer::Job(key) => self.move_on(key, effects),
            }
        }
    }

    /// What comes with every tick.
    pub(super) fn tick(&mut self, effects: &mut Effects) {
        self.fair.tick(self.clock.now());
        if self.clock.now() >= self.quiet_until {
            self.wake_for_waiting(effects);
        }
    }

    /// A job has waited long enough where it is.
    fn move_on(&mut self, key: JobKey, effects: &mut Effects) {
        let Some(job) = self.jobs.get_mut(key) else { return };
        let place = job.place;
        let extra = job.extra_mut();
        extra.timer = None;
        match place {
            Place::Lane(_) | Place::Again => {
                self.lift(key);
                self.put(key, Place::Queues, effects);
            }
            Place::Delayed => {
                extra.avoid_until = self.clock.now().saturating_add(self.config.avoid_ms);
                let alone = extra.tally.deaths >= self.config.alone_after;
                self.put(key, if alone { Place::Alone } else { Place::Again }, effects);
            }
            Place::Queues | Place::Alone | Place::Running(_) => {}
        }
    }

    /// Leases of a worker may have ended, or the worker may be gone.
    fn look_at(&mut self, key: WorkerKey, effects: &mut Effects) {
        let now = self.clock.now();
        let Some(worker) = self.workers.get_mut(key) else { return };
        worker.timer = None;
        if !worker.live {
            if worker.silent_at.saturating_add(self.config.forget_ms) <= now {
                self.workers.remove(key);
            } else {
                self.watch(key);
            }
            return;
        }
        if worker.silent_at <= now {
            self.lose(key, effects);
            return;
        }
        let ended: Vec<(Attempt, Fault)> = worker
            .leases
            .iter()
            .filter(|(_, lease)| lease.until.min(lease.overdue) <= now)
            .map(|(attempt, lease)| (*attempt, if lease.overdue <= now { Fault::Overdue } else { Fault::NotStarted }))
            .collect();
        for (attempt, fault) in ended {
            self.fail(key, attempt, fault, effects);
        }
        self.watch(key);
    }

    /// Sees to it that the worker is looked at in time.
    pub(super) fn watch(&mut self, key: WorkerKey) {
        let Some(worker) = self.workers.get_mut(key) else { return };
        let at = worker.next_look(&self.config);
        // An earlier look than needed does no harm, and saves moving the timer with every call.
        if worker.timer.is_none_or(|timer| timer > at) {
            if let Some(timer) = worker.timer.replace(at) {
                self.timers.remove(&(timer, Timer::Worker(key)));
            }
            self.timers.insert((at, Timer::Worker(key)));
        }
    }

    /// A worker is not heard any more.
    fn lose(&mut self, key: WorkerKey, effects: &mut Effects) {
        let Some(worker) = self.workers.get_mut(key) else { return };
        worker.live = false;
        let id = worker.id.clone();
        let left = worker.leaving && worker.leases.is_empty();
        let attempts: Vec<(Attempt, JobKey)> =
            worker.leases.iter().map(|(attempt, lease)| (*attempt, lease.job)).collect();
        let mourned = attempts.iter().filter_map(|(attempt, job)| Some((self.jobs.get(*job)?.id, *attempt)));
        worker.mourned = mourned.collect();
        self.workers.live = self.workers.live.saturating_sub(1);
        for (attempt, _) in attempts {
            self.fail(key, attempt, Fault::Silent, effects);
        }
        self.retire(key, effects);
        if left {
            effects.notices.push(Notice::Left(id));
            self.workers.remove(key);
        } else {
            effects.notices.push(Notice::Lost(id));
            self.watch(key);
        }
    }

    /// A worker gets nothing new: what waits for it goes elsewhere.
    pub(super) fn release(&mut self, key: WorkerKey, effects: &mut Effects) {
        let Some(worker) = self.workers.get_mut(key) else { return };
        self.classes.set_hungry(key, worker, false);
        let waiting: Vec<JobKey> = worker.waiting.iter().map(|(_, job)| *job).collect();
        self.free(key);
        for job in waiting {
            self.lift(job);
            self.put(job, Place::Queues, effects);
        }
    }

    /// What a life of a worker had is gone, but for its leases, which are ended one by one.
    pub(super) fn retire(&mut self, key: WorkerKey, effects: &mut Effects) {
        self.release(key, effects);
        let Some(worker) = self.workers.get_mut(key) else { return };
        worker.ghosts.clear();
        worker.noted.clear();
        for lane in std::mem::take(&mut worker.lanes) {
            if self.lanes.get(&lane) == Some(&key) {
                self.lanes.remove(&lane);
            }
        }
        for orphan in std::mem::take(&mut worker.orphans).into_values() {
            self.orphans.remove(&orphan.job);
        }
    }

    /// Nobody wanted it in time.
    fn abandon_orphans(&mut self) {
        self.orphans.clear();
        for (_, worker) in self.workers.all.iter_mut() {
            worker.orphans.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_on_by_little_and_never_back() {
        let mut clock = Clock::new(Millis(1_000), 50);
        for (told, now, outside) in [
            (1_010, 1_010, 1_010),
            (1_005, 1_010, 1_010),
            (9_000, 1_060, 9_000),
            (8_000, 1_060, 9_000),
            (9_020, 1_080, 9_020),
        ] {
            clock.advance(Millis(told));
            assert_eq!((clock.now(), clock.outside()), (now, Millis(outside)), "{told}");
        }
        assert_eq!(clock.outside_at(1_100), Millis(9_040));
    }
}
