//! Submissions: what a user hands to a farm, and what the farm tells of it.

use serde::{Deserialize, Serialize};

use crate::access::ProjectId;
use crate::farm::Priority;
use crate::id::{Oid, PatchIndex, UserId};
use crate::outcome::{Audited, Outcome};
use crate::series::Series;
use crate::target::TargetSpec;

/// The version of [`Submission`]; a coordinator refuses others.
pub const VERSION: u32 = 1;

/// Which states are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// All of them.
    Every,
    /// The base and the last one.
    Tip,
    /// Those that a search for the first failing one looks at.
    Search,
}

impl Mode {
    /// The word in requests and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Every => "every",
            Self::Tip => "tip",
            Self::Search => "search",
        }
    }
}

/// What is audited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// Of all settled states of a target, in percent.
    pub percent: u8,
    /// Each from nothing, instead of on top of the audited state before.
    pub clean: bool,
}

/// The patches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Patches {
    /// Commits that are there, or come in the pack, up to this one.
    Range {
        /// The last one.
        to: Oid,
    },
    /// As they were read.
    Series(Series),
}

/// A series with all that is wanted of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    /// [`VERSION`].
    pub version: u32,
    /// The project that it is of, where its user is in more than one.
    #[serde(default)]
    pub project: Option<ProjectId>,
    /// The repository, as the coordinator calls it.
    pub repository: String,
    /// What the user calls the series; for a range, as it was given.
    pub name: String,
    /// What the user calls the base.
    pub base: String,
    /// The base: a commit.
    pub commit: Oid,
    /// What goes on it.
    pub patches: Patches,
    /// What it is built for.
    pub targets: Vec<TargetSpec>,
    /// Which states are judged.
    pub mode: Mode,
    /// What is audited.
    pub audit: Option<Audit>,
    /// Results of earlier runs are used.
    pub reuse: bool,
    /// Whose it is, where nobody proved who they are.
    pub user: UserId,
    /// How urgent it is.
    pub priority: Priority,
    /// The command line, for people.
    pub command: Vec<String>,
}

/// How a submitted series stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It is kept, and nothing of it was begun.
    Accepted,
    /// It is worked on.
    Running,
    /// There is a report.
    Finished,
    /// Somebody stopped it.
    Cancelled,
    /// The request cannot be carried out.
    Refused,
    /// The machine failed.
    Failed,
}

impl Phase {
    /// Nothing more happens to it.
    pub fn is_over(self) -> bool {
        match self {
            Self::Accepted | Self::Running => false,
            Self::Finished | Self::Cancelled | Self::Refused | Self::Failed => true,
        }
    }

    /// In a word, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Cancelled => "cancelled",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// What happened to a series.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Seen {
    /// What has to be done is known.
    Planned {
        /// How many states each target has to settle, those already known included.
        states: usize,
    },
    /// An attempt starts.
    Started {
        /// Index of the target.
        target: usize,
        /// The state.
        state: PatchIndex,
    },
    /// A state is settled.
    Settled {
        /// Index of the target.
        target: usize,
        /// The state.
        state: PatchIndex,
        /// What it came to.
        outcome: Outcome,
        /// It came from an earlier run.
        cached: bool,
    },
    /// A state was built again by plain make.
    Audited {
        /// Index of the target.
        target: usize,
        /// The state.
        state: PatchIndex,
        /// What that showed.
        audited: Audited,
    },
}
