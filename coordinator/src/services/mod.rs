//! What the coordinator serves over the network.
//!
//! Here is the edge: messages become domain types on the way in, errors become `Status` codes on the way out. The blob
//! plane is the Remote Execution API, version 2: `Capabilities`, `ContentAddressableStorage`, `ByteStream` and
//! `ActionCache` over the store's own traits. Beside it is `farm.proto`: [`series`] for users, [`workers`], [`trees`] and
//! [`manifests`] for workers.

mod about;
mod action_cache;
pub mod auth;
mod blobs;
mod bytestream;
mod capabilities;
mod gate;
pub mod manifests;
mod plane;
pub mod series;
pub mod server;
mod tree;
pub mod trees;
mod uploads;
pub mod workers;

pub use plane::{BlobPlane, Limits, PlaneError};

use std::pin::Pin;
use std::sync::Arc;

use bombproof_proto::farm::{CHUNK_BYTES, MESSAGE_BYTES, WireError, wire};
use futures::Stream;
use tonic::service::{InterceptorLayer, Routes};
use tonic::{Request, Status};

use crate::farm::{Coordinator, Seat};

/// A stream of messages to the other side.
pub type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Work with files, off the threads that others wait for.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.unwrap_or_else(|error| Err(Status::internal(error.to_string())))
}

#[expect(clippy::needless_pass_by_value, reason = "as map_err wants it")]
pub(crate) fn malformed(error: WireError) -> Status {
    match error {
        WireError::Version { .. } => Status::failed_precondition(error.to_string()),
        WireError::Field { .. } | WireError::TooLarge { .. } => Status::invalid_argument(error.to_string()),
    }
}

pub(crate) fn internal(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}

/// The coordinator, where this process leads. Who asks another one than the leader is told so, and goes on to the next.
pub(crate) fn leading(seat: &Seat) -> Result<Arc<Coordinator>, Status> {
    seat.coordinator().map_err(|why| Status::unavailable(format!("this coordinator does not lead: {why}")))
}

/// Services that answer while this process leads, and refuse otherwise.
pub fn while_leading(routes: Routes, seat: &Arc<Seat>) -> Routes {
    let seat = Arc::clone(seat);
    let gate = move |request: Request<()>| leading(&seat).map(|_| request);
    Routes::from(routes.into_axum_router().layer(InterceptorLayer::new(gate)))
}

/// Bytes in pieces.
pub(crate) fn chunks(bytes: Vec<u8>) -> Messages<wire::Chunk> {
    let bytes = Arc::new(bytes);
    let count = bytes.len().div_ceil(CHUNK_BYTES);
    let pieces = (0..count).map(move |number| {
        let begin = number * CHUNK_BYTES;
        let piece = bytes.get(begin..bytes.len().min(begin + CHUNK_BYTES)).unwrap_or_default();
        Ok(wire::Chunk { data: piece.to_vec() })
    });
    Box::pin(futures::stream::iter(pieces))
}

/// The names of the services that only a leader has.
pub const FARM_SERVICES: [&str; 4] =
    ["bombproof.farm.v1.Series", "bombproof.farm.v1.Workers", "bombproof.farm.v1.Trees", "bombproof.farm.v1.Manifests"];

/// Adds the services of a farm, with limits on what they take and give; and what a client asks that wants to know which services there are.
pub fn add_farm(routes: Routes, seat: &Arc<Seat>, explain: series::Explain) -> Routes {
    let series = series::SeriesService::new(Arc::clone(seat), explain);
    let workers = workers::WorkersService::new(Arc::clone(seat));
    let trees = trees::TreesService::new(Arc::clone(seat));
    let manifests = manifests::ManifestsService::new(Arc::clone(seat));
    about::add_to(routes)
        .add_service(
            wire::series_server::SeriesServer::new(series)
                .max_decoding_message_size(MESSAGE_BYTES)
                .max_encoding_message_size(MESSAGE_BYTES),
        )
        .add_service(
            wire::workers_server::WorkersServer::new(workers)
                .max_decoding_message_size(MESSAGE_BYTES)
                .max_encoding_message_size(MESSAGE_BYTES),
        )
        .add_service(
            wire::trees_server::TreesServer::new(trees)
                .max_decoding_message_size(MESSAGE_BYTES)
                .max_encoding_message_size(MESSAGE_BYTES),
        )
        .add_service(
            wire::manifests_server::ManifestsServer::new(manifests)
                .max_decoding_message_size(MESSAGE_BYTES)
                .max_encoding_message_size(MESSAGE_BYTES),
        )
}
