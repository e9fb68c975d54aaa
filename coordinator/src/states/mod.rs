//! States: a git tree after each patch, made at once, without a work tree.
//!
//! The states of a series are written as commits into a private object store that borrows (`alternates`) from the user's
//! repository; nothing of the user's (refs, index, work tree, object store) is touched. Patches are applied in memory; git
//! reads the base: a handful of processes in all, whatever the length of the series.

use std::path::{Path, PathBuf};

use bombproof_core::id::{Oid, PatchIndex};
use bombproof_core::report::model::NotApplied;
use bombproof_core::series::apply::{self, Applied};
use bombproof_core::series::{Content, FileChange, FileDiff, Patch, Relation, Series, Span};
use bombproof_core::tree::FileMode;
use thiserror::Error;

mod ahead;
mod base;
mod delta;
mod depot;
mod files;
mod folders;
mod git;
mod importer;
mod pack;
mod range;
mod trees;

#[cfg(test)]
pub(crate) use depot::tests as depot_tests;
pub use depot::{Depot, Missing};
use files::{File, Files, Stored};
use git::Git;
use importer::{Importer, Put};
pub use trees::GitTrees;

/// States could not be made.
#[derive(Debug, Error)]
pub enum StatesError {
    /// Git is not there.
    #[error("git cannot be started for '{what}': {detail}")]
    Start {
        /// What was to be run.
        what: String,
        /// The system's words.
        detail: String,
    },
    /// Git failed.
    #[error("{what}: {detail}")]
    Git {
        /// What was run.
        what: String,
        /// Its words.
        detail: String,
    },
    /// There is no repository.
    #[error("'{}' is not a git repository", .0.display())]
    Repository(PathBuf),
    /// The base is not there.
    #[error("the base '{name}' is not a commit in this repository")]
    Base {
        /// As the user named it.
        name: String,
        /// What may help.
        hint: String,
    },
    /// A range that is not a series.
    #[error("the range '{name}' {detail}")]
    Range {
        /// As the user named it.
        name: String,
        /// What is wrong.
        detail: String,
        /// What may help.
        hint: String,
    },
    /// The object store is damaged or holds what we cannot use.
    #[error("{detail}")]
    Damaged {
        /// What is wrong.
        detail: String,
    },
    /// The private store cannot be written.
    #[error("cannot write '{}': {detail}", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// The system's words.
        detail: String,
    },
}

impl StatesError {
    fn start(what: &str, error: &std::io::Error) -> Self {
        Self::Start { what: what.to_owned(), detail: error.to_string() }
    }

    fn damaged(detail: String) -> Self {
        Self::Damaged { detail }
    }

    /// What the user may do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Base { hint, .. } | Self::Range { hint, .. } => Some(hint),
            Self::Repository(_) => Some("name the repository of the base with --repo"),
            Self::Start { .. } => Some("install git"),
            Self::Git { .. } | Self::Damaged { .. } | Self::Write { .. } => None,
        }
    }

    /// The machine's fault, not the request's.
    pub fn is_infrastructure(&self) -> bool {
        match self {
            Self::Start { .. } | Self::Git { .. } | Self::Damaged { .. } | Self::Write { .. } => true,
            Self::Base { .. } | Self::Range { .. } | Self::Repository(_) => false,
        }
    }
}

/// The tree after one patch; state 0 is the base.
#[derive(Clone, Debug)]
pub struct State {
    /// Its commit; that of the state before, where the patch does not apply.
    pub commit: Oid,
    /// Its tree.
    pub tree: Oid,
    /// How it differs from the state before.
    pub changes: Vec<FileChange>,
    /// Hunks that needed fuzz, `file: hunk 2, fuzz 1`.
    pub fuzz: Vec<String>,
    /// Hunks that were found at another line.
    pub offsets: u32,
    /// Why the patch does not apply.
    pub not_applied: Option<NotApplied>,
}

/// All states of a series.
#[derive(Clone, Debug)]
pub struct States {
    /// As the user named the base.
    pub base: String,
    /// Entry 0 is the base.
    pub states: Vec<State>,
}

/// A repository that holds bases.
#[derive(Clone, Debug)]
pub struct Repository {
    git: Git,
    path: PathBuf,
    /// `sha1` or `sha256`.
    format: String,
}

impl Repository {
    /// The repository of this folder (a work tree, a folder in it, or a bare repository).
    ///
    /// # Errors
    /// When there is none.
    pub fn open(folder: &Path) -> Result<Self, StatesError> {
        if !folder.is_dir() {
            return Err(StatesError::Repository(folder.to_owned()));
        }
        let git = Git::at(folder);
        let asked = ["rev-parse", "--path-format=absolute", "--git-common-dir", "--show-object-format"];
        let found = match git.text(asked) {
            Ok(found) => found,
            Err(error @ StatesError::Start { .. }) => return Err(error),
            Err(StatesError::Git { what, detail }) if detail.contains("dubious ownership") => {
                return Err(StatesError::Git { what, detail });
            }
            Err(_) => return Err(StatesError::Repository(folder.to_owned())),
        };
        let (path, format) = found.rsplit_once('\n').ok_or_else(|| StatesError::Repository(folder.to_owned()))?;
        Ok(Self { git, path: PathBuf::from(path), format: format.to_owned() })
    }

    /// Its git folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the argument is a range of commits of this repository; gives its first and last commit.
    ///
    /// # Errors
    /// When it looks like one and an end of it is not a commit.
    pub fn range(&self, text: &str) -> Result<Option<(Oid, Oid)>, StatesError> {
        let Some((from, to)) = text.split_once("..") else { return Ok(None) };
        if from.is_empty() || to.starts_with(['.', '/']) || from.ends_with('/') {
            return Ok(None);
        }
        let to = if to.is_empty() { "HEAD" } else { to };
        Ok(Some((base::resolve(&self.git, from)?.0, base::resolve(&self.git, to)?.0)))
    }

    /// A private object store in `folder` that borrows from this repository.
    fn borrow(&self, folder: &Path) -> Result<Git, StatesError> {
        let write = |path: &Path, error: std::io::Error| StatesError::Write {
            path: path.to_owned(),
            detail: error.to_string(),
        };
        // What `git init --bare` makes, as far as it is needed (gitrepository-layout(5)); a process less.
        let version = if self.format == "sha1" { 0 } else { 1 };
        let extension = if version == 0 { "" } else { "[extensions]\n\tobjectFormat = sha256\n" };
        let config = format!("[core]\n\trepositoryformatversion = {version}\n\tbare = true\n{extension}");
        let alternates = format!("{}\n", self.path.join("objects").display());
        for name in ["objects/info", "objects/pack", "refs/heads"] {
            let path = folder.join(name);
            std::fs::create_dir_all(&path).map_err(|error| write(&path, error))?;
        }
        let files =
            [("config", config.as_str()), ("objects/info/alternates", &alternates), ("HEAD", "ref: refs/heads/none\n")];
        for (name, text) in files {
            let path = folder.join(name);
            // Another check may be using the store: what is right already is left alone.
            if std::fs::read_to_string(&path).ok().as_deref() != Some(text) {
                bombproof_store::atomic::write(&path, text.as_bytes())
                    .map_err(|error| StatesError::Write { path, detail: error.to_string() })?;
            }
        }
        let git = Git::at(folder);
        Ok(git)
    }

    /// Reads a range as a series and its states.
    ///
    /// # Errors
    /// When it is not a line of commits, or git fails.
    pub fn states_of_range(
        &self,
        (from, to): &(Oid, Oid),
        name: &str,
        objects: &Path,
    ) -> Result<(Series, States), StatesError> {
        self.borrow(objects)?;
        let (commit, tree) = base::resolve(&self.git, from.as_str())?;
        let (series, steps) = range::read(&self.git, from, to, name)?;
        let mut states = vec![base_state(commit, tree)];
        states.extend(
            steps.into_iter().map(|step| State { changes: step.changes, ..base_state(step.commit, step.tree) }),
        );
        let base = name.split("..").next().unwrap_or_default().to_owned();
        Ok((series, States { base, states }))
    }

    /// Applies a series to `base` and writes its states into the private store `objects`.
    ///
    /// A patch that does not apply leaves the tree as it is; the later ones are applied all the same.
    ///
    /// # Errors
    /// When the base is not there, or git fails.
    pub fn states(&self, series: &Series, base: &str, objects: &Path) -> Result<States, StatesError> {
        let (commit, tree) = base::resolve(&self.git, base)?;
        let git = self.borrow(objects)?;
        let mut files = Files::open(&git, &tree, &series.patches)?;
        let mut importer = Importer::start(objects, self.format == "sha256", (&commit, &tree), &mut files)?;
        let mut states = vec![base_state(commit, tree)];
        let mut waiting: Vec<PatchIndex> = Vec::new();
        for (index, patch) in series.patches.iter().enumerate() {
            let state = PatchIndex::from_usize(index + 1);
            // Where it does not apply, everything stays as it is.
            let mut made = base_state(states[index].commit.clone(), states[index].tree.clone());
            match apply_patch(&mut files, patch, series.fuzz)? {
                Ok(done) => {
                    let puts: Vec<Put<'_>> = done
                        .puts
                        .iter()
                        .map(|(path, file)| Put {
                            path,
                            file: contents(file.as_ref()),
                            spans: only_change(&done.changes, path),
                        })
                        .collect();
                    (made.commit, made.tree) = importer.commit(&mut files, patch, &puts)?;
                    drop(puts);
                    for (path, file) in done.puts {
                        files.put(&path, file);
                    }
                    (made.changes, made.fuzz, made.offsets) = (done.changes, done.fuzz, done.offsets);
                    // Which of the patches that did not apply could go after this one?
                    let mut still = Vec::new();
                    for failed in waiting {
                        if touch_the_same(patch, &series.patches[failed.as_usize() - 1])
                            && apply_patch(&mut files, &series.patches[failed.as_usize() - 1], series.fuzz)?.is_ok()
                        {
                            if let Some(why) = states.get_mut(failed.as_usize()).and_then(|s| s.not_applied.as_mut()) {
                                why.applies_after = Some(state);
                            }
                        } else {
                            still.push(failed);
                        }
                    }
                    waiting = still;
                }
                Err(why) => {
                    if !why.already_applied {
                        waiting.push(state);
                    }
                    made.not_applied = Some(why);
                }
            }
            states.push(made);
        }
        importer.finish()?;
        Ok(States { base: base.to_owned(), states })
    }
}

fn contents(file: Option<&File>) -> Option<(FileMode, std::sync::Arc<Vec<u8>>)> {
    match file {
        Some(File { mode, content: Stored::Bytes(bytes) }) => Some((*mode, std::sync::Arc::clone(bytes))),
        // Every file that a patch puts was read or made before.
        Some(File { content: Stored::Blob(_), .. }) | None => None,
    }
}

/// The spans of the change of a file, where a patch changes it once and in its place.
fn only_change<'a>(changes: &'a [FileChange], path: &str) -> &'a [Span] {
    let mut of_path = changes.iter().filter(|change| change.new_path.as_deref() == Some(path));
    match (of_path.next(), of_path.next()) {
        (Some(change), None) if change.old_path == change.new_path => &change.spans,
        _ => &[],
    }
}

fn base_state(commit: Oid, tree: Oid) -> State {
    State { commit, tree, changes: Vec::new(), fuzz: Vec::new(), offsets: 0, not_applied: None }
}

fn touch_the_same(one: &Patch, other: &Patch) -> bool {
    let paths = |patch: &Patch| -> Vec<String> {
        patch.files.iter().flat_map(|diff| [diff.old_path.clone(), diff.new_path.clone()]).flatten().collect()
    };
    let (one, other) = (paths(one), paths(other));
    one.iter().any(|path| other.contains(path))
}

/// What a patch does, ready to be written.
struct Done {
    puts: Vec<(String, Option<File>)>,
    changes: Vec<FileChange>,
    fuzz: Vec<String>,
    offsets: u32,
}

/// Applies all changes of a patch, or none.
///
/// A file that the patch changes twice is taken as it is after the first change. The files are restored before this
/// returns: the caller puts what is to stay.
fn apply_patch(files: &mut Files, patch: &Patch, fuzz: u32) -> Result<Result<Done, NotApplied>, StatesError> {
    let mut done = Done { puts: Vec::new(), changes: Vec::new(), fuzz: Vec::new(), offsets: 0 };
    let mut before: Vec<(String, Option<File>)> = Vec::new();
    let diffs: Vec<&FileDiff> =
        if patch.reverse { patch.files.iter().rev().collect() } else { patch.files.iter().collect() };
    let mut refused = None;
    for diff in diffs {
        match apply_file(files, diff, fuzz, patch.reverse)? {
            Ok(step) => {
                for (path, file) in step.puts {
                    before.push((path.clone(), files.get(&path).cloned()));
                    files.put(&path, file.clone());
                    done.puts.retain(|(put, _)| *put != path);
                    done.puts.push((path, file));
                }
                done.changes.push(step.change);
                done.fuzz.extend(step.fuzz);
                done.offsets += step.offsets;
            }
            Err(why) => {
                refused = Some(why);
                break;
            }
        }
    }
    for (path, file) in before.into_iter().rev() {
        files.put(&path, file);
    }
    Ok(match refused {
        None => Ok(done),
        Some(why) => Err(why),
    })
}

struct FileStep {
    puts: Vec<(String, Option<File>)>,
    change: FileChange,
    fuzz: Vec<String>,
    offsets: u32,
}

fn apply_file(
    files: &mut Files,
    diff: &FileDiff,
    fuzz: u32,
    reverse: bool,
) -> Result<Result<FileStep, NotApplied>, StatesError> {
    let (old, new) = if reverse { (&diff.new_path, &diff.old_path) } else { (&diff.old_path, &diff.new_path) };
    let name = old.as_ref().or(new.as_ref()).cloned().unwrap_or_default();
    let refuse = |message: String| NotApplied {
        file: name.clone(),
        hunk: 0,
        message,
        nearest: None,
        already_applied: false,
        applies_after: None,
    };
    let content = match old {
        Some(path) => files.content(path)?,
        None => match new {
            Some(path) => files.content(path)?,
            None => None,
        },
    };
    let applied = match apply::apply(content.as_ref().map(|bytes| bytes.as_slice()), diff, fuzz, reverse) {
        Ok(applied) => applied,
        Err(error) => {
            let nearest = error.nearest.map(|(line, words)| format!("{name}:{line}: {words}"));
            return Ok(Err(NotApplied {
                hunk: error.hunk,
                nearest,
                already_applied: error.already_applied,
                ..refuse(error.message)
            }));
        }
    };
    let old_mode = old.as_ref().and_then(|path| files.get(path)).map(|file| file.mode);
    let asked_mode = if reverse { diff.old_mode } else { diff.new_mode };
    let mode = asked_mode.or(old_mode).unwrap_or(FileMode::Regular);
    let moved = old != new;
    if let Some(new) = new
        && (old.is_none() || moved)
        && applied.content.is_some()
    {
        if old.is_some() && files.get(new).is_some() {
            return Ok(Err(refuse(format!("{new}: the file exists already"))));
        }
        if let Some(why) = files.in_the_way(new)? {
            return Ok(Err(refuse(why)));
        }
    }
    let Applied { content: after, spans, fuzzed, offsets } = applied;
    let mut puts = Vec::new();
    if let Some(old) = old
        && (new.is_none() || (moved && diff.relation != Relation::Copy) || (reverse && diff.relation == Relation::Copy))
    {
        puts.push((old.clone(), None));
    }
    // Undoing a copy removes the copy; what it was made from is there.
    if let (Some(new), Some(after)) = (new, after)
        && !(reverse && diff.relation == Relation::Copy)
    {
        puts.push((new.clone(), Some(File { mode, content: Stored::Bytes(after.into()) })));
    }
    let (old_path, new_path) = range::paths(diff, reverse);
    let change = FileChange { old_path, new_path, spans };
    let fuzz = fuzzed.into_iter().map(|(hunk, fuzz)| format!("{name}: hunk {hunk}, fuzz {fuzz}")).collect();
    Ok(Ok(FileStep { puts, change, fuzz, offsets }))
}

/// The spans of a diff without context (`-U0`): each hunk is one span, exactly where it says.
fn change_of_plain_diff(diff: &FileDiff) -> FileChange {
    let spans = match &diff.content {
        Content::Text(hunks) => hunks
            .iter()
            .map(|hunk| {
                let count = |lines: usize| u32::try_from(lines).unwrap_or(u32::MAX);
                let (old_lines, new_lines) = (count(hunk.old_lines().count()), count(hunk.new_lines().count()));
                Span {
                    // A side without lines names the line before.
                    old_start: hunk.old_start + u32::from(old_lines == 0),
                    old_lines,
                    new_start: hunk.new_start + u32::from(new_lines == 0),
                    new_lines,
                }
            })
            .collect(),
        Content::Binary(_) | Content::BinaryWithoutData => Vec::new(),
    };
    let (old_path, new_path) = range::paths(diff, false);
    FileChange { old_path, new_path, spans }
}

#[cfg(test)]
mod tests;
