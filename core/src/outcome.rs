//! Outcomes: what one attempt to build one state on one target gave, why, and whose fault it is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::diagnostic::{Diagnostic, Severity};
use crate::digest::Digest;
use crate::kbuild::record::Known;
use crate::shared::{Shared, SharedMap, SharedSet};

mod delta;

pub use delta::{Changes, Delta, Own};

/// The step of a build that failed, in the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The patch could not be applied.
    Apply,
    /// Kconfig.
    Config,
    /// Generated headers, `asm-offsets`, host tools.
    Prepare,
    /// An object.
    Compile,
    /// modpost.
    Modpost,
    /// A link: vmlinux, a module, an image.
    Link,
    /// A command given by the user.
    Command,
}

/// One thing that failed in a build.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Failure {
    /// Where in the build.
    pub stage: Stage,
    /// What failed, as make names it: `kernel/softirq.o`, `vmlinux`; the command for [`Stage::Command`].
    pub what: String,
    /// One line that says why: the first error of a compiler, else make's own line.
    pub message: String,
    /// It fails only because warnings are made errors.
    #[serde(default)]
    pub werror: bool,
}

/// Why an attempt gave no answer about the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Trouble {
    /// It ran longer than allowed.
    Timeout {
        /// The limit in seconds.
        limit_s: u64,
    },
    /// A process of it was killed by a signal that we did not send: out of memory, most often.
    Killed {
        /// What was killed, and by what.
        detail: String,
    },
    /// The disk was full, or could not be written.
    Disk {
        /// The system's words.
        detail: String,
    },
    /// The sandbox could not be set up.
    Sandbox {
        /// The system's words.
        detail: String,
    },
    /// The source tree of the state could not be laid out.
    Tree {
        /// What happened.
        detail: String,
    },
    /// The compiler is missing or is not the one the run began with.
    Toolchain {
        /// What happened.
        detail: String,
    },
    /// The farm tried it often enough.
    Workers {
        /// On which workers, and what happened there.
        detail: String,
    },
    /// The user stopped it.
    Interrupted,
    /// The base or the command is not what the request assumed: no Makefile, no such config.
    Request {
        /// What happened.
        detail: String,
    },
    /// Our own fault.
    Internal {
        /// What happened.
        detail: String,
    },
}

/// Whose fault an outcome is. Only [`Blame::Patch`] may ever fail a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Blame {
    /// The source at this state; which patch brought it is for the verdict to say.
    Patch,
    /// The base does not build either.
    Base,
    /// The machine.
    Infrastructure,
    /// What was asked for.
    Request,
    /// A bug of ours.
    Ours,
}

impl Trouble {
    /// Whose fault it is: never the patch's.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Timeout { .. }
            | Self::Killed { .. }
            | Self::Disk { .. }
            | Self::Sandbox { .. }
            | Self::Tree { .. }
            | Self::Toolchain { .. }
            | Self::Workers { .. }
            | Self::Interrupted => Blame::Infrastructure,
            Self::Request { .. } => Blame::Request,
            Self::Internal { .. } => Blame::Ours,
        }
    }

    /// Whether another attempt at once may well go better.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Killed { .. } | Self::Sandbox { .. } | Self::Tree { .. } => true,
            Self::Timeout { .. }
            | Self::Disk { .. }
            | Self::Toolchain { .. }
            | Self::Workers { .. }
            | Self::Interrupted
            | Self::Request { .. }
            | Self::Internal { .. } => false,
        }
    }

    /// What happened, in a few words that fit after "not judged:".
    pub fn describe(&self) -> String {
        match self {
            Self::Timeout { limit_s } => format!("it ran longer than the limit of {limit_s} s"),
            Self::Killed { detail } => format!("a process was killed ({detail})"),
            Self::Disk { detail } => format!("the disk could not be written ({detail})"),
            Self::Sandbox { detail } => format!("the sandbox could not be set up ({detail})"),
            Self::Tree { detail } => format!("the source tree could not be laid out ({detail})"),
            Self::Toolchain { detail } => format!("the toolchain cannot be used ({detail})"),
            Self::Workers { detail } => format!("no worker of the farm could run it to its end ({detail})"),
            Self::Interrupted => "it was interrupted".to_owned(),
            Self::Request { detail } => detail.clone(),
            Self::Internal { detail } => format!("bug in bombproof: {detail}"),
        }
    }
}

/// What one attempt gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Everything that was asked for was built.
    Built,
    /// The source does not build: at least one failure.
    Failed(Vec<Failure>),
    /// The command said that this state cannot be tested (exit code 125).
    Skipped,
    /// No answer about the source.
    Trouble(Trouble),
}

/// The settled answer for one state on one target: all that verdicts are made of.
///
/// It says what *this state* is like, however it was reached (incrementally, from scratch, after a crash), so that it
/// can be stored under the digest of target and tree and used again. Results of neighbouring states are nearly equal and
/// hold in common what is equal: see [`StateResult::share_with`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateResult {
    /// What the attempt gave.
    pub outcome: Outcome,
    /// Everything that was compiled in this state, by the path of its output below the build folder.
    pub units: SharedMap<Shared<Unit>>,
    /// Diagnostics that belong to no unit, by scope.
    pub scopes: Shared<BTreeMap<Scope, ScopeState>>,
    /// Paths of the source tree that compiles of this state read, sorted.
    pub inputs: SharedSet,
    /// The configuration after `olddefconfig`: symbol (without `CONFIG_`) to value, unset symbols absent.
    pub config: SharedMap<String>,
    /// Symbols asked for by fragments that did not take effect: symbol to (asked, got).
    pub not_effective: Shared<BTreeMap<String, (String, String)>>,
    /// What it cost to find out.
    pub cost: Cost,
    /// What is known of the link.
    pub link: LinkCheck,
    /// Why make ran, or what took its place; empty where that is not known.
    #[serde(default)]
    pub why: String,
    /// The units whose compiles were asked for by what changed in this state.
    #[serde(default)]
    pub made: BTreeMap<String, Asked>,
}

/// Why a compile was asked for, and what came of that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// A changed file that it reads; empty where none is known, as for one that is new.
    pub because: String,
    /// Whether it had to run.
    pub known: Known,
}

/// What the link verdict rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkCheck {
    /// The real link ran (make decided, as always, what to link again).
    Run,
    /// A check of symbols only: every symbol that changed is found.
    Symbols,
    /// Nothing that it depends on changed.
    Unchanged,
    /// It was not reached.
    None,
}

/// One compile of a state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// The main source: below the top of the tree, or below the build folder for generated sources.
    pub source: String,
    /// Digest of the command as [`crate::kbuild::invocation`] normalises it.
    pub command: Digest,
    /// It was compiled, without an error.
    pub ok: bool,
    /// What the compiler and its follow-up tools (objtool, sparse) said of it.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub diagnostics: Vec<Diagnostic>,
    /// The digest of its object at the end of the step that made it; `None` where it failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub object: Option<Digest>,
}

impl Unit {
    /// Its first error in one line, and whether all of its errors are warnings made errors.
    pub fn first_error(&self) -> Option<(String, bool)> {
        let mut errors = self.diagnostics.iter().filter(|it| it.severity == Severity::Error).peekable();
        let first = *errors.peek()?;
        let werror = errors.all(|error| error.werror);
        let place = match first.location.line {
            0 => String::new(),
            line => format!("{}:{line}: ", first.location.file),
        };
        Some((format!("{place}{}", first.message), werror))
    }
}

/// What building a state again by plain make showed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Audited {
    /// Verdict, diagnostics and objects are the same.
    Equal,
    /// They are not: our bug. Each difference in words.
    Different(Vec<String>),
    /// It could not be done.
    NotDone(Trouble),
}

/// A part of a build, other than a compile, whose diagnostics are known or not known as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Kconfig.
    Config,
    /// modpost.
    Modpost,
    /// The linker.
    Link,
    /// dtc.
    Dtb,
    /// make and scripts.
    Make,
}

/// What is known of a [`Scope`] in a state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeState {
    /// It ran to its end for this state (or nothing it depends on changed since it did).
    pub known: bool,
    /// What it said.
    pub diagnostics: Vec<Diagnostic>,
}

/// What an attempt cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Compiles that ran.
    pub compiles: u32,
    /// Compiles whose result was known.
    #[serde(default)]
    pub cached: u32,
    /// Compiles that were not needed because no compiler sees what changed.
    #[serde(default)]
    pub by_token: u32,
    /// Compiler probes (`--version`, `cc-option`) that ran.
    pub probes: u32,
    /// Runs of make.
    pub kbuild_steps: u32,
    /// CPU time of the compiles, in milliseconds.
    pub compile_cpu_ms: u64,
    /// Wall time of the attempt, in milliseconds.
    pub wall_ms: u64,
}

impl StateResult {
    /// A result that says only that there is no answer.
    pub fn trouble(trouble: Trouble) -> Self {
        Self {
            outcome: Outcome::Trouble(trouble),
            units: SharedMap::default(),
            scopes: Shared::default(),
            inputs: SharedSet::default(),
            config: SharedMap::default(),
            not_effective: Shared::default(),
            cost: Cost::default(),
            link: LinkCheck::None,
            why: String::new(),
            made: BTreeMap::new(),
        }
    }

    /// Holds in common with another result what is equal, unit by unit. Nothing that it says changes.
    pub fn share_with(&mut self, other: &Self) {
        self.units.share_with(&other.units);
        self.scopes.share_with(&other.scopes);
        self.inputs.share_with(&other.inputs);
        self.config.share_with(&other.config);
        self.not_effective.share_with(&other.not_effective);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_trouble() -> Vec<(Trouble, Blame, bool)> {
        let detail = || "why".to_owned();
        vec![
            (Trouble::Timeout { limit_s: 9 }, Blame::Infrastructure, false),
            (Trouble::Killed { detail: detail() }, Blame::Infrastructure, true),
            (Trouble::Disk { detail: detail() }, Blame::Infrastructure, false),
            (Trouble::Sandbox { detail: detail() }, Blame::Infrastructure, true),
            (Trouble::Tree { detail: detail() }, Blame::Infrastructure, true),
            (Trouble::Toolchain { detail: detail() }, Blame::Infrastructure, false),
            (Trouble::Interrupted, Blame::Infrastructure, false),
            (Trouble::Request { detail: detail() }, Blame::Request, false),
            (Trouble::Internal { detail: detail() }, Blame::Ours, false),
        ]
    }

    #[test]
    fn no_trouble_ever_blames_the_patch_and_each_says_what_happened() {
        for (trouble, blame, may_pass) in every_trouble() {
            assert_eq!((trouble.blame(), trouble.may_pass()), (blame, may_pass), "{trouble:?}");
            assert!(!trouble.describe().is_empty());
        }
    }
}
