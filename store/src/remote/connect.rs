//! How a server is reached.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use bombproof_core::protocol;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

use super::error::RemoteError;
use super::retry::Retry;
use super::several::Several;

/// A connection that is made when it is first used, and made again when it breaks. Each request has our token and says which version
/// of the protocol we speak; servers of others pass over that.
pub type Channel = InterceptedService<Several, Bearer>;

/// Whom we trust, and who we are.
#[derive(Clone, Default)]
pub struct Tls {
    /// Certificates, in PEM, of the authority that the server's own is from.
    pub ca: Vec<u8>,
    /// Our certificate and its key, in PEM.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// The name in the server's certificate, where it is not that of the address.
    pub name: Option<String>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the key.
        write!(f, "Tls {{ identity: {}, name: {:?} }}", self.identity.is_some(), self.name)
    }
}

/// A server that breaks off is found out so fast where there is another one.
const ALIVE_OF_SEVERAL: Duration = Duration::from_secs(5);

/// A server, or several of which one serves, and how to speak to them.
#[derive(Clone)]
pub struct Connection {
    url: String,
    instance: String,
    token: Option<String>,
    tls: Option<Tls>,
    retry: Retry,
    /// Which version we speak is not said.
    silent: bool,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the token.
        f.debug_struct("Connection").field("url", &self.url).field("instance", &self.instance).finish_non_exhaustive()
    }
}

impl Connection {
    /// `http://HOST:PORT`, or `https://HOST:PORT` with [`Connection::tls`]; several with commas between them.
    pub fn to(url: &str) -> Self {
        let urls: Vec<&str> = url.split(',').map(|url| url.trim().trim_end_matches('/')).collect();
        let url = urls.join(",");
        Self { url, instance: String::new(), token: None, tls: None, retry: Retry::default(), silent: false }
    }

    /// Which store of the server; empty by default.
    #[must_use]
    pub fn instance(self, instance: &str) -> Self {
        Self { instance: instance.to_owned(), ..self }
    }

    /// Says who we are with each request.
    #[must_use]
    pub fn token(self, token: Option<String>) -> Self {
        Self { token, ..self }
    }

    /// Whom to trust; needed for `https`.
    #[must_use]
    pub fn tls(self, tls: Option<Tls>) -> Self {
        Self { tls, ..self }
    }

    /// How long to try again.
    #[must_use]
    pub fn retry(self, retry: Retry) -> Self {
        Self { retry, ..self }
    }

    /// Each server by itself, to be asked what it is: without saying who asks, or which version we speak, which it may refuse.
    pub fn each(&self) -> Vec<Self> {
        let one = |url: &str| Self { url: url.to_owned(), token: None, silent: true, ..self.clone() };
        self.url.split(',').map(one).collect()
    }

    /// How many servers there are.
    pub fn servers(&self) -> usize {
        self.url.split(',').count()
    }

    /// The address, or all of them with commas between.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn instance_name(&self) -> &str {
        &self.instance
    }

    pub(super) fn how_often(&self) -> Retry {
        self.retry
    }

    /// A channel to it, for these services and for others of the same server. Nothing is sent yet.
    ///
    /// # Errors
    /// When the address, a certificate or the token cannot be used.
    pub fn channel(&self) -> Result<Channel, RemoteError> {
        let mut channels = self.url.split(',').map(|url| self.lazily(url)).collect::<Result<Vec<_>, _>>()?;
        let bearer = match &self.token {
            None => None,
            Some(token) => {
                let mut value: MetadataValue<Ascii> = format!("Bearer {token}").parse().map_err(|_| {
                    let why = "the token has characters that no token has".to_owned();
                    RemoteError::Address { url: self.url.clone(), why }
                })?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let first = channels.remove(0);
        Ok(InterceptedService::new(Several::new(first, channels), Bearer { token: bearer, silent: self.silent }))
    }

    /// A channel to one of the servers.
    fn lazily(&self, url: &str) -> Result<tonic::transport::Channel, RemoteError> {
        let refuse = |why: String| RemoteError::Address { url: url.to_owned(), why };
        let endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(|_| refuse("expected http://HOST:PORT or https://HOST:PORT".to_owned()))?;
        let (scheme, host) = (endpoint.uri().scheme_str(), endpoint.uri().host().unwrap_or_default());
        let loopback = is_loopback(host);
        let encrypted = match scheme {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(refuse("expected http://HOST:PORT or https://HOST:PORT".to_owned())),
        };
        if self.token.is_some() && !encrypted && !loopback {
            return Err(refuse("a token would go over the network for everybody to read: use https".to_owned()));
        }
        let (every, within) = match self.servers() {
            1 => (Duration::from_secs(30), Duration::from_secs(10)),
            _ => (ALIVE_OF_SEVERAL, ALIVE_OF_SEVERAL),
        };
        let endpoint = endpoint
            .connect_timeout(Duration::from_secs(10))
            // A peer that is gone without a word in the middle of a call is found out in 40 s. Not between calls: other
            // servers close a connection that pings for nothing, and the next call finds out as well.
            .http2_keep_alive_interval(every)
            .keep_alive_timeout(within)
            .tcp_nodelay(true)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20);
        let endpoint = match (encrypted, &self.tls) {
            (false, _) => endpoint,
            (true, None) => {
                return Err(refuse(
                    "https needs the certificate of the authority that the server's is from".to_owned(),
                ));
            }
            (true, Some(tls)) => {
                let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&tls.ca));
                if let Some((certificate, key)) = &tls.identity {
                    config = config.identity(Identity::from_pem(certificate, key));
                }
                if let Some(name) = &tls.name {
                    config = config.domain_name(name.clone());
                }
                endpoint
                    .tls_config(config)
                    .map_err(|error| refuse(format!("its certificates cannot be used: {error}")))?
            }
        };
        Ok(endpoint.connect_lazy())
    }
}

/// Whether nobody else can listen on the way to this host.
fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Puts our token, and the version that we speak, into each request.
#[derive(Clone)]
pub struct Bearer {
    token: Option<MetadataValue<Ascii>>,
    silent: bool,
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer")
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        if !self.silent {
            request.metadata_mut().insert(protocol::HEADER, MetadataValue::from(protocol::VERSION));
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_is_can_be_asked_without_saying_who_asks() {
        let connection = Connection::to("http://127.0.0.1:1, http://127.0.0.1:2/").token(Some("secret".to_owned()));
        let each = connection.each();
        assert_eq!(each.iter().map(Connection::url).collect::<Vec<_>>(), ["http://127.0.0.1:1", "http://127.0.0.1:2"]);
        assert!(each.iter().all(|one| one.token.is_none() && one.silent));
        let said = |silent| {
            let request = Bearer { token: None, silent }.call(Request::new(())).unwrap();
            request.metadata().contains_key(protocol::HEADER)
        };
        assert_eq!((said(true), said(false)), (false, true));
    }

    #[tokio::test]
    async fn addresses_that_cannot_be_used_are_refused_with_what_to_do() {
        let why = |connection: &Connection| connection.channel().map(|_| ()).unwrap_err().to_string();
        for url in ["", "no address", "ftp://a:1", "localhost:80"] {
            assert!(why(&Connection::to(url)).contains("expected http://HOST:PORT"), "{url}");
        }
        assert!(why(&Connection::to("https://farm:1")).contains("certificate of the authority"));
        let token = Some("secret".to_owned());
        let open = Connection::to("http://farm:1").token(token.clone());
        assert!(why(&open).contains("use https"));
        assert!(!format!("{open:?}").contains("secret"));
        for url in ["http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1/"] {
            assert!(Connection::to(url).token(token.clone()).channel().is_ok(), "{url}");
        }
        assert!(Connection::to("http://farm:1").channel().is_ok(), "without a secret");
        assert!(why(&Connection::to("http://127.0.0.1:1").token(Some("a\nb".to_owned()))).contains("no token has"));
    }
}
