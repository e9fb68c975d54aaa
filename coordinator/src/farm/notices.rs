//! What the queue notices, as events of the log.

use bombproof_core::farm::Notice;
use tracing::{info, warn};

/// Says it, with what a program may want to look for in fields.
pub(super) fn log(notice: &Notice) {
    match notice {
        Notice::Joined(worker) => info!(%worker, "worker '{worker}' came"),
        Notice::Lost(worker) => warn!(%worker, "worker '{worker}' is not heard any more"),
        Notice::Left(worker) => info!(%worker, "worker '{worker}' left"),
        Notice::Quarantined { worker, for_ms } => {
            let for_s = for_ms / 1000;
            warn!(%worker, for_s, "worker '{worker}' gets nothing for {for_s} s: too much went wrong on it");
        }
        Notice::Adopted(attempt) => info!(%attempt, "attempt {attempt} of an earlier coordinator goes on"),
        Notice::Refused(attempt) => info!(%attempt, "attempt {attempt} came too late and does not count"),
        Notice::Retried { job, evidence } => {
            let (job, attempt, worker) = (job.0.short(), evidence.attempt, &evidence.worker);
            let fault = format!("{:?}", evidence.fault);
            warn!(%job, %attempt, %worker, fault, "job {job} is tried again after attempt {attempt} on '{worker}': {fault}");
        }
    }
}
