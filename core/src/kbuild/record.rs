//! The record that the compiler shim writes for each run of a compiler: one line of JSON.

use serde::{Deserialize, Serialize};

/// One run of a compiler. Written by the shim into the journal of a step, one JSON object a line, twice: once with
/// `exit: null` before the compiler starts, so that a killed step shows what was in flight, and once when it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Unique in the journal: the shim's process id and a counter or time.
    pub id: String,
    /// The working folder.
    pub cwd: String,
    /// The command: `argv[0]` is the name by which the compiler was called.
    pub argv: Vec<String>,
    /// Exit code; 128 + n for signal n; `None`: not ended.
    pub exit: Option<i32>,
    /// CPU time (user + system) in microseconds.
    #[serde(default)]
    pub cpu_us: u64,
    /// Wall time in microseconds.
    #[serde(default)]
    pub wall_us: u64,
    /// Peak resident memory in KiB.
    #[serde(default)]
    pub max_rss_kib: u64,
    /// Standard error, lossy UTF-8, at most 1 MiB (the middle is cut).
    #[serde(default)]
    pub stderr: String,
    /// The text of the dependency file that the command asked for, if it wrote one.
    #[serde(default)]
    pub depfile: Option<String>,
    /// Whether it had to run.
    #[serde(default)]
    pub known: Known,
}

/// Where the outcome of a compile is from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Known {
    /// The compiler ran.
    #[default]
    Ran,
    /// The same compile ran before: same command, same inputs.
    Cached,
    /// A compile ran before in which the compiler saw the same text.
    Token,
}
