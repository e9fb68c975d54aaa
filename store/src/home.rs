//! The state folder and what lies where in it.
//!
//! ```text
//! results/<2 hex>/<62 hex>   settled results of states, by target and tree
//! runs/<id>/                 one folder a run: run.json, report.json, logs/
//! objects/<digest>/          private git object stores, one for each of the user's repositories
//! trees/<digest>/            source trees and build folders, one for each target, lane and repository
//! toolchains/                digests of compilers that were seen
//! cas/<2 hex>/<62 hex>       blobs by the digest of their content (see [`crate::cas`] for the rest of this folder)
//! actions/<2 hex>/<62 hex>   results of actions, by action
//! manifests/<2 hex>/<62 hex> what compiles were seen to read, by command, toolchain and main source
//! graphs/<2 hex>/<62 hex>    what builds are made of
//! containers/                our program as containers have it, locks of workers that have containers
//! register.redb              of a coordinator: accepted series
//! repositories/<name>.git    of a coordinator: repositories of its own, which borrow from the operator's
//! incoming/                  of a coordinator: packs on their way
//! objects.names              of a worker: which blobs git objects are
//! logs/                      of a worker: what attempts print
//! ```
//!
//! `results`, `runs` and `register.redb` hold what cannot be had again; everything else may be deleted at any time when nothing runs, and is
//! made again at the price of work.

use std::fs::File;
use std::path::{Path, PathBuf};

use bombproof_core::digest::{Digest, DigestBuilder};
use bombproof_core::id::RunId;
use thiserror::Error;

use crate::atomic::FileError;

/// No place for the state folder is known.
#[derive(Debug, Error)]
#[error(
    "no place for the state folder: none of BOMBPROOF_HOME, XDG_DATA_HOME and HOME is set; set BOMBPROOF_HOME to a folder"
)]
pub struct NoHome;

/// The state folder.
#[derive(Clone, Debug)]
pub struct Home {
    root: PathBuf,
}

impl Home {
    /// The folder from `BOMBPROOF_HOME`, else `$XDG_DATA_HOME/bombproof`, else `~/.local/share/bombproof`.
    ///
    /// # Errors
    /// When none of the three is set.
    pub fn from_environment(variable: impl Fn(&str) -> Option<PathBuf>) -> Result<Self, NoHome> {
        let given = |name: &str| variable(name).filter(|path| !path.as_os_str().is_empty());
        let root = given("BOMBPROOF_HOME")
            .or_else(|| given("XDG_DATA_HOME").map(|data| data.join("bombproof")))
            .or_else(|| given("HOME").map(|home| home.join(".local/share/bombproof")))
            .ok_or(NoHome)?;
        Ok(Self::at(&root))
    }

    /// This folder; made absolute, so that a later change of the working folder does not matter.
    pub fn at(root: &Path) -> Self {
        Self { root: std::path::absolute(root).unwrap_or_else(|_| root.to_owned()) }
    }

    /// Makes sure that the folder is there and can be written.
    ///
    /// # Errors
    /// With the path and the system's words.
    pub fn prepare(&self) -> Result<(), FileError> {
        let failed = |error| FileError::new("write to the state folder", &self.root, error);
        std::fs::create_dir_all(&self.root).map_err(failed)?;
        let mut probe = tempfile::tempfile_in(&self.root).map_err(failed)?;
        // An empty file can be made on a full disk; a block of data cannot.
        std::io::Write::write_all(&mut probe, &[0; 65_536]).map_err(failed)
    }

    /// Writes so many MiB to the disk of the folder, and gives them back: what a machine says of its disk, not what somebody
    /// printed of it.
    ///
    /// # Errors
    /// With the path and the system's words.
    pub fn try_disk(&self, mib: u32) -> Result<(), FileError> {
        let failed = |error| FileError::new("write to the state folder", &self.root, error);
        let mut file = tempfile::tempfile_in(&self.root).map_err(failed)?;
        let written = (0..mib).try_for_each(|_| std::io::Write::write_all(&mut file, &[0; 1 << 20]));
        written.and_then(|()| file.sync_data()).map_err(failed)
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where results lie.
    pub fn results(&self) -> PathBuf {
        self.root.join("results")
    }

    /// Where runs lie.
    pub fn runs(&self) -> PathBuf {
        self.root.join("runs")
    }

    /// The folder of one run.
    pub fn run(&self, id: &RunId) -> PathBuf {
        self.runs().join(id.as_str())
    }

    /// Where digests of compilers are remembered.
    pub fn toolchains(&self) -> PathBuf {
        self.root.join("toolchains")
    }

    /// Where blobs lie.
    pub fn cas(&self) -> PathBuf {
        self.root.join("cas")
    }

    /// Where results of actions lie.
    pub fn actions(&self) -> PathBuf {
        self.root.join("actions")
    }

    /// Where it lies what compiles were seen to read.
    pub fn manifests(&self) -> PathBuf {
        self.root.join("manifests")
    }

    /// Where graphs of builds lie.
    pub fn graphs(&self) -> PathBuf {
        self.root.join("graphs")
    }

    /// Where build folders lie; the only part of all this that containers of builds see.
    pub fn trees(&self) -> PathBuf {
        self.root.join("trees")
    }

    /// Where it lies what containers of builds are started with.
    pub fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// The private object store for a repository, named after its real path. Several processes may add to it at once:
    /// each writes packs and references of its own.
    pub fn objects(&self, repository: &Path) -> PathBuf {
        self.root.join("objects").join(path_digest(repository).short())
    }

    /// Takes a build folder for `key` that no other process uses: the first free one of `key-0`, `key-1`...
    ///
    /// # Errors
    /// When the folder or its lock cannot be made.
    pub fn take_tree(&self, key: &Digest) -> Result<TreeLease, FileError> {
        let folder = self.trees();
        std::fs::create_dir_all(&folder).map_err(|error| FileError::new("create", &folder, error))?;
        for number in 0..1_000 {
            let path = folder.join(format!("{}-{number}", key.short()));
            let lock_path = path.with_extension("lock");
            let failed = |error| FileError::new("lock", &lock_path, error);
            let lock = File::options().create(true).truncate(false).write(true).open(&lock_path).map_err(failed)?;
            match lock.try_lock() {
                Ok(()) => {
                    std::fs::create_dir_all(&path).map_err(|error| FileError::new("create", &path, error))?;
                    return Ok(TreeLease { path, _lock: lock });
                }
                Err(std::fs::TryLockError::WouldBlock) => {}
                Err(std::fs::TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        let full = std::io::Error::other("1,000 build folders of this kind are in use");
        Err(FileError::new("lock", &folder, full))
    }
}

/// A build folder that is ours as long as this value lives; the lock goes with the process, however it ends.
#[derive(Debug)]
pub struct TreeLease {
    path: PathBuf,
    _lock: File,
}

impl TreeLease {
    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn path_digest(path: &Path) -> Digest {
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    DigestBuilder::new("bombproof/path/v1").field(real.as_os_str().as_encoded_bytes()).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_comes_from_the_first_variable_that_is_set() {
        type Row<'a> = (&'a [(&'a str, &'a str)], Option<&'a str>);
        let table: [Row<'_>; 5] = [
            (&[("BOMBPROOF_HOME", "/b"), ("HOME", "/h")], Some("/b")),
            (&[("XDG_DATA_HOME", "/x"), ("HOME", "/h")], Some("/x/bombproof")),
            (&[("HOME", "/h")], Some("/h/.local/share/bombproof")),
            (&[("BOMBPROOF_HOME", ""), ("HOME", "/h")], Some("/h/.local/share/bombproof")),
            (&[], None),
        ];
        for (set, want) in table {
            let look = |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| PathBuf::from(value));
            let got = Home::from_environment(look).ok();
            assert_eq!(got.as_ref().map(Home::root), want.map(Path::new), "{set:?}");
        }
    }

    #[test]
    fn a_build_folder_belongs_to_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        let key = Digest::of(b"k");
        let first = home.take_tree(&key).unwrap();
        let second = home.take_tree(&key).unwrap();
        assert_ne!(first.path(), second.path());
        let path = first.path().to_owned();
        drop(first);
        assert_eq!(home.take_tree(&key).unwrap().path(), path);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_said() {
        let error = Home::at(Path::new("/proc/bombproof")).prepare().unwrap_err();
        assert!(error.to_string().contains("/proc/bombproof"), "{error}");
    }
}
