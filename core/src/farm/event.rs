//! What the queue is told.

use serde::{Deserialize, Serialize};

use super::job::{Attempt, Capabilities, JobId, LaneId, Priority, Share, Wanted};
use crate::digest::Digest;
use crate::id::{SeriesId, UserId, WorkerId};
use crate::outcome::Trouble;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// From now on a user has this share; without it [`super::Config::share`] holds.
    UserSet {
        /// Who.
        user: UserId,
        /// How much.
        share: Share,
    },
    /// A series begins to want jobs. Once more for one that is open: nothing happens.
    SeriesOpened {
        /// Its id.
        series: SeriesId,
        /// Whose it is.
        user: UserId,
        /// How urgent it is.
        priority: Priority,
    },
    /// A series wants a job; it gets one [`super::Settlement`] for it, unless it says that it does not want it any more.
    /// Once more for one that it waits for: nothing happens. A job that was settled before is run again: the caller knows
    /// results, the queue does not.
    JobWanted {
        /// Who wants it; if it is not open, the settlement says so.
        series: SeriesId,
        /// What.
        job: Wanted,
    },
    /// A series does not wait for a job any more. It goes on if another series does.
    JobUnwanted {
        /// Who.
        series: SeriesId,
        /// For what.
        job: JobId,
    },
    /// A series wants nothing any more, because it is cancelled or because it is through. It gets no settlements.
    SeriesCancelled {
        /// Which.
        series: SeriesId,
    },
    /// A worker says what it does. The answer is in [`super::Effects::answer`].
    WorkerSynchronized(Report),
    /// Somebody wants a worker to take nothing new, or to go on.
    WorkerDrained {
        /// Which.
        worker: WorkerId,
        /// Nothing new, or on.
        drain: bool,
    },
    /// Time has passed. Must come every second or so: leases, delays and quarantines end by it.
    Tick,
}

/// What a worker says of itself: all of it in every call, so that lost and repeated calls do no harm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Its name.
    pub worker: WorkerId,
    /// One life of it: a later start has a larger number (the time of the start will do). What an earlier life ran is lost.
    pub session: u64,
    /// Counted up by the worker with each call of the session: a call that was overtaken by a later one is not listened to.
    /// A call that the coordinator held back is told once more with the same number.
    pub call: u64,
    /// What it can do.
    pub capabilities: Capabilities,
    /// The lanes that it has, the one used last first.
    pub lanes: Vec<LaneId>,
    /// What it runs.
    pub running: Vec<Running>,
    /// What has ended and was not [noted](super::Answer::noted) yet. What a result names is in the store of blobs.
    pub finished: Vec<Finished>,
    /// It takes nothing new: it is being stopped, or withdraws itself. What it cannot finish it gives back as
    /// [`Ended::Trouble`] with [`Trouble::Interrupted`].
    pub draining: bool,
}

/// An attempt that a worker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Which.
    pub attempt: Attempt,
    /// Of which job.
    pub job: JobId,
}

/// An attempt that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// Which.
    pub attempt: Attempt,
    /// Of which job.
    pub job: JobId,
    /// How.
    pub ended: Ended,
}

/// How an attempt ended.
///
/// The caller looks at a result before it passes it on: if a blob that it names is not in the store, the output is lost,
/// and that is [`Trouble::Tree`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ended {
    /// With an answer, good or bad.
    Result {
        /// The digest of the answer; the caller keeps the answer itself.
        digest: Digest,
    },
    /// Without one.
    Trouble(Trouble),
}
