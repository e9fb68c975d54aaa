//! The container engine: Docker or Podman behind a socket of this machine.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig, ResourcesUlimits};
use bollard::query_parameters::{ListContainersOptionsBuilder, RemoveContainerOptionsBuilder};
use bollard::{API_DEFAULT_VERSION, Docker};
use thiserror::Error;

use super::Config;
use super::owner::Owner;

/// What a request to the engine may take, in seconds.
const TIMEOUT_S: u64 = 60;
/// System calls that a container may make: Docker's default, and those that the sandbox inside needs for its own name spaces.
const SECCOMP: &str = include_str!("seccomp.json");
/// Label: the state folder that a container works for.
const HOME: &str = "org.bombproof.home";
/// Label: the lock file that the worker holds as long as it lives.
const WORKER: &str = "org.bombproof.worker";
/// Where our program is in containers.
pub(super) const PROGRAM: &str = "/bombproof/bombproof";
/// Files that one process may have open.
const OPEN_FILES: i64 = 65_536;
/// A container's own `/tmp`; builds have another one.
const TMP: &str = "rw,nosuid,nodev,noexec,size=64m,mode=1777";

/// The engine does not do what it is asked for.
#[derive(Debug, Error)]
pub enum EngineError {
    /// There is none.
    #[error("no container engine answers ({0})")]
    None(String),
    /// It answers with an error.
    #[error("the container engine cannot {what}: {why}")]
    Refused {
        /// What it was to do.
        what: String,
        /// Its words.
        why: String,
    },
    /// The image is not there.
    #[error("there is no image '{0}'")]
    NoImage(String),
    /// A file that containers need cannot be made.
    #[error("'{path}': {error}")]
    File {
        /// Which file.
        path: PathBuf,
        /// The system's words.
        error: std::io::Error,
    },
}

/// A connection to an engine.
#[derive(Clone, Debug)]
pub struct Engine {
    docker: Docker,
    socket: PathBuf,
    /// `Docker 20.10.24`.
    name: String,
    podman: bool,
    /// Words for the security options of this machine.
    confinement: Vec<String>,
}

/// An image as it was at a certain time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The digest of its configuration, which names its content.
    pub id: String,
    /// Digest of its list of packages, if it says so.
    pub packages: Option<String>,
}

fn refused(what: &str) -> impl Fn(bollard::errors::Error) -> EngineError {
    move |error| EngineError::Refused { what: what.to_owned(), why: error.to_string() }
}

/// Where engines listen, best first.
fn sockets(given: Option<&Path>) -> Vec<PathBuf> {
    if let Some(given) = given {
        return vec![given.to_owned()];
    }
    if let Some(host) = std::env::var_os("DOCKER_HOST") {
        // Another machine's engine has other files.
        let host = host.to_string_lossy().into_owned();
        return host.strip_prefix("unix://").map(PathBuf::from).into_iter().collect();
    }
    let mut found = vec![PathBuf::from("/var/run/docker.sock"), PathBuf::from("/run/podman/podman.sock")];
    if let Some(own) = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
        found.extend([own.join("docker.sock"), own.join("podman/podman.sock")]);
    }
    found
}

impl Engine {
    /// Connects to the engine behind a socket; by default that of `DOCKER_HOST`, else Docker's or Podman's own.
    ///
    /// # Errors
    /// When none answers.
    pub async fn connect(socket: Option<&Path>) -> Result<Self, EngineError> {
        let mut tried = Vec::new();
        for socket in sockets(socket) {
            match Self::connect_to(&socket).await {
                Ok(engine) => return Ok(engine),
                Err(error) => tried.push(format!("{}: {error}", socket.display())),
            }
        }
        Err(EngineError::None(if tried.is_empty() {
            "DOCKER_HOST names no socket of this machine".to_owned()
        } else {
            tried.join("; ")
        }))
    }

    async fn connect_to(socket: &Path) -> Result<Self, bollard::errors::Error> {
        let docker = Docker::connect_with_unix(&socket.to_string_lossy(), TIMEOUT_S, API_DEFAULT_VERSION)?;
        let docker = docker.negotiate_version().await?;
        let version = docker.version().await?;
        let components = version.components.unwrap_or_default();
        let podman = components.iter().any(|part| part.name.contains("Podman"));
        let info = docker.info().await?;
        let options = info.security_options.unwrap_or_default();
        let has = |word: &str| options.iter().any(|option| option.contains(word));
        let mut confinement = Vec::new();
        // These two forbid every mount in a container, also those in a name space of its own.
        if has("name=apparmor") {
            confinement.push("apparmor=unconfined".to_owned());
        }
        if has("name=selinux") {
            confinement.push("label=disable".to_owned());
        }
        let name = format!("{} {}", if podman { "Podman" } else { "Docker" }, version.version.unwrap_or_default());
        Ok(Self { docker, socket: socket.to_owned(), name, podman, confinement })
    }

    /// Its name and version.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub(super) fn docker(&self) -> &Docker {
        &self.docker
    }

    /// What a name stands for now.
    ///
    /// # Errors
    /// When there is no such image.
    pub async fn image(&self, name: &str) -> Result<Image, EngineError> {
        let found = self.docker.inspect_image(name).await;
        if let Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) = found {
            return Err(EngineError::NoImage(name.to_owned()));
        }
        let found = found.map_err(refused("look at the image"))?;
        let id = found.id.ok_or_else(|| EngineError::NoImage(name.to_owned()))?;
        let labels = found.config.and_then(|config| config.labels).unwrap_or_default();
        Ok(Image { id, packages: labels.get("org.bombproof.packages").cloned() })
    }

    /// Makes a container of an image, shut in as well as the engine can; gives its id. It is not started yet.
    pub(super) async fn create(
        &self,
        config: &Config,
        image: &Image,
        owner: Owner,
        program: &Path,
        worker: &str,
    ) -> Result<String, EngineError> {
        let body = self.body(config, image, owner, program, worker)?;
        let made = self.docker.create_container(None, body).await.map_err(refused("make a container"))?;
        Ok(made.id)
    }

    fn body(
        &self,
        config: &Config,
        image: &Image,
        owner: Owner,
        program: &Path,
        worker: &str,
    ) -> Result<ContainerCreateBody, EngineError> {
        let shared = config.home.trees();
        let profile = match self.podman {
            // Podman reads a profile from a file of its machine.
            true => {
                let path = config.home.containers().join("seccomp.json");
                bombproof_store::atomic::write(&path, SECCOMP.as_bytes())
                    .map_err(|error| EngineError::File { path: path.clone(), error: std::io::Error::other(error) })?;
                path.display().to_string()
            }
            false => SECCOMP.to_owned(),
        };
        let mut security = vec!["no-new-privileges".to_owned(), format!("seccomp={profile}")];
        security.extend(self.confinement.iter().cloned());
        if self.podman {
            security.push("unmask=ALL".to_owned());
        }
        let tmpfs = HashMap::from([("/tmp".to_owned(), TMP.to_owned())]);
        let mut binds = vec![format!("{0}:{0}:rw", shared.display()), format!("{}:{PROGRAM}:ro", program.display())];
        // The image's own is closed to others than root, and an engine gives a tmpfs the mode of what it lies on.
        for closed in ["/root", "/home"] {
            if let Ok(rest) = shared.strip_prefix(closed) {
                let above = config.home.containers().join("above");
                open_folders(&above, rest).map_err(|error| EngineError::File { path: above.clone(), error })?;
                binds.insert(0, format!("{}:{closed}:ro", above.display()));
            }
        }
        let limit = |name: &str, count: i64| ResourcesUlimits {
            name: Some(name.to_owned()),
            soft: Some(count),
            hard: Some(count),
        };
        let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let mut ulimits = vec![limit("core", 0)];
        if self.podman {
            // Its own defaults may be more than its own limits.
            let (_, most) =
                nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap_or((0, 1024));
            let most = i64::try_from(most).unwrap_or(OPEN_FILES);
            ulimits.extend([limit("nofile", most.min(OPEN_FILES)), limit("nproc", signed(config.pids()))]);
        }
        let host = HostConfig {
            binds: Some(binds),
            network_mode: Some("none".to_owned()),
            readonly_rootfs: Some(true),
            cap_drop: Some(vec!["ALL".to_owned()]),
            security_opt: Some(security),
            pids_limit: Some(signed(config.pids())),
            memory: Some(signed(config.memory_bytes)),
            // As much with swap as without: none.
            memory_swap: Some(signed(config.memory_bytes)),
            nano_cpus: Some(signed(u64::from(config.cpus) * 1_000_000_000)),
            tmpfs: Some(tmpfs),
            ulimits: Some(ulimits),
            // What goes over the standard output is not for a log.
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            ipc_mode: Some("private".to_owned()),
            // The kernel allows a new /proc only beside one that hides nothing. The sandbox inside shuts it again.
            masked_paths: Some(Vec::new()),
            readonly_paths: Some(Vec::new()),
            auto_remove: Some(true),
            userns_mode: (self.podman && nix::unistd::getuid().as_raw() != 0).then(|| "keep-id".to_owned()),
            ..HostConfig::default()
        };
        Ok(ContainerCreateBody {
            image: Some(image.id.clone()),
            user: Some(owner.words()),
            entrypoint: Some(vec![PROGRAM.to_owned()]),
            cmd: Some(vec!["__agent".to_owned()]),
            env: Some(Vec::new()),
            working_dir: Some("/".to_owned()),
            hostname: Some("host".to_owned()),
            labels: Some(HashMap::from([
                (HOME.to_owned(), config.home.root().display().to_string()),
                (WORKER.to_owned(), worker.to_owned()),
            ])),
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            open_stdin: Some(true),
            // When we are gone so is its input, and with that the agent.
            stdin_once: Some(true),
            tty: Some(false),
            network_disabled: Some(true),
            host_config: Some(host),
            ..ContainerCreateBody::default()
        })
    }

    /// Removes a container, whatever runs in it.
    pub(super) async fn remove(&self, id: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match self.docker.remove_container(id, Some(options)).await {
            // It is gone, or going.
            Ok(()) | Err(bollard::errors::Error::DockerResponseServerError { status_code: 404 | 409, .. }) => Ok(()),
            Err(error) => Err(refused("remove a container")(error)),
        }
    }

    /// Removes what workers of this state folder left that are dead; gives how many containers that were.
    pub(super) async fn sweep(&self, config: &Config) -> Result<usize, EngineError> {
        let mut filters = HashMap::new();
        filters.insert("label", vec![format!("{HOME}={}", config.home.root().display())]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let found = self.docker.list_containers(Some(options)).await.map_err(refused("list containers"))?;
        let mut removed = 0;
        for container in found {
            let worker = container.labels.as_ref().and_then(|labels| labels.get(WORKER)).map(String::as_str);
            let (Some(id), Some(worker)) = (container.id, worker) else { continue };
            // A label is a word of another process: it names a file of that folder, or nothing.
            let Some(name) = Path::new(worker).file_name() else { continue };
            if !lives(&config.home.containers().join(name)) {
                self.remove(&id).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// Makes a folder and those of a path below it, empty and open to everybody: a build folder is mounted on the last.
fn open_folders(folder: &Path, below: &Path) -> std::io::Result<()> {
    let mut at = folder.to_owned();
    for name in std::iter::once(None).chain(below.components().map(Some)) {
        if let Some(name) = name {
            at.push(name);
        }
        std::fs::create_dir_all(&at)?;
        std::fs::set_permissions(&at, PermissionsExt::from_mode(0o755))?;
    }
    Ok(())
}

/// Whether a process holds this lock file.
fn lives(lock: &Path) -> bool {
    let Ok(file) = File::options().write(true).open(lock) else { return false };
    matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_is_json_and_denies_by_default() {
        let profile: serde_json::Value = serde_json::from_str(SECCOMP).unwrap();
        assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
        let named: Vec<&str> = profile["syscalls"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|rule| rule["action"] == "SCMP_ACT_ALLOW")
            .flat_map(|rule| rule["names"].as_array().unwrap())
            .map(|name| name.as_str().unwrap())
            .collect();
        for allowed in ["unshare", "mount", "umount2", "pivot_root", "sethostname", "execve"] {
            assert!(named.contains(&allowed), "{allowed}");
        }
        for denied in [
            "bpf",
            "setns",
            "keyctl",
            "add_key",
            "request_key",
            "io_uring_setup",
            "userfaultfd",
            "perf_event_open",
            "move_mount",
            "open_tree",
            "fsopen",
            "chroot",
            "open_by_handle_at",
            "init_module",
            "kexec_load",
            "process_vm_readv",
            "clone3",
        ] {
            assert!(!named.contains(&denied), "{denied}");
        }
    }

    #[test]
    fn a_worker_lives_as_long_as_it_holds_its_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.lock");
        assert!(!lives(&path));
        let file = File::create(&path).unwrap();
        assert!(!lives(&path));
        file.lock().unwrap();
        assert!(lives(&path));
    }
}
