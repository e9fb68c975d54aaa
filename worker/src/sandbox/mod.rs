//! Runs commands of untrusted builds: without network, without the user's files and environment, with limits.
//!
//! Levels, best first: own namespaces (this program as a small helper, see [`helper`]), bubblewrap, Landlock; without any
//! of them nothing runs unless the user says so. At the first two a build sees only the system's programs read-only and
//! its own folders at fixed paths; at the others its folders keep their own names.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;

pub mod helper;

/// How well a build is shut in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Own user, mount, process, network, IPC and host name spaces.
    Namespaces,
    /// The same by bwrap(1), where we may not make them ourselves.
    Bubblewrap,
    /// Only its own folders can be written, only the system's and its own can be read; the network is not shut off.
    Landlock,
    /// Nothing: the user asked for it.
    None,
}

impl Level {
    /// The word in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Bubblewrap => "bubblewrap",
            Self::Landlock => "landlock",
            Self::None => "none",
        }
    }

    /// Whether folders appear at fixed paths.
    pub fn has_own_paths(self) -> bool {
        match self {
            Self::Namespaces | Self::Bubblewrap => true,
            Self::Landlock | Self::None => false,
        }
    }
}

/// A folder or file of the host inside the sandbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bind {
    /// On this machine.
    pub host: PathBuf,
    /// In the sandbox; the same as `host` at levels without paths of their own.
    pub guest: String,
    /// It may be written.
    pub writable: bool,
}

/// A folder that a command may write to without changing it: what it writes goes to another folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Overlay {
    /// What is seen at first; never written.
    pub lower: PathBuf,
    /// Where everything goes that is written.
    pub upper: PathBuf,
    /// An empty folder beside `upper`, for the kernel.
    pub work: PathBuf,
    /// In the sandbox.
    pub guest: String,
}

/// What a command may use up.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Limits {
    /// Processes of this user.
    pub processes: u64,
    /// Size of one file, in bytes.
    pub file_bytes: u64,
    /// Address space of one process, in bytes.
    pub memory_bytes: u64,
    /// Wall time of the command, in seconds.
    pub time_s: u64,
}

impl Limits {
    /// Wide enough for every build we know, narrow enough to stop a runaway.
    pub fn for_builds(time_s: u64) -> Self {
        Self { processes: 16_384, file_bytes: 16 << 30, memory_bytes: 64 << 30, time_s }
    }
}

/// A command to run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The folder in the sandbox.
    pub cwd: String,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// What it sees beside the system's programs.
    pub binds: Vec<Bind>,
    /// Folders that it seems to write; only at [`Level::Namespaces`].
    #[serde(default)]
    pub overlays: Vec<Overlay>,
    /// What it may use up.
    pub limits: Limits,
    /// An empty folder of ours on which the new root is mounted.
    pub mount_point: PathBuf,
}

/// What a command used up, with everything that it started and waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time (user and system) in microseconds.
    pub cpu_us: u64,
    /// Wall time in microseconds.
    pub wall_us: u64,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With this exit code; 128 + n for signal n.
    Exited(i32, Usage),
    /// It ran too long and was killed.
    TimedOut,
    /// The user stopped it.
    Cancelled,
}

/// The sandbox itself could not be set up: nothing ran.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct SandboxError(pub String);

/// What the helper says on its standard output, one JSON object.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Word {
    /// It could not be set up.
    Refused(String),
    /// The command ended, and what it used up.
    Ended(i32, Usage),
}

/// The best level that works on this machine, and why the better ones do not.
pub async fn best(scratch: &Path) -> (Option<Level>, Vec<String>) {
    let mut why = Vec::new();
    for level in [Level::Namespaces, Level::Bubblewrap, Level::Landlock] {
        match probe(level, scratch).await {
            Ok(()) => return (Some(level), why),
            Err(error) => why.push(format!("{}: {error}", level.name())),
        }
    }
    (None, why)
}

/// Runs `true` at this level.
///
/// # Errors
/// When it cannot.
pub async fn probe(level: Level, scratch: &Path) -> Result<(), SandboxError> {
    let failed = |error: std::io::Error| SandboxError(error.to_string());
    let folder = tempfile::tempdir_in(scratch).map_err(failed)?;
    let mount_point = folder.path().join("root");
    std::fs::create_dir(&mount_point).map_err(failed)?;
    let spec = Spec {
        argv: vec!["/bin/true".to_owned()],
        cwd: "/".to_owned(),
        env: Vec::new(),
        binds: Vec::new(),
        overlays: Vec::new(),
        limits: Limits::for_builds(30),
        mount_point,
    };
    let log = File::create(folder.path().join("log")).map_err(failed)?;
    let (_keep, never) = watch::channel(false);
    match run(level, &spec, &log, None, never).await? {
        End::Exited(0, _) => Ok(()),
        end @ (End::Exited(..) | End::TimedOut | End::Cancelled) => {
            let said = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
            Err(SandboxError(format!("'true' ended with {end:?} {}", said.trim())))
        }
    }
}

/// Runs a command at a level; its output goes to `log`. When it ends, by itself or not, everything that it started ends.
///
/// # Errors
/// When the sandbox cannot be set up.
pub async fn run(
    level: Level,
    spec: &Spec,
    log: &File,
    jobs: Option<&jobserver::Client>,
    mut cancel: watch::Receiver<bool>,
) -> Result<End, SandboxError> {
    let failed = |what: &str, error: std::io::Error| SandboxError(format!("{what}: {error}"));
    let own = std::env::current_exe().map_err(|error| failed("own program", error))?;
    let mut command = std::process::Command::new(&own);
    command.arg("__sandbox").arg(level.name());
    command.env_clear();
    if let Some(jobs) = jobs {
        jobs.configure_make(&mut command);
    }
    let mut command = tokio::process::Command::from(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log.try_clone().map_err(|error| failed("log", error))?)
        // A group of its own: what the terminal sends at Ctrl-C is for us, and we stop the build in our order.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed("helper", error))?;
    let text = serde_json::to_string(spec).map_err(|error| SandboxError(error.to_string()))?;
    // Stays open while it runs: its end tells the helper to stop.
    let mut input = child.stdin.take();
    if let Some(input) = input.as_mut() {
        // A helper that is gone already says why on its output.
        let _ = input.write_all(format!("{text}\n").as_bytes()).await;
    }
    let mut said = String::new();
    let talk = async {
        if let Some(mut output) = child.stdout.take() {
            let _ = output.read_to_string(&mut said).await;
        }
        child.wait().await
    };
    let status = tokio::select! {
        status = talk => status.map_err(|error| failed("helper", error))?,
        () = tokio::time::sleep(Duration::from_secs(spec.limits.time_s)) => {
            stop(&mut child, input.take(), level).await;
            return Ok(End::TimedOut);
        }
        () = async { let _ = cancel.wait_for(|stop| *stop).await; } => {
            stop(&mut child, input.take(), level).await;
            return Ok(End::Cancelled);
        }
    };
    match said.lines().last().and_then(|line| serde_json::from_str::<Word>(line).ok()) {
        Some(Word::Ended(code, usage)) => Ok(End::Exited(code, usage)),
        Some(Word::Refused(why)) => Err(SandboxError(why)),
        None => Err(SandboxError(format!("the helper ended without a word ({status})"))),
    }
}

/// Stops the helper: with its own name spaces it is killed, and the first process in there goes with it; without them it
/// kills the process group when its input ends.
async fn stop(child: &mut tokio::process::Child, input: Option<tokio::process::ChildStdin>, level: Level) {
    drop(input);
    if level.has_own_paths() {
        let _ = child.start_kill();
    }
    let _ = child.wait().await;
}
