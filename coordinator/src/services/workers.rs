//! What workers ask: what to do, and what that is.

use std::collections::HashMap;
use std::sync::Arc;

use bombproof_core::access::Permission;
use bombproof_core::digest::{BlobDigest, Digest};
use bombproof_core::farm::Ended;
use bombproof_core::order::{Call, Done};
use bombproof_core::outcome::Trouble;
use bombproof_proto::farm::{answer_to_wire, call_from_wire, from_json, job, to_json, wire};
use bombproof_store::cas::Cas;
use tonic::{Request, Response, Status};

use super::auth::require;
use super::{Messages, blocking, chunks, internal, leading, malformed};
use crate::farm::Seat;

/// The service.
pub struct WorkersService {
    seat: Arc<Seat>,
}

impl WorkersService {
    /// The queue of a coordinator.
    pub fn new(seat: Arc<Seat>) -> Self {
        Self { seat }
    }
}

/// Reads what a worker gave, if all of it is in the store.
fn read(cas: &dyn Cas, blob: &BlobDigest) -> Result<Done, String> {
    let found = cas.get(blob).map_err(|error| error.to_string())?;
    let text = found.ok_or_else(|| format!("result {blob} is not in the store"))?;
    let done: Done = from_json("result", &text).map_err(|error| error.to_string())?;
    if let Done::Built { built, .. } = &done
        && built.graph.as_ref().is_some_and(|graph| !graph.is_whole())
    {
        return Err("the graph of a result points nowhere".to_owned());
    }
    // A client of the Remote Execution API never sends the empty blob: it is always there.
    let named: Vec<BlobDigest> = done.blobs().into_iter().filter(|blob| *blob != BlobDigest::of(b"")).collect();
    match cas.missing(&named).first() {
        Some(missing) => Err(format!("blob {missing}, which the result names, is not in the store")),
        None => Ok(done),
    }
}

/// Reads all results of a call. One that cannot be had is trouble: the worker's output is lost, and its job is done again.
fn read_all(cas: &dyn Cas, call: &mut Call) -> HashMap<Digest, Arc<Done>> {
    let mut given = HashMap::new();
    for finished in &mut call.report.finished {
        let Ended::Result { digest } = finished.ended else { continue };
        let Some(blob) = call.results.get(&finished.attempt) else { continue };
        match read(cas, blob) {
            Ok(done) => drop(given.insert(digest, Arc::new(done))),
            Err(detail) => finished.ended = Ended::Trouble(Trouble::Tree { detail }),
        }
    }
    given
}

#[tonic::async_trait]
impl wire::workers_server::Workers for WorkersService {
    type FetchStream = Messages<wire::Chunk>;

    async fn synchronize(
        &self,
        request: Request<wire::SynchronizeRequest>,
    ) -> Result<Response<wire::SynchronizeResponse>, Status> {
        require(&request, Permission::Work)?;
        let coordinator = leading(&self.seat)?;
        let mut call = call_from_wire(request.into_inner()).map_err(malformed)?;
        let mut given = HashMap::new();
        if !call.results.is_empty() {
            let cas = Arc::clone(&coordinator.kept().cas);
            (call, given) = blocking(move || {
                let given = read_all(&*cas, &mut call);
                Ok((call, given))
            })
            .await?;
        }
        let answer = tokio::select! {
            answer = coordinator.leader().synchronize(call, given) => answer,
            () = coordinator.ended() => return Err(Status::unavailable("this coordinator does not lead any more")),
        };
        let answer = answer.ok_or_else(|| Status::internal("the queue gave no answer"))?;
        Ok(Response::new(answer_to_wire(&answer)))
    }

    async fn fetch(&self, request: Request<wire::FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        require(&request, Permission::Work)?;
        let job = job(&request.into_inner().job).map_err(malformed)?;
        let work = leading(&self.seat)?.leader().work(&job);
        let work = work.ok_or_else(|| Status::not_found(format!("nobody wants job {}", job.0)))?;
        let text = blocking(move || {
            let order = work.order().map_err(|trouble| internal(trouble.describe()))?;
            to_json("order", &order).map_err(internal)
        });
        let text = text.await?;
        Ok(Response::new(chunks(text)))
    }
}

#[cfg(test)]
mod tests {
    use bombproof_core::action::{ActionResult, OutputFile};
    use bombproof_core::farm::{Attempt, Capabilities, Finished, JobId, Report};
    use bombproof_store::cas::MemoryCas;

    use super::*;

    #[test]
    fn a_result_counts_only_with_all_that_it_names() {
        let cas = MemoryCas::default();
        let blob = BlobDigest::of(b"an object");
        let output = OutputFile { path: "a.o".to_owned(), blob, executable: false };
        let result = ActionResult { exit: 0, outputs: vec![output], stderr: String::new(), cpu_us: 0, wall_us: 0 };
        let done = Done::Action(result);
        let text = to_json("result", &done).unwrap();
        let named = BlobDigest::of(&text);
        let attempt = Attempt { epoch: 1, number: 1 };
        let call = || Call {
            report: Report {
                worker: "w".into(),
                session: 1,
                call: 1,
                capabilities: Capabilities::default(),
                lanes: Vec::new(),
                running: Vec::new(),
                finished: vec![Finished {
                    attempt,
                    job: JobId(Digest::of(b"job")),
                    ended: Ended::Result { digest: named.hash },
                }],
                draining: false,
            },
            results: [(attempt, named)].into(),
            offers: Vec::new(),
            sandbox: String::new(),
        };
        let ended = |cas: &MemoryCas| {
            let mut call = call();
            let given = read_all(cas, &mut call);
            (call.report.finished.remove(0).ended, given.get(&named.hash).map(|done| Done::clone(done)))
        };
        assert!(matches!(ended(&cas), (Ended::Trouble(Trouble::Tree { .. }), None)), "it was never stored");
        cas.put(&text).unwrap();
        assert!(matches!(ended(&cas), (Ended::Trouble(Trouble::Tree { .. }), None)), "its output is not there");
        cas.put(b"an object").unwrap();
        assert_eq!(read(&cas, &named), Ok(done.clone()));
        let nothing = OutputFile { path: "b.o".to_owned(), blob: BlobDigest::of(b""), executable: false };
        let Done::Action(with_empty) = &done else { unreachable!() };
        let mut with_empty = with_empty.clone();
        with_empty.outputs.push(nothing);
        let with_empty = to_json("result", &Done::Action(with_empty)).unwrap();
        assert!(read(&cas, &cas.put(&with_empty).unwrap()).is_ok(), "the empty blob is always there");
        assert_eq!(ended(&cas), (Ended::Result { digest: named.hash }, Some(done)));
    }
}
