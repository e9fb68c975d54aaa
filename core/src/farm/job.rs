//! Jobs and what they need, workers and what they can do.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::target::Arch;

/// A moment in milliseconds. The clock is the caller's: it should be one that nobody sets, and where it begins does not
/// matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

/// What a job is: a digest of everything that it depends on, with its kind (so that no two kinds meet).
///
/// Jobs with one id are one job, whoever wants them. Where results must not be shared (projects that may not know of each
/// other) the caller puts what sets them apart into the digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub Digest);

/// A tree with the build folder that belongs to it, which lives on one worker: the next state of the same target is built
/// there for a fraction of what it costs elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LaneId(pub Digest);

/// One assignment of a job to a worker. No two assignments of a farm ever have the same, so that it fences what comes
/// late: only the attempt that holds the lease settles its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attempt {
    /// Counted up each time that a coordinator becomes the leader.
    pub epoch: u64,
    /// Counted up with each assignment of the epoch, from 1.
    pub number: u64,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.number)
    }
}

/// The two kinds of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One hermetic step: seconds.
    Action,
    /// A run of the project's make, or of a command, in a whole tree: minutes.
    Step,
}

/// Compilers for one architecture.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// What is built for; `None` where that says nothing (a command of the user's).
    pub arch: Option<Arch>,
    /// The content of the toolchain.
    pub toolchain: Digest,
}

/// What a worker must have to run a job.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Needs {
    /// One of its platforms.
    pub platform: Platform,
    /// A free slot that takes this kind.
    pub kind: Kind,
}

/// What a worker can do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// What it has.
    pub platforms: BTreeSet<Platform>,
    /// How many jobs it runs at once.
    pub slots: u32,
    /// How many of them may be steps.
    pub step_slots: u32,
}

/// Which series go first. A class waits as long as one before it has anything that the worker can run, but for the
/// courtesy of [`super::Config::courtesy_every`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Somebody waits at the terminal.
    Gate,
    /// What people submit.
    #[default]
    Normal,
    /// What may take all night.
    Nightly,
}

/// What a user may have of the farm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// A user of weight 2 gets twice what one of weight 1 gets while both want more than there is; at least 1.
    pub weight: u32,
    /// At most so many jobs of the user run at once.
    pub quota: u32,
}

/// A job as a series wants it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Which.
    pub job: JobId,
    /// Where it can run.
    pub needs: Needs,
    /// Its place in the series: smaller ranks go first. What shows early how the series is (base, tip, likely-bad patches)
    /// and what much else waits for has a small one. Equal ranks: the longest goes first.
    pub rank: u32,
    /// How long it will take, in milliseconds, as far as known.
    pub expected_ms: u32,
    /// How long it may take, in milliseconds. The worker holds that limit; one that does not is taken the job from.
    pub limit_ms: u32,
    /// The tree that it is cheapest in.
    pub lane: Option<LaneId>,
}
