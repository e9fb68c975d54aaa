//! The worker of a farm: dials out to a coordinator, does what it is told, and gives back what that gave.
//!
//! One loop calls the coordinator and says everything that this worker does (`board`); the answer says what it should be doing.
//! Calls may be lost, repeated or answered late: nothing is begun twice, and what has ended is told until it is noted. The
//! work itself (`run`) is that of one machine.

mod board;
mod known;
mod link;
mod offers;
mod run;
mod trees;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bombproof_core::farm::{Attempt, Standing};
use bombproof_core::id::WorkerId;
use bombproof_metrics::{BlobBytes, WorkerMetrics};
use bombproof_proto::farm::{MESSAGE_BYTES, WireError, answer_from_wire, call_to_wire, wire};
use bombproof_store::cas::{Cas, DiskCas};
use bombproof_store::home::Home;
use bombproof_store::remote::{Connection, RemoteActions, RemoteBlobs, RemoteError, SyncActions, Transfer};
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tonic::{Code, Status};
use tracing::{debug, error, info, warn};
use wire::workers_client::WorkersClient;

use crate::action::{self, Actions};
use crate::files::Files;
use crate::jobs::Jobs;
use crate::kbuild::Compiles;
use crate::sandbox::Launcher;
use board::{Board, Card, Ending, Fitness};
use known::{RemoteManifests, Results};
use run::Runner;

/// A coordinator that does not answer a call for so long is called anew: more than it may hold a call back.
const CALL_LIMIT: Duration = Duration::from_secs(60);
/// A look at the machine that takes longer found something: shorter than a lease.
const LOOK_LIMIT: Duration = Duration::from_secs(10);

/// What a worker is started with.
pub struct Settings {
    /// Its name; it keeps it when it is started again.
    pub name: WorkerId,
    /// Where the coordinator is.
    pub connection: Connection,
    /// Where its blobs and build folders are.
    pub home: Home,
    /// Where builds run.
    pub launcher: Launcher,
    /// How many jobs it runs at once.
    pub slots: usize,
    /// How long what runs may go on when it drains.
    pub grace: Duration,
    /// What is counted of it.
    pub metrics: WorkerMetrics,
    /// Content that it gets and gives.
    pub bytes: BlobBytes,
}

/// Why a worker ends before it is told to.
#[derive(Debug, Error)]
pub enum RemoteWorkerError {
    /// Actions cannot be run here.
    #[error("the sandbox '{0}' cannot run single compiles, which a worker of a farm has to")]
    Sandbox(&'static str),
    /// The coordinator cannot be spoken to.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The coordinator does not want it, and would not next time.
    #[error("the coordinator refuses this worker: {0}")]
    Refused(String),
    /// Another one has its name.
    #[error("a worker '{0}' was started after this one; give each its own --name")]
    Replaced(WorkerId),
    /// Too much went wrong here.
    #[error("too much went wrong on this machine in a row: {0}; nothing more is taken")]
    Unfit(String),
    /// What is said cannot be understood.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The machine.
    #[error("{0}")]
    Machine(String),
}

/// Where attempts have their logs.
fn logs(home: &Home) -> PathBuf {
    home.root().join("logs")
}

struct Serving {
    board: Board,
    runner: Arc<Runner>,
    ended: mpsc::UnboundedReceiver<(Attempt, Ending)>,
    ends: mpsc::UnboundedSender<(Attempt, Ending)>,
    last_fault: String,
    name: WorkerId,
    metrics: WorkerMetrics,
}

/// Serves a coordinator until `drain` turns true and everything is given back. A second time it turns true, nothing is
/// waited for.
///
/// # Errors
/// When it cannot serve at all, or should not any more.
pub async fn serve(settings: Settings, mut drain: watch::Receiver<u32>) -> Result<(), RemoteWorkerError> {
    let Settings { name, connection, home, launcher, slots, grace, metrics, bytes } = settings;
    if !action::supported(launcher.level()) {
        return Err(RemoteWorkerError::Sandbox(launcher.level().name()));
    }
    // Of attempts of an earlier life, which nobody waits for.
    let _ = std::fs::remove_dir_all(logs(&home));
    let runtime = Handle::current();
    let channel = connection.channel()?;
    let cas: Arc<dyn Cas> = Arc::new(DiskCas::at(home.cas()));
    let blobs = RemoteBlobs::new(&connection)?;
    let transfer = Transfer::new(blobs.clone(), Arc::clone(&cas), home.cas().join("incoming")).counted(bytes);
    let jobs = match &launcher {
        Launcher::Here(_) => Jobs::new(slots),
        Launcher::Containers(_) => Jobs::shared(slots, &home),
    };
    let jobs = jobs.map_err(|error| RemoteWorkerError::Machine(error.to_string()))?;
    let actions = SyncActions::new(RemoteActions::new(blobs), transfer.clone(), runtime.clone());
    let compiles = Arc::new(Compiles {
        actions: Arc::new(Actions::new(launcher.clone(), &home, Arc::clone(&cas), Arc::clone(&jobs))),
        cache: Arc::new(Results::new(actions, transfer.clone(), runtime.clone())),
        manifests: Arc::new(RemoteManifests::new(channel.clone(), runtime.clone())),
        files: Arc::new(Files::new(Arc::clone(&cas))),
    });
    let offers = offers::find(&launcher, &home).await;
    for offer in &offers {
        let prefix = if offer.prefix.is_empty() { "compiler" } else { &offer.prefix };
        let (arch, version) = (&offer.arch, &offer.toolchain.version);
        info!(%arch, version, "{prefix} for {arch}: {version}");
    }
    metrics.slots.set(slots as u64);
    let slots = u32::try_from(slots).unwrap_or(u32::MAX);
    let session = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let card = Card {
        worker: name.clone(),
        session: session.map_or(1, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
        capabilities: offers::capabilities(&offers, slots, slots),
        offers,
        sandbox: launcher.level().name().to_owned(),
    };
    let names = Arc::new(trees::Names::open(&home.root().join("objects.names"), Arc::clone(&cas)));
    let client = WorkersClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES);
    let counted = metrics.clone();
    let runner =
        Arc::new(Runner { channel, transfer, compiles, launcher, jobs, home, names, runtime, metrics: counted });
    let (ends, ended) = mpsc::unbounded_channel();
    let board = Board::new(card);
    let mut serving = Serving { board, runner, ended, ends, last_fault: String::new(), name, metrics };
    serving.run(client, &mut drain, grace).await
}

impl Serving {
    /// Whether this worker is of use. Where a build can be the cause of what went wrong as well, the machine is looked at.
    async fn is_fit(&mut self) -> bool {
        match self.board.fitness() {
            Fitness::Fit => true,
            Fitness::Unfit => false,
            Fitness::Doubtful => {
                let looked = tokio::time::timeout(LOOK_LIMIT, self.runner.look()).await;
                match looked.unwrap_or_else(|_| Err("it did not come to an end".to_owned())) {
                    Ok(()) => {
                        warn!(
                            "much went wrong in a row ({}): looked for what may be wrong with it, and found nothing",
                            self.last_fault
                        );
                        self.board.looked_at();
                        true
                    }
                    Err(why) => {
                        self.last_fault = why;
                        false
                    }
                }
            }
        }
    }

    async fn run(
        &mut self,
        client: WorkersClient<bombproof_store::remote::Channel>,
        drain: &mut watch::Receiver<u32>,
        grace: Duration,
    ) -> Result<(), RemoteWorkerError> {
        let mut tries = 0;
        let mut unfit = None;
        let mut deadline = None;
        let mut stopped = false;
        let mut drains = *drain.borrow();
        loop {
            if drains > 0 && deadline.is_none() {
                info!("nothing new is taken; what runs may go on for a while");
                self.board.drain();
                deadline = Some(tokio::time::Instant::now() + grace);
            }
            if unfit.is_none() && !self.is_fit().await {
                unfit = Some(self.last_fault.clone());
                error!("too much went wrong here ({}): nothing more is taken", self.last_fault);
                self.board.drain();
                deadline = Some(tokio::time::Instant::now() + grace);
            }
            if drains > 1 || deadline.is_some_and(|deadline| deadline <= tokio::time::Instant::now()) {
                self.board.stop_all();
                stopped = true;
            }
            let message = call_to_wire(&self.board.call())?;
            let mut calling = client.clone();
            let called = tokio::time::timeout(CALL_LIMIT, calling.synchronize(message));
            let answer = tokio::select! {
                answer = called => Some(answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer")))),
                // What has ended is told at once; the call that is held back is of no use any more.
                Some((attempt, ending)) = self.ended.recv() => {
                    self.note(attempt, ending);
                    None
                }
                Ok(()) = drain.changed() => {
                    drains = *drain.borrow_and_update();
                    None
                }
                () = until(deadline.filter(|_| !stopped && self.board.is_busy())) => None,
            };
            let wait = match answer {
                None => Duration::ZERO,
                Some(Ok(answer)) => {
                    if tries > 0 {
                        info!("the coordinator is there again");
                    }
                    tries = 0;
                    let answer = answer_from_wire(answer.into_inner())?;
                    self.metrics.called(Some(answer.standing));
                    for (assignment, stopped) in self.board.take(&answer) {
                        self.metrics.begun.add(1);
                        debug!(attempt = %assignment.attempt, job = %assignment.job.0.short(), "attempt {} begins", assignment.attempt);
                        let (runner, ends) = (Arc::clone(&self.runner), self.ends.clone());
                        tokio::spawn(async move {
                            let attempt = assignment.attempt;
                            let work = tokio::spawn(async move { runner.run(&assignment, stopped).await });
                            // An attempt that panics is a bug of ours, and says so.
                            let ending = work.await.unwrap_or_else(|error| {
                                let detail = format!("the attempt did not end properly: {error}");
                                Ending::Trouble(bombproof_core::outcome::Trouble::Internal { detail })
                            });
                            // Nobody listens when the worker ends.
                            let _ = ends.send((attempt, ending));
                        });
                    }
                    self.metrics.running.set(self.board.running());
                    if answer.standing == Standing::Replaced {
                        self.board.stop_all();
                        return Err(RemoteWorkerError::Replaced(self.name.clone()));
                    }
                    if (drains > 0 || unfit.is_some()) && self.board.is_done() {
                        // Once more, so that the coordinator knows that nothing is left.
                        let message = call_to_wire(&self.board.call())?;
                        let _ = tokio::time::timeout(Duration::from_secs(5), calling.synchronize(message)).await;
                        return unfit.map_or(Ok(()), |why| Err(RemoteWorkerError::Unfit(why)));
                    }
                    Duration::from_millis(answer.call_within_ms)
                }
                Some(Err(status)) => {
                    self.metrics.called(None);
                    if refuses(&status) {
                        return Err(RemoteWorkerError::Refused(status.message().to_owned()));
                    }
                    if drains > 0 && !self.board.is_busy() && tries > 5 {
                        // Nobody is there who could be told: what ran is done again by others.
                        return Ok(());
                    }
                    if tries == 0 {
                        warn!("the coordinator does not answer ({}): trying again", status.message());
                    }
                    tries += 1;
                    link::pause(tries)
                }
            };
            // Until the next call, or what is worth one.
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                Some((attempt, ending)) = self.ended.recv(), if wait > Duration::ZERO => self.note(attempt, ending),
                Ok(()) = drain.changed(), if wait > Duration::ZERO => drains = *drain.borrow_and_update(),
            }
            // Everything that ended meanwhile goes into one call.
            while let Ok((attempt, ending)) = self.ended.try_recv() {
                self.note(attempt, ending);
            }
        }
    }

    fn note(&mut self, attempt: Attempt, ending: Ending) {
        if let Ending::Trouble(trouble) = &ending {
            self.metrics.in_trouble.add(trouble.into(), 1);
            self.last_fault = trouble.describe();
            warn!(%attempt, fault = self.last_fault, "attempt {attempt} gave no answer: {}", self.last_fault);
        }
        debug!(%attempt, "attempt {attempt} has ended");
        self.board.end(attempt, ending);
        self.metrics.running.set(self.board.running());
    }
}

async fn until(moment: Option<tokio::time::Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Whether a coordinator would say the same next time.
fn refuses(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
    )
}
