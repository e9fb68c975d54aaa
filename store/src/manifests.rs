//! What compiles were seen to read: the first of two steps of a look-up.
//!
//! The digest of an action covers every file that it sees, and which these are is known only after it ran. A manifest holds
//! the sets that one compile (a command, a toolchain, a main source) was seen to read; a set, with the files as they are
//! now, gives the digest of an action, and that is looked up.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use bombproof_core::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::atomic::FileError;
use crate::table::SealedTable;

/// The kind and version of the files; changed whenever the meaning of a set changes.
const DOMAIN: &str = "bombproof/manifest-file/v1";

/// Sets that one manifest keeps.
pub const MAX_SETS: usize = 16;

/// Names a manifest: the digest of a command, a toolchain and a main source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ManifestKey(pub Digest);

/// What a compile was seen to depend on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DependencySet {
    /// Files that it read, below the input root (`src/include/linux/a.h`, `out/include/generated/b.h`), sorted.
    pub inputs: Vec<String>,
    /// Symbols of the configuration that these mention (`CONFIG_SMP`), sorted.
    pub symbols: Vec<String>,
    /// How the names in its `#include` lines were found: with another digest, another file may be meant.
    pub resolution: Digest,
}

/// Keeps manifests.
///
/// Laws, written once in `laws` and applied to every implementation: sets are given back as they were added, the one
/// that was added last first, each once, at most [`MAX_SETS`]; a key to which nothing was added has no set; a damaged
/// manifest has no set. Of two that add at once, one may be lost.
pub trait Manifests: Send + Sync {
    /// The sets, most recently added first.
    ///
    /// # Errors
    /// When the manifest cannot be read at all.
    fn get(&self, key: &ManifestKey) -> Result<Vec<DependencySet>, FileError>;

    /// Adds a set, or moves it to the front: to be called for each use. The one that was not used for longest goes when
    /// there are too many.
    ///
    /// # Errors
    /// When it cannot be written; nothing is half-written then.
    fn add(&self, key: &ManifestKey, set: &DependencySet) -> Result<(), FileError>;
}

/// The sets after one was used; `None`: as they were.
fn with(sets: &[DependencySet], set: &DependencySet) -> Option<Vec<DependencySet>> {
    if sets.first() == Some(set) {
        return None;
    }
    let others = sets.iter().filter(|other| *other != set);
    Some(std::iter::once(set).chain(others).take(MAX_SETS).cloned().collect())
}

/// Manifests as sealed files.
#[derive(Clone, Debug)]
pub struct FileManifests(SealedTable<Vec<DependencySet>>);

impl FileManifests {
    /// Manifests in this folder.
    pub fn at(folder: PathBuf) -> Self {
        Self(SealedTable::at(folder, DOMAIN))
    }

    /// The files themselves.
    pub fn table(&self) -> &SealedTable<Vec<DependencySet>> {
        &self.0
    }
}

impl Manifests for FileManifests {
    fn get(&self, key: &ManifestKey) -> Result<Vec<DependencySet>, FileError> {
        Ok(self.0.get(&key.0)?.unwrap_or_default())
    }

    fn add(&self, key: &ManifestKey, set: &DependencySet) -> Result<(), FileError> {
        with(&self.get(key)?, set).map_or(Ok(()), |sets| self.0.put(&key.0, &sets))
    }
}

/// Manifests in memory, for tests.
#[derive(Debug, Default)]
pub struct MemoryManifests(Mutex<HashMap<ManifestKey, Vec<DependencySet>>>);

impl Manifests for MemoryManifests {
    fn get(&self, key: &ManifestKey) -> Result<Vec<DependencySet>, FileError> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned().unwrap_or_default())
    }

    fn add(&self, key: &ManifestKey, set: &DependencySet) -> Result<(), FileError> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sets = all.entry(*key).or_default();
        if let Some(new) = with(sets, set) {
            *sets = new;
        }
        Ok(())
    }
}

/// The laws of all manifests.
#[cfg(test)]
pub(crate) mod laws {
    use super::*;

    pub(crate) fn set(number: usize) -> DependencySet {
        DependencySet {
            inputs: vec!["out/include/generated/b.h".to_owned(), format!("src/include/linux/{number}.h")],
            symbols: vec!["CONFIG_SMP".to_owned()],
            resolution: Digest::of(b"found"),
        }
    }

    pub(crate) fn hold(manifests: &dyn Manifests) {
        let [key, other] = ["key", "other"].map(|name| ManifestKey(Digest::of(name.as_bytes())));
        assert_eq!(manifests.get(&key).unwrap(), [], "nothing was added");
        for number in 0..3 {
            manifests.add(&key, &set(number)).unwrap();
        }
        assert_eq!(manifests.get(&key).unwrap(), [set(2), set(1), set(0)]);
        manifests.add(&key, &set(2)).unwrap();
        manifests.add(&key, &set(0)).unwrap();
        assert_eq!(manifests.get(&key).unwrap(), [set(0), set(2), set(1)], "each once");
        assert_eq!(manifests.get(&other).unwrap(), []);
        for number in 10..10 + MAX_SETS {
            manifests.add(&key, &set(number)).unwrap();
        }
        let want: Vec<_> = (10..10 + MAX_SETS).rev().map(set).collect();
        assert_eq!(manifests.get(&key).unwrap(), want, "the others were unused for longer");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_laws_hold() {
        laws::hold(&MemoryManifests::default());
        let folder = tempfile::tempdir().unwrap();
        laws::hold(&FileManifests::at(folder.path().to_owned()));
    }

    #[test]
    fn a_damaged_manifest_is_begun_again() {
        let folder = tempfile::tempdir().unwrap();
        let manifests = FileManifests::at(folder.path().to_owned());
        let key = ManifestKey(Digest::of(b"key"));
        manifests.add(&key, &laws::set(0)).unwrap();
        std::fs::write(manifests.table().path(&key.0), "rubbish").unwrap();
        assert_eq!(manifests.get(&key).unwrap(), []);
        manifests.add(&key, &laws::set(1)).unwrap();
        assert_eq!(manifests.get(&key).unwrap(), [laws::set(1)]);
    }

    #[test]
    fn those_that_add_at_once_do_no_damage() {
        let folder = tempfile::tempdir().unwrap();
        let manifests = FileManifests::at(folder.path().to_owned());
        let key = ManifestKey(Digest::of(b"key"));
        std::thread::scope(|scope| {
            for adder in 0..4 {
                let manifests = &manifests;
                scope.spawn(move || {
                    for round in 0..25 {
                        manifests.add(&key, &laws::set(adder * 100 + round)).unwrap();
                        assert!(!manifests.get(&key).unwrap().is_empty());
                    }
                });
            }
        });
        manifests.add(&key, &laws::set(1000)).unwrap();
        assert_eq!(manifests.get(&key).unwrap()[0], laws::set(1000));
    }
}
