//! The link to the agent of one container.

use std::collections::HashMap;
use std::fs::File;
use std::future::Future;
use std::io::Write;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::query_parameters::{AttachContainerOptionsBuilder, WaitContainerOptionsBuilder};
use bombproof_core::target::TargetSpec;
use futures::StreamExt;
use serde::Deserialize;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};

use super::engine::Engine;
use crate::sandbox::wire::{self, Decoder, Frame, Hello, Kind, Reply};
use crate::sandbox::{End, Resource, SandboxError, Spec};

/// Frames of one command that may wait; then the agent waits, and with it the build.
const WAITING: usize = 64;
/// An agent that says nothing this long after its start is not one.
const START: Duration = Duration::from_secs(60);
/// A command that is to stop has this long; then its container goes, which takes most of another second. A slot is to be free within
/// two, and not before nothing writes into its folders any more.
const STOP: Duration = Duration::from_secs(1);
/// The compilers of an image are looked at at most this long.
const LOOK: Duration = Duration::from_secs(120);
/// How long to wait for the exit code of a container whose agent is gone.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Of what the agent says on its standard error this much is kept, in bytes.
const STDERR_BYTES: usize = 4096;

type Pending = Mutex<HashMap<u32, mpsc::Sender<Frame>>>;

/// A container with its agent.
#[derive(Debug)]
pub(super) struct Link {
    engine: Engine,
    id: String,
    next: AtomicU32,
    say: mpsc::UnboundedSender<Frame>,
    pending: Arc<Pending>,
    /// Why it is over, when it is.
    over: watch::Receiver<Option<String>>,
}

/// A command that is running; when this is dropped before its reply came it is stopped.
struct Running<'a> {
    link: &'a Link,
    id: u32,
    frames: mpsc::Receiver<Frame>,
    done: bool,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        lock(&self.link.pending).remove(&self.id);
        if !self.done {
            let _ = self.link.say.send(Frame::bytes(Kind::Stop, self.id, Vec::new()));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed<E: std::fmt::Display>(what: &str) -> impl Fn(E) -> SandboxError {
    move |error| SandboxError::Failed(format!("{what}: {error}"))
}

fn body<'a, T: Deserialize<'a>>(frame: &'a Frame) -> Result<T, SandboxError> {
    serde_json::from_slice(&frame.body).map_err(failed("the agent's answer"))
}

impl Link {
    /// Starts a container that was made, and waits for its agent.
    pub(super) async fn start(engine: &Engine, id: String) -> Result<Self, SandboxError> {
        let docker = engine.docker();
        // Before the start: what is said first is not kept anywhere.
        let options =
            AttachContainerOptionsBuilder::default().stdin(true).stdout(true).stderr(true).stream(true).build();
        let attached = docker.attach_container(&id, Some(options)).await.map_err(failed("the container"))?;
        docker.start_container(&id, None).await.map_err(failed("the container cannot be started"))?;
        let (say, said) = mpsc::unbounded_channel();
        let pending = Arc::new(Pending::default());
        let (hello, mut greeted) = mpsc::channel(1);
        lock(&pending).insert(0, hello);
        let (end, over) = watch::channel(None);
        tokio::spawn(write(attached.input, said));
        let (waiting, own, own_engine) = (Arc::clone(&pending), id.clone(), engine.clone());
        tokio::spawn(async move {
            let why = read(attached.output, &waiting).await;
            let code = tokio::time::timeout(LAST_WORDS, exit_code(&own_engine, &own)).await.ok().flatten();
            let code = code.map(|code| format!(" (exit code {code})")).unwrap_or_default();
            end.send_replace(Some(format!("the container ended{code}{why}")));
            lock(&waiting).clear();
        });
        let link = Self { engine: engine.clone(), id, next: AtomicU32::new(1), say, pending, over };
        let hello = tokio::time::timeout(START, greeted.recv()).await;
        let hello = match hello {
            Ok(Some(frame)) => body::<Hello>(&frame).and_then(|hello| match hello {
                Hello { version, .. } if version != env!("CARGO_PKG_VERSION") => {
                    Err(SandboxError::Failed(format!("the agent in the container is of version {version}")))
                }
                Hello { refused: Some(why), .. } => {
                    Err(SandboxError::Failed(format!("no sandbox can be made in the container: {why}")))
                }
                Hello { refused: None, .. } => Ok(()),
            }),
            Ok(None) => Err(link.why().await),
            Err(_) => Err(SandboxError::Failed("the agent in the container says nothing".to_owned())),
        };
        if let Err(error) = hello {
            let _ = engine.remove(&link.id).await;
            return Err(error);
        }
        Ok(link)
    }

    /// Whether its agent still answers.
    pub(super) fn lives(&self) -> bool {
        self.over.borrow().is_none()
    }

    /// Why it is over; waits for that.
    async fn why(&self) -> SandboxError {
        let mut over = self.over.clone();
        let why = over.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        SandboxError::Failed(why.unwrap_or_else(|| "the container is gone".to_owned()))
    }

    pub(super) async fn remove(&self) {
        // Nobody can do anything about it; the next worker sweeps.
        let _ = self.engine.remove(&self.id).await;
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    fn ask(&self, kind: Kind, request: &impl serde::Serialize) -> Result<Running<'_>, SandboxError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let frame = Frame::json(kind, id, request).map_err(failed("the request"))?;
        if frame.body.len() > wire::MAX_BODY_BYTES {
            return Err(SandboxError::Failed(format!("a command of {} bytes", frame.body.len())));
        }
        let (send, frames) = mpsc::channel(WAITING);
        lock(&self.pending).insert(id, send);
        let running = Running { link: self, id, frames, done: false };
        // Where the agent is gone no frame comes.
        let _ = self.say.send(frame);
        if !self.lives() {
            lock(&self.pending).remove(&id);
        }
        Ok(running)
    }

    /// Runs a command until it ends or `stop` does.
    pub(super) async fn run(
        &self,
        spec: Spec,
        log: &File,
        jobs: Option<&Path>,
        memory_bytes: u64,
        stop: impl Future<Output = End>,
    ) -> Result<End, SandboxError> {
        let most = spec.limits.file_bytes;
        let mut running = self.ask(Kind::Run, &wire::Command { spec, jobs: jobs.map(Path::to_owned) })?;
        tokio::pin!(stop);
        let mut log = log;
        let mut printed = 0_u64;
        let mut stopped: Option<End> = None;
        let late = tokio::time::sleep(STOP);
        tokio::pin!(late);
        loop {
            let frame = tokio::select! {
                frame = running.frames.recv() => frame,
                end = &mut stop, if stopped.is_none() => {
                    stopped = Some(end);
                    let _ = self.say.send(Frame::bytes(Kind::Stop, running.id, Vec::new()));
                    late.as_mut().reset(tokio::time::Instant::now() + STOP);
                    continue;
                }
                () = &mut late, if stopped.is_some() => {
                    // Something in there cannot be killed, or the agent is stuck.
                    self.remove().await;
                    return Ok(stopped.unwrap_or(End::Cancelled));
                }
            };
            let Some(frame) = frame else {
                return match stopped {
                    Some(end) => Ok(end),
                    None => Err(self.why().await),
                };
            };
            match frame.kind {
                Kind::Output if stopped.is_none() => {
                    log.write_all(&frame.body).map_err(failed("the log"))?;
                    printed = printed.saturating_add(u64::try_from(frame.body.len()).unwrap_or(u64::MAX));
                    if printed > most {
                        stopped = Some(End::Exhausted { resource: Resource::Output, limit_bytes: most });
                        let _ = self.say.send(Frame::bytes(Kind::Stop, running.id, Vec::new()));
                        late.as_mut().reset(tokio::time::Instant::now() + STOP);
                    }
                }
                Kind::Reply => {
                    running.done = true;
                    if let Some(end) = stopped {
                        return Ok(end);
                    }
                    return match body::<Reply>(&frame)? {
                        Reply::Ended { exit, usage } => Ok(End::Exited(exit, usage)),
                        Reply::OutOfMemory => {
                            Ok(End::Exhausted { resource: Resource::Memory, limit_bytes: memory_bytes })
                        }
                        Reply::Refused(why) => Err(SandboxError::Failed(why)),
                        Reply::Stopped => Err(SandboxError::Failed("the agent stopped a command unasked".to_owned())),
                    };
                }
                Kind::Output | Kind::Run | Kind::Stop | Kind::Toolchain | Kind::Hello | Kind::Found => {}
            }
        }
    }

    /// The compilers that the image has for a target.
    pub(super) async fn toolchain(&self, spec: &TargetSpec) -> Result<wire::Found, SandboxError> {
        let mut running = self.ask(Kind::Toolchain, spec)?;
        match tokio::time::timeout(LOOK, running.frames.recv()).await {
            Ok(Some(frame)) => {
                running.done = true;
                body(&frame)
            }
            Ok(None) => Err(self.why().await),
            Err(_) => Err(SandboxError::Failed("the agent does not say which compilers there are".to_owned())),
        }
    }
}

async fn write(mut input: Pin<Box<dyn AsyncWrite + Send>>, mut frames: mpsc::UnboundedReceiver<Frame>) {
    while let Some(frame) = frames.recv().await {
        if input.write_all(&frame.encode()).await.is_err() || input.flush().await.is_err() {
            return;
        }
    }
    // The link was dropped: the agent ends with its input.
    let _ = input.shutdown().await;
}

/// Hands frames to those who wait for them until there are no more; gives what is to be said of the end.
async fn read(
    mut output: impl futures::Stream<Item = Result<LogOutput, bollard::errors::Error>> + Unpin,
    pending: &Pending,
) -> String {
    let mut decoder = Decoder::default();
    let mut errors: Vec<u8> = Vec::new();
    let said = |errors: &[u8]| {
        let text = String::from_utf8_lossy(errors).trim().to_owned();
        if text.is_empty() { text } else { format!(": {text}") }
    };
    while let Some(piece) = output.next().await {
        match piece {
            Ok(LogOutput::StdOut { message }) => decoder.push(&message),
            Ok(LogOutput::StdErr { message } | LogOutput::Console { message }) => {
                errors.extend(message.iter().take(STDERR_BYTES.saturating_sub(errors.len())));
                continue;
            }
            Ok(LogOutput::StdIn { .. }) => continue,
            Err(error) => return format!("{}: {error}", said(&errors)),
        }
        loop {
            match decoder.next() {
                Ok(Some(frame)) => {
                    let to = lock(pending).get(&frame.id).cloned();
                    if let Some(to) = to {
                        // Who went away does not want it.
                        let _ = to.send(frame).await;
                    }
                }
                Ok(None) => break,
                Err(error) => return format!("{}: it sends {error}", said(&errors)),
            }
        }
    }
    said(&errors)
}

/// The exit code of a container that ended.
async fn exit_code(engine: &Engine, id: &str) -> Option<i64> {
    let options = WaitContainerOptionsBuilder::default().condition("not-running").build();
    let mut waiting = Box::pin(engine.docker().wait_container(id, Some(options)));
    match waiting.next().await? {
        Ok(ended) => Some(ended.status_code),
        Err(bollard::errors::Error::DockerContainerWaitError { code, .. }) => Some(code),
        Err(_) => None,
    }
}
