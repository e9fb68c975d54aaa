//! Files in folders that builds write: reached without leaving the folder, whatever links a build put there.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

/// A file below a folder. The folder that it is in is held open: a build that puts something else into its place changes nothing.
#[derive(Debug)]
pub(crate) struct Beneath {
    folder: File,
    name: String,
}

impl Beneath {
    /// The file at `path` below `root`; it need not be there, its folder must.
    ///
    /// # Errors
    /// When its folder is not there, or is not below `root`.
    pub(crate) fn of(root: &Path, path: &str) -> io::Result<Self> {
        let (folder, name) = path.rsplit_once('/').unwrap_or((".", path));
        if matches!(name, "" | "." | "..") {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("'{path}' names no file")));
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = open(root, flags, Mode::empty())?;
        let how =
            OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let folder = File::from(openat2(&root, if folder.is_empty() { "." } else { folder }, how)?);
        Ok(Self { folder, name: name.to_owned() })
    }

    /// A name by which this process reaches the file; its last part may be a link that a build made.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{}", self.folder.as_raw_fd(), self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_link_leads_out() {
        let folder = tempfile::tempdir().unwrap();
        let (root, other) = (folder.path().join("root"), folder.path().join("other"));
        for folder in [&root.join("sub"), &other] {
            std::fs::create_dir_all(folder).unwrap();
        }
        for (target, link) in
            [(other.as_path(), "absolute"), (Path::new("../other"), "relative"), (Path::new("sub"), "inside")]
        {
            std::os::unix::fs::symlink(target, root.join(link)).unwrap();
        }
        for (path, works) in [
            ("file", true),
            ("sub/file", true),
            ("inside/file", true),
            ("absolute/file", false),
            ("relative/file", false),
            ("../other/file", false),
            ("/other/file", false),
            ("sub/..", false),
            ("none/file", false),
        ] {
            let found = Beneath::of(&root, path);
            assert_eq!(found.is_ok(), works, "{path}");
            if let Ok(found) = found {
                std::fs::write(found.path(), path).unwrap();
            }
        }
        assert_eq!(std::fs::read_dir(&other).unwrap().count(), 0);
        assert_eq!(std::fs::read_to_string(root.join("sub/file")).unwrap(), "inside/file");
    }
}
