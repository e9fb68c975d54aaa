//! Evicts what was used longest ago.

use std::collections::HashMap;
use std::time::SystemTime;

use bombproof_core::digest::Digest;

use super::file::{apart, remove, stat};
use super::pins::{Pins, lock_file};
use super::{DiskCas, Form, TMP, walk};
use crate::atomic::LEFTOVER;
use crate::cas::{CasError, GcReport};

/// Blobs that go while the lock is held once: whoever pins waits no longer than this takes.
const BATCH: usize = 256;

/// Both files of a blob.
struct Unit {
    bytes: u64,
    last_use: SystemTime,
}

pub(super) fn run(cas: &DiskCas, limit_bytes: u64) -> Result<GcReport, CasError> {
    let now = SystemTime::now();
    let leftovers = leftovers(cas, now)?;
    let report = evict(cas, limit_bytes, now, units(cas)?)?;
    Ok(GcReport { leftovers, ..report })
}

/// All blobs, those first that were unused for longest.
fn units(cas: &DiskCas) -> Result<Vec<(Digest, Unit)>, CasError> {
    let mut units: HashMap<Digest, Unit> = HashMap::new();
    for file in walk::files(&cas.folder)? {
        let unit = units.entry(file.hash).or_insert(Unit { bytes: 0, last_use: file.last_use });
        unit.bytes += file.bytes;
        unit.last_use = unit.last_use.max(file.last_use);
    }
    let mut units: Vec<(Digest, Unit)> = units.into_iter().collect();
    units.sort_unstable_by_key(|(hash, unit)| (unit.last_use, *hash));
    Ok(units)
}

/// Evicts those that are still unused.
fn evict(cas: &DiskCas, limit_bytes: u64, now: SystemTime, units: Vec<(Digest, Unit)>) -> Result<GcReport, CasError> {
    let mut report = GcReport {
        kept: units.len() as u64,
        kept_bytes: units.iter().map(|(_, unit)| unit.bytes).sum(),
        ..GcReport::default()
    };
    let mut queue = units.into_iter().filter(|(_, unit)| apart(now, unit.last_use) >= cas.grace).peekable();
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
            let mut there = false;
            for form in [Form::Program, Form::Plain] {
                there |= remove(&cas.path(&hash, form))?;
                cas.forget(&hash, form);
            }
            // Another process may have evicted it.
            if there {
                report.evicted += 1;
                report.evicted_bytes += unit.bytes;
            }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{again, pass, store};
    use super::*;
    use crate::cas::Cas;

    #[test]
    fn what_is_used_while_others_go_stays() {
        let (folder, cas) = store();
        let [used, put, unused, gone] = ["used", "put", "unused", "gone"].map(|text| cas.put(text.as_bytes()).unwrap());
        pass(&cas, Duration::from_secs(7200));
        let listed = units(&cas).unwrap();
        let other = again(folder.path());
        assert!(other.get(&used).unwrap().is_some());
        other.put(b"put").unwrap();
        remove(&cas.path(&gone.hash, Form::Plain)).unwrap();
        let report = evict(&cas, 0, SystemTime::now(), listed).unwrap();
        assert_eq!((report.evicted, report.evicted_bytes, report.kept), (1, 6, 2));
        assert_eq!(cas.missing(&[used, put, unused, gone]), [unused, gone]);
    }
}
