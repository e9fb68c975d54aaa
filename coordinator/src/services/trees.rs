//! The files of states, for workers.

use std::sync::Arc;

use bombproof_core::access::Permission;
use bombproof_core::id::Oid;
use bombproof_proto::farm::{CHUNK_BYTES, change_to_wire, oid, wire};
use bombproof_store::trees::{TreeError, TreeSource};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::auth::require;
use super::{Messages, blocking, leading, malformed};
use crate::farm::{RepositoryError, Seat, Shelf};
use crate::states::GitTrees;

/// Most objects that one call asks for.
const MAX_OBJECTS: usize = 10_000;
/// Changes in one message: paths are short of 4 KiB, most of them far.
const CHANGES_AT_ONCE: usize = 500;
/// Messages that wait for the other side.
const AHEAD: usize = 8;

/// The service.
pub struct TreesService {
    seat: Arc<Seat>,
}

fn failed(error: &TreeError) -> Status {
    match error {
        TreeError::Missing { .. } => Status::not_found(error.to_string()),
        TreeError::Unreadable { .. } | TreeError::Local { .. } => Status::internal(error.to_string()),
    }
}

/// The other side is gone.
fn gone() -> TreeError {
    TreeError::Unreadable { detail: "nobody listens any more".to_owned() }
}

impl TreesService {
    /// The trees of a coordinator.
    pub fn new(seat: Arc<Seat>) -> Self {
        Self { seat }
    }

    async fn open(&self, repository: String) -> Result<GitTrees, Status> {
        let coordinator = leading(&self.seat)?;
        blocking(move || {
            let depot = Shelf::parse(&repository).and_then(|shelf| coordinator.repositories().open(&shelf));
            let depot = depot.map_err(|error| match error {
                RepositoryError::Unknown { .. } | RepositoryError::Name { .. } => Status::not_found(error.to_string()),
                RepositoryError::States(_) => Status::internal(error.to_string()),
            })?;
            Ok(GitTrees::open(&coordinator.home().objects(depot.path())))
        })
        .await
    }
}

#[tonic::async_trait]
impl wire::trees_server::Trees for TreesService {
    type ChangesStream = Messages<wire::ChangesResponse>;
    type ObjectsStream = Messages<wire::ObjectsResponse>;

    async fn changes(&self, request: Request<wire::ChangesRequest>) -> Result<Response<Self::ChangesStream>, Status> {
        require(&request, Permission::Work)?;
        let request = request.into_inner();
        let from = match request.from.as_str() {
            "" => None,
            from => Some(oid("from", from).map_err(malformed)?),
        };
        let to = oid("to", &request.to).map_err(malformed)?;
        let trees = self.open(request.repository).await?;
        let changes = blocking(move || trees.changes(from.as_ref(), &to).map_err(|error| failed(&error))).await?;
        let messages: Vec<Result<wire::ChangesResponse, Status>> = changes
            .chunks(CHANGES_AT_ONCE)
            .map(|some| Ok(wire::ChangesResponse { changes: some.iter().map(change_to_wire).collect() }))
            .collect();
        Ok(Response::new(Box::pin(futures::stream::iter(messages))))
    }

    async fn objects(&self, request: Request<wire::ObjectsRequest>) -> Result<Response<Self::ObjectsStream>, Status> {
        require(&request, Permission::Work)?;
        let request = request.into_inner();
        if request.oids.len() > MAX_OBJECTS {
            return Err(Status::invalid_argument(format!("field 'oids' of the message: more than {MAX_OBJECTS}")));
        }
        let oids = request.oids.iter().map(|text| oid("oids", text)).collect::<Result<Vec<Oid>, _>>();
        let oids = oids.map_err(malformed)?;
        let trees = self.open(request.repository).await?;
        let (sender, receiver) = mpsc::channel(AHEAD);
        tokio::task::spawn_blocking(move || {
            let mut batch = Batch { objects: Vec::new(), bytes: 0, sender: &sender };
            let read = trees.blobs(&oids, &mut |oid, content| batch.add(oid, content));
            let sent = read.and_then(|()| batch.send());
            if let Err(error) = sent {
                // Nobody may be there to hear it.
                let _ = sender.blocking_send(Err(failed(&error)));
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// Objects that go in one message.
struct Batch<'a> {
    objects: Vec<wire::Object>,
    bytes: usize,
    sender: &'a mpsc::Sender<Result<wire::ObjectsResponse, Status>>,
}

impl Batch<'_> {
    fn add(&mut self, oid: &Oid, content: &[u8]) -> Result<(), TreeError> {
        let mut pieces = content.chunks(CHUNK_BYTES).peekable();
        if pieces.peek().is_none() {
            self.push(wire::Object { oid: oid.to_string(), data: Vec::new(), more: false })?;
        }
        while let Some(piece) = pieces.next() {
            let more = pieces.peek().is_some();
            self.push(wire::Object { oid: oid.to_string(), data: piece.to_vec(), more })?;
        }
        Ok(())
    }

    fn push(&mut self, object: wire::Object) -> Result<(), TreeError> {
        self.bytes += object.data.len() + object.oid.len();
        self.objects.push(object);
        if self.bytes >= CHUNK_BYTES { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<(), TreeError> {
        let objects = std::mem::take(&mut self.objects);
        self.bytes = 0;
        if objects.is_empty() {
            return Ok(());
        }
        self.sender.blocking_send(Ok(wire::ObjectsResponse { objects })).map_err(|_| gone())
    }
}
