//! What this server can do.

use std::sync::Arc;

use bombproof_core::access::Permission;
use bombproof_proto::wire::SemVer;
use bombproof_proto::wire::reapi::capabilities_server::Capabilities;
use bombproof_proto::wire::reapi::{
    ActionCacheUpdateCapabilities, CacheCapabilities, GetCapabilitiesRequest, ServerCapabilities, digest_function,
    symlink_absolute_path_strategy,
};
use tonic::{Request, Response, Status, async_trait};

use super::auth::require;
use super::plane::Shared;

pub(super) struct Service(pub(super) Arc<Shared>);

#[async_trait]
impl Capabilities for Service {
    async fn get_capabilities(
        &self,
        request: Request<GetCapabilitiesRequest>,
    ) -> Result<Response<ServerCapabilities>, Status> {
        let caller = require(&request, Permission::ReadBlobs)?;
        self.0.check(&request.get_ref().instance_name, 0)?;
        let limits = &self.0.limits;
        let cache = CacheCapabilities {
            digest_functions: vec![digest_function::Value::Sha256 as i32],
            action_cache_update_capabilities: Some(ActionCacheUpdateCapabilities {
                update_enabled: caller.may(Permission::WriteActions),
            }),
            max_batch_total_size_bytes: i64::try_from(limits.batch_bytes).unwrap_or(i64::MAX),
            max_cas_blob_size_bytes: i64::try_from(limits.blob_bytes).unwrap_or(i64::MAX),
            // Links are refused in results, whatever they point at.
            symlink_absolute_path_strategy: symlink_absolute_path_strategy::Value::Disallowed as i32,
            ..CacheCapabilities::default()
        };
        let version = |major, minor| Some(SemVer { major, minor, ..SemVer::default() });
        Ok(Response::new(ServerCapabilities {
            cache_capabilities: Some(cache),
            low_api_version: version(2, 0),
            high_api_version: version(2, 12),
            ..ServerCapabilities::default()
        }))
    }
}
