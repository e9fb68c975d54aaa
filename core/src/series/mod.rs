//! A series: ordered patches, each with its changes to files.
//!
//! [`diff`] reads the text of a patch, [`apply`] applies hunks to a file's bytes, [`mail`] puts `git format-patch`
//! mails in order, [`quilt`] reads `series` files, [`path`] refuses paths that leave the tree.

use serde::{Deserialize, Serialize};

use crate::tree::FileMode;

pub mod apply;
pub mod binary;
pub mod diff;
mod header;
pub mod mail;
pub mod path;
pub mod quilt;

pub use header::{base_commit, upstream};

/// An ordered list of patches and what its source says of their base.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Series {
    /// What the user calls it: the folder, the range, the subject of the cover letter.
    pub name: String,
    /// In order; `patches[0]` is patch 1.
    pub patches: Vec<Patch>,
    /// The commit that a `base-commit:` line names.
    pub base_commit: Option<String>,
    /// How a patch of this series may be applied.
    pub fuzz: u32,
}

/// One patch: who, what, and its changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patch {
    /// First line of the message, without `[PATCH n/m]`.
    pub subject: String,
    /// `Name <address>`, or empty where the source names none.
    pub author: String,
    /// The author date as git writes it (`<seconds> <zone>`), where the source gives one.
    pub date: Option<String>,
    /// The message after the subject.
    pub body: String,
    /// Where it came from: file name, `mbox:3`, commit id.
    pub source: String,
    /// The commit upstream that the message names, if any.
    pub upstream: Option<String>,
    /// Applied in reverse (`-R` in a quilt series).
    pub reverse: bool,
    /// The changes, in the order of the patch.
    pub files: Vec<FileDiff>,
}

/// What a patch does to one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDiff {
    /// The path before; `None`: the file is new.
    pub old_path: Option<String>,
    /// The path after; `None`: the file is deleted.
    pub new_path: Option<String>,
    /// Whether the old path stays (`copy`) or goes (`rename`), where the two differ.
    pub relation: Relation,
    /// The mode that the patch says the file has before.
    pub old_mode: Option<FileMode>,
    /// The mode after; `None`: unchanged, or regular for a new file.
    pub new_mode: Option<FileMode>,
    /// The blob ids of an `index` line (full or abbreviated), old and new.
    pub index: Option<(String, String)>,
    /// The change of the content.
    pub content: Content,
}

/// How the old path of a change relates to the new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// One path, or one of the two is absent.
    #[default]
    Same,
    /// The file moved.
    Rename,
    /// The file was copied.
    Copy,
}

/// The change of a file's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// Hunks of text; none where only the mode or the name changes.
    Text(Vec<Hunk>),
    /// A `GIT binary patch`.
    Binary(binary::BinaryPatch),
    /// `Binary files a/x and b/x differ`: the data is not in the patch, so it cannot be applied.
    BinaryWithoutData,
}

/// One hunk of a text change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hunk {
    /// First line in the old file, from 1 (0 for an empty side).
    pub old_start: u32,
    /// First line in the new file, from 1 (0 for an empty side).
    pub new_start: u32,
    /// What follows the second `@@`: usually the enclosing function.
    pub section: String,
    /// The lines in order.
    pub lines: Vec<HunkLine>,
}

/// One line of a hunk, without its first column; the bytes include the line end, which is absent after
/// `\ No newline at end of file`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HunkLine {
    /// In both files.
    Context(Vec<u8>),
    /// Only in the old file.
    Removed(Vec<u8>),
    /// Only in the new file.
    Added(Vec<u8>),
}

impl Hunk {
    /// The lines that the old file must have.
    pub fn old_lines(&self) -> impl Iterator<Item = &[u8]> {
        self.lines.iter().filter_map(|line| match line {
            HunkLine::Context(text) | HunkLine::Removed(text) => Some(text.as_slice()),
            HunkLine::Added(_) => None,
        })
    }

    /// The lines that the new file gets.
    pub fn new_lines(&self) -> impl Iterator<Item = &[u8]> {
        self.lines.iter().filter_map(|line| match line {
            HunkLine::Context(text) | HunkLine::Added(text) => Some(text.as_slice()),
            HunkLine::Removed(_) => None,
        })
    }
}

/// One change of a state against the one before, as far as verdicts need it: where lines went, in the coordinates of
/// the files as they really were (after offsets).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChange {
    /// The path before; `None`: new.
    pub old_path: Option<String>,
    /// The path after; `None`: deleted.
    pub new_path: Option<String>,
    /// Text spans that were replaced, in order of the old file; empty where the content is unknown (binary) or equal.
    pub spans: Vec<Span>,
}

/// `old_lines` lines from `old_start` became `new_lines` lines from `new_start` (lines from 1). Lines outside all spans
/// are unchanged and only move. For an insertion (`old_lines` 0) `old_start` is the line before which it happens, and
/// for a deletion (`new_lines` 0) `new_start` is the line that follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// First old line.
    pub old_start: u32,
    /// How many old lines.
    pub old_lines: u32,
    /// First new line.
    pub new_start: u32,
    /// How many new lines.
    pub new_lines: u32,
}
