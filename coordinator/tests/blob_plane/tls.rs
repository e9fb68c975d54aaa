//! Certificates and tokens over real connections.

use std::path::Path;

use bombproof_coordinator::services::Limits;
use bombproof_coordinator::services::auth::Auth;
use bombproof_coordinator::services::server::{Security, ServeError, ServerTls, serve};
use bombproof_core::access::{Known, Proof, Role};
use bombproof_core::digest::BlobDigest;
use bombproof_store::remote::{Connection, RemoteBlobs, RemoteError, Retry, Tls};
use rcgen::{CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::net::TcpListener;
use tonic::service::Routes;

use super::served::Served;

/// An authority and what it made.
pub(crate) struct Authority {
    pub(crate) pem: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

pub(crate) struct Made {
    pub(crate) pem: Vec<u8>,
    pub(crate) key: Vec<u8>,
    der: Vec<u8>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem().into_bytes();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn make(&self, name: &str) -> Made {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Made {
            pem: certificate.pem().into_bytes(),
            key: key.serialize_pem().into_bytes(),
            der: certificate.der().to_vec(),
        }
    }
}

pub(crate) fn access(folder: &Path, worker: &Made) -> Auth {
    let path = folder.join("access");
    let lines = [
        Proof::of_certificate(&worker.der).line(&Known::new("builder-1", &[Role::Worker])),
        Proof::of_token("of a worker").line(&Known::new("builder-2", &[Role::Worker])),
        Proof::of_token("of a user").line(&Known::new("ann", &[Role::Submit])),
    ];
    std::fs::write(&path, lines.concat()).unwrap();
    Auth::listed(&path).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_is_known_by_certificate_or_token_and_by_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, other) = (Authority::new("ours"), Authority::new("another one"));
    let (server, worker, stranger) = (ours.make("server"), ours.make("worker"), ours.make("worker"));
    let foreign = other.make("worker");
    let tls = ServerTls { certificate: server.pem, key: server.key, callers: Some(ours.pem.clone()) };
    let security = Security { auth: access(folder.path(), &worker), tls: Some(tls), open_to_network: false };
    let served = Served::secured(security, Limits::default()).await;
    let url = format!("https://{}", served.address);
    let try_it = async |ca: &Authority, identity: Option<&Made>, token: Option<&str>| {
        let identity = identity.map(|made| (made.pem.clone(), made.key.clone()));
        let tls = Tls { ca: ca.pem.clone(), identity, name: None };
        let retry = Retry { tries: 1, ..Retry::default() };
        let connection = Connection::to(&url).tls(Some(tls)).token(token.map(str::to_owned)).retry(retry);
        RemoteBlobs::new(&connection)?.missing(&[BlobDigest::of(b"x")]).await.map(|missing| missing.len())
    };
    assert_eq!(try_it(&ours, Some(&worker), None).await.unwrap(), 1, "its certificate is listed");
    assert_eq!(try_it(&ours, None, Some("of a worker")).await.unwrap(), 1, "its token is listed");
    let denied = |done: Result<usize, RemoteError>, said: &str| {
        let error = done.unwrap_err();
        assert!(matches!(error, RemoteError::Denied { .. }) && error.to_string().contains(said), "{error}");
    };
    denied(try_it(&ours, None, None).await, "needs a token or a certificate");
    denied(try_it(&ours, None, Some("guessed")).await, "none of this farm");
    denied(try_it(&ours, Some(&worker), Some("guessed")).await, "none of this farm");
    denied(try_it(&ours, None, Some("of a user")).await, "'ann' may not");
    denied(try_it(&ours, Some(&worker), Some("of a user")).await, "'ann' may not");
    denied(try_it(&ours, Some(&stranger), None).await, "needs a token or a certificate");
    // Of another authority nobody is spoken to, on either side.
    let refused = |done: Result<usize, RemoteError>| {
        let error = done.unwrap_err();
        assert!(matches!(error, RemoteError::Unreachable { .. }), "{error}");
    };
    refused(try_it(&ours, Some(&foreign), None).await);
    refused(try_it(&other, Some(&worker), None).await);
    // Without TLS nothing is answered.
    let plain = Connection::to(&served.url()).retry(Retry { tries: 1, ..Retry::default() });
    refused(RemoteBlobs::new(&plain).unwrap().missing(&[BlobDigest::of(b"x")]).await.map(|missing| missing.len()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_does_not_listen_to_a_network_unless_it_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new("ours");
    let server = ours.make("server");
    let tls = ServerTls { certificate: server.pem.clone(), key: server.key.clone(), callers: None };
    let start = async |security: Security| {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        serve(listener, security, Routes::default(), async {}).await
    };
    let refused = |done: Result<(), ServeError>| done.unwrap_err().to_string();
    assert!(refused(start(Security::loopback()).await).contains("without TLS"));
    let open = Security { tls: Some(tls.clone()), ..Security::loopback() };
    assert!(refused(start(open).await).contains("everybody may do everything"));
    let closed = Security { auth: access(folder.path(), &server), tls: Some(tls.clone()), open_to_network: false };
    start(closed).await.unwrap();
    start(Security { open_to_network: true, ..Security::loopback() }).await.unwrap();
    let broken = ServerTls { key: b"rubbish".to_vec(), ..tls };
    let broken = Security { tls: Some(broken), ..Security::loopback() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    assert!(refused(serve(listener, broken, Routes::default(), async {}).await).contains("certificates"));
}
