//! The coordinator of a farm: keeps series, works on them, and has workers do what that takes.
//!
//! Each accepted series is a run like any other ([`crate::run`]), whose executor is the queue of the farm ([`OnFarm`]). So the
//! report of a farm is that of one machine by construction. What a series needs to be begun again is in the register before its
//! user hears of it; a coordinator that starts takes up every series that is not over.

mod accept;
mod counted;
mod executor;
#[cfg(test)]
pub(crate) mod ground;
mod incoming;
mod leader;
mod live;
mod notices;
mod repositories;
mod seat;
mod series;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bombproof_core::farm::Config;
use bombproof_core::id::{RunId, SeriesId, UserId};
use bombproof_core::kbuild::roots::Roots;
use bombproof_core::quota::Quota;
use bombproof_core::reign::Terms;
use bombproof_core::submission::Phase;
use bombproof_metrics::FarmMetrics;
use bombproof_store::home::Home;
use bombproof_store::manifests::{FileManifests, Manifests};
use bombproof_store::register::{Entry, Register, RegisterError};
use bombproof_store::runs::Runs;
use thiserror::Error;
use tokio::sync::watch;

use crate::audit;

pub use executor::{Kept, OnFarm};
pub use incoming::Incoming;
pub use leader::{Answered, Known, Leader, Work};
pub use live::{Live, Told};
pub use repositories::{Repositories, RepositoryError, Shelf};
pub use seat::Seat;

/// Most series that are worked on at once; the others wait in the register.
const MAX_RUNNING: usize = 64;

/// A register that is away is asked again after so long.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// What a coordinator is started with: the same in each of its reigns.
#[derive(Clone)]
pub struct Settings {
    /// Where everything is kept.
    pub home: Home,
    /// The repositories.
    pub repositories: Arc<Repositories>,
    /// Blobs, results of actions and of states.
    pub kept: Kept,
    /// Where packs are while they come.
    pub incoming: Arc<Incoming>,
    /// How long a reign lasts without being renewed.
    pub terms: Terms,
    /// Whether others may want to lead; without them nothing has to be renewed.
    pub contested: bool,
    /// How the queue behaves.
    pub queue: Config,
    /// How much one user may ask for.
    pub quota: Quota,
    /// Where builds are, as they see themselves.
    pub roots: Roots,
    /// Gives the time as RFC 3339, UTC.
    pub timestamp: fn(SystemTime) -> String,
    /// Makes ids of runs that sort by time.
    pub new_id: fn() -> RunId,
    /// What is counted of it.
    pub metrics: FarmMetrics,
}

/// A series cannot be taken.
#[derive(Debug, Error)]
pub enum SubmitError {
    /// It asks for what there is not, or for nothing.
    #[error("{0}")]
    Request(String),
    /// The user has asked for enough.
    #[error("{0}")]
    Enough(String),
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// It cannot be kept.
    #[error(transparent)]
    Register(#[from] RegisterError),
}

/// A coordinator that leads: one reign.
pub struct Coordinator {
    settings: Settings,
    leader: Arc<Leader>,
    register: Arc<dyn Register>,
    manifests: Arc<dyn Manifests>,
    runs: Runs,
    over: watch::Sender<bool>,
    live: Mutex<HashMap<SeriesId, Arc<Live>>>,
    counting: accept::Counting,
    turns: Arc<tokio::sync::Semaphore>,
}

impl Coordinator {
    /// Begins a reign; nothing is worked on before [`Coordinator::take_up`].
    pub fn new(settings: Settings, register: Arc<dyn Register>, epoch: u64) -> Arc<Self> {
        Arc::new(Self {
            leader: Leader::new(epoch, settings.queue.clone(), settings.metrics.clone()),
            register,
            manifests: Arc::new(FileManifests::at(settings.home.manifests())),
            runs: Runs::new(&settings.home),
            settings,
            over: watch::channel(false).0,
            live: Mutex::default(),
            counting: accept::Counting::default(),
            turns: Arc::new(tokio::sync::Semaphore::new(MAX_RUNNING)),
        })
    }

    /// Works on every series that is not over, and keeps the queue's time.
    ///
    /// # Errors
    /// When the register cannot be read.
    pub async fn take_up(self: &Arc<Self>) -> Result<usize, RegisterError> {
        let register = Arc::clone(&self.register);
        let entries = seat::blocking(move || register.list()).await?;
        let (leader, mut over) = (Arc::clone(&self.leader), self.over.subscribe());
        tokio::spawn(async move {
            tokio::select! {
                () = leader.tick_for_ever() => {}
                _ = over.wait_for(|over| *over) => {}
            }
        });
        let open: Vec<Entry> = entries.into_iter().filter(|entry| !entry.phase.is_over()).collect();
        for entry in &open {
            self.begin(&entry.id);
        }
        Ok(open.len())
    }

    /// Ends the reign: everything that is under way stops, and nothing is said of how it ended.
    pub(super) fn step_down(&self) {
        // Whoever is stopped by it finds out why.
        self.over.send_replace(true);
        for (_, live) in self.lives().drain() {
            live.stop();
            live.leave();
        }
    }

    /// Whether the reign is over.
    pub fn is_over(&self) -> bool {
        *self.over.borrow()
    }

    /// Waits until the reign is over.
    pub async fn ended(&self) {
        // It cannot go before we do.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }

    /// The queue.
    pub fn leader(&self) -> &Arc<Leader> {
        &self.leader
    }

    /// The register.
    pub fn register(&self) -> &Arc<dyn Register> {
        &self.register
    }

    /// The repositories.
    pub fn repositories(&self) -> &Repositories {
        &self.settings.repositories
    }

    /// Blobs, results of actions and of states.
    pub fn kept(&self) -> &Kept {
        &self.settings.kept
    }

    /// What compiles were seen to read.
    pub fn manifests(&self) -> &Arc<dyn Manifests> {
        &self.manifests
    }

    /// Stored runs.
    pub fn runs(&self) -> &Runs {
        &self.runs
    }

    /// Where packs are while they come.
    pub fn incoming(&self) -> &Incoming {
        &self.settings.incoming
    }

    /// Where everything is kept.
    pub fn home(&self) -> &Home {
        &self.settings.home
    }

    fn lives(&self) -> MutexGuard<'_, HashMap<SeriesId, Arc<Live>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many series are not over.
    fn open(&self) -> u64 {
        self.lives().len() as u64
    }

    /// What is told of a series that is not over.
    pub fn live(&self, id: &SeriesId) -> Option<Arc<Live>> {
        self.lives().get(id).cloned()
    }

    fn begin(self: &Arc<Self>, id: &SeriesId) {
        let (stop, cancel) = watch::channel(false);
        let live = Arc::new(Live::new(stop));
        {
            let mut lives = self.lives();
            // The same submission of the same user in the same moment is one series.
            if self.is_over() || lives.contains_key(id) {
                return;
            }
            lives.insert(id.clone(), Arc::clone(&live));
        }
        tokio::spawn(Arc::clone(self).carry(id.clone(), live, cancel));
    }

    /// Stops a series; false: it was over before.
    ///
    /// # Errors
    /// When there is no such series, or that cannot be kept.
    pub fn cancel(&self, id: &SeriesId, who: &UserId) -> Result<bool, RegisterError> {
        let mut was_over = false;
        // First it is kept: a coordinator that dies now does not begin it again.
        self.register.change(id, &mut |entry| {
            was_over = entry.phase.is_over();
            if !was_over {
                entry.phase = Phase::Cancelled;
                entry.detail = format!("cancelled by {who}");
            }
        })?;
        if !was_over {
            audit::record(who.as_str(), "cancel", Some(id), format_args!("series {id} is cancelled by {who}"));
            if let Some(live) = self.live(id) {
                live.stop();
            }
            self.leader.close(id);
        }
        Ok(!was_over)
    }
}
