//! `ByteStream`: large blobs, in pieces, from any place on.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use bombproof_core::access::Permission;
use bombproof_core::blob::name::{ReadName, WriteName};
use bombproof_core::blob::upload::{Piece, Stream, UploadError};
use bombproof_core::digest::{BlobDigest, BlobHasher};
use bombproof_metrics::labels::Direction;
use bombproof_proto::wire::bytestream::byte_stream_server::ByteStream;
use bombproof_proto::wire::bytestream::{
    QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, ReadResponse, WriteRequest, WriteResponse,
};
use futures::StreamExt;
use futures::stream::{BoxStream, try_unfold};
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::auth::require;
use super::blobs::not_found;
use super::plane::{Shared, from_cas, is_empty};
use super::uploads::{Hold, UploadFailure};

pub(super) struct Service(pub(super) Arc<Shared>);

/// Bytes in one message of a blob that is read. One stream holds no more than this and what gRPC holds for it.
const PIECE_BYTES: usize = 256 << 10;
/// How long a stream that writes may say nothing.
const SILENCE: Duration = Duration::from_secs(120);

#[async_trait]
impl ByteStream for Service {
    type ReadStream = BoxStream<'static, Result<ReadResponse, Status>>;

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        require(&request, Permission::ReadBlobs)?;
        let request = request.into_inner();
        let name =
            ReadName::parse(&request.resource_name).map_err(|error| Status::invalid_argument(error.to_string()))?;
        self.0.check(&name.instance, 0)?;
        let blob = name.blob;
        let offset = u64::try_from(request.read_offset).ok().filter(|offset| *offset <= blob.size_bytes);
        let offset = offset.ok_or_else(|| {
            Status::out_of_range(format!("read_offset is {}, of {} bytes", request.read_offset, blob.size_bytes))
        })?;
        let limit = u64::try_from(request.read_limit)
            .map_err(|_| Status::invalid_argument("read_limit is less than nothing"))?;
        let left = blob.size_bytes - offset;
        let end = offset + if limit == 0 { left } else { limit.min(left) };
        if is_empty(&blob) {
            return Ok(Response::new(futures::stream::empty().boxed()));
        }
        let reading = self.0.on_disk(move |shared| Reading::begin(shared, blob, offset, end)).await?;
        let pieces = try_unfold((Arc::clone(&self.0), reading), |(shared, mut reading)| async move {
            let step = move |shared: &Shared| reading.next(shared).map(|piece| (piece, reading));
            let (piece, reading) = shared.on_disk(step).await?;
            shared.bytes.add(Direction::Out, piece.as_ref().map_or(0, Vec::len) as u64);
            Ok(piece.map(|data| (ReadResponse { data }, (shared, reading))))
        });
        Ok(Response::new(pieces.boxed()))
    }

    async fn write(&self, request: Request<Streaming<WriteRequest>>) -> Result<Response<WriteResponse>, Status> {
        require(&request, Permission::WriteBlobs)?;
        let mut messages = request.into_inner();
        let first =
            next_message(&mut messages).await?.ok_or_else(|| Status::invalid_argument("the stream has no message"))?;
        let name = self.upload_name(&first.resource_name)?;
        let size_bytes = name.blob.size_bytes;
        let committed =
            |bytes: u64| Response::new(WriteResponse { committed_size: i64::try_from(bytes).unwrap_or(i64::MAX) });
        if self.is_there(name.blob).await? {
            // Whatever the client has to say, it need not.
            return Ok(committed(size_bytes));
        }
        // Who begins at 0 did not ask what is there.
        let anew = first.write_offset == 0;
        let (hold, bytes) =
            self.0.on_disk(move |shared| shared.uploads.begin(&name, anew).map_err(|error| refused(&error))).await?;
        let mut stream = Stream::begin(&piece(&first), |_| bytes).map_err(|error| misplaced(&error))?;
        let hold = Arc::new(hold);
        let mut message = Some(first);
        while let Some(next) = message {
            let accepted = stream.step(&piece(&next)).map_err(|error| misplaced(&error))?;
            self.append(&hold, next.data).await?;
            if stream.is_finished() {
                // Whole, by the rule of the stream.
                debug_assert!(accepted.whole, "a finished stream is whole");
                self.finish(&hold).await?;
                return Ok(committed(size_bytes));
            }
            message = next_message(&mut messages).await?;
        }
        // The client closed the stream without an end: the upload rests, and can go on.
        Ok(committed(stream.committed()))
    }

    async fn query_write_status(
        &self,
        request: Request<QueryWriteStatusRequest>,
    ) -> Result<Response<QueryWriteStatusResponse>, Status> {
        require(&request, Permission::WriteBlobs)?;
        let name = self.upload_name(&request.get_ref().resource_name)?;
        if self.is_there(name.blob).await? {
            let committed_size = i64::try_from(name.blob.size_bytes).unwrap_or(i64::MAX);
            return Ok(Response::new(QueryWriteStatusResponse { committed_size, complete: true }));
        }
        let bytes = self.0.on_disk(move |shared| Ok(shared.uploads.committed(&name))).await?;
        let bytes = bytes.ok_or_else(|| Status::not_found("there is no such upload: begin at 0"))?;
        let committed_size = i64::try_from(bytes).unwrap_or(i64::MAX);
        Ok(Response::new(QueryWriteStatusResponse { committed_size, complete: false }))
    }
}

impl Service {
    fn upload_name(&self, text: &str) -> Result<WriteName, Status> {
        let name = WriteName::parse(text).map_err(|error| Status::invalid_argument(error.to_string()))?;
        self.0.check(&name.instance, 0)?;
        let limit = self.0.limits.blob_bytes;
        if name.blob.size_bytes > limit {
            let size = name.blob.size_bytes;
            return Err(Status::invalid_argument(format!(
                "{size} bytes are more than max_cas_blob_size_bytes, {limit}"
            )));
        }
        Ok(name)
    }

    async fn is_there(&self, blob: BlobDigest) -> Result<bool, Status> {
        self.0.on_disk(move |shared| Ok(shared.missing(&[blob]).is_empty())).await
    }

    async fn append(&self, hold: &Arc<Hold>, bytes: Vec<u8>) -> Result<(), Status> {
        let hold = Arc::clone(hold);
        self.0.bytes.add(Direction::In, bytes.len() as u64);
        self.0.on_disk(move |shared| shared.uploads.append(&hold, &bytes).map_err(|error| refused(&error))).await
    }

    async fn finish(&self, hold: &Arc<Hold>) -> Result<(), Status> {
        let hold = Arc::clone(hold);
        self.0.on_disk(move |shared| shared.uploads.finish(&hold, &*shared.cas).map_err(|error| refused(&error))).await
    }
}

/// The next message. A client that sends nothing for long holds a place among the uploads for nothing.
async fn next_message(messages: &mut Streaming<WriteRequest>) -> Result<Option<WriteRequest>, Status> {
    let late = |_| Status::deadline_exceeded(format!("nothing came for {} s", SILENCE.as_secs()));
    tokio::time::timeout(SILENCE, messages.message()).await.map_err(late)?
}

fn piece(message: &WriteRequest) -> Piece<'_> {
    Piece {
        name: &message.resource_name,
        offset: message.write_offset,
        len: message.data.len(),
        finish: message.finish_write,
    }
}

fn misplaced(error: &UploadError) -> Status {
    let text = error.to_string();
    match error {
        // As the API has it for a client that should ask where to go on.
        UploadError::Offset { .. } => Status::out_of_range(text),
        UploadError::Name(_)
        | UploadError::OtherName { .. }
        | UploadError::TooLong { .. }
        | UploadError::TooShort { .. }
        | UploadError::AfterEnd => Status::invalid_argument(text),
    }
}

fn refused(failure: &UploadFailure) -> Status {
    let text = failure.to_string();
    match failure {
        UploadFailure::TooMany(_) | UploadFailure::TooMuch(_) => Status::resource_exhausted(text),
        UploadFailure::TakenOver => Status::aborted(text),
        UploadFailure::Wrong { .. } => Status::invalid_argument(text),
        UploadFailure::Disk(error) if error.kind() == std::io::ErrorKind::StorageFull => {
            Status::resource_exhausted("the disk of the server is full; nothing was kept")
        }
        UploadFailure::Disk(_) => Status::internal("the disk of the server failed"),
        UploadFailure::Store(error) => from_cas(error),
    }
}

/// A blob on its way out. What is read up to its end is compared with its digest before the last bytes go, so a reader
/// that has all of it has the right one.
struct Reading {
    blob: BlobDigest,
    file: File,
    hasher: BlobHasher,
    at: u64,
    end: u64,
}

impl Reading {
    fn begin(shared: &Shared, blob: BlobDigest, offset: u64, end: u64) -> Result<Self, Status> {
        let file = shared.cas.open(&blob).map_err(|error| from_cas(&error))?.ok_or_else(|| not_found(&blob))?;
        let mut reading = Self { blob, file, hasher: BlobHasher::default(), at: 0, end };
        while reading.at < offset {
            let left = offset - reading.at;
            reading.piece(left)?;
        }
        Ok(reading)
    }

    fn next(&mut self, shared: &Shared) -> Result<Option<Vec<u8>>, Status> {
        if self.at >= self.end {
            return Ok(None);
        }
        let piece = self.piece(self.end - self.at)?;
        if self.at == self.blob.size_bytes && std::mem::take(&mut self.hasher).finish() != self.blob {
            shared.cas.check(&self.blob).map_err(|error| from_cas(&error))?;
            return Err(Status::data_loss(format!("the blob {} was damaged, and is gone now", self.blob)));
        }
        Ok(Some(piece))
    }

    /// The next bytes, at most so many, and at least one.
    fn piece(&mut self, most: u64) -> Result<Vec<u8>, Status> {
        let most = usize::try_from(most).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        let mut bytes = vec![0; most];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read(rest) {
                Ok(0) => return Err(Status::data_loss(format!("the blob {} is shorter than it was", self.blob))),
                Ok(read) => filled += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Status::internal("the disk of the server failed")),
            }
        }
        self.hasher.update(&bytes);
        self.at += filled as u64;
        Ok(bytes)
    }
}
