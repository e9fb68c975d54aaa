//! Intake: whatever the user names becomes a series.
//!
//! What it is is told by what is there, not by a switch: standard input, a folder (maildir, quilt, patches) or a file
//! (mbox, one mail or patch, a `series` file). A git range is for [`crate::states`]: its states are there already.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use bombproof_core::series::diff::DiffError;
use bombproof_core::series::mail::{self, MailError};
use bombproof_core::series::quilt::{self, QuiltError};
use bombproof_core::series::{Series, diff};
use thiserror::Error;

mod folder;

/// Largest patch file, in bytes.
pub const MAX_PATCH_BYTES: u64 = 64 << 20;
/// Largest mbox or standard input, in bytes.
const MAX_MBOX_BYTES: u64 = 1 << 30;
/// How much fuzz quilt allows by default (that of patch(1)).
const QUILT_FUZZ: u32 = 2;

/// A series that cannot be read: always the request's fault.
#[derive(Debug, Error)]
pub enum IngestError {
    /// It cannot be read.
    #[error("cannot read '{}': {detail}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// The system's words.
        detail: String,
    },
    /// It is too large.
    #[error("'{}' is larger than {} MiB: this is not a patch", path.display(), limit_bytes >> 20)]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// The limit.
        limit_bytes: u64,
    },
    /// A patch cannot be read.
    #[error("'{file}' is not a patch: {error}")]
    Patch {
        /// Which file.
        file: String,
        /// What is wrong with it.
        error: DiffError,
    },
    /// Mails that make no series.
    #[error(transparent)]
    Mail(#[from] MailError),
    /// A series file with an error.
    #[error("series file '{}', {error}", path.display())]
    Quilt {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        error: QuiltError,
    },
    /// A series file names files that are not there.
    #[error("series file '{}' names {}: {}", path.display(), if missing.len() == 1 { "a patch that is not there" } else { "patches that are not there" }, missing.join(", "))]
    MissingPatches {
        /// The series file.
        path: PathBuf,
        /// `line 3: name`, at most 20.
        missing: Vec<String>,
    },
    /// A series file that names itself.
    #[error("series file '{}' names itself", .0.display())]
    NamesItself(PathBuf),
    /// Nothing is in it.
    #[error("'{0}' holds no patch")]
    Empty(String),
    /// No series is recognised in it.
    #[error("'{}' is neither a patch, a mailbox, nor a quilt series file", .0.display())]
    Unknown(PathBuf),
}

impl IngestError {
    /// What the user may do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Read { .. } => Some("give a file or a folder that can be read, or a range A..B of the repository"),
            Self::Unknown(_) => Some(
                "give a range A..B, a quilt series file or its folder, an mbox, a maildir, a folder of patches, or -",
            ),
            Self::TooLarge { .. } => Some("a series of larger changes can be given as a git range A..B"),
            Self::Patch { .. } => Some("make it with 'git format-patch' or 'diff -u'"),
            Self::Mail(MailError::Missing { .. }) => Some("fetch the whole thread, for example with 'b4 am'"),
            Self::Mail(_) => None,
            Self::Quilt { .. } => {
                Some("put that line right; a name, -pN and -R are understood, and guards before them")
            }
            Self::NamesItself(_) => Some("it lists files of patches, one a line"),
            Self::MissingPatches { .. } => Some("names are relative to the folder of the series file"),
            Self::Empty(_) => {
                Some("give a series of at least one patch; guards of a series file may leave all of them out")
            }
        }
    }
}

/// Reads a series; `defined` are the symbols of guards (`+x`, `-x`) in a quilt series.
///
/// # Errors
/// When it cannot be read or is not a series.
pub fn read(given: &Path, defined: &BTreeSet<String>) -> Result<Series, IngestError> {
    let series = if given == Path::new("-") {
        let text = read_all(std::io::stdin().lock(), given, MAX_MBOX_BYTES)?;
        from_text(&text, given, "stdin", defined)?
    } else {
        let kind = std::fs::metadata(given).map_err(|error| unreadable(given, &error))?;
        if kind.is_dir() {
            folder::read(given, defined)?
        } else {
            let text = read_file(given, MAX_MBOX_BYTES)?;
            let name = given.file_name().map_or_else(|| "mbox".into(), |name| name.to_string_lossy().into_owned());
            from_text(&text, given, &name, defined)?
        }
    };
    if series.patches.is_empty() {
        return Err(IngestError::Empty(given.display().to_string()));
    }
    let name = if series.name.is_empty() { given.display().to_string() } else { series.name.clone() };
    Ok(Series { name, ..series })
}

fn unreadable(path: &Path, error: &std::io::Error) -> IngestError {
    IngestError::Read { path: path.to_owned(), detail: error.to_string() }
}

fn read_file(path: &Path, limit_bytes: u64) -> Result<Vec<u8>, IngestError> {
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    let kind = file.metadata().map_err(|error| unreadable(path, &error))?;
    if kind.is_dir() {
        return Err(IngestError::Read { path: path.to_owned(), detail: "it is a folder".to_owned() });
    }
    read_all(file, path, limit_bytes)
}

fn read_all(reader: impl Read, path: &Path, limit_bytes: u64) -> Result<Vec<u8>, IngestError> {
    let mut text = Vec::new();
    reader.take(limit_bytes + 1).read_to_end(&mut text).map_err(|error| unreadable(path, &error))?;
    let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
    if length > limit_bytes {
        return Err(IngestError::TooLarge { path: path.to_owned(), limit_bytes });
    }
    Ok(text)
}

/// A text that may be an mbox, a mail, a patch or a series file.
fn from_text(text: &[u8], path: &Path, name: &str, defined: &BTreeSet<String>) -> Result<Series, IngestError> {
    if text.iter().all(u8::is_ascii_whitespace) {
        return Err(IngestError::Empty(path.display().to_string()));
    }
    if mail::looks_like_mail(text) {
        let parts = mail::split_mbox(text);
        if let Some(large) = parts.iter().find(|part| part.len() as u64 > MAX_PATCH_BYTES) {
            let _ = large;
            return Err(IngestError::TooLarge { path: path.to_owned(), limit_bytes: MAX_PATCH_BYTES });
        }
        let many = parts.len() > 1;
        let mails = parts.into_iter().zip(1..).map(|(part, number)| {
            let source = if many { format!("{name}:{number}") } else { name.to_owned() };
            Ok((source.clone(), mail::parse(part, &source)?))
        });
        return Ok(mail::assemble(mails.collect::<Result<_, MailError>>()?)?);
    }
    let limit = text.len() as u64 > MAX_PATCH_BYTES;
    if limit {
        return Err(IngestError::TooLarge { path: path.to_owned(), limit_bytes: MAX_PATCH_BYTES });
    }
    match diff::parse_patch(text, name, 1) {
        Ok(patch) => Ok(Series { name: name.to_owned(), patches: vec![patch], ..Series::default() }),
        // Not a single change in it: perhaps it is a list of patches.
        Err(error) if error.line == 0 => match std::str::from_utf8(text) {
            Ok(list) if path != Path::new("-") && is_list(list, path) => quilt_series(path, list, defined),
            Ok(_) | Err(_) => Err(IngestError::Unknown(path.to_owned())),
        },
        Err(error) => Err(IngestError::Patch { file: name.to_owned(), error }),
    }
}

/// A text is taken for a series file if its name says so, or if a file that it names is there.
fn is_list(text: &str, path: &Path) -> bool {
    let named = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("series"));
    let folder = path.parent().unwrap_or(Path::new("."));
    named
        || quilt::parse_series(text, &BTreeSet::new())
            .is_ok_and(|entries| entries.iter().any(|entry| folder.join(&entry.name).is_file()))
}

/// Reads a quilt series; patches lie beside the series file or in `patches` beside it.
fn quilt_series(path: &Path, text: &str, defined: &BTreeSet<String>) -> Result<Series, IngestError> {
    let entries =
        quilt::parse_series(text, defined).map_err(|error| IngestError::Quilt { path: path.to_owned(), error })?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let places = [parent.to_owned(), parent.join("patches")];
    let find = |name: &str| places.iter().map(|place| place.join(name)).find(|file| file.is_file());
    let missing = entries.iter().filter(|entry| find(&entry.name).is_none());
    let missing: Vec<String> = missing.take(20).map(|entry| format!("line {}: {}", entry.line, entry.name)).collect();
    if !missing.is_empty() {
        return Err(IngestError::MissingPatches { path: path.to_owned(), missing });
    }
    let mut patches = Vec::with_capacity(entries.len());
    let mut base_commit = None;
    for entry in &entries {
        let file = find(&entry.name).unwrap_or_else(|| parent.join(&entry.name));
        if file.canonicalize().is_ok_and(|file| path.canonicalize().is_ok_and(|list| list == file)) {
            return Err(IngestError::NamesItself(path.to_owned()));
        }
        let text = read_file(&file, MAX_PATCH_BYTES)?;
        let mut patch = diff::parse_patch(&text, &entry.name, entry.strip)
            .map_err(|error| IngestError::Patch { file: file.display().to_string(), error })?;
        patch.reverse = entry.reverse;
        base_commit = base_commit.or_else(|| bombproof_core::series::base_commit(&text));
        patches.push(patch);
    }
    let name = path.display().to_string();
    Ok(Series { name, patches, base_commit, fuzz: QUILT_FUZZ })
}

#[cfg(test)]
mod tests;
