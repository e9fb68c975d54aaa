//! The queue as its users see it: events in, effects out. `Rig` is a farm with workers that do as they are told.

use std::collections::BTreeMap;

use super::*;
use crate::digest::Digest;
use crate::id::{SeriesId, UserId, WorkerId};
use crate::outcome::Trouble;
use crate::target::Arch;

mod faults;
mod figures;
mod leases;
mod model;
mod sharing;
mod takeover;

pub(super) fn job(name: &str) -> JobId {
    JobId(Digest::of(name.as_bytes()))
}

pub(super) fn lane(name: &str) -> LaneId {
    LaneId(Digest::of(name.as_bytes()))
}

pub(super) fn platform(arch: &str) -> Platform {
    Platform { arch: Arch::parse(arch), toolchain: Digest::of(b"gcc 12") }
}

/// An action on x86_64.
pub(super) fn wanted(name: &str) -> Wanted {
    let needs = Needs { platform: platform("x86_64"), kind: Kind::Action };
    Wanted { job: job(name), needs, rank: 0, expected_ms: 1_000, limit_ms: 60_000, lane: None }
}

/// A step on x86_64, with a lane.
pub(super) fn step(name: &str, in_lane: &str) -> Wanted {
    let needs = Needs { platform: platform("x86_64"), kind: Kind::Step };
    Wanted { needs, lane: Some(lane(in_lane)), ..wanted(name) }
}

/// A worker that does as it is told.
#[derive(Clone, Debug)]
pub(super) struct Hand {
    pub(super) report: Report,
}

pub(super) struct Rig {
    pub(super) farm: Farm,
    pub(super) now: u64,
    pub(super) hands: BTreeMap<String, Hand>,
    /// Everything that was announced.
    pub(super) settled: Vec<Settlement>,
    pub(super) notices: Vec<Notice>,
    pub(super) woken: Vec<WorkerId>,
}

impl Rig {
    pub(super) fn new(config: Config) -> Self {
        Self::of(Farm::new(1, config, Millis(1_000)), 1_000)
    }

    pub(super) fn of(farm: Farm, now: u64) -> Self {
        let (settled, notices, woken) = (Vec::new(), Vec::new(), Vec::new());
        Self { farm, now, hands: BTreeMap::new(), settled, notices, woken }
    }

    pub(super) fn step(&mut self, event: Event) -> Option<Answer> {
        let effects = self.farm.step(event, Millis(self.now));
        assert_eq!(self.farm.check(), Ok(()));
        self.settled.extend(effects.settled);
        self.notices.extend(effects.notices);
        self.woken.extend(effects.wake);
        effects.answer
    }

    /// Lets time pass, in ticks of a second.
    pub(super) fn pass(&mut self, ms: u64) {
        let until = self.now + ms;
        while self.now < until {
            self.now = (self.now + 1_000).min(until);
            self.step(Event::Tick);
        }
    }

    /// Lets time pass while all workers of that name call every second.
    pub(super) fn pass_with(&mut self, ms: u64, hands: &[&str]) {
        let until = self.now + ms;
        while self.now < until {
            self.now = (self.now + 1_000).min(until);
            self.step(Event::Tick);
            hands.iter().for_each(|name| {
                self.call(name);
            });
        }
    }

    pub(super) fn open(&mut self, series: &str, user: &str, priority: Priority) {
        self.step(Event::SeriesOpened { series: series.into(), user: user.into(), priority });
    }

    pub(super) fn want(&mut self, series: &str, job: Wanted) {
        self.step(Event::JobWanted { series: series.into(), job });
    }

    pub(super) fn want_all(&mut self, series: &str, names: &[&str]) {
        names.iter().for_each(|name| self.want(series, wanted(name)));
    }

    /// A worker for x86_64 with so many slots, one of them for steps, that has not called yet.
    pub(super) fn hire(&mut self, name: &str, slots: u32) {
        let capabilities = Capabilities { platforms: [platform("x86_64")].into(), slots, step_slots: 1 };
        let report = Report {
            worker: name.into(),
            session: 1,
            call: 0,
            capabilities,
            lanes: Vec::new(),
            running: Vec::new(),
            finished: Vec::new(),
            draining: false,
        };
        self.hands.insert(name.to_owned(), Hand { report });
    }

    /// A worker is started again: it knows nothing of before.
    pub(super) fn restart(&mut self, name: &str) {
        let report = &mut self.hands.get_mut(name).unwrap().report;
        (report.session, report.call) = (report.session + 1, 0);
        report.running.clear();
        report.finished.clear();
        report.lanes.clear();
    }

    /// The worker says what it does, and does what it is told.
    pub(super) fn call(&mut self, name: &str) -> Answer {
        let answer = self.call_in_vain(name);
        let report = &mut self.hands.get_mut(name).unwrap().report;
        report.running.retain(|running| !answer.stop.contains(&running.attempt));
        report.finished.retain(|finished| !answer.noted.contains(&finished.attempt));
        for start in &answer.start {
            assert!(!report.running.iter().any(|running| running.attempt == start.attempt), "started twice");
            report.running.push(Running { attempt: start.attempt, job: start.job });
            if let Some(lane) = start.lane.filter(|lane| !report.lanes.contains(lane)) {
                report.lanes.push(lane);
            }
        }
        answer
    }

    /// The worker calls, and never gets the answer.
    pub(super) fn call_in_vain(&mut self, name: &str) -> Answer {
        let report = &mut self.hands.get_mut(name).unwrap().report;
        report.call += 1;
        let report = report.clone();
        self.step(Event::WorkerSynchronized(report)).unwrap()
    }

    /// A job that the worker runs has ended; it says so with the next call.
    pub(super) fn end(&mut self, name: &str, ended_job: &str, ended: Ended) {
        let report = &mut self.hands.get_mut(name).unwrap().report;
        let place = report.running.iter().position(|running| running.job == job(ended_job)).unwrap();
        let Running { attempt, job } = report.running.remove(place);
        report.finished.push(Finished { attempt, job, ended });
    }

    /// It ended with an answer, and the worker says so.
    pub(super) fn done(&mut self, name: &str, ended_job: &str) -> Answer {
        self.end(name, ended_job, result(ended_job));
        self.call(name)
    }

    /// It ended in trouble, and the worker says so.
    pub(super) fn trouble(&mut self, name: &str, ended_job: &str, trouble: Trouble) -> Answer {
        self.end(name, ended_job, Ended::Trouble(trouble));
        self.call(name)
    }

    /// What a worker runs.
    pub(super) fn runs(&self, name: &str) -> Vec<JobId> {
        self.hands[name].report.running.iter().map(|running| running.job).collect()
    }

    /// What was announced since the last time: the job's name among `names`, the waiters, and whether it was a result.
    pub(super) fn announced(&mut self, names: &[&str]) -> Vec<(String, Vec<String>, bool)> {
        let name = |id: JobId| names.iter().find(|name| job(name) == id).map_or("?", |name| name).to_owned();
        std::mem::take(&mut self.settled)
            .into_iter()
            .map(|settlement| {
                let is_result = match &settlement.settled {
                    Settled::Result { digest, .. } => {
                        assert_eq!(*digest, Digest::of(name(settlement.job).as_bytes()));
                        true
                    }
                    Settled::Trouble { .. } | Settled::Closed => false,
                };
                (name(settlement.job), settlement.waiters.into_iter().map(|series| series.0).collect(), is_result)
            })
            .collect()
    }

    /// The evidence of the only settlement, which is trouble.
    pub(super) fn evidence(&mut self) -> Vec<Evidence> {
        let settled = std::mem::take(&mut self.settled);
        match <[Settlement; 1]>::try_from(settled).map(|[settlement]| settlement.settled) {
            Ok(Settled::Trouble { trouble, evidence }) => {
                assert_ne!(trouble.blame(), crate::outcome::Blame::Patch);
                evidence
            }
            other => panic!("{other:?}"),
        }
    }
}

pub(super) fn result(name: &str) -> Ended {
    Ended::Result { digest: Digest::of(name.as_bytes()) }
}

pub(super) fn one(name: &str, waiters: &[&str], is_result: bool) -> (String, Vec<String>, bool) {
    (name.to_owned(), waiters.iter().map(|waiter| (*waiter).to_owned()).collect(), is_result)
}

pub(super) fn user(name: &str) -> UserId {
    name.into()
}

pub(super) fn series(name: &str) -> SeriesId {
    name.into()
}
