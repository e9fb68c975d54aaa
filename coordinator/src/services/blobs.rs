//! `ContentAddressableStorage`: which blobs are there, and small ones by the batch.

use std::sync::Arc;

use bombproof_core::access::Permission;
use bombproof_core::blob::batch::ENTRY_BYTES;
use bombproof_core::digest::BlobDigest;
use bombproof_metrics::labels::Direction;
use bombproof_proto::reapi::to_wire;
use bombproof_proto::wire::RpcStatus;
use bombproof_proto::wire::reapi::content_addressable_storage_server::ContentAddressableStorage;
use bombproof_proto::wire::reapi::{
    BatchReadBlobsRequest, BatchReadBlobsResponse, BatchUpdateBlobsRequest, BatchUpdateBlobsResponse,
    FindMissingBlobsRequest, FindMissingBlobsResponse, GetChunkMappingRequest, GetChunkMappingResponse, GetTreeRequest,
    GetTreeResponse, RegisterChunkMappingRequest, RegisterChunkMappingResponse, SpliceBlobRequest, SpliceBlobResponse,
    SplitBlobRequest, SplitBlobResponse, batch_read_blobs_response, batch_update_blobs_request,
    batch_update_blobs_response, compressor,
};
use futures::stream::BoxStream;
use tonic::{Code, Request, Response, Status, Streaming, async_trait};

use super::auth::require;
use super::plane::{Shared, digest, from_cas};

pub(super) struct Service(pub(super) Arc<Shared>);

/// What a client of gRPC reads as one message unless it was told otherwise, in bytes.
const ANSWER_BYTES: u64 = 4 << 20;
const NOT_CUT: &str = "blobs are not cut into chunks here";

#[async_trait]
impl ContentAddressableStorage for Service {
    async fn find_missing_blobs(
        &self,
        request: Request<FindMissingBlobsRequest>,
    ) -> Result<Response<FindMissingBlobsResponse>, Status> {
        require(&request, Permission::ReadBlobs)?;
        let request = request.into_inner();
        self.0.check(&request.instance_name, request.digest_function)?;
        let blobs: Result<Vec<BlobDigest>, Status> =
            request.blob_digests.iter().map(|it| digest("blob_digests[]", Some(it))).collect();
        let blobs = blobs?;
        let missing = self.0.on_disk(move |shared| Ok(shared.missing(&blobs))).await?;
        Ok(Response::new(FindMissingBlobsResponse { missing_blob_digests: missing.iter().map(to_wire).collect() }))
    }

    async fn batch_update_blobs(
        &self,
        request: Request<BatchUpdateBlobsRequest>,
    ) -> Result<Response<BatchUpdateBlobsResponse>, Status> {
        require(&request, Permission::WriteBlobs)?;
        let request = request.into_inner();
        self.0.check(&request.instance_name, request.digest_function)?;
        let bytes: u64 = request.requests.iter().map(|blob| blob.data.len() as u64).sum();
        within_batch(bytes, self.0.limits.batch_bytes)?;
        let responses = self.0.on_disk(move |shared| Ok(update(shared, request.requests))).await?;
        Ok(Response::new(BatchUpdateBlobsResponse { responses }))
    }

    async fn batch_read_blobs(
        &self,
        request: Request<BatchReadBlobsRequest>,
    ) -> Result<Response<BatchReadBlobsResponse>, Status> {
        require(&request, Permission::ReadBlobs)?;
        let request = request.into_inner();
        self.0.check(&request.instance_name, request.digest_function)?;
        let blobs: Result<Vec<BlobDigest>, Status> =
            request.digests.iter().map(|it| digest("digests[]", Some(it))).collect();
        let blobs = blobs?;
        let bytes = blobs.iter().fold(0_u64, |sum, blob| sum.saturating_add(blob.size_bytes));
        within_batch(bytes, self.0.limits.batch_bytes)?;
        // Of very many small blobs the names alone would be more than a client reads.
        if bytes + blobs.len() as u64 * ENTRY_BYTES > ANSWER_BYTES {
            return Err(Status::invalid_argument(format!("{} blobs are too many for one batch", blobs.len())));
        }
        let responses = self.0.on_disk(move |shared| Ok(blobs.iter().map(|blob| read(shared, blob)).collect())).await?;
        Ok(Response::new(BatchReadBlobsResponse { responses }))
    }

    type GetTreeStream = BoxStream<'static, Result<GetTreeResponse, Status>>;

    async fn get_tree(&self, request: Request<GetTreeRequest>) -> Result<Response<Self::GetTreeStream>, Status> {
        require(&request, Permission::ReadBlobs)?;
        super::tree::serve(Arc::clone(&self.0), &request.into_inner()).await.map(Response::new)
    }

    async fn split_blob(&self, _: Request<SplitBlobRequest>) -> Result<Response<SplitBlobResponse>, Status> {
        Err(Status::unimplemented(NOT_CUT))
    }

    async fn splice_blob(&self, _: Request<SpliceBlobRequest>) -> Result<Response<SpliceBlobResponse>, Status> {
        Err(Status::unimplemented(NOT_CUT))
    }

    async fn register_chunk_mapping(
        &self,
        _: Request<Streaming<RegisterChunkMappingRequest>>,
    ) -> Result<Response<RegisterChunkMappingResponse>, Status> {
        Err(Status::unimplemented(NOT_CUT))
    }

    type GetChunkMappingStream = BoxStream<'static, Result<GetChunkMappingResponse, Status>>;

    async fn get_chunk_mapping(
        &self,
        _: Request<GetChunkMappingRequest>,
    ) -> Result<Response<Self::GetChunkMappingStream>, Status> {
        Err(Status::unimplemented(NOT_CUT))
    }
}

fn within_batch(bytes: u64, limit: u64) -> Result<(), Status> {
    if bytes <= limit {
        return Ok(());
    }
    Err(Status::invalid_argument(format!(
        "the batch has {bytes} bytes of content, more than max_batch_total_size_bytes, {limit}: use several, or ByteStream"
    )))
}

fn update(
    shared: &Shared,
    requests: Vec<batch_update_blobs_request::Request>,
) -> Vec<batch_update_blobs_response::Response> {
    let answer = |request: batch_update_blobs_request::Request| {
        let status = keep(shared, &request).err();
        batch_update_blobs_response::Response { digest: request.digest, status: Some(rpc(status.as_ref())) }
    };
    requests.into_iter().map(answer).collect()
}

/// Keeps one blob, if it is what its digest says.
fn keep(shared: &Shared, request: &batch_update_blobs_request::Request) -> Result<(), Status> {
    if request.compressor != compressor::Value::Identity as i32 {
        return Err(Status::invalid_argument("compressed blobs are not taken here"));
    }
    let expected = digest("requests[].digest", request.digest.as_ref())?;
    let found = BlobDigest::of(&request.data);
    if found != expected {
        return Err(Status::invalid_argument(format!("the content is that of {found}, not of {expected}")));
    }
    shared.bytes.add(Direction::In, request.data.len() as u64);
    shared.cas.put(&request.data).map(|_| ()).map_err(|error| from_cas(&error))
}

fn read(shared: &Shared, blob: &BlobDigest) -> batch_read_blobs_response::Response {
    let found = shared.get(blob).and_then(|found| found.ok_or_else(|| not_found(blob)));
    let status = Some(rpc(found.as_ref().err()));
    shared.bytes.add(Direction::Out, found.as_ref().map_or(0, Vec::len) as u64);
    batch_read_blobs_response::Response {
        digest: Some(to_wire(blob)),
        data: found.unwrap_or_default(),
        status,
        ..batch_read_blobs_response::Response::default()
    }
}

/// A blob that is not there.
pub(super) fn not_found(blob: &BlobDigest) -> Status {
    Status::not_found(format!("there is no blob {blob} here"))
}

/// The status of one blob among several.
fn rpc(status: Option<&Status>) -> RpcStatus {
    let code = status.map_or(Code::Ok, Status::code);
    let message = status.map(|status| status.message().to_owned()).unwrap_or_default();
    RpcStatus { code: code.into(), message, ..RpcStatus::default() }
}
