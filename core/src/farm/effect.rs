//! What the queue wants done.

use serde::{Deserialize, Serialize};

use super::job::{Attempt, JobId, LaneId, Millis};
use crate::digest::Digest;
use crate::id::{SeriesId, WorkerId};
use crate::outcome::Trouble;

/// What follows from an event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[must_use]
pub struct Effects {
    /// To the worker that called.
    pub answer: Option<Answer>,
    /// To those that wait for jobs. A result must be kept before it is announced; if it cannot be, the job is wanted again.
    pub settled: Vec<Settlement>,
    /// Calls of these workers that are held back should be told once more ([`super::Event::WorkerSynchronized`]) now:
    /// there is something for them.
    pub wake: Vec<WorkerId>,
    /// For the log and for the metrics.
    pub notices: Vec<Notice>,
}

/// What a worker is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Of the coordinator. A worker does not listen to an epoch before the latest that it has seen.
    pub epoch: u64,
    /// What it shall run beside what it runs. It is repeated until the worker says that it runs it or has run it: a worker
    /// starts no attempt twice.
    pub start: Vec<Assignment>,
    /// What it runs in vain.
    pub stop: Vec<Attempt>,
    /// What has ended and need not be told again, whether it counted or not.
    pub noted: Vec<Attempt>,
    /// What the coordinator thinks of the worker.
    pub standing: Standing,
    /// The coordinator may keep the answer for so long, in milliseconds, and until the worker is in [`Effects::wake`]; then
    /// it tells the call once more and gives that answer. 0: it is to be given now.
    pub hold_ms: u64,
    /// The worker calls again when something ended, and after this time at the latest, in milliseconds.
    pub call_within_ms: u64,
    /// A worker that is not heard for so long, in milliseconds after it should have called, loses what it runs.
    pub lease_ms: u64,
}

/// One job for a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Everything that the worker says of it carries this.
    pub attempt: Attempt,
    /// What to run.
    pub job: JobId,
    /// Where to run it, if it has the choice.
    pub lane: Option<LaneId>,
    /// It may take so long, in milliseconds.
    pub limit_ms: u32,
    /// The lease ends at this moment of the coordinator's clock unless the worker is heard.
    pub lease_until: Millis,
}

/// What the coordinator thinks of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It gets work.
    Good,
    /// It gets nothing new, as it or somebody else wants.
    Draining,
    /// Too much went wrong on it: it gets nothing new for a while.
    Quarantined {
        /// How much longer, in milliseconds.
        for_ms: u64,
    },
    /// A later start of a worker with the same name has taken its place: it shall end.
    Replaced,
}

/// What a job has come to, for all that wait for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    /// Which job.
    pub job: JobId,
    /// Who waits.
    pub waiters: Vec<SeriesId>,
    /// What it has come to.
    pub settled: Settled,
}

/// The end of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Settled {
    /// An answer.
    Result {
        /// As the worker gave it.
        digest: Digest,
        /// The attempt that it comes from.
        attempt: Attempt,
        /// Who ran it.
        worker: WorkerId,
    },
    /// No answer can be had: never the fault of a patch.
    Trouble {
        /// Why, in short.
        trouble: Trouble,
        /// Everything that went wrong, in order.
        evidence: Vec<Evidence>,
    },
    /// The series that wanted it is not open.
    Closed,
}

/// One attempt that gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Which.
    pub attempt: Attempt,
    /// Where.
    pub worker: WorkerId,
    /// When it was found out.
    pub at: Millis,
    /// What happened.
    pub fault: Fault,
    /// Nothing else ran on the worker.
    pub alone: bool,
}

/// Why an attempt gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// The worker was not heard any more.
    Silent,
    /// The worker was not heard for longer than the lease, and then went on: it was cut off or stood still, not killed.
    CutOff,
    /// The worker was started anew.
    Restarted,
    /// The worker was heard but never took the attempt up, or forgot it.
    NotStarted,
    /// The worker held on to it past its limit.
    Overdue,
    /// The worker said what was wrong.
    Trouble(Trouble),
}

/// What is worth a line in the log, or a count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Notice {
    /// A worker came, or came back under a new session.
    Joined(WorkerId),
    /// A worker was not heard any more.
    Lost(WorkerId),
    /// A worker has ended as it should.
    Left(WorkerId),
    /// Too much went wrong on a worker.
    Quarantined {
        /// Which.
        worker: WorkerId,
        /// For how long, in milliseconds.
        for_ms: u64,
    },
    /// An attempt of an earlier epoch was taken over.
    Adopted(Attempt),
    /// An attempt that holds no lease ended: what it says does not count.
    Refused(Attempt),
    /// A job will be tried again.
    Retried {
        /// Which.
        job: JobId,
        /// Because of this.
        evidence: Evidence,
    },
}
