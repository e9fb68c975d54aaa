//! What users ask: to take a series, to tell of it, to stop it.

use std::io::{Seek, Write};
use std::sync::Arc;
use std::time::Duration;

use bombproof_core::access::{Permission, ProjectError, ProjectId, Scope};
use bombproof_core::farm::Standing;
use bombproof_core::id::{Oid, RunId, SeriesId, UserId};
use bombproof_core::submission::{Phase, Submission};
use bombproof_proto::farm::{MAX_SUBMISSION_BYTES, inflated, name, oid, project, to_json, wire};
use bombproof_store::home::Home;
use bombproof_store::register::{Entry, RegisterError};
use bombproof_store::runs::RunError;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::auth::{Admission, Caller, require};
use super::{Messages, blocking, chunks, internal, leading, malformed};
use crate::farm::{Coordinator, Live, RepositoryError, Seat, Shelf, SubmitError, Told};

/// Largest submission as it comes, in bytes.
const MAX_PACKED_BYTES: usize = 256 << 20;
/// Largest pack, in bytes: a kernel without its history has 300 MB.
const MAX_PACK_BYTES: u64 = 4 << 30;
/// Most commits that are asked for at once.
const MAX_COMMITS: usize = 1_000;
/// A watcher hears something this often at least.
const ALIVE_EVERY: Duration = Duration::from_secs(5);
/// Messages that wait for a watcher.
const AHEAD: usize = 64;

/// How a coordinator that asks nobody who they are calls its callers.
const EVERYBODY: &str = "local";

/// Gives the evidence for one patch on one target of a run, or what is wrong with the question.
pub type Explain = Arc<dyn Fn(&Home, &RunId, u32, &str) -> Result<String, String> + Send + Sync>;

/// The service.
pub struct SeriesService {
    seat: Arc<Seat>,
    explain: Explain,
}

impl SeriesService {
    /// The series of a coordinator.
    pub fn new(seat: Arc<Seat>, explain: Explain) -> Self {
        Self { seat, explain }
    }

    /// The entry of a series, and the coordinator that it is with. One of a project that its caller has nothing to do with does not
    /// exist, and the answer is the same to the letter.
    async fn entry(&self, caller: &Caller, id: &str) -> Result<(Arc<Coordinator>, Entry), Status> {
        let id = SeriesId(name("series", id).map_err(malformed)?);
        let coordinator = leading(&self.seat)?;
        let (asked, scope) = (Arc::clone(&coordinator), caller.scope());
        let entry = blocking(move || {
            let entry = asked.register().entry(&id).map_err(|error| register_failed(&error))?;
            let seen = entry.filter(|entry| scope.includes(&entry.project));
            seen.ok_or_else(|| register_failed(&RegisterError::Unknown { id }))
        });
        Ok((coordinator, entry.await?))
    }
}

fn info(coordinator: &Coordinator, entry: &Entry) -> wire::SeriesInfo {
    let id = &entry.id;
    let (mut states, mut settled, mut failing) = (0, 0, 0);
    if let Ok(record) = coordinator.runs().find(Some(id.as_str())) {
        states = record.states.saturating_mul(u32::try_from(record.targets.len()).unwrap_or(u32::MAX));
        settled = record.targets.iter().map(|target| target.settled).sum();
        failing = record.targets.iter().map(|target| target.failing).sum();
    }
    let view = coordinator.leader().series(id);
    wire::SeriesInfo {
        series: id.to_string(),
        name: entry.name.clone(),
        owner: entry.owner.to_string(),
        project: entry.project.to_string(),
        state: state(entry.phase).into(),
        submitted_at_s: entry.submitted_at_s,
        states,
        settled,
        failing,
        queued: view.as_ref().map_or(0, |view| view.queued),
        running: view.as_ref().map_or(0, |view| view.running),
        estimate_ms: view.and_then(|view| view.estimate_ms).unwrap_or(0),
        detail: entry.detail.clone(),
        patches: entry.patches,
        targets: entry.targets.clone(),
    }
}

/// Whose a submission is: who proved to be somebody is that one.
fn owner(caller: &Caller, submission: &Submission) -> Result<UserId, Status> {
    let named = if caller.name == EVERYBODY { submission.user.as_str() } else { &caller.name };
    name("user", named).map(UserId).map_err(malformed)
}

/// The project that something is asked or handed in for.
fn chosen(scope: &Scope, asked: Option<&ProjectId>) -> Result<ProjectId, Status> {
    scope.choose(asked).map_err(|error| match error {
        ProjectError::NotYours { .. } => Status::permission_denied(error.to_string()),
        ProjectError::Several { .. } => Status::invalid_argument(error.to_string()),
    })
}

fn state(phase: Phase) -> wire::State {
    match phase {
        Phase::Accepted => wire::State::Accepted,
        Phase::Running => wire::State::Running,
        Phase::Finished => wire::State::Finished,
        Phase::Cancelled => wire::State::Cancelled,
        Phase::Refused => wire::State::Refused,
        Phase::Failed => wire::State::Failed,
    }
}

fn register_failed(error: &RegisterError) -> Status {
    match error {
        RegisterError::Unknown { .. } => Status::not_found(error.to_string()),
        RegisterError::Taken { .. } => Status::already_exists(error.to_string()),
        RegisterError::Away { .. } | RegisterError::Deposed | RegisterError::Emptied { .. } => {
            Status::unavailable(error.to_string())
        }
        RegisterError::Unusable { .. } | RegisterError::Newer { .. } => Status::internal(error.to_string()),
    }
}

fn repository_failed(error: &RepositoryError) -> Status {
    match error {
        RepositoryError::Unknown { .. } | RepositoryError::Name { .. } => Status::not_found(error.to_string()),
        RepositoryError::States(error) if !error.is_infrastructure() => Status::invalid_argument(error.to_string()),
        RepositoryError::States(_) => Status::internal(error.to_string()),
    }
}

fn submit_failed(error: &SubmitError) -> Status {
    match error {
        SubmitError::Request(_) => Status::invalid_argument(error.to_string()),
        SubmitError::Enough(_) => Status::resource_exhausted(error.to_string()),
        SubmitError::Repository(error) => repository_failed(error),
        SubmitError::Register(error) => register_failed(error),
    }
}

/// What is being submitted.
struct Incoming {
    submission: Vec<u8>,
    pack: Option<tempfile::NamedTempFile>,
    pack_bytes: u64,
}

impl Incoming {
    fn add(&mut self, part: wire::submit_request::Part, coordinator: &Coordinator) -> Result<(), Status> {
        match part {
            wire::submit_request::Part::Submission(piece) => {
                if self.submission.len() + piece.len() > MAX_PACKED_BYTES {
                    return Err(Status::resource_exhausted(format!(
                        "the submission is larger than {} MiB",
                        MAX_PACKED_BYTES >> 20
                    )));
                }
                self.submission.extend_from_slice(&piece);
            }
            wire::submit_request::Part::Pack(piece) => {
                self.pack_bytes = self.pack_bytes.saturating_add(piece.len() as u64);
                if self.pack_bytes > MAX_PACK_BYTES {
                    return Err(Status::resource_exhausted(format!(
                        "the pack is larger than {} MiB; name the repository at the coordinator",
                        MAX_PACK_BYTES >> 20
                    )));
                }
                let pack = match &mut self.pack {
                    Some(pack) => pack,
                    None => {
                        let folder = coordinator.incoming().path();
                        self.pack.insert(tempfile::NamedTempFile::new_in(folder).map_err(internal)?)
                    }
                };
                pack.write_all(&piece).map_err(internal)?;
            }
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl wire::series_server::Series for SeriesService {
    type WatchStream = Messages<wire::WatchResponse>;
    type ReportStream = Messages<wire::Chunk>;
    type ExplainStream = Messages<wire::Chunk>;

    async fn have(&self, request: Request<wire::HaveRequest>) -> Result<Response<wire::HaveResponse>, Status> {
        let caller = require(&request, Permission::Submit)?;
        let request = request.into_inner();
        if request.oids.len() > MAX_COMMITS {
            return Err(Status::invalid_argument(format!("field 'oids' of the message: more than {MAX_COMMITS}")));
        }
        let oids = request.oids.iter().map(|text| oid("oids", text)).collect::<Result<Vec<Oid>, _>>();
        let oids = oids.map_err(malformed)?;
        let project = project("project", &request.project).map_err(malformed)?;
        let project = chosen(&caller.scope(), project.as_ref())?;
        let coordinator = leading(&self.seat)?;
        let answer = blocking(move || {
            let repositories = coordinator.repositories();
            let name = repositories.name(&request.repository).map_err(|error| repository_failed(&error))?;
            let shelf = Shelf { project, name };
            let depot = repositories.open(&shelf).map_err(|error| repository_failed(&error))?;
            let there = depot.known(&oids).map_err(internal)?;
            Ok(wire::HaveResponse {
                repository: shelf.name,
                oids: there.iter().map(Oid::to_string).collect(),
                project: shelf.project.to_string(),
            })
        });
        Ok(Response::new(answer.await?))
    }

    async fn submit(
        &self,
        request: Request<Streaming<wire::SubmitRequest>>,
    ) -> Result<Response<wire::SubmitResponse>, Status> {
        let caller = require(&request, Permission::Submit)?;
        let mut stream = request.into_inner();
        let mut incoming = Incoming { submission: Vec::new(), pack: None, pack_bytes: 0 };
        while let Some(message) = stream.next().await {
            let Some(part) = message?.part else { continue };
            let coordinator = leading(&self.seat)?;
            incoming = blocking(move || incoming.add(part, &coordinator).map(|()| incoming)).await?;
        }
        let coordinator = leading(&self.seat)?;
        let theirs = Arc::clone(&coordinator);
        let taken = blocking(move || {
            let Incoming { submission: bytes, mut pack, .. } = incoming;
            let submission: Submission = inflated("submission", &bytes, MAX_SUBMISSION_BYTES).map_err(malformed)?;
            let owner = owner(&caller, &submission)?;
            let project = chosen(&caller.scope(), submission.project.as_ref())?;
            if let Some(pack) = &mut pack {
                pack.flush().and_then(|()| pack.rewind()).map_err(internal)?;
                let shelf = Shelf { project: project.clone(), name: submission.repository.clone() };
                let depot = theirs.repositories().open(&shelf);
                let depot = depot.map_err(|error| repository_failed(&error))?;
                depot.add(pack.path()).map_err(|error| Status::invalid_argument(error.to_string()))?;
            }
            Ok((submission, bytes, owner, project))
        });
        let (submission, bytes, owner, project) = taken.await?;
        let series = coordinator.submit(submission, bytes, owner, project).await;
        let series = series.map_err(|error| submit_failed(&error))?;
        Ok(Response::new(wire::SubmitResponse { series: series.to_string() }))
    }

    async fn watch(&self, request: Request<wire::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let caller = require(&request, Permission::ReadSeries)?;
        let admission = Admission::of(&request);
        let (coordinator, entry) = self.entry(&caller, &request.into_inner().series).await?;
        let (sender, receiver) = mpsc::channel(AHEAD);
        match coordinator.live(&entry.id) {
            Some(live) => {
                let id = entry.id.to_string();
                tokio::spawn(async move {
                    // Who does not listen any more does not need to be told.
                    tokio::select! {
                        _ = tell(&id, &live, &sender) => {}
                        status = admission.lost(Permission::ReadSeries, &entry.project) => drop(sender.send(Err(status)).await),
                    }
                });
            }
            None => {
                // It may have ended since the entry was read.
                let (_, entry) = self.entry(&caller, entry.id.as_str()).await?;
                if coordinator.is_over() || !entry.phase.is_over() {
                    return Err(left());
                }
                let over = Told::Over { phase: entry.phase, detail: entry.detail, hint: entry.hint };
                let message = message(entry.id.as_str(), over)?;
                // There is room for one.
                let _ = sender.try_send(Ok(message));
            }
        }
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn list(&self, request: Request<wire::ListRequest>) -> Result<Response<wire::ListResponse>, Status> {
        let scope = require(&request, Permission::ReadSeries)?.scope();
        let coordinator = leading(&self.seat)?;
        let series = blocking(move || {
            let entries = coordinator.register().list().map_err(|error| register_failed(&error))?;
            let seen = entries.iter().filter(|entry| scope.includes(&entry.project));
            Ok(seen.map(|entry| info(&coordinator, entry)).collect())
        });
        Ok(Response::new(wire::ListResponse { series: series.await? }))
    }

    async fn status(&self, request: Request<wire::StatusRequest>) -> Result<Response<wire::StatusResponse>, Status> {
        let caller = require(&request, Permission::ReadSeries)?;
        let asked = request.into_inner().series;
        let series = match asked.as_str() {
            "" => None,
            id => {
                let (coordinator, entry) = self.entry(&caller, id).await?;
                Some(info(&coordinator, &entry))
            }
        };
        let (overview, settled) = leading(&self.seat)?.leader().overview();
        let workers = overview.workers.iter().map(|worker| wire::WorkerInfo {
            worker: worker.worker.to_string(),
            live: worker.live,
            standing: match worker.standing {
                _ if !worker.live => "not heard".to_owned(),
                Standing::Good => "good".to_owned(),
                Standing::Draining => "draining".to_owned(),
                Standing::Quarantined { for_ms } => format!("quarantined for {} s", for_ms / 1000),
                Standing::Replaced => "replaced".to_owned(),
            },
            slots: worker.slots,
            used: u32::try_from(worker.used).unwrap_or(u32::MAX),
        });
        Ok(Response::new(wire::StatusResponse {
            series,
            workers: workers.collect(),
            jobs: overview.jobs as u64,
            running: overview.running as u64,
            settled,
        }))
    }

    async fn cancel(&self, request: Request<wire::CancelRequest>) -> Result<Response<wire::CancelResponse>, Status> {
        let caller = require(&request, Permission::Submit)?;
        let (coordinator, entry) = self.entry(&caller, &request.into_inner().series).await?;
        if entry.owner.as_str() != caller.name && !caller.may(Permission::CancelAny) {
            return Err(Status::permission_denied(format!("series '{}' is that of '{}'", entry.id, entry.owner)));
        }
        let who = UserId(caller.name);
        let cancelled = blocking(move || coordinator.cancel(&entry.id, &who).map_err(|error| register_failed(&error)));
        Ok(Response::new(wire::CancelResponse { cancelled: cancelled.await? }))
    }

    async fn report(&self, request: Request<wire::ReportRequest>) -> Result<Response<Self::ReportStream>, Status> {
        let caller = require(&request, Permission::ReadSeries)?;
        let (coordinator, entry) = self.entry(&caller, &request.into_inner().series).await?;
        let text = blocking(move || {
            let report = coordinator.runs().report(&RunId(entry.id.0.clone())).map_err(|error| match error {
                RunError::Unknown { .. } | RunError::Empty { .. } => {
                    Status::not_found(format!("series '{}' has no report: it is {}", entry.id, entry.phase.name()))
                }
                RunError::Damaged { .. } | RunError::File(_) => Status::internal(error.to_string()),
            })?;
            to_json("report", &report).map_err(internal)
        });
        Ok(Response::new(chunks(text.await?)))
    }

    async fn explain(&self, request: Request<wire::ExplainRequest>) -> Result<Response<Self::ExplainStream>, Status> {
        let caller = require(&request, Permission::ReadSeries)?;
        let request = request.into_inner();
        let (coordinator, entry) = self.entry(&caller, &request.series).await?;
        let explain = Arc::clone(&self.explain);
        let text = blocking(move || {
            explain(coordinator.home(), &RunId(entry.id.0), request.patch, &request.target)
                .map_err(Status::invalid_argument)
        });
        Ok(Response::new(chunks(text.await?.into_bytes())))
    }
}

/// What a watcher hears when the series goes on elsewhere.
fn left() -> Status {
    Status::unavailable("this coordinator does not lead any more: the series goes on at another one")
}

/// Tells everything from the beginning on, until the series is over.
async fn tell(
    id: &str,
    live: &Live,
    sender: &mpsc::Sender<Result<wire::WatchResponse, Status>>,
) -> Result<(), mpsc::error::SendError<Result<wire::WatchResponse, Status>>> {
    let mut changes = live.watch();
    let mut place = 0;
    loop {
        changes.mark_unchanged();
        let news = live.since(place);
        place += news.len();
        if news.is_empty() && live.is_left() {
            return sender.send(Err(left())).await;
        }
        for told in news {
            let over = matches!(told, Told::Over { .. });
            sender.send(message(id, told)).await?;
            if over {
                return Ok(());
            }
        }
        if let Err(_silence) = tokio::time::timeout(ALIVE_EVERY, changes.changed()).await {
            let alive = wire::watch_response::What::Alive(wire::Alive { why: String::new() });
            sender.send(Ok(wire::WatchResponse { what: Some(alive) })).await?;
        }
    }
}

fn message(id: &str, told: Told) -> Result<wire::WatchResponse, Status> {
    use wire::watch_response::What;
    let what = match told {
        Told::Outline { targets, subjects, lines } => {
            What::Outline(wire::Outline { series: id.to_owned(), targets, subjects, lines })
        }
        Told::Waits(why) => What::Alive(wire::Alive { why }),
        Told::Seen(seen) => What::Event(to_json("event", &seen).map_err(internal)?),
        Told::Over { phase, detail, hint } => What::Ended(wire::Ended { state: state(phase).into(), detail, hint }),
    };
    Ok(wire::WatchResponse { what: Some(what) })
}

#[cfg(test)]
#[path = "series_tests.rs"]
mod tests;
