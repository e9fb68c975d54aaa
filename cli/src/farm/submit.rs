//! From the command line to a submission, with a pack of what the coordinator does not have.

use std::io::Read;

use bombproof_coordinator::states::{Missing, Repository};
use bombproof_core::access::ProjectId;
use bombproof_core::farm::Priority;
use bombproof_core::id::{Oid, UserId};
use bombproof_core::submission::{Patches, Submission, VERSION};
use bombproof_proto::farm::{CHUNK_BYTES, deflated, wire};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use wire::submit_request::Part;

use super::Farm;
use crate::args::{CheckArgs, ModeArg, PriorityArg};
use crate::check::{Intake, audit, base_of, intake, mode, states_failed};
use crate::fail::Fail;
use crate::say;

/// Messages that wait for the network.
const AHEAD: usize = 4;

/// A series that is read, and what has to be there for it.
struct Named {
    name: String,
    base: String,
    commit: Oid,
    patches: Patches,
    repository: Repository,
}

fn read(args: &CheckArgs) -> Result<(Named, Vec<bombproof_core::target::TargetSpec>), Fail> {
    let Intake { targets, repository, range, series } = intake(args)?;
    let read = match (range, series) {
        (Some((from, to)), _) => {
            if from == to {
                return Err(Fail::request(format!("'{}' holds no patch", args.series))
                    .hint(Some("give a range of at least one commit: A..B is what is in B and not in A")));
            }
            let base = args.series.split("..").next().unwrap_or_default().to_owned();
            Named { name: args.series.clone(), base, commit: from, patches: Patches::Range { to }, repository }
        }
        (None, Some(series)) => {
            let base = base_of(args.base.clone(), &series)?;
            let commit = repository.commit(&base).map_err(states_failed)?;
            Named { name: series.name.clone(), base, commit, patches: Patches::Series(series), repository }
        }
        (None, None) => return Err(Fail::machine("no series")),
    };
    Ok((read, targets))
}

impl Farm {
    /// Hands a series in; gives its id.
    pub(super) async fn submit(&self, args: &CheckArgs) -> Result<String, Fail> {
        let asked = args.clone();
        let read = tokio::task::spawn_blocking(move || read(&asked)).await.map_err(Fail::machine)?;
        let (Named { name, base, commit, patches, repository }, targets) = read?;
        let to = match &patches {
            Patches::Range { to } => Some(to.clone()),
            Patches::Series(_) => None,
        };
        let request = wire::HaveRequest {
            repository: args.farm_repo.clone().unwrap_or_default(),
            oids: std::iter::once(&commit).chain(&to).map(Oid::to_string).collect(),
            project: args.project.as_ref().map(ProjectId::to_string).unwrap_or_default(),
        };
        let have = self.client.clone().have(request).await.map_err(|status| self.failed(&status))?.into_inner();
        let lacks = |oid: &Oid| !have.oids.iter().any(|known| known == oid.as_str());
        let missing = Missing { base: lacks(&commit), to: to.filter(lacks) };
        let submission = Submission {
            version: VERSION,
            project: args.project.clone(),
            repository: have.repository.clone(),
            name,
            base,
            commit: commit.clone(),
            patches,
            targets,
            mode: mode(args.mode),
            audit: audit(args),
            reuse: !args.fresh,
            user: UserId(super::user()),
            priority: match (args.priority, args.mode) {
                (PriorityArg::Normal, ModeArg::Tip) | (PriorityArg::Gate, _) => Priority::Gate,
                (PriorityArg::Normal, ModeArg::Every | ModeArg::Search) => Priority::Normal,
                (PriorityArg::Nightly, _) => Priority::Nightly,
            },
            command: std::env::args().collect(),
        };
        let bytes = deflated("submission", &submission).map_err(Fail::machine)?;
        let (sender, receiver) = mpsc::channel(AHEAD);
        let sending = tokio::task::spawn_blocking(move || send(&bytes, &repository, &commit, &missing, &sender));
        let submitted = self.client.clone().submit(ReceiverStream::new(receiver)).await;
        // Where git failed, its words say more than those of the coordinator.
        sending.await.map_err(Fail::machine)??;
        Ok(submitted.map_err(|status| self.failed(&status))?.into_inner().series)
    }
}

/// Sends everything, in pieces.
fn send(
    submission: &[u8],
    repository: &Repository,
    commit: &Oid,
    missing: &Missing,
    to: &mpsc::Sender<wire::SubmitRequest>,
) -> Result<(), Fail> {
    // A coordinator that does not listen any more has said why.
    let send = |part: Part| to.blocking_send(wire::SubmitRequest { part: Some(part) }).is_ok();
    for piece in submission.chunks(CHUNK_BYTES) {
        if !send(Part::Submission(piece.to_vec())) {
            return Ok(());
        }
    }
    if !missing.base && missing.to.is_none() {
        return Ok(());
    }
    let mut pack = tempfile::tempfile().map_err(Fail::machine)?;
    repository.pack(commit, missing, &mut pack).map_err(states_failed)?;
    let bytes = pack.metadata().map_err(Fail::machine)?.len();
    say(&format!("  the farm does not have everything: {} KiB are sent", bytes.div_ceil(1024)));
    std::io::Seek::rewind(&mut pack).map_err(Fail::machine)?;
    loop {
        let mut piece = Vec::with_capacity(CHUNK_BYTES);
        let read = (&mut pack).take(CHUNK_BYTES as u64).read_to_end(&mut piece).map_err(Fail::machine)?;
        if read == 0 || !send(Part::Pack(piece)) {
            return Ok(());
        }
    }
}
