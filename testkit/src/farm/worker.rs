//! A simulated worker: it does what the answers to its calls say.

use std::collections::BTreeMap;

use bombproof_core::farm::{
    Answer, Assignment, Attempt, Capabilities, Ended, Finished, JobId, LaneId, Report, Running, Standing,
};
use bombproof_core::id::WorkerId;
use bombproof_core::outcome::Trouble;

use super::plan::WorkerPlan;

/// How many lanes a worker keeps.
const LANES: usize = 4;

/// What a worker does after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It calls again after so long.
    Call(u64),
    /// It has ended.
    Exit,
}

#[derive(Debug)]
pub(super) struct SimWorker {
    pub(super) id: WorkerId,
    capabilities: Capabilities,
    pub(super) up: bool,
    /// One life after the other.
    pub(super) session: u64,
    pub(super) paused_until: u64,
    pub(super) cut_until: u64,
    pub(super) disk_full_until: u64,
    call: u64,
    /// The call that it waits for.
    pub(super) outstanding: Option<u64>,
    pub(super) running: BTreeMap<Attempt, JobId>,
    pub(super) finished: Vec<Finished>,
    lanes: Vec<LaneId>,
    pub(super) draining: bool,
    /// The latest epoch that it has seen.
    epoch: u64,
    /// The coordinator that it thinks leads.
    pub(super) leader: usize,
}

impl SimWorker {
    pub(super) fn new(plan: &WorkerPlan) -> Self {
        let (slots, step_slots) = (plan.slots, plan.step_slots);
        Self {
            id: plan.id.clone(),
            capabilities: Capabilities { platforms: plan.platforms().collect(), slots, step_slots },
            up: false,
            session: 0,
            paused_until: 0,
            cut_until: 0,
            disk_full_until: 0,
            call: 0,
            outstanding: None,
            running: BTreeMap::new(),
            finished: Vec::new(),
            lanes: Vec::new(),
            draining: false,
            epoch: 0,
            leader: 0,
        }
    }

    /// A new life. What is on its disk is still there.
    pub(super) fn start(&mut self) {
        self.up = true;
        self.session += 1;
        (self.call, self.epoch, self.outstanding, self.draining) = (0, 0, None, false);
    }

    pub(super) fn die(&mut self) {
        self.up = false;
        self.running.clear();
        self.finished.clear();
    }

    pub(super) fn runs(&self) -> Vec<JobId> {
        self.running.values().copied().collect()
    }

    /// The next call; an earlier one that was not answered yet is given up.
    pub(super) fn report(&mut self) -> Report {
        self.call += 1;
        self.outstanding = Some(self.call);
        let running = self.running.iter().map(|(attempt, job)| Running { attempt: *attempt, job: *job });
        Report {
            worker: self.id.clone(),
            session: self.session,
            call: self.call,
            capabilities: self.capabilities.clone(),
            lanes: self.lanes.clone(),
            running: running.collect(),
            finished: self.finished.clone(),
            draining: self.draining,
        }
    }

    /// Takes in an answer; gives what it starts, and what it does next. `None`: it does not listen to it.
    pub(super) fn hear(&mut self, session: u64, call: u64, answer: &Answer) -> Option<(Vec<Assignment>, Next)> {
        if !self.up || session != self.session || self.outstanding != Some(call) || answer.epoch < self.epoch {
            return None;
        }
        (self.outstanding, self.epoch) = (None, answer.epoch);
        self.finished.retain(|finished| !answer.noted.contains(&finished.attempt));
        for attempt in &answer.stop {
            self.running.remove(attempt);
        }
        if answer.standing == Standing::Replaced {
            return Some((Vec::new(), Next::Exit));
        }
        let mut started = Vec::new();
        for start in &answer.start {
            let known = self.running.contains_key(&start.attempt)
                || self.finished.iter().any(|finished| finished.attempt == start.attempt);
            if known {
                continue;
            }
            self.running.insert(start.attempt, start.job);
            if let Some(lane) = start.lane {
                self.lanes.retain(|other| *other != lane);
                self.lanes.insert(0, lane);
                self.lanes.truncate(LANES);
            }
            started.push(start.clone());
        }
        if self.draining && self.running.is_empty() && self.finished.is_empty() {
            return Some((Vec::new(), Next::Exit));
        }
        let wait = if self.finished.is_empty() { answer.call_within_ms } else { 0 };
        Some((started, Next::Call(wait)))
    }

    /// An attempt has ended.
    pub(super) fn end(&mut self, attempt: Attempt, ended: Ended) {
        if let Some(job) = self.running.remove(&attempt) {
            self.finished.push(Finished { attempt, job, ended });
        }
    }

    /// It cannot wait any longer: it gives everything back.
    pub(super) fn give_back(&mut self) {
        for (attempt, job) in std::mem::take(&mut self.running) {
            self.finished.push(Finished { attempt, job, ended: Ended::Trouble(Trouble::Interrupted) });
        }
    }
}
