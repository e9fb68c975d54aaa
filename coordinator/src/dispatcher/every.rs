//! Judges all asked states: lanes of states over the slots.

use std::future::poll_fn;

use bombproof_core::outcome::{Outcome, StateResult, Trouble};
use bombproof_core::plan::Built;
use bombproof_core::schedule::lanes::{Effect, Ending, Event as Happened, Lanes, stretches};
use bombproof_store::atomic::FileError;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::watch;

use super::{Board, Executor, Job};

pub(super) async fn run(
    board: &mut Board<'_>,
    executor: &dyn Executor,
    cancel: watch::Receiver<bool>,
) -> Result<(), FileError> {
    board.recall()?;
    // The lanes, each with the target that it belongs to.
    let mut owners = Vec::new();
    let mut states = Vec::new();
    for target in 0..board.work.targets.len() {
        let open = board.open(target);
        let parts = if board.work.parallel { stretches(&open, board.work.slots) } else { vec![open] };
        for part in parts {
            owners.push(target);
            states.push(part);
        }
    }
    let mut lanes = Lanes::new(states, board.work.slots);
    let mut running = FuturesUnordered::new();
    let (stop, stopped) = watch::channel(false);
    let mut asked_to_stop = cancel;
    let mut last: Option<StateResult> = None;
    let mut queue = std::collections::VecDeque::from([Happened::Begin]);
    loop {
        while let Some(event) = queue.pop_front() {
            let (next, effects) = lanes.step(event);
            lanes = next;
            for effect in effects {
                match effect {
                    Effect::Run { lane, state, attempt } => {
                        let tree = board.work.trees[state.as_usize()].clone();
                        let job = Job { target: owners[lane], lane, state, tree, attempt, clean: false, alike: None };
                        running.push(board.start(executor, job, &stopped));
                    }
                    Effect::Settle { lane, state } => {
                        if let Some(result) = last.take() {
                            board.keep(owners[lane], state, result)?;
                        }
                    }
                    Effect::Stop => {
                        board.gathered.interrupted = true;
                        let _ = stop.send(true);
                    }
                    Effect::Done => return Ok(()),
                }
            }
        }
        tokio::select! {
            biased;
            () = turned_true(&mut asked_to_stop), if !*stopped.borrow() => queue.push_back(Happened::Cancel),
            ended = running.next() => {
                // Nothing runs and the schedule did not say that it is done: it cannot be, and waiting would hang.
                let Some((job, Built { result, .. })) = ended else { return Ok(()) };
                let ending = match &result.outcome {
                    Outcome::Trouble(trouble) if trouble.may_pass() => Ending::Transient,
                    Outcome::Trouble(_) | Outcome::Built | Outcome::Failed(_) | Outcome::Skipped => Ending::Settled,
                };
                // What the request itself makes impossible will not go better in the next state.
                if matches!(result.outcome, Outcome::Trouble(Trouble::Request { .. })) {
                    queue.push_back(Happened::Cancel);
                }
                last = Some(result);
                queue.push_back(Happened::Ended { lane: job.lane, state: job.state, attempt: job.attempt, ending });
            }
        }
    }
}

/// Ends when the value is true; never, when its sender is gone without saying so.
pub(super) async fn turned_true(signal: &mut watch::Receiver<bool>) {
    if signal.wait_for(|stop| *stop).await.is_err() {
        poll_fn(|_| std::task::Poll::<()>::Pending).await;
    }
}
