//! Runs actions: hermetic, each in a sandbox that holds exactly the files that the action declares, at fixed paths.
//!
//! A slot keeps its files from one action to the next and changes only what differs: neighbouring compiles share most of
//! their headers. The files are links to blobs, mounted read-only; what the action writes goes to a folder of its own, from which
//! the declared outputs are taken. A file that was not declared is not there.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bombproof_core::action::{Action, ActionResult, InputFile, InputTree, OutputFile};
use bombproof_core::digest::Digest;
use bombproof_core::kbuild::log::machine_trouble;
use bombproof_core::outcome::Trouble;
use bombproof_store::cas::Cas;
use bombproof_store::home::{Home, TreeLease};
use tokio::sync::watch;

use crate::jobs::Jobs;
use crate::sandbox::{Bind, Launcher, Level, Limits, Overlay, Spec};
use crate::{disk_seen, full_disk};

/// Where the source tree is in every sandbox.
pub const SOURCE: &str = "/bombproof/src";
/// Where the build folder is in every sandbox.
pub const OUTPUT: &str = "/bombproof/out";

/// A single compile that takes longer than this, in seconds, is stuck.
const ACTION_LIMIT_S: u64 = 1800;

/// Whether actions can be run at this level: they need fixed paths, and folders that only seem to be written.
pub fn supported(level: Level) -> bool {
    match level {
        Level::Namespaces | Level::Container => true,
        Level::Bubblewrap | Level::Landlock | Level::None => false,
    }
}

/// The folders that a command sees as source tree and build folder; neither is ever written.
#[derive(Clone, Debug)]
pub struct View {
    /// Seen at [`SOURCE`]; `None`: nothing is there.
    pub source: Option<PathBuf>,
    /// Seen at [`OUTPUT`].
    pub output: PathBuf,
}

/// A command as it is run in a view.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Program and arguments.
    pub argv: &'a [String],
    /// The whole environment.
    pub env: &'a BTreeMap<String, String>,
    /// Files that it makes, below [`OUTPUT`].
    pub outputs: &'a [String],
    /// Those of them that are there already and may be changed in place.
    pub changed: &'a [(&'a str, InputFile)],
}

/// Runs actions on this machine.
pub struct Actions {
    launcher: Launcher,
    home: Home,
    cas: Arc<dyn Cas>,
    jobs: Arc<Jobs>,
    slots: Mutex<Vec<Slot>>,
    /// What each action took beside its command, in microseconds.
    beside: Mutex<Vec<u64>>,
}

/// A folder for one action at a time.
struct Slot {
    lease: TreeLease,
    /// What lies below `root`.
    layout: InputTree,
    folders: HashSet<PathBuf>,
}

/// Makes a folder of a slot and those above it. A command may seem to write there, which the kernel allows to the owner only.
fn make_folder(root: &Path, folder: &Path, launcher: &Launcher) -> std::io::Result<()> {
    if folder == root || folder.is_dir() {
        return Ok(());
    }
    if let Some(above) = folder.parent() {
        make_folder(root, above, launcher)?;
    }
    std::fs::create_dir(folder)?;
    launcher.hand_over(folder)
}

fn disk(what: &str) -> impl Fn(std::io::Error) -> Trouble {
    move |error| Trouble::Disk { detail: format!("{what}: {error}") }
}

impl Actions {
    /// Runs actions with so many jobs, on the blobs of this store.
    pub fn new(launcher: Launcher, home: &Home, cas: Arc<dyn Cas>, jobs: Arc<Jobs>) -> Self {
        Self { launcher, home: home.clone(), cas, jobs, slots: Mutex::default(), beside: Mutex::default() }
    }

    /// Where they are run.
    pub fn launcher(&self) -> &Launcher {
        &self.launcher
    }

    /// The store of blobs.
    pub fn cas(&self) -> &Arc<dyn Cas> {
        &self.cas
    }

    /// Notes what an action took from `begin` on beside its command: inputs laid out or looked up, the sandbox, outputs kept.
    pub(crate) fn note_beside(&self, begin: Instant, result: &ActionResult) {
        let all = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut beside = self.beside.lock().unwrap_or_else(PoisonError::into_inner);
        beside.push(all.saturating_sub(result.wall_us));
    }

    /// The median of what actions took beside their commands, in microseconds of wall time.
    pub fn median_beside_us(&self) -> Option<u64> {
        let mut beside = self.beside.lock().unwrap_or_else(PoisonError::into_inner).clone();
        beside.sort_unstable();
        beside.get(beside.len() / 2).copied()
    }

    /// Runs an action; its inputs are laid out before a job is free for it. Its outputs are in the store when it returns.
    ///
    /// # Errors
    /// When there is no answer: a blob is missing, the sandbox, the disk, a kill, the time limit.
    pub async fn run(&self, action: &Action, cancel: watch::Receiver<bool>) -> Result<ActionResult, Trouble> {
        if action.folder != "out" {
            return Err(Trouble::Internal { detail: format!("no action runs in '{}'", action.folder) });
        }
        let begin = Instant::now();
        let slot = self.slot()?;
        let (cas, inputs, launcher) = (Arc::clone(&self.cas), action.inputs.clone(), self.launcher.clone());
        let laid = tokio::task::spawn_blocking(move || {
            let mut slot = slot;
            let done = slot.lay_out(&inputs, cas.as_ref(), &launcher);
            (slot, done)
        });
        let (slot, done) = laid.await.map_err(|error| Trouble::Internal { detail: error.to_string() })?;
        done?;
        let root = slot.lease.path().join("root");
        let source = Some(root.join("src")).filter(|source| source.is_dir());
        let view = View { source, output: root.join("out") };
        let inputs = action.outputs.iter().map(|path| (path.as_str(), action.inputs.get(&format!("out/{path}"))));
        let changed: Vec<(&str, InputFile)> = inputs.filter_map(|(path, file)| Some((path, *file?))).collect();
        let run = Run { argv: &action.argv, env: &action.env, outputs: &action.outputs, changed: &changed };
        let ended = self.run_with(&view, &slot.lease.path().join("run"), run, Some(&self.jobs), cancel).await;
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).push(slot);
        let (result, waited) = ended?;
        self.note_beside(begin + waited, &result);
        Ok(result)
    }

    /// Runs a command in a view, without waiting for a job; `scratch` is a folder that nobody else uses.
    ///
    /// # Errors
    /// As [`Actions::run`].
    pub async fn run_in(
        &self,
        view: &View,
        scratch: &Path,
        run: Run<'_>,
        cancel: watch::Receiver<bool>,
    ) -> Result<ActionResult, Trouble> {
        self.run_with(view, scratch, run, None, cancel).await.map(|(result, _)| result)
    }

    /// Runs a command in a view; where `jobs` are given it waits for one of them, when all is ready for the command. Says also how long
    /// that was.
    async fn run_with(
        &self,
        view: &View,
        scratch: &Path,
        run: Run<'_>,
        jobs: Option<&Jobs>,
        cancel: watch::Receiver<bool>,
    ) -> Result<(ActionResult, Duration), Trouble> {
        let (upper, work, mount_point, log_file) =
            (scratch.join("upper"), scratch.join("work"), scratch.join("root"), scratch.join("log"));
        for folder in [&upper, &work] {
            match std::fs::remove_dir_all(folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(disk("scratch folder")(error));
                }
                Ok(()) | Err(_) => {}
            }
        }
        for folder in [&upper, &work, &mount_point, &view.output] {
            std::fs::create_dir_all(folder).map_err(disk("scratch folder"))?;
        }
        for output in run.outputs {
            let folder = upper.join(output);
            std::fs::create_dir_all(folder.parent().unwrap_or(&upper)).map_err(disk("scratch folder"))?;
        }
        for (path, file) in run.changed {
            // What lies below is read-only; this is to be changed in place.
            let copied = self.cas.copy(&file.blob, &upper.join(path), file.executable);
            if !copied.map_err(|error| Trouble::Disk { detail: error.to_string() })? {
                return Err(Trouble::Tree { detail: format!("the blob of '{path}' is not in the store") });
            }
        }
        let bind = |host: &PathBuf| Bind { host: host.clone(), guest: SOURCE.to_owned(), writable: false };
        let spec = Spec {
            argv: run.argv.to_vec(),
            cwd: OUTPUT.to_owned(),
            env: run.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            binds: view.source.iter().map(bind).collect(),
            overlays: vec![Overlay {
                lower: view.output.clone(),
                upper: upper.clone(),
                work,
                guest: OUTPUT.to_owned(),
            }],
            limits: Limits::for_builds(ACTION_LIMIT_S),
            mount_point,
        };
        let log = File::create(&log_file).map_err(disk("the log"))?;
        let begin = Instant::now();
        let job = match jobs {
            Some(jobs) => Some(jobs.take(cancel.clone()).await.ok_or(Trouble::Interrupted)?),
            None => None,
        };
        let waited = begin.elapsed();
        let end = self.launcher.run(&spec, &log, None, cancel).await;
        drop(job);
        let (exit, usage) = end?.exited(ACTION_LIMIT_S)?;
        let stderr = std::fs::read(&log_file).map_err(disk("the log"))?;
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        if exit >= 128 {
            let what = run.outputs.first().cloned().unwrap_or_default();
            return Err(Trouble::Killed { detail: format!("'{what}' ended with {exit}") });
        }
        if exit != 0 {
            if let Some(trouble) = machine_trouble(&stderr, disk_seen(scratch, usage.cramped)) {
                return Err(trouble.into());
            }
            if let Some(full) = full_disk(scratch) {
                return Err(full);
            }
        }
        // A compile that fails leaves its dependency list, and nothing else.
        let outputs = self.collect(&upper, run.outputs)?;
        Ok((ActionResult { exit, outputs, stderr, cpu_us: usage.cpu_us, wall_us: usage.wall_us }, waited))
    }

    fn collect(&self, upper: &Path, declared: &[String]) -> Result<Vec<OutputFile>, Trouble> {
        use std::os::unix::fs::PermissionsExt;
        let mut outputs = Vec::new();
        for path in declared {
            let file = upper.join(path);
            // A link could lead anywhere: only a file of its own is an output.
            let Ok(kind) = std::fs::symlink_metadata(&file) else { continue };
            if kind.is_file() {
                let executable = kind.permissions().mode() & 0o111 != 0;
                let blob = self.cas.put_file(&file).map_err(|error| Trouble::Disk { detail: error.to_string() })?;
                outputs.push(OutputFile { path: path.clone(), blob, executable });
            }
        }
        Ok(outputs)
    }

    fn slot(&self) -> Result<Slot, Trouble> {
        if let Some(slot) = self.slots.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Ok(slot);
        }
        let key = Digest::of(b"bombproof/action-slot/v1");
        let lease = self.home.take_tree(&key).map_err(|error| Trouble::Disk { detail: error.to_string() })?;
        // What another process left there is not known.
        match std::fs::remove_dir_all(lease.path()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(disk("a slot for actions")(error));
            }
            Ok(()) | Err(_) => {}
        }
        std::fs::create_dir_all(lease.path()).map_err(disk("a slot for actions"))?;
        let root = lease.path().join("root");
        make_folder(lease.path(), &root.join("out"), &self.launcher).map_err(disk("a slot for actions"))?;
        Ok(Slot { lease, layout: InputTree::new(), folders: HashSet::new() })
    }
}

impl Slot {
    /// Makes `root` hold these files and no others.
    fn lay_out(&mut self, wanted: &InputTree, cas: &dyn Cas, launcher: &Launcher) -> Result<(), Trouble> {
        let root = self.lease.path().join("root");
        let differs = |path: &String, file| wanted.get(path) != Some(file);
        let gone: Vec<String> =
            self.layout.iter().filter(|(path, file)| differs(path, *file)).map(|(path, _)| path.clone()).collect();
        for path in gone {
            std::fs::remove_file(root.join(&path)).map_err(disk(&path))?;
            self.layout.remove(&path);
        }
        for (path, file) in wanted {
            if self.layout.contains_key(path) {
                continue;
            }
            if !path.starts_with("src/") && !path.starts_with("out/") {
                return Err(Trouble::Internal { detail: format!("'{path}' is no input of an action") });
            }
            let to = root.join(path);
            if let Some(folder) = to.parent().filter(|folder| !self.folders.contains(*folder)) {
                make_folder(&root, folder, launcher).map_err(disk(path))?;
                self.folders.insert(folder.to_owned());
            }
            let linked = cas.link(&file.blob, &to, file.executable);
            if !linked.map_err(|error| Trouble::Disk { detail: error.to_string() })? {
                return Err(Trouble::Tree { detail: format!("the blob of '{path}' is not in the store") });
            }
            self.layout.insert(path.clone(), *file);
        }
        Ok(())
    }
}
