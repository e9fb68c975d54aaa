//! Large blobs, in pieces, going on where they were cut off.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bombproof_core::blob::name::{ReadName, WriteName};
use bombproof_core::digest::{BlobDigest, BlobHasher};
use bombproof_proto::wire::bytestream::{QueryWriteStatusRequest, ReadRequest, WriteRequest};
use futures::Stream;
use futures::stream::unfold;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tonic::{Code, Status};

use super::blobs::{RemoteBlobs, is_empty};
use super::error::{RemoteError, is_transient};
use super::retry::alive;
use crate::atomic::FileError;

/// Bytes in one message that is sent.
const PIECE_BYTES: u64 = 256 << 10;
const DOWNLOAD: &str = "download a blob";
const UPLOAD: &str = "upload a blob";

/// Where an upload comes from.
#[derive(Clone)]
pub(super) enum Source {
    Bytes(Arc<Vec<u8>>),
    File(Arc<File>, PathBuf),
}

impl RemoteBlobs {
    /// The content of a large blob, in memory.
    pub(super) async fn stream_of(&self, blob: &BlobDigest) -> Result<Option<Vec<u8>>, RemoteError> {
        let mut bytes = Vec::new();
        let there = self.read_into(blob, &mut bytes, Path::new("memory")).await?;
        Ok(there.then_some(bytes))
    }

    /// Writes the content to `sink`, which is called `path` where it fails; false: the server does not have it.
    pub(super) async fn read_into<W: AsyncWrite + Unpin>(
        &self,
        blob: &BlobDigest,
        sink: &mut W,
        path: &Path,
    ) -> Result<bool, RemoteError> {
        let mut hasher = BlobHasher::default();
        let (mut at, mut failed) = (0, 0);
        while !is_empty(blob) {
            let before = at;
            let status = match self.read_from(blob, &mut at, &mut hasher, sink, path).await? {
                Ok(()) if at == blob.size_bytes => break,
                Ok(()) => Status::unavailable(format!("the stream ended at {at} of {} bytes", blob.size_bytes)),
                // Damaged is gone: such a server does not give it.
                Err(status) if matches!(status.code(), Code::NotFound | Code::DataLoss) => return Ok(false),
                Err(status) => status,
            };
            failed = if at > before { 1 } else { failed + 1 };
            if failed >= self.shared.retry.tries || !is_transient(&status) {
                return Err(self.error(DOWNLOAD, failed, &status));
            }
            tokio::time::sleep(self.shared.retry.pause(failed)).await;
        }
        sink.flush().await.map_err(|source| FileError::new("write", path, source))?;
        if hasher.finish() == *blob { Ok(true) } else { Err(self.wrong(blob)) }
    }

    /// One stream, from `at` on. The outer error is of this side.
    async fn read_from<W: AsyncWrite + Unpin>(
        &self,
        blob: &BlobDigest,
        at: &mut u64,
        hasher: &mut BlobHasher,
        sink: &mut W,
        path: &Path,
    ) -> Result<Result<(), Status>, RemoteError> {
        let name = ReadName { instance: self.shared.instance.clone(), blob: *blob };
        let request = ReadRequest {
            resource_name: name.to_string(),
            read_offset: i64::try_from(*at).unwrap_or(i64::MAX),
            read_limit: 0,
        };
        let mut stream = match alive(self.bytes().read(request)).await {
            Ok(stream) => stream.into_inner(),
            Err(status) => return Ok(Err(status)),
        };
        loop {
            let data = match alive(stream.message()).await {
                Ok(Some(message)) => message.data,
                Ok(None) => return Ok(Ok(())),
                Err(status) => return Ok(Err(status)),
            };
            let next = *at + data.len() as u64;
            if next > blob.size_bytes {
                return Err(self.wrong(blob));
            }
            sink.write_all(&data).await.map_err(|source| FileError::new("write", path, source))?;
            hasher.update(&data);
            *at = next;
        }
    }

    /// Gives a blob to the server.
    pub(super) async fn write(&self, blob: &BlobDigest, source: &Source) -> Result<(), RemoteError> {
        self.refuse_too_large(blob).await?;
        let name = WriteName { instance: self.shared.instance.clone(), upload: uuid(), blob: *blob };
        let name = name.to_string();
        let (mut at, mut failed) = (0, 0);
        loop {
            let status = match self.write_from(&name, blob, source, at).await? {
                // -1 is what some servers say of a blob that is there already.
                Ok(size) if size == blob.size_bytes || size == u64::MAX => return Ok(()),
                Ok(size) => Status::unavailable(format!("{size} of {} bytes were taken", blob.size_bytes)),
                Err(status) => status,
            };
            failed += 1;
            let where_to = status.code() == Code::OutOfRange;
            if failed >= self.shared.retry.tries || !(is_transient(&status) || where_to) {
                return Err(self.error(UPLOAD, failed, &status));
            }
            tokio::time::sleep(self.shared.retry.pause(failed)).await;
            let committed = match self.committed(&name, blob).await {
                Ok(committed) => committed,
                // The upload is not known any more, or the server does not tell.
                Err(status) if matches!(status.code(), Code::NotFound | Code::Unimplemented) => 0,
                Err(status) if is_transient(&status) => at,
                Err(status) => return Err(self.error(UPLOAD, failed, &status)),
            };
            if committed == blob.size_bytes && blob.size_bytes > 0 {
                // All of it came, and the answer was lost. Should it not be whole after all, the next stream says so.
                if self.ask(vec![*blob]).await?.is_empty() {
                    return Ok(());
                }
                at = 0;
                continue;
            }
            if committed > at {
                failed = 1;
            }
            at = committed.min(blob.size_bytes);
        }
    }

    /// How many bytes of an upload the server has.
    async fn committed(&self, name: &str, blob: &BlobDigest) -> Result<u64, Status> {
        let request = QueryWriteStatusRequest { resource_name: name.to_owned() };
        let answer = alive(self.bytes().query_write_status(request)).await?.into_inner();
        Ok(if answer.complete { blob.size_bytes } else { u64::try_from(answer.committed_size).unwrap_or(0) })
    }

    /// One stream, from `at` on; gives the bytes that are committed then. The outer error is of this side.
    async fn write_from(
        &self,
        name: &str,
        blob: &BlobDigest,
        source: &Source,
        at: u64,
    ) -> Result<Result<u64, Status>, RemoteError> {
        let trouble = Arc::new(Mutex::new(None));
        let messages = messages(name.to_owned(), blob.size_bytes, source.clone(), at, Arc::clone(&trouble));
        let mut client = self.bytes();
        let call = client.write(messages);
        // As long as pieces go out the server need not answer; what stands still is found by the connection's keep-alive,
        // and a server that holds a stream without reading it by this.
        let bound = std::time::Duration::from_secs(120 + (blob.size_bytes >> 17));
        let answer = tokio::time::timeout(bound, call).await;
        if let Some(error) = trouble.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(RemoteError::File(error));
        }
        Ok(match answer {
            Ok(Ok(answer)) => Ok(u64::try_from(answer.into_inner().committed_size).unwrap_or(u64::MAX)),
            Ok(Err(status)) => Err(status),
            Err(_) => Err(Status::deadline_exceeded("the server took nothing for long")),
        })
    }
}

type FirstError = Arc<Mutex<Option<FileError>>>;

/// The messages of an upload from `at` on; they end early where the source cannot be read.
fn messages(
    name: String,
    size_bytes: u64,
    source: Source,
    at: u64,
    trouble: FirstError,
) -> impl Stream<Item = WriteRequest> + Send + 'static {
    unfold((Some(name), at, false), move |(name, at, ended)| {
        let (source, trouble) = (source.clone(), Arc::clone(&trouble));
        async move {
            if ended {
                return None;
            }
            let most = (size_bytes.saturating_sub(at)).min(PIECE_BYTES);
            let data = match source.piece(at, most).await {
                Ok(data) => data,
                Err(error) => {
                    *trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    return None;
                }
            };
            let next = at + data.len() as u64;
            let finish_write = next == size_bytes;
            let message = WriteRequest {
                // Only the first one has to have it.
                resource_name: name.unwrap_or_default(),
                write_offset: i64::try_from(at).unwrap_or(i64::MAX),
                finish_write,
                data,
            };
            Some((message, (None, next, finish_write)))
        }
    })
}

impl Source {
    async fn piece(&self, at: u64, most: u64) -> Result<Vec<u8>, FileError> {
        let most = usize::try_from(most).unwrap_or_default();
        let short = || std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "it is shorter than its digest says");
        match self {
            Self::Bytes(bytes) => {
                let at = usize::try_from(at).unwrap_or(usize::MAX);
                let piece = at.checked_add(most).and_then(|end| bytes.get(at..end));
                piece.map(<[u8]>::to_vec).ok_or_else(|| FileError::new("read", Path::new("memory"), short()))
            }
            Self::File(file, path) => {
                let file = Arc::clone(file);
                let read = move || {
                    let mut bytes = vec![0; most];
                    file.read_exact_at(&mut bytes, at).map(|()| bytes)
                };
                let done = tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| Err(error.into()));
                done.map_err(|source| FileError::new("read", path, source))
            }
        }
    }
}

/// A name that no other upload has.
fn uuid() -> String {
    // Each state is made of keys that the system chose at random.
    let (high, low) = (RandomState::new().hash_one(0), RandomState::new().hash_one(1));
    let digits = format!("{high:016x}{low:016x}");
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
    // Version 4: made at random.
    format!("{}-{}-4{}-8{}-{}", part(0, 8), part(8, 12), part(13, 16), part(17, 20), part(20, 32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_uploads_are_uuids_and_all_different() {
        let names: std::collections::HashSet<String> = (0..1000).map(|_| uuid()).collect();
        assert_eq!(names.len(), 1000);
        for name in names {
            let parts: Vec<usize> = name.split('-').map(str::len).collect();
            assert_eq!(parts, [8, 4, 4, 4, 12], "{name}");
        }
    }
}
