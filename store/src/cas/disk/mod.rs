//! Blobs as files: what happens on the way to one and back.
//!
//! ```text
//! <2 hex>/<62 hex>     a blob, mode 0444
//! <2 hex>/<62 hex>.x   the same once more, mode 0555, where it was asked for as a program
//! tmp/                 files that are being written
//! pins/<pid>-<any>     what a process holds, locked as long as it lives
//! lock                 taken shared to pin, and alone to evict
//! ```
//!
//! Any number of processes work in one folder. A blob gets its name by a rename, when it is whole; nothing is synced by
//! default, because a blob that a power loss tore is found by its digest and made again.
//!
//! The time of a file's last change is the time of the blob's last use. A change of that time which this process did not
//! make is also how it learns that somebody may have written into the file (a file given out by hard link is the very file
//! of the store): such a blob is read and compared with its digest before it is served again.

use std::collections::HashMap;
use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use bombproof_core::digest::{BlobDigest, Digest};
use tempfile::NamedTempFile;

use self::file::{apart, hash_of, modified, open, remove, stat};
use super::{Cas, CasError, GcReport, PinGuard, VerifyReport};

mod evict;
mod file;
mod pins;
#[cfg(test)]
mod tests;
mod walk;

pub use walk::CasStats;

/// A use is written down when the last one on file is older: by default once an hour for each blob at most.
const REFRESH: Duration = Duration::from_secs(3600);
/// What was used in the last minutes is not evicted: whoever put or found it may be about to need it.
const GRACE: Duration = Duration::from_secs(600);

/// Where files are written before they have their names.
const TMP: &str = "tmp";

/// The two files that a blob can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Form {
    Plain,
    Program,
}

impl Form {
    fn mode(self) -> u32 {
        match self {
            Self::Plain => 0o444,
            Self::Program => 0o555,
        }
    }
}

/// Blobs as files in one folder.
#[derive(Debug)]
pub struct DiskCas {
    folder: PathBuf,
    durable: bool,
    grace: Duration,
    refresh: Duration,
    /// Files whose content was right when they were last changed at this time.
    known: RwLock<HashMap<(Digest, Form), SystemTime>>,
    damaged: AtomicU64,
}

impl DiskCas {
    /// Blobs in this folder, which is made when it is needed.
    pub fn at(folder: PathBuf) -> Self {
        let (known, damaged) = (RwLock::default(), AtomicU64::new(0));
        Self { folder, durable: false, grace: GRACE, refresh: REFRESH, known, damaged }
    }

    /// Syncs every blob before it gets its name.
    #[must_use]
    pub fn durable(self, durable: bool) -> Self {
        Self { durable, ..self }
    }

    /// How long what was used is safe from eviction without a pin; ten minutes by default.
    #[must_use]
    pub fn grace(self, grace: Duration) -> Self {
        Self { grace, ..self }
    }

    /// How old the last use on file may be before another one is written down; an hour by default. Where those who use the
    /// blobs cannot pin them, it has to be well below [`DiskCas::grace`]: what they were told is there stays as long as that.
    #[must_use]
    pub fn refresh(self, refresh: Duration) -> Self {
        Self { refresh, ..self }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn path(&self, hash: &Digest, form: Form) -> PathBuf {
        let mut name = hash.to_string();
        name.insert(2, '/');
        if form == Form::Program {
            name.push_str(".x");
        }
        self.folder.join(name)
    }

    /// The file of a blob, when it is there and as far as is known right. In the common case this costs one look at its
    /// metadata.
    fn ready(&self, blob: &BlobDigest, form: Form) -> Result<Option<PathBuf>, CasError> {
        let path = self.path(&blob.hash, form);
        let Some(meta) = stat(&path)? else {
            self.forget(&blob.hash, form);
            return Ok(None);
        };
        let changed = modified(&meta, &path)?;
        if self.known(&blob.hash, form) != Some(changed) && self.examine(&blob.hash, form, &path)? != Some(true) {
            return Ok(None);
        }
        if meta.len() != blob.size_bytes {
            // Its content is that of its digest, so the size that was asked for is wrong.
            return Ok(None);
        }
        self.used(&blob.hash, form, &path, changed);
        Ok(Some(path))
    }

    /// Reads a file and says whether it is that of its digest. One that is not is dropped; `None`: there is none.
    fn examine(&self, hash: &Digest, form: Form, path: &Path) -> Result<Option<bool>, CasError> {
        let Some(mut file) = open(path)? else { return Ok(None) };
        let failed = |error| CasError::new("read", path, error);
        let before = file.metadata().map_err(failed)?;
        let right = hash_of(&mut file, |_| Ok(())).map_err(failed)?.hash == *hash;
        if right {
            self.note(*hash, form, modified(&before, path)?);
        } else {
            self.drop_damaged(hash, form, &before)?;
        }
        Ok(Some(right))
    }

    fn known(&self, hash: &Digest, form: Form) -> Option<SystemTime> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(&(*hash, form)).copied()
    }

    fn note(&self, hash: Digest, form: Form, changed: SystemTime) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert((hash, form), changed);
    }

    fn forget(&self, hash: &Digest, form: Form) {
        if self.known(hash, form).is_some() {
            self.known.write().unwrap_or_else(PoisonError::into_inner).remove(&(*hash, form));
        }
    }

    /// Removes a file that was found damaged, unless another has taken its place since.
    fn drop_damaged(&self, hash: &Digest, form: Form, found: &Metadata) -> Result<(), CasError> {
        self.forget(hash, form);
        self.damaged.fetch_add(1, Ordering::Relaxed);
        let path = self.path(hash, form);
        if stat(&path)?.is_some_and(|now| (now.dev(), now.ino()) == (found.dev(), found.ino())) {
            remove(&path)?;
        }
        Ok(())
    }

    /// Writes down that a blob is in use, if that was last done long ago. What cannot be marked can be read all the same.
    fn used(&self, hash: &Digest, form: Form, path: &Path, last: SystemTime) {
        let now = SystemTime::now();
        if apart(now, last) < self.refresh {
            return;
        }
        let mark = || {
            let file = File::open(path)?;
            file.set_modified(now)?;
            // As the file system keeps it, which may be less exact.
            file.metadata()?.modified()
        };
        if let (Ok(marked), true) = (mark(), self.known(hash, form) == Some(last)) {
            self.note(*hash, form, marked);
        }
    }

    /// A file without a name of its own yet.
    fn new_file(&self) -> Result<NamedTempFile, CasError> {
        let tmp = self.folder.join(TMP);
        let make = || tempfile::Builder::new().prefix("new-").tempfile_in(&tmp);
        let made = match make() {
            Err(error) if error.kind() == ErrorKind::NotFound => std::fs::create_dir_all(&tmp).and_then(|()| make()),
            made => made,
        };
        made.map_err(|error| CasError::new("write to", &tmp, error))
    }

    /// Gives a new file, which is whole, its name.
    fn keep(&self, file: NamedTempFile, hash: &Digest, form: Form) -> Result<(), CasError> {
        let path = self.path(hash, form);
        let failed = |error| CasError::new("write", &path, error);
        self.settle(file.as_file(), form).map_err(failed)?;
        let changed = modified(&file.as_file().metadata().map_err(failed)?, &path)?;
        self.rename(file.path(), &path).map_err(failed)?;
        // Nothing is left under the old name.
        let _ = file.into_temp_path().keep();
        self.note(*hash, form, changed);
        Ok(())
    }

    fn settle(&self, file: &File, form: Form) -> std::io::Result<()> {
        file.set_permissions(Permissions::from_mode(form.mode()))?;
        if self.durable { file.sync_all() } else { Ok(()) }
    }

    /// Renames into a folder that may not be there yet.
    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        let folder = to.parent().unwrap_or(&self.folder);
        match std::fs::rename(from, to) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                std::fs::create_dir_all(folder)?;
                std::fs::rename(from, to)?;
            }
            done => done?,
        }
        if self.durable { File::open(folder)?.sync_all() } else { Ok(()) }
    }

    /// Makes a file the blob itself. False: it cannot be that very file, only a copy of it.
    fn take(&self, file: &File, path: &Path, hash: &Digest) -> Result<bool, CasError> {
        let failed = |error| CasError::new("take in", path, error);
        // Under another name it could be written to; and a rename onto another name of the same file does nothing.
        if file.metadata().map_err(failed)?.nlink() != 1 {
            return Ok(false);
        }
        // A file of another owner cannot be changed.
        if file.set_modified(SystemTime::now()).is_err() || self.settle(file, Form::Plain).is_err() {
            return Ok(false);
        }
        match self.rename(path, &self.path(hash, Form::Plain)) {
            Err(error) if error.kind() == ErrorKind::CrossesDevices => Ok(false),
            done => done.map_err(failed).map(|()| true),
        }
    }

    /// Keeps a copy of a file, by the digest of what was copied.
    fn copy_in(&self, file: &mut File, path: &Path, form: Form) -> Result<BlobDigest, CasError> {
        let mut new = self.new_file()?;
        let failed = |error| CasError::new("copy", path, error);
        file.rewind().map_err(failed)?;
        let blob = hash_of(file, |piece| new.write_all(piece)).map_err(failed)?;
        self.keep(new, &blob.hash, form)?;
        Ok(blob)
    }

    /// The file of a blob as it is given out: for programs a second one, because the mode belongs to the file, not to
    /// its names.
    fn given_out(&self, blob: &BlobDigest, form: Form) -> Result<Option<PathBuf>, CasError> {
        let Some(plain) = self.ready(blob, Form::Plain)? else { return Ok(None) };
        if form == Form::Plain {
            return Ok(Some(plain));
        }
        if let Some(program) = self.ready(blob, Form::Program)? {
            return Ok(Some(program));
        }
        let Some(mut file) = open(&plain)? else { return Ok(None) };
        self.copy_in(&mut file, &plain, Form::Program)?;
        self.ready(blob, Form::Program)
    }
}

/// Copies a file to a new one of this mode; false: the first is not there.
fn copy_out(from: &Path, to: &Path, mode: u32) -> Result<bool, CasError> {
    let Some(mut source) = open(from)? else { return Ok(false) };
    let failed = |error| CasError::new("write", to, error);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode | 0o200).open(to).map_err(failed)?;
    let copied = std::io::copy(&mut source, &mut file);
    if let Err(error) = copied.and_then(|_| file.set_permissions(Permissions::from_mode(mode))) {
        // What was begun is of no use; the first error is the one to tell.
        let _ = std::fs::remove_file(to);
        return Err(failed(error));
    }
    Ok(true)
}

/// Another file system, one without hard links, or one that allows no more of them. Or the file went: that may have been an
/// eviction, or another process put the same blob just now, its file took the place of this one, and a copy succeeds. (Or
/// it is the folder of the new name that is not there, and a copy says so.)
fn cannot_be_shared(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::CrossesDevices
            | ErrorKind::TooManyLinks
            | ErrorKind::PermissionDenied
            | ErrorKind::Unsupported
            | ErrorKind::NotFound
    )
}

impl Cas for DiskCas {
    fn put(&self, bytes: &[u8]) -> Result<BlobDigest, CasError> {
        let blob = BlobDigest::of(bytes);
        if self.ready(&blob, Form::Plain)?.is_none() {
            let mut file = self.new_file()?;
            file.write_all(bytes).map_err(|error| CasError::new("write", file.path(), error))?;
            self.keep(file, &blob.hash, Form::Plain)?;
        }
        Ok(blob)
    }

    fn put_file(&self, path: &Path) -> Result<BlobDigest, CasError> {
        let failed = |error| CasError::new("read", path, error);
        let named = path.symlink_metadata().map_err(failed)?;
        let other = || CasError::NotAFile { path: path.to_owned() };
        if !named.is_file() {
            return Err(other());
        }
        let mut file = File::open(path).map_err(failed)?;
        let opened = file.metadata().map_err(failed)?;
        if (opened.dev(), opened.ino()) != (named.dev(), named.ino()) {
            return Err(other());
        }
        let blob = hash_of(&mut file, |_| Ok(())).map_err(failed)?;
        if self.ready(&blob, Form::Plain)?.is_none() && self.take(&file, path, &blob.hash)? {
            return Ok(blob);
        }
        let blob = match self.ready(&blob, Form::Plain)? {
            Some(_) => blob,
            None => self.copy_in(&mut file, path, Form::Plain)?,
        };
        remove(path)?;
        Ok(blob)
    }

    fn missing(&self, blobs: &[BlobDigest]) -> Vec<BlobDigest> {
        let there = |blob: &BlobDigest| {
            let path = self.path(&blob.hash, Form::Plain);
            let meta = path.symlink_metadata().ok().filter(|meta| meta.len() == blob.size_bytes);
            let last = meta?.modified().ok()?;
            self.used(&blob.hash, Form::Plain, &path, last);
            Some(())
        };
        blobs.iter().filter(|blob| there(blob).is_none()).copied().collect()
    }

    fn get(&self, blob: &BlobDigest) -> Result<Option<Vec<u8>>, CasError> {
        let path = self.path(&blob.hash, Form::Plain);
        let Some(mut file) = open(&path)? else { return Ok(None) };
        let failed = |error| CasError::new("read", &path, error);
        let meta = file.metadata().map_err(failed)?;
        if meta.len() != blob.size_bytes {
            // Either of the two is wrong, and this tells which.
            self.examine(&blob.hash, Form::Plain, &path)?;
            return Ok(None);
        }
        let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or_default());
        file.read_to_end(&mut bytes).map_err(failed)?;
        if BlobDigest::of(&bytes) != *blob {
            self.drop_damaged(&blob.hash, Form::Plain, &meta)?;
            return Ok(None);
        }
        let last = modified(&meta, &path)?;
        self.note(blob.hash, Form::Plain, last);
        self.used(&blob.hash, Form::Plain, &path, last);
        Ok(Some(bytes))
    }

    fn link(&self, blob: &BlobDigest, to: &Path, executable: bool) -> Result<bool, CasError> {
        let form = if executable { Form::Program } else { Form::Plain };
        let Some(path) = self.given_out(blob, form)? else { return Ok(false) };
        match std::fs::hard_link(&path, to) {
            Ok(()) => Ok(true),
            Err(error) if cannot_be_shared(error.kind()) => copy_out(&path, to, form.mode()),
            Err(error) => Err(CasError::new("link", to, error)),
        }
    }

    fn copy(&self, blob: &BlobDigest, to: &Path, executable: bool) -> Result<bool, CasError> {
        let Some(path) = self.ready(blob, Form::Plain)? else { return Ok(false) };
        copy_out(&path, to, if executable { 0o755 } else { 0o644 })
    }

    fn open(&self, blob: &BlobDigest) -> Result<Option<File>, CasError> {
        match self.ready(blob, Form::Plain)? {
            Some(path) => open(&path),
            None => Ok(None),
        }
    }

    fn check(&self, blob: &BlobDigest) -> Result<bool, CasError> {
        let right = self.examine(&blob.hash, Form::Plain, &self.path(&blob.hash, Form::Plain))?;
        Ok(right == Some(true) && self.ready(blob, Form::Plain)?.is_some())
    }

    fn pin(&self, blobs: &[BlobDigest]) -> Result<PinGuard, CasError> {
        pins::pin(&self.folder, blobs).map(PinGuard::new)
    }

    fn gc(&self, limit_bytes: u64) -> Result<GcReport, CasError> {
        evict::run(self, limit_bytes)
    }

    fn verify(&self) -> Result<VerifyReport, CasError> {
        let mut report = VerifyReport::default();
        for entry in walk::files(&self.folder)? {
            let path = self.path(&entry.hash, entry.form);
            match self.examine(&entry.hash, entry.form, &path) {
                Ok(Some(true)) if entry.form == Form::Plain => {
                    report.blobs += 1;
                    report.bytes += entry.bytes;
                }
                Ok(Some(true) | None) => {}
                Ok(Some(false)) => report.damaged.push(entry.hash),
                // A bad place of the disk: what cannot be read is lost.
                Err(_) => {
                    self.damaged.fetch_add(1, Ordering::Relaxed);
                    self.forget(&entry.hash, entry.form);
                    remove(&path)?;
                    report.damaged.push(entry.hash);
                }
            }
        }
        report.damaged.sort_unstable();
        report.damaged.dedup();
        Ok(report)
    }

    fn damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }
}
