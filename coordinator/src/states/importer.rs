//! Writes states as commits. Author and date do not matter to anybody but a person who looks, so that they are fixed and the
//! same series gives the same commits.

use std::path::Path;
use std::sync::Arc;

use bombproof_core::id::Oid;
use bombproof_core::series::{Patch, Span};
use bombproof_core::tree::FileMode;

use super::StatesError;
use super::files::Files;
use super::folders::Folder;
use super::pack::{Change, Kind, Pack, hex, unhex};

/// One path of a commit.
pub(super) struct Put<'a> {
    pub(super) path: &'a str,
    /// `None`: removed.
    pub(super) file: Option<(FileMode, Arc<Vec<u8>>)>,
    /// The lines in which it differs from its content before, where that is known.
    pub(super) spans: &'a [Span],
}

pub(super) struct Importer {
    pack: Pack,
    root: Folder,
    /// The commit before.
    parent: String,
}

impl Importer {
    /// Begins at a commit with this tree; what is written goes into the object store `objects`.
    pub(super) fn start(
        objects: &Path,
        sha256: bool,
        (commit, tree): (&Oid, &Oid),
        files: &mut Files,
    ) -> Result<Self, StatesError> {
        let pack = Pack::start(objects, sha256)?;
        let root = Folder::read(&unhex(tree.as_str()), &mut |id| files.tree(&hex(id)))?;
        Ok(Self { pack, root, parent: commit.to_string() })
    }

    /// Writes the state after `patch`; gives its commit and its tree.
    pub(super) fn commit(
        &mut self,
        files: &mut Files,
        patch: &Patch,
        puts: &[Put<'_>],
    ) -> Result<(Oid, Oid), StatesError> {
        let mut read = |id: &[u8]| files.tree(&hex(id));
        // What goes first makes room for what comes: a file may take the place of a folder.
        for put in puts.iter().filter(|put| put.file.is_none()) {
            self.root.put(put.path.as_bytes(), None, &mut read)?;
        }
        for put in puts {
            let Some((mode, content)) = &put.file else { continue };
            let id = if *mode == FileMode::Gitlink {
                let oid = String::from_utf8_lossy(content);
                let oid = oid.trim().strip_prefix("Subproject commit ").and_then(|oid| Oid::parse(oid).ok());
                let oid = oid.filter(|oid| oid.as_str().len() == self.parent.len());
                let oid = oid.ok_or_else(|| StatesError::damaged(format!("'{}' is no submodule entry", put.path)))?;
                unhex(oid.as_str())
            } else {
                self.pack.add(Kind::Blob, put.path, content, Change::Lines(put.spans))?
            };
            self.root.put(put.path.as_bytes(), Some((mode.as_octal().as_bytes(), &id)), &mut read)?;
        }
        let tree = hex(&self.root.write("", &mut self.pack)?);
        let who = "bombproof <bombproof@localhost> 0 +0000";
        let text = format!(
            "tree {tree}\nparent {}\nauthor {who}\ncommitter {who}\n\n{}\n\n{}",
            self.parent, patch.subject, patch.body
        );
        self.parent = hex(&self.pack.add(Kind::Commit, "", &Arc::new(text.into_bytes()), Change::Unknown)?);
        let oid = |text: &str| Oid::parse(text).map_err(|error| StatesError::damaged(error.to_string()));
        Ok((oid(&self.parent)?, oid(&tree)?))
    }

    /// Puts all that was written where git finds it.
    pub(super) fn finish(self) -> Result<(), StatesError> {
        self.pack.finish()
    }
}
