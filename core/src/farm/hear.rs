//! A worker calls: what it says is taken in, and answered.

use std::collections::BTreeSet;

use super::Farm;
use super::arena::WorkerKey;
use super::effect::{Answer, Assignment, Effects, Fault, Notice, Standing};
use super::event::{Ended, Report};
use super::job::{Attempt, JobId, Kind, Millis};
use super::jobs::Place;
use super::workers::{NEVER, Orphan};
use crate::outcome::Trouble;

/// What a call is, beside those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    /// The first one of a life of the worker.
    First,
    /// The next one.
    Next,
    /// The last one once more.
    Again,
    /// An earlier one, or one of an earlier life.
    Overtaken,
}

/// What becomes of an attempt that holds no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stray {
    /// It holds one now.
    Adopted,
    /// Somebody may still want it.
    Kept,
    /// It is in vain.
    Refused,
}

impl Farm {
    pub(super) fn hear(&mut self, report: &Report, effects: &mut Effects) -> Answer {
        let mut answer = Answer {
            epoch: self.epoch,
            start: Vec::new(),
            stop: Vec::new(),
            noted: Vec::new(),
            standing: Standing::Good,
            hold_ms: 0,
            call_within_ms: self.config.call_ms,
            lease_ms: self.config.lease_ms,
        };
        let key = self.workers.find_or_add(&report.worker);
        let call = self.classify(key, report);
        if call == Call::Overtaken {
            let newer = self.workers.get(key).is_some_and(|worker| worker.session > report.session);
            if newer {
                answer.standing = Standing::Replaced;
                answer.stop = report.running.iter().map(|running| running.attempt).collect();
                answer.noted = report.finished.iter().map(|finished| finished.attempt).collect();
            }
            return answer;
        }
        self.meet(key, call, report, effects);
        self.hear_finished(key, call, report, &mut answer, effects);
        self.hear_running(key, call, report, &mut answer, effects);
        self.hear_nothing_of(key, report, &mut answer);
        self.assign(key, &mut answer);
        self.dismiss(key, call, &mut answer);
        self.watch(key);
        answer
    }

    fn classify(&self, key: WorkerKey, report: &Report) -> Call {
        let Some(worker) = self.workers.get(key) else { return Call::Overtaken };
        // A worker that was never heard has session and call 0.
        match (report.session.cmp(&worker.session), report.call.cmp(&worker.call)) {
            (std::cmp::Ordering::Greater, _) => Call::First,
            (std::cmp::Ordering::Less, _) => Call::Overtaken,
            (std::cmp::Ordering::Equal, _) if !worker.met => Call::First,
            (std::cmp::Ordering::Equal, std::cmp::Ordering::Greater) => Call::Next,
            (std::cmp::Ordering::Equal, std::cmp::Ordering::Equal) => Call::Again,
            (std::cmp::Ordering::Equal, std::cmp::Ordering::Less) => Call::Overtaken,
        }
    }

    /// Takes in who calls.
    fn meet(&mut self, key: WorkerKey, call: Call, report: &Report, effects: &mut Effects) {
        if call == Call::First {
            let leases = self.workers.get(key).map(|worker| worker.leases.keys().copied().collect::<Vec<_>>());
            for attempt in leases.unwrap_or_default() {
                self.fail(key, attempt, Fault::Restarted, effects);
            }
            self.retire(key, effects);
            effects.notices.push(Notice::Joined(report.worker.clone()));
        }
        let Some(worker) = self.workers.get_mut(key) else { return };
        let (back, same_life) = (!worker.live, call != Call::First);
        worker.live = true;
        worker.met = true;
        (worker.session, worker.call) = (report.session, report.call);
        worker.held = false;
        self.classes.set_hungry(key, worker, false);
        if worker.capabilities != report.capabilities {
            worker.capabilities = report.capabilities.clone();
            worker.classes = self.classes.of(&worker.capabilities);
            // What waits for it may not fit any more.
            self.release(key, effects);
        }
        let Some(worker) = self.workers.get_mut(key) else { return };
        let begins_to_leave = report.draining && !worker.leaving;
        worker.leaving = report.draining;
        if back {
            if !same_life {
                worker.mourned.clear();
            }
            self.workers.live += 1;
            if same_life {
                self.acquit(key);
                effects.notices.push(Notice::Joined(report.worker.clone()));
            }
        }
        if begins_to_leave {
            self.release(key, effects);
        }
    }

    fn hear_finished(
        &mut self,
        key: WorkerKey,
        call: Call,
        report: &Report,
        answer: &mut Answer,
        effects: &mut Effects,
    ) {
        for finished in &report.finished {
            let stray = if self.holds(key, finished.attempt, &finished.job) {
                Stray::Adopted
            } else {
                self.stray(key, call, finished.attempt, finished.job, false, effects)
            };
            match stray {
                Stray::Adopted => {
                    self.end(key, finished.attempt, &finished.ended, effects);
                    answer.noted.push(finished.attempt);
                }
                Stray::Kept => {}
                Stray::Refused => {
                    let known = self.workers.get(key).is_some_and(|worker| worker.noted.contains(&finished.attempt));
                    // What was told to stop has nothing to say.
                    if !known && finished.ended != Ended::Trouble(Trouble::Interrupted) {
                        effects.notices.push(Notice::Refused(finished.attempt));
                    }
                    answer.noted.push(finished.attempt);
                }
            }
        }
        if let Some(worker) = self.workers.get_mut(key) {
            worker.noted = answer.noted.iter().copied().collect();
        }
    }

    fn hear_running(
        &mut self,
        key: WorkerKey,
        call: Call,
        report: &Report,
        answer: &mut Answer,
        effects: &mut Effects,
    ) {
        let now = self.clock.now();
        let mut ghosts = BTreeSet::new();
        for running in &report.running {
            let adopted = self.holds(key, running.attempt, &running.job)
                || self.stray(key, call, running.attempt, running.job, true, effects) != Stray::Refused;
            if !adopted {
                ghosts.insert(running.attempt);
                answer.stop.push(running.attempt);
            }
        }
        let Some(worker) = self.workers.get_mut(key) else { return };
        worker.ghosts.retain(|attempt, _| ghosts.contains(attempt));
        for attempt in ghosts {
            worker.ghosts.entry(attempt).or_insert(now);
        }
        // It was told to stop something, and does not.
        let stuck = worker.ghosts.values_mut().find(|since| now.saturating_sub(**since) > self.config.stop_ms);
        if let Some(since) = stuck {
            *since = now;
            self.strike(key, now, effects);
        }
    }

    /// Whether the attempt holds the lease of that job.
    fn holds(&self, key: WorkerKey, attempt: Attempt, job: &JobId) -> bool {
        let lease = self.workers.get(key).and_then(|worker| worker.leases.get(&attempt));
        lease.and_then(|lease| self.jobs.get(lease.job)).is_some_and(|found| found.id == *job)
    }

    /// Looks at an attempt that holds no lease. One of an earlier epoch is taken over when its worker is first heard, if the
    /// job is wanted and runs nowhere else; if nobody wants it yet, it is kept for a while. After that it is fenced.
    fn stray(
        &mut self,
        key: WorkerKey,
        call: Call,
        attempt: Attempt,
        id: JobId,
        running: bool,
        effects: &mut Effects,
    ) -> Stray {
        let Some(worker) = self.workers.get_mut(key) else { return Stray::Refused };
        if let Some(orphan) = worker.orphans.get_mut(&attempt) {
            orphan.running = running;
            return Stray::Kept;
        }
        let in_time = self.clock.now() < self.adopt_until;
        if call != Call::First || attempt.epoch >= self.epoch || !in_time || worker.leases.contains_key(&attempt) {
            return Stray::Refused;
        }
        match self.jobs.find(&id) {
            Some(job) if self.jobs.get(job).is_some_and(|job| matches!(job.place, Place::Running(_))) => Stray::Refused,
            Some(job) => {
                self.lift(job);
                self.adopt(key, attempt, job, effects);
                Stray::Adopted
            }
            None if self.orphans.contains_key(&id) => Stray::Refused,
            None => {
                self.orphans.insert(id, (key, attempt));
                worker.orphans.insert(attempt, Orphan { job: id, running });
                Stray::Kept
            }
        }
    }

    /// Leases and orphans that the worker does not speak of.
    fn hear_nothing_of(&mut self, key: WorkerKey, report: &Report, answer: &mut Answer) {
        let running: BTreeSet<Attempt> = report.running.iter().map(|running| running.attempt).collect();
        let finished: BTreeSet<Attempt> = report.finished.iter().map(|finished| finished.attempt).collect();
        let Some(worker) = self.workers.get_mut(key) else { return };
        worker.orphans.retain(|attempt, orphan| {
            let kept = running.contains(attempt) || finished.contains(attempt);
            if !kept {
                self.orphans.remove(&orphan.job);
            }
            kept
        });
        let mut lanes: BTreeSet<_> = report.lanes.iter().copied().collect();
        for (attempt, lease) in &worker.leases {
            let Some(job) = self.jobs.get(lease.job) else { continue };
            lanes.extend(job.lane());
            if !running.contains(attempt) {
                answer.start.push(Assignment {
                    attempt: *attempt,
                    job: job.id,
                    lane: job.lane(),
                    limit_ms: job.limit_ms,
                    lease_until: Millis(0),
                });
            }
        }
        for lane in worker.lanes.difference(&lanes) {
            if self.lanes.get(lane) == Some(&key) {
                self.lanes.remove(lane);
            }
        }
        for lane in lanes.difference(&worker.lanes) {
            self.lanes.entry(*lane).or_insert(key);
        }
        worker.lanes = lanes;
        // What runs is leased on; when the worker is next expected is added when the answer is known.
        for attempt in running {
            if let Some(lease) = worker.leases.get_mut(&attempt) {
                lease.until = NEVER;
            }
        }
    }

    /// Says when the worker has to call again.
    fn dismiss(&mut self, key: WorkerKey, call: Call, answer: &mut Answer) {
        let now = self.clock.now();
        let quiet = now < self.quiet_until;
        let Some(worker) = self.workers.get_mut(key) else { return };
        answer.standing = worker.standing(now);
        let free = worker.serves(now) && worker.has_room(Kind::Action);
        let news = !(answer.start.is_empty() && answer.stop.is_empty() && answer.noted.is_empty());
        // A worker with a free slot calls at once, and its call is held back until there is something for it.
        let wait = if worker.used() == 0 { self.config.idle_ms } else { self.config.call_ms };
        if free && !quiet && worker.orphans.is_empty() {
            (answer.hold_ms, answer.call_within_ms) = if news { (0, 0) } else { (wait, 0) };
        }
        // A call that is told once more says nothing new of the worker: it was heard when it was told first.
        match call {
            Call::First | Call::Next => worker.held_until = now.saturating_add(answer.hold_ms),
            Call::Again | Call::Overtaken => {
                answer.hold_ms = answer.hold_ms.min(worker.held_until.saturating_sub(now));
            }
        }
        worker.held = answer.hold_ms > 0;
        let hungry = worker.held && worker.reserved.is_none();
        self.classes.set_hungry(key, worker, hungry);
        let heard_by = worker.held_until.saturating_add(answer.call_within_ms);
        worker.silent_at = heard_by.saturating_add(self.config.lease_ms);
        for lease in worker.leases.values_mut().filter(|lease| lease.until == NEVER) {
            lease.until = worker.silent_at;
        }
        for assignment in &mut answer.start {
            let lease = worker.leases.get(&assignment.attempt);
            assignment.lease_until = self.clock.outside_at(lease.map_or(now, |lease| lease.until));
        }
    }
}
