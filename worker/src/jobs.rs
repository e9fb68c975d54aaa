//! Shares the machine among makes: one GNU make jobserver for all of them.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// The jobs of this machine.
#[derive(Debug)]
pub struct Jobs {
    count: usize,
    client: Mutex<jobserver::Client>,
}

/// The right to run one make; it starts further jobs with tokens of the same jobserver.
pub struct Job<'a> {
    jobs: &'a Jobs,
    client: jobserver::Client,
    token: Option<jobserver::Acquired>,
}

impl Jobs {
    /// So many jobs at once, over all makes.
    ///
    /// # Errors
    /// When the pipe cannot be made.
    pub fn new(count: usize) -> std::io::Result<Arc<Self>> {
        let client = jobserver::Client::new(count.max(1))?;
        Ok(Arc::new(Self { count: count.max(1), client: Mutex::new(client) }))
    }

    fn current(&self) -> jobserver::Client {
        self.client.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a free job; `None`: `cancel` came first, or the jobserver cannot be read.
    pub async fn take(&self, mut cancel: watch::Receiver<bool>) -> Option<Job<'_>> {
        let client = self.current();
        let (send, receive) = tokio::sync::oneshot::channel();
        let waiting = client.clone();
        // A thread of its own: reading the pipe cannot be stopped, and nobody shall wait for it at the end. A token that
        // comes too late goes back when it is dropped.
        std::thread::spawn(move || {
            let _ = send.send(waiting.acquire());
        });
        tokio::select! {
            token = receive => token.ok()?.ok().map(|token| Job { jobs: self, client, token: Some(token) }),
            () = async { let _ = cancel.wait_for(|stop| *stop).await; } => None,
        }
    }
}

impl Job<'_> {
    /// The jobserver to hand to make.
    pub fn client(&self) -> &jobserver::Client {
        &self.client
    }

    /// The make was killed, and the tokens that it held are gone: later ones use a new jobserver.
    pub fn lost(mut self) {
        if let Ok(fresh) = jobserver::Client::new(self.jobs.count) {
            *self.jobs.client.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
        }
        if let Some(token) = self.token.take() {
            token.drop_without_releasing();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_more_jobs_than_asked_for_and_cancel_ends_the_waiting() {
        let jobs = Jobs::new(1).unwrap();
        let (stop, cancel) = watch::channel(false);
        let first = jobs.take(cancel.clone()).await.unwrap();
        let second = jobs.take(cancel.clone());
        tokio::pin!(second);
        let early = tokio::time::timeout(std::time::Duration::from_millis(100), &mut second).await;
        assert!(early.is_err(), "the only job is taken");
        drop(first);
        assert!(second.await.is_some());
        let _held = jobs.take(cancel.clone()).await.unwrap();
        stop.send(true).unwrap();
        assert!(jobs.take(cancel).await.is_none());
    }
}
