//! Where packs are while they come: a folder for each process, below one of the home.
//!
//! A process holds the lock of its folder as long as it lives, however it ends. A folder whose lock nobody holds is of one that died, and is
//! removed: clients send again.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

/// A folder without a lock is of a process that begins, or died when it began so long ago.
const BEGINNING: Duration = Duration::from_secs(3600);

/// The folder of this process; it goes with this value.
#[derive(Debug)]
pub struct Incoming {
    folder: TempDir,
    _lock: File,
}

impl Incoming {
    /// A folder of our own; those of processes that died are removed.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(home: &Path) -> std::io::Result<Self> {
        let all = home.join("incoming");
        std::fs::create_dir_all(&all)?;
        let folder = tempfile::Builder::new().prefix("of-").tempdir_in(&all)?;
        let lock = File::create_new(folder.path().join("lock"))?;
        lock.lock()?;
        for entry in std::fs::read_dir(&all)?.flatten() {
            if entry.path() != folder.path() && is_left(&entry.path()) {
                // Somebody else may have been faster.
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        Ok(Self { folder, _lock: lock })
    }

    /// The folder.
    pub fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }
}

fn is_left(path: &Path) -> bool {
    if let Ok(lock) = File::open(path.join("lock")) {
        return lock.try_lock().is_ok();
    }
    let changed = path.metadata().and_then(|meta| meta.modified());
    changed.is_ok_and(|changed| SystemTime::now().duration_since(changed).is_ok_and(|age| age > BEGINNING))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_stays_as_long_as_its_process_lives() {
        let home = tempfile::tempdir().unwrap();
        let one = Incoming::open(home.path()).unwrap();
        let two = Incoming::open(home.path()).unwrap();
        assert!(one.path().is_dir() && one.path() != two.path());
        // A process that died holds no lock, and its folder is there.
        let dead = home.path().join("incoming/of-dead");
        std::fs::create_dir(&dead).unwrap();
        let begins = home.path().join("incoming/of-begins");
        std::fs::create_dir(&begins).unwrap();
        std::fs::write(dead.join("lock"), "").unwrap();
        std::fs::write(dead.join("pack"), "half").unwrap();
        drop(two);
        let _three = Incoming::open(home.path()).unwrap();
        assert!(!dead.exists() && begins.is_dir() && one.path().is_dir());
    }
}
