//! Binary changes of git patches (`GIT binary patch`): base85 of deflated data, literal or delta.

use serde::{Deserialize, Serialize};

/// The two halves of a `GIT binary patch`; the backward half makes the patch reversible.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BinaryPatch {
    /// From old to new.
    pub forward: BinaryHunk,
    /// From new to old.
    pub backward: Option<BinaryHunk>,
}

/// One half: still deflated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BinaryHunk {
    /// A git delta against the other side; otherwise the whole content.
    pub delta: bool,
    /// Size of the inflated data in bytes, as the patch says.
    pub size_bytes: u64,
    /// Deflated data.
    pub deflated: Vec<u8>,
}
