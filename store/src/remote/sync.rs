//! For code that knows the traits of the store alone: threads that wait.
//!
//! These may be used from threads that do nothing else, never from tasks of the runtime that does the work: such a task would
//! wait for itself where the runtime has one thread.

use std::collections::HashSet;
use std::fs::File;
use std::future::Future;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use bombproof_core::action::ActionResult;
use bombproof_core::digest::BlobDigest;
use tokio::runtime::Handle;

use super::actions::RemoteActions;
use super::error::{RemoteError, TransferError};
use super::transfer::Transfer;
use crate::action_cache::ActionCache;
use crate::atomic::FileError;
use crate::cas::{Cas, CasError, GcReport, PinGuard, VerifyReport};

/// Does work of the runtime, and waits for it.
fn wait<T: Send + 'static>(
    runtime: &Handle,
    work: impl Future<Output = Result<T, TransferError>> + Send + 'static,
) -> Result<T, TransferError> {
    let (done, answer) = std::sync::mpsc::sync_channel(1);
    runtime.spawn(async move {
        // Nobody may wait any more.
        let _ = done.send(work.await);
    });
    // The runtime stops: nothing comes.
    answer.recv().unwrap_or(Err(TransferError::Lost))
}

fn into_cas(error: TransferError, url: &str) -> CasError {
    match error {
        TransferError::Local(error) => error,
        TransferError::Remote(error) => CasError::Remote(error),
        error @ (TransferError::Gone { .. } | TransferError::NotHere { .. } | TransferError::Lost) => {
            let (url, message) = (url.to_owned(), error.to_string());
            CasError::Remote(RemoteError::Unreachable { url, what: "move blobs", tries: 1, message })
        }
    }
}

/// A local store with a server behind it: what is not here is fetched, what is put here goes there too.
///
/// Pins and evictions are of the local store alone. A server keeps what was used a short while ago, and is asked for no more.
pub struct RemoteCas {
    transfer: Transfer,
    runtime: Handle,
}

impl RemoteCas {
    /// The stores of this transfer; the runtime does the work, and must have more threads than one or be driven by
    /// somebody else.
    pub fn new(transfer: Transfer, runtime: Handle) -> Self {
        Self { transfer, runtime }
    }

    fn local(&self) -> &dyn Cas {
        &**self.transfer.local()
    }

    /// Brings a blob here; `None`: nobody has it.
    fn fetch(&self, blob: &BlobDigest) -> Result<Option<PinGuard>, CasError> {
        let (transfer, blob) = (self.transfer.clone(), *blob);
        match wait(&self.runtime, async move { transfer.fetch(&[blob]).await }) {
            Ok(pin) => Ok(Some(pin)),
            Err(TransferError::Gone { .. }) => Ok(None),
            Err(error) => Err(into_cas(error, self.transfer.remote().url())),
        }
    }

    fn push(&self, blob: BlobDigest) -> Result<BlobDigest, CasError> {
        let transfer = self.transfer.clone();
        let done = wait(&self.runtime, async move { transfer.push(&[blob]).await });
        done.map(|_| blob).map_err(|error| into_cas(error, self.transfer.remote().url()))
    }

    /// Asks the local store, and once more when the blob was fetched.
    fn here<T>(
        &self,
        blob: &BlobDigest,
        ask: impl Fn(&dyn Cas) -> Result<Option<T>, CasError>,
    ) -> Result<Option<T>, CasError> {
        if let Some(found) = ask(self.local())? {
            return Ok(Some(found));
        }
        let Some(_pin) = self.fetch(blob)? else { return Ok(None) };
        ask(self.local())
    }
}

impl Cas for RemoteCas {
    fn put(&self, bytes: &[u8]) -> Result<BlobDigest, CasError> {
        self.push(self.local().put(bytes)?)
    }

    fn put_file(&self, path: &Path) -> Result<BlobDigest, CasError> {
        self.push(self.local().put_file(path)?)
    }

    fn missing(&self, blobs: &[BlobDigest]) -> Vec<BlobDigest> {
        let missing = self.local().missing(blobs);
        if missing.is_empty() {
            return missing;
        }
        let (remote, asked) = (self.transfer.remote().clone(), missing.clone());
        // A server that does not answer gives none of them.
        wait(&self.runtime, async move { Ok(remote.missing(&asked).await?) }).unwrap_or(missing)
    }

    fn get(&self, blob: &BlobDigest) -> Result<Option<Vec<u8>>, CasError> {
        self.here(blob, |local| local.get(blob))
    }

    fn link(&self, blob: &BlobDigest, to: &Path, executable: bool) -> Result<bool, CasError> {
        let linked = self.here(blob, |local| Ok(local.link(blob, to, executable)?.then_some(())))?;
        Ok(linked.is_some())
    }

    fn copy(&self, blob: &BlobDigest, to: &Path, executable: bool) -> Result<bool, CasError> {
        let copied = self.here(blob, |local| Ok(local.copy(blob, to, executable)?.then_some(())))?;
        Ok(copied.is_some())
    }

    fn open(&self, blob: &BlobDigest) -> Result<Option<File>, CasError> {
        self.here(blob, |local| local.open(blob))
    }

    fn check(&self, blob: &BlobDigest) -> Result<bool, CasError> {
        let right = self.here(blob, |local| Ok(local.check(blob)?.then_some(())))?;
        Ok(right.is_some())
    }

    fn pin(&self, blobs: &[BlobDigest]) -> Result<PinGuard, CasError> {
        self.local().pin(blobs)
    }

    fn gc(&self, limit_bytes: u64) -> Result<GcReport, CasError> {
        self.local().gc(limit_bytes)
    }

    fn verify(&self) -> Result<VerifyReport, CasError> {
        self.local().verify()
    }

    fn damaged(&self) -> u64 {
        self.local().damaged()
    }
}

/// Results of actions on a server. A result is told there when its outputs are; they are taken from the local store.
pub struct SyncActions {
    actions: RemoteActions,
    transfer: Transfer,
    runtime: Handle,
    /// The API has no word for taking a result back: what was forgotten here is not asked for until it is known anew.
    forgotten: Mutex<HashSet<BlobDigest>>,
}

impl SyncActions {
    /// Results on this server, whose outputs this transfer moves.
    pub fn new(actions: RemoteActions, transfer: Transfer, runtime: Handle) -> Self {
        Self { actions, transfer, runtime, forgotten: Mutex::default() }
    }

    fn forgotten(&self) -> std::sync::MutexGuard<'_, HashSet<BlobDigest>> {
        self.forgotten.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, error: TransferError) -> FileError {
        FileError::new("ask the server", Path::new(self.actions.url()), std::io::Error::other(error))
    }
}

impl ActionCache for SyncActions {
    fn get(&self, action: &BlobDigest) -> Result<Option<ActionResult>, FileError> {
        if self.forgotten().contains(action) {
            return Ok(None);
        }
        let (actions, action) = (self.actions.clone(), *action);
        wait(&self.runtime, async move { Ok(actions.get(&action).await?) }).map_err(|error| self.error(error))
    }

    fn put(&self, action: &BlobDigest, result: &ActionResult) -> Result<(), FileError> {
        if !result.settles() {
            return Ok(());
        }
        let (actions, transfer) = (self.actions.clone(), self.transfer.clone());
        let (digest, result) = (*action, result.clone());
        let told = async move {
            let outputs: Vec<BlobDigest> = result.outputs.iter().map(|output| output.blob).collect();
            transfer.push(&outputs).await?;
            Ok(actions.put(&digest, &result).await?)
        };
        wait(&self.runtime, told).map_err(|error| self.error(error))?;
        self.forgotten().remove(action);
        Ok(())
    }

    fn forget(&self, action: &BlobDigest) -> Result<(), FileError> {
        self.forgotten().insert(*action);
        Ok(())
    }
}
