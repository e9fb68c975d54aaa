//! Orders: what a job of a farm is, and what it gave.
//!
//! The queue ([`crate::farm`]) knows jobs by digest alone. A worker that gets one asks for the order and answers with what was
//! [`Done`]; both name files by digest, and the files themselves are in the store of blobs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::action::{Action, ActionResult};
use crate::digest::{BlobDigest, Digest, DigestBuilder};
use crate::farm::{Attempt, JobId, LaneId, Platform, Report};
use crate::id::{Oid, PatchIndex};
use crate::outcome::Audited;
use crate::plan::{Built, Configured};
use crate::target::{Arch, Build, Compiler, TargetSpec, Toolchain};

/// What a worker is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Run an action.
    Action(Action),
    /// Run the project's make, or a command, in a whole tree.
    Step(Box<Step>),
}

/// What make is run for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// To build a state.
    Build,
    /// To ask Kconfig what it makes of a state.
    Configure,
    /// To build a state again by plain make, and compare it with this result (JSON in the store of blobs).
    Audit(BlobDigest),
}

/// One state on one target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What for.
    pub purpose: Purpose,
    /// The repository, as the coordinator calls it.
    pub repository: String,
    /// The target.
    pub target: TargetSpec,
    /// The digest of its toolchain.
    pub toolchain: Digest,
    /// The place of the state in its series.
    pub state: PatchIndex,
    /// Its tree.
    pub tree: Oid,
    /// From scratch.
    pub clean: bool,
    /// Which of several sequences of states of the target, where each has a tree of its own.
    pub lane: u32,
    /// Versions of files that are the same to compilers: [`crate::plan::alike::Parts`] as JSON in the store of blobs.
    pub alike: Option<BlobDigest>,
}

/// What an order asks for, as far as it says which answers fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// What an action gives.
    Action,
    /// What make gives.
    Step(Purpose),
}

/// What an order gave: an answer, good or bad.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Done {
    /// Of an action.
    Action(ActionResult),
    /// Of a build.
    Built {
        /// What the state is like.
        built: Box<Built>,
        /// What was printed, in the store of blobs.
        log: Option<BlobDigest>,
    },
    /// Of a configuration.
    Configured(Configured),
    /// Of an audit.
    Audited {
        /// What it showed.
        audited: Audited,
        /// What was printed, in the store of blobs.
        log: Option<BlobDigest>,
    },
}

impl Done {
    /// The blobs that it names and that whoever gets it will ask for.
    pub fn blobs(&self) -> Vec<BlobDigest> {
        match self {
            Self::Action(result) => result.outputs.iter().map(|output| output.blob).collect(),
            Self::Built { built, log } => built.graph.iter().flat_map(|graph| graph.blobs()).chain(*log).collect(),
            Self::Configured(_) => Vec::new(),
            Self::Audited { log, .. } => log.iter().copied().collect(),
        }
    }

    /// Whether it is an answer to that.
    pub fn answers(&self, question: Question) -> bool {
        match (self, question) {
            (Self::Action(result), Question::Action) => result.settles(),
            (Self::Built { .. }, Question::Step(purpose)) => purpose == Purpose::Build,
            (Self::Configured(_), Question::Step(purpose)) => purpose == Purpose::Configure,
            (Self::Audited { .. }, Question::Step(purpose)) => matches!(purpose, Purpose::Audit(_)),
            (Self::Action(_), Question::Step(_))
            | (Self::Built { .. } | Self::Configured(_) | Self::Audited { .. }, Question::Action) => false,
        }
    }
}

/// A compiler that a worker has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// What it compiles for.
    pub arch: Arch,
    /// gcc or clang.
    pub compiler: Compiler,
    /// The prefix of its programs.
    pub prefix: String,
    /// The compiler.
    pub toolchain: Toolchain,
}

impl Offer {
    /// Whether it is what a target asks for.
    pub fn serves(&self, target: &TargetSpec) -> bool {
        match &target.build {
            Build::Command { .. } => false,
            Build::Kbuild(kbuild) => {
                (&self.arch, self.compiler, &self.prefix) == (&kbuild.arch, kbuild.compiler, &kbuild.cross_compile)
            }
        }
    }

    /// As the queue knows it.
    pub fn platform(&self) -> Platform {
        Platform { arch: Some(self.arch.clone()), toolchain: self.toolchain.digest }
    }
}

/// A worker's call, with what the queue does not need to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What the queue is told.
    pub report: Report,
    /// The blob that each result is.
    pub results: BTreeMap<Attempt, BlobDigest>,
    /// The compilers.
    pub offers: Vec<Offer>,
    /// How builds are shut in there.
    pub sandbox: String,
}

/// The job that an action is, by the digest of the action.
pub fn action_job(action: &BlobDigest) -> JobId {
    JobId(DigestBuilder::new("bombproof/job/action/v1").field(action.to_string().as_bytes()).finish())
}

impl Step {
    /// The job that it is: everything that its answer depends on. Its place in a series, the repository and what helps to
    /// find the answer sooner do not matter.
    pub fn job(&self) -> JobId {
        let builder = DigestBuilder::new("bombproof/job/step/v1");
        let builder = match self.purpose {
            Purpose::Build => builder.field(b"build"),
            Purpose::Configure => builder.field(b"configure"),
            Purpose::Audit(expected) => builder.field(b"audit").field(expected.to_string().as_bytes()),
        };
        let builder = builder.field(self.target.digest(&self.toolchain).to_string().as_bytes());
        let builder = builder.field(self.tree.as_str().as_bytes()).field(&[u8::from(self.clean)]);
        JobId(builder.field(&self.target.timeout_s.to_be_bytes()).finish())
    }

    /// The tree and build folder that it is cheapest in.
    pub fn lane(&self) -> LaneId {
        let builder = DigestBuilder::new("bombproof/lane/v1").field(self.repository.as_bytes());
        let audit = matches!(self.purpose, Purpose::Audit(_));
        let builder = builder.field(&[u8::from(audit)]).field(&self.lane.to_be_bytes());
        LaneId(builder.field(self.target.digest(&self.toolchain).to_string().as_bytes()).finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::TargetName;

    fn step() -> Step {
        Step {
            purpose: Purpose::Build,
            repository: "linux".to_owned(),
            target: TargetSpec {
                name: TargetName::from("command"),
                build: Build::Command { command: "true".to_owned() },
                timeout_s: 60,
            },
            toolchain: Digest::of(b"gcc"),
            state: PatchIndex(1),
            tree: Oid::parse(&"a".repeat(40)).unwrap(),
            clean: false,
            lane: 0,
            alike: None,
        }
    }

    #[test]
    fn equal_work_is_one_job_whoever_wants_it() {
        let one = step();
        let same = Step {
            state: PatchIndex(7),
            repository: "other".to_owned(),
            lane: 3,
            alike: Some(BlobDigest::of(b"x")),
            target: TargetSpec { name: TargetName::from("mine"), ..one.target.clone() },
            ..step()
        };
        assert_eq!(one.job(), same.job());
    }

    #[test]
    fn other_work_is_another_job() {
        let one = step();
        let others = [
            Step { purpose: Purpose::Configure, ..step() },
            Step { purpose: Purpose::Audit(BlobDigest::of(b"r")), ..step() },
            Step { toolchain: Digest::of(b"clang"), ..step() },
            Step { tree: Oid::parse(&"b".repeat(40)).unwrap(), ..step() },
            Step { clean: true, ..step() },
            Step { target: TargetSpec { timeout_s: 61, ..one.target.clone() }, ..step() },
        ];
        let mut jobs: Vec<JobId> = others.iter().map(Step::job).collect();
        jobs.push(one.job());
        jobs.sort();
        jobs.dedup();
        assert_eq!(jobs.len(), 7);
    }

    #[test]
    fn an_answer_to_another_question_is_none() {
        let killed = ActionResult { exit: 137, outputs: Vec::new(), stderr: String::new(), cpu_us: 0, wall_us: 0 };
        let fine = ActionResult { exit: 1, ..killed.clone() };
        assert!(Done::Action(fine.clone()).answers(Question::Action));
        assert!(!Done::Action(killed).answers(Question::Action), "a killed process answers nothing");
        assert!(!Done::Action(fine).answers(Question::Step(Purpose::Build)));
    }
}
