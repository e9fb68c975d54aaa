//! The farm as the dispatcher sees it: states and actions become jobs of the queue, and are waited for.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bombproof_core::action::ActionResult;
use bombproof_core::digest::BlobDigest;
use bombproof_core::farm::{Kind, Needs, Platform, Wanted};
use bombproof_core::id::{PatchIndex, SeriesId};
use bombproof_core::order::{Done, Purpose, Step, action_job};
use bombproof_core::outcome::{Audited, StateResult, Trouble};
use bombproof_core::plan::alike::Alike;
use bombproof_core::plan::{Built, Configured};
use bombproof_core::target::{Build, TargetSpec, Toolchain};
use bombproof_store::action_cache::{ActionCache, FileActions};
use bombproof_store::cas::{Cas, DiskCas};
use bombproof_store::complete_actions::Complete;
use bombproof_store::graphs::{FileGraphs, Graphs};
use bombproof_store::home::Home;
use bombproof_store::results::{FileResults, ResultKey, ResultStore};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;

use super::leader::{Leader, Work};
use crate::dispatcher::{ActionRunner, AskedAction, Executor, Job};

/// How long a whole build takes, as long as nothing better is known, in milliseconds.
const STEP_MS: u32 = 60_000;
/// How long a compile takes, as long as nothing better is known, in milliseconds.
const ACTION_MS: u32 = 1_000;
/// How long a compile may take, in milliseconds: as on one machine.
const ACTION_LIMIT_MS: u32 = 1_800_000;
/// What a worker may take beside the time limit of a step, to lay the tree out, in seconds.
const AROUND_S: u64 = 600;
/// The rank of actions: what shows early how a series is goes before them.
const ACTION_RANK: u32 = 1_000_000;

/// Where things are kept.
#[derive(Clone)]
pub struct Kept {
    /// Blobs.
    pub cas: Arc<dyn Cas>,
    /// Results of actions.
    pub actions: Arc<dyn ActionCache>,
    /// Results of states.
    pub results: Arc<dyn ResultStore>,
    /// Graphs of states.
    pub graphs: Arc<dyn Graphs>,
}

impl Kept {
    /// As files of the home, which several processes may use at once.
    pub fn open(home: &Home) -> Self {
        // Workers pin nothing here: what they are told is there was used lately.
        let cas: Arc<dyn Cas> = Arc::new(DiskCas::at(home.cas()).refresh(Duration::from_secs(300)));
        Self {
            actions: Arc::new(Complete::new(FileActions::at(home.actions()), Arc::clone(&cas))),
            cas,
            results: Arc::new(FileResults::at(home.results())),
            graphs: Arc::new(FileGraphs::at(home.graphs())),
        }
    }
}

/// Has the states of one series built by the farm.
#[derive(Clone)]
pub struct OnFarm {
    /// The queue.
    pub leader: Arc<Leader>,
    /// The series.
    pub series: SeriesId,
    /// The repository, as workers ask for it ([`super::Shelf`]).
    pub repository: String,
    /// What is built, and with what.
    pub targets: Vec<(TargetSpec, Toolchain)>,
    /// The last state.
    pub last: PatchIndex,
    /// Where things are kept.
    pub kept: Kept,
    /// Results of others are used.
    pub reuse: bool,
    /// Where logs go.
    pub logs: PathBuf,
}

fn disk(error: impl std::fmt::Display) -> Trouble {
    Trouble::Disk { detail: error.to_string() }
}

/// Work with files, off the threads that others wait for.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Trouble> + Send + 'static) -> Result<T, Trouble> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.unwrap_or_else(|error| Err(Trouble::Internal { detail: error.to_string() }))
}

impl OnFarm {
    /// Runs actions on the farm; what they gave is kept before anybody is told.
    pub fn runner(&self) -> ActionRunner {
        let this = self.clone();
        Arc::new(move |asked, cancel| {
            let this = this.clone();
            async move { this.action(asked, cancel).await }.boxed()
        })
    }

    async fn action(&self, asked: AskedAction, cancel: watch::Receiver<bool>) -> Result<ActionResult, Trouble> {
        let AskedAction { digest, toolchain, make } = asked;
        // Another series may have had it run meanwhile.
        let (cache, asked) = (Arc::clone(&self.kept.actions), digest);
        if let Some(known) = blocking(move || cache.get(&asked).map_err(disk)).await? {
            return Ok(known);
        }
        let of = self.targets.iter().find(|(_, known)| known.digest == toolchain);
        let platform = of.map_or(Platform { arch: None, toolchain }, |(spec, known)| platform(spec, known));
        let wanted = Wanted {
            job: action_job(&digest),
            needs: Needs { platform, kind: Kind::Action },
            rank: ACTION_RANK,
            expected_ms: ACTION_MS,
            limit_ms: ACTION_LIMIT_MS,
            lane: None,
        };
        match &*self.leader.want(&self.series, wanted, Work::Action(make), cancel).await? {
            Done::Action(result) => {
                let (cache, result) = (Arc::clone(&self.kept.actions), result.clone());
                blocking(move || cache.put(&digest, &result).map(|()| result).map_err(disk)).await
            }
            Done::Built { .. } | Done::Configured(_) | Done::Audited { .. } => Err(other_answer()),
        }
    }

    fn target(&self, index: usize) -> Result<&(TargetSpec, Toolchain), Trouble> {
        let missing = || Trouble::Internal { detail: format!("there is no target {index}") };
        self.targets.get(index).ok_or_else(missing)
    }

    fn step(&self, job: &Job, purpose: Purpose, alike: Option<BlobDigest>) -> Result<Step, Trouble> {
        let (spec, toolchain) = self.target(job.target)?;
        Ok(Step {
            purpose,
            repository: self.repository.clone(),
            target: spec.clone(),
            toolchain: toolchain.digest,
            state: job.state,
            tree: job.tree.clone(),
            clean: job.clean,
            lane: match &spec.build {
                Build::Command { .. } => u32::try_from(job.lane).unwrap_or(u32::MAX),
                Build::Kbuild(_) => 0,
            },
            alike,
        })
    }

    async fn run(&self, job: &Job, step: Step, cancel: watch::Receiver<bool>) -> Result<Arc<Done>, Trouble> {
        let (spec, toolchain) = self.target(job.target)?;
        let limit_s = spec.timeout_s.saturating_add(AROUND_S);
        let wanted = Wanted {
            job: step.job(),
            needs: Needs { platform: platform(spec, toolchain), kind: Kind::Step },
            // The base is what everything stands on, and base and tip show early how a series is.
            rank: if job.state == PatchIndex::BASE || job.state == self.last { 0 } else { job.state.0 },
            expected_ms: STEP_MS,
            limit_ms: u32::try_from(limit_s.saturating_mul(1000)).unwrap_or(u32::MAX),
            lane: Some(step.lane()),
        };
        self.leader.want(&self.series, wanted, Work::Step(Arc::new(step)), cancel).await
    }

    /// Keeps what versions of files are alike, for the worker.
    async fn say_alike(&self, alike: Option<Arc<Alike>>) -> Result<Option<BlobDigest>, Trouble> {
        let Some(alike) = alike else { return Ok(None) };
        let cas = Arc::clone(&self.kept.cas);
        blocking(move || {
            let parts = alike.parts();
            if parts.first.is_empty() {
                return Ok(None);
            }
            let text = bombproof_proto::farm::to_json("alike", &parts);
            let text = text.map_err(|error| Trouble::Internal { detail: error.to_string() })?;
            cas.put(&text).map(Some).map_err(disk)
        })
        .await
    }

    /// What another series found out of a state since this one looked.
    async fn known(&self, job: &Job) -> Result<Option<Built>, Trouble> {
        if !self.reuse || job.clean {
            return Ok(None);
        }
        let (spec, toolchain) = self.target(job.target)?;
        let key = ResultKey::new(&spec.digest(&toolchain.digest), &job.tree);
        let kept = self.kept.clone();
        blocking(move || {
            let Some(result) = kept.results.get(&key).map_err(disk)? else { return Ok(None) };
            let graph = kept.graphs.get(&key).map_err(disk)?;
            Ok(Some(Built { result, graph: graph.map(Arc::unwrap_or_clone) }))
        })
        .await
    }

    async fn build(&self, job: &Job, cancel: watch::Receiver<bool>) -> Result<Built, Trouble> {
        if let Some(known) = self.known(job).await? {
            return Ok(known);
        }
        let alike = self.say_alike(job.alike.clone()).await?;
        let step = self.step(job, Purpose::Build, alike)?;
        let done = self.run(job, step, cancel).await?;
        match &*done {
            Done::Built { built, log } => {
                self.keep_log(job, *log, "log").await?;
                Ok((**built).clone())
            }
            Done::Action(_) | Done::Configured(_) | Done::Audited { .. } => Err(other_answer()),
        }
    }

    async fn ask(&self, job: &Job, cancel: watch::Receiver<bool>) -> Result<Configured, Trouble> {
        let step = self.step(job, Purpose::Configure, None)?;
        match &*self.run(job, step, cancel).await? {
            Done::Configured(configured) => Ok(configured.clone()),
            Done::Action(_) | Done::Built { .. } | Done::Audited { .. } => Err(other_answer()),
        }
    }

    async fn look_again(
        &self,
        job: &Job,
        expected: Arc<StateResult>,
        cancel: watch::Receiver<bool>,
    ) -> Result<Audited, Trouble> {
        let cas = Arc::clone(&self.kept.cas);
        let expected = blocking(move || {
            let text = bombproof_proto::farm::to_json("expected", &*expected);
            let text = text.map_err(|error| Trouble::Internal { detail: error.to_string() })?;
            cas.put(&text).map_err(disk)
        });
        let alike = self.say_alike(job.alike.clone()).await?;
        let step = self.step(job, Purpose::Audit(expected.await?), alike)?;
        match &*self.run(job, step, cancel).await? {
            Done::Audited { audited, log } => {
                self.keep_log(job, *log, "audit.log").await?;
                Ok(audited.clone())
            }
            Done::Action(_) | Done::Built { .. } | Done::Configured(_) => Err(other_answer()),
        }
    }

    /// Puts a log where the run has its logs.
    async fn keep_log(&self, job: &Job, log: Option<BlobDigest>, ending: &str) -> Result<(), Trouble> {
        let Some(log) = log else { return Ok(()) };
        let (spec, _) = self.target(job.target)?;
        let path = self.logs.join(spec.log_name(job.state)).with_extension(ending);
        let cas = Arc::clone(&self.kept.cas);
        blocking(move || {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder).map_err(disk)?;
            }
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(disk(error)),
                Ok(()) | Err(_) => {}
            }
            // A log that is gone is no reason to build again.
            cas.copy(&log, &path, false).map(|_| ()).map_err(disk)
        })
        .await
    }
}

fn platform(spec: &TargetSpec, toolchain: &Toolchain) -> Platform {
    let arch = match &spec.build {
        Build::Kbuild(kbuild) => Some(kbuild.arch.clone()),
        Build::Command { .. } => None,
    };
    Platform { arch, toolchain: toolchain.digest }
}

fn other_answer() -> Trouble {
    Trouble::Internal { detail: "the farm gave an answer to another question".to_owned() }
}

impl Executor for OnFarm {
    fn execute(&self, job: Job, cancel: watch::Receiver<bool>) -> BoxFuture<'static, Built> {
        let this = self.clone();
        async move {
            let built = this.build(&job, cancel).await;
            built.unwrap_or_else(|trouble| StateResult::trouble(trouble).into())
        }
        .boxed()
    }

    fn configure(&self, job: Job, cancel: watch::Receiver<bool>) -> BoxFuture<'static, Result<Configured, Trouble>> {
        let this = self.clone();
        async move { this.ask(&job, cancel).await }.boxed()
    }

    fn audit(
        &self,
        job: Job,
        expected: Arc<StateResult>,
        cancel: watch::Receiver<bool>,
    ) -> BoxFuture<'static, Audited> {
        let this = self.clone();
        async move { this.look_again(&job, expected, cancel).await.unwrap_or_else(Audited::NotDone) }.boxed()
    }
}
