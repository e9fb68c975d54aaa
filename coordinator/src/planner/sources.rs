//! Contents of files of states, by git blob: read once, kept in the store of blobs, with what their text says.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bombproof_core::digest::BlobDigest;
use bombproof_core::id::Oid;
use bombproof_core::plan::alike::Version;
use bombproof_core::source::Facts;
use bombproof_store::cas::{Cas, PinGuard};
use bombproof_store::trees::{TreeError, TreeSource};

/// Reads versions of files; shared by all targets.
pub struct Sources {
    trees: Arc<dyn TreeSource>,
    cas: Arc<dyn Cas>,
    known: Mutex<HashMap<Oid, Version>>,
    facts: Mutex<HashMap<BlobDigest, Arc<Facts>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unreadable(error: impl std::fmt::Display) -> TreeError {
    TreeError::Unreadable { detail: error.to_string() }
}

impl Sources {
    /// Versions from these trees, kept in this store.
    pub fn new(trees: Arc<dyn TreeSource>, cas: Arc<dyn Cas>) -> Self {
        Self { trees, cas, known: Mutex::default(), facts: Mutex::default() }
    }

    /// The trees.
    pub fn trees(&self) -> &Arc<dyn TreeSource> {
        &self.trees
    }

    /// Reads these git blobs where they are not known.
    ///
    /// # Errors
    /// When one is missing, or the store cannot be written.
    pub fn read(&self, blobs: &[Oid]) -> Result<Vec<Version>, TreeError> {
        let unknown: Vec<Oid> = {
            let known = lock(&self.known);
            blobs.iter().filter(|blob| !known.contains_key(*blob)).cloned().collect()
        };
        if !unknown.is_empty() {
            self.trees.blobs(&unknown, &mut |oid, content| {
                let blob = self.cas.put(content).map_err(unreadable)?;
                let facts = self.facts_of(&blob, content);
                lock(&self.known).insert(oid.clone(), Version { blob, facts });
                Ok(())
            })?;
        }
        let known = lock(&self.known);
        blobs.iter().map(|blob| known.get(blob).cloned().ok_or_else(|| unreadable("a blob was not read"))).collect()
    }

    fn facts_of(&self, blob: &BlobDigest, content: &[u8]) -> Arc<Facts> {
        Arc::clone(lock(&self.facts).entry(*blob).or_insert_with(|| Arc::new(Facts::of(content))))
    }

    /// The content of a blob of the store.
    ///
    /// # Errors
    /// When it is gone.
    pub fn content(&self, blob: &BlobDigest) -> Result<Vec<u8>, TreeError> {
        let found = self.cas.get(blob).map_err(unreadable)?;
        found.ok_or_else(|| unreadable(format!("blob {blob} is gone from the store")))
    }

    /// What the text of a blob of the store says.
    ///
    /// # Errors
    /// When it is gone.
    pub fn facts(&self, blob: &BlobDigest) -> Result<Arc<Facts>, TreeError> {
        if let Some(known) = lock(&self.facts).get(blob) {
            return Ok(Arc::clone(known));
        }
        let content = self.content(blob)?;
        Ok(self.facts_of(blob, &content))
    }

    /// Holds these blobs, of which all have to be there.
    ///
    /// # Errors
    /// When one is gone, or the store cannot be written.
    pub fn hold(&self, blobs: &[BlobDigest]) -> Result<PinGuard, TreeError> {
        let held = self.cas.pin(blobs).map_err(unreadable)?;
        match self.cas.missing(blobs).first() {
            None => Ok(held),
            Some(blob) => Err(unreadable(format!("blob {blob} is gone from the store"))),
        }
    }

    /// Keeps a text in the store.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep(&self, text: &[u8]) -> Result<BlobDigest, TreeError> {
        self.cas.put(text).map_err(unreadable)
    }
}
