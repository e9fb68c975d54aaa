//! The repositories of a coordinator: for each project and each name one, which borrows from that of the operator.
//!
//! What a project hands in is in repositories of its own. So no project can name a commit, a tree or a blob that another one handed in, and
//! what both handed in is there for both.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bombproof_core::access::ProjectId;
use thiserror::Error;

use crate::states::{Depot, StatesError};

/// Where packs go that name no repository.
const DEFAULT: &str = "default";
/// Longest name, in bytes.
const MAX_NAME_BYTES: usize = 100;

/// A repository cannot be used.
#[derive(Debug, Error)]
pub enum RepositoryError {
    /// It is not there.
    #[error("there is no repository '{name}' here; known: {known}")]
    Unknown {
        /// As asked for.
        name: String,
        /// Those that are.
        known: String,
    },
    /// The name is none.
    #[error("'{name}' is no name for a repository: letters, digits, '.', '_' and '-' make one")]
    Name {
        /// As asked for.
        name: String,
    },
    /// Git.
    #[error(transparent)]
    States(#[from] StatesError),
}

/// What workers call a repository: `linux` of the default project, `drivers/linux` of the project `drivers`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shelf {
    /// Whose it is.
    pub project: ProjectId,
    /// The repository, as users call it.
    pub name: String,
}

impl fmt::Display for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.project.is_default() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.project, self.name) }
    }
}

impl Shelf {
    /// From what a worker says.
    ///
    /// # Errors
    /// When the project is none; the name is looked at where it is opened.
    pub fn parse(text: &str) -> Result<Self, RepositoryError> {
        let (project, name) = match text.split_once('/') {
            Some((project, name)) => {
                let wrong = |_| RepositoryError::Name { name: text.chars().take(MAX_NAME_BYTES).collect() };
                (project.parse().map_err(wrong)?, name)
            }
            None => (ProjectId::default(), text),
        };
        Ok(Self { project, name: name.to_owned() })
    }
}

/// All repositories.
pub struct Repositories {
    folder: PathBuf,
    lenders: BTreeMap<String, PathBuf>,
    open: Mutex<HashMap<Shelf, Arc<Depot>>>,
}

impl Repositories {
    /// Repositories of our own in `folder`, which borrow from those that the operator named.
    pub fn new(folder: PathBuf, lenders: BTreeMap<String, PathBuf>) -> Self {
        Self { folder, lenders, open: Mutex::default() }
    }

    /// The name that is meant: without one, the only repository, or that for all packs where the operator named none.
    ///
    /// # Errors
    /// When none, or more than one, may be meant.
    pub fn name(&self, asked: &str) -> Result<String, RepositoryError> {
        let known = || self.lenders.keys().cloned().collect::<Vec<_>>().join(", ");
        let fine = |name: &str| {
            name.len() <= MAX_NAME_BYTES
                && !name.starts_with('.')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
        };
        match (asked, self.lenders.len()) {
            ("", 0) => Ok(DEFAULT.to_owned()),
            ("", 1) => Ok(known()),
            (name, _) if !fine(name) => Err(RepositoryError::Name { name: name.to_owned() }),
            (name, 0) if name == DEFAULT => Ok(name.to_owned()),
            (name, _) if self.lenders.contains_key(name) => Ok(name.to_owned()),
            (name, _) => Err(RepositoryError::Unknown { name: name.to_owned(), known: known() }),
        }
    }

    /// The repository that a project has under a name that [`Repositories::name`] gave.
    ///
    /// # Errors
    /// When there is none, or it cannot be made.
    pub fn open(&self, shelf: &Shelf) -> Result<Arc<Depot>, RepositoryError> {
        let shelf = Shelf { project: shelf.project.clone(), name: self.name(&shelf.name)? };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(depot) = open.get(&shelf) {
            return Ok(Arc::clone(depot));
        }
        let file = format!("{}.git", shelf.name);
        // Those of the default project are where all were before there were projects; no repository is called `projects` there.
        let folder = if shelf.project.is_default() {
            self.folder.join(file)
        } else {
            self.folder.join("projects").join(shelf.project.as_str()).join(file)
        };
        let depot = Arc::new(Depot::open(&folder, self.lenders.get(&shelf.name).map(PathBuf::as_path))?);
        open.insert(shelf, Arc::clone(&depot));
        Ok(depot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_one_repository_or_none() {
        let of = |names: &[&str]| {
            let lenders = names.iter().map(|name| ((*name).to_owned(), PathBuf::from("/x"))).collect();
            Repositories::new(PathBuf::from("/nowhere"), lenders)
        };
        for (known, asked, want) in [
            (&[][..], "", Some("default")),
            (&[], "default", Some("default")),
            (&[], "linux", None),
            (&["linux"], "", Some("linux")),
            (&["linux"], "linux", Some("linux")),
            (&["linux"], "default", None),
            (&["linux", "qemu"], "", None),
            (&["linux", "qemu"], "qemu", Some("qemu")),
            (&["linux"], "../linux", None),
            (&["linux"], ".git", None),
        ] {
            assert_eq!(of(known).name(asked).ok().as_deref(), want, "{known:?} {asked}");
        }
    }

    #[test]
    fn workers_name_the_project_and_each_has_a_repository_of_its_own() {
        let shelf = |project: &str, name: &str| Shelf { project: project.parse().unwrap(), name: name.to_owned() };
        for (text, want) in [("linux", shelf("default", "linux")), ("net/linux", shelf("net", "linux"))] {
            assert_eq!(Shelf::parse(text).unwrap(), want);
            assert_eq!(want.to_string(), text);
        }
        let folder = tempfile::tempdir().unwrap();
        let all = Repositories::new(folder.path().to_owned(), BTreeMap::new());
        for text in ["../x", "/default", "..//default", "net/../default", "net/", "a/b/c", "net/.git"] {
            let opened = Shelf::parse(text).and_then(|shelf| all.open(&shelf));
            let fine = opened.map(|depot| depot.path().to_owned());
            assert!(fine.is_err() || text == "net/", "{text}: {fine:?}");
        }
        let path = |project: &str| all.open(&shelf(project, "default")).unwrap().path().to_owned();
        assert_eq!(path("default"), folder.path().join("default.git"));
        assert_eq!(path("net"), folder.path().join("projects/net/default.git"));
        assert_eq!(path("default.git"), folder.path().join("projects/default.git/default.git"));
    }
}
