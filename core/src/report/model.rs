//! The report as data. Its JSON form is the schema [`SCHEMA`]: fields may be added, a meaning never changes without a
//! new schema version. A reader of an older version ignores fields that it does not know.

use serde::{Deserialize, Serialize};

use crate::diagnostic::{Severity, Tool};
use crate::id::{DiagnosticId, PatchIndex, RunId, TargetName};
pub use crate::outcome::LinkCheck;
use crate::outcome::Stage;

/// The name and version of the schema.
pub const SCHEMA: &str = "bombproof/report/v1";

/// A whole report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// The run.
    pub run: Run,
    /// The series.
    pub series: SeriesInfo,
    /// The targets, in the order of the request.
    pub targets: Vec<TargetInfo>,
    /// One for each patch and target, by target then patch; patch 0 is the base.
    pub verdicts: Vec<VerdictEntry>,
    /// Every diagnostic of any state, each defect once, whatever the number of targets, units and states.
    pub diagnostics: Vec<DiagnosticEntry>,
    /// What it comes to.
    pub summary: Summary,
    /// What it cost.
    pub cost: CostTotals,
}

/// When and how it ran. Only this part and `cost` differ between two runs of the same request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The id by which `report`, `explain` and `reproduce` find it.
    pub id: RunId,
    /// RFC 3339, UTC, in seconds.
    pub started_at: String,
    /// Wall time in milliseconds.
    pub duration_ms: u64,
    /// `every`, `tip` or `search`.
    pub mode: String,
    /// The level of the sandbox: `container`, `namespaces`, `bubblewrap`, `landlock`, `none`.
    pub sandbox: String,
    /// False: it was interrupted, or is still running; missing verdicts are `not-judged`.
    #[serde(default)]
    pub finished: bool,
    /// Facts about the run as a whole that a reader must know: "search assumed monotonicity", "patch 3 needed fuzz".
    #[serde(default)]
    pub notes: Vec<String>,
}

/// The series as it was judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeriesInfo {
    /// As the user named it.
    pub name: String,
    /// What the first patch was applied to.
    pub base: BaseInfo,
    /// In order.
    pub patches: Vec<PatchInfo>,
}

/// The base.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseInfo {
    /// The commit id.
    pub commit: String,
    /// The tree id.
    pub tree: String,
    /// As the user named it, `v6.1`.
    #[serde(default)]
    pub name: String,
}

/// One patch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchInfo {
    /// From 1.
    pub index: PatchIndex,
    /// First line of the message.
    pub subject: String,
    /// `Name <address>`.
    pub author: String,
    /// File name, `mbox:3`, commit id.
    pub source: String,
    /// Tree id after the patch (that before it, where it does not apply).
    pub tree: String,
    /// The upstream commit that the message names.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub upstream: Option<String>,
    /// Hunks that needed fuzz, `file: hunk 2, fuzz 1`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub fuzz: Vec<String>,
    /// Why it does not apply.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub not_applied: Option<NotApplied>,
}

/// Why a patch does not apply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotApplied {
    /// The file.
    pub file: String,
    /// The hunk, from 1; 0: the file as a whole.
    pub hunk: u32,
    /// What is wrong, one line.
    pub message: String,
    /// The place in the file that is most like the hunk, as `file:line`, and what differs there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub nearest: Option<String>,
    /// The change is there already.
    #[serde(default)]
    pub already_applied: bool,
    /// The later patch of the series after which it applies.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub applies_after: Option<PatchIndex>,
}

/// One target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetInfo {
    /// Unique in the report; by default `ARCH-CONFIG`, and `command` with `--exec`.
    pub name: TargetName,
    /// The kernel's `ARCH` value; empty for a command.
    pub arch: String,
    /// `tinyconfig+rdma.config`.
    pub config: String,
    /// The compiler's own version line.
    pub toolchain: String,
    /// Goals of make; the command for `--exec`.
    pub goals: Vec<String>,
    /// Symbols that were asked for and did not take effect at the base, `INFINIBAND=m (got: not set)`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub not_effective: Vec<String>,
}

/// What a patch is worth on a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The state after it builds, and something it changes is compiled here.
    Builds,
    /// The state after it does not build.
    Fails,
    /// It could not be applied.
    NotApplied,
    /// The state after it builds, and nothing it changes is compiled here.
    NotCompiled,
    /// Nothing can be said; `reason` says why.
    NotJudged,
}

/// One patch on one target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictEntry {
    /// 0 is the base.
    pub patch: PatchIndex,
    /// Which target.
    pub target: TargetName,
    /// The verdict.
    pub verdict: Verdict,
    /// The state itself was built (now or in an earlier run); false: inferred, or nothing is known.
    pub observed: bool,
    /// The result came from an earlier run.
    pub cached: bool,
    /// What the link verdict rests on.
    pub link: LinkCheck,
    /// Why it fails.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failure: Option<FailureInfo>,
    /// Why it is not judged; or what else a reader must know of this verdict.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Diagnostics that this patch brought.
    pub new: Vec<DiagnosticId>,
    /// Diagnostics that this patch removed.
    pub fixed: Vec<DiagnosticId>,
    /// Diagnostics seen here of which nobody can say whether they are new, because the state before never compiled
    /// the object.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub not_judged: Vec<DiagnosticId>,
    /// Configuration symbols that changed against the state before, `FOO: n -> y`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub config_drift: Vec<String>,
    /// For `not-compiled`: targets of this run that do compile what the patch changes.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub compiled_on: Vec<TargetName>,
}

/// Why a state does not build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureInfo {
    /// The first stage that failed.
    pub stage: Stage,
    /// One line; says so when it is a warning made an error.
    pub message: String,
    /// Where the whole log lies, below the state folder.
    pub log: String,
    /// Everything that failed, `kernel/softirq.o`, at most 50.
    #[serde(default)]
    pub what: Vec<String>,
    /// The failure is older: the patch that brought it. Absent: this patch did.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub since: Option<PatchIndex>,
    /// Only warnings made errors fail it.
    #[serde(default)]
    pub werror: bool,
}

/// One defect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiagnosticEntry {
    /// Unique in the report, the same in every run with the same findings.
    pub id: DiagnosticId,
    /// Who said it.
    pub tool: Tool,
    /// A warning made an error counts as the warning it is, with `werror_on` naming where.
    pub severity: Severity,
    /// Its option.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub flag: Option<String>,
    /// In the state where it was first seen.
    pub file: String,
    /// From 1; 0: none.
    pub line: u32,
    /// From 1.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub column: Option<u32>,
    /// Enclosing function or symbol.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub function: Option<String>,
    /// The text.
    pub message: String,
    /// The block as the tool printed it where first seen.
    #[serde(default)]
    pub text: Vec<String>,
    /// Where it shows, in the order of the report's targets.
    pub targets: Vec<TargetName>,
    /// Targets on which a warning of this kind is made an error.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub werror_on: Vec<TargetName>,
    /// The patch that brought it; 0: it was there at the base; `null`: not judged.
    pub introduced_by: Option<PatchIndex>,
    /// The patch that removed it (the last one, where it differs between targets).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fixed_by: Option<PatchIndex>,
    /// How many units print it in the state where it was first seen.
    #[serde(default)]
    pub units: u32,
}

/// What it comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Everything asked for was judged, and nothing was found.
    pub clean: bool,
    /// Per target that fails anywhere: the first patch after an observed success whose state fails.
    pub first_failing: Vec<FirstFailing>,
    /// Stretches of failing states.
    pub broken_ranges: Vec<BrokenRange>,
    /// Per target: how many diagnostics the series brought (warnings, made errors or not).
    pub new_warnings: Vec<NewWarnings>,
    /// How many verdicts are `not-judged`.
    #[serde(default)]
    pub not_judged: u32,
    /// How many patches do not apply.
    #[serde(default)]
    pub not_applied: u32,
}

/// The first failing patch of a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstFailing {
    /// Which target.
    pub target: TargetName,
    /// Which patch.
    pub patch: PatchIndex,
}

/// A stretch of failing states of a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokenRange {
    /// Which target.
    pub target: TargetName,
    /// First failing state; 0: the base is broken, and blames no patch.
    pub from: PatchIndex,
    /// Last failing state.
    pub to: PatchIndex,
    /// The patch after which it builds again.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub healed_by: Option<PatchIndex>,
}

/// The new diagnostics of a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewWarnings {
    /// Which target.
    pub target: TargetName,
    /// How many.
    pub count: u32,
}

/// What a run cost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CostTotals {
    /// Compiles.
    pub actions: ActionCounts,
    /// Runs of make.
    pub kbuild_steps: u32,
    /// CPU time of the compiles that ran, in milliseconds.
    pub compile_cpu_ms: u64,
    /// Wall time, in milliseconds.
    pub wall_ms: u64,
    /// Parallel slots.
    pub slots: u32,
    /// What a compile took beside the compiler (inputs, sandbox, outputs): the median in microseconds of wall time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside_compiler_us: Option<u64>,
    /// The most memory that this program held, without compilers and make, in KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_kib: Option<u64>,
    /// States whose result came from an earlier run.
    #[serde(default)]
    pub states_cached: u32,
    /// States that were built.
    #[serde(default)]
    pub states_built: u32,
    /// What each state that was built cost, by target then patch.
    #[serde(default)]
    pub states: Vec<StateCost>,
}

/// What building one state cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateCost {
    /// The target.
    pub target: TargetName,
    /// The patch; 0 is the base.
    pub patch: PatchIndex,
    /// Wall time in milliseconds.
    pub wall_ms: u64,
    /// CPU time of its compiles in milliseconds.
    pub compile_cpu_ms: u64,
    /// Compiles that ran.
    pub compiles: u32,
    /// Compiles that were asked for and known.
    #[serde(default)]
    pub cached: u32,
    /// Compiles that read what changed, in which no compiler sees a difference.
    #[serde(default)]
    pub by_token: u32,
    /// Runs of make.
    pub kbuild_steps: u32,
}

/// Counts of compiles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionCounts {
    /// What was needed.
    pub planned: u32,
    /// What ran.
    pub executed: u32,
    /// What was known: settled in an earlier run or for another state, or the same to every compiler.
    pub cached: u32,
    /// Of these, what no compiler sees a difference in.
    #[serde(default)]
    pub by_token: u32,
}
