//! Runs commands of untrusted builds: without network, without the user's files and environment, with limits.
//!
//! Levels, best first: own namespaces (this program as a small helper, see [`helper`]), bubblewrap, Landlock; without any
//! of them nothing runs unless the user says so. At the first two a build sees only the system's programs read-only and
//! its own folders at fixed paths; at the others its folders keep their own names.
//!
//! A [`Launcher`] runs commands on this host, or in containers ([`container`]): there an agent of ours starts the same helper,
//! so that a build has both walls around it and the compilers of an image.

use std::fs::File;
use std::path::{Path, PathBuf};

use bombproof_core::outcome::Trouble;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::watch;

use crate::jobs::Tokens;

mod agent;
pub mod container;
pub mod helper;
mod here;
mod watch_disk;
mod wire;

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
    /// Own name spaces in a locked-down container.
    Container,
}

impl Level {
    /// The word in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Bubblewrap => "bubblewrap",
            Self::Landlock => "landlock",
            Self::None => "none",
            Self::Container => "container",
        }
    }

    /// Whether folders appear at fixed paths.
    pub fn has_own_paths(self) -> bool {
        match self {
            Self::Namespaces | Self::Bubblewrap | Self::Container => true,
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
    /// What it may write to the disk altogether, in bytes.
    #[serde(default = "any_size")]
    pub disk_bytes: u64,
}

fn any_size() -> u64 {
    u64::MAX
}

impl Limits {
    /// Wide enough for every build we know, narrow enough to stop a runaway.
    pub fn for_builds(time_s: u64) -> Self {
        Self { processes: 16_384, file_bytes: 16 << 30, memory_bytes: 64 << 30, time_s, disk_bytes: 64 << 30 }
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
    /// A disk that it wrote to, or its memory for temporary files, had little room left at some time while it ran.
    #[serde(default)]
    pub cramped: bool,
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
    /// It took more than there is for it, and was killed.
    Exhausted {
        /// Of this.
        resource: Resource,
        /// There was this much, in bytes.
        limit_bytes: u64,
    },
}

/// What a command can take too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Memory of its container.
    Memory,
    /// Space on the disk.
    Disk,
    /// What it may print.
    Output,
}

impl End {
    /// The exit code and what was used, or the trouble where the command did not end by itself. None of that is the fault of a
    /// patch for certain, so it is never a result.
    ///
    /// # Errors
    /// With the trouble; `limit_s` is the time limit to name, in seconds.
    pub fn exited(self, limit_s: u64) -> Result<(i32, Usage), Trouble> {
        match self {
            Self::Exited(code, usage) => Ok((code, usage)),
            Self::TimedOut => Err(Trouble::Timeout { limit_s }),
            Self::Cancelled => Err(Trouble::Interrupted),
            Self::Exhausted { resource, limit_bytes } => Err(match resource {
                Resource::Memory => {
                    Trouble::Killed { detail: format!("out of memory: the container has {}", mib(limit_bytes)) }
                }
                Resource::Disk => Trouble::Disk {
                    detail: format!("No space left on device for this build: it was stopped at {}", mib(limit_bytes)),
                },
                Resource::Output => {
                    Trouble::Killed { detail: format!("the build was stopped: it may print {}", mib(limit_bytes)) }
                }
            }),
        }
    }
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

/// Nothing ran, or it is not known how it ended.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// The sandbox could not be set up.
    #[error("{0}")]
    Failed(String),
    /// The image is not the one that the worker began with.
    #[error("{0}")]
    Image(String),
    /// It was killed with all that ran in it.
    #[error("it was killed: {0}")]
    Killed(String),
}

impl From<SandboxError> for Trouble {
    fn from(error: SandboxError) -> Self {
        match error {
            SandboxError::Failed(detail) => Self::Sandbox { detail },
            SandboxError::Image(detail) => Self::Toolchain { detail },
            SandboxError::Killed(detail) => Self::Killed { detail },
        }
    }
}

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
    try_out(&Launcher::Here(level), scratch).await
}

/// Runs `true` where commands run; `scratch` is a folder that builds have theirs in.
///
/// # Errors
/// When it cannot.
pub async fn try_out(launcher: &Launcher, scratch: &Path) -> Result<(), SandboxError> {
    let failed = |error: std::io::Error| SandboxError::Failed(error.to_string());
    let folder = tempfile::tempdir_in(scratch).map_err(failed)?;
    let mount_point = folder.path().join("root");
    std::fs::create_dir(&mount_point).map_err(failed)?;
    // In a container it is another user who has to get through.
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).map_err(failed)?;
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
    match launcher.run(&spec, &log, None, never).await? {
        End::Exited(0, _) => Ok(()),
        end @ (End::Exited(..) | End::TimedOut | End::Cancelled | End::Exhausted { .. }) => {
            let said = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
            Err(SandboxError::Failed(format!("'true' ended with {end:?} {}", said.trim())))
        }
    }
}

/// Where commands are run.
#[derive(Clone, Debug)]
pub enum Launcher {
    /// On this host, at a level.
    Here(Level),
    /// In containers.
    Containers(std::sync::Arc<container::Containers>),
}

impl Launcher {
    /// How well builds are shut in.
    pub fn level(&self) -> Level {
        match self {
            Self::Here(level) => *level,
            Self::Containers(_) => Level::Container,
        }
    }

    /// Runs a command; its output goes to `log`. When it ends, by itself or not, everything that it started ends.
    ///
    /// # Errors
    /// When the sandbox cannot be set up.
    pub async fn run(
        &self,
        spec: &Spec,
        log: &File,
        jobs: Option<&Tokens>,
        cancel: watch::Receiver<bool>,
    ) -> Result<End, SandboxError> {
        let watch = watch_disk::Watch::begin(spec);
        let stop = watch.stop(spec, cancel);
        let mut end = match self {
            Self::Here(level) => here::run(*level, spec, log, jobs, stop).await?,
            Self::Containers(containers) => containers.run(spec, log, jobs, stop).await?,
        };
        if let End::Exited(_, usage) = &mut end {
            usage.cramped |= watch.was_cramped();
        }
        Ok(end)
    }

    /// Makes what this process wrote into a folder of builds the builds' own: in containers they run as another user.
    ///
    /// # Errors
    /// When the owner cannot be changed.
    pub fn hand_over(&self, path: &Path) -> std::io::Result<()> {
        match self {
            Self::Here(_) => Ok(()),
            Self::Containers(containers) => containers.owner().take(path),
        }
    }
}

/// Runs as the helper or as the agent of a container, if the arguments ask for it; gives the exit code of this process.
pub fn main(args: &[std::ffi::OsString]) -> Option<i32> {
    helper::main(args).or_else(|| agent::main(args))
}
