//! Searches the first failing state of a command, several probes at a time, and verifies what it found.

use std::collections::BTreeMap;

use bombproof_core::id::PatchIndex;
use bombproof_core::outcome::{Outcome, StateResult};
use bombproof_core::schedule::search::{Answer, Next, next};
use bombproof_store::atomic::FileError;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::watch;

use super::{Board, Executor, Job};

/// The search works on one target: a command.
const TARGET: usize = 0;

pub(super) async fn run(
    board: &mut Board<'_>,
    executor: &dyn Executor,
    cancel: watch::Receiver<bool>,
) -> Result<(), FileError> {
    let last = PatchIndex::from_usize(board.work.trees.len().saturating_sub(1));
    let mut known = BTreeMap::new();
    board.gathered.notes.push(
        "search mode assumed that once a state fails all later ones fail; states that were not built are inferred"
            .to_owned(),
    );
    loop {
        match next(last, &known, board.work.slots) {
            Next::Probe(mut states) => {
                for state in &states {
                    board.recall_one(TARGET, *state)?;
                    if let Some(result) = &board.gathered.results[TARGET][state.as_usize()] {
                        known.insert(*state, answer(result));
                    }
                }
                states.retain(|state| !known.contains_key(state));
                for (state, result) in probe(board, executor, &cancel, &states, false).await {
                    known.insert(state, answer(&result));
                    board.keep(TARGET, state, result)?;
                }
                if *cancel.borrow() {
                    board.gathered.interrupted = true;
                    return Ok(());
                }
                if board.gathered.refused.is_some() {
                    return Ok(());
                }
            }
            Next::Found { culprit, parent } => return verify(board, executor, &cancel, culprit, parent).await,
            Next::BaseFails => {
                board.gathered.notes.push("the base fails: no patch is blamed, nothing was searched".to_owned());
                return Ok(());
            }
            Next::Undecided(state) => {
                board.gathered.notes.push(format!("state {state} could not be tested: nothing was searched"));
                return Ok(());
            }
            Next::NothingFails => return Ok(()),
        }
    }
}

/// Builds the culprit and its parent again, each in a tree that nothing was built in: what an earlier state left behind
/// may have made the difference.
async fn verify(
    board: &mut Board<'_>,
    executor: &dyn Executor,
    cancel: &watch::Receiver<bool>,
    culprit: PatchIndex,
    parent: PatchIndex,
) -> Result<(), FileError> {
    let mut confirmed = true;
    for (state, result) in probe(board, executor, cancel, &[parent, culprit], true).await {
        let want = if state == culprit { Answer::Bad } else { Answer::Good };
        confirmed &= answer(&result) == want;
        board.keep(TARGET, state, result)?;
    }
    let skipped = culprit.0 - parent.0 - 1;
    let unsure =
        if skipped > 0 { format!("; {skipped} states between them could not be tested") } else { String::new() };
    board.gathered.notes.push(if confirmed {
        format!("verified by clean runs: {culprit} fails, {parent} passes{unsure}")
    } else {
        format!("NOT confirmed by clean runs of {parent} and {culprit}: the command depends on more than the tree")
    });
    board.gathered.interrupted |= *cancel.borrow();
    Ok(())
}

async fn probe(
    board: &Board<'_>,
    executor: &dyn Executor,
    cancel: &watch::Receiver<bool>,
    states: &[PatchIndex],
    clean: bool,
) -> Vec<(PatchIndex, StateResult)> {
    let mut results = Vec::new();
    let mut waiting = states.iter().copied();
    let mut running = FuturesUnordered::new();
    let mut free: Vec<usize> = (0..board.work.slots.max(1)).rev().collect();
    loop {
        while !free.is_empty() && !*cancel.borrow() {
            let Some(state) = waiting.next() else { break };
            let Some(lane) = free.pop() else { break };
            let tree = board.work.trees[state.as_usize()].clone();
            let job = Job { target: TARGET, lane, state, tree, attempt: 1, clean, alike: None };
            running.push(board.start(executor, job, cancel));
        }
        let Some((job, result)) = running.next().await else { return results };
        free.push(job.lane);
        results.push((job.state, result.result));
    }
}

fn answer(result: &StateResult) -> Answer {
    match result.outcome {
        Outcome::Built => Answer::Good,
        Outcome::Failed(_) => Answer::Bad,
        Outcome::Skipped | Outcome::Trouble(_) => Answer::Unknown,
    }
}
