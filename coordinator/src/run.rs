//! A run from its plan to its report, whoever builds the states.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bombproof_core::id::{PatchIndex, RunId};
use bombproof_core::outcome::{Outcome, StateResult};
use bombproof_core::report::build::{Frame, build};
use bombproof_core::report::model::{BaseInfo, PatchInfo, Report, Run, SeriesInfo, TargetInfo};
use bombproof_core::series::Series;
use bombproof_core::submission::{Audit, Mode, Seen};
use bombproof_core::target::{Build, TargetSpec, Toolchain, config_name};
use bombproof_core::verdict::{Facts, StateFacts, TargetFacts};
use bombproof_store::atomic::FileError;
use bombproof_store::results::ResultStore;
use bombproof_store::runs::{Phase, RunRecord, Runs, TargetProgress};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use crate::dispatcher::{self, Event, Executor, Gathered, Planning, Work};
use crate::states::States;

/// How far a run is, is stored this often at most.
const SAVED_EVERY: Duration = Duration::from_secs(2);

/// Everything that is known before the first build.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The patches.
    pub series: Series,
    /// The tree after each.
    pub states: States,
    /// The object store with the states.
    pub objects: PathBuf,
    /// The repository, for people.
    pub repo: PathBuf,
    /// What is built, and with what.
    pub targets: Vec<(TargetSpec, Toolchain)>,
    /// Which states are judged.
    pub mode: Mode,
    /// How many attempts run at once.
    pub slots: usize,
    /// How many attempts are asked for at once: more, where slots may come while it runs.
    pub asked: usize,
    /// How builds are shut in.
    pub sandbox: String,
    /// What is audited.
    pub audit: Option<Audit>,
    /// Results of earlier runs are used.
    pub reuse: bool,
}

/// What `explain` and `reproduce` need of a run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// As asked for.
    pub targets: Vec<TargetSpec>,
    /// Commit and tree of each state.
    pub states: Vec<(String, String)>,
}

impl Plan {
    /// Whether commands are run, and not the project's make.
    pub fn commands(&self) -> bool {
        self.targets.iter().any(|(spec, _)| matches!(spec.build, Build::Command { .. }))
    }

    /// The run as it is stored. `started_at`: RFC 3339, UTC; `command`: the command line, for people.
    pub fn record(&self, id: &RunId, started_at: String, command: Vec<String>) -> RunRecord {
        let states = self.states.states.iter();
        let states = states.map(|state| (state.commit.to_string(), state.tree.to_string())).collect();
        let request = Request { targets: self.targets.iter().map(|(spec, _)| spec.clone()).collect(), states };
        let progress = self.targets.iter().map(|(spec, toolchain)| TargetProgress {
            name: spec.name.to_string(),
            digest: spec.digest(&toolchain.digest).to_string(),
            settled: 0,
            failing: 0,
        });
        RunRecord {
            id: id.clone(),
            phase: Phase::Running,
            pid: std::process::id(),
            started_at,
            command,
            series: self.series.name.clone(),
            repo: self.repo.clone(),
            objects: self.objects.clone(),
            targets: progress.collect(),
            states: u32::try_from(self.states.states.len()).unwrap_or(u32::MAX),
            request: serde_json::to_value(request).unwrap_or_default(),
        }
    }

    /// The subjects of the states.
    pub fn subjects(&self) -> Vec<String> {
        let patches = self.series.patches.iter().map(|patch| patch.subject.clone());
        std::iter::once("base".to_owned()).chain(patches).collect()
    }

    fn work(&self) -> Work {
        Work {
            targets: self.targets.iter().map(|(spec, toolchain)| spec.digest(&toolchain.digest)).collect(),
            parallel: self.commands(),
            trees: self.states.states.iter().map(|state| state.tree.clone()).collect(),
            mode: self.mode,
            slots: self.asked,
            reuse: self.reuse,
        }
    }
}

/// What states and actions are made with, and where what they gave is kept.
pub struct Means<'a> {
    /// Builds states.
    pub executor: &'a dyn Executor,
    /// Plans ahead; `None`: everything is left to the executor.
    pub planning: Option<&'a Planning>,
    /// Results of states.
    pub results: &'a dyn ResultStore,
    /// Stored runs.
    pub runs: &'a Runs,
}

/// Carries a run out; `show` is told what happens. It ends early when `cancel` turns true, and says so.
///
/// # Errors
/// When the store cannot be read or written: what was settled before is kept.
pub async fn carry_out(
    plan: &Plan,
    means: &Means<'_>,
    record: &mut RunRecord,
    cancel: watch::Receiver<bool>,
    show: &mut (dyn FnMut(&Event) + Send),
) -> Result<Gathered, FileError> {
    let work = plan.work();
    let (events, mut seen) = mpsc::unbounded_channel();
    let running = async {
        let mut gathered =
            dispatcher::run(&work, means.results, means.executor, means.planning, &events, cancel.clone()).await?;
        if let Some(asked) = plan.audit.filter(|_| !gathered.interrupted) {
            let graphs = means.planning.map(|planning| &*planning.graphs);
            let kept = dispatcher::Kept { results: means.results, graphs };
            dispatcher::audit(&work, asked, &mut gathered, kept, means.executor, &events, cancel).await?;
        }
        Ok::<_, FileError>(gathered)
    };
    tokio::pin!(running);
    let mut saved = Instant::now();
    let ended = loop {
        tokio::select! {
            ended = &mut running => break ended,
            Some(event) = seen.recv() => {
                note(record, &event);
                show(&event);
                // Results are stored one by one anyway; this is for 'status' only.
                if saved.elapsed() >= SAVED_EVERY && matches!(event, Event::Settled { .. }) {
                    saved = Instant::now();
                    // Only 'status' misses it; the end of the run says what could not be kept.
                    let _ = means.runs.save(record);
                }
            }
        }
    };
    while let Ok(event) = seen.try_recv() {
        note(record, &event);
        show(&event);
    }
    let mut gathered = ended?;
    record.phase =
        if gathered.interrupted && gathered.refused.is_none() { Phase::Interrupted } else { Phase::Finished };
    if let Err(error) = means.runs.save(record) {
        gathered.notes.push(format!("the end of the run could not be stored: {error}"));
    }
    if !plan.reuse {
        gathered.notes.push("results of earlier runs were not used".to_owned());
    }
    Ok(gathered)
}

fn note(record: &mut RunRecord, event: &Event) {
    if let Event::Settled { target, result, .. } = event
        && let Some(progress) = record.targets.get_mut(*target)
    {
        progress.settled += 1;
        progress.failing += u32::from(matches!(result.outcome, Outcome::Failed(_)));
    }
}

impl From<&Event> for Seen {
    fn from(event: &Event) -> Self {
        match event {
            Event::Planned { states } => Self::Planned { states: *states },
            Event::Started(job) => Self::Started { target: job.target, state: job.state },
            Event::Settled { target, state, result, cached } => {
                Self::Settled { target: *target, state: *state, outcome: result.outcome.clone(), cached: *cached }
            }
            Event::Audited { target, state, audited } => {
                Self::Audited { target: *target, state: *state, audited: audited.clone() }
            }
        }
    }
}

/// The report of a run. `started_at`: RFC 3339, UTC.
pub fn report(plan: &Plan, id: &RunId, gathered: &Gathered, started_at: String, duration: Duration) -> Report {
    let states: Vec<StateFacts> = plan
        .states
        .states
        .iter()
        .map(|state| StateFacts { changes: state.changes.clone(), not_applied: state.not_applied.clone() })
        .collect();
    let targets: Vec<TargetFacts<'_>> = plan
        .targets
        .iter()
        .enumerate()
        .map(|(index, (spec, _))| TargetFacts {
            name: spec.name.clone(),
            command: matches!(spec.build, Build::Command { .. }),
            results: gathered.results[index].iter().map(Option::as_deref).collect(),
            cached: gathered.cached[index].clone(),
            // A state that was built in an earlier run has its log there.
            logs: (0..states.len())
                .map(|state| {
                    let log = spec.log_name(PatchIndex::from_usize(state));
                    if gathered.cached[index][state] { String::new() } else { format!("runs/{id}/logs/{log}") }
                })
                .collect(),
        })
        .collect();
    let base = &plan.states.states[0];
    let patches = plan.series.patches.iter().zip(&plan.states.states[1..]).zip(1..);
    let frame = Frame {
        run: Run {
            id: id.clone(),
            started_at,
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            mode: plan.mode.name().to_owned(),
            sandbox: plan.sandbox.clone(),
            finished: !gathered.interrupted,
            notes: gathered.notes.clone(),
        },
        series: SeriesInfo {
            name: plan.series.name.clone(),
            base: BaseInfo {
                commit: base.commit.to_string(),
                tree: base.tree.to_string(),
                name: plan.states.base.clone(),
            },
            patches: patches
                .map(|((patch, state), index)| PatchInfo {
                    index: PatchIndex(index),
                    subject: patch.subject.clone(),
                    author: patch.author.clone(),
                    source: patch.source.clone(),
                    tree: state.tree.to_string(),
                    upstream: patch.upstream.clone(),
                    fuzz: state.fuzz.clone(),
                    not_applied: state.not_applied.clone(),
                })
                .collect(),
        },
        targets: plan
            .targets
            .iter()
            .enumerate()
            .map(|(index, (spec, toolchain))| {
                let first = gathered.results[index].first().and_then(Option::as_deref);
                target_info(spec, toolchain, first)
            })
            .collect(),
        slots: u32::try_from(plan.slots).unwrap_or(u32::MAX),
    };
    build(
        frame,
        &Facts { states: &states, targets: &targets, asked: &gathered.asked, search: plan.mode == Mode::Search },
    )
}

fn target_info(spec: &TargetSpec, toolchain: &Toolchain, base: Option<&StateResult>) -> TargetInfo {
    let not_effective = base
        .map(|result| {
            let lines = result.not_effective.iter();
            lines
                .map(|(symbol, (asked, got))| {
                    format!("{symbol}={asked} (got: {})", if got == "n" { "not set" } else { got })
                })
                .collect()
        })
        .unwrap_or_default();
    match &spec.build {
        Build::Command { command } => TargetInfo {
            name: spec.name.clone(),
            arch: String::new(),
            config: String::new(),
            toolchain: String::new(),
            goals: vec![command.clone()],
            not_effective,
        },
        Build::Kbuild(kbuild) => TargetInfo {
            name: spec.name.clone(),
            arch: kbuild.arch.kernel_name().to_owned(),
            config: config_name(&kbuild.base_config, &kbuild.fragments),
            toolchain: toolchain.version.clone(),
            goals: kbuild.goals.clone(),
            not_effective,
        },
    }
}
