//! A network between client and server that breaks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bombproof_store::remote::{Connection, Retry};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Passes bytes on; the first connections break after some bytes, in whatever place that is.
pub(crate) struct Cuts {
    address: SocketAddr,
    passed: Arc<AtomicUsize>,
    broken: Arc<AtomicUsize>,
}

impl Cuts {
    /// The first `cuts` connections break after `bytes` bytes, both ways together.
    pub(crate) async fn start(server: SocketAddr, bytes: usize, cuts: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (passed, broken) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (all, breaks) = (Arc::clone(&passed), Arc::clone(&broken));
        tokio::spawn(async move {
            for number in 0.. {
                let Ok((client, _)) = listener.accept().await else { return };
                let left = Arc::new(AtomicUsize::new(if number < cuts { bytes } else { usize::MAX }));
                let (all, breaks) = (Arc::clone(&all), Arc::clone(&breaks));
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(server).await else { return };
                    let (client_in, client_out) = client.into_split();
                    let (server_in, server_out) = server.into_split();
                    tokio::select! {
                        () = pass(client_in, server_out, &left, &all) => {}
                        () = pass(server_in, client_out, &left, &all) => {}
                    }
                    if left.load(Ordering::Relaxed) == 0 {
                        breaks.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        Self { address, passed, broken }
    }

    pub(crate) fn connection(&self) -> Connection {
        let retry = Retry { first: std::time::Duration::from_millis(5), ..Retry::default() };
        Connection::to(&format!("http://{}", self.address)).retry(retry)
    }

    /// All bytes that went over, both ways.
    pub(crate) fn bytes(&self) -> usize {
        self.passed.load(Ordering::Relaxed)
    }

    /// Connections that broke.
    pub(crate) fn broken(&self) -> usize {
        self.broken.load(Ordering::Relaxed)
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    left: &AtomicUsize,
    all: &AtomicUsize,
) {
    let mut piece = vec![0; 16 << 10];
    loop {
        let Ok(read) = from.read(&mut piece).await else { return };
        let may = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(read)));
        let read = read.min(may.unwrap_or_default());
        all.fetch_add(read, Ordering::Relaxed);
        if read == 0 || to.write_all(&piece[..read]).await.is_err() {
            return;
        }
    }
}
