//! A simulated coordinator that leads: the queue, the calls that it holds back, and series that want jobs; and the store that
//! outlives it.

use std::collections::{BTreeMap, BTreeSet};

use bombproof_core::digest::Digest;
use bombproof_core::farm::{Answer, Effects, Ended, Event, Farm, JobId, Millis, Report, Settled, Wanted};
use bombproof_core::id::{SeriesId, WorkerId};
use bombproof_core::outcome::Trouble;

use super::laws::{Laws, Violation, law};
use super::plan::{Plan, SeriesPlan};
use super::world::End;

/// What outlives coordinators.
#[derive(Debug, Default)]
pub(super) struct Store {
    /// The epoch of the latest leader: earlier ones are not listened to.
    pub(super) epoch: u64,
    /// Results by job.
    results: BTreeMap<JobId, Digest>,
    /// What series were told that there is no result.
    troubles: BTreeMap<(SeriesId, JobId), Trouble>,
    /// What is in the store of blobs.
    pub(super) blobs: BTreeSet<Digest>,
    pub(super) accepted: BTreeSet<SeriesId>,
    pub(super) cancelled: BTreeSet<SeriesId>,
    pub(super) done: BTreeSet<SeriesId>,
}

impl Store {
    fn is_settled(&self, series: &SeriesId, job: &JobId) -> bool {
        self.results.contains_key(job) || self.troubles.contains_key(&(series.clone(), *job))
    }

    pub(super) fn is_open(&self, series: &SeriesId) -> bool {
        self.accepted.contains(series) && !self.cancelled.contains(series) && !self.done.contains(series)
    }

    /// What a job came to for a series.
    pub(super) fn end_of(&self, series: &SeriesId, job: &JobId) -> Option<End> {
        match (self.results.get(job), self.troubles.get(&(series.clone(), *job))) {
            (_, Some(Trouble::Timeout { .. })) => Some(End::TimedOut),
            (_, Some(_)) => Some(End::GivenUp),
            (Some(digest), None) => Some(End::Result(*digest)),
            (None, None) => None,
        }
    }
}

#[derive(Debug)]
pub(super) struct Leader {
    pub(super) farm: Farm,
    pub(super) epoch: u64,
    pub(super) alive: bool,
    pub(super) paused_until: u64,
    /// How far its clock has jumped.
    pub(super) ahead_ms: u64,
    /// Calls that are held back.
    pub(super) held: BTreeMap<WorkerId, Report>,
    steps: u64,
}

/// What a leader wants to send.
pub(super) type Answers = Vec<(Report, Answer)>;

impl Leader {
    pub(super) fn new(epoch: u64, farm: Farm) -> Self {
        Self { farm, epoch, alive: true, paused_until: 0, ahead_ms: 0, held: BTreeMap::new(), steps: 0 }
    }

    fn step(&mut self, event: Event, laws: &mut Laws) -> Result<Effects, Violation> {
        let effects = self.farm.step(event, Millis(laws.now + self.ahead_ms));
        self.steps += 1;
        if self.steps.is_multiple_of(32) {
            self.farm.check().map_err(|what| laws.violation(what))?;
        }
        Ok(effects)
    }

    /// Lets something happen, and what follows from it; gives answers to calls, those that may be held back with the time.
    pub(super) fn play(
        &mut self,
        event: Event,
        plan: &Plan,
        store: &mut Store,
        laws: &mut Laws,
    ) -> Result<Answers, Violation> {
        let mut answers = Vec::new();
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let report = if let Event::WorkerSynchronized(report) = &event { Some(report.clone()) } else { None };
            if let Some(report) = &report {
                laws.hears(self.epoch, report);
            }
            let effects = self.step(event, laws)?;
            for notice in &effects.notices {
                laws.notices(self.epoch, notice)?;
            }
            for settlement in &effects.settled {
                laws.settles(self.epoch, settlement)?;
                if store.epoch != self.epoch {
                    // It learns that it was deposed.
                    self.alive = false;
                    laws.log(&format!("leader of epoch {} was deposed", self.epoch));
                    return Ok(Vec::new());
                }
                match &settlement.settled {
                    Settled::Result { digest, .. } => {
                        store.results.insert(settlement.job, *digest);
                    }
                    Settled::Trouble { trouble, .. } => {
                        let keys = settlement.waiters.iter().map(|series| (series.clone(), settlement.job));
                        store.troubles.extend(keys.map(|key| (key, trouble.clone())));
                    }
                    Settled::Closed => {}
                }
                for series in plan.series.iter().filter(|series| settlement.waiters.contains(&series.id)) {
                    events.extend(self.go_on(series, plan, store, laws));
                }
            }
            if let (Some(report), Some(answer)) = (report, effects.answer) {
                laws.answers(&report.worker, &answer)?;
                answers.push((report, answer));
            }
            let woken = effects.wake.iter().filter_map(|worker| self.held.remove(worker));
            events.extend(woken.map(Event::WorkerSynchronized));
        }
        Ok(answers)
    }

    /// Opens a series, as after its submission and after a change of the leader.
    pub(super) fn open(series: &SeriesPlan) -> Event {
        Event::SeriesOpened { series: series.id.clone(), user: series.user.clone(), priority: series.priority }
    }

    /// What a series wants now: what has no result, and waits for nothing that has none. When all is settled, whatever was
    /// lost in the meantime is wanted again; when nothing was, the series is done.
    pub(super) fn go_on(&self, series: &SeriesPlan, plan: &Plan, store: &mut Store, laws: &mut Laws) -> Vec<Event> {
        if !store.is_open(&series.id) {
            return Vec::new();
        }
        if series.jobs.iter().all(|(job, ..)| store.is_settled(&series.id, job)) {
            let blobs = &store.blobs;
            let jobs: BTreeSet<JobId> = series.jobs.iter().map(|(job, ..)| *job).collect();
            store.results.retain(|job, digest| !jobs.contains(job) || blobs.contains(digest));
        }
        let mut wanted = Vec::new();
        for (job, rank, after) in &series.jobs {
            let ready = after.is_none_or(|after| store.is_settled(&series.id, &after));
            if ready && !store.is_settled(&series.id, job) && !laws.is_waiting(self.epoch, &series.id, *job) {
                wanted.push((*job, *rank));
            }
        }
        let all = series.jobs.iter().all(|(job, ..)| store.is_settled(&series.id, job));
        if all {
            store.done.insert(series.id.clone());
            laws.log(&format!("{} is done", series.id));
            return vec![Event::SeriesCancelled { series: series.id.clone() }];
        }
        let known = wanted.into_iter().filter_map(|(job, rank)| Some((plan.jobs.get(&job)?, rank)));
        known
            .map(|(job, rank)| {
                laws.waits(self.epoch, &series.id, job.wanted.job);
                Event::JobWanted { series: series.id.clone(), job: Wanted { rank, ..job.wanted.clone() } }
            })
            .collect()
    }

    /// A call comes in. What it says is ready must be in the store of blobs.
    pub(super) fn admit(mut report: Report, store: &Store) -> Report {
        for finished in &mut report.finished {
            if let Ended::Result { digest } = &finished.ended
                && !store.blobs.contains(digest)
            {
                finished.ended = Ended::Trouble(Trouble::Tree { detail: "an output is not in the store".to_owned() });
            }
        }
        report
    }

    /// Nothing is left of what series wanted.
    pub(super) fn check_end(&self, laws: &Laws) -> Result<(), Violation> {
        self.farm.check().map_err(|what| laws.violation(what))?;
        law!(laws, self.farm.is_empty(), "{} jobs are left, and nobody wants them", self.farm.len());
        law!(laws, laws.still_waiting(self.epoch) == 0, "somebody waits for ever");
        Ok(())
    }
}
