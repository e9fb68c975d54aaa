//! What it means that an attempt ended, or went wrong.

use super::arena::{JobKey, SeriesKey, WorkerKey};
use super::effect::{Effects, Evidence, Fault, Notice, Settled, Settlement};
use super::event::Ended;
use super::jobs::{Past, Place};
use super::policy::{self, Next};
use super::workers::Lease;
use super::{Attempt, Farm};

impl Farm {
    /// The attempt that holds the lease has ended.
    pub(super) fn end(&mut self, key: WorkerKey, attempt: Attempt, ended: &Ended, effects: &mut Effects) {
        match ended {
            Ended::Trouble(trouble) => self.fail(key, attempt, Fault::Trouble(trouble.clone()), effects),
            Ended::Result { digest } => {
                let Some(lease) = self.end_lease(key, attempt, true) else { return };
                let Some(worker) = self.workers.get_mut(key) else { return };
                (worker.faults, worker.quarantines, worker.last_result) = (0, 0, self.clock.now());
                let settled = Settled::Result { digest: *digest, attempt, worker: worker.id.clone() };
                self.blame_others(lease.job, key, effects);
                self.settle(lease.job, settled, effects);
            }
        }
    }

    /// Takes the lease of an attempt back. `counts`: what it took counts to those that it ran for.
    pub(super) fn end_lease(&mut self, key: WorkerKey, attempt: Attempt, counts: bool) -> Option<Lease> {
        let lease = self.workers.get_mut(key)?.leases.remove(&attempt)?;
        let took = counts.then(|| self.clock.now().saturating_sub(lease.since));
        self.fair.ended(lease.series, lease.expected_ms, lease.since, took);
        self.apart = self.apart.saturating_sub(usize::from(lease.alone));
        Some(lease)
    }

    /// A job that runs counts to another one of those that wait for it.
    pub(super) fn pass_on(&mut self, worker: WorkerKey, from: SeriesKey, key: JobKey) {
        let Some(waiter) = self.jobs.get(key).and_then(|job| job.waiters.as_slice().first()).copied() else { return };
        let leases = self.workers.get_mut(worker).map(|worker| worker.leases.values_mut());
        let Some(lease) = leases.into_iter().flatten().find(|lease| lease.job == key && lease.series == from) else {
            return;
        };
        lease.series = waiter.series;
        let (expected_ms, since) = (lease.expected_ms, lease.since);
        self.fair.ended(from, expected_ms, since, None);
        self.fair.started(waiter.series, expected_ms, since);
    }

    /// Tells all that wait.
    fn settle(&mut self, key: JobKey, settled: Settled, effects: &mut Effects) {
        let Some(job) = self.jobs.get(key) else { return };
        let waiters = job.waiters.as_slice().iter().filter_map(|waiter| self.fair.series(waiter.series));
        let waiters = waiters.map(|series| series.id.clone()).collect();
        effects.settled.push(Settlement { job: job.id, waiters, settled });
        self.drop_job(key, effects);
    }

    /// The attempt that held the lease gives no answer.
    pub(super) fn fail(&mut self, key: WorkerKey, attempt: Attempt, fault: Fault, effects: &mut Effects) {
        let Some(lease) = self.end_lease(key, attempt, policy::is_timeout(&fault)) else { return };
        let Some(worker) = self.workers.get(key) else { return };
        let leaving = worker.leaving || worker.drained;
        let evidence =
            Evidence { attempt, worker: worker.id.clone(), at: self.clock.outside(), fault, alone: lease.alone };
        let clock = self.clock.now();
        let Some(job) = self.jobs.get_mut(lease.job) else { return };
        let id = job.id;
        let extra = job.extra_mut();
        let next = policy::judge(&self.config, &mut extra.tally, &evidence.fault, leaving);
        if next != Next::Back {
            extra.history.push(Past { evidence: evidence.clone(), clock });
        }
        match next {
            Next::Back => {
                self.put(lease.job, Place::Again, effects);
            }
            Next::Again { after_ms } => {
                let timer = clock.saturating_add(after_ms);
                extra.timer = Some(timer);
                job.place = Place::Delayed;
                self.timers.insert((timer, super::time::Timer::Job(lease.job)));
                effects.notices.push(Notice::Retried { job: id, evidence });
            }
            Next::Over => {
                let evidence: Vec<Evidence> = extra.history.drain(..).map(|past| past.evidence).collect();
                let trouble = policy::verdict(&evidence);
                self.settle(lease.job, Settled::Trouble { trouble, evidence }, effects);
            }
        }
    }

    /// A job came to an end on a worker: where it did not before, the worker was to blame.
    fn blame_others(&mut self, job: JobKey, finisher: WorkerKey, effects: &mut Effects) {
        let Some(extra) = self.jobs.get_mut(job).and_then(|job| job.extra.as_mut()) else { return };
        for past in std::mem::take(&mut extra.history) {
            if let Some(key) = self.workers.find(&past.evidence.worker)
                && key != finisher
                && policy::tells_of_worker(&past.evidence.fault)
            {
                self.strike(key, past.clock, effects);
            }
        }
    }

    /// Something went wrong on a worker at that moment, and it was not the job. What went wrong at one moment counts once:
    /// one loss of a worker hits all that it ran.
    pub(super) fn strike(&mut self, key: WorkerKey, at: u64, effects: &mut Effects) {
        let now = self.clock.now();
        let Some(worker) = self.workers.get_mut(key) else { return };
        if at <= worker.last_result || at <= worker.last_fault {
            return;
        }
        worker.last_fault = at;
        worker.faults += 1;
        if worker.faults < self.config.quarantine_after || now < worker.quarantined_until {
            return;
        }
        let for_ms = policy::quarantine(&self.config, worker.quarantines);
        worker.quarantines += 1;
        worker.quarantined_until = now.saturating_add(for_ms);
        let worker = worker.id.clone();
        effects.notices.push(Notice::Quarantined { worker, for_ms });
        self.release(key, effects);
    }

    /// A worker that was thought dead goes on with what it ran: it was cut off, or stood still. Nothing was killed.
    pub(super) fn acquit(&mut self, key: WorkerKey) {
        let Some(worker) = self.workers.get_mut(key) else { return };
        for (id, attempt) in std::mem::take(&mut worker.mourned) {
            let Some(job) = self.jobs.find(&id).and_then(|key| self.jobs.get_mut(key)) else { continue };
            let Some(extra) = job.extra.as_deref_mut() else { continue };
            let found = extra.history.iter_mut().find(|past| past.evidence.attempt == attempt);
            if let Some(past) = found.filter(|past| past.evidence.fault == Fault::Silent) {
                past.evidence.fault = Fault::CutOff;
                extra.tally.deaths = extra.tally.deaths.saturating_sub(1);
            }
        }
    }
}
