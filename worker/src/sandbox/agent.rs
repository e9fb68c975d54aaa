//! The agent: this program as the first process of a container (`__agent`), which starts the helper there as a worker asks it to.
//!
//! The first process only collects what dies; the agent proper is its child. Both end when their input does, so that a
//! container never outlives its worker.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use bombproof_core::target::TargetSpec;
use nix::sys::wait::{WaitStatus, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};

use super::wire::{self, Decoder, Frame, Hello, Kind, Reply};
use super::{End, Level, here, probe};
use crate::jobs::{NamedPipe, Tokens};
use crate::toolchain::find_toolchain;

/// Output is handed on in pieces of at most this size, in bytes.
const PIECE_BYTES: usize = 64 << 10;
/// Frames that may wait to be written.
const WAITING: usize = 64;
/// What is left of a command that was killed holds its output at most this long.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Memory that is the agent's alone, in a container that builds can fill.
const SCRATCH: &str = "/tmp";

/// Runs as the agent if the arguments ask for it; gives the exit code of this process.
pub(super) fn main(args: &[std::ffi::OsString]) -> Option<i32> {
    match args.get(1).and_then(|word| word.to_str()) {
        Some("__agent") => Some(first()),
        Some("__serve") => Some(serve_until_the_end()),
        Some(_) | None => None,
    }
}

/// The first process of a container inherits every process that lost its parent, and must collect what is left of it.
fn first() -> i32 {
    let started = std::env::current_exe().and_then(|own| std::process::Command::new(own).arg("__serve").spawn());
    let Ok(child) = started else { return 1 };
    loop {
        match wait() {
            Ok(WaitStatus::Exited(id, code)) if id.as_raw().unsigned_abs() == child.id() => return code,
            Ok(WaitStatus::Signaled(id, signal, _)) if id.as_raw().unsigned_abs() == child.id() => {
                return 128 + signal as i32;
            }
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return 1,
        }
    }
}

fn serve_until_the_end() -> i32 {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let Ok(runtime) = runtime else { return 1 };
    let code = i32::from(runtime.block_on(serve()).is_err());
    // Whatever still runs ends with this container.
    runtime.shutdown_background();
    code
}

async fn serve() -> std::io::Result<()> {
    let own = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().map(File::from);
    let mut input = pipe::Receiver::from_file(own(std::io::stdin().as_fd())?)?;
    let mut output = pipe::Sender::from_file(own(std::io::stdout().as_fd())?)?;
    let (say, mut said) = mpsc::channel::<Frame>(WAITING);
    tokio::spawn(async move {
        while let Some(frame) = said.recv().await {
            if output.write_all(&frame.encode()).await.is_err() {
                return;
            }
        }
    });
    let refused = probe(Level::Namespaces, Path::new(SCRATCH)).await.err().map(|error| error.to_string());
    let hello = Hello { version: env!("CARGO_PKG_VERSION").to_owned(), refused };
    send(&say, Frame::json(Kind::Hello, 0, &hello)).await;
    let mut running: HashMap<u32, watch::Sender<bool>> = HashMap::new();
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let count = input.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        decoder.push(buffer.get(..count).unwrap_or_default());
        while let Some(frame) = decoder.next().map_err(std::io::Error::other)? {
            running.retain(|_, stop| !stop.is_closed());
            let say = say.clone();
            match frame.kind {
                Kind::Run => {
                    let (stop, stopped) = watch::channel(false);
                    running.insert(frame.id, stop);
                    tokio::spawn(async move {
                        let reply = run(&frame, &say, stopped).await.unwrap_or_else(Reply::Refused);
                        send(&say, Frame::json(Kind::Reply, frame.id, &reply)).await;
                    });
                }
                Kind::Stop => {
                    if let Some(stop) = running.get(&frame.id) {
                        let _ = stop.send(true);
                    }
                }
                Kind::Toolchain => {
                    tokio::task::spawn_blocking(move || {
                        let found: wire::Found = match serde_json::from_slice::<TargetSpec>(&frame.body) {
                            Ok(spec) => find_toolchain(&spec, Path::new(SCRATCH)),
                            // No answer: the worker gives up on this container.
                            Err(_) => return,
                        };
                        if let Ok(frame) = Frame::json(Kind::Found, frame.id, &found) {
                            let _ = say.blocking_send(frame);
                        }
                    });
                }
                Kind::Hello | Kind::Output | Kind::Reply | Kind::Found => {}
            }
        }
    }
}

async fn send(say: &mpsc::Sender<Frame>, frame: serde_json::Result<Frame>) {
    if let Ok(frame) = frame {
        let _ = say.send(frame).await;
    }
}

/// Runs one command and hands its output on. The error says why nothing ran.
async fn run(frame: &Frame, say: &mpsc::Sender<Frame>, mut stopped: watch::Receiver<bool>) -> Result<Reply, String> {
    let wire::Command { spec, jobs } = serde_json::from_slice(&frame.body).map_err(|error| error.to_string())?;
    let jobs = jobs.map(|path| Tokens::Named(NamedPipe::at(&path).into()));
    let (mut read, write) = std::io::pipe().map_err(|error| format!("a pipe: {error}"))?;
    let log = File::from(OwnedFd::from(write));
    let (id, say) = (frame.id, say.clone());
    let reader = tokio::task::spawn_blocking(move || {
        let mut buffer = vec![0; PIECE_BYTES];
        while let Ok(count) = read.read(&mut buffer) {
            let Some(piece) = buffer.get(..count).filter(|piece| !piece.is_empty()) else { return };
            if say.blocking_send(Frame::bytes(Kind::Output, id, piece.to_vec())).is_err() {
                return;
            }
        }
    });
    let before = oom_kills();
    let stop = async {
        let _ = stopped.wait_for(|stop| *stop).await;
        End::Cancelled
    };
    let end = here::run(Level::Namespaces, &spec, &log, jobs.as_ref(), stop).await;
    drop(log);
    // Everything that the command started is dead, and with it the last writer.
    let _ = tokio::time::timeout(LAST_WORDS, reader).await;
    let out_of_memory = oom_kills() > before;
    Ok(match end {
        Ok(End::Exited(exit, _)) if exit != 0 && out_of_memory => Reply::OutOfMemory,
        Ok(End::Exited(exit, usage)) => Reply::Ended { exit, usage },
        Ok(End::TimedOut | End::Cancelled | End::Exhausted { .. }) => Reply::Stopped,
        Err(_) if out_of_memory => Reply::OutOfMemory,
        Err(error) => Reply::Refused(error.to_string()),
    })
}

/// How many processes of this container the kernel killed for want of memory (cgroup v2, then v1).
fn oom_kills() -> u64 {
    ["/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"]
        .iter()
        .filter_map(|file| std::fs::read_to_string(file).ok())
        .filter_map(|text| text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()))
        .next()
        .unwrap_or(0)
}
