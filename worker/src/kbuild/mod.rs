//! The kbuild step: the project's own `make` for one state in a tree kept for its target.
//!
//! A lane is `src/` (the source tree, read-only for the build), `out/` (the build folder), `cfg/` (where configurations are
//! derived), `log/` (the shim's journal), `bin/` (the shims) and `lane.json` (what is known of `out/`). The file `step`
//! stands as long as a step runs: whoever finds it knows that the step was cut off, and takes what it may have left
//! half-made away.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bombproof_core::digest::Digest;
use bombproof_core::id::Oid;
use bombproof_core::kbuild::log::{DiskSeen, machine_trouble};
use bombproof_core::kbuild::record::Record;
use bombproof_core::kbuild::roots::Roots;
use bombproof_core::outcome::{Failure, LinkCheck, Outcome, Stage, StateResult, Trouble};
use bombproof_core::plan::{Built, Configured};
use bombproof_core::shared::{Shared, SharedMap};
use bombproof_core::target::config::{self, Config};
use bombproof_core::target::{BaseConfig, Compiler, Kbuild};
use bombproof_core::tree::Change;
use bombproof_store::atomic;
use bombproof_store::trees::{TreeError, TreeSource};
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::sync::watch;

use crate::beneath::{self, Root};
use crate::sandbox::helper::OWN_PROGRAM;
use crate::sandbox::{Bind, Level, Limits, Spec};
use crate::toolchain::{SYSTEM_PATH, shim_names};
use crate::tree::{MoveError, SourceTree};
use crate::{Attempt, Worker, disk_seen, full_disk, shim};

mod agent;
mod assemble;
mod audit;
mod graph;
mod resolve;

use agent::Agent;
pub use agent::Compiles;
use assemble::{Step, Table};
pub(crate) use audit::audit;

/// Files written within this time of one another may carry the same time stamp.
const CLOCK_GRAIN: Duration = Duration::from_millis(20);

/// The configuration, in the folders `cfg` and `out`.
const DOT_CONFIG: &str = ".config";

/// The shim's journal, in the folder of logs.
const JOURNAL: &str = "journal";

/// The socket of the agent, in the folder of logs.
const AGENT_SOCKET: &str = "agent";

/// What was derived last in the folder of configurations.
const DERIVED: &str = "derived.json";

/// The script by which busybox makes the files of Kconfig from its sources.
const GENERATED_KCONFIG: &str = "scripts/gen_build_files.sh";

/// Stands in a lane where an audit found a difference: only make is trusted there.
pub(crate) const NO_DIRECT: &str = "no-direct";

/// What is known of a lane's build folder.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Memory {
    /// The tree of the last step that ran to its end.
    built: Option<Oid>,
    table: Table,
    /// Of the state `built`.
    config: Config,
    not_effective: BTreeMap<String, (String, String)>,
}

/// The folders of a lane, on this machine and as a build sees them.
struct Folders {
    host: PathBuf,
    level: Level,
}

impl Folders {
    fn host(&self, name: &str) -> PathBuf {
        self.host.join(name)
    }

    fn guest(&self, name: &str) -> String {
        if self.level.has_own_paths() { format!("/bombproof/{name}") } else { self.host(name).display().to_string() }
    }

    fn bind(&self, name: &str, writable: bool) -> Bind {
        Bind { host: self.host(name), guest: self.guest(name), writable }
    }
}

fn disk(what: &str) -> impl Fn(std::io::Error) -> Trouble {
    move |error| Trouble::Disk { detail: format!("{what}: {error}") }
}

impl From<MoveError> for Trouble {
    fn from(error: MoveError) -> Self {
        match error {
            MoveError::Source(error @ (TreeError::Missing { .. } | TreeError::Unreadable { .. })) => {
                Self::Tree { detail: error.to_string() }
            }
            MoveError::Source(TreeError::Local { .. }) | MoveError::Disk { .. } => {
                Self::Disk { detail: error.to_string() }
            }
        }
    }
}

/// Builds one state.
pub(crate) async fn build(
    worker: &Worker,
    kbuild: &Kbuild,
    lease: &Path,
    attempt: &Attempt,
    cancel: watch::Receiver<bool>,
) -> Result<Built, Trouble> {
    let start = Instant::now();
    let folders = Folders { host: lease.to_owned(), level: worker.launcher.level() };
    for name in ["out", "cfg", "log", "bin", "root"] {
        std::fs::create_dir_all(folders.host(name)).map_err(disk(name))?;
    }
    let marker = folders.host("step");
    let memory_file = folders.host("lane.json");
    let mut memory: Memory =
        std::fs::read(&memory_file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    let (source, root, to) = (worker.source.clone(), folders.host("src"), attempt.tree.clone());
    let built = memory.built.clone();
    let out = folders.host("out");
    let cut_off = marker.clone();
    // Thousands of small files: not on a thread that others wait for.
    let prepared = tokio::task::spawn_blocking(move || -> Result<_, Trouble> {
        let unclean = clean_up(&cut_off, &out).map_err(disk("cleaning up after a step that was cut off"))?;
        let moved = SourceTree::at(&root).move_to(source.as_ref(), &to)?;
        let changes = match built.filter(|_| !moved.fresh) {
            Some(built) => match source.changes(Some(&built), &to) {
                Ok(changes) => {
                    let names = come_and_gone(source.as_ref(), &built, &changes).map_err(MoveError::from)?;
                    Some(Difference { names, changes })
                }
                Err(_) => None,
            },
            None => None,
        };
        if changes.is_none() {
            let _ = std::fs::remove_file(root.with_file_name(DERIVED));
            for folder in [&out, &root.with_file_name("cfg")] {
                std::fs::remove_dir_all(folder).map_err(disk("emptying the build folder"))?;
                std::fs::create_dir_all(folder).map_err(disk("emptying the build folder"))?;
            }
        }
        std::thread::sleep(CLOCK_GRAIN);
        Ok((changes, unclean))
    });
    let (changes, unclean) = prepared.await.map_err(|error| Trouble::Internal { detail: error.to_string() })??;
    if changes.is_none() {
        memory = Memory::default();
    }
    if !folders.host("src").join("Makefile").is_file() {
        return Err(Trouble::Request {
            detail: "the tree has no Makefile at its top; use --exec for other projects".to_owned(),
        });
    }
    let program = if worker.launcher.level().has_own_paths() {
        OWN_PROGRAM.to_owned()
    } else {
        std::env::current_exe().map_err(disk("own program"))?.display().to_string()
    };
    let names = shim_names(kbuild);
    shim::install(&folders.host("bin"), &program, names.iter().map(String::as_str)).map_err(disk("shims"))?;
    File::create(&marker).and_then(|file| file.sync_all()).map_err(disk("the marker of the step"))?;
    beneath::write(&folders.host("log"), JOURNAL, b"").map_err(disk("the journal"))?;

    let runner = Runner::new(worker, kbuild, &folders, attempt, cancel, true);
    let roots = Roots { source: folders.guest("src"), output: folders.guest("out") };
    let mut steps = 0;
    let paths: Option<Vec<&str>> =
        changes.as_ref().map(|differs| differs.changes.iter().map(|change| change.path.as_str()).collect());
    // A step that was cut off may have derived the configuration of another state.
    // Where Kconfig's files are made from the sources (busybox), any of them may bring a symbol.
    let from_sources = folders.host("src").join(GENERATED_KCONFIG).is_file();
    let derive =
        unclean || from_sources || paths.as_ref().is_none_or(|paths| paths.iter().any(|path| config::may_affect(path)));
    let first = memory.built.is_none();
    if derive {
        steps += 1;
        match runner.configure(&roots, &mut memory, first).await? {
            None => {}
            Some(failure) => {
                let mut result = StateResult::trouble(Trouble::Interrupted);
                memory.table.set_config_findings(&runner.log_text()?, &folders.guest("src"), &roots);
                result.outcome = Outcome::Failed(vec![failure]);
                result.cost.kbuild_steps = steps;
                result.cost.wall_ms = millis(start);
                return Ok(result.into());
            }
        }
    }
    let begin = runner.log_text()?.len();
    if let Some(differs) = &changes {
        let names: BTreeSet<&str> = differs.names.iter().map(String::as_str).collect();
        drop_shadowed(&memory.table, &names, &folders.host("src"), &folders.host("out"))
            .map_err(disk("build folder"))?;
    }
    steps += 1;
    let distrusted = lease.join(NO_DIRECT).exists();
    let agent = runner.agent(&roots, distrusted)?;
    let end = runner.make_with(agent.as_ref(), &kbuild.goals).await?;
    let seen = agent.map(|(agent, _)| agent.take()).unwrap_or_default();
    if let Some(trouble) = seen.trouble {
        return Err(trouble);
    }
    let text = runner.log_text()?;
    let log = text.get(begin..).unwrap_or_default();
    let mut records = read_journal(&folders.host("log"))?;
    records.extend(seen.records);
    let cwd = folders.guest("out");
    let disk_seen = runner.disk_seen();
    let step =
        Step { records: &records, log, exit: end, disk: disk_seen, roots: &roots, cwd: &cwd, link: LinkCheck::Run };
    let (source, output) = (folders.host("src"), folders.host("out"));
    let exists = |path: &str, generated: bool| {
        if path.starts_with('/') {
            Path::new(path).exists()
        } else if generated {
            output.join(path).exists()
        } else {
            source.join(path).exists()
        }
    };
    memory.table.update(&step, &seen.made, exists, |unit| Some(Digest::of(&beneath::read(&output, unit).ok()?)));
    let mut result = memory.table.result(&step);
    if let Some(paths) = &paths {
        // At the base everything is asked for, and nothing changed.
        result.made = memory.table.asked(&step, &paths.iter().copied().collect());
    }
    if let (Outcome::Failed(_), Some(full)) = (&result.outcome, full_disk(lease)) {
        return Err(full);
    }
    if let Outcome::Trouble(trouble) = result.outcome {
        // The marker stays: what this step left is not to be trusted.
        return Err(trouble);
    }
    let graph = match (&worker.compiles, &result.outcome) {
        (Some(compiles), Outcome::Built) if !distrusted && !from_sources => {
            let read = graph::Read {
                source: &source,
                output: &output,
                cwd: &cwd,
                roots: &roots,
                files: &compiles.files,
                kbuild,
                config: &memory.config,
            };
            match tokio::task::block_in_place(|| read.graph(&mut memory.table)) {
                Ok(graph) => Some(graph),
                Err(why) => {
                    runner.say(&format!("later states are built by make: {why}"))?;
                    None
                }
            }
        }
        _ => None,
    };
    result.config = (&memory.config).into();
    result.not_effective = memory.not_effective.clone().into();
    result.cost.kbuild_steps = steps;
    result.cost.wall_ms = millis(start);
    memory.built = Some(attempt.tree.clone());
    let text = serde_json::to_vec(&memory).map_err(|error| Trouble::Internal { detail: error.to_string() })?;
    atomic::write(&memory_file, &text).map_err(|error| Trouble::Disk { detail: error.to_string() })?;
    std::fs::remove_file(&marker).map_err(disk("the marker of the step"))?;
    Ok(Built { result, graph })
}

/// Asks Kconfig alone what it makes of a state; the build folder stays as it is.
pub(crate) async fn configure(
    worker: &Worker,
    kbuild: &Kbuild,
    lease: &Path,
    attempt: &Attempt,
    cancel: watch::Receiver<bool>,
) -> Result<Configured, Trouble> {
    let folders = Folders { host: lease.to_owned(), level: worker.launcher.level() };
    for name in ["out", "cfg", "log", "bin", "root"] {
        std::fs::create_dir_all(folders.host(name)).map_err(disk(name))?;
    }
    let (source, root, to) = (worker.source.clone(), folders.host("src"), attempt.tree.clone());
    let moved = tokio::task::spawn_blocking(move || SourceTree::at(&root).move_to(source.as_ref(), &to));
    let moved = moved.await.map_err(|error| Trouble::Internal { detail: error.to_string() })?;
    moved?;
    beneath::write(&folders.host("log"), JOURNAL, b"").map_err(disk("the journal"))?;
    let runner = Runner::new(worker, kbuild, &folders, attempt, cancel, false);
    let roots = Roots { source: folders.guest("src"), output: folders.guest("out") };
    let derived = runner.derive(&roots, "cfg", false).await?;
    let said = Table::config_findings(&runner.log_text()?, &roots.source, &roots);
    Ok(match derived {
        Ok(derived) => Configured {
            config: (&derived.config).into(),
            not_effective: derived.not_effective.into(),
            said,
            failure: None,
        },
        Err(failure) => {
            let (config, not_effective) = (SharedMap::default(), Shared::default());
            Configured { config, not_effective, said, failure: Some(failure) }
        }
    })
}

/// How a state differs from the one that was built last.
struct Difference {
    /// Names of included files that came or went.
    names: Vec<String>,
    changes: Vec<Change>,
}

fn millis(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn read_config(folder: &Path) -> std::io::Result<String> {
    String::from_utf8(beneath::read(folder, DOT_CONFIG)?).map_err(std::io::Error::other)
}

fn read_journal(folder: &Path) -> Result<Vec<Record>, Trouble> {
    let text = beneath::read(folder, JOURNAL).map_err(disk("the journal"))?;
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    // The build can write to the journal: a line that is not ours makes the whole step worthless.
    lines
        .map(serde_json::from_slice)
        .collect::<Result<_, _>>()
        .map_err(|error| Trouble::Internal { detail: format!("the journal of the compilers cannot be read: {error}") })
}

/// After a step that was cut off: everything in the build folder that is newer than its begin may be half-made. Files that
/// only tell that a configuration symbol changed (`include/config/X`) stay: without them their readers would not know.
///
/// Gives whether there was one.
fn clean_up(marker: &Path, out: &Path) -> std::io::Result<bool> {
    let Ok(kind) = std::fs::metadata(marker) else { return Ok(false) };
    let begin = kind.modified()?.checked_sub(CLOCK_GRAIN).unwrap_or(SystemTime::UNIX_EPOCH);
    let symbols = out.join("include/config");
    let mut folders = vec![out.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let entry = entry?;
            let kind = entry.metadata()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.modified()? >= begin
                && (folder != symbols || entry.file_name().to_string_lossy().starts_with("auto"))
            {
                std::fs::remove_file(entry.path())?;
            }
        }
    }
    Ok(true)
}

/// A header that comes or goes can change what an include means without any known input being changed: objects that read a
/// header of that name are made anew. Their sources are touched: a missing object alone does not move every make.
fn drop_shadowed(table: &Table, names: &BTreeSet<&str>, source: &Path, out: &Path) -> std::io::Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let readers = table.readers_of_names(names);
    drop_objects(
        readers.into_iter().map(|(output, of, generated)| (output.to_owned(), of.to_owned(), generated)),
        source,
        out,
    )
}

/// Has these objects made anew: output, source, whether the source is a file of the build folder.
fn drop_objects(
    objects: impl IntoIterator<Item = (String, String, bool)>,
    source: &Path,
    out: &Path,
) -> std::io::Result<()> {
    for (output, of, generated) in objects {
        let file = source.join(of);
        if !generated && file.is_file() {
            File::options().append(true).open(&file)?.set_modified(SystemTime::now())?;
            continue;
        }
        match Root::at(out)?.place(&output) {
            Ok(place) => place.remove()?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The names of included files that one of two trees has and the other has not.
fn come_and_gone(source: &dyn TreeSource, from: &Oid, changes: &[Change]) -> Result<Vec<String>, TreeError> {
    let included: Vec<&Change> = changes.iter().filter(|change| is_included(&change.path)).collect();
    if included.is_empty() {
        return Ok(Vec::new());
    }
    let gone = included.iter().filter(|change| change.entry.is_none()).map(|change| change.path.clone());
    let mut names: Vec<String> = gone.collect();
    if included.iter().any(|change| change.entry.is_some()) {
        let before: BTreeSet<String> = source.changes(None, from)?.into_iter().map(|change| change.path).collect();
        let come = included.iter().filter(|change| change.entry.is_some() && !before.contains(&change.path));
        names.extend(come.map(|change| change.path.clone()));
    }
    Ok(names.iter().map(|path| path.rsplit('/').next().unwrap_or(path).to_owned()).collect())
}

fn is_included(path: &str) -> bool {
    [".h", ".inc", ".def", ".dtsi"].iter().any(|ending| path.ends_with(ending))
}

/// A configuration that was derived, as it is kept beside the folder where that was done.
#[derive(Serialize, Deserialize)]
struct Derived {
    /// The state for which it was.
    tree: Oid,
    /// What was printed.
    log: String,
    text: String,
    config: Config,
    not_effective: BTreeMap<String, (String, String)>,
}

struct Runner<'a> {
    worker: &'a Worker,
    kbuild: &'a Kbuild,
    folders: &'a Folders,
    attempt: &'a Attempt,
    cancel: watch::Receiver<bool>,
    /// The compilers stand behind their shims.
    shims: bool,
    /// A command of it ran when there was little room on the disk.
    cramped: AtomicBool,
}

impl<'a> Runner<'a> {
    fn new(
        worker: &'a Worker,
        kbuild: &'a Kbuild,
        folders: &'a Folders,
        attempt: &'a Attempt,
        cancel: watch::Receiver<bool>,
        shims: bool,
    ) -> Self {
        Self { worker, kbuild, folders, attempt, cancel, shims, cramped: AtomicBool::new(false) }
    }

    /// What the machine says of the disk that everything was written to.
    fn disk_seen(&self) -> DiskSeen {
        disk_seen(&self.folders.host, self.cramped.load(Ordering::Relaxed))
    }

    /// Whether what failed, and printed this, failed because of the machine.
    fn trouble(&self, text: &str) -> Option<Trouble> {
        machine_trouble(text, self.disk_seen()).map(Trouble::from).or_else(|| full_disk(&self.folders.host))
    }

    fn log_text(&self) -> Result<String, Trouble> {
        let text = std::fs::read(&self.attempt.log).map_err(disk("the log"))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Derives the configuration of the state: base config, fragments, `olddefconfig`. Fails where it is the source that does.
    /// Where nothing that Kconfig reads changed since that was done last, that holds. `place` is the folder in which it is done.
    async fn derive(&self, roots: &Roots, place: &str, first: bool) -> Result<Result<Derived, Failure>, Trouble> {
        if let Some(known) = self.derived_before() {
            self.say("the configuration was derived before, and no file that has a say in it changed since:")?;
            self.append(&known.log)?;
            return Ok(Ok(known));
        }
        let begin = self.log_text()?.len();
        let derived = self.derive_anew(roots, place, first, begin).await?;
        if derived.is_err()
            && let Some(trouble) = self.trouble(self.log_text()?.get(begin..).unwrap_or_default())
        {
            return Err(trouble);
        }
        Ok(derived)
    }

    /// Has Kconfig derive the configuration; `begin`: how long the log is at the start, in bytes.
    async fn derive_anew(
        &self,
        roots: &Roots,
        place: &str,
        first: bool,
        begin: usize,
    ) -> Result<Result<Derived, Failure>, Trouble> {
        let cfg = self.folders.host(place);
        let _ = std::fs::remove_file(cfg.join(DOT_CONFIG));
        let mut asked = Config::new();
        let failed = |goal: &str, log: &str| {
            let error = bombproof_core::diagnostic::parse::log(log, &roots.source, roots)
                .into_iter()
                .map(|finding| finding.diagnostic)
                .find(|diagnostic| diagnostic.severity == bombproof_core::diagnostic::Severity::Error);
            let message = error.map_or_else(
                || log.lines().rev().find(|line| line.contains("***")).unwrap_or("it failed").trim().to_owned(),
                |error| format!("{}:{}: {}", error.location.file, error.location.line, error.message),
            );
            Failure { stage: Stage::Config, what: goal.to_owned(), message, werror: false }
        };
        match &self.kbuild.base_config {
            BaseConfig::File(file) => {
                beneath::write(&cfg, DOT_CONFIG, file.text.as_bytes()).map_err(disk("the configuration"))?;
                asked.extend(config::read(&file.text));
            }
            BaseConfig::Goal(goal) => {
                if self.make(place, std::slice::from_ref(goal), &[]).await? != 0 {
                    let log = self.log_text()?;
                    if log.contains("No rule to make target") || log.contains("Can't find default configuration") {
                        let detail =
                            format!("there is no configuration '{goal}' for {} in this tree", self.kbuild.arch);
                        if first {
                            return Err(Trouble::Request { detail });
                        }
                        return Ok(Err(Failure {
                            stage: Stage::Config,
                            what: goal.clone(),
                            message: detail,
                            werror: false,
                        }));
                    }
                    return Ok(Err(failed(goal, &log)));
                }
            }
        }
        let mut text = read_config(&cfg).map_err(disk("the configuration"))?;
        for fragment in &self.kbuild.fragments {
            text.push('\n');
            text.push_str(&fragment.text);
            text.push('\n');
            asked.extend(config::read(&fragment.text));
        }
        beneath::write(&cfg, DOT_CONFIG, text.as_bytes()).map_err(disk("the configuration"))?;
        if self.make(place, &["olddefconfig".to_owned()], &[]).await? != 0 {
            // Kconfig as it was before Linux 3.7, and is in busybox: the defaults are taken by answering nothing.
            let unknown = |line: &str| line.contains("No rule to make target 'olddefconfig'");
            if !self.log_text()?.lines().any(unknown) || self.make_by_defaults(place, "oldconfig").await? != 0 {
                return Ok(Err(failed("olddefconfig", &self.log_text()?)));
            }
        }
        let text = read_config(&cfg).map_err(disk("the configuration"))?;
        let config = config::effective(&text);
        let log = self.log_text()?.get(begin..).unwrap_or_default().to_owned();
        let not_effective = config::not_effective(&asked, &config);
        let derived = Derived { tree: self.attempt.tree.clone(), log, text, config, not_effective };
        let kept = serde_json::to_vec(&derived).map_err(|error| Trouble::Internal { detail: error.to_string() })?;
        atomic::write(&self.folders.host(DERIVED), &kept)
            .map_err(|error| Trouble::Disk { detail: error.to_string() })?;
        Ok(Ok(derived))
    }

    /// What was derived last, if it is the same for this state.
    fn derived_before(&self) -> Option<Derived> {
        // Where Kconfig's files are made from the sources (busybox), any of them may bring a symbol.
        if self.folders.host("src").join(GENERATED_KCONFIG).is_file() {
            return None;
        }
        let kept: Derived = serde_json::from_slice(&std::fs::read(self.folders.host(DERIVED)).ok()?).ok()?;
        let changes = self.worker.source.changes(Some(&kept.tree), &self.attempt.tree).ok()?;
        (!changes.iter().any(|change| config::may_affect(&change.path))).then_some(kept)
    }

    /// Derives the configuration of the state for the build folder. Gives the failure, if it is one of the source.
    async fn configure(&self, roots: &Roots, memory: &mut Memory, first: bool) -> Result<Option<Failure>, Trouble> {
        // In an empty build folder: its make needs the programs of Kconfig too.
        let place = if memory.built.is_none() { "out" } else { "cfg" };
        let derived = match self.derive(roots, place, first).await? {
            Ok(derived) => derived,
            Err(failure) => return Ok(Some(failure)),
        };
        memory.table.set_config_findings(&self.log_text()?, &roots.source, roots);
        let out = self.folders.host("out");
        // An equal file keeps its time: make would ask Kconfig for nothing.
        if read_config(&out).ok().as_ref() != Some(&derived.text) {
            beneath::write(&out, DOT_CONFIG, derived.text.as_bytes()).map_err(disk("the configuration"))?;
        }
        memory.config = derived.config;
        memory.not_effective = derived.not_effective;
        Ok(None)
    }

    /// Adds a line of our own to the log.
    fn say(&self, line: &str) -> Result<(), Trouble> {
        self.append(&format!("bombproof: {line}\n"))
    }

    fn append(&self, text: &str) -> Result<(), Trouble> {
        use std::io::Write;
        let log = File::options().create(true).append(true).open(&self.attempt.log);
        log.and_then(|mut log| log.write_all(text.as_bytes())).map_err(disk("the log"))
    }

    /// The agent of this step and its socket, where compiles can be run outside of the build.
    fn agent(&self, roots: &Roots, distrusted: bool) -> Result<Option<(Arc<Agent>, UnixListener)>, Trouble> {
        let Some(compiles) = self.worker.compiles.as_ref().filter(|_| !distrusted) else { return Ok(None) };
        let socket = self.folders.host("log").join(AGENT_SOCKET);
        let listener = agent::listen(&socket).map_err(disk("the socket of the agent"))?;
        let places = (self.folders.host("src"), self.folders.host("out"), self.folders.host("compiles"));
        let agent = Agent::new(Arc::clone(compiles), places, roots.clone(), self.attempt, self.cancel.clone());
        Ok(Some((agent, listener)))
    }

    /// Runs the goals in the build folder, with the agent beside it.
    async fn make_with(&self, agent: Option<&(Arc<Agent>, UnixListener)>, goals: &[String]) -> Result<i32, Trouble> {
        let make = self.make("out", goals, &["-k"]);
        match agent {
            None => make.await,
            Some((agent, listener)) => tokio::select! {
                end = make => end,
                () = Arc::clone(agent).serve(listener) => {
                    Err(Trouble::Internal { detail: "the agent of the compilers ended".to_owned() })
                }
            },
        }
    }

    /// Runs make with `O=folder`; gives its exit code.
    async fn make(&self, folder: &str, goals: &[String], options: &[&str]) -> Result<i32, Trouble> {
        self.run(folder, self.make_words(folder, goals, options)).await
    }

    /// Runs make for a goal that asks questions, with an empty line as the answer to each.
    async fn make_by_defaults(&self, folder: &str, goal: &str) -> Result<i32, Trouble> {
        let mut argv: Vec<String> = ["sh", "-c", "yes '' | \"$@\"", "sh"].map(str::to_owned).to_vec();
        argv.extend(self.make_words(folder, &[goal.to_owned()], &[]));
        self.run(folder, argv).await
    }

    fn make_words(&self, folder: &str, goals: &[String], options: &[&str]) -> Vec<String> {
        let mut argv =
            vec!["make".to_owned(), "--no-print-directory".to_owned(), "-C".to_owned(), self.folders.guest("src")];
        argv.extend(options.iter().map(|option| (*option).to_owned()));
        argv.extend(make_variables(self.kbuild));
        argv.push(format!("O={}", self.folders.guest(folder)));
        argv.extend(goals.iter().cloned());
        argv
    }

    /// Runs a command in a folder of the lane, with the compilers behind their shims; gives its exit code.
    async fn run(&self, folder: &str, argv: Vec<String>) -> Result<i32, Trouble> {
        let mut env = build_environment();
        if self.shims {
            env.extend([
                ("PATH".to_owned(), format!("{}:{SYSTEM_PATH}", self.folders.guest("bin"))),
                (shim::REAL_PATH.to_owned(), SYSTEM_PATH.to_owned()),
                (shim::JOURNAL.to_owned(), format!("{}/{JOURNAL}", self.folders.guest("log"))),
                (shim::AGENT.to_owned(), format!("{}/{AGENT_SOCKET}", self.folders.guest("log"))),
            ]);
        } else {
            env.push(("PATH".to_owned(), SYSTEM_PATH.to_owned()));
        }
        let spec = Spec {
            argv,
            cwd: self.folders.guest(folder),
            env,
            binds: vec![
                self.folders.bind("src", false),
                self.folders.bind("out", true),
                self.folders.bind("cfg", true),
                self.folders.bind("log", true),
                self.folders.bind("bin", false),
            ],
            overlays: Vec::new(),
            limits: Limits::for_builds(self.attempt.timeout_s),
            mount_point: self.folders.host("root"),
        };
        let log = File::options().create(true).append(true).open(&self.attempt.log).map_err(disk("the log"))?;
        // The first job of every make is its own; the tokens are for the others.
        let Some(mut jobs) = self.worker.jobs.take(self.cancel.clone()).await else {
            return Err(Trouble::Interrupted);
        };
        if self.shims {
            jobs.widen();
        }
        let end = self.worker.launcher.run(&spec, &log, Some(jobs.tokens()), self.cancel.clone()).await;
        match end?.exited(self.attempt.timeout_s) {
            // What a recipe does make tells by another code.
            Ok((code, _)) if code >= 128 => {
                jobs.lost();
                Err(Trouble::Killed { detail: format!("make ended with {code}") })
            }
            Ok((code, usage)) => {
                self.cramped.fetch_or(usage.cramped, Ordering::Relaxed);
                Ok(code)
            }
            Err(trouble) => {
                jobs.lost();
                Err(trouble)
            }
        }
    }
}

/// The names under which projects keep what their build calls itself: Linux and barebox, u-boot. It is the same in all states: a version
/// is stamped on a series last, and would have the units that hold it compiled again for every patch that counts it up.
/// [`bombproof_core::kbuild::reach`] relies on it.
const RELEASES: [&str; 2] = ["KERNELRELEASE=0.0.0", "UBOOTRELEASE=0.0.0"];

/// What tells make the target.
pub fn make_variables(kbuild: &Kbuild) -> Vec<String> {
    let mut words = vec![format!("ARCH={}", kbuild.arch.kernel_name())];
    words.extend(RELEASES.map(str::to_owned));
    if !kbuild.cross_compile.is_empty() {
        words.push(format!("CROSS_COMPILE={}", kbuild.cross_compile));
    }
    if kbuild.compiler == Compiler::Clang {
        words.push("LLVM=1".to_owned());
    }
    words.extend(kbuild.make_args.iter().cloned());
    words
}

/// The environment that makes builds repeatable: nothing of the user's, fixed names and times.
pub fn build_environment() -> Vec<(String, String)> {
    [
        ("LANG", "C"),
        ("TZ", "UTC"),
        ("HOME", "/nonexistent"),
        ("KBUILD_BUILD_TIMESTAMP", "Thu Jan  1 00:00:00 UTC 1970"),
        ("KBUILD_BUILD_USER", "user"),
        ("KBUILD_BUILD_HOST", "host"),
        ("KBUILD_BUILD_VERSION", "1"),
        ("LOCALVERSION", ""),
        ("SOURCE_DATE_EPOCH", "0"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}
