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

    /// Waits for a free job; `None`: `cancel` came first.
    pub async fn take(&self, mut cancel: watch::Receiver<bool>) -> Option<Job<'_>> {
        loop {
            let client = self.current();
            let token = match client.try_acquire() {
                Ok(token) => token,
                // A pipe that cannot be read without waiting: go on without a token rather than hang.
                Err(_) => return Some(Job { jobs: self, client, token: None }),
            };
            if let Some(token) = token {
                return Some(Job { jobs: self, client, token: Some(token) });
            }
            tokio::select! {
                () = tokio::time::sleep(std::time::Duration::from_millis(50)) => {}
                () = async { let _ = cancel.wait_for(|stop| *stop).await; } => return None,
            }
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
