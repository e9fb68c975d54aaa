//! Gives out the states of a run to an executor and gathers their results.
//!
//! One task owns the run and is the only place where a result is settled; attempts run beside it and report by value.
//! What runs next is decided by the pure functions of [`bombproof_core::schedule`]. Every settled result is in the store
//! before it is announced, so that a killed run finds it again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bombproof_core::digest::Digest;
use bombproof_core::id::{Oid, PatchIndex};
use bombproof_core::outcome::{Audited, Outcome, StateResult, Trouble};
use bombproof_core::plan::alike::Alike;
use bombproof_core::plan::{Built, Configured};
use bombproof_store::atomic::FileError;
use bombproof_store::results::{ResultKey, ResultStore};
use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};

mod audit;
mod every;
mod planned;
mod pool;
mod search;

/// One attempt at one state on one target.
#[derive(Clone, Debug)]
pub struct Job {
    /// Index of the target in the request.
    pub target: usize,
    /// The sequence of states that share a tree; jobs of one lane never run at the same time.
    pub lane: usize,
    /// The state.
    pub state: PatchIndex,
    /// Its tree.
    pub tree: Oid,
    /// Counted from 1.
    pub attempt: u32,
    /// From scratch, in a tree that nothing was built in.
    pub clean: bool,
    /// Versions of files that are the same to compilers.
    pub alike: Option<Arc<Alike>>,
}

/// Builds states. Whatever happens it gives a result; trouble is one.
pub trait Executor: Send + Sync {
    /// Runs one attempt; stops at once when `cancel` turns true.
    fn execute(&self, job: Job, cancel: watch::Receiver<bool>) -> BoxFuture<'static, Built>;

    /// Asks Kconfig alone what it makes of a state.
    fn configure(&self, job: Job, cancel: watch::Receiver<bool>) -> BoxFuture<'static, Result<Configured, Trouble>> {
        let _ = (job, cancel);
        Box::pin(async { Err(Trouble::Internal { detail: "builds have no configuration here".to_owned() }) })
    }

    /// Builds a state again by plain make and compares it with what was said of it.
    fn audit(&self, job: Job, expected: Arc<StateResult>, cancel: watch::Receiver<bool>)
    -> BoxFuture<'static, Audited>;
}

pub use audit::{Kept, audit};
pub use bombproof_core::submission::{Audit, Mode};
pub use planned::Planning;
pub use pool::{ActionRunner, AskedAction, Maker};

/// The work of a run.
#[derive(Clone, Debug)]
pub struct Work {
    /// For each target: the digest of the target with its toolchain.
    pub targets: Vec<Digest>,
    /// Whether the states of one target may be built in several trees at once (commands), or only one after the other.
    pub parallel: bool,
    /// The tree of each state; entry 0 is the base.
    pub trees: Vec<Oid>,
    /// What is judged.
    pub mode: Mode,
    /// How many attempts run at once.
    pub slots: usize,
    /// Results of earlier runs are used.
    pub reuse: bool,
}

/// What the dispatcher announces while it works.
#[derive(Clone, Debug)]
pub enum Event {
    /// What has to be done is known.
    Planned {
        /// How many states each target has to settle, those already known included.
        states: usize,
    },
    /// An attempt starts.
    Started(Job),
    /// A state is settled.
    Settled {
        /// Index of the target.
        target: usize,
        /// The state.
        state: PatchIndex,
        /// Its result.
        result: Arc<StateResult>,
        /// It came from an earlier run.
        cached: bool,
    },
    /// A state was built again by plain make.
    Audited {
        /// Index of the target.
        target: usize,
        /// The state.
        state: PatchIndex,
        /// What that showed.
        audited: Audited,
    },
}

/// What is known at the end.
#[derive(Clone, Debug, Default)]
pub struct Gathered {
    /// By target, then by state.
    pub results: Vec<Vec<Option<Arc<StateResult>>>>,
    /// By target, then by state: it came from an earlier run.
    pub cached: Vec<Vec<bool>>,
    /// The states that were to be judged.
    pub asked: BTreeSet<PatchIndex>,
    /// The run was stopped before everything was settled.
    pub interrupted: bool,
    /// The request itself cannot be carried out on a target.
    pub refused: Option<(usize, String)>,
    /// What a reader of the report must know.
    pub notes: Vec<String>,
}

/// The state of a run, owned by one task.
struct Board<'a> {
    work: &'a Work,
    store: &'a dyn ResultStore,
    events: &'a mpsc::UnboundedSender<Event>,
    /// The states of each tree, asked for or not.
    same_tree: BTreeMap<&'a Oid, Vec<PatchIndex>>,
    gathered: Gathered,
}

impl<'a> Board<'a> {
    fn new(work: &'a Work, store: &'a dyn ResultStore, events: &'a mpsc::UnboundedSender<Event>) -> Self {
        let count = work.trees.len();
        let gathered = Gathered {
            results: vec![vec![None; count]; work.targets.len()],
            cached: vec![vec![false; count]; work.targets.len()],
            ..Gathered::default()
        };
        let mut same_tree: BTreeMap<&Oid, Vec<PatchIndex>> = BTreeMap::new();
        for (index, tree) in work.trees.iter().enumerate() {
            same_tree.entry(tree).or_default().push(PatchIndex::from_usize(index));
        }
        Self { work, store, events, same_tree, gathered }
    }

    fn key(&self, target: usize, state: PatchIndex) -> ResultKey {
        ResultKey::new(&self.work.targets[target], &self.work.trees[state.as_usize()])
    }

    fn known(&self, target: usize, state: PatchIndex) -> bool {
        self.gathered.results[target][state.as_usize()].is_some()
    }

    /// The nearest state before that gave an answer on this target, and its result.
    fn neighbour(&self, target: usize, state: PatchIndex) -> Option<(ResultKey, &Arc<StateResult>)> {
        let results = self.gathered.results[target].iter().enumerate().take(state.as_usize()).rev();
        let mut answers = results.filter_map(|(index, result)| Some((index, result.as_ref()?)));
        let (index, result) = answers.find(|(_, result)| !matches!(result.outcome, Outcome::Trouble(_)))?;
        Some((self.key(target, PatchIndex::from_usize(index)), result))
    }

    /// Takes in what earlier runs found out about the asked states.
    fn recall(&mut self) -> Result<(), FileError> {
        let _ = self.events.send(Event::Planned { states: self.gathered.asked.len() });
        for target in 0..self.work.targets.len() {
            for state in self.gathered.asked.clone() {
                self.recall_one(target, state)?;
            }
        }
        Ok(())
    }

    fn recall_one(&mut self, target: usize, state: PatchIndex) -> Result<(), FileError> {
        if self.work.reuse
            && !self.known(target, state)
            && let Some(result) = self.store.get(&self.key(target, state))?
        {
            self.settle(target, state, &Arc::new(result), true);
        }
        Ok(())
    }

    /// Stores a result, then announces it for every asked state with the same tree. It and the one before hold in common
    /// what is equal.
    fn keep(&mut self, target: usize, state: PatchIndex, mut result: StateResult) -> Result<(), FileError> {
        if let Outcome::Trouble(Trouble::Request { detail }) = &result.outcome {
            self.gathered.refused.get_or_insert((target, detail.clone()));
        }
        let before = self.neighbour(target, state);
        if let Some((_, before)) = before {
            result.share_with(before);
        }
        let before = before.map(|(key, _)| key);
        self.store.put_after(&self.key(target, state), &result, before.as_ref())?;
        self.settle(target, state, &Arc::new(result), false);
        Ok(())
    }

    fn settle(&mut self, target: usize, state: PatchIndex, result: &Arc<StateResult>, cached: bool) {
        let same = self.same_tree.get(&self.work.trees[state.as_usize()]).into_iter().flatten();
        for state in same.copied().filter(|state| self.gathered.asked.contains(state)) {
            self.gathered.results[target][state.as_usize()] = Some(Arc::clone(result));
            self.gathered.cached[target][state.as_usize()] = cached;
            let _ = self.events.send(Event::Settled { target, state, result: Arc::clone(result), cached });
        }
    }

    /// The asked states of a target that have to be built: of states with one tree only the first.
    fn open(&self, target: usize) -> Vec<PatchIndex> {
        let mut trees = BTreeSet::new();
        let asked = self.gathered.asked.iter().copied();
        asked.filter(|state| !self.known(target, *state) && trees.insert(&self.work.trees[state.as_usize()])).collect()
    }

    fn start(
        &self,
        executor: &dyn Executor,
        job: Job,
        cancel: &watch::Receiver<bool>,
    ) -> BoxFuture<'static, (Job, Built)> {
        let _ = self.events.send(Event::Started(job.clone()));
        let attempt = executor.execute(job.clone(), cancel.clone());
        // An attempt that panics is a bug of ours: it must not take the run with it, nor pass for an answer.
        let task = tokio::spawn(attempt);
        Box::pin(async move {
            let result = task.await.unwrap_or_else(|error| {
                let detail = format!("the attempt did not end properly: {error}");
                StateResult::trouble(Trouble::Internal { detail }).into()
            });
            (job, result)
        })
    }
}

/// Runs the work to its end, or until `cancel` turns true.
///
/// # Errors
/// When the store cannot be read or written: what was settled before is kept.
pub async fn run(
    work: &Work,
    store: &dyn ResultStore,
    executor: &dyn Executor,
    planning: Option<&Planning>,
    events: &mpsc::UnboundedSender<Event>,
    cancel: watch::Receiver<bool>,
) -> Result<Gathered, FileError> {
    let last = PatchIndex::from_usize(work.trees.len().saturating_sub(1));
    let mut board = Board::new(work, store, events);
    board.gathered.asked = match work.mode {
        Mode::Every | Mode::Search => (0..work.trees.len()).map(PatchIndex::from_usize).collect(),
        Mode::Tip => [PatchIndex::BASE, last].into(),
    };
    match work.mode {
        Mode::Every | Mode::Tip if work.parallel => every::run(&mut board, executor, cancel).await?,
        Mode::Every | Mode::Tip => planned::run(&mut board, executor, planning, cancel).await?,
        Mode::Search => search::run(&mut board, executor, cancel).await?,
    }
    Ok(board.gathered)
}

#[cfg(test)]
mod tests;
