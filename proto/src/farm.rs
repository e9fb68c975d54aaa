//! `farm.proto`: the messages and services, and how they become domain types.
//!
//! Every conversion from the wire is total: any message gives a value or an error that names the field. What is larger than a
//! few words is JSON of the domain types themselves; [`to_json`] and [`from_json`] hold its size.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use bombproof_core::access::ProjectId;
use bombproof_core::digest::{BlobDigest, Digest};
use bombproof_core::farm::{
    Answer, Assignment, Attempt, Capabilities, Ended, Finished, JobId, LaneId, Millis, Platform, Report, Running,
    Standing,
};
use bombproof_core::id::{Oid, WorkerId};
use bombproof_core::order::{Call, Offer};
use bombproof_core::target::{Arch, Compiler, Toolchain};
use bombproof_core::tree::{Change, Entry, FileMode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// The messages and services as they are on the wire.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    clippy::wildcard_enum_match_arm,
    clippy::needless_pass_by_value,
    clippy::large_futures,
    reason = "generated"
)]
pub mod wire {
    tonic::include_proto!("bombproof.farm.v1");
}

/// What the services and messages are, as a `FileDescriptorSet`: for clients that ask.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/farm.descriptors"));

/// The version of what workers and coordinators say to each other.
pub const VERSION: u32 = 1;
/// Longest name of a worker, a user, a repository, in bytes.
const MAX_NAME_BYTES: usize = 200;
/// Most entries of a list in a worker's call.
const MAX_ENTRIES: usize = 4_096;
/// Largest piece of something larger, in bytes.
pub const CHUNK_BYTES: usize = 256 << 10;
/// Largest message that is sent or taken, in bytes.
pub const MESSAGE_BYTES: usize = 4 << 20;
/// Largest JSON of an order, a result or a report, in bytes.
pub const MAX_JSON_BYTES: usize = 512 << 20;
/// Largest JSON of a submission when it is inflated, in bytes.
pub const MAX_SUBMISSION_BYTES: u64 = 1 << 30;

/// A message that does not say what it should.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum WireError {
    /// A field is missing or does not hold what it should.
    #[error("field '{field}' of the message: {detail}")]
    Field {
        /// Which one.
        field: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// The other side speaks another version.
    #[error(
        "the other side speaks version {theirs} of the protocol, this one version {VERSION}: use the same version of bombproof"
    )]
    Version {
        /// Its version.
        theirs: u32,
    },
    /// Something is larger than what is taken.
    #[error("'{field}' is larger than {limit_bytes} bytes")]
    TooLarge {
        /// What.
        field: &'static str,
        /// The limit.
        limit_bytes: u64,
    },
}

fn wrong(field: &'static str, detail: impl std::fmt::Display) -> WireError {
    WireError::Field { field, detail: detail.to_string() }
}

/// A value as JSON.
///
/// # Errors
/// When it is too large.
pub fn to_json<T: Serialize>(field: &'static str, value: &T) -> Result<Vec<u8>, WireError> {
    let text = serde_json::to_vec(value).map_err(|error| wrong(field, error))?;
    if text.len() > MAX_JSON_BYTES {
        return Err(WireError::TooLarge { field, limit_bytes: MAX_JSON_BYTES as u64 });
    }
    Ok(text)
}

/// A value from JSON.
///
/// # Errors
/// When it is too large, or none.
pub fn from_json<T: DeserializeOwned>(field: &'static str, text: &[u8]) -> Result<T, WireError> {
    if text.len() > MAX_JSON_BYTES {
        return Err(WireError::TooLarge { field, limit_bytes: MAX_JSON_BYTES as u64 });
    }
    serde_json::from_slice(text).map_err(|error| wrong(field, error))
}

/// A value as JSON, deflated.
///
/// # Errors
/// When it cannot be said.
pub fn deflated<T: Serialize>(field: &'static str, value: &T) -> Result<Vec<u8>, WireError> {
    let text = serde_json::to_vec(value).map_err(|error| wrong(field, error))?;
    let mut deflater = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    deflater.write_all(&text).and_then(|()| deflater.finish()).map_err(|error| wrong(field, error))
}

/// A value from deflated JSON that has at most so many bytes.
///
/// # Errors
/// When it is too large, or none.
pub fn inflated<T: DeserializeOwned>(field: &'static str, bytes: &[u8], limit_bytes: u64) -> Result<T, WireError> {
    let mut text = Vec::new();
    let inflater = flate2::read::DeflateDecoder::new(bytes);
    inflater.take(limit_bytes.saturating_add(1)).read_to_end(&mut text).map_err(|error| wrong(field, error))?;
    if text.len() as u64 > limit_bytes {
        return Err(WireError::TooLarge { field, limit_bytes });
    }
    serde_json::from_slice(&text).map_err(|error| wrong(field, error))
}

/// A name that can be shown, stored and compared: not empty, without control characters, not too long.
///
/// # Errors
/// When it is none.
pub fn name(field: &'static str, text: &str) -> Result<String, WireError> {
    if text.is_empty() || text.len() > MAX_NAME_BYTES || text.chars().any(char::is_control) {
        let detail = format!("a name has 1 to {MAX_NAME_BYTES} bytes and no control character");
        return Err(wrong(field, detail));
    }
    Ok(text.to_owned())
}

fn digest(field: &'static str, text: &str) -> Result<Digest, WireError> {
    text.parse().map_err(|error| wrong(field, error))
}

/// A job from its digits.
///
/// # Errors
/// When it is none.
pub fn job(text: &str) -> Result<JobId, WireError> {
    digest("job", text).map(JobId)
}

/// A git object from its digits.
///
/// # Errors
/// When it is none.
pub fn oid(field: &'static str, text: &str) -> Result<Oid, WireError> {
    Oid::parse(text).map_err(|error| wrong(field, error))
}

/// A project from its name; `None`: none is named.
///
/// # Errors
/// When the name is none.
pub fn project(field: &'static str, text: &str) -> Result<Option<ProjectId>, WireError> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(|error| wrong(field, error)) }
}

fn few<T>(field: &'static str, list: &[T]) -> Result<(), WireError> {
    if list.len() > MAX_ENTRIES {
        return Err(wrong(field, format!("at most {MAX_ENTRIES} entries are taken, not {}", list.len())));
    }
    Ok(())
}

fn attempt_to_wire(attempt: Attempt) -> wire::Attempt {
    wire::Attempt { epoch: attempt.epoch, number: attempt.number }
}

fn attempt(field: &'static str, attempt: Option<wire::Attempt>) -> Result<Attempt, WireError> {
    let attempt = attempt.ok_or_else(|| wrong(field, "it is missing"))?;
    Ok(Attempt { epoch: attempt.epoch, number: attempt.number })
}

fn arch(field: &'static str, text: &str) -> Result<Arch, WireError> {
    Arch::parse(text).ok_or_else(|| wrong(field, "it is no architecture"))
}

fn compiler_name(compiler: Compiler) -> &'static str {
    match compiler {
        Compiler::Gcc => "gcc",
        Compiler::Clang => "clang",
    }
}

/// A worker's call as a message.
///
/// # Errors
/// When a trouble cannot be said.
pub fn call_to_wire(call: &Call) -> Result<wire::SynchronizeRequest, WireError> {
    let report = &call.report;
    let platforms = report.capabilities.platforms.iter().map(|platform| wire::Platform {
        arch: platform.arch.as_ref().map(|arch| arch.kernel_name().to_owned()).unwrap_or_default(),
        toolchain: platform.toolchain.to_string(),
    });
    let toolchains = call.offers.iter().map(|offer| wire::Toolchain {
        arch: offer.arch.kernel_name().to_owned(),
        compiler: compiler_name(offer.compiler).to_owned(),
        prefix: offer.prefix.clone(),
        version: offer.toolchain.version.clone(),
        digest: offer.toolchain.digest.to_string(),
    });
    let mut finished = Vec::with_capacity(report.finished.len());
    for done in &report.finished {
        let ended = match &done.ended {
            Ended::Result { digest } => {
                let size_bytes = call.results.get(&done.attempt).map_or(0, |blob| blob.size_bytes);
                wire::finished::Ended::Result(wire::Blob { hash: digest.to_string(), size_bytes })
            }
            Ended::Trouble(trouble) => wire::finished::Ended::Trouble(to_json("trouble", trouble)?),
        };
        let attempt = Some(attempt_to_wire(done.attempt));
        finished.push(wire::Finished { attempt, job: done.job.0.to_string(), ended: Some(ended) });
    }
    let running = report.running.iter().map(|running| wire::Running {
        attempt: Some(attempt_to_wire(running.attempt)),
        job: running.job.0.to_string(),
    });
    Ok(wire::SynchronizeRequest {
        version: VERSION,
        worker: report.worker.to_string(),
        session: report.session,
        call: report.call,
        platforms: platforms.collect(),
        slots: report.capabilities.slots,
        step_slots: report.capabilities.step_slots,
        lanes: report.lanes.iter().map(|lane| lane.0.to_string()).collect(),
        running: running.collect(),
        finished,
        draining: report.draining,
        toolchains: toolchains.collect(),
        sandbox: call.sandbox.clone(),
    })
}

/// A worker's call from a message.
///
/// # Errors
/// With the field that is wrong.
pub fn call_from_wire(message: wire::SynchronizeRequest) -> Result<Call, WireError> {
    if message.version != VERSION {
        return Err(WireError::Version { theirs: message.version });
    }
    few("platforms", &message.platforms)?;
    few("toolchains", &message.toolchains)?;
    few("lanes", &message.lanes)?;
    few("running", &message.running)?;
    few("finished", &message.finished)?;
    let mut capabilities = Capabilities { slots: message.slots, step_slots: message.step_slots, ..Default::default() };
    for platform in &message.platforms {
        let toolchain = digest("platforms.toolchain", &platform.toolchain)?;
        let arch = match platform.arch.as_str() {
            "" => None,
            name => Some(arch("platforms.arch", name)?),
        };
        capabilities.platforms.insert(Platform { arch, toolchain });
    }
    let mut offers = Vec::with_capacity(message.toolchains.len());
    for toolchain in message.toolchains {
        let compiler = match toolchain.compiler.as_str() {
            "gcc" => Compiler::Gcc,
            "clang" => Compiler::Clang,
            _ => return Err(wrong("toolchains.compiler", "it is neither gcc nor clang")),
        };
        let version = toolchain.version.chars().filter(|c| !c.is_control()).take(MAX_NAME_BYTES).collect();
        let digest = digest("toolchains.digest", &toolchain.digest)?;
        let prefix = match toolchain.prefix.as_str() {
            "" => String::new(),
            prefix => name("toolchains.prefix", prefix)?,
        };
        let arch = arch("toolchains.arch", &toolchain.arch)?;
        offers.push(Offer { arch, compiler, prefix, toolchain: Toolchain { version, digest } });
    }
    let lanes = message.lanes.iter().map(|lane| digest("lanes", lane).map(LaneId)).collect::<Result<_, _>>()?;
    let mut running = Vec::with_capacity(message.running.len());
    for one in message.running {
        running.push(Running { attempt: attempt("running.attempt", one.attempt)?, job: job(&one.job)? });
    }
    let (mut finished, mut results) = (Vec::with_capacity(message.finished.len()), BTreeMap::new());
    for one in message.finished {
        let attempt = attempt("finished.attempt", one.attempt)?;
        let ended = match one.ended.ok_or_else(|| wrong("finished.ended", "it is missing"))? {
            wire::finished::Ended::Result(blob) => {
                let hash = digest("finished.result.hash", &blob.hash)?;
                results.insert(attempt, BlobDigest { hash, size_bytes: blob.size_bytes });
                Ended::Result { digest: hash }
            }
            wire::finished::Ended::Trouble(text) => Ended::Trouble(from_json("finished.trouble", &text)?),
        };
        finished.push(Finished { attempt, job: job(&one.job)?, ended });
    }
    let report = Report {
        worker: WorkerId(name("worker", &message.worker)?),
        session: message.session,
        call: message.call,
        capabilities,
        lanes,
        running,
        finished,
        draining: message.draining,
    };
    Ok(Call { report, results, offers, sandbox: message.sandbox.chars().take(MAX_NAME_BYTES).collect() })
}

/// The answer to a worker as a message.
pub fn answer_to_wire(answer: &Answer) -> wire::SynchronizeResponse {
    let start = answer.start.iter().map(|assignment| wire::Assignment {
        attempt: Some(attempt_to_wire(assignment.attempt)),
        job: assignment.job.0.to_string(),
        lane: assignment.lane.map(|lane| lane.0.to_string()).unwrap_or_default(),
        limit_ms: assignment.limit_ms,
    });
    let (standing, for_ms) = match answer.standing {
        Standing::Good => (wire::Standing::Good, 0),
        Standing::Draining => (wire::Standing::Draining, 0),
        Standing::Quarantined { for_ms } => (wire::Standing::Quarantined, for_ms),
        Standing::Replaced => (wire::Standing::Replaced, 0),
    };
    wire::SynchronizeResponse {
        epoch: answer.epoch,
        start: start.collect(),
        stop: answer.stop.iter().copied().map(attempt_to_wire).collect(),
        noted: answer.noted.iter().copied().map(attempt_to_wire).collect(),
        standing: standing.into(),
        for_ms,
        call_within_ms: answer.call_within_ms,
        lease_ms: answer.lease_ms,
    }
}

/// The answer to a worker from a message. The moment at which a lease ends is the coordinator's alone, and 0 here.
///
/// # Errors
/// With the field that is wrong.
pub fn answer_from_wire(message: wire::SynchronizeResponse) -> Result<Answer, WireError> {
    let standing = match message.standing() {
        wire::Standing::Good => Standing::Good,
        wire::Standing::Draining => Standing::Draining,
        wire::Standing::Quarantined => Standing::Quarantined { for_ms: message.for_ms },
        wire::Standing::Replaced => Standing::Replaced,
        wire::Standing::Unspecified => return Err(wrong("standing", "it is missing")),
    };
    few("start", &message.start)?;
    let mut start = Vec::with_capacity(message.start.len());
    for one in message.start {
        let lane = match one.lane.as_str() {
            "" => None,
            lane => Some(LaneId(digest("start.lane", lane)?)),
        };
        start.push(Assignment {
            attempt: attempt("start.attempt", one.attempt)?,
            job: job(&one.job)?,
            lane,
            limit_ms: one.limit_ms,
            lease_until: Millis(0),
        });
    }
    let attempts = |field: &'static str, list: Vec<wire::Attempt>| -> Result<Vec<Attempt>, WireError> {
        list.into_iter().map(|one| attempt(field, Some(one))).collect()
    };
    Ok(Answer {
        epoch: message.epoch,
        start,
        stop: attempts("stop", message.stop)?,
        noted: attempts("noted", message.noted)?,
        standing,
        hold_ms: 0,
        call_within_ms: message.call_within_ms,
        lease_ms: message.lease_ms,
    })
}

/// A change of a tree as a message.
pub fn change_to_wire(change: &Change) -> wire::Change {
    let entry = change.entry.as_ref();
    wire::Change {
        path: change.path.clone(),
        mode: entry.map(|entry| entry.mode.as_octal().to_owned()).unwrap_or_default(),
        oid: entry.map(|entry| entry.blob.to_string()).unwrap_or_default(),
        added: change.added,
    }
}

/// A change of a tree from a message; whether its path is one that may be written is checked too.
///
/// # Errors
/// With the field that is wrong.
pub fn change_from_wire(message: wire::Change) -> Result<Change, WireError> {
    bombproof_core::series::path::check(&message.path).map_err(|error| wrong("changes.path", error))?;
    let entry = match message.mode.as_str() {
        "" => None,
        mode => Some(Entry {
            mode: FileMode::from_octal(mode).ok_or_else(|| wrong("changes.mode", "it is no mode of git's"))?,
            blob: oid("changes.oid", &message.oid)?,
        }),
    };
    Ok(Change { path: message.path, entry, added: message.added })
}

#[cfg(test)]
#[path = "farm_tests.rs"]
mod tests;
