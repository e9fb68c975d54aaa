//! How a worker speaks to its coordinator: again and again, when that is not there for a while.

use std::future::Future;
use std::time::Duration;

use tokio::runtime::Handle;
use tonic::{Code, Status};

/// Trouble of the network in the middle of something is borne for about so many tries: a coordinator that is started anew is
/// back by then.
const TRIES: u32 = 12;
/// The first pause between two tries; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The pause before the next try, after so many.
pub(super) fn pause(tries: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1_u32.checked_shl(tries).unwrap_or(u32::MAX)).min(LONGEST_PAUSE)
}

/// Whether the next try may well go better.
pub(super) fn may_pass(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable
        | Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::Unknown
        | Code::DataLoss
        | Code::ResourceExhausted => true,
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::Unauthenticated => false,
    }
}

/// Tries something until it works, or will not.
pub(super) async fn patiently<T, F>(mut work: impl FnMut() -> F) -> Result<T, Status>
where
    F: Future<Output = Result<T, Status>>,
{
    let mut tries = 0;
    loop {
        match work().await {
            Err(status) if may_pass(&status) && tries < TRIES => {
                tokio::time::sleep(pause(tries)).await;
                tries += 1;
            }
            done => return done,
        }
    }
}

/// Does work of the runtime and waits for it, on a thread that may wait. `None`: the runtime stops.
pub(super) fn wait<T: Send + 'static>(runtime: &Handle, work: impl Future<Output = T> + Send + 'static) -> Option<T> {
    // A thread of the runtime hands its other tasks over first: what is spawned here would wait for it otherwise.
    tokio::task::block_in_place(|| {
        let (done, answer) = std::sync::mpsc::sync_channel(1);
        runtime.spawn(async move {
            // Nobody may wait any more.
            let _ = done.send(work.await);
        });
        answer.recv().ok()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn trouble_of_the_network_is_borne_and_a_no_is_a_no() {
        let asked = AtomicU32::new(0);
        let after = |tries: u32, status: fn() -> Status| {
            let asked = &asked;
            move || async move { if asked.fetch_add(1, Ordering::Relaxed) < tries { Err(status()) } else { Ok(()) } }
        };
        patiently(after(5, || Status::unavailable("restarting"))).await.unwrap();
        assert_eq!(asked.swap(0, Ordering::Relaxed), 6);
        let refused = patiently(after(5, || Status::not_found("no"))).await.unwrap_err();
        assert_eq!((refused.code(), asked.swap(0, Ordering::Relaxed)), (Code::NotFound, 1));
        let gone = patiently(after(u32::MAX, || Status::unavailable("gone"))).await.unwrap_err();
        assert_eq!((gone.code(), asked.load(Ordering::Relaxed)), (Code::Unavailable, TRIES + 1));
    }
}
