//! The same with a server that others wrote: buildbox-casd, in both directions. `BOMBPROOF_CASD` names the program;
//! `make test-interop` fetches it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bombproof_coordinator::services::Limits;
use bombproof_coordinator::services::server::{Security, ServerTls};
use bombproof_core::action::{ActionResult, OutputFile};
use bombproof_core::digest::BlobDigest;
use bombproof_store::action_cache::{ActionCache, laws};
use bombproof_store::cas::{Cas, laws as cas_laws};
use bombproof_store::remote::{Connection, RemoteActions, RemoteBlobs, RemoteCas, SyncActions, TransferError};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;

use super::served::{Client, Served, content};
use super::tls::{Authority, access};

/// A running casd; it ends with this value.
struct Casd {
    _folder: tempfile::TempDir,
    _child: Child,
    port: u16,
}

impl Casd {
    /// Starts one with these arguments; `None`: there is none on this machine.
    async fn start(arguments: &[String]) -> Option<Self> {
        let Some(program) = std::env::var_os("BOMBPROOF_CASD").filter(|path| !path.is_empty()).map(PathBuf::from)
        else {
            eprintln!("NOT TESTED: BOMBPROOF_CASD does not name buildbox-casd; make test-interop fetches it");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(program)
            .args(arguments)
            .arg(format!("--bind=127.0.0.1:{port}"))
            .arg(folder.path().join("cache"))
            // It tells of everything that the laws do to it.
            .stderr(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let casd = Self { _folder: folder, _child: child, port };
        let began = Instant::now();
        while let Err(error) = casd.blobs().missing(&[BlobDigest::of(b"x")]).await {
            assert!(began.elapsed() < Duration::from_secs(120), "{error}");
        }
        Some(casd)
    }

    fn connection(&self) -> Connection {
        Connection::to(&format!("http://127.0.0.1:{}", self.port))
    }

    fn blobs(&self) -> RemoteBlobs {
        RemoteBlobs::new(&self.connection()).unwrap()
    }
}

const SIZES: [usize; 6] = [0, 1, 300_000, 1_048_577, 3_934_464, 9_000_000];

fn contents() -> Vec<(BlobDigest, Vec<u8>)> {
    SIZES.iter().map(|size| content(*size as u64, *size)).map(|bytes| (BlobDigest::of(&bytes), bytes)).collect()
}

fn result(outputs: &[BlobDigest]) -> ActionResult {
    let output = |blob: &BlobDigest| OutputFile { path: format!("{}.o", blob.hash), blob: *blob, executable: true };
    let outputs = outputs.iter().map(output).collect();
    let stderr = "a.c:1:2: warning: é\n".to_owned();
    ActionResult { exit: 1, outputs, stderr, cpu_us: 1_500_001, wall_us: 2_500_002 }
}

#[tokio::test(flavor = "multi_thread")]
async fn our_client_speaks_to_casd() {
    let Some(casd) = Casd::start(&[]).await else { return };
    let (blobs, client) = (contents(), Client::of(&casd.connection()));
    let names: Vec<BlobDigest> = blobs.iter().map(|(blob, _)| *blob).collect();
    for (_, bytes) in &blobs {
        client.cas.put(bytes).unwrap();
    }
    client.transfer.push(&names).await.unwrap();
    assert_eq!(casd.blobs().missing(&names).await.unwrap(), []);
    let other = Client::of(&casd.connection());
    let _pin = other.transfer.fetch(&names).await.unwrap();
    for (blob, bytes) in &blobs {
        assert!(other.cas.get(blob).unwrap().as_ref() == Some(bytes), "{blob}");
    }
    let none = BlobDigest::of(b"nobody has this");
    let gone = other.transfer.fetch(&[none]).await.map(|_| ());
    assert!(matches!(gone, Err(TransferError::Gone { .. })), "{gone:?}");
    let (actions, action) = (RemoteActions::new(casd.blobs()), BlobDigest::of(b"an action"));
    assert_eq!(actions.get(&action).await.unwrap(), None);
    actions.put(&action, &result(&names)).await.unwrap();
    assert_eq!(actions.get(&action).await.unwrap(), Some(result(&names)), "with its times and its diagnostics");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_laws_hold_with_casd_as_the_server() {
    let Some(casd) = Casd::start(&[]).await else { return };
    let client = Client::of(&casd.connection());
    let cas = RemoteCas::new(client.transfer.clone(), Handle::current());
    tokio::task::spawn_blocking(move || cas_laws::serve(&cas)).await.unwrap();
    let content = client.cas.put(laws::CONTENT).unwrap();
    client.transfer.push(&[content]).await.unwrap();
    let actions = RemoteActions::new(casd.blobs());
    let cache = SyncActions::new(actions, client.transfer.clone(), Handle::current());
    tokio::task::spawn_blocking(move || laws::hold(&cache)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn casd_is_a_proxy_of_our_server() {
    let served = Served::start().await;
    let Some(casd) =
        Casd::start(&[format!("--cas-remote={}", served.url()), format!("--ac-remote={}", served.url())]).await
    else {
        return;
    };
    let blobs = contents();
    let names: Vec<BlobDigest> = blobs.iter().map(|(blob, _)| *blob).collect();
    // What our server has comes through it, by its own way of batches and streams.
    let (here, there) = blobs.split_at(3);
    for (_, bytes) in here {
        served.cas.put(bytes).unwrap();
    }
    let client = Client::of(&casd.connection());
    let _pin = client.transfer.fetch(&names[..3]).await.unwrap();
    for (blob, bytes) in here {
        assert!(client.cas.get(blob).unwrap().as_ref() == Some(bytes), "{blob}");
    }
    // And what it is given goes to our server.
    for (_, bytes) in there {
        client.cas.put(bytes).unwrap();
    }
    client.transfer.push(&names).await.unwrap();
    for (blob, bytes) in there {
        assert!(served.cas.get(blob).unwrap().as_ref() == Some(bytes), "{blob}");
    }
    let actions = RemoteActions::new(casd.blobs());
    let [ours, theirs] = [b"ours", b"them"].map(|text| BlobDigest::of(text));
    served.actions.put(&ours, &result(&names)).unwrap();
    assert_eq!(actions.get(&ours).await.unwrap(), Some(result(&names)));
    actions.put(&theirs, &result(&names)).await.unwrap();
    assert_eq!(served.actions.get(&theirs).unwrap(), Some(result(&names)));
}

#[tokio::test(flavor = "multi_thread")]
async fn large_blobs_come_through_casd_from_our_server() {
    let served = Served::start().await;
    let Some(casd) = Casd::start(&[format!("--cas-remote={}", served.url())]).await else { return };
    let bytes = content(77, 20_000_000);
    let blob = served.cas.put(&bytes).unwrap();
    let client = Client::of(&casd.connection());
    let _pin = client.transfer.fetch(&[blob]).await.unwrap();
    assert!(client.cas.get(&blob).unwrap() == Some(bytes));
}

#[tokio::test(flavor = "multi_thread")]
async fn casd_speaks_to_our_server_by_tls_and_shows_a_certificate_or_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("ours");
    let (server, worker) = (authority.make("server"), authority.make("worker"));
    let security = Security {
        auth: access(folder.path(), &worker),
        tls: Some(ServerTls { certificate: server.pem, key: server.key, callers: Some(authority.pem.clone()) }),
        open_to_network: false,
    };
    let served = Served::secured(security, Limits::default()).await;
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let remote = format!("--cas-remote=https://localhost:{}", served.address.port());
    let ca = format!("--cas-server-cert={}", file("ca.pem", &authority.pem));
    let certificate = [
        format!("--cas-client-cert={}", file("worker.pem", &worker.pem)),
        format!("--cas-client-key={}", file("worker.key", &worker.key)),
    ];
    let token = [format!("--cas-access-token={}", file("token", b"of a worker"))];
    for (shown, number) in [(&certificate[..], 1), (&token[..], 2)] {
        let arguments = [&[remote.clone(), ca.clone()], shown].concat();
        let Some(casd) = Casd::start(&arguments).await else { return };
        let bytes = content(number, 2_000_000);
        let blob = BlobDigest::of(&bytes);
        casd.blobs().upload_many(vec![(blob, bytes.clone())]).await.unwrap();
        assert!(served.cas.get(&blob).unwrap() == Some(bytes), "{shown:?}");
    }
}
