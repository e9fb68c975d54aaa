//! The pool of actions of a run: each is run once, whatever the number of states and targets that need it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bombproof_core::action::{Action, ActionResult};
use bombproof_core::digest::{BlobDigest, Digest};
use bombproof_core::kbuild::record::Known;
use bombproof_core::outcome::Trouble;
use bombproof_store::action_cache::ActionCache;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::sync::{Semaphore, watch};

/// How many times an action is tried when the trouble is the machine's.
const MAX_ATTEMPTS: u32 = 2;

/// Makes an action; everything that it reads is in the store of blobs then.
pub type Maker = Arc<dyn Fn() -> Result<Action, Trouble> + Send + Sync>;

/// An action that is to be run. It names some hundred files, and may wait for long: it is made when somebody runs it, and not
/// kept before.
#[derive(Clone)]
pub struct AskedAction {
    /// Its digest.
    pub digest: BlobDigest,
    /// The digest of the toolchain that it needs.
    pub toolchain: Digest,
    /// Makes it; that takes some milliseconds and may read the disk.
    pub make: Maker,
}

/// Runs one action; when it ends its outputs are in the store of blobs, and what it gave is in the cache of the run.
pub type ActionRunner =
    Arc<dyn Fn(AskedAction, watch::Receiver<bool>) -> BoxFuture<'static, Result<ActionResult, Trouble>> + Send + Sync>;

/// What became of an action, and whether it had to run.
pub(super) type Ended = Result<(Arc<ActionResult>, Known), Trouble>;

/// Runs actions, or knows what they gave.
pub(super) struct Pool {
    runner: ActionRunner,
    cache: Arc<dyn ActionCache>,
    slots: Arc<Semaphore>,
    /// Those that run now: who needs one of them waits for it.
    running: Arc<Mutex<HashMap<BlobDigest, Shared<BoxFuture<'static, Ended>>>>>,
}

impl Pool {
    pub(super) fn new(runner: ActionRunner, cache: Arc<dyn ActionCache>, slots: usize) -> Self {
        // Two more than can run: the next one is at hand when one ends.
        Self { runner, cache, slots: Arc::new(Semaphore::new(slots.max(1) + 2)), running: Arc::default() }
    }

    /// What an action gives. It goes on when nobody waits for it any more.
    pub(super) fn get(&self, asked: AskedAction, cancel: &watch::Receiver<bool>) -> BoxFuture<'static, Ended> {
        let digest = asked.digest;
        match self.cache.get(&digest) {
            Ok(Some(result)) => return futures::future::ready(Ok((Arc::new(result), Known::Cached))).boxed(),
            Ok(None) => {}
            Err(error) => return futures::future::ready(Err(Trouble::Disk { detail: error.to_string() })).boxed(),
        }
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = running.get(&digest) {
            // It runs for somebody else.
            let same = same.clone();
            return async move { same.await.map(|(result, _)| (result, Known::Cached)) }.boxed();
        }
        let (runner, cancel) = (Arc::clone(&self.runner), cancel.clone());
        let slots = Arc::clone(&self.slots);
        let work = async move {
            let Ok(_slot) = slots.acquire().await else { return Err(Trouble::Interrupted) };
            let mut last = Trouble::Interrupted;
            for _ in 0..MAX_ATTEMPTS {
                match runner(asked.clone(), cancel.clone()).await {
                    Ok(result) => return Ok((Arc::new(result), Known::Ran)),
                    Err(trouble) if trouble.may_pass() => last = trouble,
                    Err(trouble) => return Err(trouble),
                }
            }
            Err(last)
        };
        let done = Arc::clone(&self.running);
        let task = tokio::spawn(async move {
            let ended = work.await;
            done.lock().unwrap_or_else(PoisonError::into_inner).remove(&digest);
            ended
        });
        let ended = async move {
            // An action that panics is a bug of ours: it must not pass for an answer.
            let broken = |error: tokio::task::JoinError| Trouble::Internal { detail: error.to_string() };
            task.await.unwrap_or_else(|error| Err(broken(error)))
        };
        let shared = ended.boxed().shared();
        running.insert(digest, shared.clone());
        shared.boxed()
    }
}
