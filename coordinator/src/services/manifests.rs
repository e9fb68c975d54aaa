//! What compiles were seen to read, for workers.

use std::sync::Arc;

use bombproof_core::access::Permission;
use bombproof_core::digest::Digest;
use bombproof_proto::farm::wire;
use bombproof_store::manifests::{DependencySet, ManifestKey};
use tonic::{Request, Response, Status};

use super::auth::require;
use super::{blocking, internal, leading};
use crate::farm::Seat;

/// Most files, and most symbols, that one set names.
const MAX_NAMES: usize = 100_000;

/// The service.
pub struct ManifestsService {
    seat: Arc<Seat>,
}

impl ManifestsService {
    /// The manifests of a coordinator.
    pub fn new(seat: Arc<Seat>) -> Self {
        Self { seat }
    }
}

fn key(text: &str) -> Result<ManifestKey, Status> {
    digest("key", text).map(ManifestKey)
}

fn digest(field: &str, text: &str) -> Result<Digest, Status> {
    text.parse().map_err(|error| Status::invalid_argument(format!("field '{field}' of the message: {error}")))
}

#[tonic::async_trait]
impl wire::manifests_server::Manifests for ManifestsService {
    async fn get(
        &self,
        request: Request<wire::GetManifestRequest>,
    ) -> Result<Response<wire::GetManifestResponse>, Status> {
        require(&request, Permission::Work)?;
        let key = key(&request.into_inner().key)?;
        let manifests = Arc::clone(leading(&self.seat)?.manifests());
        let sets = blocking(move || manifests.get(&key).map_err(internal)).await?;
        let sets = sets.into_iter().map(|set| wire::DependencySet {
            inputs: set.inputs,
            symbols: set.symbols,
            resolution: set.resolution.to_string(),
        });
        Ok(Response::new(wire::GetManifestResponse { sets: sets.collect() }))
    }

    async fn add(
        &self,
        request: Request<wire::AddManifestRequest>,
    ) -> Result<Response<wire::AddManifestResponse>, Status> {
        require(&request, Permission::WriteActions)?;
        let request = request.into_inner();
        let key = key(&request.key)?;
        let set = request.set.ok_or_else(|| Status::invalid_argument("field 'set' of the message: it is missing"))?;
        if set.inputs.len().max(set.symbols.len()) > MAX_NAMES {
            return Err(Status::invalid_argument(format!("field 'set' of the message: more than {MAX_NAMES} names")));
        }
        let resolution = digest("set.resolution", &set.resolution)?;
        let set = DependencySet { inputs: set.inputs, symbols: set.symbols, resolution };
        let manifests = Arc::clone(leading(&self.seat)?.manifests());
        blocking(move || manifests.add(&key, &set).map_err(internal)).await?;
        Ok(Response::new(wire::AddManifestResponse {}))
    }
}
