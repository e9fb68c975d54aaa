//! `check` and `gate`: from the series to the report, in this process.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bombproof_coordinator::dispatcher::{ActionRunner, Audit, Event, Executor, Gathered, Job, Mode, Planning};
use bombproof_coordinator::ingest;
use bombproof_coordinator::planner::sources::Sources;
use bombproof_coordinator::run::{self, Means, Plan};
use bombproof_coordinator::states::{GitTrees, Repository, StatesError};
use bombproof_core::digest::DigestBuilder;
use bombproof_core::id::{Oid, RunId, TargetName};
use bombproof_core::kbuild::roots::Roots;
use bombproof_core::outcome::{Audited, Outcome, StateResult, Trouble};
use bombproof_core::plan::{Built, Configured};
use bombproof_core::report::build::{Decision, FailOn, decide};
use bombproof_core::report::model::Report;
use bombproof_core::report::{markdown, text};
use bombproof_core::series::Series;
use bombproof_core::target::{Build, TargetSpec};
use bombproof_store::action_cache::{ActionCache, FileActions};
use bombproof_store::cas::{Cas, DiskCas};
use bombproof_store::complete_actions::Complete;
use bombproof_store::graphs::FileGraphs;
use bombproof_store::home::Home;
use bombproof_store::manifests::FileManifests;
use bombproof_store::results::FileResults;
use bombproof_store::runs::{RunRecord, Runs};
use bombproof_store::trees::TreeSource;
use bombproof_worker::action::{self, Actions};
use bombproof_worker::files::Files;
use bombproof_worker::jobs::Jobs;
use bombproof_worker::kbuild::Compiles;
use bombproof_worker::sandbox::container::{Config, Containers, Engine, machine_memory};
use bombproof_worker::sandbox::{self, Launcher, Level};
use bombproof_worker::toolchain::{MissingTool, Toolchain, find_toolchain};
use bombproof_worker::{Order, Target, Worker};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::args::{CheckArgs, FailOnArg, Format, ModeArg, SandboxArg, SandboxArgs};
use crate::fail::{CLEAN, FINDINGS, Fail, UNDECIDED};
use crate::progress::Progress;
use crate::{ended, request, say};

/// The worker as the dispatcher sees it.
struct Here(Arc<Worker>);

impl Executor for Here {
    fn execute(&self, job: Job, cancel: watch::Receiver<bool>) -> BoxFuture<'static, Built> {
        let worker = Arc::clone(&self.0);
        async move {
            let built = worker.build(order(job), cancel.clone()).await;
            // What comes to grief while everything is being stopped was stopped.
            let stopped = *cancel.borrow();
            match built.result.outcome {
                Outcome::Trouble(_) if stopped => StateResult::trouble(Trouble::Interrupted).into(),
                Outcome::Built | Outcome::Failed(_) | Outcome::Skipped | Outcome::Trouble(_) => built,
            }
        }
        .boxed()
    }

    fn configure(&self, job: Job, cancel: watch::Receiver<bool>) -> BoxFuture<'static, Result<Configured, Trouble>> {
        let worker = Arc::clone(&self.0);
        async move { worker.configure(order(job), cancel).await }.boxed()
    }

    fn audit(
        &self,
        job: Job,
        expected: Arc<StateResult>,
        cancel: watch::Receiver<bool>,
    ) -> BoxFuture<'static, Audited> {
        let worker = Arc::clone(&self.0);
        async move { worker.audit(order(job), &expected, cancel).await }.boxed()
    }
}

fn order(job: Job) -> Order {
    let Job { target, lane, state, tree, clean, alike, attempt: _ } = job;
    Order { target, lane, state, tree, clean, alike }
}

/// A run on this machine.
struct Local {
    plan: Plan,
    launcher: Launcher,
}

pub(crate) fn run(home: &Home, args: CheckArgs) -> Result<u8, Fail> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(4).build().map_err(Fail::machine)?;
    runtime.block_on(check(home, args))
}

async fn check(home: &Home, args: CheckArgs) -> Result<u8, Fail> {
    let start = Instant::now();
    let Local { plan, launcher } = plan(home, &args).await?;
    let id = new_id();
    let record = plan.record(&id, timestamp(SystemTime::now()), std::env::args().collect());
    let runs = Runs::new(home);
    runs.save(&record).map_err(Fail::machine)?;
    say(&format!(
        "  {} on {}, {} made in {:.2} s",
        count(plan.series.patches.len(), "patch", "patches"),
        plan.states.base,
        count(plan.states.states.len() - 1, "state", "states"),
        start.elapsed().as_secs_f64()
    ));
    for (spec, toolchain) in &plan.targets {
        let with = match &spec.build {
            Build::Command { command } => command,
            Build::Kbuild(_) => &toolchain.version,
        };
        say(&format!("  {}: {with}", spec.name));
    }
    say(&format!("  sandbox: {}, {}, run {id}\n", plan.sandbox, count(plan.slots, "slot", "slots")));
    let done = work(home, &plan, &launcher, record, &runs).await;
    if let Launcher::Containers(containers) = &launcher {
        containers.close().await;
    }
    let (gathered, beside) = done?;
    if let Some((target, why)) = &gathered.refused {
        let name = &plan.targets[*target].0.name;
        return Err(Fail::request(format!("target '{name}' cannot be built: {why}"))
            .hint(Some("'bombproof doctor' shows what a target needs")));
    }
    let begun = timestamp(SystemTime::now() - start.elapsed());
    let mut report = run::report(&plan, &id, &gathered, begun, start.elapsed());
    report.cost.beside_compiler_us = beside;
    report.cost.peak_memory_kib = peak_memory_kib();
    // A report that cannot be kept is still worth reading.
    let kept = runs.save_report(&report);
    deliver(&report, args.format, args.output.as_deref())?;
    if report.cost.actions.executed > 0 {
        crate::cache::keep_within(home, args.cache_limit);
    }
    if let Err(error) = kept {
        return Err(Fail::machine(format!("the report could not be stored: {error}"))
            .hint(Some("the settled states are kept; the same command goes on")));
    }
    Ok(exit_code(&report, &args.fail_on))
}

/// The exit code that a report comes to.
pub(crate) fn exit_code(report: &Report, fail_on: &[FailOnArg]) -> u8 {
    let fail_on =
        FailOn { fails: fail_on.contains(&FailOnArg::Fails), warnings: fail_on.contains(&FailOnArg::Warnings) };
    match decide(report, fail_on) {
        Decision::Clean => CLEAN,
        Decision::Findings => FINDINGS,
        Decision::Undecided => UNDECIDED,
    }
}

pub(crate) fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// `20261124-1451-3f9c`: sorts by time.
pub(crate) fn new_id() -> RunId {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let digits: String = now.chars().filter(char::is_ascii_digit).collect();
    let (date, time) = digits.split_at(8.min(digits.len()));
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.subsec_nanos());
    RunId(format!("{date}-{}-{:04x}", time.chars().take(6).collect::<String>(), (nanos ^ std::process::id()) & 0xffff))
}

/// What a request names, before anything is written.
pub(crate) struct Intake {
    pub(crate) targets: Vec<TargetSpec>,
    pub(crate) repository: Repository,
    /// First and last commit, where the series is a range.
    pub(crate) range: Option<(Oid, Oid)>,
    /// The patches, where it is not.
    pub(crate) series: Option<Series>,
}

/// Reads what is asked for. All that can be wrong with it is looked at before anything is written.
pub(crate) fn intake(args: &CheckArgs) -> Result<Intake, Fail> {
    if args.mode == ModeArg::Search && args.exec.is_none() {
        return Err(Fail::request("--mode search is for --exec: a kernel build is judged state by state")
            .hint(Some("leave --mode out, or give the command with --exec")));
    }
    let targets = match &args.exec {
        Some(command) => vec![TargetSpec {
            name: TargetName::from("command"),
            build: Build::Command { command: command.clone() },
            timeout_s: args.targets.timeout,
        }],
        None => request::targets(&args.targets, &args.repo)?,
    };
    if let Some(output) = &args.output {
        writable(output)?;
    }
    let repository = Repository::open(&args.repo).map_err(states_failed)?;
    let guards: BTreeSet<String> = args.guard.iter().cloned().collect();
    let given = Path::new(&args.series);
    let range = if given.exists() || args.series == "-" {
        None
    } else {
        repository.range(&args.series).map_err(states_failed)?
    };
    let series = match range {
        Some(_) => None,
        None => {
            let series = ingest::read(given, &guards)
                .map_err(|error| Fail::request(&error).hint(error.hint().map(str::to_owned)))?;
            Some(series)
        }
    };
    Ok(Intake { targets, repository, range, series })
}

async fn plan(home: &Home, args: &CheckArgs) -> Result<Local, Fail> {
    let Intake { targets, repository, range, series } = intake(args)?;
    let prepare = || {
        home.prepare()
            .map_err(|error| Fail::request(error).hint(Some("set BOMBPROOF_HOME to a folder that can be written")))
    };
    let own = std::thread::available_parallelism().map_or(1, usize::from);
    let slots = args.jobs.map_or(own, usize::from);
    let (launcher, toolchains) = match args.sandbox.sandbox {
        SandboxArg::Container => {
            prepare()?;
            let containers = containers(home, &args.sandbox, slots).await?;
            let found = toolchains_in(&containers, targets).await;
            if found.is_err() {
                containers.close().await;
            }
            (Launcher::Containers(containers), found?)
        }
        SandboxArg::Auto | SandboxArg::Namespaces | SandboxArg::Bubblewrap | SandboxArg::Landlock => {
            let toolchains = toolchains_here(home, targets)?;
            prepare()?;
            (Launcher::Here(level(home, &args.sandbox).await?), toolchains)
        }
    };
    let objects = home.objects(repository.path());
    let repo = repository.path().to_owned();
    let named = args.base.clone();
    let (store, name) = (objects.clone(), args.series.clone());
    let made = tokio::task::spawn_blocking(move || match (range, series) {
        (Some(range), _) => repository.states_of_range(&range, &name, &store).map_err(states_failed),
        (None, Some(series)) => {
            let base = base_of(named, &series)?;
            let states = repository.states(&series, &base, &store).map_err(states_failed)?;
            Ok((series, states))
        }
        (None, None) => Err(Fail::machine("no series")),
    });
    let (series, states) = made.await.map_err(Fail::machine)??;
    if series.patches.is_empty() {
        return Err(Fail::request(format!("'{}' holds no patch", args.series))
            .hint(Some("give a range of at least one commit: A..B is what is in B and not in A")));
    }
    let plan = Plan {
        series,
        states,
        objects,
        repo,
        targets: toolchains,
        mode: mode(args.mode),
        slots,
        asked: slots,
        sandbox: launcher.level().name().to_owned(),
        audit: audit(args),
        reuse: !args.fresh,
    };
    Ok(Local { plan, launcher })
}

/// What the user, or the series itself, calls the base.
pub(crate) fn base_of(named: Option<String>, series: &Series) -> Result<String, Fail> {
    named.or_else(|| series.base_commit.clone()).ok_or_else(|| {
        Fail::request("no base is given, and the patches name none")
            .hint(Some("say what the first patch goes on: --base REV"))
    })
}

pub(crate) fn mode(asked: ModeArg) -> Mode {
    match asked {
        ModeArg::Every => Mode::Every,
        ModeArg::Tip => Mode::Tip,
        ModeArg::Search => Mode::Search,
    }
}

pub(crate) fn audit(args: &CheckArgs) -> Option<Audit> {
    args.audit.map(|percent| Audit { percent, clean: args.audit_clean })
}

/// RFC 3339, UTC.
pub(crate) fn timestamp(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

pub(crate) fn states_failed(error: StatesError) -> Fail {
    let hint = error.hint().map(str::to_owned);
    let fail = if error.is_infrastructure() { Fail::machine(error) } else { Fail::request(error) };
    fail.hint(hint)
}

pub(crate) fn writable(output: &Path) -> Result<(), Fail> {
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if output.is_dir() || !folder.is_dir() {
        return Err(Fail::request(format!(
            "'{}' cannot be written: it is a folder, or its folder is not there",
            output.display()
        ))
        .hint(Some("give --output a file in a folder that is there")));
    }
    tempfile::tempfile_in(folder)
        .map(|_| ())
        .map_err(|error| Fail::request(format!("'{}' cannot be written: {error}", output.display())))
}

/// The sandbox on this host.
pub(crate) async fn level(home: &Home, args: &SandboxArgs) -> Result<Level, Fail> {
    let asked = match args.sandbox {
        SandboxArg::Auto | SandboxArg::Container => None,
        SandboxArg::Namespaces => Some(Level::Namespaces),
        SandboxArg::Bubblewrap => Some(Level::Bubblewrap),
        SandboxArg::Landlock => Some(Level::Landlock),
    };
    if let Some(level) = asked {
        let works = sandbox::probe(level, home.root()).await;
        return works.map(|()| level).map_err(|error| {
            Fail::request(format!("the sandbox '{}' cannot be had on this machine: {error}", level.name()))
                .hint(Some("leave --sandbox out to take the best that there is"))
        });
    }
    let (found, why) = sandbox::best(home.root()).await;
    match found {
        Some(level) => Ok(level),
        None if args.unsafe_no_sandbox => Ok(Level::None),
        None => Err(Fail::request(format!("no sandbox can be had on this machine ({})", why.join("; "))).hint(Some(
            "install bubblewrap, or allow user namespaces (sysctl kernel.unprivileged_userns_clone=1); \
             --unsafe-no-sandbox builds without",
        ))),
    }
}

/// Containers of the image that is asked for.
pub(crate) async fn containers(home: &Home, args: &SandboxArgs, slots: usize) -> Result<Arc<Containers>, Fail> {
    let image = args.image.as_deref().unwrap_or_default();
    let engine = Engine::connect(args.engine.as_deref())
        .await
        .map_err(|error| Fail::request(error).hint(Some("start Docker or Podman, or name its socket with --engine")))?;
    let mut config = Config::new(home, image, slots, machine_memory());
    if let Some(memory) = args.slot_memory {
        config.memory_bytes = memory.0;
    }
    Containers::prepare(engine, config).await.map_err(|error| {
        Fail::request(error)
            .hint(Some("deploy/images/build makes an image; 'docker images' shows those that are there"))
    })
}

/// The compilers of the image, looked at in there.
async fn toolchains_in(
    containers: &Containers,
    targets: Vec<TargetSpec>,
) -> Result<Vec<(TargetSpec, Toolchain)>, Fail> {
    let mut toolchains = Vec::new();
    for spec in targets {
        let found = containers.toolchain(&spec).await.map_err(Fail::machine)?;
        let found = found.map_err(|error| {
            Fail::request(format!("{error} in the image"))
                .hint(Some("add its package to the image: deploy/images/packages"))
        })?;
        toolchains.push((spec, found));
    }
    Ok(toolchains)
}

/// The compilers of this machine.
fn toolchains_here(home: &Home, targets: Vec<TargetSpec>) -> Result<Vec<(TargetSpec, Toolchain)>, Fail> {
    let missing = |error: MissingTool| {
        let install = error.install.as_ref().map(|line| format!("install it: {line}"));
        Fail::request(&error).hint(install.or_else(|| Some("'bombproof doctor' shows what a target needs".to_owned())))
    };
    let find = |spec: TargetSpec| {
        let found = find_toolchain(&spec, &home.toolchains()).map_err(missing)?;
        Ok((spec, found))
    };
    targets.into_iter().map(find).collect()
}

async fn work(
    home: &Home,
    plan: &Plan,
    launcher: &Launcher,
    mut record: RunRecord,
    runs: &Runs,
) -> Result<(Gathered, Option<u64>), Fail> {
    let commands = plan.commands();
    let targets: Vec<Target> = plan
        .targets
        .iter()
        .map(|(spec, toolchain)| Target {
            spec: spec.clone(),
            folder_key: DigestBuilder::new("bombproof/folder/v1")
                .field(spec.digest(&toolchain.digest).to_string().as_bytes())
                .field(plan.repo.as_os_str().as_encoded_bytes())
                .field(launcher.level().name().as_bytes())
                .finish(),
            toolchain: toolchain.digest,
        })
        .collect();
    let jobs = match launcher {
        Launcher::Here(_) => Jobs::new(plan.slots),
        Launcher::Containers(_) => Jobs::shared(plan.slots, home),
    };
    let jobs = jobs.map_err(Fail::machine)?;
    let trees: Arc<dyn TreeSource> = Arc::new(GitTrees::open(&plan.objects));
    let cas: Arc<dyn Cas> = Arc::new(DiskCas::at(home.cas()));
    let cache: Arc<dyn ActionCache> = Arc::new(Complete::new(FileActions::at(home.actions()), Arc::clone(&cas)));
    let alone = !commands && action::supported(launcher.level());
    let compiles = alone.then(|| {
        Arc::new(Compiles {
            actions: Arc::new(Actions::new(launcher.clone(), home, Arc::clone(&cas), Arc::clone(&jobs))),
            cache: Arc::clone(&cache),
            manifests: Arc::new(FileManifests::at(home.manifests())),
            files: Arc::new(Files::new(Arc::clone(&cas))),
        })
    });
    let actions = compiles.as_ref().map(|compiles| Arc::clone(&compiles.actions));
    let worker = Arc::new(Worker {
        launcher: launcher.clone(),
        jobs,
        home: home.clone(),
        source: Arc::clone(&trees),
        targets,
        logs: home.run(&record.id).join("logs"),
        lanes: tokio::sync::Mutex::default(),
        compiles,
    });
    let runner = {
        let (worker, cache) = (Arc::clone(&worker), Arc::clone(&cache));
        let runner: ActionRunner = Arc::new(move |asked, cancel| {
            let (worker, cache) = (Arc::clone(&worker), Arc::clone(&cache));
            let run = async move {
                let result = worker.run_action(&(asked.make)()?, cancel).await?;
                let kept = cache.put(&asked.digest, &result);
                kept.map(|()| result).map_err(|error| Trouble::Disk { detail: error.to_string() })
            };
            run.boxed()
        });
        runner
    };
    let planning = alone.then(|| Planning {
        sources: Arc::new(Sources::new(trees, cas)),
        runner,
        actions: cache,
        graphs: Arc::new(FileGraphs::at(home.graphs())),
        toolchains: plan.targets.iter().map(|(_, toolchain)| toolchain.digest).collect(),
        roots: Roots { source: action::SOURCE.to_owned(), output: action::OUTPUT.to_owned() },
    });
    let executor = Here(worker);
    let results = FileResults::at(home.results());
    let (stop, cancel) = watch::channel(false);
    let names = plan.targets.iter().map(|(spec, _)| spec.name.to_string()).collect();
    let mut progress = Progress::new(plan.subjects(), names);
    let signals = ended::each_time(move || {
        let _ = stop.send(true);
    })?;
    let means = Means { executor: &executor, planning: planning.as_ref(), results: &results, runs };
    let mut show = |event: &Event| progress.show(&event.into());
    let ended = run::carry_out(plan, &means, &mut record, cancel, &mut show).await;
    signals.abort();
    progress.end();
    let mut gathered =
        ended.map_err(|error| Fail::machine(error).hint(Some("what was settled is kept; the same command goes on")))?;
    match launcher {
        Launcher::Here(Level::None) => gathered.notes.push("built without a sandbox, as asked".to_owned()),
        Launcher::Here(Level::Landlock) => {
            gathered.notes.push("the sandbox (Landlock) does not shut the network off".to_owned());
        }
        Launcher::Here(Level::Namespaces | Level::Bubblewrap | Level::Container) => {}
        Launcher::Containers(containers) => {
            if let Err(error) = containers.check_image().await {
                gathered.notes.push(error.to_string());
            }
        }
    }
    Ok((gathered, actions.and_then(|actions| actions.median_beside_us())))
}

/// The most memory that this process held, as the kernel counts it (`VmHWM`, proc(5)).
fn peak_memory_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Renders a report and writes it where it shall go, whole or not at all.
pub(crate) fn deliver(report: &Report, format: Format, output: Option<&Path>) -> Result<(), Fail> {
    let rendered = match format {
        Format::Json => {
            let mut text = serde_json::to_string_pretty(report).map_err(Fail::machine)?;
            text.push('\n');
            text
        }
        Format::Markdown => markdown::render(report),
        Format::Text => {
            let terminal = output.is_none() && std::io::stdout().is_terminal();
            let colour = terminal && std::env::var_os("NO_COLOR").is_none();
            let width = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
            let width = width.or_else(|| terminal.then(terminal_width).flatten()).unwrap_or(100);
            format!("\n{}", text::render(report, text::Style { colour, width: width.clamp(60, 160) }))
        }
    };
    match output {
        Some(path) => bombproof_store::atomic::write(path, rendered.as_bytes()).map_err(Fail::machine),
        None => {
            crate::print(&rendered);
            Ok(())
        }
    }
}

fn terminal_width() -> Option<usize> {
    console::Term::stdout().size_checked().map(|(_, width)| usize::from(width))
}
