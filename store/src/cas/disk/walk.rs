//! All blobs of a folder.

use std::fs::DirEntry;
use std::io::ErrorKind;
use std::path::Path;
use std::time::SystemTime;

use bombproof_core::digest::Digest;

use super::{DiskCas, Form};
use crate::cas::CasError;

/// How much is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CasStats {
    /// Blobs.
    pub blobs: u64,
    /// Their bytes; those that are kept as programs too count twice.
    pub bytes: u64,
    /// When the blob that is unused for longest was used last, to the hour.
    pub oldest_use: Option<SystemTime>,
}

/// One file of a blob.
pub(super) struct Entry {
    pub(super) hash: Digest,
    pub(super) form: Form,
    pub(super) bytes: u64,
    pub(super) last_use: SystemTime,
}

impl DiskCas {
    /// How much is kept.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn stats(&self) -> Result<CasStats, CasError> {
        let mut stats = CasStats::default();
        for entry in files(&self.folder)? {
            stats.blobs += u64::from(entry.form == Form::Plain);
            stats.bytes += entry.bytes;
            stats.oldest_use = Some(stats.oldest_use.map_or(entry.last_use, |oldest| oldest.min(entry.last_use)));
        }
        Ok(stats)
    }
}

/// Every file of a blob, in no order. Files that are not ours are left out, and so is what goes while this looks.
pub(super) fn files(folder: &Path) -> Result<Vec<Entry>, CasError> {
    let mut all = Vec::new();
    for head in 0..=u8::MAX {
        let head = format!("{head:02x}");
        for file in list(&folder.join(&head))? {
            all.extend(entry(&head, &file));
        }
    }
    Ok(all)
}

/// What is in a folder; nothing where there is none.
pub(super) fn list(folder: &Path) -> Result<Vec<DirEntry>, CasError> {
    let failed = |error| CasError::new("read", folder, error);
    match std::fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| entry.map_err(failed)).collect(),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(error)),
    }
}

fn entry(head: &str, file: &DirEntry) -> Option<Entry> {
    let name = file.file_name().into_string().ok()?;
    let (tail, form) = name.strip_suffix(".x").map_or((name.as_str(), Form::Plain), |tail| (tail, Form::Program));
    let hash = format!("{head}{tail}").parse().ok()?;
    let meta = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    Some(Entry { hash, form, bytes: meta.len(), last_use: meta.modified().ok()? })
}
