//! Blobs of a server, for whoever has them in memory or in a file.

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use bombproof_core::blob::batch::{Split, split};
use bombproof_core::digest::{BlobDigest, Digest};
use bombproof_proto::wire::bytestream::byte_stream_client::ByteStreamClient;
use bombproof_proto::wire::reapi::capabilities_client::CapabilitiesClient;
use bombproof_proto::wire::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use bombproof_proto::wire::reapi::{GetCapabilitiesRequest, digest_function};
use futures::{StreamExt, TryStreamExt};
use tokio::sync::OnceCell;
use tonic::{Code, Status};

use super::connect::{Channel, Connection};
use super::error::RemoteError;
use super::retry::{Retry, alive};
use super::stream::Source;
use crate::atomic::FileError;

/// Messages and streams of one call that are under way at the same time.
pub(super) const AT_ONCE: usize = 4;
/// Digests in one question: a message of 1 MB.
const QUESTION: usize = 10_000;
/// What is larger goes as a stream even where it would fit into a batch: a batch is all in memory, on both sides.
const STREAM_BYTES: u64 = 1 << 20;
/// Where the server has no limit of its own, gRPC has: 4 MiB a message, less what is around the content.
const BATCH_BYTES: u64 = 4_000_000 - (64 << 10);
/// The least that is worth a batch; a server that wants less gets streams.
const LEAST_BATCH_BYTES: u64 = 4096;

/// Blobs of a server. Clones share the connection.
#[derive(Clone)]
pub struct RemoteBlobs {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) url: String,
    pub(super) instance: String,
    pub(super) retry: Retry,
    channel: Channel,
    limits: OnceCell<Limits>,
}

/// What the server says of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    batch_bytes: u64,
    blob_bytes: u64,
}

impl std::fmt::Debug for RemoteBlobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteBlobs").field("url", &self.shared.url).finish_non_exhaustive()
    }
}

impl RemoteBlobs {
    /// Blobs of this server. Nothing is sent yet; needs a runtime of tokio.
    ///
    /// # Errors
    /// When the address, a certificate or the token cannot be used.
    pub fn new(connection: &Connection) -> Result<Self, RemoteError> {
        let shared = Shared {
            url: connection.url().to_owned(),
            instance: connection.instance_name().to_owned(),
            retry: connection.how_often(),
            channel: connection.channel()?,
            limits: OnceCell::new(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The address of the server.
    pub fn url(&self) -> &str {
        &self.shared.url
    }

    /// Those that the server does not have, in the given order. Being asked for counts as use there.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn missing(&self, blobs: &[BlobDigest]) -> Result<Vec<BlobDigest>, RemoteError> {
        let parts: Vec<Vec<BlobDigest>> = blobs.chunks(QUESTION).map(<[BlobDigest]>::to_vec).collect();
        let answers = futures::stream::iter(parts).map(|part| self.ask(part)).buffered(AT_ONCE);
        let missing: HashSet<BlobDigest> = answers
            .try_fold(HashSet::new(), async |mut all, part| {
                Ok({
                    all.extend(part);
                    all
                })
            })
            .await?;
        Ok(blobs.iter().filter(|blob| missing.contains(blob) || !can_be(blob)).copied().collect())
    }

    /// Gives these blobs to the server, whether or not it has them.
    ///
    /// # Errors
    /// With the first one that it did not take; others may be there then.
    pub async fn upload_many(&self, blobs: Vec<(BlobDigest, Vec<u8>)>) -> Result<(), RemoteError> {
        let names: Vec<BlobDigest> = blobs.iter().map(|(blob, _)| *blob).collect();
        let Split { batches, streams } = self.split(&names).await?;
        let mut contents: std::collections::HashMap<BlobDigest, Vec<u8>> = blobs.into_iter().collect();
        let mut take = |blob: &BlobDigest| (*blob, contents.remove(blob).unwrap_or_default());
        let batches: Vec<Vec<(BlobDigest, Vec<u8>)>> =
            batches.iter().map(|batch| batch.iter().map(&mut take).collect()).collect();
        let streams: Vec<(BlobDigest, Vec<u8>)> = streams.iter().map(take).collect();
        let sent = futures::stream::iter(batches).map(|batch| self.give(batch)).buffer_unordered(AT_ONCE);
        sent.try_collect::<()>().await?;
        let sent = futures::stream::iter(streams)
            .map(|(blob, bytes)| async move { self.write(&blob, &Source::Bytes(Arc::new(bytes))).await })
            .buffer_unordered(AT_ONCE);
        sent.try_collect::<()>().await
    }

    /// The contents of those blobs that the server has, each compared with its digest, in no order. All of it is in memory:
    /// for many or large ones there is [`super::Transfer`].
    ///
    /// # Errors
    /// When the server cannot be asked, or gives what was not asked for.
    pub async fn download_many(&self, blobs: &[BlobDigest]) -> Result<Vec<(BlobDigest, Vec<u8>)>, RemoteError> {
        let Split { batches, streams } = self.split(blobs).await?;
        let got = futures::stream::iter(batches).map(|batch| self.take(batch)).buffer_unordered(AT_ONCE);
        let mut all: Vec<(BlobDigest, Vec<u8>)> = got.try_concat().await?;
        let got = futures::stream::iter(streams)
            .map(|blob| async move { Ok::<_, RemoteError>((blob, self.stream_of(&blob).await?)) })
            .buffer_unordered(AT_ONCE);
        let streamed: Vec<(BlobDigest, Option<Vec<u8>>)> = got.try_collect().await?;
        all.extend(streamed.into_iter().filter_map(|(blob, bytes)| Some((blob, bytes?))));
        Ok(all)
    }

    /// The content, if the server has it; all of it is in memory.
    ///
    /// # Errors
    /// As [`RemoteBlobs::download_many`].
    pub async fn read(&self, blob: &BlobDigest) -> Result<Option<Vec<u8>>, RemoteError> {
        Ok(self.download_many(&[*blob]).await?.pop().map(|(_, bytes)| bytes))
    }

    /// Writes the content to a new file; false: the server does not have it, and there is no file.
    ///
    /// # Errors
    /// As [`RemoteBlobs::download_many`], or when the file cannot be written; what is there then is of no use.
    pub async fn read_file(&self, blob: &BlobDigest, to: &Path) -> Result<bool, RemoteError> {
        let failed = |source| FileError::new("write", to, source);
        let file = tokio::fs::File::create_new(to).await.map_err(failed)?;
        let mut file = tokio::io::BufWriter::new(file);
        let there = self.read_into(blob, &mut file, to).await;
        if !matches!(there, Ok(true)) {
            drop(file);
            // What was begun is of no use; the first error is the one to tell.
            let _ = tokio::fs::remove_file(to).await;
        }
        there
    }

    /// Gives the content of a file to the server.
    ///
    /// # Errors
    /// When the file cannot be read, is not that blob, or the server does not take it.
    pub async fn write_file(&self, blob: &BlobDigest, from: &Path) -> Result<(), RemoteError> {
        let file = File::open(from).map_err(|source| FileError::new("read", from, source))?;
        self.write_open(blob, file, from).await
    }

    pub(super) async fn write_open(&self, blob: &BlobDigest, file: File, path: &Path) -> Result<(), RemoteError> {
        self.write(blob, &Source::File(Arc::new(file), path.to_owned())).await
    }

    pub(super) fn cas(&self) -> ContentAddressableStorageClient<Channel> {
        // An answer may have names beside 4 MB of content.
        ContentAddressableStorageClient::new(self.shared.channel.clone()).max_decoding_message_size(16 << 20)
    }

    pub(super) fn bytes(&self) -> ByteStreamClient<Channel> {
        ByteStreamClient::new(self.shared.channel.clone()).max_decoding_message_size(16 << 20)
    }

    pub(super) fn channel(&self) -> Channel {
        self.shared.channel.clone()
    }

    /// What goes together, and what goes alone.
    pub(super) async fn split(&self, blobs: &[BlobDigest]) -> Result<Split, RemoteError> {
        let limits = self.limits().await?;
        Ok(split(blobs, limits.batch_bytes, STREAM_BYTES))
    }

    /// Refuses what the server would refuse after all of it was sent.
    pub(super) async fn refuse_too_large(&self, blob: &BlobDigest) -> Result<(), RemoteError> {
        let limit = self.limits().await?.blob_bytes;
        if blob.size_bytes <= limit {
            return Ok(());
        }
        Err(RemoteError::TooLarge { url: self.shared.url.clone(), blob: *blob, limit })
    }

    async fn limits(&self) -> Result<Limits, RemoteError> {
        let ask = || async {
            let answer = self.shared.retry.run(|| alive(self.capabilities())).await;
            answer.map_err(|(tries, status)| self.error("ask what it can do", tries, &status))?
        };
        self.shared.limits.get_or_try_init(ask).await.copied()
    }

    /// What the server can do; the inner error: it is no server for us.
    async fn capabilities(&self) -> Result<Result<Limits, RemoteError>, Status> {
        let request = GetCapabilitiesRequest { instance_name: self.shared.instance.clone() };
        let answer = match CapabilitiesClient::new(self.shared.channel.clone()).get_capabilities(request).await {
            Ok(answer) => answer.into_inner().cache_capabilities.unwrap_or_default(),
            // It is an old one, or a plain cache.
            Err(status) if status.code() == Code::Unimplemented => Default::default(),
            Err(status) => return Err(status),
        };
        let functions = &answer.digest_functions;
        if !functions.is_empty() && !functions.contains(&(digest_function::Value::Sha256 as i32)) {
            let why = "it has no blobs by SHA-256".to_owned();
            return Ok(Err(RemoteError::Address { url: self.shared.url.clone(), why }));
        }
        let limit = |bytes: i64| u64::try_from(bytes).ok().filter(|bytes| *bytes > 0);
        let batch_bytes = limit(answer.max_batch_total_size_bytes).unwrap_or(BATCH_BYTES).min(BATCH_BYTES);
        let batch_bytes = if batch_bytes < LEAST_BATCH_BYTES { 0 } else { batch_bytes };
        let blob_bytes = limit(answer.max_cas_blob_size_bytes).unwrap_or(u64::MAX);
        Ok(Ok(Limits { batch_bytes, blob_bytes }))
    }

    pub(super) fn error(&self, what: &'static str, tries: u32, status: &Status) -> RemoteError {
        RemoteError::from_status(&self.shared.url, what, tries, status)
    }

    pub(super) fn wrong(&self, blob: &BlobDigest) -> RemoteError {
        RemoteError::Wrong { url: self.shared.url.clone(), blob: *blob }
    }
}

/// Whether there can be such a blob. Sizes are signed on the wire; what is larger stands for nothing that is anywhere.
pub(super) fn can_be(blob: &BlobDigest) -> bool {
    i64::try_from(blob.size_bytes).is_ok()
}

/// The blob without any content, which every server has and nobody needs to ask for.
pub(super) fn is_empty(blob: &BlobDigest) -> bool {
    blob.size_bytes == 0 && blob.hash == Digest::of(b"")
}
