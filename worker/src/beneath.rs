//! Files in folders that builds write: reached without leaving the folder, whatever links a build put there.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

/// A folder that is held open.
#[derive(Debug)]
pub(crate) struct Root {
    path: PathBuf,
    folder: OwnedFd,
}

/// A file below a folder. The folder that it is in is held open: a build that puts something else into its place changes nothing.
#[derive(Debug)]
pub(crate) struct Beneath {
    folder: OwnedFd,
    name: String,
}

/// What leads out of the folder is not there.
fn not_there(error: Errno) -> io::Error {
    let leads_out = matches!(error, Errno::EXDEV | Errno::ELOOP | Errno::ENXIO);
    if leads_out { io::ErrorKind::NotFound.into() } else { error.into() }
}

impl Root {
    /// This folder.
    ///
    /// # Errors
    /// When it is not there.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self { path: path.to_owned(), folder: open(path, flags, Mode::empty())? })
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn open(&self, path: &str, flags: OFlag) -> io::Result<OwnedFd> {
        let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
        openat2(&self.folder, path, how).map_err(not_there)
    }

    /// A regular file below it, to be read; the error is `NotFound` for everything else that has that name.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn file(&self, path: &str) -> io::Result<(File, std::fs::Metadata)> {
        // A named pipe in its place would be waited for.
        let file = File::from(self.open(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK)?);
        let kind = file.metadata()?;
        if kind.is_file() { Ok((file, kind)) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// The place of a file below it, which need not be there; its folder must.
    ///
    /// # Errors
    /// When its folder is not there, or is not below this one.
    pub(crate) fn place(&self, path: &str) -> io::Result<Beneath> {
        let (folder, name) = path.rsplit_once('/').unwrap_or((".", path));
        if matches!(name, "" | "." | "..") {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("'{path}' names no file")));
        }
        let folder = if folder.is_empty() { "/" } else { folder };
        Ok(Beneath { folder: self.open(folder, OFlag::O_PATH | OFlag::O_DIRECTORY)?, name: name.to_owned() })
    }
}

impl Beneath {
    /// A name by which this process reaches the file; its last part may be a link that a build made.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{}", self.folder.as_raw_fd(), self.name))
    }

    /// Takes away what is there.
    ///
    /// # Errors
    /// When it cannot be.
    pub(crate) fn remove(&self) -> io::Result<()> {
        match std::fs::remove_file(self.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// The content of a regular file at `path` below `root`.
///
/// # Errors
/// `NotFound` where there is none below `root`.
pub(crate) fn read(root: &Path, path: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    Root::at(root)?.file(path)?.0.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes a new file at `path` below `root`, in the place of whatever is there.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write(root: &Path, path: &str, bytes: &[u8]) -> io::Result<()> {
    let place = Root::at(root)?.place(path)?;
    place.remove()?;
    File::options().write(true).create_new(true).open(place.path())?.write_all(bytes)
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
            let found = Root::at(&root).unwrap().place(path);
            assert_eq!(found.is_ok(), works, "{path}");
            if let Ok(found) = found {
                std::fs::write(found.path(), path).unwrap();
            }
        }
        assert_eq!(std::fs::read_dir(&other).unwrap().count(), 0);
        std::fs::write(other.join("secret"), "hidden").unwrap();
        nix::unistd::mkfifo(&root.join("pipe"), Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink(other.join("secret"), root.join("link")).unwrap();
        for path in ["absolute/secret", "relative/secret", "link", "pipe", "sub", "none", "../other/secret"] {
            assert_eq!(read(&root, path).unwrap_err().kind(), io::ErrorKind::NotFound, "{path}");
        }
        for path in ["link", "pipe"] {
            write(&root, path, b"new").unwrap();
            assert_eq!(read(&root, path).unwrap(), b"new", "{path}");
        }
        assert_eq!(std::fs::read_to_string(other.join("secret")).unwrap(), "hidden");
        assert_eq!(std::fs::read_to_string(root.join("sub/file")).unwrap(), "inside/file");
    }
}
