//! Blobs in memory, for tests.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bombproof_core::digest::{BlobDigest, Digest};

use super::{Cas, CasError, GcReport, PinGuard, VerifyReport};

/// Blobs in memory.
#[derive(Debug, Default)]
pub struct MemoryCas {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    blobs: HashMap<Digest, Kept>,
    /// How many guards hold each blob.
    pins: HashMap<Digest, usize>,
    /// Counts uses: the greater, the later.
    uses: u64,
}

#[derive(Debug)]
struct Kept {
    bytes: Vec<u8>,
    last_use: u64,
}

impl State {
    /// The content, which is used by that.
    fn look(&mut self, blob: &BlobDigest) -> Option<&[u8]> {
        self.uses += 1;
        let kept = self.blobs.get_mut(&blob.hash).filter(|kept| kept.bytes.len() as u64 == blob.size_bytes)?;
        kept.last_use = self.uses;
        Some(&kept.bytes)
    }
}

/// Gives the blobs free when it goes.
struct Hold {
    state: Arc<Mutex<State>>,
    hashes: Vec<Digest>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for hash in &self.hashes {
            if let Some(count) = state.pins.get_mut(hash) {
                *count = count.saturating_sub(1);
            }
        }
        state.pins.retain(|_, count| *count > 0);
    }
}

impl MemoryCas {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, blob: &BlobDigest, to: &Path, mode: u32) -> Result<bool, CasError> {
        let Some(bytes) = self.get(blob)? else { return Ok(false) };
        let failed = |error| CasError::new("write", to, error);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode | 0o200).open(to).map_err(failed)?;
        file.write_all(&bytes).map_err(failed)?;
        file.set_permissions(std::fs::Permissions::from_mode(mode)).map_err(failed)?;
        Ok(true)
    }
}

impl Cas for MemoryCas {
    fn put(&self, bytes: &[u8]) -> Result<BlobDigest, CasError> {
        let blob = BlobDigest::of(bytes);
        let mut state = self.state();
        state.uses += 1;
        let last_use = state.uses;
        state.blobs.insert(blob.hash, Kept { bytes: bytes.to_vec(), last_use });
        Ok(blob)
    }

    fn put_file(&self, path: &Path) -> Result<BlobDigest, CasError> {
        let kind = path.symlink_metadata().map_err(|error| CasError::new("read", path, error))?;
        if !kind.is_file() {
            return Err(CasError::NotAFile { path: path.to_owned() });
        }
        let blob = self.put(&std::fs::read(path).map_err(|error| CasError::new("read", path, error))?)?;
        std::fs::remove_file(path).map_err(|error| CasError::new("remove", path, error))?;
        Ok(blob)
    }

    fn missing(&self, blobs: &[BlobDigest]) -> Vec<BlobDigest> {
        let mut state = self.state();
        blobs.iter().filter(|blob| state.look(blob).is_none()).copied().collect()
    }

    fn get(&self, blob: &BlobDigest) -> Result<Option<Vec<u8>>, CasError> {
        Ok(self.state().look(blob).map(<[u8]>::to_vec))
    }

    fn link(&self, blob: &BlobDigest, to: &Path, executable: bool) -> Result<bool, CasError> {
        self.write(blob, to, if executable { 0o555 } else { 0o444 })
    }

    fn copy(&self, blob: &BlobDigest, to: &Path, executable: bool) -> Result<bool, CasError> {
        self.write(blob, to, if executable { 0o755 } else { 0o644 })
    }

    fn open(&self, blob: &BlobDigest) -> Result<Option<File>, CasError> {
        let Some(bytes) = self.get(blob)? else { return Ok(None) };
        let write = || {
            let mut file = tempfile::tempfile()?;
            file.write_all(&bytes)?;
            file.rewind()?;
            Ok(file)
        };
        write().map(Some).map_err(|error| CasError::new("write to", &std::env::temp_dir(), error))
    }

    fn check(&self, blob: &BlobDigest) -> Result<bool, CasError> {
        Ok(self.get(blob)?.is_some())
    }

    fn pin(&self, blobs: &[BlobDigest]) -> Result<PinGuard, CasError> {
        let hashes: Vec<Digest> = blobs.iter().map(|blob| blob.hash).collect();
        let mut state = self.state();
        for hash in &hashes {
            *state.pins.entry(*hash).or_default() += 1;
        }
        Ok(PinGuard::new(Hold { state: Arc::clone(&self.state), hashes }))
    }

    fn gc(&self, limit_bytes: u64) -> Result<GcReport, CasError> {
        let mut state = self.state();
        let mut order: Vec<(u64, Digest)> = state.blobs.iter().map(|(hash, kept)| (kept.last_use, *hash)).collect();
        order.sort_unstable();
        let mut report = GcReport {
            kept: state.blobs.len() as u64,
            kept_bytes: state.blobs.values().map(|kept| kept.bytes.len() as u64).sum(),
            ..GcReport::default()
        };
        for (_, hash) in order {
            if report.kept_bytes <= limit_bytes {
                break;
            }
            if state.pins.contains_key(&hash) {
                continue;
            }
            let bytes = state.blobs.remove(&hash).map_or(0, |kept| kept.bytes.len() as u64);
            report.evicted += 1;
            report.evicted_bytes += bytes;
            report.kept -= 1;
            report.kept_bytes -= bytes;
        }
        Ok(report)
    }

    fn verify(&self) -> Result<VerifyReport, CasError> {
        let state = self.state();
        let bytes = state.blobs.values().map(|kept| kept.bytes.len() as u64).sum();
        Ok(VerifyReport { blobs: state.blobs.len() as u64, bytes, damaged: Vec::new() })
    }

    fn damaged(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cas::laws;

    #[test]
    fn the_laws_hold() {
        // Each use is later than the one before by itself.
        laws::hold(&MemoryCas::default(), &|_| {});
    }
}
