//! Shares the machine among makes: one GNU make jobserver for all of them.
//!
//! A build can take tokens and never give them back, or bring tokens of its own. So whenever no make runs there are made to be as
//! many as there should be.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bombproof_core::digest::Digest;
use bombproof_store::home::{Home, TreeLease};
use tokio::sync::watch;

/// The jobs of this machine.
#[derive(Debug)]
pub struct Jobs {
    count: usize,
    state: Arc<Mutex<State>>,
    /// Where named pipes are made, if makes in containers are to share them.
    folder: Option<TreeLease>,
}

/// Nobody who waits gets a token, and nobody has one: after this time they are taken for lost.
const LOST: Duration = Duration::from_secs(1);
/// A pipe holds no more than this, in bytes.
const PIPE_BYTES: usize = 1 << 16;

#[derive(Debug)]
struct State {
    tokens: Tokens,
    /// Jobs that were given out.
    held: usize,
    /// Who waits for one.
    waiting: usize,
    /// Threads that read tokens; one may have a token that nobody waits for any more.
    reading: usize,
    /// Tokens beyond the count, for jobs that are wide.
    wide: usize,
    /// Of these, those whose job has ended: whoever takes a token next takes them away.
    owed: usize,
    /// How many jobservers there were before this one.
    era: u64,
}

impl State {
    /// Whether a token that was just taken is one too many; it is to be forgotten then.
    fn takes_away(&mut self) -> bool {
        let owed = self.owed > 0;
        if owed {
            self.owed -= 1;
            self.wide -= 1;
        }
        owed
    }

    /// Makes the tokens as many as they should be. Nobody may have one.
    fn settle(&mut self, count: usize) -> std::io::Result<()> {
        (self.wide, self.owed) = (0, 0);
        self.tokens.settle(count)
    }

    fn of(tokens: Tokens) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { tokens, held: 0, waiting: 0, reading: 0, wide: 0, owed: 0, era: 0 }))
    }
}

/// Counts somebody who waits.
struct Waits<'a>(&'a Jobs);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
    }
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
    /// The jobserver to which it gave a token more.
    wide: Option<u64>,
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
    /// Adds a token.
    fn add(&self) -> std::io::Result<()> {
        match self {
            Self::Pipe(client) => client.release_raw(),
            Self::Named(pipe) => {
                let mut file = pipe.file.as_ref().ok_or(std::io::ErrorKind::NotFound)?;
                file.write_all(b"+")
            }
        }
    }

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

impl Tokens {
    /// Makes them as many as they should be. Nobody may have one.
    fn settle(&self, count: usize) -> std::io::Result<()> {
        match self {
            Self::Pipe(client) => {
                let there = client.available()?;
                // They are there, and nobody else reads.
                for _ in count..there {
                    client.acquire()?.drop_without_releasing();
                }
                (there..count).try_for_each(|_| client.release_raw())
            }
            Self::Named(pipe) => {
                let Some(mut file) = pipe.file.as_ref() else { return Ok(()) };
                let flags = nix::fcntl::OFlag::O_NONBLOCK.bits();
                let mut other = File::options().read(true).custom_flags(flags).open(&pipe.path)?;
                // An empty one is no error: `WouldBlock`.
                let _ = other.read(&mut vec![0; PIPE_BYTES]);
                file.write_all(&vec![b'+'; count])
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
        Ok(Arc::new(Self { count, state: State::of(tokens), folder: None }))
    }

    /// So many jobs at once, over all makes of this host and of containers that see the folders of builds.
    ///
    /// # Errors
    /// When the named pipe cannot be made.
    pub fn shared(count: usize, home: &Home) -> std::io::Result<Arc<Self>> {
        let count = count.max(1);
        let folder = home.take_tree(&Digest::of(b"bombproof/jobs/v1")).map_err(std::io::Error::other)?;
        let tokens = Tokens::Named(NamedPipe::make(folder.path().join("tokens"), count)?.into());
        Ok(Arc::new(Self { count, state: State::of(tokens), folder: Some(folder) }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a free job; `None`: `cancel` came first, or the jobserver cannot be read.
    pub async fn take(&self, mut cancel: watch::Receiver<bool>) -> Option<Job<'_>> {
        let (tokens, era) = {
            let mut state = self.state();
            state.waiting += 1;
            state.reading += 1;
            (state.tokens.clone(), state.era)
        };
        let _waits = Waits(self);
        let (send, mut receive) = tokio::sync::oneshot::channel();
        let (waiting, state) = (tokens.clone(), Arc::clone(&self.state));
        // A thread of its own: reading the pipe cannot be stopped, and nobody shall wait for it at the end. A token that
        // comes too late goes back when it is dropped.
        std::thread::spawn(move || {
            loop {
                let token = waiting.take();
                // Under the lock, so that whoever counts sees the token here or there.
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                if state.era == era && token.is_ok() && state.takes_away() {
                    drop(token.map(Taken::forget));
                    continue;
                }
                state.reading -= 1;
                drop(send.send(token));
                return;
            }
        });
        loop {
            tokio::select! {
                token = &mut receive => {
                    let token = token.ok()?.ok()?;
                    self.state().held += 1;
                    return Some(Job { jobs: self, tokens, token: Some(token), wide: None });
                }
                () = async { let _ = cancel.wait_for(|stop| *stop).await; } => return None,
                () = tokio::time::sleep(LOST) => {
                    let mut state = self.state();
                    if state.held == 0 && state.era == era {
                        let _ = state.settle(self.count);
                    }
                }
            }
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

    /// Has one job more than there are, as long as this one lasts, unless another job has: for a make whose compiles are
    /// handed over. They wait for the sandbox and the disk for a tenth of their time, and a processor would wait with them.
    pub fn widen(&mut self) {
        let mut state = self.jobs.state();
        if state.wide == 0 && self.tokens.add().is_ok() {
            state.wide = 1;
            self.wide = Some(state.era);
        }
    }

    /// The make was killed, and the tokens that it held are gone: later ones use a new jobserver.
    pub fn lost(mut self) {
        if let Ok(fresh) = self.jobs.fresh() {
            let mut state = self.jobs.state();
            (state.tokens, state.wide, state.owed) = (fresh, 0, 0);
            state.era += 1;
        }
        if let Some(token) = self.token.take() {
            token.forget();
        }
    }
}

impl Drop for Job<'_> {
    fn drop(&mut self) {
        drop(self.token.take());
        let mut state = self.jobs.state();
        state.held -= 1;
        if self.wide == Some(state.era) && state.wide > state.owed {
            state.owed += 1;
        }
        if (state.held, state.waiting, state.reading) == (0, 0, 0) {
            // At worst it is done by the next one who waits in vain.
            let _ = state.settle(self.jobs.count);
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
        let early = tokio::time::timeout(Duration::from_millis(100), &mut second).await;
        assert!(early.is_err(), "the only job is taken");
        drop(first);
        let second = second.await.unwrap();
        second.lost();
        let _held = jobs.take(cancel.clone()).await.unwrap();
        stop.send(true).unwrap();
        assert!(jobs.take(cancel).await.is_none());
    }

    /// A build that takes all tokens, or brings some.
    async fn whatever_a_build_does(jobs: &Jobs) {
        let (_stop, cancel) = watch::channel(false);
        for extra in [false, true] {
            let job = jobs.take(cancel.clone()).await.unwrap();
            match (job.tokens(), extra) {
                (Tokens::Pipe(client), false) => client.acquire().unwrap().drop_without_releasing(),
                (Tokens::Pipe(client), true) => client.release_raw().unwrap(),
                (Tokens::Named(pipe), false) => {
                    File::open(pipe.path()).unwrap().read_exact(&mut [0]).unwrap();
                }
                (Tokens::Named(pipe), true) => {
                    File::options().write(true).open(pipe.path()).unwrap().write_all(b"+").unwrap();
                }
            }
            drop(job);
            let first = jobs.take(cancel.clone()).await.unwrap();
            let _second = jobs.take(cancel.clone()).await.unwrap();
            let third = tokio::time::timeout(Duration::from_millis(100), jobs.take(cancel.clone())).await;
            assert!(third.is_err(), "extra: {extra}");
            drop(first);
            while jobs.state().reading > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        // Both are taken by somebody who is gone while others wait.
        let held = (jobs.take(cancel.clone()).await.unwrap(), jobs.take(cancel.clone()).await.unwrap());
        let waiting = jobs.take(cancel.clone());
        let gone = async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            for mut job in [held.0, held.1] {
                job.token.take().unwrap().forget();
            }
        };
        let (job, ()) = tokio::join!(tokio::time::timeout(LOST * 5, waiting), gone);
        assert!(job.unwrap().is_some());
    }

    /// A wide job has one more, which is gone after it although others wait all the time.
    async fn wide(jobs: &Jobs) {
        let (_stop, cancel) = watch::channel(false);
        let mut wide = jobs.take(cancel.clone()).await.unwrap();
        wide.widen();
        wide.widen();
        let second = jobs.take(cancel.clone()).await.unwrap();
        let third = jobs.take(cancel.clone()).await.unwrap();
        let none = async || tokio::time::timeout(Duration::from_millis(100), jobs.take(cancel.clone())).await.is_err();
        assert!(none().await, "one more, and not two");
        drop(wide);
        assert!(none().await, "the one that came back was too many");
        drop(second);
        let _fourth = jobs.take(cancel.clone()).await.unwrap();
        assert!(none().await);
        drop(third);
    }

    #[tokio::test]
    async fn a_wide_job_has_one_more() {
        let folder = tempfile::tempdir().unwrap();
        wide(&Jobs::new(2).unwrap()).await;
        wide(&Jobs::shared(2, &Home::at(folder.path())).unwrap()).await;
    }

    #[tokio::test]
    async fn tokens_are_as_many_as_they_should_be_whatever_a_build_does() {
        let folder = tempfile::tempdir().unwrap();
        whatever_a_build_does(&Jobs::new(2).unwrap()).await;
        whatever_a_build_does(&Jobs::shared(2, &Home::at(folder.path())).unwrap()).await;
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
