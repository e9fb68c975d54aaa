//! What a server says of itself: which versions of the protocol it takes, to everybody; which services and messages there are, to who is
//! known (gRPC server reflection).

use bombproof_core::protocol;
use bombproof_proto::farm::{DESCRIPTORS, wire};
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tonic_reflection::server::Builder;
use tracing::error;

struct AboutService;

#[tonic::async_trait]
impl wire::about_server::About for AboutService {
    /// The one call of ours that does not ask who makes it.
    async fn version(&self, _: Request<wire::VersionRequest>) -> Result<Response<wire::VersionResponse>, Status> {
        Ok(Response::new(wire::VersionResponse { version: protocol::VERSION, oldest: protocol::OLDEST }))
    }
}

/// Our services and health. Those of the Remote Execution API come without descriptions of themselves.
fn described() -> Builder<'static> {
    Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// Adds both. Clients ask for reflection in its first version or in the one before it.
pub(super) fn add_to(routes: Routes) -> Routes {
    let routes = routes.add_service(wire::about_server::AboutServer::new(AboutService));
    match (described().build_v1(), described().build_v1alpha()) {
        (Ok(v1), Ok(v1alpha)) => routes.add_service(v1).add_service(v1alpha),
        // The descriptions are part of this program. It serves without them.
        (Err(error), _) | (_, Err(error)) => {
            error!("services cannot be described to clients that ask: {error}");
            routes
        }
    }
}
