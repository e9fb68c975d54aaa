//! One channel to several servers, of which one serves.
//!
//! Calls go to one of them until it cannot be reached, breaks off, or says that it does not serve (`UNAVAILABLE`: a coordinator that does not
//! lead); those after it go to the next one. The call itself is not repeated here: who makes it knows whether that may be done, and tries
//! again as with a single server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tonic::Code;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::transport::{Channel, Error};

/// The servers. Clones go on with the same one.
#[derive(Clone, Debug)]
pub struct Several {
    channels: Vec<Channel>,
    /// The one that calls go to.
    current: Arc<AtomicUsize>,
    /// The one that was found to be ready.
    ready: usize,
}

impl Several {
    /// At least one.
    pub(super) fn new(first: Channel, others: Vec<Channel>) -> Self {
        let channels = std::iter::once(first).chain(others).collect();
        Self { channels, current: Arc::default(), ready: 0 }
    }
}

/// Goes on to the next one, unless somebody has done so.
fn leave(current: &AtomicUsize, from: usize, count: usize) {
    let next = (from + 1) % count;
    // Whoever was faster has seen the same.
    let _ = current.compare_exchange(from, next, Ordering::AcqRel, Ordering::Acquire);
}

fn does_not_serve(response: &http::Response<Body>) -> bool {
    let status = response.headers().get("grpc-status");
    status.is_some_and(|status| Code::from_bytes(status.as_bytes()) == Code::Unavailable)
}

impl Service<http::Request<Body>> for Several {
    type Response = http::Response<Body>;
    type Error = Error;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.ready = self.current.load(Ordering::Acquire);
        let polled = self.channels[self.ready].poll_ready(context);
        if matches!(polled, Poll::Ready(Err(_))) {
            leave(&self.current, self.ready, self.channels.len());
        }
        polled
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (called, count, current) = (self.ready, self.channels.len(), Arc::clone(&self.current));
        let calling = self.channels[called].call(request);
        Box::pin(async move {
            let answer = calling.await;
            if answer.as_ref().map_or(true, does_not_serve) {
                leave(&current, called, count);
            }
            answer
        })
    }
}
