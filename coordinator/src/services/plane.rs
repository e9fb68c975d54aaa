//! What the four services of the blob plane have in common.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bombproof_core::digest::BlobDigest;
use bombproof_metrics::BlobBytes;
use bombproof_proto::reapi::from_wire;
use bombproof_proto::wire::bytestream::byte_stream_server::ByteStreamServer;
use bombproof_proto::wire::reapi::action_cache_server::ActionCacheServer;
use bombproof_proto::wire::reapi::capabilities_server::CapabilitiesServer;
use bombproof_proto::wire::reapi::content_addressable_storage_server::ContentAddressableStorageServer;
use bombproof_proto::wire::reapi::{self, digest_function};
use bombproof_store::action_cache::ActionCache;
use bombproof_store::atomic::FileError;
use bombproof_store::cas::{Cas, CasError};
use thiserror::Error;
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::service::Routes;

use super::uploads::Uploads;

/// Bounds of what clients can make the server do. A client that wants more is told so, and can do with less.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Content in one batch, in bytes. Messages of gRPC have 4 MiB by default, and each blob has a name beside its content.
    pub batch_bytes: u64,
    /// One message that is read, in bytes: a batch of very many small blobs, with their names.
    pub message_bytes: usize,
    /// One blob, in bytes; more than any object or image of a kernel.
    pub blob_bytes: u64,
    /// Uploads that are not whole yet: more than the streams of a hundred workers.
    pub uploads: usize,
    /// Their bytes.
    pub uploads_bytes: u64,
    /// How long an upload may lie that nobody goes on with.
    pub upload_idle: Duration,
    /// Operations on the disk at the same time: each holds a thread and at most one batch.
    pub disk_operations: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch_bytes: 4_000_000 - (64 << 10),
            message_bytes: 6 << 20,
            blob_bytes: 4 << 30,
            uploads: 512,
            uploads_bytes: 16 << 30,
            upload_idle: Duration::from_secs(600),
            disk_operations: 32,
        }
    }
}

/// The blob plane cannot be served.
#[derive(Debug, Error)]
pub enum PlaneError {
    /// The folder of uploads.
    #[error("uploads need a folder that can be written: {0}")]
    Uploads(#[from] FileError),
}

/// The blob plane: one value for all connections.
#[derive(Clone)]
pub struct BlobPlane {
    shared: Arc<Shared>,
}

/// What the services use.
pub(super) struct Shared {
    pub(super) cas: Arc<dyn Cas>,
    pub(super) actions: Arc<dyn ActionCache>,
    pub(super) uploads: Uploads,
    pub(super) limits: Limits,
    /// Content that came and went.
    pub(super) bytes: BlobBytes,
    instance: String,
    disk: Semaphore,
}

impl BlobPlane {
    /// Serves these stores under the empty instance name. Uploads are kept in the folder until they are whole; it should be on
    /// the file system of the blobs.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn new(cas: Arc<dyn Cas>, actions: Arc<dyn ActionCache>, uploads: PathBuf) -> Result<Self, PlaneError> {
        Self::with(cas, actions, uploads, String::new(), Limits::default())
    }

    /// Like [`BlobPlane::new`], under this instance name and within these limits.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn with(
        cas: Arc<dyn Cas>,
        actions: Arc<dyn ActionCache>,
        uploads: PathBuf,
        instance: String,
        limits: Limits,
    ) -> Result<Self, PlaneError> {
        let uploads = Uploads::new(uploads, &limits)?;
        let disk = Semaphore::new(limits.disk_operations);
        Ok(Self {
            shared: Arc::new(Shared { cas, actions, uploads, limits, bytes: BlobBytes::default(), instance, disk }),
        })
    }

    /// The four services alone.
    pub fn routes(&self) -> Routes {
        self.add_to(Routes::default())
    }

    /// Adds the four services to those that a server has.
    pub fn add_to(&self, routes: Routes) -> Routes {
        let bytes = self.shared.limits.message_bytes;
        let shared = || Arc::clone(&self.shared);
        routes
            .add_service(CapabilitiesServer::new(super::capabilities::Service(shared())))
            .add_service(
                ContentAddressableStorageServer::new(super::blobs::Service(shared())).max_decoding_message_size(bytes),
            )
            .add_service(ByteStreamServer::new(super::bytestream::Service(shared())).max_decoding_message_size(bytes))
            .add_service(
                ActionCacheServer::new(super::action_cache::Service(shared())).max_decoding_message_size(bytes),
            )
    }

    /// Content that came and went, since this value was made.
    pub fn bytes(&self) -> &BlobBytes {
        &self.shared.bytes
    }

    /// Forgets uploads that nobody goes on with. It is done with each new upload too; a server that is idle does it now and
    /// then.
    pub fn sweep(&self) {
        self.shared.uploads.sweep();
    }
}

/// The blob without any content, which is always there.
pub(super) fn is_empty(blob: &BlobDigest) -> bool {
    blob.size_bytes == 0 && *blob == BlobDigest::of(b"")
}

impl Shared {
    /// Does something with the disk on a thread of its own.
    pub(super) async fn on_disk<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let _permit = self.disk.acquire().await.map_err(|_| Status::unavailable("the server is stopping"))?;
        let shared = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || work(&shared)).await;
        done.map_err(|error| {
            // Only the end of the server takes work away before it has begun: the next one does it.
            if error.is_cancelled() {
                Status::unavailable("the server is stopping")
            } else {
                Status::internal("an operation on the disk did not come to its end")
            }
        })?
    }

    /// Refuses another instance and other digests than SHA-256.
    pub(super) fn check(&self, instance: &str, function: i32) -> Result<(), Status> {
        if instance != self.instance {
            let shown: String = instance.chars().take(120).collect();
            return Err(Status::invalid_argument(format!(
                "there is no instance '{shown}' here; this one is called '{}'",
                self.instance
            )));
        }
        let known = [digest_function::Value::Unknown as i32, digest_function::Value::Sha256 as i32];
        if known.contains(&function) { Ok(()) } else { Err(Status::invalid_argument("digests are of SHA-256 here")) }
    }

    /// Those that are not there.
    pub(super) fn missing(&self, blobs: &[BlobDigest]) -> Vec<BlobDigest> {
        let mut missing = self.cas.missing(blobs);
        missing.retain(|blob| !is_empty(blob));
        missing
    }

    /// The content, compared with the digest.
    pub(super) fn get(&self, blob: &BlobDigest) -> Result<Option<Vec<u8>>, Status> {
        if is_empty(blob) {
            return Ok(Some(Vec::new()));
        }
        self.cas.get(blob).map_err(|error| from_cas(&error))
    }
}

/// A digest of a request.
pub(super) fn digest(field: &str, digest: Option<&reapi::Digest>) -> Result<BlobDigest, Status> {
    let digest = digest.ok_or_else(|| Status::invalid_argument(format!("{field} is missing")))?;
    from_wire(digest).ok_or_else(|| {
        let shown: String = digest.hash.chars().take(80).collect();
        Status::invalid_argument(format!("{field}: '{shown}/{}' is no SHA-256 digest", digest.size_bytes))
    })
}

/// Paths of the server are for its own log, not for clients.
pub(super) fn from_cas(error: &CasError) -> Status {
    match error {
        CasError::Full(_) => Status::resource_exhausted("the disk of the server is full; nothing was kept"),
        CasError::NotAFile { .. } | CasError::File(_) => Status::internal("the store of the server failed"),
        CasError::Remote(_) => Status::unavailable("the store behind this server failed"),
    }
}

/// Paths of the server are for its own log, not for clients.
pub(super) fn from_file(error: &FileError) -> Status {
    if matches!(error.source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) {
        Status::resource_exhausted("the disk of the server is full; nothing was kept")
    } else {
        Status::internal("the store of the server failed")
    }
}
