//! Who builds run as in containers.
//!
//! The user of the worker, if that is an ordinary one. Root without any capability still owns files of the machine (those below
//! `/proc/sys`, for example), so a worker that is root has its builds run as somebody else, and makes over to that user
//! what builds may write.

use std::io;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::Path;

/// The user and the group of builds, where the worker is root.
const BUILDER: u32 = 1000;

/// Who builds run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    user: u32,
    group: u32,
    /// Another one than the worker.
    other: bool,
}

impl Owner {
    /// For a worker that this user runs.
    pub(super) fn of_worker(user: u32, group: u32) -> Self {
        match user {
            0 => Self { user: BUILDER, group: BUILDER, other: true },
            user => Self { user, group, other: false },
        }
    }

    /// For this process.
    pub(super) fn of_this_process() -> Self {
        Self::of_worker(nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw())
    }

    /// `USER:GROUP`, as engines want it.
    pub(super) fn words(self) -> String {
        format!("{}:{}", self.user, self.group)
    }

    /// Makes a file, or a folder with all that is in it, this user's. No build may be running in there.
    ///
    /// # Errors
    /// When the owner cannot be changed.
    pub fn take(self, path: &Path) -> io::Result<()> {
        if !self.other {
            return Ok(());
        }
        let mut open = vec![path.to_owned()];
        while let Some(path) = open.pop() {
            let kind = std::fs::symlink_metadata(&path)?;
            if (kind.uid(), kind.gid()) != (self.user, self.group) {
                lchown(&path, Some(self.user), Some(self.group))?;
            }
            if kind.is_dir() {
                for entry in std::fs::read_dir(&path)? {
                    open.push(entry?.path());
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_never_run_as_root() {
        for (user, want) in [(0, "1000:1000"), (1234, "1234:77")] {
            assert_eq!(Owner::of_worker(user, 77).words(), want);
        }
    }

    #[test]
    fn an_ordinary_user_changes_no_owner() {
        assert!(Owner::of_worker(1234, 77).take(Path::new("/nonexistent")).is_ok());
    }
}
