//! One series from the register to its report.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bombproof_core::digest::Digest;
use bombproof_core::id::{PatchIndex, RunId, SeriesId};
use bombproof_core::outcome::{Outcome, Trouble};
use bombproof_core::submission::{Patches, Phase, Submission};
use bombproof_core::target::{Build, TargetSpec, Toolchain};
use bombproof_metrics::labels;
use bombproof_store::register::{Entry, Register, RegisterError};
use thiserror::Error;
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::leader::Known;
use super::live::{Live, Told};
use super::repositories::{RepositoryError, Shelf};
use super::seat::blocking;
use super::{ASK_AGAIN, Coordinator, OnFarm};
use crate::dispatcher::{Event, Gathered, Planning};
use crate::planner::sources::Sources;
use crate::run::{self, Means, Plan};
use crate::states::{GitTrees, Repository, StatesError};

/// A farm without workers looks again after this time.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// What a look at the disk of this coordinator writes, in MiB: more than a disk has left that is called full.
const LOOK_MIB: u32 = 16;
/// So often a series is begun again because the disk failed it, when the disk looks as it should.
const DOUBTS: u32 = 3;
/// As many jobs of one series are asked for at least: workers may come while it runs.
const LEAST_SLOTS: usize = 16;

/// What ends a series without a report.
#[derive(Debug, Error)]
enum End {
    /// The request cannot be carried out.
    #[error("{detail}")]
    Refused { detail: String, hint: String },
    /// The machine.
    #[error("{0}")]
    Failed(String),
    /// The disk of this coordinator; `reported`: there is a report, in which states are not judged because of that.
    #[error("{detail}")]
    Disk { detail: String, reported: bool },
    /// Somebody stopped it before it had begun.
    #[error("it was stopped before it had begun")]
    Stopped,
    /// The reign is over: the next one takes the series up.
    #[error("this coordinator does not lead any more")]
    Deposed,
}

fn failed(error: impl std::fmt::Display) -> End {
    End::Failed(error.to_string())
}

/// What is written here is written to the disk of this coordinator.
fn disk(error: impl std::fmt::Display) -> End {
    End::Disk { detail: error.to_string(), reported: false }
}

impl From<StatesError> for End {
    fn from(error: StatesError) -> Self {
        if error.is_infrastructure() {
            return failed(error);
        }
        Self::Refused { detail: error.to_string(), hint: error.hint().unwrap_or_default().to_owned() }
    }
}

impl From<RepositoryError> for End {
    fn from(error: RepositoryError) -> Self {
        match error {
            RepositoryError::States(error) => error.into(),
            error @ (RepositoryError::Unknown { .. } | RepositoryError::Name { .. }) => {
                Self::Refused { detail: error.to_string(), hint: String::new() }
            }
        }
    }
}

impl Coordinator {
    /// Carries a series to its end, and keeps how that was.
    pub(super) async fn carry(self: Arc<Self>, id: SeriesId, live: Arc<Live>, cancel: watch::Receiver<bool>) {
        let ended = self.carry_whatever_the_disk(&id, &live, cancel).await;
        if self.is_over() {
            return;
        }
        let ended = Arc::new(ended);
        let how = Arc::clone(&ended);
        let kept = self.change(&id, move |entry| match &*how {
            // A cancel was kept when it was asked for.
            _ if entry.phase == Phase::Cancelled => {}
            Ok(()) => entry.phase = Phase::Finished,
            Err(End::Refused { detail, hint }) => {
                entry.phase = Phase::Refused;
                (entry.detail, entry.hint) = (detail.clone(), hint.clone());
            }
            Err(End::Failed(detail) | End::Disk { detail, .. }) => {
                entry.phase = Phase::Failed;
                entry.detail = detail.clone();
            }
            Err(End::Stopped) => entry.phase = Phase::Cancelled,
            Err(End::Deposed) => {}
        });
        let over = match kept.await {
            // The next reign begins it again.
            Err(End::Deposed) => return,
            Ok(_) if matches!(*ended, Err(End::Deposed)) => return,
            Ok(entry) => Told::Over { phase: entry.phase, detail: entry.detail, hint: entry.hint },
            // It is begun again when the coordinator is started again.
            Err(error) => Told::Over { phase: Phase::Failed, detail: error.to_string(), hint: String::new() },
        };
        if let Told::Over { phase, detail, .. } = &over {
            if let Some(phase) = labels::Phase::of(*phase) {
                self.settings.metrics.over.add(phase, 1);
            }
            let why = if detail.is_empty() { String::new() } else { format!(": {detail}") };
            let name = phase.name();
            match phase {
                Phase::Failed => error!(series = %id, phase = name, detail, "series {id} is {name}{why}"),
                Phase::Accepted | Phase::Running | Phase::Finished | Phase::Cancelled | Phase::Refused => {
                    info!(series = %id, phase = name, detail, "series {id} is {name}{why}");
                }
            }
        }
        live.tell(over);
        self.lives().remove(&id);
    }

    /// Carries a series to its end. What fails because the disk of this coordinator is full, or cannot be written, has not failed: it is
    /// begun again when the disk can be written, from what was kept.
    async fn carry_whatever_the_disk(
        self: &Arc<Self>,
        id: &SeriesId,
        live: &Arc<Live>,
        mut cancel: watch::Receiver<bool>,
    ) -> Result<(), End> {
        let mut doubts = 0;
        loop {
            let ended = self.carry_to_report(id, live, cancel.clone()).await;
            self.leader.close(id);
            let (of_disk, reported) = match &ended {
                Err(End::Disk { reported, .. }) => (true, *reported),
                Err(End::Failed(_)) => (false, false),
                Ok(()) | Err(End::Refused { .. } | End::Stopped | End::Deposed) => return ended,
            };
            let mut said = false;
            while let Some(why) = self.disk_fault().await {
                if !std::mem::replace(&mut said, true) {
                    warn!(series = %id, "series {id} waits for the disk of this coordinator: {why}");
                    live.tell(Told::Waits(format!("the coordinator cannot write to its disk: waiting ({why})")));
                }
                let stopped = cancel.wait_for(|stop| *stop);
                if tokio::time::timeout(LOOK_AGAIN, stopped).await.is_ok() {
                    return Err(End::Stopped);
                }
            }
            doubts += u32::from(!said);
            match (said, of_disk && doubts <= DOUBTS) {
                (true, _) => info!(series = %id, "series {id} goes on: the disk can be written again"),
                (false, true) => tokio::time::sleep(LOOK_AGAIN).await,
                (false, false) if reported => return Ok(()),
                (false, false) => return ended,
            }
        }
    }

    /// Why the disk of this coordinator cannot be written.
    async fn disk_fault(&self) -> Option<String> {
        let home = self.settings.home.clone();
        let looked = tokio::task::spawn_blocking(move || home.try_disk(LOOK_MIB)).await.ok()?;
        looked.err().map(|error| error.to_string())
    }

    /// Asks the register; waits while it is away, as long as the reign lasts.
    pub(super) async fn asked<T: Send + 'static>(
        &self,
        ask: impl Fn(&dyn Register) -> Result<T, RegisterError> + Send + Sync + 'static,
    ) -> Result<T, RegisterError> {
        let ask = Arc::new(ask);
        let mut said = false;
        loop {
            let (register, asking) = (Arc::clone(&self.register), Arc::clone(&ask));
            match blocking(move || asking(&*register)).await {
                Err(error @ RegisterError::Away { .. }) if !self.is_over() => {
                    // Who renews a lease says it already.
                    if !self.settings.contested && !std::mem::replace(&mut said, true) {
                        warn!("{error}: waiting for it");
                    }
                    tokio::time::sleep(ASK_AGAIN).await;
                }
                answer => return answer,
            }
        }
    }

    /// The same, for a series that is carried.
    async fn registered<T: Send + 'static>(
        &self,
        ask: impl Fn(&dyn Register) -> Result<T, RegisterError> + Send + Sync + 'static,
    ) -> Result<T, End> {
        self.asked(ask).await.map_err(|error| match error {
            // Who renews the lease hears the same.
            RegisterError::Away { .. } | RegisterError::Deposed | RegisterError::Emptied { .. } => End::Deposed,
            RegisterError::Unusable { .. }
            | RegisterError::Newer { .. }
            | RegisterError::Taken { .. }
            | RegisterError::Unknown { .. } => failed(error),
        })
    }

    async fn change(&self, id: &SeriesId, change: impl Fn(&mut Entry) + Send + Sync + 'static) -> Result<Entry, End> {
        let id = id.clone();
        self.registered(move |register| register.change(&id, &mut |entry| change(entry))).await
    }

    async fn carry_to_report(
        self: &Arc<Self>,
        id: &SeriesId,
        live: &Arc<Live>,
        cancel: watch::Receiver<bool>,
    ) -> Result<(), End> {
        let _turn = self.turns.acquire().await.map_err(failed)?;
        let bytes = {
            let id = id.clone();
            self.registered(move |register| register.submission(&id)).await?
        };
        let bytes = bytes.ok_or_else(|| failed("its submission is gone"))?;
        let limit = bombproof_proto::farm::MAX_SUBMISSION_BYTES;
        let submission: Submission = bombproof_proto::farm::inflated("submission", &bytes, limit).map_err(failed)?;
        // Workers do not send it, and results may name it.
        self.settings.kept.cas.put(b"").map_err(disk)?;
        let begin = Instant::now();
        let asked = id.clone();
        let entry = self.registered(move |register| register.entry(&asked)).await?;
        let entry = entry.ok_or_else(|| failed("it is gone from the register"))?;
        // Neither project nor owner is what the submission says of itself: what a series may see and whose turn it is go by who is
        // known to have sent it.
        let name = self.settings.repositories.name(&submission.repository)?;
        let shelf = Shelf { project: entry.project, name };
        let (prepared, on, this) = (submission.clone(), shelf.clone(), Arc::clone(self));
        let made = tokio::task::spawn_blocking(move || this.states_of(&prepared, &on)).await.map_err(failed)?;
        let (series, states, objects, repo) = made?;
        if series.patches.is_empty() {
            return Err(End::Refused {
                detail: format!("'{}' holds no patch", submission.name),
                hint: "give a range of at least one commit: A..B is what is in B and not in A".to_owned(),
            });
        }
        let targets = self.toolchains(id, entry.toolchains, &submission.targets, live, cancel.clone()).await?;
        let patches = u32::try_from(series.patches.len()).unwrap_or(u32::MAX);
        let begun = self.change(id, move |entry| {
            entry.patches = patches;
            if entry.phase == Phase::Accepted {
                entry.phase = Phase::Running;
            }
        });
        begun.await?;
        let known = self.leader.offers();
        let slots: usize = known.iter().map(|(_, slots)| usize::try_from(*slots).unwrap_or(0)).sum();
        let sandboxes: BTreeSet<&str> = known.iter().map(|(known, _)| known.sandbox.as_str()).collect();
        let plan = Plan {
            series,
            states,
            objects,
            repo,
            targets,
            mode: submission.mode,
            slots,
            asked: slots.max(LEAST_SLOTS),
            sandbox: sandboxes.into_iter().collect::<Vec<_>>().join(", "),
            audit: submission.audit,
            reuse: submission.reuse,
        };
        live.tell(outline(&plan, id));
        self.leader.open(id, &entry.owner, submission.priority);
        let run = RunId(id.0.clone());
        let (this, watched) = (Arc::clone(self), Arc::clone(live));
        let runtime = tokio::runtime::Handle::current();
        // The dispatcher is one task that stays on its thread.
        let work = tokio::task::spawn_blocking(move || {
            runtime.block_on(this.work(&plan, &run, (&submission, &shelf), &watched, begin, cancel))
        });
        work.await.map_err(failed)?
    }

    async fn work(
        &self,
        plan: &Plan,
        id: &RunId,
        (submission, shelf): (&Submission, &Shelf),
        live: &Live,
        begin: Instant,
        cancel: watch::Receiver<bool>,
    ) -> Result<(), End> {
        let started_at = (self.settings.timestamp)(SystemTime::now());
        let mut record = plan.record(id, started_at.clone(), submission.command.clone());
        self.runs.save(&record).map_err(disk)?;
        let executor = OnFarm {
            leader: Arc::clone(&self.leader),
            series: SeriesId(id.0.clone()),
            repository: shelf.to_string(),
            targets: plan.targets.clone(),
            last: PatchIndex::from_usize(plan.states.states.len().saturating_sub(1)),
            kept: self.settings.kept.clone(),
            reuse: plan.reuse,
            logs: self.settings.home.run(id).join("logs"),
        };
        let planning = (!plan.commands()).then(|| Planning {
            sources: Arc::new(Sources::new(
                Arc::new(GitTrees::open(&plan.objects)),
                Arc::clone(&self.settings.kept.cas),
            )),
            runner: executor.runner(),
            actions: Arc::clone(&self.settings.kept.actions),
            graphs: Arc::clone(&self.settings.kept.graphs),
            toolchains: plan.targets.iter().map(|(_, toolchain)| toolchain.digest).collect(),
            roots: self.settings.roots.clone(),
        });
        let means = Means {
            executor: &executor,
            planning: planning.as_ref(),
            results: &*self.settings.kept.results,
            runs: &self.runs,
        };
        let mut show = |event: &Event| live.tell(Told::Seen(event.into()));
        let gathered: Gathered = run::carry_out(plan, &means, &mut record, cancel, &mut show).await.map_err(disk)?;
        if let Some((target, why)) = &gathered.refused {
            let name = plan.targets.get(*target).map(|(spec, _)| spec.name.clone()).unwrap_or_default();
            return Err(End::Refused {
                detail: format!("target '{name}' cannot be built: {why}"),
                hint: "'bombproof doctor' shows what a target needs".to_owned(),
            });
        }
        // Who stopped it was not the user, and what was not gathered is for the next reign.
        if self.is_over() {
            return Err(End::Deposed);
        }
        let report = run::report(plan, id, &gathered, started_at, begin.elapsed());
        self.runs.save_report(&report).map_err(disk)?;
        // The disk of a worker is a fault of the queue's, which tries others: this is our own.
        let results = gathered.results.iter().flatten().flatten();
        let full = results.into_iter().find_map(|result| match &result.outcome {
            Outcome::Trouble(Trouble::Disk { detail }) => Some(detail.clone()),
            Outcome::Built | Outcome::Failed(_) | Outcome::Skipped | Outcome::Trouble(_) => None,
        });
        full.map_or(Ok(()), |detail| Err(End::Disk { detail, reported: true }))
    }

    /// The states of a submission, with their object store and the repository.
    fn states_of(
        &self,
        submission: &Submission,
        shelf: &Shelf,
    ) -> Result<(bombproof_core::series::Series, crate::states::States, std::path::PathBuf, std::path::PathBuf), End>
    {
        let depot = self.settings.repositories.open(shelf)?;
        depot.end_history_at(&submission.commit)?;
        let repository = Repository::open(depot.path())?;
        let objects = self.settings.home.objects(repository.path());
        let (series, mut states) = match &submission.patches {
            Patches::Range { to } => {
                let range = (submission.commit.clone(), to.clone());
                repository.states_of_range(&range, &submission.name, &objects)?
            }
            Patches::Series(series) => {
                let states = repository.states(series, submission.commit.as_str(), &objects)?;
                (series.clone(), states)
            }
        };
        states.base = submission.base.clone();
        Ok((series, states, objects, repository.path().to_owned()))
    }

    /// The compilers of the targets: those that were `chosen` before, or from what workers offer; waits for those that are not
    /// offered.
    async fn toolchains(
        &self,
        id: &SeriesId,
        chosen: Option<Vec<Toolchain>>,
        targets: &[TargetSpec],
        live: &Live,
        mut cancel: watch::Receiver<bool>,
    ) -> Result<Vec<(TargetSpec, Toolchain)>, End> {
        if let Some(chosen) = chosen.filter(|chosen| chosen.len() == targets.len()) {
            return Ok(targets.iter().cloned().zip(chosen).collect());
        }
        let mut arrivals = self.leader.arrivals();
        let mut said = String::new();
        loop {
            if *cancel.borrow() {
                return Err(End::Stopped);
            }
            arrivals.mark_unchanged();
            let offers = self.leader.offers();
            let found: Vec<Option<Toolchain>> = targets.iter().map(|target| choose(target, &offers)).collect();
            let lacking = targets.iter().zip(&found).filter(|(_, found)| found.is_none());
            let lacking: Vec<&str> = lacking.map(|(target, _)| target.name.as_str()).collect();
            // A command runs anywhere, but the sandbox of the report is that of a worker.
            let nobody = offers.is_empty();
            if lacking.is_empty() && !nobody {
                let toolchains: Vec<Toolchain> = found.into_iter().flatten().collect();
                let kept = Some(toolchains.clone());
                self.change(id, move |entry| entry.toolchains.clone_from(&kept)).await?;
                return Ok(targets.iter().cloned().zip(toolchains).collect());
            }
            let why = if nobody {
                "there is no worker: waiting for one".to_owned()
            } else {
                format!("no worker has the compiler of {}: waiting for one", lacking.join(", "))
            };
            if why != said {
                warn!(series = %id, "series {id}: {why}");
                live.tell(Told::Waits(why.clone()));
                said = why;
            }
            tokio::select! {
                _ = arrivals.changed() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                _ = cancel.wait_for(|stop| *stop) => {}
            }
        }
    }
}

/// The toolchain that has the most slots among those that a target asks for; of equal ones always the same.
fn choose(target: &TargetSpec, offers: &[(Known, u32)]) -> Option<Toolchain> {
    if matches!(target.build, Build::Command { .. }) {
        return Some(Toolchain { version: String::new(), digest: Digest::of(b"command") });
    }
    let mut found: Vec<(u64, Toolchain)> = Vec::new();
    for (known, slots) in offers {
        for offer in known.offers.iter().filter(|offer| offer.serves(target)) {
            match found.iter_mut().find(|(_, toolchain)| toolchain.digest == offer.toolchain.digest) {
                Some((sum, _)) => *sum += u64::from(*slots),
                None => found.push((u64::from(*slots), offer.toolchain.clone())),
            }
        }
    }
    found.into_iter().max_by_key(|(slots, toolchain)| (*slots, toolchain.digest)).map(|(_, toolchain)| toolchain)
}

fn outline(plan: &Plan, id: &SeriesId) -> Told {
    let mut lines = Vec::new();
    for (spec, toolchain) in &plan.targets {
        let with = match &spec.build {
            Build::Command { command } => command,
            Build::Kbuild(_) => &toolchain.version,
        };
        lines.push(format!("  {}: {with}", spec.name));
    }
    lines.push(format!("  farm, sandbox: {}, series {id}\n", plan.sandbox));
    Told::Outline {
        targets: plan.targets.iter().map(|(spec, _)| spec.name.to_string()).collect(),
        subjects: plan.subjects(),
        lines,
    }
}

#[cfg(test)]
mod tests {
    use bombproof_core::order::Offer;
    use bombproof_core::target::{Arch, BaseConfig, Compiler, Kbuild};

    use super::*;

    fn offer(version: &str) -> Offer {
        let toolchain = Toolchain { version: version.to_owned(), digest: Digest::of(version.as_bytes()) };
        let arch = Arch::parse("x86_64").unwrap_or_else(|| unreachable!());
        Offer { arch, compiler: Compiler::Gcc, prefix: String::new(), toolchain }
    }

    fn target(prefix: &str) -> TargetSpec {
        TargetSpec {
            name: "t".into(),
            timeout_s: 1,
            build: Build::Kbuild(Kbuild {
                arch: Arch::parse("x86_64").unwrap_or_else(|| unreachable!()),
                compiler: Compiler::Gcc,
                cross_compile: prefix.to_owned(),
                base_config: BaseConfig::Goal("defconfig".to_owned()),
                fragments: Vec::new(),
                make_args: Vec::new(),
                goals: Vec::new(),
            }),
        }
    }

    #[test]
    fn the_toolchain_with_the_most_slots_is_taken_and_another_prefix_is_another_compiler() {
        let known = |versions: &[&str]| Known {
            offers: versions.iter().map(|version| offer(version)).collect(),
            sandbox: "namespaces".to_owned(),
        };
        let offers = [(known(&["gcc 12"]), 4), (known(&["gcc 13"]), 3), (known(&["gcc 13"]), 2)];
        let version = |offers: &[(Known, u32)], prefix: &str| choose(&target(prefix), offers).map(|it| it.version);
        assert_eq!(version(&offers, "").as_deref(), Some("gcc 13"));
        assert_eq!(version(&offers[..1], "").as_deref(), Some("gcc 12"));
        assert_eq!(version(&offers, "s390x-linux-gnu-"), None);
        assert_eq!(version(&[], ""), None);
    }
}
