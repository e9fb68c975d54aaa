//! A server of this process, and clients of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bombproof_coordinator::services::auth::Auth;
use bombproof_coordinator::services::server::{Security, serve};
use bombproof_coordinator::services::{BlobPlane, Limits};
use bombproof_core::digest::BlobDigest;
use bombproof_store::action_cache::{ActionCache, FileActions};
use bombproof_store::cas::{Cas, DiskCas};
use bombproof_store::remote::{Connection, RemoteActions, RemoteBlobs, Transfer};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tonic::service::Routes;

/// A server with stores of its own; it ends with the runtime.
pub(crate) struct Served {
    folder: TempDir,
    pub(crate) cas: Arc<DiskCas>,
    pub(crate) actions: Arc<dyn ActionCache>,
    pub(crate) address: std::net::SocketAddr,
}

impl Served {
    pub(crate) async fn start() -> Self {
        Self::with(Auth::open(), Limits::default()).await
    }

    pub(crate) async fn with(auth: Auth, limits: Limits) -> Self {
        Self::secured(Security { auth, ..Security::loopback() }, limits).await
    }

    pub(crate) async fn secured(security: Security, limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cas = Arc::new(DiskCas::at(folder.path().join("cas")));
        let actions: Arc<dyn ActionCache> = Arc::new(FileActions::at(folder.path().join("actions")));
        let store: Arc<dyn Cas> = Arc::clone(&cas) as Arc<dyn Cas>;
        let uploads = folder.path().join("uploads");
        let plane = BlobPlane::with(store, Arc::clone(&actions), uploads, String::new(), limits).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, security, plane.add_to(Routes::default()), std::future::pending()));
        Self { folder, cas, actions, address }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn connection(&self) -> Connection {
        Connection::to(&self.url())
    }

    pub(crate) fn blobs(&self) -> RemoteBlobs {
        RemoteBlobs::new(&self.connection()).unwrap()
    }

    pub(crate) fn results(&self) -> RemoteActions {
        RemoteActions::new(self.blobs())
    }

    pub(crate) async fn channel(&self) -> tonic::transport::Channel {
        tonic::transport::Endpoint::from_shared(self.url()).unwrap().connect().await.unwrap()
    }

    /// The file of a blob on the server.
    pub(crate) fn file(&self, blob: &BlobDigest) -> PathBuf {
        let mut name = blob.hash.to_string();
        name.insert(2, '/');
        self.cas.folder().join(name)
    }

    /// Files of uploads that are not whole.
    pub(crate) fn uploads(&self) -> usize {
        std::fs::read_dir(self.folder.path().join("uploads")).unwrap().count()
    }

    /// Changes a byte in the middle, so that nobody sees it by looking at the file.
    pub(crate) fn damage(&self, blob: &BlobDigest) {
        let path = self.file(blob);
        let time = path.metadata().unwrap().modified().unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        let mut mode = path.metadata().unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o644);
        std::fs::set_permissions(&path, mode).unwrap();
        std::fs::write(&path, bytes).unwrap();
        std::fs::File::open(&path).unwrap().set_modified(time).unwrap();
    }
}

/// A store of a worker, and the way to the server.
pub(crate) struct Client {
    _folder: TempDir,
    pub(crate) cas: Arc<dyn Cas>,
    pub(crate) transfer: Transfer,
}

impl Client {
    pub(crate) fn of(connection: &Connection) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cas: Arc<dyn Cas> = Arc::new(DiskCas::at(folder.path().join("cas")));
        let tmp = folder.path().join("tmp");
        let transfer = Transfer::new(RemoteBlobs::new(connection).unwrap(), Arc::clone(&cas), tmp);
        Self { _folder: folder, cas, transfer }
    }
}

/// Bytes that no part of is like another one.
pub(crate) fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

pub(crate) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
