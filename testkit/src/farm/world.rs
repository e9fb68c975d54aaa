//! Simulated time: everything that happens, in order.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use bombproof_core::digest::Digest;
use bombproof_core::farm::{Answer, Attempt, Config, Ended, Event, Farm, JobId, Millis, Report};
use bombproof_core::id::SeriesId;
use bombproof_core::outcome::Trouble;

use super::laws::{Laws, Violation, law, truth};
use super::leader::{Leader, Store};
use super::plan::{Fault, Nature, Plan};
use super::worker::{Next, SimWorker};
use crate::chance::Chance;

/// Nothing takes longer than this, in milliseconds, whatever goes wrong.
const LAST: u64 = 3_600_000;
/// A process that died is started again after this.
const RESTART_MS: u64 = 3_000;
/// What a worker that is told to stop may take to end what it runs.
const GRACE_MS: u64 = 5_000;
/// A fault that would be more than a job has to endure is put off by this.
const PUT_OFF_MS: u64 = 4_000;

/// What a job came to for a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A result.
    Result(Digest),
    /// It ran too long.
    TimedOut,
    /// It cannot be run.
    GivenUp,
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What each job came to, for each series that was not cancelled.
    pub ends: BTreeMap<(SeriesId, JobId), End>,
    /// Series that were cancelled before they were done.
    pub cancelled: Vec<SeriesId>,
    /// When all was done, in simulated milliseconds.
    pub took_ms: u64,
    /// How long a slot was held by what nobody wanted any more, at most, in milliseconds.
    pub freed_within_ms: u64,
    /// All that happened, as one number.
    pub trace: Digest,
    /// How many attempts were refused, tried again, taken over.
    pub refused: u64,
    /// See [`Outcome::refused`].
    pub retried: u64,
    /// See [`Outcome::refused`].
    pub adopted: u64,
    /// How many leaders there were.
    pub leaders: u64,
    /// Faults of the plan that happened.
    pub faults: usize,
}

/// The configuration of simulated farms.
pub fn config() -> Config {
    Config { forget_ms: 600_000, ..Config::default() }
}

#[derive(Clone, Debug)]
enum What {
    Accept(usize),
    OpenSeries { leader: usize, series: usize },
    Tick(usize),
    TakeOver,
    Fault(Fault, u32),
    Start(usize),
    Call { worker: usize, session: u64 },
    CallArrives { leader: usize, report: Report },
    CallTimesOut { worker: usize, session: u64, call: u64 },
    HoldEnds { leader: usize, report: Report, answer: Answer },
    AnswerArrives { worker: usize, session: u64, call: u64, answer: Answer },
    JobEnds { worker: usize, session: u64, attempt: Attempt },
    GraceEnds { worker: usize, session: u64 },
}

struct World<'a> {
    plan: &'a Plan,
    config: Config,
    chance: Chance,
    laws: Laws,
    store: Store,
    leaders: Vec<Leader>,
    /// The one that workers are sent to.
    leading: Option<usize>,
    workers: Vec<SimWorker>,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, What>,
    count: u64,
    faults: usize,
    /// Since when attempts run that nobody wants.
    unwanted: BTreeMap<Attempt, u64>,
    freed_within_ms: u64,
}

/// Plays a plan to its end.
///
/// # Errors
/// When something happened that must never happen.
pub fn run(plan: &Plan) -> Result<Outcome, Box<Violation>> {
    World::new(plan).run().map_err(Box::new)
}

impl<'a> World<'a> {
    fn new(plan: &'a Plan) -> Self {
        let config = config();
        let laws = Laws::new(plan, config.lease_ms);
        let workers = plan.workers.iter().map(SimWorker::new).collect();
        let mut world = Self {
            plan,
            config,
            chance: Chance::new(plan.seed),
            laws,
            store: Store::default(),
            leaders: Vec::new(),
            leading: None,
            workers,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            count: 0,
            faults: 0,
            unwanted: BTreeMap::new(),
            freed_within_ms: 0,
        };
        world.after(0, What::TakeOver);
        (0..plan.workers.len()).for_each(|worker| world.after(worker as u64 * 37, What::Start(worker)));
        plan.series.iter().enumerate().for_each(|(number, series)| world.after(series.at, What::Accept(number)));
        plan.faults.iter().for_each(|(at, fault)| world.after(*at, What::Fault(*fault, 0)));
        world
    }

    fn after(&mut self, ms: u64, what: What) {
        self.count += 1;
        self.queue.push(Reverse((self.laws.now + ms, self.count)));
        self.events.insert(self.count, what);
    }

    fn run(mut self) -> Result<Outcome, Violation> {
        let mut done_at = None;
        while let Some(Reverse((at, number))) = self.queue.pop() {
            self.laws.now = at;
            law!(self.laws, at < LAST, "not all is settled: {:?}", self.open());
            let Some(what) = self.events.remove(&number) else { continue };
            self.happen(what)?;
            // Some time more: workers come to rest, late calls come in.
            let done = self.store.accepted.len() == self.plan.series.len() && self.open().is_empty();
            match done_at {
                None if done => done_at = Some(at),
                Some(since) if at > since + 100_000 => break,
                None | Some(_) => {}
            }
        }
        self.outcome(done_at.unwrap_or(0))
    }

    fn open(&self) -> Vec<&SeriesId> {
        self.plan.series.iter().map(|series| &series.id).filter(|series| self.store.is_open(series)).collect()
    }

    fn outcome(self, took_ms: u64) -> Result<Outcome, Violation> {
        if let Some(leader) = self.leading.and_then(|leading| self.leaders.get(leading)) {
            leader.check_end(&self.laws)?;
        }
        for worker in &self.workers {
            let rests = !worker.up || (worker.running.is_empty() && worker.finished.is_empty());
            law!(self.laws, rests, "{} runs {:?}, keeps {:?}", worker.id, worker.running, worker.finished);
        }
        let mut ends = BTreeMap::new();
        for series in self.plan.series.iter().filter(|series| !self.store.cancelled.contains(&series.id)) {
            for (job, ..) in &series.jobs {
                let end = self.store.end_of(&series.id, job);
                let Some(end) = end else {
                    return Err(self.laws.violation(format!("{job:?} of {} was never settled", series.id)));
                };
                ends.insert((series.id.clone(), *job), end);
            }
        }
        Ok(Outcome {
            ends,
            cancelled: self.store.cancelled.iter().cloned().collect(),
            took_ms,
            freed_within_ms: self.freed_within_ms,
            trace: self.laws.trace,
            refused: self.laws.refused,
            retried: self.laws.retried,
            adopted: self.laws.adopted,
            leaders: self.store.epoch,
            faults: self.faults,
        })
    }

    /// How long a message travels.
    fn travel(&mut self) -> u64 {
        if self.chance.per_mille(self.plan.network.late) {
            self.chance.between(500, 8_000)
        } else {
            self.chance.between(1, 30)
        }
    }

    /// Sends something from or to a worker: it may be lost, and it may come twice.
    fn send(&mut self, worker: usize, what: &What) {
        let cut = self.workers.get(worker).is_none_or(|worker| worker.cut_until > self.laws.now);
        if cut || self.chance.per_mille(self.plan.network.lost) {
            return;
        }
        let ms = self.travel();
        self.after(ms, what.clone());
        if self.chance.per_mille(self.plan.network.repeated) {
            let later = self.travel() + self.chance.between(0, 3_000);
            self.after(later, what.clone());
        }
    }

    fn worker_number(&self, report: &Report) -> usize {
        self.workers.iter().position(|worker| worker.id == report.worker).unwrap_or(usize::MAX)
    }

    /// Whether it happens to somebody who stands still, and until when.
    fn stands_still(&self, what: &What) -> Option<u64> {
        let until = match what {
            What::Call { worker, .. }
            | What::CallTimesOut { worker, .. }
            | What::AnswerArrives { worker, .. }
            | What::JobEnds { worker, .. }
            | What::GraceEnds { worker, .. } => self.workers.get(*worker)?.paused_until,
            What::OpenSeries { leader, .. }
            | What::Tick(leader)
            | What::CallArrives { leader, .. }
            | What::HoldEnds { leader, .. } => self.leaders.get(*leader)?.paused_until,
            What::Accept(_) | What::TakeOver | What::Fault(..) | What::Start(_) => 0,
        };
        (until > self.laws.now).then_some(until)
    }

    fn happen(&mut self, what: What) -> Result<(), Violation> {
        if let Some(until) = self.stands_still(&what) {
            self.after(until - self.laws.now, what);
            return Ok(());
        }
        match what {
            What::Accept(number) => {
                if let Some(series) = self.plan.series.get(number) {
                    self.store.accepted.insert(series.id.clone());
                    if let Some(leader) = self.leading {
                        self.open_series(leader, number)?;
                    }
                }
            }
            What::OpenSeries { leader, series } => self.open_series(leader, series)?,
            What::Tick(leader) => {
                if self.leaders.get(leader).is_some_and(|leader| leader.alive) {
                    self.tell(leader, Event::Tick)?;
                    self.after(1_000, What::Tick(leader));
                }
            }
            What::TakeOver => self.take_over(),
            What::Fault(fault, put_off) => self.fault(fault, put_off)?,
            What::Start(worker) => self.start(worker),
            What::Call { worker, session } => self.call(worker, session),
            What::CallArrives { leader, report } => self.call_arrives(leader, report)?,
            What::CallTimesOut { worker, session, call } => {
                let leading = self.leading;
                let Some(found) = self.workers.get_mut(worker) else { return Ok(()) };
                if found.up && found.session == session && found.outstanding == Some(call) {
                    found.outstanding = None;
                    found.leader = leading.unwrap_or(found.leader);
                    self.call(worker, session);
                }
            }
            What::HoldEnds { leader, report, answer } => {
                let Some(found) = self.leaders.get_mut(leader).filter(|leader| leader.alive) else { return Ok(()) };
                let same = found.held.get(&report.worker).is_some_and(|held| held.call == report.call);
                if same && found.held.remove(&report.worker).is_some() {
                    self.answer(&report, answer);
                }
            }
            What::AnswerArrives { worker, session, call, answer } => {
                self.answer_arrives(worker, session, call, &answer);
            }
            What::JobEnds { worker, session, attempt } => self.job_ends(worker, session, attempt),
            What::GraceEnds { worker, session } => {
                if let Some(found) = self.workers.get_mut(worker).filter(|found| found.up && found.session == session) {
                    found.give_back();
                    self.call(worker, session);
                }
            }
        }
        Ok(())
    }

    fn take_over(&mut self) {
        self.store.epoch += 1;
        let epoch = self.store.epoch;
        self.laws.reigns(epoch);
        let farm = Farm::new(epoch, self.config.clone(), Millis(self.laws.now));
        self.leaders.push(Leader::new(epoch, farm));
        let leader = self.leaders.len() - 1;
        self.leading = Some(leader);
        self.after(1_000, What::Tick(leader));
        // The series of before go on one after the other, as they are read and planned.
        for (number, series) in self.plan.series.iter().enumerate() {
            if self.store.is_open(&series.id) {
                let ms = self.chance.between(0, 15_000);
                self.after(ms, What::OpenSeries { leader, series: number });
            }
        }
    }

    fn open_series(&mut self, leader: usize, number: usize) -> Result<(), Violation> {
        let plan = self.plan;
        let Some(series) = plan.series.get(number).filter(|series| self.store.is_open(&series.id)) else {
            return Ok(());
        };
        if self.leaders.get(leader).is_none_or(|leader| !leader.alive || leader.paused_until > self.laws.now) {
            return Ok(());
        }
        self.tell(leader, Leader::open(series))?;
        let Some(found) = self.leaders.get(leader) else { return Ok(()) };
        for event in found.go_on(series, plan, &mut self.store, &mut self.laws) {
            self.tell(leader, event)?;
        }
        Ok(())
    }

    /// Tells a leader what happened, and sends what it has to say.
    fn tell(&mut self, leader: usize, event: Event) -> Result<(), Violation> {
        let Some(found) = self.leaders.get_mut(leader).filter(|leader| leader.alive) else { return Ok(()) };
        for (report, answer) in found.play(event, self.plan, &mut self.store, &mut self.laws)? {
            let Some(found) = self.leaders.get_mut(leader) else { continue };
            if answer.hold_ms > 0 {
                found.held.insert(report.worker.clone(), report.clone());
                self.after(answer.hold_ms, What::HoldEnds { leader, report, answer });
            } else {
                // An answer to a call that was overtaken says nothing of the one that is held.
                if found.held.get(&report.worker).is_some_and(|held| held.call == report.call) {
                    found.held.remove(&report.worker);
                }
                self.answer(&report, answer);
            }
        }
        self.look_for_vain_work();
        Ok(())
    }

    fn answer(&mut self, report: &Report, answer: Answer) {
        let worker = self.worker_number(report);
        self.send(worker, &What::AnswerArrives { worker, session: report.session, call: report.call, answer });
    }

    /// How long workers go on with what nobody wants any more.
    fn look_for_vain_work(&mut self) {
        let Some(farm) = self.leading.and_then(|leading| self.leaders.get(leading)).map(|leader| &leader.farm) else {
            return;
        };
        let now = self.laws.now;
        let running = || self.workers.iter().flat_map(|worker| &worker.running);
        let vain: Vec<Attempt> = running().filter(|(_, job)| farm.job(job).is_none()).map(|(a, _)| *a).collect();
        for (attempt, since) in std::mem::take(&mut self.unwanted) {
            if vain.contains(&attempt) {
                self.unwanted.insert(attempt, since);
            } else {
                self.freed_within_ms = self.freed_within_ms.max(now - since);
            }
        }
        for attempt in vain {
            self.unwanted.entry(attempt).or_insert(now);
        }
    }

    fn call_arrives(&mut self, leader: usize, report: Report) -> Result<(), Violation> {
        let worker = self.worker_number(&report);
        if self.workers.get(worker).is_none_or(|worker| worker.cut_until > self.laws.now) {
            return Ok(());
        }
        if self.leaders.get(leader).is_none_or(|leader| !leader.alive) {
            // The connection is refused.
            self.after(50, What::CallTimesOut { worker, session: report.session, call: report.call });
            return Ok(());
        }
        let report = Leader::admit(report, &self.store);
        self.tell(leader, Event::WorkerSynchronized(report))
    }

    fn start(&mut self, worker: usize) {
        let leading = self.leading;
        let Some(found) = self.workers.get_mut(worker).filter(|found| !found.up) else { return };
        found.start();
        found.leader = leading.unwrap_or(0);
        let (id, session) = (found.id.clone(), found.session);
        self.laws.log(&format!("{id} begins life {session}"));
        self.call(worker, session);
    }

    fn call(&mut self, worker: usize, session: u64) {
        let Some(found) = self.workers.get_mut(worker).filter(|found| found.up && found.session == session) else {
            return;
        };
        let report = found.report();
        let (leader, call) = (found.leader, report.call);
        // A worker that runs something is never kept waiting for long, so it need not wait for long either.
        let held = if found.running.is_empty() { self.config.idle_ms } else { self.config.call_ms };
        self.after(held + 1_500, What::CallTimesOut { worker, session, call });
        self.send(worker, &What::CallArrives { leader, report });
    }

    fn answer_arrives(&mut self, worker: usize, session: u64, call: u64, answer: &Answer) {
        let Some(found) = self.workers.get_mut(worker).filter(|found| found.cut_until <= self.laws.now) else { return };
        let Some((started, next)) = found.hear(session, call, answer) else { return };
        match next {
            Next::Call(ms) => self.after(ms.max(5), What::Call { worker, session }),
            Next::Exit => {
                if let Some(found) = self.workers.get_mut(worker) {
                    found.die();
                    self.after(RESTART_MS, What::Start(worker));
                }
            }
        }
        for start in started {
            let nature = self.laws.nature(&start.job);
            let takes_ms = self.plan.jobs.get(&start.job).map_or(0, |job| job.takes_ms);
            let ms = match nature {
                Nature::Good => takes_ms * self.chance.between(80, 130) / 100,
                Nature::Poison | Nature::Greedy => takes_ms.min(2_000),
                Nature::Endless => u64::from(start.limit_ms),
            };
            self.after(ms, What::JobEnds { worker, session, attempt: start.attempt });
        }
        if self.workers.get(worker).is_some_and(|found| found.draining) {
            // It starts nothing now: what was on its way is given back.
            self.after(0, What::GraceEnds { worker, session });
        }
    }

    fn job_ends(&mut self, worker: usize, session: u64, attempt: Attempt) {
        let now = self.laws.now;
        let Some(found) = self.workers.get_mut(worker).filter(|found| found.up && found.session == session) else {
            return;
        };
        let Some(job) = found.running.get(&attempt).copied() else { return };
        let full = found.disk_full_until > now;
        let ended = match self.laws.nature(&job) {
            Nature::Poison => {
                self.kill(worker, "killed by its job", RESTART_MS);
                return;
            }
            Nature::Good | Nature::Greedy | Nature::Endless if full => {
                Ended::Trouble(Trouble::Disk { detail: "no space left".to_owned() })
            }
            Nature::Greedy => Ended::Trouble(Trouble::Killed { detail: "out of memory".to_owned() }),
            Nature::Endless => Ended::Trouble(Trouble::Timeout { limit_s: 60 }),
            Nature::Good => {
                let digest = truth(&job);
                self.store.blobs.insert(digest);
                Ended::Result { digest }
            }
        };
        found.end(attempt, ended);
        // A call that is held back is given up: there is news.
        self.call(worker, session);
    }

    fn kill(&mut self, worker: usize, how: &str, back_after: u64) {
        let Some(found) = self.workers.get_mut(worker).filter(|found| found.up) else { return };
        let (id, runs) = (found.id.clone(), found.runs());
        found.die();
        self.laws.strikes(&id, &runs, how);
        self.after(back_after, What::Start(worker));
    }

    fn strike(&mut self, worker: usize, how: &str, strike: impl FnOnce(&mut SimWorker)) {
        let Some(found) = self.workers.get_mut(worker) else { return };
        strike(found);
        let (id, runs) = (found.id.clone(), found.runs());
        self.laws.strikes(&id, &runs, how);
    }

    fn fault(&mut self, fault: Fault, put_off: u32) -> Result<(), Violation> {
        let now = self.laws.now;
        if let Fault::Kill(worker, _) | Fault::Pause(worker, _) | Fault::Cut(worker, _) | Fault::DiskFull(worker, _) =
            fault
        {
            let Some(found) = self.workers.get(worker).filter(|found| found.up) else { return Ok(()) };
            if !self.laws.endurable(&found.id, &found.runs()) {
                if put_off < 20 {
                    self.after(PUT_OFF_MS, What::Fault(fault, put_off + 1));
                }
                return Ok(());
            }
        }
        self.faults += 1;
        self.laws.log(&format!("{fault:?}"));
        match fault {
            Fault::Kill(worker, back_after) => self.kill(worker, "killed", back_after),
            Fault::Pause(worker, ms) => self.strike(worker, "stands still", |found| found.paused_until = now + ms),
            Fault::Cut(worker, ms) => self.strike(worker, "is cut off", |found| found.cut_until = now + ms),
            Fault::DiskFull(worker, ms) => self.strike(worker, "is full", |found| found.disk_full_until = now + ms),
            Fault::Drain(worker) => {
                if let Some(found) = self.workers.get_mut(worker).filter(|found| found.up && !found.draining) {
                    found.draining = true;
                    let session = found.session;
                    self.call(worker, session);
                    self.after(GRACE_MS, What::GraceEnds { worker, session });
                }
            }
            Fault::Cancel(number) => {
                let Some(series) = self.plan.series.get(number) else { return Ok(()) };
                if self.store.is_open(&series.id) {
                    self.store.cancelled.insert(series.id.clone());
                    for leader in 0..self.leaders.len() {
                        let Some(epoch) = self.leaders.get(leader).map(|leader| leader.epoch) else { continue };
                        self.laws.gives_up(epoch, &series.id);
                        self.tell(leader, Event::SeriesCancelled { series: series.id.clone() })?;
                    }
                }
            }
            Fault::KillLeader(takeover_ms) => {
                if let Some(leader) = self.leading.and_then(|leading| self.leaders.get_mut(leading)) {
                    leader.alive = false;
                    self.leading = None;
                    self.after(takeover_ms, What::TakeOver);
                }
            }
            Fault::PauseLeader(takeover_ms, wakes_after) => {
                if let Some(leader) = self.leading.and_then(|leading| self.leaders.get_mut(leading)) {
                    leader.paused_until = now + wakes_after;
                    self.leading = None;
                    self.laws.blackout();
                    self.after(takeover_ms, What::TakeOver);
                }
            }
            Fault::ClockJump(ms) => {
                if let Some(leader) = self.leading.and_then(|leading| self.leaders.get_mut(leading)) {
                    leader.ahead_ms += ms;
                    self.laws.blackout();
                }
            }
            Fault::LoseBlobs => {
                let chance = &mut self.chance;
                self.store.blobs.retain(|_| !chance.per_mille(300));
            }
        }
        Ok(())
    }
}
