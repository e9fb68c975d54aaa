//! Trying again.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use tonic::Status;

use super::error::is_transient;

/// How often and how fast something is tried again that failed through no fault of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// All tries, the first one too.
    pub tries: u32,
    /// The first pause; each one is twice as long as the one before.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        // A server that is started again is back within these six seconds.
        Self { tries: 7, first: Duration::from_millis(100), longest: Duration::from_secs(5) }
    }
}

impl Retry {
    /// The pause after that many failed tries, up to half as long again: clients that failed together do not come back
    /// together.
    pub(super) fn pause(&self, failed: u32) -> Duration {
        let pause = self.first.saturating_mul(1 << failed.saturating_sub(1).min(16)).min(self.longest);
        let chance = u32::try_from(RandomState::new().hash_one(failed) % 512).unwrap_or_default();
        pause + pause * chance / 1024
    }

    /// Does something until it goes well, or fails for good. The error comes with the number of tries.
    pub(super) async fn run<T, F>(&self, mut again: impl FnMut() -> F) -> Result<T, (u32, Status)>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let mut failed = 0;
        loop {
            match again().await {
                Ok(value) => return Ok(value),
                Err(status) => {
                    failed += 1;
                    if failed >= self.tries || !is_transient(&status) {
                        return Err((failed, status));
                    }
                    tokio::time::sleep(self.pause(failed)).await;
                }
            }
        }
    }
}

/// Something that must give a sign of life within a minute: a batch, or the next piece of a stream.
pub(super) async fn alive<T>(work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    const SILENCE: Duration = Duration::from_secs(60);
    let late = |_| Status::deadline_exceeded(format!("nothing was heard for {} s", SILENCE.as_secs()));
    tokio::time::timeout(SILENCE, work).await.map_err(late)?
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    async fn tried(codes: &[tonic::Code]) -> (u32, Result<(), (u32, Status)>) {
        let calls = Cell::new(0);
        let done = Retry::default()
            .run(|| {
                let code = codes.get(calls.get()).copied();
                calls.set(calls.get() + 1);
                async move { code.map_or(Ok(()), |code| Err(Status::new(code, "said"))) }
            })
            .await;
        (u32::try_from(calls.get()).unwrap(), done)
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_go_well_is_tried_again_and_nothing_else() {
        use tonic::Code::{Aborted, InvalidArgument, NotFound, ResourceExhausted, Unavailable, Unknown};
        assert!(matches!(tried(&[Unavailable, Aborted, ResourceExhausted]).await, (4, Ok(()))));
        for code in [InvalidArgument, NotFound, Unknown] {
            assert!(matches!(tried(&[code]).await, (1, Err((1, _)))), "{code:?}");
        }
        assert!(matches!(tried(&[Unavailable; 20]).await, (7, Err((7, _)))));
    }

    #[test]
    fn pauses_grow_up_to_a_bound() {
        let retry = Retry::default();
        for failed in 1..40 {
            let pause = retry.pause(failed);
            let least = (retry.first * 2_u32.pow((failed - 1).min(10))).min(retry.longest);
            assert!(pause >= least && pause <= least * 3 / 2, "{failed}: {pause:?}");
        }
    }
}
