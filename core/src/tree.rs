//! Trees of files and the difference between two of them.

use serde::{Deserialize, Serialize};

use crate::id::Oid;

/// What kind of file an entry is, with git's modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileMode {
    /// 100644
    Regular,
    /// 100755
    Executable,
    /// 120000: the content is the target of the link
    Symlink,
    /// 160000: a submodule; nothing is checked out for it
    Gitlink,
}

impl FileMode {
    /// Reads git's octal text (`100644`, `100755`, `120000`, `160000`; older `100664` counts as regular).
    pub fn from_octal(text: &str) -> Option<Self> {
        match text {
            "100644" | "100664" => Some(Self::Regular),
            "100755" => Some(Self::Executable),
            "120000" => Some(Self::Symlink),
            "160000" => Some(Self::Gitlink),
            _ => None,
        }
    }

    /// Git's octal text.
    pub fn as_octal(self) -> &'static str {
        match self {
            Self::Regular => "100644",
            Self::Executable => "100755",
            Self::Symlink => "120000",
            Self::Gitlink => "160000",
        }
    }
}

/// One file of a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What kind of file it is.
    pub mode: FileMode,
    /// The git blob that holds the content.
    pub blob: Oid,
}

/// One path that differs between two trees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Path below the top of the tree, with `/`; never absolute, never with `..` or `.git`.
    pub path: String,
    /// What is there in the new tree; `None`: the path is gone.
    pub entry: Option<Entry>,
    /// The old tree has nothing at that path.
    #[serde(default)]
    pub added: bool,
}
