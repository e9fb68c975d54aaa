//! Figures of a worker.

use bombproof_core::farm::Standing;

use crate::figures::{Count, Counts, Level, Levels, Spreads};
use crate::labels::{Answer, Kind, Outcome, State, Trouble};
use crate::page::Page;

/// Figures of a worker. Clones are the same figures.
#[derive(Clone, Debug)]
pub struct WorkerMetrics {
    /// How many jobs it runs at once.
    pub slots: Level,
    /// How many it runs.
    pub running: Level,
    state: Levels<State>,
    calls: Counts<Answer>,
    /// Attempts that were begun.
    pub begun: Count,
    /// Attempts that gave an answer.
    pub answered: Counts<(Kind, Outcome)>,
    /// Attempts that gave none.
    pub in_trouble: Counts<Trouble>,
    /// How long attempts took that gave an answer, in seconds.
    pub took: Spreads<Kind>,
}

impl Default for WorkerMetrics {
    fn default() -> Self {
        let state = Levels::default();
        state.set([(State::Silent, 1)]);
        Self {
            slots: Level::default(),
            running: Level::default(),
            state,
            calls: Counts::default(),
            begun: Count::default(),
            answered: Counts::default(),
            in_trouble: Counts::default(),
            took: Spreads::seconds(),
        }
    }
}

impl WorkerMetrics {
    /// A call was answered: that is how the worker stands. `None`: it was not.
    pub fn called(&self, answer: Option<Standing>) {
        self.calls.add(if answer.is_some() { Answer::Answered } else { Answer::Failed }, 1);
        self.state.set([(answer.map_or(State::Silent, State::of), 1)]);
    }

    /// Shows them on a page.
    pub fn show(&self, page: &mut Page) {
        page.add("worker_slots", "How many jobs this worker runs at once", self.slots.0.clone());
        page.add("worker_running", "How many it runs", self.running.0.clone());
        let about = "1: how this worker stands with its coordinator; silent: that did not answer";
        page.add("worker_state", about, self.state.0.clone());
        page.add("worker_calls", "Calls of the coordinator", self.calls.0.clone());
        page.add("worker_attempts_begun", "Attempts that were begun", self.begun.0.clone());
        page.add("worker_attempts_answered", "Attempts that gave an answer", self.answered.0.clone());
        page.add("worker_attempts_in_trouble", "Attempts that gave no answer", self.in_trouble.0.clone());
        page.add("worker_attempt_seconds", "How long attempts took that gave an answer", self.took.0.clone());
    }
}
