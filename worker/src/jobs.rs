//! Shares the machine among makes: one GNU make jobserver for all of them.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bombproof_core::digest::Digest;
use bombproof_store::home::{Home, TreeLease};
use tokio::sync::watch;

/// The jobs of this machine.
#[derive(Debug)]
pub struct Jobs {
    count: usize,
    tokens: Mutex<Tokens>,
    /// Where named pipes are made, if makes in containers are to share them.
    folder: Option<TreeLease>,
}

/// Where the tokens are.
#[derive(Clone, Debug)]
pub enum Tokens {
    /// In a pipe, which children inherit.
    Pipe(jobserver::Client),
    /// In a named pipe, which makes in containers open too.
    Named(Arc<NamedPipe>),
}

/// A named pipe that holds a byte for each free job.
#[derive(Debug)]
pub struct NamedPipe {
    path: PathBuf,
    /// Open as long as tokens shall stay in it; `None` where another process sees to that.
    file: Option<File>,
}

/// A token that was taken; it goes back when it is dropped.
enum Taken {
    Pipe(jobserver::Acquired),
    Named(Returns),
}

/// A byte of a named pipe; written back when it is dropped.
struct Returns {
    pipe: Arc<NamedPipe>,
    token: Option<[u8; 1]>,
}

/// The right to run one make; it starts further jobs with tokens of the same jobserver.
pub struct Job<'a> {
    jobs: &'a Jobs,
    tokens: Tokens,
    token: Option<Taken>,
}

impl NamedPipe {
    /// One that is there already.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), file: None }
    }

    fn make(path: PathBuf, count: usize) -> std::io::Result<Self> {
        use nix::sys::stat::Mode;
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)?;
        // Opened both ways it waits for nobody, and what was written stays.
        let mut file = File::options().read(true).write(true).open(&path)?;
        file.write_all(&vec![b'+'; count])?;
        Ok(Self { path, file: Some(file) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Tokens {
    /// Waits for a token.
    fn take(&self) -> std::io::Result<Taken> {
        match self {
            Self::Pipe(client) => client.acquire().map(Taken::Pipe),
            Self::Named(pipe) => {
                let mut token = [0];
                let file = pipe.file.as_ref().ok_or(std::io::ErrorKind::NotFound)?;
                (&*file).read_exact(&mut token)?;
                Ok(Taken::Named(Returns { pipe: Arc::clone(pipe), token: Some(token) }))
            }
        }
    }
}

impl Drop for Returns {
    fn drop(&mut self) {
        if let (Some(token), Some(mut file)) = (self.token, self.pipe.file.as_ref()) {
            let _ = file.write_all(&token);
        }
    }
}

impl Taken {
    /// Does not give it back.
    fn forget(self) {
        match self {
            Self::Pipe(token) => token.drop_without_releasing(),
            Self::Named(mut token) => token.token = None,
        }
    }
}

impl Jobs {
    /// So many jobs at once, over all makes of this host.
    ///
    /// # Errors
    /// When the pipe cannot be made.
    pub fn new(count: usize) -> std::io::Result<Arc<Self>> {
        let count = count.max(1);
        let tokens = Tokens::Pipe(jobserver::Client::new(count)?);
        Ok(Arc::new(Self { count, tokens: Mutex::new(tokens), folder: None }))
    }

    /// So many jobs at once, over all makes of this host and of containers that see the folders of builds.
    ///
    /// # Errors
    /// When the named pipe cannot be made.
    pub fn shared(count: usize, home: &Home) -> std::io::Result<Arc<Self>> {
        let count = count.max(1);
        let folder = home.take_tree(&Digest::of(b"bombproof/jobs/v1")).map_err(std::io::Error::other)?;
        let tokens = Tokens::Named(NamedPipe::make(folder.path().join("tokens"), count)?.into());
        Ok(Arc::new(Self { count, tokens: Mutex::new(tokens), folder: Some(folder) }))
    }

    fn current(&self) -> Tokens {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a free job; `None`: `cancel` came first, or the jobserver cannot be read.
    pub async fn take(&self, mut cancel: watch::Receiver<bool>) -> Option<Job<'_>> {
        let tokens = self.current();
        let (send, receive) = tokio::sync::oneshot::channel();
        let waiting = tokens.clone();
        // A thread of its own: reading the pipe cannot be stopped, and nobody shall wait for it at the end. A token that
        // comes too late goes back when it is dropped.
        std::thread::spawn(move || {
            let _ = send.send(waiting.take());
        });
        tokio::select! {
            token = receive => token.ok()?.ok().map(|token| Job { jobs: self, tokens, token: Some(token) }),
            () = async { let _ = cancel.wait_for(|stop| *stop).await; } => None,
        }
    }

    fn fresh(&self) -> std::io::Result<Tokens> {
        match &self.folder {
            None => Ok(Tokens::Pipe(jobserver::Client::new(self.count)?)),
            // The old one lives on for those that have it open.
            Some(folder) => Ok(Tokens::Named(NamedPipe::make(folder.path().join("tokens"), self.count)?.into())),
        }
    }
}

impl Job<'_> {
    /// The tokens to hand to make.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// The make was killed, and the tokens that it held are gone: later ones use a new jobserver.
    pub fn lost(mut self) {
        if let Ok(fresh) = self.jobs.fresh() {
            *self.jobs.tokens.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
        }
        if let Some(token) = self.token.take() {
            token.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn no_more_than_one(jobs: &Jobs) {
        let (stop, cancel) = watch::channel(false);
        let first = jobs.take(cancel.clone()).await.unwrap();
        let second = jobs.take(cancel.clone());
        tokio::pin!(second);
        let early = tokio::time::timeout(std::time::Duration::from_millis(100), &mut second).await;
        assert!(early.is_err(), "the only job is taken");
        drop(first);
        let second = second.await.unwrap();
        second.lost();
        let _held = jobs.take(cancel.clone()).await.unwrap();
        stop.send(true).unwrap();
        assert!(jobs.take(cancel).await.is_none());
    }

    #[tokio::test]
    async fn no_more_jobs_than_asked_for_and_cancel_ends_the_waiting() {
        no_more_than_one(&Jobs::new(1).unwrap()).await;
    }

    #[tokio::test]
    async fn jobs_that_are_shared_with_containers_are_counted_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        no_more_than_one(&Jobs::shared(1, &home).unwrap()).await;
    }
}
