//! The server that all services are in.

use std::future::Future;
use std::time::Duration;

use bombproof_core::access::{OpenServer, may_listen};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::service::{InterceptorLayer, Routes};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::FARM_SERVICES;
use super::auth::Auth;
use super::gate::Gate;

/// Calls of one connection that are under way at the same time: a worker's streams and its long call.
const CALLS: usize = 128;

/// The server cannot begin, or ended by itself.
#[derive(Debug, Error)]
pub enum ServeError {
    /// It would be open to a network.
    #[error(transparent)]
    Open(#[from] OpenServer),
    /// The listener.
    #[error("the server does not know where it listens: {0}")]
    Listener(std::io::Error),
    /// A certificate or a key.
    #[error("the certificates of the server cannot be used: {0}")]
    Certificates(tonic::transport::Error),
    /// The network.
    #[error("the server failed: {0}")]
    Server(tonic::transport::Error),
}

/// The server's certificate, and whose certificates of callers it believes. All are in PEM.
#[derive(Clone)]
pub struct ServerTls {
    /// The certificate.
    pub certificate: Vec<u8>,
    /// Its key.
    pub key: Vec<u8>,
    /// The authority that callers' certificates are from. A caller need not have one: a token will do.
    pub callers: Option<Vec<u8>>,
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the key.
        f.write_str("ServerTls")
    }
}

/// Who may speak to a server, and how.
#[derive(Clone, Debug)]
pub struct Security {
    /// Who callers are.
    pub auth: Auth,
    /// `None`: whoever is on the way can read everything.
    pub tls: Option<ServerTls>,
    /// The operator says that whoever can reach the server may: it listens anywhere without more.
    pub open_to_network: bool,
}

impl Security {
    /// Of a server for this machine alone.
    pub fn loopback() -> Self {
        Self { auth: Auth::open(), tls: None, open_to_network: false }
    }
}

/// Serves until `stop` comes; calls that are under way then come to their ends. Health is among the services, and open to
/// everybody.
///
/// # Errors
/// When it would be open to a network in a way that nobody asked for, its certificates cannot be used, or it cannot go on.
pub async fn serve(
    listener: TcpListener,
    security: Security,
    routes: Routes,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    serve_with(listener, security, routes, stop, |_| {}).await
}

/// Like [`serve`]; the health of the farm's services says whether this process leads.
///
/// # Errors
/// As [`serve`].
pub async fn serve_farm(
    listener: TcpListener,
    security: Security,
    routes: Routes,
    leads: watch::Receiver<bool>,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    serve_with(listener, security, routes, stop, |health| drop(tokio::spawn(tell(health, leads)))).await
}

async fn tell(health: HealthReporter, mut leads: watch::Receiver<bool>) {
    loop {
        let status = if *leads.borrow_and_update() { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in FARM_SERVICES {
            health.set_service_status(service, status).await;
        }
        if leads.changed().await.is_err() {
            return;
        }
    }
}

async fn serve_with(
    listener: TcpListener,
    security: Security,
    routes: Routes,
    stop: impl Future<Output = ()>,
    watched: impl FnOnce(HealthReporter),
) -> Result<(), ServeError> {
    let Security { auth, tls, open_to_network } = security;
    let address = listener.local_addr().map_err(ServeError::Listener)?;
    may_listen(address.ip(), tls.is_some(), auth.knows_callers(), open_to_network)?;
    let (health, service) = tonic_health::server::health_reporter();
    health.set_service_status("", ServingStatus::Serving).await;
    watched(health);
    let routes = routes.add_service(service);
    let mut server = Server::builder();
    if let Some(tls) = &tls {
        let identity = Identity::from_pem(&tls.certificate, &tls.key);
        let mut config = ServerTlsConfig::new().identity(identity).timeout(Duration::from_secs(20));
        if let Some(callers) = &tls.callers {
            config = config.client_ca_root(Certificate::from_pem(callers)).client_auth_optional(true);
        }
        server = server.tls_config(config).map_err(ServeError::Certificates)?;
    }
    let mut server = server
        // A peer that is gone without a word is found out in 40 s, and what it held is free.
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .concurrency_limit_per_connection(CALLS)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .layer(InterceptorLayer::new(auth))
        .layer(Gate);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    server.add_routes(routes).serve_with_incoming_shutdown(incoming, stop).await.map_err(ServeError::Server)
}
