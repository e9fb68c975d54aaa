//! The rules that need no queue: who fits, what a fault means for a job and for a worker.

use super::config::Config;
use super::effect::{Evidence, Fault};
use super::job::{Capabilities, Kind, Needs};
use crate::outcome::Trouble;

/// Why a worker cannot run a job at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// It has no compiler for that architecture.
    Arch,
    /// It has one, but with another content.
    Toolchain,
    /// None of its slots takes that kind.
    Kind,
}

/// Whether a worker can run a job when it has nothing else to do.
///
/// # Errors
/// When it cannot: what is missing.
pub fn fits(capabilities: &Capabilities, needs: &Needs) -> Result<(), Misfit> {
    if !capabilities.platforms.contains(&needs.platform) {
        let same_arch = capabilities.platforms.iter().any(|platform| platform.arch == needs.platform.arch);
        return Err(if same_arch { Misfit::Toolchain } else { Misfit::Arch });
    }
    let slots = match needs.kind {
        Kind::Action => capabilities.slots,
        Kind::Step => capabilities.slots.min(capabilities.step_slots),
    };
    if slots == 0 { Err(Misfit::Kind) } else { Ok(()) }
}

/// What went wrong with a job so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) faults: u32,
    pub(super) deaths: u32,
    pub(super) timeouts: u32,
    pub(super) returns: u32,
}

/// What becomes of a job after a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It is tried again at once: nothing is wrong.
    Back,
    /// It is tried again after this time in milliseconds, on another worker if there is one.
    Again { after_ms: u64 },
    /// It is settled as trouble.
    Over,
}

/// Whether a fault says that the job took a worker, or a process, with it.
pub(super) fn is_death(fault: &Fault) -> bool {
    match fault {
        Fault::Silent | Fault::Restarted | Fault::Trouble(Trouble::Killed { .. }) => true,
        Fault::CutOff | Fault::NotStarted | Fault::Overdue => false,
        Fault::Trouble(
            Trouble::Timeout { .. }
            | Trouble::Disk { .. }
            | Trouble::Sandbox { .. }
            | Trouble::Tree { .. }
            | Trouble::Toolchain { .. }
            | Trouble::Workers { .. }
            | Trouble::Interrupted
            | Trouble::Request { .. }
            | Trouble::Internal { .. },
        ) => false,
    }
}

/// Whether a fault says that the job ran too long.
pub(super) fn is_timeout(fault: &Fault) -> bool {
    matches!(fault, Fault::Overdue | Fault::Trouble(Trouble::Timeout { .. }))
}

/// Whether a fault counts against the worker once the job came to an end on another one. That it did is what tells a bad
/// worker from a bad job: a job that takes memory without end must not put one worker after the other out of service.
pub(super) fn tells_of_worker(fault: &Fault) -> bool {
    match fault {
        Fault::Silent | Fault::Restarted | Fault::CutOff | Fault::NotStarted | Fault::Overdue => true,
        Fault::Trouble(trouble) => match trouble {
            Trouble::Killed { .. }
            | Trouble::Timeout { .. }
            | Trouble::Disk { .. }
            | Trouble::Sandbox { .. }
            | Trouble::Tree { .. }
            | Trouble::Toolchain { .. }
            | Trouble::Workers { .. }
            | Trouble::Interrupted
            | Trouble::Internal { .. } => true,
            Trouble::Request { .. } => false,
        },
    }
}

/// Counts a fault in, and says what becomes of the job. `leaving`: the worker is being stopped, so that what it gives back
/// is no fault.
pub(super) fn judge(config: &Config, tally: &mut Tally, fault: &Fault, leaving: bool) -> Next {
    if leaving && matches!(fault, Fault::Trouble(Trouble::Interrupted)) {
        tally.returns += 1;
        return if tally.returns < config.max_returns { Next::Back } else { Next::Over };
    }
    tally.faults += 1;
    tally.deaths += u32::from(is_death(fault));
    tally.timeouts += u32::from(is_timeout(fault));
    let over = matches!(fault, Fault::Trouble(Trouble::Request { .. }))
        || tally.faults >= config.max_faults
        || tally.deaths >= config.max_deaths
        || tally.timeouts >= config.max_timeouts;
    if over { Next::Over } else { Next::Again { after_ms: backoff(config, tally.faults) } }
}

/// The delay before a job is tried again after so many faults, in milliseconds.
pub(super) fn backoff(config: &Config, faults: u32) -> u64 {
    let doubled = 1_u64.checked_shl(faults.saturating_sub(1)).unwrap_or(u64::MAX);
    config.backoff_ms.saturating_mul(doubled).min(config.backoff_max_ms)
}

/// How long a worker is quarantined when it was so many times before, in milliseconds.
pub(super) fn quarantine(config: &Config, before: u32) -> u64 {
    let doubled = 1_u64.checked_shl(before).unwrap_or(u64::MAX);
    config.quarantine_ms.saturating_mul(doubled).min(config.quarantine_max_ms)
}

/// What waiters of a job are told that the farm has given up on.
pub(super) fn verdict(evidence: &[Evidence]) -> Trouble {
    let Some(last) = evidence.last() else {
        return Trouble::Internal { detail: "given up without a reason".to_owned() };
    };
    match &last.fault {
        Fault::Trouble(trouble @ (Trouble::Request { .. } | Trouble::Timeout { .. })) => return trouble.clone(),
        Fault::Silent | Fault::CutOff | Fault::Restarted | Fault::NotStarted | Fault::Overdue | Fault::Trouble(_) => {}
    }
    let deaths: Vec<&str> = evidence.iter().filter(|e| is_death(&e.fault)).map(|e| e.worker.as_str()).collect();
    let what = describe(&last.fault);
    let detail = match deaths.len() {
        0 => format!("tried {} times; at last, on {}: {what}", evidence.len(), last.worker),
        n => format!(
            "tried {} times; {n} were killed with it, on {}; at last: {what}",
            evidence.len(),
            deaths.join(", ")
        ),
    };
    Trouble::Workers { detail }
}

/// What happened, in a few words.
pub(super) fn describe(fault: &Fault) -> String {
    match fault {
        Fault::Silent => "the worker was not heard any more".to_owned(),
        Fault::CutOff => "the worker was not heard for too long".to_owned(),
        Fault::Restarted => "the worker was started anew".to_owned(),
        Fault::NotStarted => "the worker never started it".to_owned(),
        Fault::Overdue => "the worker held on to it past its limit".to_owned(),
        Fault::Trouble(trouble) => trouble.describe(),
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
