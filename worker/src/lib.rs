//! Builds one state on one target: in a sandbox, in a tree kept for it, with the compiler behind a shim.
//!
//! [`Worker::build`] is the way in. [`kbuild`] runs the project's own make, [`command`] an opaque command; both give a
//! [`StateResult`] whatever happens. [`shim`] and [`sandbox::main`] are other lives of the same program.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use bombproof_core::action::{Action, ActionResult};
use bombproof_core::digest::{Digest, DigestBuilder};
use bombproof_core::id::{Oid, PatchIndex};
use bombproof_core::kbuild::log::DiskSeen;
use bombproof_core::outcome::{Audited, StateResult, Trouble};
use bombproof_core::plan::alike::Alike;
use bombproof_core::plan::{Built, Configured};
use bombproof_core::target::{Build, TargetSpec};
use bombproof_store::home::{Home, TreeLease};
use bombproof_store::trees::TreeSource;
use tokio::sync::{Mutex, watch};

pub mod action;
mod beneath;
pub mod command;
pub mod files;
pub mod jobs;
pub mod kbuild;
pub mod remote;
pub mod sandbox;
pub mod shim;
pub mod toolchain;
pub mod tree;

/// What is to be built.
#[derive(Clone, Debug)]
pub struct Order {
    /// Index of the target.
    pub target: usize,
    /// The sequence of states that share a folder.
    pub lane: usize,
    /// Which state.
    pub state: PatchIndex,
    /// Its tree.
    pub tree: Oid,
    /// From scratch.
    pub clean: bool,
    /// Versions of files that are the same to compilers.
    pub alike: Option<Arc<Alike>>,
}

/// One attempt at a state.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Which state.
    pub state: PatchIndex,
    /// Its tree.
    pub tree: Oid,
    /// From scratch.
    pub clean: bool,
    /// Where the output goes.
    pub log: PathBuf,
    /// At most this long, in seconds.
    pub timeout_s: u64,
    /// The digest of its toolchain.
    pub toolchain: Digest,
    /// Versions of files that are the same to compilers.
    pub alike: Option<Arc<Alike>>,
}

/// A target and what names its build folders.
#[derive(Clone, Debug)]
pub struct Target {
    /// As asked for.
    pub spec: TargetSpec,
    /// Of the target with its toolchain, and of the repository: builds of one key may share a folder.
    pub folder_key: Digest,
    /// Of its toolchain.
    pub toolchain: Digest,
}

/// A build folder for each target and lane.
pub type Lanes = HashMap<(usize, usize), Arc<Mutex<TreeLease>>>;

/// The lane of audits: no state is judged there.
const AUDIT_LANE: usize = usize::MAX;

/// Builds states on this machine.
pub struct Worker {
    /// Where builds are run, and how they are shut in.
    pub launcher: sandbox::Launcher,
    /// What they share.
    pub jobs: Arc<jobs::Jobs>,
    /// Where their folders are.
    pub home: Home,
    /// Where their files come from.
    pub source: Arc<dyn TreeSource>,
    /// What is built.
    pub targets: Vec<Target>,
    /// Where logs go: `TARGET/STATE.log`.
    pub logs: PathBuf,
    /// The folders in use, by target and lane.
    pub lanes: Mutex<Lanes>,
    /// Answers and runs single compiles; `None`: everything is left to make.
    pub compiles: Option<Arc<kbuild::Compiles>>,
}

impl Worker {
    /// Builds one state of a target in a lane; stops at once when `cancel` turns true.
    pub async fn build(&self, order: Order, cancel: watch::Receiver<bool>) -> Built {
        let attempt = self.attempt(order, cancel).await;
        attempt.unwrap_or_else(|trouble| StateResult::trouble(trouble).into())
    }

    /// Asks Kconfig alone what it makes of a state.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn configure(&self, order: Order, cancel: watch::Receiver<bool>) -> Result<Configured, Trouble> {
        let (attempt, what, lease) = self.begin(order, "config.log").await?;
        let lease = lease.lock().await;
        match &what.spec.build {
            Build::Kbuild(kbuild) => kbuild::configure(self, kbuild, lease.path(), &attempt, cancel).await,
            Build::Command { .. } => Err(Trouble::Internal { detail: "a command has no configuration".to_owned() }),
        }
    }

    /// Runs an action when a job is free.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn run_action(&self, action: &Action, cancel: watch::Receiver<bool>) -> Result<ActionResult, Trouble> {
        match &self.compiles {
            Some(compiles) => compiles.actions.run(action, cancel).await,
            None => Err(Trouble::Internal { detail: "no action can be run in this sandbox".to_owned() }),
        }
    }

    /// Builds a state again by plain make, in a folder of its own, and compares it with what was said of it. Where there
    /// is a difference, the folder of the target is built by make alone from now on.
    pub async fn audit(&self, order: Order, expected: &StateResult, cancel: watch::Receiver<bool>) -> Audited {
        match self.audit_state(order, expected, cancel).await {
            Ok(audited) => audited,
            Err(trouble) => Audited::NotDone(trouble),
        }
    }

    async fn audit_state(
        &self,
        order: Order,
        expected: &StateResult,
        cancel: watch::Receiver<bool>,
    ) -> Result<Audited, Trouble> {
        let Order { target, lane, state, tree, clean, alike } = order;
        let disk = |error: &dyn std::fmt::Display| Trouble::Disk { detail: error.to_string() };
        let what = self
            .targets
            .get(target)
            .ok_or_else(|| Trouble::Internal { detail: format!("there is no target {target}") })?;
        let Build::Kbuild(kbuild) = &what.spec.build else {
            return Err(Trouble::Request { detail: "only kernel builds can be audited".to_owned() });
        };
        let log = self.logs.join(what.spec.log_name(state)).with_extension("audit.log");
        if let Some(folder) = log.parent() {
            std::fs::create_dir_all(folder).map_err(|error| disk(&error))?;
        }
        std::fs::File::create(&log).map_err(|error| disk(&error))?;
        let key =
            DigestBuilder::new("bombproof/audit-folder/v1").field(what.folder_key.to_string().as_bytes()).finish();
        let own = self.lease((target, AUDIT_LANE), &key).await?;
        let own = own.lock().await;
        let attempt =
            Attempt { state, tree, clean, log, timeout_s: what.spec.timeout_s, toolchain: what.toolchain, alike };
        let audited = kbuild::audit(self, kbuild, own.path(), &attempt, expected, cancel).await?;
        if let Audited::Different(_) = audited {
            let lane = self.lease((target, lane), &what.folder_key).await?;
            let lane = lane.lock().await;
            std::fs::write(lane.path().join(kbuild::NO_DIRECT), "").map_err(|error| disk(&error))?;
        }
        Ok(audited)
    }

    /// The folder of a target and lane; taken when it is needed first.
    async fn lease(&self, lane: (usize, usize), key: &Digest) -> Result<Arc<Mutex<TreeLease>>, Trouble> {
        let mut lanes = self.lanes.lock().await;
        if let Some(lease) = lanes.get(&lane) {
            return Ok(Arc::clone(lease));
        }
        let lease = self.home.take_tree(key).map_err(|error| Trouble::Disk { detail: error.to_string() })?;
        let lease = Arc::new(Mutex::new(lease));
        lanes.insert(lane, Arc::clone(&lease));
        Ok(lease)
    }

    async fn attempt(&self, order: Order, cancel: watch::Receiver<bool>) -> Result<Built, Trouble> {
        let (attempt, what, lease) = self.begin(order, "log").await?;
        let lease = lease.lock().await;
        match &what.spec.build {
            Build::Kbuild(kbuild) => kbuild::build(self, kbuild, lease.path(), &attempt, cancel).await,
            Build::Command { command } => {
                command::build(self, command, lease.path(), &attempt, cancel).await.map(Built::from)
            }
        }
    }

    /// What an order comes to: an attempt with a log of its own, the target, the folder.
    async fn begin(&self, order: Order, ending: &str) -> Result<(Attempt, &Target, Arc<Mutex<TreeLease>>), Trouble> {
        let Order { target, lane, state, tree, clean, alike } = order;
        let disk = |error: &dyn std::fmt::Display| Trouble::Disk { detail: error.to_string() };
        let what = self
            .targets
            .get(target)
            .ok_or_else(|| Trouble::Internal { detail: format!("there is no target {target}") })?;
        let log = self.logs.join(what.spec.log_name(state)).with_extension(ending);
        if let Some(folder) = log.parent() {
            std::fs::create_dir_all(folder).map_err(|error| disk(&error))?;
        }
        std::fs::File::create(&log).map_err(|error| disk(&error))?;
        let lease = self.lease((target, lane), &what.folder_key).await?;
        let (timeout_s, toolchain) = (what.spec.timeout_s, what.toolchain);
        Ok((Attempt { state, tree, clean, log, timeout_s, toolchain, alike }, what, lease))
    }
}

/// What this machine says of the disk of a folder; `cramped` is known from the commands that ran there.
pub(crate) fn disk_seen(folder: &std::path::Path, cramped: bool) -> DiskSeen {
    let flags = nix::sys::statvfs::statvfs(folder).map(|found| found.flags());
    DiskSeen { cramped, read_only: flags.is_ok_and(|flags| flags.contains(nix::sys::statvfs::FsFlags::ST_RDONLY)) }
}

/// Less free space than this, in bytes, and a failure may be the disk's: nothing that failed is believed.
const LEAST_FREE_BYTES: u64 = 8 << 20;

/// Whether the file system of a folder is full. What failed on a full disk has often not even left a word of it: its log lies
/// there too.
pub(crate) fn full_disk(folder: &std::path::Path) -> Option<Trouble> {
    let found = nix::sys::statvfs::statvfs(folder).ok()?;
    let free_bytes = found.blocks_available().saturating_mul(found.fragment_size());
    (free_bytes < LEAST_FREE_BYTES).then(|| Trouble::Disk {
        detail: format!("No space left on device: {free_bytes} bytes are free in '{}'", folder.display()),
    })
}
