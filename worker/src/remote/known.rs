//! What compiles gave and what they read, as a coordinator knows it, for the agent of a kbuild step.

use std::io::Error;
use std::path::Path;

use bombproof_core::action::ActionResult;
use bombproof_core::digest::BlobDigest;
use bombproof_proto::farm::{MESSAGE_BYTES, wire};
use bombproof_store::action_cache::ActionCache;
use bombproof_store::atomic::FileError;
use bombproof_store::manifests::{DependencySet, ManifestKey, Manifests};
use bombproof_store::remote::{Channel, SyncActions, Transfer, TransferError};
use tokio::runtime::Handle;
use tonic::Status;
use wire::manifests_client::ManifestsClient;

use super::link::{patiently, wait};

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> FileError {
    FileError { action: "ask", path: Path::new("the coordinator").to_owned(), source: Error::other(error) }
}

/// Results of actions: those of the coordinator, whose outputs are brought here before anybody is told.
pub(super) struct Results {
    actions: SyncActions,
    transfer: Transfer,
    runtime: Handle,
}

impl Results {
    pub(super) fn new(actions: SyncActions, transfer: Transfer, runtime: Handle) -> Self {
        Self { actions, transfer, runtime }
    }
}

impl ActionCache for Results {
    fn get(&self, action: &BlobDigest) -> Result<Option<ActionResult>, FileError> {
        let Some(result) = self.actions.get(action)? else { return Ok(None) };
        let outputs: Vec<BlobDigest> = result.outputs.iter().map(|output| output.blob).collect();
        let transfer = self.transfer.clone();
        match wait(&self.runtime, async move { transfer.fetch(&outputs).await.map(drop) }) {
            Some(Ok(())) => Ok(Some(result)),
            // Evicted since: it is made again.
            Some(Err(TransferError::Gone { .. })) | None => Ok(None),
            Some(Err(error)) => Err(failed(error)),
        }
    }

    fn put(&self, action: &BlobDigest, result: &ActionResult) -> Result<(), FileError> {
        self.actions.put(action, result)
    }

    fn forget(&self, action: &BlobDigest) -> Result<(), FileError> {
        self.actions.forget(action)
    }
}

/// Manifests of the coordinator.
pub(super) struct RemoteManifests {
    client: ManifestsClient<Channel>,
    runtime: Handle,
}

impl RemoteManifests {
    pub(super) fn new(channel: Channel, runtime: Handle) -> Self {
        Self { client: ManifestsClient::new(channel).max_decoding_message_size(MESSAGE_BYTES), runtime }
    }
}

impl Manifests for RemoteManifests {
    fn get(&self, key: &ManifestKey) -> Result<Vec<DependencySet>, FileError> {
        let (client, key) = (self.client.clone(), key.0.to_string());
        let ask = async move {
            patiently(|| {
                let (mut client, key) = (client.clone(), key.clone());
                async move { Ok(client.get(wire::GetManifestRequest { key }).await?.into_inner().sets) }
            })
            .await
        };
        let sets: Result<Vec<wire::DependencySet>, Status> = wait(&self.runtime, ask).unwrap_or_else(|| Ok(Vec::new()));
        let sets = sets.map_err(failed)?.into_iter().filter_map(|set| {
            let resolution = set.resolution.parse().ok()?;
            Some(DependencySet { inputs: set.inputs, symbols: set.symbols, resolution })
        });
        Ok(sets.collect())
    }

    fn add(&self, key: &ManifestKey, set: &DependencySet) -> Result<(), FileError> {
        let wire_set = wire::DependencySet {
            inputs: set.inputs.clone(),
            symbols: set.symbols.clone(),
            resolution: set.resolution.to_string(),
        };
        let (client, request) =
            (self.client.clone(), wire::AddManifestRequest { key: key.0.to_string(), set: Some(wire_set) });
        let ask = async move {
            patiently(|| {
                let (mut client, request) = (client.clone(), request.clone());
                async move { client.add(request).await.map(drop) }
            })
            .await
        };
        wait(&self.runtime, ask).unwrap_or(Ok(())).map_err(failed)
    }
}
