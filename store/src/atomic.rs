//! Files that are there whole or not at all.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

/// How names of files begin that are being written.
pub(crate) const NEW: &str = ".new-";
/// Such a file to which nobody wrote for this long is of a writer that died.
pub(crate) const LEFTOVER: Duration = Duration::from_secs(3600);

/// A file of the state folder could not be written or read.
#[derive(Debug, Error)]
#[error("cannot {action} '{}': {source}", path.display())]
pub struct FileError {
    /// `write`, `read`, `create`...
    pub action: &'static str,
    /// Which file.
    pub path: PathBuf,
    /// The system's words.
    pub source: std::io::Error,
}

impl FileError {
    pub(crate) fn new(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self { action, path: path.to_owned(), source }
    }
}

/// Writes a file under another name, syncs it and renames it into place. Folders above it are created.
///
/// # Errors
/// With the path, when the folder cannot be made or the file cannot be written; nothing is left behind then.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    replace(path, &[bytes], true)
}

/// Like [`write`], from several pieces. Without `durable` it is not synced: after a power loss the file may be there and
/// empty or torn, so this is for what is sealed and can be made again.
pub(crate) fn replace(path: &Path, pieces: &[&[u8]], durable: bool) -> Result<(), FileError> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let failed = |error| FileError::new("write", path, error);
    let make = || tempfile::Builder::new().prefix(NEW).tempfile_in(folder);
    let mut file = match make() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            std::fs::create_dir_all(folder).map_err(|error| FileError::new("create", folder, error))?;
            make().map_err(failed)?
        }
        made => made.map_err(failed)?,
    };
    for piece in pieces {
        file.write_all(piece).map_err(failed)?;
    }
    if durable {
        file.as_file().sync_data().map_err(failed)?;
    }
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// Reads a file; `None` where there is none.
///
/// # Errors
/// With the path, when it is there and cannot be read.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::new("read", path, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some(&b"two"[..]));
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        assert_eq!(read(&folder.path().join("none")).unwrap(), None);
    }

    #[test]
    fn an_error_names_the_path() {
        let error = write(Path::new("/proc/nothing/here"), b"").unwrap_err();
        assert!(error.to_string().contains("/proc/nothing"), "{error}");
    }
}
