//! Actions: single steps of a build that depend on nothing but what they declare, and what they gave.
//!
//! An action is a command, its environment, the files that it sees and the platform that it runs on. Its identity is the
//! digest of the Remote Execution API's `Action` message (version 2, SHA-256), which the room `proto` makes; here is what
//! the rest of the program knows of it. A failure is a result like any other; that a machine had trouble is never one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::BlobDigest;

/// One file that an action sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InputFile {
    /// Its content.
    pub blob: BlobDigest,
    /// It may be run.
    #[serde(default)]
    pub executable: bool,
}

impl InputFile {
    /// Stands for a file that is not there: no blob has that name, so no action can be run with it.
    pub fn missing() -> Self {
        let nothing = BlobDigest { hash: crate::digest::Digest::of(b"bombproof/missing"), size_bytes: u64::MAX };
        Self { blob: nothing, executable: false }
    }
}

/// All files that an action sees, by path below the input root: relative, with `/`, without `.` and `..`.
pub type InputTree = BTreeMap<String, InputFile>;

/// What is run, on what, where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// Program and arguments; the program is looked up on the `PATH` of the platform.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// The folder that it runs in, below the input root.
    pub folder: String,
    /// Files that it makes, below `folder`.
    pub outputs: Vec<String>,
    /// What it sees.
    pub inputs: InputTree,
    /// Properties of the platform, such as the digest of the toolchain.
    pub platform: BTreeMap<String, String>,
}

/// One file that an action made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputFile {
    /// As in [`Action::outputs`].
    pub path: String,
    /// Its content.
    pub blob: BlobDigest,
    /// It may be run.
    #[serde(default)]
    pub executable: bool,
}

/// What an action gave: the settled value, success or failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionResult {
    /// Its exit code; 128 + n for signal n never becomes a result.
    pub exit: i32,
    /// The declared outputs that it made.
    pub outputs: Vec<OutputFile>,
    /// What it wrote to its standard error.
    pub stderr: String,
    /// CPU time (user and system) in microseconds.
    pub cpu_us: u64,
    /// Wall time in microseconds.
    pub wall_us: u64,
}

impl ActionResult {
    /// Whether it says something of the action. A process that a signal ended (128 and above, as shells count) may have been
    /// killed by the machine, so that is never kept.
    pub fn settles(&self) -> bool {
        (0..128).contains(&self.exit)
    }

    /// The output of that path.
    pub fn output(&self, path: &str) -> Option<&OutputFile> {
        self.outputs.iter().find(|output| output.path == path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_ended_by_itself_settles() {
        for (exit, settles) in
            [(0, true), (1, true), (127, true), (128, false), (137, false), (255, false), (-9, false)]
        {
            let result = ActionResult { exit, outputs: Vec::new(), stderr: String::new(), cpu_us: 0, wall_us: 0 };
            assert_eq!(result.settles(), settles, "{exit}");
        }
    }
}
