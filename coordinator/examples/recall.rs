//! Times a check of which every result is known, on results that look like those of a kernel.
//!
//! `recall fill FOLDER STATES TARGETS UNITS WARNINGS` keeps them as a run does; `recall check FOLDER STATES TARGETS UNITS WARNINGS` reads,
//! judges and renders, and says how much memory that took. Used by `scripts/bench-recall`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bombproof_coordinator::dispatcher::{self, Executor, Gathered, Job, Mode, Work};
use bombproof_core::diagnostic::{Diagnostic, Location, Severity, Tool};
use bombproof_core::digest::Digest;
use bombproof_core::id::{Oid, PatchIndex, RunId, TargetName};
use bombproof_core::outcome::{Audited, LinkCheck, Outcome, Scope, ScopeState, StateResult, Trouble, Unit};
use bombproof_core::plan::Built;
use bombproof_core::report::model::{BaseInfo, PatchInfo, Run, SeriesInfo, TargetInfo};
use bombproof_core::report::{build, text};
use bombproof_core::series::{FileChange, Span};
use bombproof_core::verdict::{Facts, StateFacts, TargetFacts};
use bombproof_store::results::{FileResults, ResultKey, ResultStore};
use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};

/// Files that a unit's compile reads beside its source, counted once each over the target.
const INPUTS_PER_UNIT: usize = 4;
/// Symbols of a configuration.
const SYMBOLS: usize = 2500;
/// How often an equal state is stored and read to time it.
const ROUNDS: u32 = 50;

type Failed = Box<dyn std::error::Error>;

#[derive(Clone, Copy)]
struct Shape {
    states: usize,
    targets: usize,
    units: usize,
    /// How many units print one.
    warnings: usize,
}

impl Shape {
    /// The units that the patch of a state changes: none in six of ten, a few in others, a tenth of all in every 50th.
    fn changed(self, state: usize) -> Vec<usize> {
        let count = match state {
            0 => 0,
            _ if state.is_multiple_of(50) => self.units / 10,
            _ if state % 10 < 6 => 0,
            _ => state % 5 + 1,
        };
        (0..count).map(|number| (state * 7919 + number * 104_729) % self.units).collect()
    }

    fn tree(state: usize) -> Result<Oid, Failed> {
        Ok(Oid::parse(&format!("{state:040x}")).map_err(|error| format!("{error:?}"))?)
    }

    fn work(self) -> Result<Work, Failed> {
        Ok(Work {
            targets: (0..self.targets).map(|target| Digest::of(&target.to_be_bytes())).collect(),
            parallel: false,
            trees: (0..self.states).map(Self::tree).collect::<Result<_, _>>()?,
            mode: Mode::Every,
            slots: 2,
            reuse: true,
        })
    }

    /// A state as a worker gives it: nothing is shared with any other.
    fn result(self, target: usize, state: usize) -> StateResult {
        let mut versions = vec![0_u32; self.units];
        for changed in (0..=state).flat_map(|state| self.changed(state)) {
            versions[changed] += 1;
        }
        let mut result = StateResult::trouble(Trouble::Interrupted);
        (result.outcome, result.link) = (Outcome::Built, LinkCheck::Symbols);
        "the link sees no difference".clone_into(&mut result.why);
        result.cost.wall_ms = 1000;
        result.units = versions.iter().enumerate().map(|(unit, version)| self.unit(target, unit, *version)).collect();
        let headers = (0..self.units * INPUTS_PER_UNIT).map(|n| format!("include/linux/part-{}/header-{n}.h", n % 40));
        result.inputs = headers.chain((0..self.units).map(source)).collect();
        let symbols = (0..SYMBOLS + state / 25).map(|n| (format!("SYMBOL_WITH_A_NAME_{n}"), "y"));
        result.config = symbols.collect();
        result.scopes.insert(Scope::Modpost, ScopeState { known: true, diagnostics: Vec::new() });
        result
    }

    fn unit(self, target: usize, unit: usize, version: u32) -> (String, Unit) {
        let noisy = unit < self.warnings;
        let object = format!("{target} {unit} {version}");
        let made = Unit {
            source: source(unit),
            command: Digest::of(&unit.to_be_bytes()),
            ok: true,
            diagnostics: if noisy { vec![warning(unit, 10 + version)] } else { Vec::new() },
            object: Some(Digest::of(object.as_bytes())),
        };
        (source(unit).replace(".c", ".o"), made)
    }

    fn facts(self) -> Vec<StateFacts> {
        let change = |unit: usize| FileChange {
            old_path: Some(source(unit)),
            new_path: Some(source(unit)),
            spans: vec![Span { old_start: 2, old_lines: 0, new_start: 3, new_lines: 1 }],
        };
        (0..self.states)
            .map(|state| {
                let mut changes: Vec<FileChange> = self.changed(state).into_iter().map(change).collect();
                if changes.is_empty() {
                    let path = Some(format!("drivers/not-built/file-{state}.c"));
                    changes.push(FileChange { old_path: path.clone(), new_path: path, spans: Vec::new() });
                }
                StateFacts { changes, not_applied: None }
            })
            .collect()
    }
}

fn source(unit: usize) -> String {
    format!("drivers/infiniband/part-{}/source-file-{unit}.c", unit % 60)
}

fn warning(unit: usize, line: u32) -> Diagnostic {
    let location = Location { file: source(unit), line, column: Some(9) };
    let message = format!("variable 'value{unit}' set but not used");
    Diagnostic {
        tool: Tool::Compiler,
        severity: Severity::Warning,
        flag: Some("unused-but-set-variable".to_owned()),
        werror: false,
        text: vec![format!("{}:{line}:9: warning: {message}", location.file), "   10 | int value;".to_owned()],
        location,
        function: Some("setup".to_owned()),
        source: Some("int value;".to_owned()),
        message,
    }
}

/// Makes results up; counts the time that this takes.
struct MadeUp(Shape, Arc<AtomicU64>);

impl Executor for MadeUp {
    fn execute(&self, job: Job, _: watch::Receiver<bool>) -> BoxFuture<'static, Built> {
        let (shape, spent) = (self.0, Arc::clone(&self.1));
        Box::pin(async move {
            let start = Instant::now();
            let result = shape.result(job.target, job.state.as_usize());
            spent.fetch_add(u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
            result.into()
        })
    }

    fn audit(&self, _: Job, _: Arc<StateResult>, _: watch::Receiver<bool>) -> BoxFuture<'static, Audited> {
        Box::pin(async { Audited::NotDone(Trouble::Interrupted) })
    }
}

fn run(shape: Shape, store: &FileResults) -> Result<(Gathered, u64), Failed> {
    let spent = Arc::default();
    let executor = MadeUp(shape, Arc::clone(&spent));
    let (events, mut seen) = mpsc::unbounded_channel();
    let (_stop, cancel) = watch::channel(false);
    let work = shape.work()?;
    let gathered = tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
        let running = dispatcher::run(&work, store, &executor, None, &events, cancel);
        tokio::pin!(running);
        loop {
            tokio::select! {
                gathered = &mut running => break gathered,
                Some(_) = seen.recv() => {}
            }
        }
    })?;
    Ok((gathered, spent.load(Ordering::Relaxed)))
}

fn report(shape: Shape, gathered: &Gathered) -> build::Frame {
    let patch = |index: u32| PatchInfo {
        index: PatchIndex(index),
        subject: format!("RDMA/core: change number {index}"),
        author: "A <a@localhost>".to_owned(),
        source: format!("mbox:{index}"),
        tree: String::new(),
        upstream: None,
        fuzz: Vec::new(),
        not_applied: None,
    };
    let target = |number: usize| TargetInfo {
        name: name(number),
        arch: format!("arch{number}"),
        config: "defconfig".to_owned(),
        toolchain: "gcc".to_owned(),
        goals: vec!["vmlinux".to_owned()],
        not_effective: Vec::new(),
    };
    build::Frame {
        run: Run {
            id: RunId::from("synthetic"),
            started_at: String::new(),
            duration_ms: 0,
            mode: "every".to_owned(),
            sandbox: "none".to_owned(),
            finished: !gathered.interrupted,
            notes: Vec::new(),
        },
        series: SeriesInfo {
            name: "synthetic".to_owned(),
            base: BaseInfo { commit: String::new(), tree: String::new(), name: "base".to_owned() },
            patches: (1..u32::try_from(shape.states).unwrap_or(u32::MAX)).map(patch).collect(),
        },
        targets: (0..shape.targets).map(target).collect(),
        slots: 2,
    }
}

fn name(target: usize) -> TargetName {
    TargetName::from(format!("arch{target}-defconfig").as_str())
}

/// The most memory that this process ever had, in MB.
fn peak_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1000
}

fn size_of(folder: &Path) -> std::io::Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        sum += if entry.file_type()?.is_dir() { size_of(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(sum)
}

#[expect(clippy::print_stdout, reason = "this is a program")]
fn main() -> Result<(), Failed> {
    let args: Vec<String> = std::env::args().collect();
    let [_, what, folder, states, targets, units, warnings] = args.as_slice() else {
        return Err("usage: recall fill|check FOLDER STATES TARGETS UNITS WARNINGS".into());
    };
    let shape = Shape {
        states: states.parse()?,
        targets: targets.parse()?,
        units: units.parse()?,
        warnings: warnings.parse()?,
    };
    let folder = PathBuf::from(folder);
    let store = FileResults::at(folder.clone());
    let ms = |start: Instant| start.elapsed().as_secs_f64() * 1e3;
    let start = Instant::now();
    let (gathered, made_up_us) = run(shape, &store)?;
    let recalled = ms(start);
    if what == "fill" {
        let each = (recalled - f64::from(u32::try_from(made_up_us)?) / 1e3)
            / f64::from(u32::try_from(shape.states * shape.targets)?);
        println!(
            "fill    {each:.2} ms for a state; {} MB of files, {} MB of memory",
            size_of(&folder)? / 1_000_000,
            peak_mb()
        );
        return Ok(());
    }
    if made_up_us > 0 {
        return Err("results were not found".into());
    }
    let start = Instant::now();
    let states = shape.facts();
    let targets: Vec<TargetFacts<'_>> = (0..shape.targets)
        .map(|target| TargetFacts {
            name: name(target),
            command: false,
            results: gathered.results[target].iter().map(Option::as_deref).collect(),
            cached: gathered.cached[target].clone(),
            logs: vec![String::new(); shape.states],
        })
        .collect();
    let facts = Facts { states: &states, targets: &targets, asked: &gathered.asked, search: false };
    let report = build::build(report(shape, &gathered), &facts);
    let judged = ms(start);
    let start = Instant::now();
    let shown = text::render(&report, text::Style { colour: false, width: 100 });
    let json = serde_json::to_string_pretty(&report)?;
    let rendered = ms(start);
    let total = recalled + judged + rendered;
    println!(
        "check   {total:.0} ms: {recalled:.0} to read, {judged:.0} to judge, {rendered:.0} to render ({} + {} bytes); {} MB of memory",
        shown.len(),
        json.len(),
        peak_mb()
    );
    equal_state(shape, &store, &gathered)
}

/// One more tree in which nothing that is compiled changed.
#[expect(clippy::print_stdout, reason = "this is a program")]
fn equal_state(shape: Shape, store: &FileResults, gathered: &Gathered) -> Result<(), Failed> {
    let work = shape.work()?;
    let last = shape.states - 1;
    let before = ResultKey::new(&work.targets[0], &work.trees[last]);
    let (mut put, mut got) = (0.0, 0.0);
    for round in 0..ROUNDS {
        let mut fresh = shape.result(0, last);
        let key = ResultKey::new(&work.targets[0], &Shape::tree(1_000_000 + round as usize)?);
        let start = Instant::now();
        if let Some(before) = &gathered.results[0][last] {
            fresh.share_with(before);
        }
        store.put_after(&key, &fresh, Some(&before))?;
        put += start.elapsed().as_secs_f64() * 1e3;
        let start = Instant::now();
        store.get(&key)?.ok_or("it was not found")?;
        got += start.elapsed().as_secs_f64() * 1e3;
        store.forget(&key)?;
        // What forgetting dropped from memory is not what is timed.
        store.get(&before)?;
    }
    println!("equal   {:.2} ms to store, {:.2} ms to read", put / f64::from(ROUNDS), got / f64::from(ROUNDS));
    Ok(())
}
