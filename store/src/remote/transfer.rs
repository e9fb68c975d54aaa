//! Blobs between a server and a local store.

use std::path::PathBuf;
use std::sync::Arc;

use bombproof_core::blob::batch::Split;
use bombproof_core::digest::BlobDigest;
use bombproof_metrics::BlobBytes;
use bombproof_metrics::labels::Direction;
use futures::{StreamExt, TryStreamExt};

use super::blobs::{AT_ONCE, RemoteBlobs, can_be, is_empty};
use super::claims::Claims;
use super::error::TransferError;
use crate::cas::{Cas, CasError, PinGuard};

/// What went over the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Blobs.
    pub blobs: u64,
    /// Their content, in bytes.
    pub bytes: u64,
}

/// Moves blobs between a server and a local store. Clones share what is under way: a blob goes over the network once, however
/// many ask for it at the same time.
#[derive(Clone)]
pub struct Transfer {
    remote: RemoteBlobs,
    local: Arc<dyn Cas>,
    tmp: PathBuf,
    down: Claims,
    up: Claims,
    bytes: BlobBytes,
}

impl Transfer {
    /// Between this server and this store. Large blobs are received in the folder `tmp`, which should be on the file
    /// system of the store; it is made when it is needed.
    pub fn new(remote: RemoteBlobs, local: Arc<dyn Cas>, tmp: PathBuf) -> Self {
        Self { remote, local, tmp, down: Claims::default(), up: Claims::default(), bytes: BlobBytes::default() }
    }

    /// The store on this side.
    pub fn local(&self) -> &Arc<dyn Cas> {
        &self.local
    }

    /// The server.
    pub fn remote(&self) -> &RemoteBlobs {
        &self.remote
    }

    /// The same transfer, whose content is counted there.
    #[must_use]
    pub fn counted(self, bytes: BlobBytes) -> Self {
        Self { bytes, ..self }
    }

    /// Brings all these blobs into the local store, and holds them there.
    ///
    /// # Errors
    /// [`TransferError::Gone`] with all that the server does not have; those that it has are here then all the same, but not held.
    pub async fn fetch(&self, blobs: &[BlobDigest]) -> Result<PinGuard, TransferError> {
        let all = blobs.to_vec();
        let (pin, mut left) = self
            .on_disk(move |local| {
                let pin = local.pin(&all)?;
                Ok((pin, local.missing(&all)))
            })
            .await?;
        let mut gone = Vec::new();
        while !left.is_empty() {
            let (claim, others) = self.down.claim(&left);
            gone.extend(self.receive(claim.blobs()).await?);
            drop(claim);
            // What another one did not bring is ours now.
            left = self.absent(others.wait().await).await?;
        }
        if gone.is_empty() {
            return Ok(pin);
        }
        gone.sort_unstable();
        Err(TransferError::Gone { url: self.remote.url().to_owned(), blobs: gone })
    }

    /// Gives those of these blobs to the server that it does not have.
    ///
    /// # Errors
    /// [`TransferError::NotHere`] with all that the local store does not have either; the others are there then.
    pub async fn push(&self, blobs: &[BlobDigest]) -> Result<Traffic, TransferError> {
        let mut traffic = Traffic::default();
        let mut lost = Vec::new();
        let mut left = self.remote.missing(blobs).await?;
        while !left.is_empty() {
            let (claim, others) = self.up.claim(&left);
            let (sent, not_here) = self.send(claim.blobs()).await?;
            traffic.blobs += sent.blobs;
            traffic.bytes += sent.bytes;
            lost.extend(not_here);
            drop(claim);
            left = self.remote.missing(&others.wait().await).await?;
        }
        if lost.is_empty() {
            return Ok(traffic);
        }
        lost.sort_unstable();
        Err(TransferError::NotHere { blobs: lost })
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Cas) -> Result<T, CasError> + Send + 'static,
    ) -> Result<T, TransferError> {
        let local = Arc::clone(&self.local);
        let done = tokio::task::spawn_blocking(move || work(&*local)).await;
        Ok(done.map_err(|_| TransferError::Lost)??)
    }

    async fn absent(&self, blobs: Vec<BlobDigest>) -> Result<Vec<BlobDigest>, TransferError> {
        self.on_disk(move |local| Ok(local.missing(&blobs))).await
    }

    /// Brings blobs here, and tells which the server does not have. No more than a few batches are in memory.
    async fn receive(&self, blobs: &[BlobDigest]) -> Result<Vec<BlobDigest>, TransferError> {
        let (blobs, none): (Vec<BlobDigest>, Vec<BlobDigest>) = blobs.iter().partition(|blob| can_be(blob));
        let Split { batches, streams } = self.remote.split(&blobs).await?;
        let batches = futures::stream::iter(batches).map(|batch| self.receive_batch(batch)).buffer_unordered(AT_ONCE);
        let mut gone: Vec<BlobDigest> = batches.try_concat().await?;
        let streams = futures::stream::iter(streams).map(|blob| self.receive_stream(blob)).buffer_unordered(AT_ONCE);
        let there: Vec<(BlobDigest, bool)> = streams.try_collect().await?;
        gone.extend(none);
        gone.extend(there.into_iter().filter(|(_, there)| !there).map(|(blob, _)| blob));
        Ok(gone)
    }

    async fn receive_batch(&self, batch: Vec<BlobDigest>) -> Result<Vec<BlobDigest>, TransferError> {
        let asked: Vec<BlobDigest> = batch.iter().filter(|blob| !is_empty(blob)).copied().collect();
        let mut got = if asked.is_empty() { Vec::new() } else { self.remote.take(asked).await? };
        self.bytes.add(Direction::In, got.iter().map(|(blob, _)| blob.size_bytes).sum());
        if let Some(empty) = batch.iter().find(|blob| is_empty(blob)) {
            got.push((*empty, Vec::new()));
        }
        let there: std::collections::HashSet<BlobDigest> = got.iter().map(|(blob, _)| *blob).collect();
        self.on_disk(move |local| got.iter().try_for_each(|(_, bytes)| local.put(bytes).map(|_| ()))).await?;
        Ok(batch.into_iter().filter(|blob| !there.contains(blob)).collect())
    }

    async fn receive_stream(&self, blob: BlobDigest) -> Result<(BlobDigest, bool), TransferError> {
        let tmp = self.tmp.clone();
        let folder = self
            .on_disk(move |_| {
                let failed = |error| CasError::new("write to", &tmp, error);
                std::fs::create_dir_all(&tmp).map_err(failed)?;
                tempfile::Builder::new().prefix("fetch-").tempdir_in(&tmp).map_err(failed)
            })
            .await?;
        let path = folder.path().join("blob");
        if !self.remote.read_file(&blob, &path).await? {
            return Ok((blob, false));
        }
        self.bytes.add(Direction::In, blob.size_bytes);
        self.on_disk(move |local| {
            local.put_file(&path)?;
            drop(folder);
            Ok(())
        })
        .await?;
        Ok((blob, true))
    }

    /// Gives blobs to the server, and tells which are not here.
    async fn send(&self, blobs: &[BlobDigest]) -> Result<(Traffic, Vec<BlobDigest>), TransferError> {
        let Split { batches, streams } = self.remote.split(blobs).await?;
        let batches = futures::stream::iter(batches).map(|batch| self.send_batch(batch)).buffer_unordered(AT_ONCE);
        let batches: Vec<(Traffic, Vec<BlobDigest>)> = batches.try_collect().await?;
        let streams = futures::stream::iter(streams).map(|blob| self.send_stream(blob)).buffer_unordered(AT_ONCE);
        let streams: Vec<(Traffic, Vec<BlobDigest>)> = streams.try_collect().await?;
        let mut all = (Traffic::default(), Vec::new());
        for (sent, lost) in batches.into_iter().chain(streams) {
            all.0.blobs += sent.blobs;
            all.0.bytes += sent.bytes;
            all.1.extend(lost);
        }
        Ok(all)
    }

    async fn send_batch(&self, batch: Vec<BlobDigest>) -> Result<(Traffic, Vec<BlobDigest>), TransferError> {
        let (found, lost) = self
            .on_disk(move |local| {
                let (mut found, mut lost) = (Vec::new(), Vec::new());
                for blob in batch {
                    match local.get(&blob)? {
                        Some(bytes) => found.push((blob, bytes)),
                        None => lost.push(blob),
                    }
                }
                Ok((found, lost))
            })
            .await?;
        let bytes = found.iter().map(|(blob, _)| blob.size_bytes).sum();
        let traffic = Traffic { blobs: found.len() as u64, bytes };
        if !found.is_empty() {
            self.remote.give(found).await?;
            self.bytes.add(Direction::Out, bytes);
        }
        Ok((traffic, lost))
    }

    async fn send_stream(&self, blob: BlobDigest) -> Result<(Traffic, Vec<BlobDigest>), TransferError> {
        let Some(file) = self.on_disk(move |local| local.open(&blob)).await? else {
            return Ok((Traffic::default(), vec![blob]));
        };
        let name = PathBuf::from(blob.to_string());
        self.remote.write_open(&blob, file, &name).await?;
        self.bytes.add(Direction::Out, blob.size_bytes);
        Ok((Traffic { blobs: 1, bytes: blob.size_bytes }, Vec::new()))
    }
}
