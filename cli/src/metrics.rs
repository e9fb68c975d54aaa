//! Figures for Prometheus: one page, over HTTP, where the operator wants it.
//!
//! What asks is not known and not asked who it is. So the page holds counts alone ([`bombproof_metrics`]); where others than this machine can reach
//! it has to be said; and what one who asks can take is bounded: connections, time, the size of a request.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bombproof_core::access::may_listen;
use bombproof_metrics::{CONTENT_TYPE, Page};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE as TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tracing::info;

use crate::args::MetricsArgs;
use crate::fail::Fail;

/// Connections at the same time.
const CONNECTIONS: usize = 16;
/// How long one may last: a request, and its answer.
const LASTS: Duration = Duration::from_secs(10);
/// How much of a request is read, in bytes.
const REQUEST_BYTES: usize = 16 << 10;
/// After a connection that could not be taken (no more open files), so long nothing is tried.
const REST: Duration = Duration::from_millis(200);

/// Where the page is asked for; `None`: nowhere.
///
/// # Errors
/// When it would be open to a network that nobody named so, or the address cannot be had.
pub(crate) async fn listen(args: &MetricsArgs) -> Result<Option<TcpListener>, Fail> {
    let Some(address) = args.metrics else { return Ok(None) };
    may_listen(address.ip(), false, false, args.metrics_open).map_err(|_| {
        Fail::request(format!("will not show figures on {address}, where others than this machine can read them"))
            .hint(Some("use --metrics 127.0.0.1:PORT; or --metrics-open where everybody who reaches it may"))
    })?;
    let failed = |error| Fail::request(format!("--metrics: cannot listen on {address}: {error}"));
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(Fail::machine)?;
    info!(%address, "figures at http://{address}/metrics");
    Ok(Some(listener))
}

/// Shows the page to whoever asks, for ever.
pub(crate) async fn serve(listener: TcpListener, page: Page) {
    let page = Arc::new(page);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // It is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(REST).await;
            continue;
        };
        let page = Arc::clone(&page);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let answer = answer(&request, &page);
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(LASTS)
                .max_buf_size(REQUEST_BYTES)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // Who did not get it asks again.
            let _ = tokio::time::timeout(LASTS, connection).await;
            drop(place);
        });
    }
}

fn answer(request: &Request<Incoming>, page: &Page) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    let plain = "text/plain; charset=utf-8";
    let (status, kind, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, CONTENT_TYPE, page.text()),
        (_, "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, plain, "this page is read by GET\n".to_owned()),
        (_, _) => (StatusCode::NOT_FOUND, plain, "the page is /metrics\n".to_owned()),
    };
    *response.status_mut() = status;
    response.headers_mut().insert(TYPE, hyper::header::HeaderValue::from_static(kind));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
    }
    *response.body_mut() = Full::from(text);
    response
}

#[cfg(test)]
mod tests {
    use bombproof_metrics::FarmMetrics;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    fn args(address: &str, open: bool) -> MetricsArgs {
        MetricsArgs { metrics: Some(address.parse().unwrap()), metrics_open: open }
    }

    async fn serving() -> std::net::SocketAddr {
        let listener = listen(&args("127.0.0.1:0", false)).await.unwrap().unwrap();
        let address = listener.local_addr().unwrap();
        let mut page = Page::default();
        FarmMetrics::default().show(&mut page);
        tokio::spawn(serve(listener, page));
        address
    }

    async fn said(address: std::net::SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        // A server that hangs up in the middle of a request may reset the connection.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn one_page_is_shown_and_nothing_else() {
        let address = serving().await;
        for (request, status, shown) in [
            ("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK", true),
            ("GET /metrics?name=x HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK", true),
            ("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK", false),
            ("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "405 Method Not Allowed", false),
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "404 Not Found", false),
            ("GET /metrics/../x HTTP/1.1\r\nHost: x\r\n\r\n", "404 Not Found", false),
            ("rubbish\r\n\r\n", "400 Bad Request", false),
        ] {
            let answer = said(address, request.as_bytes()).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
            assert_eq!(answer.contains("bombproof_leads 0"), shown, "{request}: {answer}");
        }
        let long = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(2 * REQUEST_BYTES));
        assert!(!said(address, long.as_bytes()).await.contains("200 OK"), "a request without end is not read");
    }

    #[tokio::test]
    async fn who_says_nothing_keeps_nobody_else_waiting_for_long() {
        let address = serving().await;
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let asked = said(address, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        let answer = tokio::time::timeout(3 * LASTS, asked).await.unwrap();
        assert!(answer.contains("200 OK"), "{answer}");
    }

    #[tokio::test]
    async fn figures_are_shown_to_this_machine_unless_said_otherwise() {
        assert!(listen(&MetricsArgs { metrics: None, metrics_open: false }).await.unwrap().is_none());
        assert!(listen(&args("0.0.0.0:0", false)).await.is_err());
        assert!(listen(&args("0.0.0.0:0", true)).await.unwrap().is_some());
    }
}
