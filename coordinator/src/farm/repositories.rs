//! The repositories of a coordinator, by name.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

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

/// All repositories.
pub struct Repositories {
    folder: PathBuf,
    lenders: BTreeMap<String, PathBuf>,
    open: Mutex<HashMap<String, Arc<Depot>>>,
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

    /// The repository of a name that [`Repositories::name`] gave.
    ///
    /// # Errors
    /// When there is none, or it cannot be made.
    pub fn open(&self, name: &str) -> Result<Arc<Depot>, RepositoryError> {
        let name = self.name(name)?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(depot) = open.get(&name) {
            return Ok(Arc::clone(depot));
        }
        let folder = self.folder.join(format!("{name}.git"));
        let depot = Arc::new(Depot::open(&folder, self.lenders.get(&name).map(PathBuf::as_path))?);
        open.insert(name, Arc::clone(&depot));
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
}
