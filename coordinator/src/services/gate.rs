//! Whether who calls may make that call: asked once for all services, before any of them reads a request.
//!
//! What a call needs is in a table ([`bombproof_core::access::CALLS`]). A call that is not in it is refused, also when a
//! service would answer it.

use std::task::{Context, Poll};

use bombproof_core::access::{Needs, needs};
use futures::future::{Either, Ready, ready};
use tonic::codegen::{Service, http};
use tonic::{Extensions, Status};
use tower_layer::Layer;

use super::auth::{admit, caller_of};

/// Puts the question before services. It stands behind [`Auth`](super::auth::Auth), which says who calls.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gate;

/// Services behind the question.
#[derive(Clone, Debug)]
pub(super) struct Gated<S>(S);

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated(inner)
    }
}

impl<S, In, Out> Service<http::Request<In>> for Gated<S>
where
    S: Service<http::Request<In>, Response = http::Response<Out>>,
    Out: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<In>) -> Self::Future {
        match ask(request.uri().path(), request.extensions()) {
            Ok(()) => Either::Left(self.0.call(request)),
            Err(status) => Either::Right(ready(Ok(status.into_http()))),
        }
    }
}

fn ask(path: &str, extensions: &Extensions) -> Result<(), Status> {
    match needs(path) {
        Some(Needs::Nothing) => Ok(()),
        Some(Needs::Permission(permission)) => admit(extensions, permission).map(drop),
        // Which calls there are is no matter of who is not known.
        Some(Needs::Known) | None if caller_of(extensions).roles.is_empty() => {
            Err(Status::unauthenticated("this needs a token or a certificate of this farm"))
        }
        Some(Needs::Known) => Ok(()),
        None => {
            Err(Status::unimplemented("this coordinator has no such call: is the caller's bombproof newer than it?"))
        }
    }
}
