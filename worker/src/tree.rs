//! The source tree of a lane on disk, moved from state to state by writing only the files that differ.
//!
//! Beside the tree lies a marker: `at TREE`, or `moving FROM TO...` while files are written. After a crash all trees that
//! it names are compared with where the tree shall be, so that every file that may be half-way is written again.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bombproof_core::id::Oid;
use bombproof_core::tree::{Change, Entry, FileMode};
use bombproof_store::trees::{TreeError, TreeSource};
use thiserror::Error;

/// A marker that names more trees than this is not worth comparing: the tree is made from nothing.
const MOST_TREES: usize = 16;

/// A tree that is made from nothing is written by so many threads: git unpacks with one alone, and takes as long as writing does.
const AT_ONCE: usize = 4;

/// Fewer files than this are not worth a thread.
const WORTH_A_THREAD: usize = 2_000;

/// A tree could not be laid out.
#[derive(Debug, Error)]
pub enum MoveError {
    /// The object store.
    #[error(transparent)]
    Source(#[from] TreeError),
    /// The disk.
    #[error("cannot write '{}': {error}", path.display())]
    Disk {
        /// Which file.
        path: PathBuf,
        /// The system's words.
        error: std::io::Error,
    },
}

/// A source tree that is moved from state to state.
#[derive(Debug)]
pub struct SourceTree {
    root: PathBuf,
    marker: PathBuf,
}

/// What a move did.
#[derive(Debug, Default)]
pub struct Moved {
    /// The paths that were written or removed, sorted.
    pub paths: Vec<String>,
    /// Those of them that were not there before, or are gone now.
    pub added_or_removed: Vec<String>,
    /// The tree was made from nothing.
    pub fresh: bool,
}

enum Mark {
    Nothing,
    At(Oid),
    /// Files may be of any of these.
    Moving(Vec<Oid>),
}

impl SourceTree {
    /// The tree at `root`; its marker lies beside it.
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned(), marker: root.with_extension("at") }
    }

    fn mark(&self) -> Mark {
        let text = std::fs::read_to_string(&self.marker).unwrap_or_default();
        let words: Vec<&str> = text.split_whitespace().collect();
        match words[..] {
            ["at", tree] => Oid::parse(tree).map_or(Mark::Nothing, Mark::At),
            ["moving", ref trees @ ..] if trees.len() <= MOST_TREES => trees
                .iter()
                .map(|tree| Oid::parse(tree).ok())
                .collect::<Option<Vec<_>>>()
                .map_or(Mark::Nothing, Mark::Moving),
            _ => Mark::Nothing,
        }
    }

    /// The tree that it is; `None`: it is none, or half-way between some.
    pub fn position(&self) -> Option<Oid> {
        match self.mark() {
            Mark::At(tree) => Some(tree),
            Mark::Nothing | Mark::Moving(_) => None,
        }
    }

    fn set_mark(&self, text: &str) -> Result<(), MoveError> {
        bombproof_store::atomic::write(&self.marker, text.as_bytes())
            .map_err(|error| MoveError::Disk { path: error.path.clone(), error: error.source })
    }

    /// Makes the tree be `to`.
    ///
    /// # Errors
    /// When objects are missing or the disk cannot be written; the next move repairs what is half-way.
    pub fn move_to(&self, source: &dyn TreeSource, to: &Oid) -> Result<Moved, MoveError> {
        let (changes, fresh) = match self.mark() {
            Mark::At(from) if from == *to => return Ok(Moved::default()),
            Mark::At(from) => match source.changes(Some(&from), to) {
                Ok(changes) => {
                    self.set_mark(&format!("moving {from} {to}\n"))?;
                    (changes, false)
                }
                // The tree it is at is of another repository, or of states that are gone.
                Err(_) => (self.start_over(source, to)?, true),
            },
            Mark::Moving(trees) => {
                let each: Result<Vec<_>, _> = trees.iter().map(|tree| source.changes(Some(tree), to)).collect();
                match each {
                    Ok(each) => {
                        let names: Vec<&str> = trees.iter().chain([to]).map(Oid::as_str).collect();
                        self.set_mark(&format!("moving {}\n", names.join(" ")))?;
                        let all: BTreeMap<String, Change> =
                            each.into_iter().flatten().map(|change| (change.path.clone(), change)).collect();
                        (all.into_values().collect(), false)
                    }
                    Err(_) => (self.start_over(source, to)?, true),
                }
            }
            Mark::Nothing => (self.start_over(source, to)?, true),
        };
        let moved = self.write(source, &changes, fresh)?;
        self.set_mark(&format!("at {to}\n"))?;
        Ok(moved)
    }

    fn start_over(&self, source: &dyn TreeSource, to: &Oid) -> Result<Vec<Change>, MoveError> {
        let failed = |error| MoveError::Disk { path: self.root.clone(), error };
        match std::fs::remove_file(&self.marker) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            Ok(()) | Err(_) => {}
        }
        match std::fs::remove_dir_all(&self.root) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            Ok(()) | Err(_) => {}
        }
        std::fs::create_dir_all(&self.root).map_err(failed)?;
        Ok(source.changes(None, to)?)
    }

    /// Writes these paths again, whatever they are now (a command may have changed them).
    ///
    /// # Errors
    /// As [`SourceTree::move_to`].
    pub fn restore(&self, source: &dyn TreeSource, at: &Oid, paths: &[String]) -> Result<(), MoveError> {
        let all = source.changes(None, at)?;
        let wanted: std::collections::BTreeSet<&String> = paths.iter().collect();
        let changes: Vec<Change> = all.into_iter().filter(|change| wanted.contains(&change.path)).collect();
        self.write(source, &changes, false).map(|_| ())
    }

    fn write(&self, source: &dyn TreeSource, changes: &[Change], fresh: bool) -> Result<Moved, MoveError> {
        let mut moved = Moved { fresh, ..Moved::default() };
        // Removals first: a file may take the place of a folder.
        for change in changes.iter().filter(|change| change.entry.is_none()) {
            let path = self.root.join(&change.path);
            self.no_links_above(&change.path).map_err(|error| MoveError::Disk { path: path.clone(), error })?;
            let removed = match std::fs::symlink_metadata(&path) {
                Ok(kind) if kind.is_dir() => std::fs::remove_dir_all(&path),
                Ok(_) => std::fs::remove_file(&path),
                Err(_) => Ok(()),
            };
            removed.map_err(|error| MoveError::Disk { path: path.clone(), error })?;
            let mut folder = path.parent();
            while let Some(parent) = folder.filter(|parent| *parent != self.root) {
                if std::fs::remove_dir(parent).is_err() {
                    break;
                }
                folder = parent.parent();
            }
            moved.added_or_removed.push(change.path.clone());
        }
        let entries: Vec<(&str, &Entry)> = changes
            .iter()
            .filter_map(|change| Some((change.path.as_str(), change.entry.as_ref()?)))
            .filter(|(_, entry)| entry.mode != FileMode::Gitlink)
            .collect();
        let parts = if fresh { AT_ONCE.min(1 + entries.len() / WORTH_A_THREAD) } else { 1 };
        let written: Vec<Result<Vec<String>, MoveError>> = std::thread::scope(|scope| {
            let parts = entries.chunks(entries.len().div_ceil(parts).max(1));
            let parts: Vec<_> = parts.map(|part| scope.spawn(move || self.write_part(source, part, fresh))).collect();
            let ended = parts.into_iter().map(std::thread::ScopedJoinHandle::join);
            ended.map(|part| part.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        });
        for part in written {
            moved.added_or_removed.extend(part?);
        }
        moved.paths = changes.iter().map(|change| change.path.clone()).collect();
        Ok(moved)
    }

    /// Writes these files; gives those that were not there, unless the tree is `fresh`.
    fn write_part(
        &self,
        source: &dyn TreeSource,
        entries: &[(&str, &Entry)],
        fresh: bool,
    ) -> Result<Vec<String>, MoveError> {
        let mut added = Vec::new();
        let blobs: Vec<Oid> = entries.iter().map(|(_, entry)| entry.blob.clone()).collect();
        let mut next = entries.iter();
        let mut problem = None;
        let read = source.blobs(&blobs, &mut |_, content| {
            let Some((path, entry)) = next.next() else {
                return Err(TreeError::Unreadable { detail: "more blobs than were asked for".to_owned() });
            };
            let full = self.root.join(path);
            if !fresh && let Err(error) = self.no_links_above(path) {
                let detail = error.to_string();
                problem = Some(MoveError::Disk { path: full, error });
                return Err(TreeError::Unreadable { detail });
            }
            if !fresh && std::fs::symlink_metadata(&full).is_err() {
                added.push((*path).to_owned());
            }
            put(&full, entry.mode, content, fresh).map_err(|error| {
                let detail = error.to_string();
                problem = Some(MoveError::Disk { path: full.clone(), error });
                TreeError::Unreadable { detail }
            })
        });
        if let Some(problem) = problem {
            return Err(problem);
        }
        read?;
        Ok(added)
    }
}

impl SourceTree {
    /// Where the tree has folders a command may have put links, which would lead to files that are not the tree's: they go.
    fn no_links_above(&self, path: &str) -> std::io::Result<()> {
        let mut at = self.root.clone();
        let Some((folders, _)) = path.rsplit_once('/') else { return Ok(()) };
        for name in folders.split('/') {
            at.push(name);
            match std::fs::symlink_metadata(&at) {
                Ok(kind) if kind.is_symlink() => std::fs::remove_file(&at)?,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn put(path: &Path, mode: FileMode, content: &[u8], fresh: bool) -> std::io::Result<()> {
    let make = |target: &Path| -> std::io::Result<()> {
        if mode == FileMode::Symlink {
            use std::os::unix::ffi::OsStrExt;
            return std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(content), target);
        }
        let mut file = std::fs::File::options().write(true).create_new(true).open(target)?;
        file.write_all(content)?;
        if mode == FileMode::Executable {
            file.set_permissions(std::fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    };
    // A folder of a tree is made when its first file comes.
    let in_folder = |target: &Path| match make(target) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            std::fs::create_dir_all(target.parent().unwrap_or(Path::new("/")))?;
            make(target)
        }
        made => made,
    };
    if fresh {
        return in_folder(path);
    }
    if std::fs::symlink_metadata(path).is_ok_and(|kind| kind.is_dir()) {
        std::fs::remove_dir_all(path)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".bombproof-new");
    let temporary = path.with_file_name(name);
    let _ = std::fs::remove_file(&temporary);
    in_folder(&temporary)?;
    std::fs::rename(&temporary, path)
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
