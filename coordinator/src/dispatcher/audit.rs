//! Has settled states built again by plain make and compared.
//!
//! What does not agree is no verdict any more: it is dropped from the store and reported as our bug.

use std::sync::Arc;

use bombproof_core::id::PatchIndex;
use bombproof_core::outcome::{Audited, Outcome, StateResult, Trouble};
use bombproof_core::schedule::sample::is_sampled;
use bombproof_store::atomic::FileError;
use bombproof_store::graphs::Graphs;
use bombproof_store::results::{ResultKey, ResultStore};
use tokio::sync::{mpsc, watch};

use super::{Audit, Event, Executor, Gathered, Job, Work};

/// What an audit that finds a difference takes back.
#[derive(Clone, Copy)]
pub struct Kept<'a> {
    /// Results of states.
    pub results: &'a dyn ResultStore,
    /// Graphs from which states were planned.
    pub graphs: Option<&'a dyn Graphs>,
}

/// Audits settled states, target by target in the order of the series; stops when `cancel` turns true.
///
/// # Errors
/// When the store cannot be written.
pub async fn audit(
    work: &Work,
    asked: Audit,
    gathered: &mut Gathered,
    kept: Kept<'_>,
    executor: &dyn Executor,
    events: &mpsc::UnboundedSender<Event>,
    cancel: watch::Receiver<bool>,
) -> Result<(), FileError> {
    let (mut equal, mut different, mut not_done) = (0, 0, Vec::new());
    for (target, digest) in work.targets.iter().enumerate() {
        let mut distrusted = false;
        for index in 0..work.trees.len() {
            let tree = &work.trees[index];
            let Some(result) = gathered.results[target][index].clone() else { continue };
            let answered = match result.outcome {
                Outcome::Built | Outcome::Failed(_) => true,
                Outcome::Skipped | Outcome::Trouble(_) => false,
            };
            let again = index > 0 && work.trees[index - 1] == *tree;
            if !answered || again || !is_sampled(digest, tree, asked.percent) {
                continue;
            }
            if *cancel.borrow() {
                gathered.interrupted = true;
                break;
            }
            let state = PatchIndex::from_usize(index);
            let job =
                Job { target, lane: target, state, tree: tree.clone(), attempt: 1, clean: asked.clean, alike: None };
            let audited = executor.audit(job, Arc::clone(&result), cancel.clone()).await;
            let _ = events.send(Event::Audited { target, state, audited: audited.clone() });
            match audited {
                Audited::Equal => equal += 1,
                Audited::Different(what) => {
                    different += 1;
                    kept.results.forget(&ResultKey::new(digest, tree))?;
                    // Nothing is planned from what may have missed something.
                    if let Some(graphs) = kept.graphs.filter(|_| !distrusted) {
                        for tree in &work.trees {
                            graphs.forget(&ResultKey::new(digest, tree))?;
                        }
                        distrusted = true;
                    }
                    let detail = format!("an audit by plain make does not agree: {}", what.join("; "));
                    let wrong = Arc::new(StateResult::trouble(Trouble::Internal { detail }));
                    for (other, result) in work.trees.iter().zip(&mut gathered.results[target]) {
                        if other == tree && result.is_some() {
                            *result = Some(Arc::clone(&wrong));
                        }
                    }
                }
                Audited::NotDone(trouble) => not_done.push(format!("state {state}: {}", trouble.describe())),
            }
        }
    }
    let how = if asked.clean { " from scratch" } else { "" };
    let audited = equal + different;
    let what = if different == 0 { "all agree".to_owned() } else { format!("{different} DO NOT AGREE") };
    gathered.notes.push(match audited {
        0 => "audit: no state was in the sample".to_owned(),
        _ => format!("audit: {audited} state-target pairs built again by plain make{how}: {what}"),
    });
    if let Some(first) = not_done.first() {
        gathered.notes.push(format!("audit: {} could not be done; {first}", not_done.len()));
    }
    Ok(())
}
