//! `ActionCache`: what actions gave, served only while all of it can be had.

use std::sync::Arc;

use bombproof_core::access::Permission;
use bombproof_core::action::ActionResult;
use bombproof_core::digest::BlobDigest;
use bombproof_proto::results::{MAX_INLINE_BYTES, decode, encode};
use bombproof_proto::wire::reapi;
use bombproof_proto::wire::reapi::action_cache_server::ActionCache;
use bombproof_proto::wire::reapi::{GetActionResultRequest, UpdateActionResultRequest};
use tonic::{Request, Response, Status, async_trait};

use super::auth::require;
use super::plane::{Shared, digest, from_cas, from_file};

pub(super) struct Service(pub(super) Arc<Shared>);

/// The longest standard error of an action that is kept, in bytes; compilers that say more are cut off by the worker.
const MAX_STDERR_BYTES: u64 = 64 << 20;

#[async_trait]
impl ActionCache for Service {
    async fn get_action_result(
        &self,
        request: Request<GetActionResultRequest>,
    ) -> Result<Response<reapi::ActionResult>, Status> {
        require(&request, Permission::ReadBlobs)?;
        let request = request.into_inner();
        self.0.check(&request.instance_name, request.digest_function)?;
        let action = digest("action_digest", request.action_digest.as_ref())?;
        let found = self.0.on_disk(move |shared| get(shared, &action, request.inline_stderr)).await?;
        found.map(Response::new).ok_or_else(|| Status::not_found(format!("nothing is known of the action {action}")))
    }

    async fn update_action_result(
        &self,
        request: Request<UpdateActionResultRequest>,
    ) -> Result<Response<reapi::ActionResult>, Status> {
        require(&request, Permission::WriteActions)?;
        let request = request.into_inner();
        self.0.check(&request.instance_name, request.digest_function)?;
        let action = digest("action_digest", request.action_digest.as_ref())?;
        let message = request.action_result.ok_or_else(|| Status::invalid_argument("action_result is missing"))?;
        let received = message.clone();
        self.0.on_disk(move |shared| put(shared, &action, received)).await?;
        Ok(Response::new(message))
    }
}

/// The result with all its outputs; `None`: there is none, or some of it is gone.
fn get(shared: &Shared, action: &BlobDigest, inline: bool) -> Result<Option<reapi::ActionResult>, Status> {
    let Some(result) = shared.actions.get(action).map_err(|error| from_file(&error))? else { return Ok(None) };
    if !absent(shared, &result).is_empty() {
        return Ok(None);
    }
    let is_inline = result.stderr.is_empty() || (inline && result.stderr.len() <= MAX_INLINE_BYTES);
    let blob = match is_inline {
        true => None,
        false => Some(shared.cas.put(result.stderr.as_bytes()).map_err(|error| from_cas(&error))?),
    };
    Ok(Some(encode(&result, blob.as_ref())))
}

fn put(shared: &Shared, action: &BlobDigest, message: reapi::ActionResult) -> Result<(), Status> {
    let received = decode(message).map_err(|error| Status::invalid_argument(format!("action_result: {error}")))?;
    let result = match received.whole() {
        Ok(result) => result,
        Err((rest, blob)) => ActionResult { stderr: stderr(shared, &blob)?, ..rest },
    };
    if let Some(first) = absent(shared, &result).first() {
        return Err(Status::failed_precondition(format!(
            "the output blob {first} is not here: upload all outputs before the result"
        )));
    }
    shared.actions.put(action, &result).map_err(|error| from_file(&error))
}

fn stderr(shared: &Shared, blob: &BlobDigest) -> Result<String, Status> {
    if blob.size_bytes > MAX_STDERR_BYTES {
        return Err(Status::invalid_argument(format!(
            "stderr_digest: more than {MAX_STDERR_BYTES} bytes are not kept"
        )));
    }
    let bytes = shared.get(blob)?.ok_or_else(|| {
        Status::failed_precondition(format!("the standard error {blob} is not here: upload it before the result"))
    })?;
    String::from_utf8(bytes).map_err(|_| Status::invalid_argument("stderr_digest: it is no UTF-8 text"))
}

/// Outputs that are not there. Those that are count as used, and are safe from eviction for a while.
fn absent(shared: &Shared, result: &ActionResult) -> Vec<BlobDigest> {
    let blobs: Vec<BlobDigest> = result.outputs.iter().map(|output| output.blob).collect();
    shared.missing(&blobs)
}
