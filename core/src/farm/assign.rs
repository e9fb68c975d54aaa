//! What a worker with free slots gets.

use super::Farm;
use super::arena::{Class, JobKey, SeriesKey, WorkerKey};
use super::effect::{Answer, Assignment, Effects, Notice};
use super::job::{Attempt, Kind, Millis, Priority};
use super::jobs::Place;
use super::workers::{Lease, NEVER};

/// How many of the jobs that wait for a worker, or are tried again, are looked at: those that cannot go now are few.
const LOOK_AT: usize = 16;

const CLASSES: [Priority; 3] = [Priority::Gate, Priority::Normal, Priority::Nightly];

/// A job, and the series that it runs for.
#[derive(Clone, Copy, Debug)]
struct Choice {
    job: JobKey,
    series: SeriesKey,
    alone: bool,
}

impl Farm {
    /// Fills the free slots of a worker.
    pub(super) fn assign(&mut self, key: WorkerKey, answer: &mut Answer) {
        if self.clock.now() < self.quiet_until {
            return;
        }
        while let Some(choice) = self.choose(key) {
            self.lift(choice.job);
            let Some(assignment) = self.give(key, choice) else { break };
            answer.start.push(assignment);
        }
    }

    /// The next job for a worker, if it has room for one.
    fn choose(&mut self, key: WorkerKey) -> Option<Choice> {
        let now = self.clock.now();
        let worker = self.workers.get(key).filter(|worker| worker.serves(now) && worker.has_room(Kind::Action))?;
        if worker.leases.values().any(|lease| lease.alone) {
            return None;
        }
        if !self.alone.is_empty()
            && let Some(job) = worker.reserved.or_else(|| self.suspect_for(key))
        {
            let (idle, reserved) = (worker.used() == 0, worker.reserved.is_some());
            match self.whose(job) {
                Some((_, _, series)) if idle => return Some(Choice { job, series, alone: true }),
                Some(_) if !reserved => self.reserve(key, job),
                Some(_) => {}
                // Its users have as many as they may have: the worker is not kept for it.
                None => self.free(key),
            }
            if self.workers.get(key)?.reserved.is_some() {
                return None;
            }
        }
        let worker = self.workers.get(key)?;
        let steps = worker.has_room(Kind::Step);
        let fitting = worker.classes.iter().filter(|(_, kind)| steps || *kind == Kind::Action);
        let classes: Vec<Class> = fitting.map(|(class, _)| *class).collect();
        let every = u64::from(self.config.courtesy_every);
        let courtesy = every > 0 && (self.number + 1).is_multiple_of(every);
        let in_order = |index: usize| CLASSES[if courtesy { CLASSES.len() - 1 - index } else { index }];
        (0..CLASSES.len()).find_map(|index| self.choose_of(key, in_order(index), &classes))
    }

    /// The next job of one priority. What has its lane here, or was tried before, goes first among equals: one user's is
    /// not taken before what another user has more right to.
    fn choose_of(&self, key: WorkerKey, priority: Priority, classes: &[Class]) -> Option<Choice> {
        let queued = self.fair.pick(priority, classes);
        let limit = queued.map_or(u64::MAX, |pick| pick.running);
        let special = self.at_home(key, priority, classes, limit).or_else(|| self.again(key, priority, classes, limit));
        special.or(queued.map(|pick| Choice { job: pick.job, series: pick.series, alone: false }))
    }

    /// A job whose lane the worker has.
    fn at_home(&self, key: WorkerKey, priority: Priority, classes: &[Class], limit: u64) -> Option<Choice> {
        let waiting = &self.workers.get(key)?.waiting;
        let from = ((priority, 0), JobKey::default());
        let jobs = waiting.range(from..).take_while(|(sorted, _)| sorted.0 == priority).take(LOOK_AT);
        jobs.map(|(_, job)| *job).find_map(|job| {
            let fits = classes.contains(&self.jobs.get(job)?.class);
            self.within(job, limit).filter(|_| fits)
        })
    }

    /// A job that is tried again.
    fn again(&self, key: WorkerKey, priority: Priority, classes: &[Class], limit: u64) -> Option<Choice> {
        let worker = &self.workers.get(key)?.id;
        let sets = classes.iter().filter_map(|class| self.again.get(&(priority, *class)));
        let mut jobs: Vec<(u64, JobKey)> = sets.flat_map(|set| set.iter().take(LOOK_AT).copied()).collect();
        jobs.sort_unstable();
        jobs.into_iter().find_map(|(_, job)| {
            let extra = self.jobs.get(job)?.extra.as_deref();
            let avoids = extra.is_some_and(|extra| extra.avoids(worker, self.clock.now()));
            self.within(job, limit).filter(|_| !avoids)
        })
    }

    /// For whom a job would run, if nobody has more right to the slot.
    fn within(&self, job: JobKey, limit: u64) -> Option<Choice> {
        let (_, running, series) = self.whose(job)?;
        (running <= limit).then_some(Choice { job, series, alone: false })
    }

    /// For which of those that wait for it a job would run.
    fn whose(&self, job: JobKey) -> Option<(Priority, u64, SeriesKey)> {
        self.fair.turn_of(self.jobs.get(job)?.waiters.as_slice().iter().map(|waiter| waiter.series))
    }

    /// A job that has to run alone and could do so here; nobody else is kept free for it.
    fn suspect_for(&self, key: WorkerKey) -> Option<JobKey> {
        let worker = self.workers.get(key)?;
        let most = (self.workers.live / usize::try_from(self.config.alone_part.max(1)).unwrap_or(usize::MAX)).max(1);
        if self.apart >= most {
            return None;
        }
        self.alone.iter().take(4 * LOOK_AT).map(|(_, key)| *key).find(|key| {
            let Some(job) = self.jobs.get(*key) else { return false };
            let Some(extra) = job.extra.as_deref() else { return false };
            let free = extra.reserved.is_none() && !extra.avoids(&worker.id, self.clock.now());
            free && worker.can_run(job.class) && self.whose(*key).is_some()
        })
    }

    /// Keeps a worker free for a job.
    fn reserve(&mut self, key: WorkerKey, job: JobKey) {
        if let (Some(worker), Some(found)) = (self.workers.get_mut(key), self.jobs.get_mut(job)) {
            worker.reserved = Some(job);
            found.extra_mut().reserved = Some(key);
            self.apart += 1;
        }
    }

    /// Keeps it free no longer.
    pub(super) fn free(&mut self, key: WorkerKey) {
        let Some(job) = self.workers.get_mut(key).and_then(|worker| worker.reserved.take()) else { return };
        self.apart = self.apart.saturating_sub(1);
        if let Some(job) = self.jobs.get_mut(job) {
            job.extra_mut().reserved = None;
        }
    }

    /// Gives a worker the lease of a job that was lifted.
    fn give(&mut self, key: WorkerKey, choice: Choice) -> Option<Assignment> {
        self.number += 1;
        let attempt = Attempt { epoch: self.epoch, number: self.number };
        self.lease(key, attempt, choice, NEVER);
        let job = self.jobs.get(choice.job)?;
        // The end of the lease is filled in when the answer is known.
        Some(Assignment { attempt, job: job.id, lane: job.lane(), limit_ms: job.limit_ms, lease_until: Millis(0) })
    }

    /// Lets an attempt of an earlier epoch go on, as the one that holds the lease.
    pub(super) fn adopt(&mut self, key: WorkerKey, attempt: Attempt, job: JobKey, effects: &mut Effects) {
        let Some(worker) = self.workers.get_mut(key) else { return };
        worker.orphans.remove(&attempt);
        let until = worker.silent_at;
        let waiters = self.jobs.get(job).map(|job| job.waiters.as_slice()).unwrap_or_default();
        // It runs, so it counts to somebody, even to one who has as many as he may have.
        let any = waiters.first().map(|waiter| waiter.series);
        let Some(series) = self.whose(job).map(|(_, _, series)| series).or(any) else { return };
        self.lease(key, attempt, Choice { job, series, alone: false }, until);
        self.watch(key);
        effects.notices.push(Notice::Adopted(attempt));
    }

    fn lease(&mut self, key: WorkerKey, attempt: Attempt, choice: Choice, until: u64) {
        let now = self.clock.now();
        let Some(job) = self.jobs.get_mut(choice.job) else { return };
        let Some(worker) = self.workers.get_mut(key) else { return };
        let kind = self.classes.needs(job.class).map_or(Kind::Action, |needs| needs.kind);
        let limit_ms = u64::from(job.limit_ms).saturating_add(self.config.overdue_ms);
        let lease = Lease {
            job: choice.job,
            series: choice.series,
            kind,
            expected_ms: job.expected_ms,
            since: now,
            until,
            overdue: now.saturating_add(limit_ms),
            alone: choice.alone,
        };
        worker.leases.insert(attempt, lease);
        self.apart += usize::from(choice.alone);
        job.place = Place::Running(key);
        self.fair.started(choice.series, job.expected_ms, now);
        if let Some(lane) = job.lane() {
            worker.lanes.insert(lane);
            self.lanes.insert(lane, key);
        }
    }
}
