//! The leader: owns the queue, and passes on what it says.
//!
//! Everything that the queue is told goes through one lock, with the time; a step takes microseconds. Beside the queue the
//! leader holds what the queue does not know: what jobs are, who waits for them in this process, and what workers offer.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bombproof_core::digest::Digest;
use bombproof_core::farm::{
    Answer, Config, Effects, Ended, Event, Farm, Figures, JobId, Millis, Notice, Overview, Priority, SeriesView,
    Settled, Settlement, Wanted,
};
use bombproof_core::id::{SeriesId, UserId, WorkerId};
use bombproof_core::order::{Call, Done, Offer, Order, Question, Step};
use bombproof_core::outcome::Trouble;
use bombproof_metrics::FarmMetrics;
use bombproof_metrics::labels::{self, Arch, Kind, Outcome};
use tokio::sync::{Notify, oneshot, watch};

use super::notices;
use crate::dispatcher::Maker;

/// What a job has come to.
pub type Answered = Result<Arc<Done>, Trouble>;

/// The longest time between two ticks, in milliseconds.
const TICK_MS: u64 = 500;

/// What a worker said of itself beside what the queue knows.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its compilers.
    pub offers: Vec<Offer>,
    /// How it shuts builds in.
    pub sandbox: String,
}

/// What a job is.
#[derive(Clone)]
pub enum Work {
    /// A step of make.
    Step(Arc<Step>),
    /// An action, which is made when a worker asks for it: a thousand slots' worth of them would not fit into memory.
    Action(Maker),
}

impl Work {
    fn question(&self) -> Question {
        match self {
            Self::Step(step) => Question::Step(step.purpose),
            Self::Action(_) => Question::Action,
        }
    }

    /// What a worker is told. It may take a while, and read the disk.
    ///
    /// # Errors
    /// When what an action reads cannot be had.
    pub fn order(&self) -> Result<Order, Trouble> {
        match self {
            Self::Step(step) => Ok(Order::Step(Box::new(Step::clone(step)))),
            Self::Action(make) => make().map(Order::Action),
        }
    }
}

/// Waits for one job.
struct Waiter {
    ticket: u64,
    series: SeriesId,
    answer: oneshot::Sender<Answered>,
}

/// A job that somebody waits for.
struct Held {
    work: Work,
    /// What it is, as figures have it.
    labels: (Kind, Arch),
    waiters: Vec<Waiter>,
}

struct Inner {
    farm: Farm,
    held: HashMap<JobId, Held>,
    /// What workers gave, by digest, while the queue is told of it.
    given: HashMap<Digest, Arc<Done>>,
    calls: HashMap<WorkerId, Arc<Notify>>,
    workers: BTreeMap<WorkerId, Known>,
    /// Series that were handed in, and when, of which no worker has had a job yet.
    fresh: HashMap<SeriesId, Instant>,
    tickets: u64,
    settled: u64,
}

/// Owns the queue.
pub struct Leader {
    inner: Mutex<Inner>,
    begin: Instant,
    tick: Duration,
    metrics: FarmMetrics,
    /// Changes whenever a worker comes or changes what it offers.
    came: watch::Sender<u64>,
}

/// A job that is waited for; when this goes, it is not wanted any more.
struct Want<'a> {
    leader: &'a Leader,
    series: SeriesId,
    job: JobId,
    ticket: u64,
}

impl Drop for Want<'_> {
    fn drop(&mut self) {
        self.leader.unwant(&self.series, self.job, self.ticket);
    }
}

impl Leader {
    /// A leader with an empty queue; `epoch` is larger than that of every one before.
    pub fn new(epoch: u64, config: Config, metrics: FarmMetrics) -> Arc<Self> {
        let tick = Duration::from_millis(TICK_MS.min(config.lease_ms / 4).max(10));
        let inner = Inner {
            farm: Farm::new(epoch, config, Millis(0)),
            held: HashMap::new(),
            given: HashMap::new(),
            calls: HashMap::new(),
            workers: BTreeMap::new(),
            fresh: HashMap::new(),
            tickets: 0,
            settled: 0,
        };
        Arc::new(Self { inner: Mutex::new(inner), begin: Instant::now(), tick, metrics, came: watch::channel(0).0 })
    }

    /// Tells the queue of the time, for ever.
    pub async fn tick_for_ever(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(self.tick);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.tell(&mut self.lock(), Event::Tick);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Tells the queue something, and does what follows; the answer to a worker is left to the caller.
    fn tell(&self, inner: &mut Inner, event: Event) -> Option<Answer> {
        let Effects { answer, settled, wake, notices } = inner.farm.step(event, self.now());
        for settlement in settled {
            inner.settled += 1;
            self.count(inner, &settlement);
            let answered = match &settlement.settled {
                Settled::Result { digest, .. } => match inner.given.get(digest) {
                    Some(done) => Ok(Arc::clone(done)),
                    None => Err(Trouble::Internal { detail: "a result is not at hand".to_owned() }),
                },
                Settled::Trouble { trouble, .. } => Err(trouble.clone()),
                Settled::Closed => Err(Trouble::Interrupted),
            };
            let Some(held) = inner.held.get_mut(&settlement.job) else { continue };
            for waiter in held.waiters.extract_if(.., |waiter| settlement.waiters.contains(&waiter.series)) {
                // Who does not wait any more does not need it.
                let _ = waiter.answer.send(answered.clone());
            }
            if held.waiters.is_empty() {
                inner.held.remove(&settlement.job);
            }
        }
        for worker in wake {
            if let Some(call) = inner.calls.get(&worker) {
                call.notify_one();
            }
        }
        for notice in &notices {
            notices::log(notice);
            self.note(notice);
        }
        if let Some(answer) = answer.as_ref().filter(|answer| !answer.start.is_empty() && !inner.fresh.is_empty()) {
            for assignment in &answer.start {
                let waiters = inner.held.get(&assignment.job).into_iter().flat_map(|held| &held.waiters);
                for begun in waiters.filter_map(|waiter| inner.fresh.remove(&waiter.series)) {
                    self.metrics.first_job.observe(begun.elapsed().as_secs_f64());
                }
            }
        }
        answer
    }

    /// Counts a job that came to an end. One that is held no more nobody waits for.
    fn count(&self, inner: &Inner, settlement: &Settlement) {
        let Some(held) = inner.held.get(&settlement.job) else { return };
        let outcome = match &settlement.settled {
            Settled::Result { digest, .. } => inner.given.get(digest).map_or(Outcome::Trouble, |done| (&**done).into()),
            Settled::Trouble { evidence, .. } => {
                // That it was tried again was noticed of all faults but the last.
                if let Some(last) = evidence.last() {
                    self.metrics.fault(&last.fault);
                }
                Outcome::Trouble
            }
            Settled::Closed => return,
        };
        self.metrics.settled.add((held.labels, outcome), 1);
    }

    fn note(&self, notice: &Notice) {
        match notice {
            Notice::Refused(_) => self.metrics.late.add(1),
            Notice::Retried { evidence, .. } => self.metrics.fault(&evidence.fault),
            Notice::Joined(_) | Notice::Lost(_) | Notice::Left(_) | Notice::Quarantined { .. } | Notice::Adopted(_) => {
            }
        }
    }

    /// A series was handed in at that moment, and wants jobs soon.
    pub fn expect(&self, series: &SeriesId, since: Instant) {
        self.lock().fresh.insert(series.clone(), since);
    }

    /// A series begins to want jobs.
    pub fn open(&self, series: &SeriesId, user: &UserId, priority: Priority) {
        let event = Event::SeriesOpened { series: series.clone(), user: user.clone(), priority };
        self.tell(&mut self.lock(), event);
    }

    /// A series wants nothing any more.
    pub fn close(&self, series: &SeriesId) {
        let mut inner = self.lock();
        inner.fresh.remove(series);
        self.tell(&mut inner, Event::SeriesCancelled { series: series.clone() });
        inner.held.retain(|_, held| {
            held.waiters.retain(|waiter| waiter.series != *series);
            !held.waiters.is_empty()
        });
    }

    /// Waits for a job until it is settled, or until `cancel` turns true: it is not wanted any more then.
    ///
    /// # Errors
    /// When there is no answer: never the fault of a patch.
    pub async fn want(
        &self,
        series: &SeriesId,
        wanted: Wanted,
        work: Work,
        mut cancel: watch::Receiver<bool>,
    ) -> Answered {
        let (answer, answered) = oneshot::channel();
        let job = wanted.job;
        let _want = {
            let mut inner = self.lock();
            inner.tickets += 1;
            let ticket = inner.tickets;
            let held = inner.held.entry(job);
            let labels = labels::of_job(&wanted.needs);
            let held = held.or_insert_with(|| Held { work, labels, waiters: Vec::new() });
            held.waiters.push(Waiter { ticket, series: series.clone(), answer });
            self.tell(&mut inner, Event::JobWanted { series: series.clone(), job: wanted });
            Want { leader: self, series: series.clone(), job, ticket }
        };
        let stopped = async {
            if cancel.wait_for(|stop| *stop).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            answered = answered => answered.unwrap_or(Err(Trouble::Interrupted)),
            () = stopped => Err(Trouble::Interrupted),
        }
    }

    fn unwant(&self, series: &SeriesId, job: JobId, ticket: u64) {
        let mut inner = self.lock();
        let Some(held) = inner.held.get_mut(&job) else { return };
        let before = held.waiters.len();
        held.waiters.retain(|waiter| waiter.ticket != ticket);
        if held.waiters.len() == before || held.waiters.iter().any(|waiter| waiter.series == *series) {
            return;
        }
        if held.waiters.is_empty() {
            inner.held.remove(&job);
        }
        self.tell(&mut inner, Event::JobUnwanted { series: series.clone(), job });
    }

    /// What a job is, as long as somebody wants it.
    pub fn work(&self, job: &JobId) -> Option<Work> {
        self.lock().held.get(job).map(|held| held.work.clone())
    }

    /// A worker calls; `given` are the results that it names, by digest. Waits until there is something for it, or it is time to
    /// answer.
    pub async fn synchronize(&self, mut call: Call, given: HashMap<Digest, Arc<Done>>) -> Option<Answer> {
        let woken = self.meet(&mut call, &given);
        let worker = call.report.worker.clone();
        loop {
            let answer = {
                let mut inner = self.lock();
                inner.given.extend(given.iter().map(|(digest, done)| (*digest, Arc::clone(done))));
                let answer = self.tell(&mut inner, Event::WorkerSynchronized(call.report.clone()));
                for digest in given.keys() {
                    inner.given.remove(digest);
                }
                answer?
            };
            if answer.hold_ms == 0 {
                return Some(answer);
            }
            tokio::select! {
                () = woken.notified() => {}
                () = tokio::time::sleep(Duration::from_millis(answer.hold_ms)) => {}
            }
            // What ended was told already.
            if self.lock().calls.get(&worker).is_none_or(|latest| !Arc::ptr_eq(latest, &woken)) {
                // A later call of this worker has taken its place.
                return Some(answer);
            }
        }
    }

    /// Takes in what the queue does not need to know; gives what wakes the call.
    fn meet(&self, call: &mut Call, given: &HashMap<Digest, Arc<Done>>) -> Arc<Notify> {
        let mut inner = self.lock();
        for finished in &mut call.report.finished {
            let Ended::Result { digest } = &finished.ended else { continue };
            let (Some(done), Some(held)) = (given.get(digest), inner.held.get(&finished.job)) else { continue };
            if !done.answers(held.work.question()) {
                let detail = "a worker gave an answer to another question".to_owned();
                finished.ended = Ended::Trouble(Trouble::Internal { detail });
            }
        }
        let worker = &call.report.worker;
        let known = Known { offers: call.offers.clone(), sandbox: call.sandbox.clone() };
        let news = inner.workers.get(worker).is_none_or(|before| before.offers != known.offers);
        inner.workers.insert(worker.clone(), known);
        if news {
            self.came.send_modify(|count| *count = count.wrapping_add(1));
        }
        let woken = Arc::new(Notify::new());
        if let Some(before) = inner.calls.insert(worker.clone(), Arc::clone(&woken)) {
            // An earlier call that is held back is of no use any more.
            before.notify_one();
        }
        woken
    }

    /// What workers that are heard offer, with how many slots each has.
    pub fn offers(&self) -> Vec<(Known, u32)> {
        let inner = self.lock();
        let views = inner.farm.overview().workers;
        let live = views.iter().filter(|view| view.live);
        live.filter_map(|view| Some((inner.workers.get(&view.worker)?.clone(), view.slots))).collect()
    }

    /// Changes whenever a worker comes or changes what it offers.
    pub fn arrivals(&self) -> watch::Receiver<u64> {
        self.came.subscribe()
    }

    /// The farm in figures, and how many jobs were settled.
    pub fn overview(&self) -> (Overview, u64) {
        let inner = self.lock();
        (inner.farm.overview(), inner.settled)
    }

    /// The farm in counts.
    pub fn figures(&self) -> Figures {
        self.lock().farm.figures()
    }

    /// A series that is open.
    pub fn series(&self, series: &SeriesId) -> Option<SeriesView> {
        self.lock().farm.series(series)
    }

    /// The number of this reign.
    pub fn epoch(&self) -> u64 {
        self.lock().farm.epoch()
    }
}

#[cfg(test)]
#[path = "leader_tests.rs"]
mod tests;
