//! Questions and small blobs, many in one message.

use std::collections::HashMap;

use bombproof_core::digest::BlobDigest;
use bombproof_proto::reapi::{from_wire, to_wire};
use bombproof_proto::wire::RpcStatus;
use bombproof_proto::wire::reapi::{
    BatchReadBlobsRequest, BatchUpdateBlobsRequest, FindMissingBlobsRequest, batch_update_blobs_request,
};
use tonic::{Code, Status};

use super::blobs::RemoteBlobs;
use super::error::RemoteError;
use super::retry::alive;

impl RemoteBlobs {
    /// Those that are not there.
    pub(super) async fn ask(&self, blobs: Vec<BlobDigest>) -> Result<Vec<BlobDigest>, RemoteError> {
        let request = FindMissingBlobsRequest {
            instance_name: self.shared.instance.clone(),
            blob_digests: blobs.iter().map(to_wire).collect(),
            ..FindMissingBlobsRequest::default()
        };
        let call = || {
            let (mut client, request) = (self.cas(), request.clone());
            async move { alive(client.find_missing_blobs(request)).await }
        };
        let answer = self.shared.retry.run(call).await;
        let answer = answer.map_err(|(tries, status)| self.error("ask for blobs", tries, &status))?;
        // What is no digest of ours was not asked for.
        Ok(answer.into_inner().missing_blob_digests.iter().filter_map(from_wire).collect())
    }

    /// Gives blobs that fit into one message.
    pub(super) async fn give(&self, batch: Vec<(BlobDigest, Vec<u8>)>) -> Result<(), RemoteError> {
        let what = "upload blobs";
        let mut left: HashMap<BlobDigest, Vec<u8>> = batch.into_iter().collect();
        let mut tries = 0;
        loop {
            let answer = self.shared.retry.run(|| alive(self.send(&left))).await;
            let answer = answer.map_err(|(tries, status)| self.error(what, tries, &status))?;
            tries += 1;
            let mut last = None;
            for (blob, status) in answer {
                match status {
                    None => drop(left.remove(&blob)),
                    Some(status) => last = Some(status),
                }
            }
            if left.is_empty() {
                return Ok(());
            }
            let status = last.unwrap_or_else(|| Status::unavailable("the server said nothing of some blobs"));
            if tries >= self.shared.retry.tries || !super::error::is_transient(&status) {
                return Err(self.error(what, tries, &status));
            }
            tokio::time::sleep(self.shared.retry.pause(tries)).await;
        }
    }

    async fn send(&self, blobs: &HashMap<BlobDigest, Vec<u8>>) -> Result<Vec<(BlobDigest, Option<Status>)>, Status> {
        let one = |(blob, bytes): (&BlobDigest, &Vec<u8>)| batch_update_blobs_request::Request {
            digest: Some(to_wire(blob)),
            data: bytes.clone(),
            ..batch_update_blobs_request::Request::default()
        };
        let request = BatchUpdateBlobsRequest {
            instance_name: self.shared.instance.clone(),
            requests: blobs.iter().map(one).collect(),
            ..BatchUpdateBlobsRequest::default()
        };
        let answer = self.cas().batch_update_blobs(request).await?.into_inner();
        let one = |response: bombproof_proto::wire::reapi::batch_update_blobs_response::Response| {
            Some((from_wire(&response.digest?)?, status(response.status)))
        };
        Ok(answer.responses.into_iter().filter_map(one).collect())
    }

    /// The contents of those that are there, of blobs that fit into one message.
    pub(super) async fn take(&self, batch: Vec<BlobDigest>) -> Result<Vec<(BlobDigest, Vec<u8>)>, RemoteError> {
        let what = "download blobs";
        let mut left: Vec<BlobDigest> = batch;
        let mut got = Vec::with_capacity(left.len());
        let mut tries = 0;
        loop {
            let answer = self.shared.retry.run(|| alive(self.fetch(&left))).await;
            let answer = answer.map_err(|(tries, status)| self.error(what, tries, &status))?;
            tries += 1;
            let mut again = Vec::new();
            let mut last = None;
            for blob in std::mem::take(&mut left) {
                match answer.get(&blob) {
                    Some(Ok(bytes)) if BlobDigest::of(bytes) == blob => got.push((blob, bytes.clone())),
                    Some(Ok(_)) => return Err(self.wrong(&blob)),
                    // Damaged is gone: such a server does not give it.
                    Some(Err(status)) if matches!(status.code(), Code::NotFound | Code::DataLoss) => {}
                    Some(Err(status)) => {
                        last = Some(status.clone());
                        again.push(blob);
                    }
                    None => again.push(blob),
                }
            }
            if again.is_empty() {
                return Ok(got);
            }
            let status = last.unwrap_or_else(|| Status::unavailable("the server said nothing of some blobs"));
            if tries >= self.shared.retry.tries || !super::error::is_transient(&status) {
                return Err(self.error(what, tries, &status));
            }
            left = again;
            tokio::time::sleep(self.shared.retry.pause(tries)).await;
        }
    }

    async fn fetch(&self, blobs: &[BlobDigest]) -> Result<HashMap<BlobDigest, Result<Vec<u8>, Status>>, Status> {
        let request = BatchReadBlobsRequest {
            instance_name: self.shared.instance.clone(),
            digests: blobs.iter().map(to_wire).collect(),
            ..BatchReadBlobsRequest::default()
        };
        let answer = self.cas().batch_read_blobs(request).await?.into_inner();
        let one = |response: bombproof_proto::wire::reapi::batch_read_blobs_response::Response| {
            let blob = from_wire(&response.digest?)?;
            Some((blob, status(response.status).map_or(Ok(response.data), Err)))
        };
        Ok(answer.responses.into_iter().filter_map(one).collect())
    }
}

/// What it says of one blob; `None`: it went well.
fn status(status: Option<RpcStatus>) -> Option<Status> {
    let status = status?;
    let code = Code::from_i32(status.code);
    (code != Code::Ok).then(|| Status::new(code, status.message))
}
