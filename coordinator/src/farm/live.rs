//! What is told of a series while it is worked on, from the beginning, to whoever asks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bombproof_core::submission::{Phase, Seen};
use tokio::sync::watch;

/// One thing that is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// What it is about: the names of targets, the subjects of states, lines for people.
    Outline {
        /// Targets, by name.
        targets: Vec<String>,
        /// Subjects; the first one is the base.
        subjects: Vec<String>,
        /// Lines for people.
        lines: Vec<String>,
    },
    /// Why nothing happens yet.
    Waits(String),
    /// What happened.
    Seen(Seen),
    /// It is over.
    Over {
        /// How it stands.
        phase: Phase,
        /// Why there is no report.
        detail: String,
        /// What the user may do about that.
        hint: String,
    },
}

/// A series that is worked on.
pub struct Live {
    told: Mutex<Vec<Told>>,
    count: watch::Sender<usize>,
    stop: watch::Sender<bool>,
    left: AtomicBool,
}

impl Live {
    /// Nothing is told yet; `stop` stops the work.
    pub(super) fn new(stop: watch::Sender<bool>) -> Self {
        Self { told: Mutex::default(), count: watch::channel(0).0, stop, left: AtomicBool::new(false) }
    }

    fn list(&self) -> MutexGuard<'_, Vec<Told>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells something to all that watch.
    pub(super) fn tell(&self, what: Told) {
        let count = {
            let mut list = self.list();
            list.push(what);
            list.len()
        };
        self.count.send_replace(count);
    }

    /// Stops the work.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Nothing is told any more, although it is not over: this process does not lead.
    pub(super) fn leave(&self) {
        self.left.store(true, Ordering::Release);
        self.count.send_modify(|_| {});
    }

    /// Whether nothing is told any more.
    pub fn is_left(&self) -> bool {
        self.left.load(Ordering::Acquire)
    }

    /// What was told from a place on.
    pub fn since(&self, place: usize) -> Vec<Told> {
        self.list().get(place..).map(<[Told]>::to_vec).unwrap_or_default()
    }

    /// Changes whenever something is told.
    pub fn watch(&self) -> watch::Receiver<usize> {
        self.count.subscribe()
    }
}
