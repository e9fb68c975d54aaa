//! Builds in containers: one long-lived container for each slot of a worker, with an agent inside.
//!
//! A container has no network, a read-only root, no capability, no way to gain one, a list of system calls, limits on processes,
//! memory and CPU, and an ordinary user. It sees the folders of builds (`trees/` of the state folder) under the names that they
//! have on the host, and our program; nothing else of the host: not the blobs, results and logs, no socket, no variable. In
//! there each command has a sandbox of its own, as it would on the host.
//!
//! A container that dies is made anew for the next command. All of them are of the image that the name stood for when the worker
//! began: if it comes to stand for another one, that is noticed and nothing more is started.

use std::fs::File;
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bombproof_core::target::TargetSpec;
use bombproof_store::home::Home;

use super::{End, SandboxError, Spec};
use crate::jobs::Tokens;
use crate::toolchain::{MissingTool, Toolchain};

mod engine;
mod link;
mod owner;

pub use engine::{Engine, EngineError, Image};
use link::Link;
pub use owner::Owner;

/// What a container may use beside what its commands may, in processes: the agent, and those that start sandboxes.
const OWN_PROCESSES: u64 = 256;
/// Least memory of a container, in bytes: the link of a kernel takes that much.
const LEAST_MEMORY_BYTES: u64 = 2 << 30;

/// What containers are made of.
#[derive(Clone, Debug)]
pub struct Config {
    /// The state folder.
    pub home: Home,
    /// Name of the image.
    pub image: String,
    /// Containers at once.
    pub slots: usize,
    /// Memory of each, in bytes, its `/tmp` included.
    pub memory_bytes: u64,
    /// Processes of each command.
    pub processes: u64,
    /// Processors that each may use.
    pub cpus: u16,
    /// Our program, as containers are to have it; a copy is used.
    pub program: PathBuf,
}

impl Config {
    /// For a machine with so much memory (bytes) and so many jobs: nine tenths of the memory are shared out, and as every container may
    /// be the one that runs everything, each may use as many processors as there are jobs.
    pub fn new(home: &Home, image: &str, slots: usize, machine_bytes: u64) -> Self {
        let slots = slots.max(1);
        let share = machine_bytes / 10 * 9 / u64::try_from(slots).unwrap_or(u64::MAX);
        let all = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            home: home.clone(),
            image: image.to_owned(),
            slots,
            memory_bytes: share.max(LEAST_MEMORY_BYTES.min(machine_bytes)),
            processes: 4096,
            cpus: u16::try_from(slots.min(all)).unwrap_or(u16::MAX),
            // Whatever became of the file that we were started from, this is it.
            program: PathBuf::from("/proc/self/exe"),
        }
    }

    /// Processes of a container: two commands at their limits leave a third one room.
    fn pids(&self) -> u64 {
        self.processes.saturating_mul(3).saturating_add(OWN_PROCESSES)
    }
}

/// Memory of this machine, in bytes.
pub fn machine_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total =
        text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    total.unwrap_or(LEAST_MEMORY_BYTES >> 10) << 10
}

/// A place for one container.
#[derive(Debug, Default)]
struct Slot {
    /// Commands that run there or are about to.
    load: AtomicUsize,
    link: tokio::sync::Mutex<Option<Arc<Link>>>,
}

/// Counts a command of a slot.
struct Load<'a>(&'a AtomicUsize);

impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The containers of a worker.
#[derive(Debug)]
pub struct Containers {
    engine: Engine,
    config: Config,
    image: Image,
    owner: Owner,
    program: PathBuf,
    /// Names this worker in labels; locked as long as it lives.
    lock: tempfile::NamedTempFile,
    slots: Vec<Slot>,
    swept: usize,
}

impl Containers {
    /// Gets ready for containers of an image; removes what dead workers left. None is started yet.
    ///
    /// # Errors
    /// When the image is not there, or the engine or the state folder do not do as they are told.
    pub async fn prepare(engine: Engine, config: Config) -> Result<Arc<Self>, EngineError> {
        let image = engine.image(&config.image).await?;
        let folder = config.home.containers();
        let file = |path: &Path| {
            let path = path.to_owned();
            move |error| EngineError::File { path, error }
        };
        for folder in [&folder, &config.home.trees()] {
            std::fs::create_dir_all(folder).map_err(file(folder))?;
            // The builds' user has to get through; what is below has owners of its own.
            let mode = std::fs::metadata(folder).map_err(file(folder))?.permissions().mode();
            std::fs::set_permissions(folder, PermissionsExt::from_mode(mode | 0o111)).map_err(file(folder))?;
        }
        let lock = tempfile::Builder::new().prefix("worker-").suffix(".lock").tempfile_in(&folder);
        let lock = lock.map_err(file(&folder))?;
        lock.as_file().lock().map_err(file(lock.path()))?;
        let program = copy_of(&config.program, &folder).map_err(file(&folder))?;
        let swept = engine.sweep(&config).await?;
        let slots = (0..config.slots.max(1)).map(|_| Slot::default()).collect();
        let owner = Owner::of_this_process();
        Ok(Arc::new(Self { engine, config, image, owner, program, lock, slots, swept }))
    }

    /// The image that all containers are of.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Who builds run as.
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// How many containers of dead workers were removed.
    pub fn swept(&self) -> usize {
        self.swept
    }

    /// Ids of the containers that run.
    pub async fn ids(&self) -> Vec<String> {
        let mut ids = Vec::new();
        for slot in &self.slots {
            ids.extend(slot.link.lock().await.as_ref().filter(|link| link.lives()).map(|link| link.id().to_owned()));
        }
        ids
    }

    /// Whether the name of the image still stands for what it stood for at the start.
    ///
    /// # Errors
    /// When it does not, or cannot be told.
    pub async fn check_image(&self) -> Result<(), SandboxError> {
        let name = &self.config.image;
        let now = self.engine.image(name).await.map_err(|error| SandboxError::Failed(error.to_string()))?;
        if now.id == self.image.id {
            return Ok(());
        }
        let short = |id: &str| id.trim_start_matches("sha256:").chars().take(12).collect::<String>();
        Err(SandboxError::Image(format!(
            "the image '{name}' changed while it was in use: it was {} and is {}",
            short(&self.image.id),
            short(&now.id)
        )))
    }

    /// The container of a slot; started if there is none, or no more.
    async fn link(&self, slot: &Slot) -> Result<Arc<Link>, SandboxError> {
        let mut held = slot.link.lock().await;
        if let Some(link) = held.as_ref().filter(|link| link.lives()) {
            return Ok(Arc::clone(link));
        }
        if let Some(dead) = held.take() {
            dead.remove().await;
        }
        self.check_image().await?;
        let name = self.lock.path().file_name().unwrap_or_default().to_string_lossy();
        let made = self.engine.create(&self.config, &self.image, self.owner, &self.program, &name).await;
        let id = made.map_err(|error| SandboxError::Failed(error.to_string()))?;
        let link = match Link::start(&self.engine, id.clone()).await {
            Ok(link) => Arc::new(link),
            Err(error) => {
                let _ = self.engine.remove(&id).await;
                return Err(error);
            }
        };
        *held = Some(Arc::clone(&link));
        Ok(link)
    }

    /// The slot with the least to do.
    fn slot(&self) -> Option<(&Slot, Load<'_>)> {
        let slot = self.slots.iter().min_by_key(|slot| slot.load.load(Ordering::Relaxed))?;
        slot.load.fetch_add(1, Ordering::Relaxed);
        Some((slot, Load(&slot.load)))
    }

    /// Runs a command in the container that has the least to do, until it ends or `stop` does.
    pub(super) async fn run(
        &self,
        spec: &Spec,
        log: &File,
        jobs: Option<&Tokens>,
        stop: impl Future<Output = End>,
    ) -> Result<End, SandboxError> {
        let jobs = match jobs {
            None => None,
            Some(Tokens::Named(pipe)) => Some(pipe.path()),
            Some(Tokens::Pipe(_)) => {
                return Err(SandboxError::Failed("a pipe of tokens cannot be shared with a container".to_owned()));
            }
        };
        self.hand_over(spec, jobs)
            .map_err(|error| SandboxError::Failed(format!("the folders of the build: {error}")))?;
        let Some((slot, _load)) = self.slot() else { return Err(SandboxError::Failed("no slot".to_owned())) };
        tokio::pin!(stop);
        let link = tokio::select! {
            link = self.link(slot) => link?,
            end = &mut stop => return Ok(end),
        };
        let mut spec = spec.clone();
        spec.limits.processes = spec.limits.processes.min(self.config.processes);
        link.run(spec, log, jobs, self.config.memory_bytes, stop).await
    }

    /// What the command may write has to be its user's.
    fn hand_over(&self, spec: &Spec, jobs: Option<&Path>) -> std::io::Result<()> {
        for bind in spec.binds.iter().filter(|bind| bind.writable) {
            self.owner.take(&bind.host)?;
        }
        for overlay in &spec.overlays {
            self.owner.take(&overlay.upper)?;
            self.owner.take(&overlay.work)?;
        }
        jobs.map_or(Ok(()), |jobs| self.owner.take(jobs))
    }

    /// The compilers that the image has for a target, looked at in there.
    ///
    /// # Errors
    /// When no container can be started. The inner error is a program that the image lacks.
    pub async fn toolchain(&self, spec: &TargetSpec) -> Result<Result<Toolchain, MissingTool>, SandboxError> {
        let Some((slot, _load)) = self.slot() else { return Err(SandboxError::Failed("no slot".to_owned())) };
        self.link(slot).await?.toolchain(spec).await
    }

    /// Removes all containers.
    pub async fn close(&self) {
        for slot in &self.slots {
            if let Some(link) = slot.link.lock().await.take() {
                link.remove().await;
            }
        }
    }
}

/// A copy of our program in the state folder: what lies there is on the engine's machine too, and stays as it is when the program is
/// installed anew.
fn copy_of(program: &Path, folder: &Path) -> std::io::Result<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let kind = std::fs::metadata(program)?;
    let path = folder.join(format!("program-{}-{}-{}-{}", kind.len(), kind.mtime(), kind.mtime_nsec(), kind.ino()));
    if std::fs::metadata(&path).is_ok_and(|there| there.len() == kind.len()) {
        return Ok(path);
    }
    let mut copy = tempfile::NamedTempFile::new_in(folder)?;
    std::io::copy(&mut File::open(program)?, copy.as_file_mut())?;
    std::fs::set_permissions(copy.path(), PermissionsExt::from_mode(0o755))?;
    copy.persist(&path).map_err(|error| error.error)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_shared_out_and_never_too_little_for_a_link() {
        let home = Home::at(Path::new("/h"));
        let gib = 1 << 30;
        for (slots, machine, want) in [
            (1, 20 * gib, 18 * gib),
            (2, 20 * gib, 9 * gib),
            (0, 10 * gib, 9 * gib),
            (64, 10 * gib, 2 * gib),
            (4, gib, gib),
        ] {
            assert_eq!(Config::new(&home, "i", slots, machine).memory_bytes / gib, want / gib, "{slots} {machine}");
        }
    }
}
