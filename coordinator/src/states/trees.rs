//! The files of states for a worker, from git's object store.

use std::io::Write;
use std::path::Path;

use bombproof_core::id::Oid;
use bombproof_core::series::path;
use bombproof_core::tree::{Change, Entry, FileMode};
use bombproof_store::trees::{BlobSink, TreeError, TreeSource};

use super::StatesError;
use super::git::Git;

/// Reads trees and blobs of a private object store (and, through it, of the user's repository).
#[derive(Clone, Debug)]
pub struct GitTrees {
    git: Git,
}

impl GitTrees {
    /// The store that [`super::Repository::states`] wrote.
    pub fn open(objects: &Path) -> Self {
        Self { git: Git::at(objects) }
    }
}

/// Reads `git ls-tree -r -z`.
pub(super) fn listing(text: &[u8]) -> Result<Vec<(FileMode, Oid, String)>, StatesError> {
    let bad = || StatesError::damaged("git ls-tree printed what cannot be read".to_owned());
    let mut entries = Vec::new();
    for record in text.split(|byte| *byte == 0).filter(|record| !record.is_empty()) {
        let record = std::str::from_utf8(record)
            .map_err(|_| StatesError::damaged("a path in the tree is not UTF-8".to_owned()))?;
        let (head, path) = record.split_once('\t').ok_or_else(bad)?;
        let mut head = head.split(' ');
        let mode = head.next().and_then(FileMode::from_octal).ok_or_else(bad)?;
        let oid = head.nth(1).and_then(|oid| Oid::parse(oid).ok()).ok_or_else(bad)?;
        entries.push((mode, oid, path.to_owned()));
    }
    Ok(entries)
}

/// Reads `git diff-tree -r -z --raw --no-renames`.
fn differences(text: &[u8]) -> Result<Vec<Change>, StatesError> {
    let bad = || StatesError::damaged("git diff-tree printed what cannot be read".to_owned());
    let mut records = text.split(|byte| *byte == 0).filter(|record| !record.is_empty());
    let mut changes = Vec::new();
    while let Some(head) = records.next() {
        let head = std::str::from_utf8(head).map_err(|_| bad())?;
        let path = records.next().and_then(|path| std::str::from_utf8(path).ok()).ok_or_else(bad)?;
        let fields: Vec<&str> = head.trim_start_matches(':').split(' ').collect();
        let [_, mode, _, oid, status] = fields[..] else { return Err(bad()) };
        let entry = if status == "D" {
            None
        } else {
            Some(Entry { mode: FileMode::from_octal(mode).ok_or_else(bad)?, blob: Oid::parse(oid).map_err(|_| bad())? })
        };
        changes.push(Change { path: path.to_owned(), entry, added: status == "A" });
    }
    Ok(changes)
}

fn unreadable(error: &StatesError) -> TreeError {
    TreeError::Unreadable { detail: error.to_string() }
}

impl TreeSource for GitTrees {
    fn changes(&self, from: Option<&Oid>, to: &Oid) -> Result<Vec<Change>, TreeError> {
        let changes = match from {
            Some(from) => self
                .git
                .run(["diff-tree", "-r", "-z", "--raw", "--no-renames", "--full-index", from.as_str(), to.as_str()])
                .and_then(|text| differences(&text)),
            None => self.git.run(["ls-tree", "-r", "-z", "--full-tree", to.as_str()]).and_then(|text| {
                let entries = listing(&text)?;
                Ok(entries
                    .into_iter()
                    .map(|(mode, blob, path)| Change { path, entry: Some(Entry { mode, blob }), added: true })
                    .collect())
            }),
        };
        let mut changes = changes.map_err(|error| match self.git.run(["cat-file", "-e", to.as_str()]) {
            Ok(_) => unreadable(&error),
            Err(_) => TreeError::Missing { oid: to.to_string(), detail: error.to_string() },
        })?;
        // A repository may hold trees that git itself would not make.
        if let Some(bad) = changes.iter().find_map(|change| path::check(&change.path).err()) {
            return Err(TreeError::Unreadable { detail: bad.to_string() });
        }
        changes.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(changes)
    }

    fn blobs(&self, blobs: &[Oid], sink: &mut BlobSink<'_>) -> Result<(), TreeError> {
        let mut reader = self.git.talk(["cat-file", "--batch", "--buffer"]).map_err(|error| unreadable(&error))?;
        let input = reader.input.take();
        std::thread::scope(|scope| {
            // Git's answers fill the pipe long before all questions are asked.
            scope.spawn(move || {
                let mut input = std::io::BufWriter::new(input?);
                for blob in blobs {
                    // A reader that is gone says so itself.
                    writeln!(input, "{blob}").ok()?;
                }
                input.flush().ok()
            });
            for blob in blobs {
                let object = reader.object(true).map_err(|error| unreadable(&error))?;
                let missing =
                    || TreeError::Missing { oid: blob.to_string(), detail: "git does not find it".to_owned() };
                sink(blob, &object.ok_or_else(missing)?.bytes)?;
            }
            Ok(())
        })
    }
}
