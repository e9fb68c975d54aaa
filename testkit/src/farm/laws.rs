//! What has to hold, seen from outside of the queue.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bombproof_core::digest::{Digest, DigestBuilder};
use bombproof_core::farm::{Answer, Attempt, Evidence, Fault, JobId, Notice, Report, Settled, Settlement};
use bombproof_core::id::{SeriesId, WorkerId};
use bombproof_core::outcome::{Blame, Trouble};
use thiserror::Error;

use super::plan::{Nature, Plan};

/// How many lines of what happened are kept.
const LINES: usize = 300;

/// Something that must never happen, with what happened before it.
#[derive(Debug, Error)]
#[error("at {at} ms: {what}\n{}", before.join("\n"))]
pub struct Violation {
    /// When, in simulated milliseconds.
    pub at: u64,
    /// What.
    pub what: String,
    /// The last lines of the log.
    pub before: Vec<String>,
}

macro_rules! law {
    ($laws:expr, $holds:expr, $($what:tt)*) => {
        if !$holds {
            return Err($laws.violation(format!($($what)*)));
        }
    };
}
pub(super) use law;

/// A right to settle a job, as answers to workers gave it.
#[derive(Clone, Debug)]
struct Grant {
    job: JobId,
    worker: WorkerId,
    /// When the leader last heard from the worker that it has it, or gave it.
    heard: u64,
    live: bool,
}

/// What is known of one leader.
#[derive(Clone, Debug, Default)]
struct Reign {
    waiting: BTreeSet<(SeriesId, JobId)>,
    grants: BTreeMap<Attempt, Grant>,
    /// When each worker was heard last, and with which call.
    heard: BTreeMap<WorkerId, (u64, (u64, u64))>,
}

/// How often a job was hit.
#[derive(Clone, Copy, Debug, Default)]
struct Hits {
    deaths: u32,
    faults: u32,
}

#[derive(Debug)]
pub(super) struct Laws {
    pub(super) now: u64,
    lease_ms: u64,
    endurable: bool,
    natures: BTreeMap<JobId, Nature>,
    reigns: BTreeMap<u64, Reign>,
    /// Whose each attempt was when it was first given.
    origins: BTreeMap<Attempt, (JobId, WorkerId)>,
    hits: BTreeMap<JobId, Hits>,
    /// Workers that something happened to.
    struck: BTreeSet<WorkerId>,
    /// Something happened that looks to a leader as if all workers were silent.
    blackouts: bool,
    lines: VecDeque<String>,
    /// All that happened, as one number: two runs of one plan have the same.
    pub(super) trace: Digest,
    pub(super) refused: u64,
    pub(super) retried: u64,
    pub(super) adopted: u64,
}

impl Laws {
    pub(super) fn new(plan: &Plan, lease_ms: u64) -> Self {
        Self {
            now: 0,
            lease_ms,
            endurable: plan.endurable,
            natures: plan.jobs.iter().map(|(id, job)| (*id, job.nature)).collect(),
            reigns: BTreeMap::new(),
            origins: BTreeMap::new(),
            hits: BTreeMap::new(),
            struck: BTreeSet::new(),
            blackouts: false,
            lines: VecDeque::new(),
            trace: Digest::of(b""),
            refused: 0,
            retried: 0,
            adopted: 0,
        }
    }

    pub(super) fn violation(&self, what: String) -> Violation {
        Violation { at: self.now, what, before: self.lines.iter().cloned().collect() }
    }

    pub(super) fn log(&mut self, line: &str) {
        let line = format!("{:>8} {line}", self.now);
        self.trace =
            DigestBuilder::new("trace").field(self.trace.to_string().as_bytes()).field(line.as_bytes()).finish();
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    pub(super) fn nature(&self, job: &JobId) -> Nature {
        self.natures.get(job).copied().unwrap_or(Nature::Good)
    }

    pub(super) fn reigns(&mut self, epoch: u64) {
        self.log(&format!("leader of epoch {epoch} begins"));
        self.reigns.insert(epoch, Reign::default());
    }

    pub(super) fn blackout(&mut self) {
        self.blackouts = true;
    }

    pub(super) fn waits(&mut self, epoch: u64, series: &SeriesId, job: JobId) {
        if let Some(reign) = self.reigns.get_mut(&epoch) {
            reign.waiting.insert((series.clone(), job));
        }
    }

    /// Whether a series waits for a job in that epoch.
    pub(super) fn is_waiting(&self, epoch: u64, series: &SeriesId, job: JobId) -> bool {
        self.reigns.get(&epoch).is_some_and(|reign| reign.waiting.contains(&(series.clone(), job)))
    }

    pub(super) fn gives_up(&mut self, epoch: u64, series: &SeriesId) {
        let Some(reign) = self.reigns.get_mut(&epoch) else { return };
        reign.waiting.retain(|(waiter, _)| waiter != series);
        let wanted: BTreeSet<JobId> = reign.waiting.iter().map(|(_, job)| *job).collect();
        for grant in reign.grants.values_mut().filter(|grant| !wanted.contains(&grant.job)) {
            grant.live = false;
        }
    }

    pub(super) fn still_waiting(&self, epoch: u64) -> usize {
        self.reigns.get(&epoch).map_or(0, |reign| reign.waiting.len())
    }

    /// The leader takes in what a worker says.
    pub(super) fn hears(&mut self, epoch: u64, report: &Report) {
        let now = self.now;
        let Some(reign) = self.reigns.get_mut(&epoch) else { return };
        let call = (report.session, report.call);
        // A call that comes again, or too late, tells nothing of the worker.
        if reign.heard.get(&report.worker).is_some_and(|(_, last)| *last >= call) {
            return;
        }
        reign.heard.insert(report.worker.clone(), (now, call));
        for running in &report.running {
            let grant = reign.grants.get_mut(&running.attempt).filter(|grant| grant.live);
            if let Some(grant) = grant.filter(|grant| grant.worker == report.worker) {
                grant.heard = now;
            }
        }
    }

    /// It has taken note of what has ended: that holds no lease any more, whether it settled its job or not.
    fn notes(&mut self, worker: &WorkerId, answer: &Answer) {
        let Some(reign) = self.reigns.get_mut(&answer.epoch) else { return };
        for attempt in &answer.noted {
            if let Some(grant) = reign.grants.get_mut(attempt).filter(|grant| grant.worker == *worker) {
                grant.live = false;
            }
        }
    }

    /// A leader answers a worker.
    pub(super) fn answers(&mut self, worker: &WorkerId, answer: &Answer) -> Result<(), Violation> {
        self.notes(worker, answer);
        for start in &answer.start {
            self.grant(answer.epoch, start.attempt, start.job, worker)?;
        }
        Ok(())
    }

    fn grant(&mut self, epoch: u64, attempt: Attempt, job: JobId, worker: &WorkerId) -> Result<(), Violation> {
        let origin = self.origins.entry(attempt).or_insert_with(|| (job, worker.clone())).clone();
        law!(self, origin == (job, worker.clone()), "attempt {attempt} is given twice");
        let (now, lease_ms, blackouts) = (self.now, self.lease_ms, self.blackouts);
        let Some(reign) = self.reigns.get_mut(&epoch) else { return Ok(()) };
        if reign.grants.get(&attempt).is_some_and(|grant| grant.live) {
            return Ok(());
        }
        let rival = reign.grants.iter().find(|(other, grant)| **other != attempt && grant.job == job && grant.live);
        if let Some((other, grant)) = rival {
            let ended = blackouts || now >= grant.heard + lease_ms;
            let (other, holder) = (*other, grant.worker.clone());
            law!(self, ended, "{attempt} of {job:?} is given to {worker} while {holder} holds the lease as {other}");
            if let Some(grant) = self.reigns.get_mut(&epoch).and_then(|reign| reign.grants.get_mut(&other)) {
                grant.live = false;
            }
        }
        if let Some(reign) = self.reigns.get_mut(&epoch) {
            let heard = reign.heard.get(worker).map_or(0, |(at, _)| *at);
            let grant = Grant { job, worker: worker.clone(), heard, live: true };
            let waited = reign.waiting.iter().any(|(_, wanted)| *wanted == job);
            reign.grants.insert(attempt, grant);
            law!(self, waited, "{attempt} of {job:?} is given, and nobody waits for it");
        }
        self.log(&format!("{epoch}: {worker} gets {attempt} of {}", job.0.short()));
        Ok(())
    }

    /// A leader says that a job is settled; gives those that waited.
    pub(super) fn settles(&mut self, epoch: u64, settlement: &Settlement) -> Result<(), Violation> {
        let job = settlement.job;
        let Some(reign) = self.reigns.get_mut(&epoch) else { return Ok(()) };
        for waiter in &settlement.waiters {
            let waited = reign.waiting.remove(&(waiter.clone(), job));
            law!(self, waited, "{waiter} is told of {job:?}, and did not wait for it, or was told before");
        }
        law!(self, !settlement.waiters.is_empty(), "{job:?} is settled for nobody");
        match &settlement.settled {
            Settled::Result { digest, attempt, worker } => {
                let grant = reign.grants.get_mut(attempt);
                let holds = grant.is_some_and(|grant| {
                    let holds = grant.live && grant.job == job && grant.worker == *worker;
                    grant.live = false;
                    holds
                });
                law!(self, holds, "{job:?} is settled by {attempt} of {worker}, which holds no lease");
                law!(self, *digest == truth(&job), "{job:?} is settled with the result of something else");
                law!(self, self.nature(&job) == Nature::Good, "{job:?} cannot have had a result");
            }
            Settled::Trouble { trouble, evidence } => {
                for piece in evidence {
                    if let Some(grant) = reign.grants.get_mut(&piece.attempt) {
                        grant.live = false;
                    }
                }
                self.convicts(job, trouble, evidence)?;
            }
            Settled::Closed => return Err(self.violation(format!("{job:?} was wanted by a series that is not open"))),
        }
        self.log(&format!("{epoch}: {} is settled for {:?}", job.0.short(), settlement.waiters));
        Ok(())
    }

    /// A job is given up: it must have deserved it, and everything that is said must be true.
    fn convicts(&mut self, job: JobId, trouble: &Trouble, evidence: &[Evidence]) -> Result<(), Violation> {
        law!(self, trouble.blame() == Blame::Infrastructure, "{trouble:?} blames somebody");
        let nature = self.nature(&job);
        let excused = !self.endurable && evidence.len() >= 3;
        law!(
            self,
            nature != Nature::Good || excused,
            "{job:?} is given up, and nothing is wrong with it: {evidence:?}"
        );
        for piece in evidence {
            let origin = self.origins.get(&piece.attempt);
            let true_place = origin.is_some_and(|origin| *origin == (job, piece.worker.clone()));
            law!(self, true_place, "{piece:?} was not an attempt of {job:?}");
            let true_fault = match &piece.fault {
                Fault::Silent | Fault::CutOff | Fault::Restarted => {
                    self.blackouts || self.struck.contains(&piece.worker)
                }
                Fault::NotStarted | Fault::Overdue => true,
                Fault::Trouble(Trouble::Killed { .. }) => nature == Nature::Greedy,
                Fault::Trouble(Trouble::Timeout { .. }) => nature == Nature::Endless,
                Fault::Trouble(Trouble::Disk { .. }) => self.struck.contains(&piece.worker),
                Fault::Trouble(Trouble::Interrupted | Trouble::Tree { .. }) => true,
                Fault::Trouble(
                    Trouble::Sandbox { .. }
                    | Trouble::Toolchain { .. }
                    | Trouble::Workers { .. }
                    | Trouble::Request { .. }
                    | Trouble::Internal { .. },
                ) => false,
            };
            law!(self, true_fault, "{piece:?} never happened");
        }
        Ok(())
    }

    pub(super) fn notices(&mut self, epoch: u64, notice: &Notice) -> Result<(), Violation> {
        match notice {
            Notice::Retried { job, evidence } => {
                self.retried += 1;
                if let Some(grant) = self.reigns.get_mut(&epoch).and_then(|r| r.grants.get_mut(&evidence.attempt)) {
                    let heard = grant.heard;
                    grant.live = false;
                    let patient =
                        self.blackouts || evidence.fault != Fault::Silent || self.now >= heard + self.lease_ms;
                    law!(self, patient, "{evidence:?}, and it was heard at {heard}");
                }
                self.hits.entry(*job).or_default().faults += 1;
                self.log(&format!("{epoch}: {} is tried again: {:?}", job.0.short(), evidence));
            }
            Notice::Adopted(attempt) => {
                self.adopted += 1;
                let origin = self.origins.get(attempt).cloned();
                let Some((job, worker)) = origin else {
                    return Err(self.violation(format!("{attempt} was taken over, and nobody ever gave it")));
                };
                self.grant(epoch, *attempt, job, &worker)?;
            }
            Notice::Quarantined { worker, .. } => {
                law!(self, self.struck.contains(worker), "{worker} is quarantined, and nothing is wrong with it");
                self.log(&format!("{epoch}: {worker} is quarantined"));
            }
            Notice::Refused(_) => self.refused += 1,
            Notice::Joined(worker) | Notice::Lost(worker) | Notice::Left(worker) => {
                self.log(&format!("{epoch}: {worker}: {notice:?}"));
            }
        }
        Ok(())
    }

    /// What a worker has, as far as anybody knows: `runs` is what it knows itself.
    fn aboard(&self, worker: &WorkerId, runs: &[JobId]) -> BTreeSet<JobId> {
        let grants = self.reigns.values().flat_map(|reign| reign.grants.values());
        let granted = grants.filter(|grant| grant.live && grant.worker == *worker).map(|grant| grant.job);
        granted.chain(runs.iter().copied()).collect()
    }

    /// Whether one more fault of that worker is within what every job must endure.
    pub(super) fn endurable(&self, worker: &WorkerId, runs: &[JobId]) -> bool {
        !self.endurable
            || self.aboard(worker, runs).iter().filter(|job| self.nature(job) == Nature::Good).all(|job| {
                let hits = self.hits.get(job).copied().unwrap_or_default();
                hits.deaths < 2 && hits.faults < 4
            })
    }

    /// Something happens to a worker.
    pub(super) fn strikes(&mut self, worker: &WorkerId, runs: &[JobId], what: &str) {
        self.log(&format!("{worker}: {what}"));
        self.struck.insert(worker.clone());
        for job in self.aboard(worker, runs) {
            self.hits.entry(job).or_default().deaths += 1;
        }
    }
}

/// What a job gives whenever and wherever it is run.
pub(super) fn truth(job: &JobId) -> Digest {
    DigestBuilder::new("bombproof/testkit-result/v1").field(job.0.to_string().as_bytes()).finish()
}
