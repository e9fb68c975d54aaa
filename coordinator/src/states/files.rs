//! The files that a series touches, in memory, as they are after the patches so far.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bombproof_core::id::Oid;
use bombproof_core::series::Patch;
use bombproof_core::tree::FileMode;

use super::StatesError;
use super::ahead::Ahead;
use super::git::{Git, Talk};

/// A file.
#[derive(Clone, Debug)]
pub(super) struct File {
    pub(super) mode: FileMode,
    pub(super) content: Stored,
}

/// Where a file's content is.
#[derive(Clone, Debug)]
pub(super) enum Stored {
    /// In the user's repository, not read yet.
    Blob(Oid),
    /// Read or made.
    Bytes(Arc<Vec<u8>>),
}

/// What a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Absent,
    File,
    Folder,
}

/// The files, over a base tree that is read on demand.
pub(super) struct Files {
    base: Oid,
    /// Answers questions about the base tree.
    reader: Talk,
    /// Brings the contents.
    ahead: Ahead,
    /// Every path that the series names.
    entries: HashMap<String, Option<File>>,
    /// What other paths (folders on the way) are in the base.
    kinds: HashMap<String, Kind>,
    /// Paths of `entries` that exist, for "is it a folder now".
    present: BTreeSet<String>,
}

/// How many paths are given to git in one command: far below the limit of a command line.
const PATHS_AT_ONCE: usize = 1_000;

impl Files {
    /// Looks up every path that the series names.
    pub(super) fn open(git: &Git, base: &Oid, patches: &[Patch]) -> Result<Self, StatesError> {
        // Both are starting while the paths are looked up.
        let (reader, contents) = (git.talk(["cat-file", "--batch"])?, git.talk(["cat-file", "--batch"])?);
        let named: BTreeSet<&str> = patches
            .iter()
            .flat_map(|patch| &patch.files)
            .flat_map(|diff| [diff.old_path.as_deref(), diff.new_path.as_deref()])
            .flatten()
            .collect();
        let mut entries: HashMap<String, Option<File>> = named.iter().map(|path| ((*path).to_owned(), None)).collect();
        let named: Vec<&str> = named.into_iter().collect();
        for some in named.chunks(PATHS_AT_ONCE) {
            let args = ["--literal-pathspecs", "ls-tree", "-r", "-z", "--full-tree", base.as_str(), "--"];
            let listed = git.run(args.iter().chain(some))?;
            for (mode, oid, path) in super::trees::listing(&listed)? {
                if let Some(entry) = entries.get_mut(&path) {
                    *entry = Some(File { mode, content: Stored::Blob(oid) });
                }
            }
        }
        let present = entries.iter().filter(|(_, file)| file.is_some()).map(|(path, _)| path.clone()).collect();
        let mut asked: BTreeSet<&str> = BTreeSet::new();
        let wanted = patches
            .iter()
            .flat_map(|patch| &patch.files)
            .flat_map(|diff| [diff.old_path.as_deref(), diff.new_path.as_deref()])
            .flatten()
            .filter(|path| asked.insert(path))
            .filter_map(|path| match entries.get(path)?.as_ref()? {
                File { mode: FileMode::Gitlink, .. } | File { content: Stored::Bytes(_), .. } => None,
                File { content: Stored::Blob(oid), .. } => Some((path.to_owned(), oid.clone())),
            })
            .collect();
        let ahead = Ahead::start(contents, wanted);
        Ok(Self { base: base.clone(), reader, ahead, entries, kinds: HashMap::new(), present })
    }

    /// The file at a path.
    pub(super) fn get(&self, path: &str) -> Option<&File> {
        self.entries.get(path)?.as_ref()
    }

    /// The content of the file at a path.
    pub(super) fn content(&mut self, path: &str) -> Result<Option<Arc<Vec<u8>>>, StatesError> {
        let Some(Some(file)) = self.entries.get_mut(path) else { return Ok(None) };
        let oid = match &file.content {
            Stored::Bytes(bytes) => return Ok(Some(Arc::clone(bytes))),
            Stored::Blob(oid) => oid.clone(),
        };
        let bytes = Arc::new(match file.mode {
            FileMode::Gitlink => format!("Subproject commit {oid}\n").into_bytes(),
            FileMode::Regular | FileMode::Executable | FileMode::Symlink => self
                .ahead
                .take(path)?
                .ok_or_else(|| StatesError::damaged(format!("blob {oid} of '{path}' is missing")))?,
        });
        file.content = Stored::Bytes(Arc::clone(&bytes));
        Ok(Some(bytes))
    }

    /// Why a file cannot be made at a path where none is; `None`: it can.
    pub(super) fn in_the_way(&mut self, path: &str) -> Result<Option<String>, StatesError> {
        let below = format!("{path}/");
        let folder_now = self.present.range(below.clone()..).next().is_some_and(|found| found.starts_with(&below));
        if folder_now {
            return Ok(Some(format!("{path}: is a folder")));
        }
        if self.kind(path)? == Kind::Folder && !self.emptied(&below)? {
            return Ok(Some(format!("{path}: is a folder")));
        }
        let parents = path.match_indices('/').map(|(at, _)| path.split_at(at).0.to_owned());
        for parent in parents.collect::<Vec<_>>() {
            let now = match self.entries.get(&parent) {
                Some(Some(file)) => return Ok(Some(way_through(path, &parent, file.mode))),
                Some(None) => Kind::Absent,
                None => self.kind(&parent)?,
            };
            if now == Kind::File {
                return Ok(Some(format!("{path}: leads through '{parent}', which is a file or a link")));
            }
        }
        Ok(None)
    }

    /// Whether every file of a folder of the base was deleted by the series: then the series names them all.
    fn emptied(&mut self, below: &str) -> Result<bool, StatesError> {
        self.reader.write(format!("{}:{}\n", self.base, below.trim_end_matches('/')).as_bytes())?;
        let Some(tree) = self.reader.object(true)? else { return Ok(true) };
        let mut names = Vec::new();
        let mut rest = tree.bytes.as_slice();
        // `<mode> <name> NUL <raw id>`
        while let Some(end) = rest.iter().position(|byte| *byte == 0) {
            let name = rest[..end].split(|byte| *byte == b' ').nth(1).unwrap_or_default();
            names.push(String::from_utf8_lossy(name).into_owned());
            rest = rest.get(end + 1 + self.base.as_str().len() / 2..).unwrap_or_default();
        }
        Ok(names.iter().all(|name| matches!(self.entries.get(&format!("{below}{name}")), Some(None))))
    }

    fn kind(&mut self, path: &str) -> Result<Kind, StatesError> {
        if let Some(kind) = self.kinds.get(path) {
            return Ok(*kind);
        }
        self.reader.write(format!("{}:{path}\n", self.base).as_bytes())?;
        let kind = match self.reader.object(true)? {
            None => Kind::Absent,
            Some(object) if object.kind == "tree" => Kind::Folder,
            Some(_) => Kind::File,
        };
        self.kinds.insert(path.to_owned(), kind);
        Ok(kind)
    }

    /// The tree object of this id.
    pub(super) fn tree(&mut self, oid: &str) -> Result<Vec<u8>, StatesError> {
        self.reader.write(format!("{oid}\n").as_bytes())?;
        match self.reader.object(true)? {
            Some(object) if object.kind == "tree" => Ok(object.bytes),
            Some(_) | None => Err(StatesError::damaged(format!("tree {oid} is missing"))),
        }
    }

    /// Puts a file (`None`: removes it).
    pub(super) fn put(&mut self, path: &str, file: Option<File>) {
        if file.is_some() {
            self.present.insert(path.to_owned());
        } else {
            self.present.remove(path);
        }
        self.entries.insert(path.to_owned(), file);
    }
}

fn way_through(path: &str, parent: &str, mode: FileMode) -> String {
    let what = if mode == FileMode::Symlink { "a symbolic link" } else { "a file" };
    format!("{path}: leads through '{parent}', which is {what}")
}
