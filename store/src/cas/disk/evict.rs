//! Evicts what was used longest ago.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use bombproof_core::digest::Digest;

use super::file::{apart, remove, stat};
use super::pins::{Pins, lock_file};
use super::{DiskCas, Form, TMP, walk};
use crate::cas::{CasError, GcReport};

/// Blobs that go while the lock is held once: whoever pins waits no longer than this takes.
const BATCH: usize = 256;
/// A file without a name that nobody wrote to for this long is of a writer that died.
const LEFTOVER: Duration = Duration::from_secs(3600);

/// Both files of a blob.
struct Unit {
    bytes: u64,
    last_use: SystemTime,
}

pub(super) fn run(cas: &DiskCas, limit_bytes: u64) -> Result<GcReport, CasError> {
    let now = SystemTime::now();
    let mut report = GcReport { leftovers: leftovers(cas, now)?, ..GcReport::default() };
    let mut units: HashMap<Digest, Unit> = HashMap::new();
    for file in walk::files(&cas.folder)? {
        let unit = units.entry(file.hash).or_insert(Unit { bytes: 0, last_use: file.last_use });
        unit.bytes += file.bytes;
        unit.last_use = unit.last_use.max(file.last_use);
    }
    report.kept = units.len() as u64;
    report.kept_bytes = units.values().map(|unit| unit.bytes).sum();
    let mut queue: Vec<(Digest, Unit)> = units.into_iter().collect();
    queue.sort_unstable_by_key(|(hash, unit)| (unit.last_use, *hash));
    let mut queue = queue.into_iter().filter(|(_, unit)| apart(now, unit.last_use) >= cas.grace).peekable();
    let mut pins = Pins::default();
    while report.kept_bytes > limit_bytes && queue.peek().is_some() {
        let lock = lock_file(&cas.folder)?;
        lock.lock().map_err(|error| CasError::new("lock", &cas.folder, error))?;
        pins.refresh(&cas.folder)?;
        for (hash, unit) in queue.by_ref().take(BATCH) {
            if report.kept_bytes <= limit_bytes {
                break;
            }
            if pins.hold(&hash) || used_since(cas, &hash, unit.last_use)? {
                continue;
            }
            // The second file first: it is never there alone.
            for form in [Form::Program, Form::Plain] {
                remove(&cas.path(&hash, form))?;
                cas.forget(&hash, form);
            }
            report.evicted += 1;
            report.evicted_bytes += unit.bytes;
            report.kept -= 1;
            report.kept_bytes -= unit.bytes;
        }
    }
    Ok(report)
}

/// Whether somebody used it after it was looked at.
fn used_since(cas: &DiskCas, hash: &Digest, last_use: SystemTime) -> Result<bool, CasError> {
    for form in [Form::Plain, Form::Program] {
        let meta = stat(&cas.path(hash, form))?;
        if meta.and_then(|meta| meta.modified().ok()).is_some_and(|now| now > last_use) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes what writers that died left.
fn leftovers(cas: &DiskCas, now: SystemTime) -> Result<u64, CasError> {
    let mut gone = 0;
    for entry in walk::list(&cas.folder.join(TMP))? {
        let changed = entry.metadata().ok().and_then(|meta| meta.modified().ok());
        if changed.is_some_and(|changed| apart(now, changed) >= LEFTOVER) {
            gone += u64::from(remove(&entry.path())?);
        }
    }
    Ok(gone)
}
