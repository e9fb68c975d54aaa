//! A server that dies in the middle, and another one in its place.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bombproof_coordinator::services::BlobPlane;
use bombproof_coordinator::services::server::{Security, serve};
use bombproof_core::digest::BlobDigest;
use bombproof_proto::wire::bytestream::WriteRequest;
use bombproof_proto::wire::bytestream::byte_stream_client::ByteStreamClient;
use bombproof_store::action_cache::FileActions;
use bombproof_store::cas::{Cas, DiskCas};
use bombproof_store::remote::{Connection, Retry};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::cuts::Cuts;
use super::served::{Client, content};

/// A server that can be killed with all its connections.
struct Server {
    runtime: Runtime,
    address: SocketAddr,
}

impl Server {
    /// One on this address, over what lies in the folder.
    fn start(folder: &Path, address: SocketAddr) -> Self {
        let runtime = Runtime::new().unwrap();
        let cas: Arc<dyn Cas> = Arc::new(DiskCas::at(folder.join("cas")));
        let actions = Arc::new(FileActions::at(folder.join("actions")));
        let plane = BlobPlane::new(cas, actions, folder.join("uploads")).unwrap();
        let began = std::time::Instant::now();
        let listener = loop {
            match runtime.block_on(TcpListener::bind(address)) {
                Ok(listener) => break listener,
                Err(error) => assert!(began.elapsed().as_secs() < 60, "{error}"),
            }
        };
        let address = listener.local_addr().unwrap();
        runtime.spawn(serve(listener, Security::loopback(), plane.routes(), std::future::pending()));
        Self { runtime, address }
    }

    /// As after SIGKILL: nobody is told anything.
    fn kill(self) -> SocketAddr {
        self.runtime.shutdown_background();
        self.address
    }
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

#[test]
fn what_was_announced_outlives_the_server_and_an_upload_begins_again() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), any_port());
    let ours = Runtime::new().unwrap();
    let (bytes, kept) = (content(1, 6_000_000), BlobDigest::of(b"announced"));
    let blob = BlobDigest::of(&bytes);
    let name = format!("uploads/one/blobs/{blob}");
    let half = WriteRequest { resource_name: name, data: bytes[..3_000_000].to_vec(), ..WriteRequest::default() };
    let url = format!("http://{}", server.address);
    ours.block_on(async {
        let client = Client::of(&Connection::to(&url));
        client.cas.put(b"announced").unwrap();
        client.transfer.push(&[kept]).await.unwrap();
        let mut raw = ByteStreamClient::connect(url.clone()).await.unwrap();
        raw.write(futures::stream::iter([half])).await.unwrap();
    });
    let server = Server::start(folder.path(), server.kill());
    ours.block_on(async {
        let client = Client::of(&Connection::to(&url));
        assert_eq!(client.transfer.remote().missing(&[kept, blob]).await.unwrap(), [blob]);
        client.cas.put(&bytes).unwrap();
        client.transfer.push(&[blob]).await.unwrap();
        assert!(client.transfer.remote().read(&blob).await.unwrap() == Some(bytes));
    });
    server.kill();
}

#[test]
fn transfers_outlive_servers_that_die_under_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), any_port());
    let ours = Runtime::new().unwrap();
    // Slow enough that servers die in the middle: each connection breaks now and then as well.
    let cuts = ours.block_on(Cuts::start(server.address, 2_000_000, 4));
    let retry = Retry { tries: 30, ..Retry::default() };
    let client = ours.block_on(async { Client::of(&cuts.connection().retry(retry)) });
    let names: Vec<BlobDigest> = (0..6).map(|number| client.cas.put(&content(number, 2_500_000)).unwrap()).collect();
    let (transfer, wanted) = (client.transfer, names.clone());
    let pushed = ours.spawn(async move { transfer.push(&wanted).await });
    for _ in 0..3 {
        std::thread::sleep(std::time::Duration::from_millis(150));
        server = Server::start(folder.path(), server.kill());
    }
    ours.block_on(pushed).unwrap().unwrap();
    let address = server.kill();
    let cas = DiskCas::at(folder.path().join("cas"));
    assert_eq!(cas.missing(&names), []);
    assert_eq!(cas.verify().unwrap().damaged, []);
    let server = Server::start(folder.path(), address);
    let other = ours.block_on(async {
        let other = Client::of(&cuts.connection().retry(retry));
        other.transfer.fetch(&names).await.map(|_| other).unwrap()
    });
    assert_eq!(other.cas.missing(&names), []);
    server.kill();
}
