//! Results of actions on a server.

use std::sync::Arc;

use bombproof_core::action::ActionResult;
use bombproof_core::digest::BlobDigest;
use bombproof_proto::reapi::to_wire;
use bombproof_proto::results::{MAX_INLINE_BYTES, decode, encode};
use bombproof_proto::wire::reapi::action_cache_client::ActionCacheClient;
use bombproof_proto::wire::reapi::{GetActionResultRequest, UpdateActionResultRequest};
use tonic::Code;

use super::blobs::RemoteBlobs;
use super::connect::Channel;
use super::error::RemoteError;
use super::retry::alive;

/// Results of actions on a server. Clones share the connection.
#[derive(Clone, Debug)]
pub struct RemoteActions {
    blobs: RemoteBlobs,
}

impl RemoteActions {
    /// On the server that has these blobs.
    pub fn new(blobs: RemoteBlobs) -> Self {
        Self { blobs }
    }

    /// The address of the server.
    pub fn url(&self) -> &str {
        self.blobs.url()
    }

    fn client(&self) -> ActionCacheClient<Channel> {
        ActionCacheClient::new(self.blobs.channel()).max_decoding_message_size(16 << 20)
    }

    /// The result, if the server knows one, all of whose parts it has. One that says what ours cannot say is none.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn get(&self, action: &BlobDigest) -> Result<Option<ActionResult>, RemoteError> {
        let request = GetActionResultRequest {
            instance_name: self.blobs.shared.instance.clone(),
            action_digest: Some(to_wire(action)),
            inline_stderr: true,
            ..GetActionResultRequest::default()
        };
        let call = || {
            let (mut client, request) = (self.client(), request.clone());
            async move { alive(client.get_action_result(request)).await }
        };
        let message = match self.blobs.shared.retry.run(call).await {
            Ok(answer) => answer.into_inner(),
            Err((_, status)) if status.code() == Code::NotFound => return Ok(None),
            Err((tries, status)) => return Err(self.blobs.error("ask for a result", tries, &status)),
        };
        // Of another program, with the same action: it is run again, and ours takes its place.
        let Ok(received) = decode(message) else { return Ok(None) };
        match received.whole() {
            Ok(result) => Ok(Some(result)),
            Err((rest, blob)) => {
                let stderr = self.blobs.read(&blob).await?.and_then(|bytes| String::from_utf8(bytes).ok());
                Ok(stderr.map(|stderr| ActionResult { stderr, ..rest }))
            }
        }
    }

    /// Tells the server what an action gave. All outputs have to be there before. A result that does not settle is not told.
    ///
    /// # Errors
    /// When the server does not take it.
    pub async fn put(&self, action: &BlobDigest, result: &ActionResult) -> Result<(), RemoteError> {
        if !result.settles() {
            return Ok(());
        }
        let stderr = match result.stderr.len() > MAX_INLINE_BYTES {
            false => None,
            true => {
                let blob = BlobDigest::of(result.stderr.as_bytes());
                self.blobs.upload_many(vec![(blob, result.stderr.clone().into_bytes())]).await?;
                Some(blob)
            }
        };
        let request = Arc::new(UpdateActionResultRequest {
            instance_name: self.blobs.shared.instance.clone(),
            action_digest: Some(to_wire(action)),
            action_result: Some(encode(result, stderr.as_ref())),
            ..UpdateActionResultRequest::default()
        });
        let call = || {
            let (mut client, request) = (self.client(), Arc::clone(&request));
            async move { alive(client.update_action_result((*request).clone())).await }
        };
        let done = self.blobs.shared.retry.run(call).await;
        done.map(|_| ()).map_err(|(tries, status)| self.blobs.error("tell a result", tries, &status))
    }
}
