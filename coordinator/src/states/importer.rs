//! Writes states as commits through one `git fast-import`; the contents of files go into a pack of our own before.
//!
//! Format: git-fast-import(1). Commit `k` has mark `:k`; its message, author and date do not matter to anybody but a
//! person who looks, so that committer and time are fixed and the same series gives the same commits.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bombproof_core::id::{Oid, PatchIndex};
use bombproof_core::series::{Patch, Span};
use bombproof_core::tree::FileMode;

use super::StatesError;
use super::files::Files;
use super::git::{Git, Talk};
use super::pack::Pack;

/// One path of a commit.
pub(super) struct Put<'a> {
    pub(super) path: &'a str,
    /// `None`: removed.
    pub(super) file: Option<(FileMode, Arc<Vec<u8>>)>,
    /// The lines in which it differs from its content before, where that is known.
    pub(super) spans: &'a [Span],
}

pub(super) struct Importer {
    talk: Talk,
    marks: PathBuf,
    pack: Pack,
    /// What git is told once it can read the contents.
    commits: Vec<u8>,
}

impl Importer {
    pub(super) fn start(git: &Git, objects: &Path, sha256: bool) -> Result<Self, StatesError> {
        // Git is run in another folder.
        let objects = std::path::absolute(objects).unwrap_or_else(|_| objects.to_owned());
        let marks = objects.join(format!("bombproof-marks-{}", std::process::id()));
        let export = format!("--export-marks={}", marks.display());
        let speed = ["core.compression=0", "pack.compression=0", "fastimport.unpackLimit=1"];
        let options = speed.iter().flat_map(|option| ["-c", option]);
        let talk = git.talk(options.chain(["fast-import", "--quiet", "--done", "--force", "--depth=0", &export]))?;
        let pack = Pack::start(&objects, sha256)?;
        Ok(Self { talk, marks, pack, commits: Vec::new() })
    }

    /// Writes the state after `patch`; `parent` is the state before it.
    pub(super) fn commit(
        &mut self,
        state: PatchIndex,
        parent: (PatchIndex, &Oid),
        patch: &Patch,
        puts: &[Put<'_>],
    ) -> Result<(), StatesError> {
        let message = format!("{}\n\n{}", patch.subject, patch.body);
        let from = match parent {
            (PatchIndex::BASE, base) => base.to_string(),
            (state, _) => format!(":{state}"),
        };
        let head = format!(
            "commit refs/bombproof/{}\nmark :{state}\ncommitter bombproof <bombproof@localhost> 0 +0000\n\
             data {}\n{message}\nfrom {from}\n",
            std::process::id(),
            message.len()
        );
        self.commits.extend_from_slice(head.as_bytes());
        // What goes first makes room for what comes: a file may take the place of a folder.
        for put in puts.iter().filter(|put| put.file.is_none()) {
            self.commits.extend_from_slice(format!("D {}\n", quoted(put.path)).as_bytes());
        }
        for put in puts {
            let Some((mode, content)) = &put.file else { continue };
            if *mode == FileMode::Gitlink {
                let oid = String::from_utf8_lossy(content);
                let oid = oid.trim().strip_prefix("Subproject commit ").and_then(|oid| Oid::parse(oid).ok());
                let oid = oid.ok_or_else(|| StatesError::damaged(format!("'{}' is no submodule entry", put.path)))?;
                self.commits.extend_from_slice(format!("M 160000 {oid} {}\n", quoted(put.path)).as_bytes());
                continue;
            }
            let oid = self.pack.add(put.path, content, put.spans)?;
            self.commits.extend_from_slice(format!("M {} {oid} {}\n", mode.as_octal(), quoted(put.path)).as_bytes());
        }
        self.commits.push(b'\n');
        Ok(())
    }

    /// Ends the import; gives commit and tree of every state that was written.
    pub(super) fn finish(mut self, files: &mut Files) -> Result<Vec<(PatchIndex, Oid, Oid)>, StatesError> {
        self.commits.extend_from_slice(b"done\n");
        self.pack.finish()?;
        self.talk.write(&self.commits)?;
        self.talk.finish()?;
        let text = match std::fs::read_to_string(&self.marks) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(StatesError::damaged(format!("the marks cannot be read: {error}"))),
        };
        let _ = std::fs::remove_file(&self.marks);
        let bad = || StatesError::damaged("the marks of git fast-import cannot be read".to_owned());
        let mut commits = Vec::new();
        for line in text.lines() {
            let (mark, oid) = line.trim_start_matches(':').split_once(' ').ok_or_else(bad)?;
            commits.push((PatchIndex(mark.parse().map_err(|_| bad())?), Oid::parse(oid).map_err(|_| bad())?));
        }
        commits.sort();
        let trees = files.trees_of(&commits.iter().map(|(_, commit)| commit).collect::<Vec<_>>())?;
        let mut states = Vec::with_capacity(commits.len());
        for ((state, commit), tree) in commits.into_iter().zip(trees) {
            states.push((state, commit, tree.ok_or_else(bad)?));
        }
        Ok(states)
    }
}

/// A path as fast-import reads it: quoted like a C string.
fn quoted(path: &str) -> String {
    let escaped = path.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{escaped}\"")
}
