//! The numbers of the queue, with units and reasons.

use serde::{Deserialize, Serialize};

use super::job::Share;

/// How the queue behaves. All times are in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// A worker that is not heard for so long after it should have called loses its attempts. Longer than a hiccup of the
    /// network, shorter than what a user would wait for.
    pub lease_ms: u64,
    /// A worker that runs something calls so often: a cancelled job holds its slot no longer than this.
    pub call_ms: u64,
    /// A worker that has nothing to do may be kept waiting for so long.
    pub idle_ms: u64,
    /// A step waits so long for the worker that has its lane. A build from scratch costs more than this.
    pub lane_wait_ms: u64,
    /// Every so many assignments the classes of priority are asked from the last to the first, so that nothing starves; 0:
    /// never.
    pub courtesy_every: u32,
    /// What a user has had of the farm counts half after so long.
    pub half_life_ms: u64,
    /// The share of users that none was set for.
    pub share: Share,
    /// A job that lost so many workers (killed, or not heard again) is settled as trouble.
    pub max_deaths: u32,
    /// A job that lost so many workers is run where nothing else runs, so that the next loss tells who is to blame.
    pub alone_after: u32,
    /// At most one worker in so many is kept free for jobs that have to run alone; at least one worker.
    pub alone_part: u32,
    /// A job is settled as trouble after so many faults of any sort.
    pub max_faults: u32,
    /// A job is settled as trouble after it ran so many times into its time limit: on a busy machine once proves little.
    pub max_timeouts: u32,
    /// A job is settled as trouble after it was given back so many times (by workers that were drained).
    pub max_returns: u32,
    /// The delay before a job is tried again after its first fault; it doubles with each.
    pub backoff_ms: u64,
    /// The longest such delay.
    pub backoff_max_ms: u64,
    /// A job that is tried again is not given to a worker that it failed on until it has waited this long for another.
    pub avoid_ms: u64,
    /// A worker is quarantined after so many faults in a row.
    pub quarantine_after: u32,
    /// How long the first time; it doubles each time until a job comes to an end there.
    pub quarantine_ms: u64,
    /// The longest quarantine.
    pub quarantine_max_ms: u64,
    /// A worker that was told to stop an attempt and still runs it after so long has a fault.
    pub stop_ms: u64,
    /// An attempt that the worker still runs so long after its limit is taken from it.
    pub overdue_ms: u64,
    /// A worker that was not heard for so long is forgotten.
    pub forget_ms: u64,
    /// After a change of the leader nothing is assigned for so long: workers call in and say what they run.
    pub quiet_ms: u64,
    /// After a change of the leader, what workers run and nobody wants yet is left running for so long.
    pub adopt_ms: u64,
    /// The longest time that can pass between two events, as far as the queue believes: when the coordinator itself stood
    /// still for longer, nobody else is blamed.
    pub longest_gap_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lease_ms: 15_000,
            call_ms: 1_000,
            idle_ms: 10_000,
            lane_wait_ms: 5_000,
            courtesy_every: 20,
            half_life_ms: 600_000,
            share: Share { weight: 1, quota: u32::MAX },
            max_deaths: 3,
            alone_after: 2,
            alone_part: 8,
            max_faults: 6,
            max_timeouts: 2,
            max_returns: 20,
            backoff_ms: 500,
            backoff_max_ms: 30_000,
            avoid_ms: 5_000,
            quarantine_after: 3,
            quarantine_ms: 30_000,
            quarantine_max_ms: 3_600_000,
            stop_ms: 30_000,
            overdue_ms: 30_000,
            forget_ms: 3_600_000,
            quiet_ms: 3_000,
            adopt_ms: 60_000,
            longest_gap_ms: 5_000,
        }
    }
}
