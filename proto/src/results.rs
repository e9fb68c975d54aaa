//! What an action gave, as a message of the Remote Execution API.
//!
//! Source: `ActionResult` in `build/bazel/remote/execution/v2/remote_execution.proto`. What our results cannot say (links,
//! folders, a standard output) is refused rather than left out: a result that came back with less would be another one.
//! Times go as the API has them where it has them; CPU time goes as auxiliary metadata of our own.

use bazel_remote_apis::build::bazel::remote::execution::v2 as wire;
use bazel_remote_apis::google::protobuf::{Any, Duration};
use bombproof_core::action::{ActionResult, OutputFile};
use bombproof_core::digest::BlobDigest;
use prost::Message;
use thiserror::Error;

use crate::reapi::{from_wire, to_wire};

/// What our auxiliary metadata is called on the wire.
const COST_URL: &str = "type.googleapis.com/bombproof.farm.v1.Cost";
/// Standard error that is longer goes as a blob.
pub const MAX_INLINE_BYTES: usize = 512 << 10;

/// What an action cost, beside what the API has fields for.
#[derive(Clone, PartialEq, Eq, Message)]
struct Cost {
    /// User and system time, in microseconds.
    #[prost(uint64, tag = "1")]
    cpu_us: u64,
}

/// A message that says nothing that our results can hold.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ResultError {
    /// A kind of output that we have none of.
    #[error("{0} is not kept here: only regular files and a standard error are")]
    Unknown(&'static str),
    /// A digest is missing, or is none of SHA-256.
    #[error("{field} of '{path}' is no SHA-256 digest")]
    Digest {
        /// Which field.
        field: &'static str,
        /// Of which output.
        path: String,
    },
    /// A path that is not below the folder of the action, or is there twice.
    #[error("output_files[].path: '{0}' is no path below the folder of the action, or is there twice")]
    Path(String),
    /// Our results hold text.
    #[error("stderr_raw: it is no UTF-8 text")]
    NoText,
    /// The process was ended by a signal: that says nothing about the action.
    #[error("exit_code: {0} is none of a process that ended by itself (0 to 127)")]
    NotSettled(i32),
}

/// A standard error as a message holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stderr {
    /// In the message.
    Inline(String),
    /// As a blob.
    Blob(BlobDigest),
}

/// A result whose standard error may still have to be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Everything else; its standard error is empty.
    pub result: ActionResult,
    /// The standard error.
    pub stderr: Stderr,
}

/// A result as a message. Its standard error goes as the blob `stderr_blob`, if one is given.
pub fn encode(result: &ActionResult, stderr_blob: Option<&BlobDigest>) -> wire::ActionResult {
    let output_files = result.outputs.iter().map(|output| wire::OutputFile {
        path: output.path.clone(),
        digest: Some(to_wire(&output.blob)),
        is_executable: output.executable,
        ..wire::OutputFile::default()
    });
    let cost = Any { type_url: COST_URL.to_owned(), value: Cost { cpu_us: result.cpu_us }.encode_to_vec() };
    let metadata = wire::ExecutedActionMetadata {
        virtual_execution_duration: Some(duration(result.wall_us)),
        auxiliary_metadata: vec![cost],
        ..wire::ExecutedActionMetadata::default()
    };
    wire::ActionResult {
        output_files: output_files.collect(),
        exit_code: result.exit,
        stderr_raw: if stderr_blob.is_none() { result.stderr.clone().into_bytes() } else { Vec::new() },
        stderr_digest: stderr_blob.map(to_wire),
        execution_metadata: Some(metadata),
        ..wire::ActionResult::default()
    }
}

/// A result from a message.
///
/// # Errors
/// When it says what our results cannot say, or something that cannot be.
pub fn decode(message: wire::ActionResult) -> Result<Received, ResultError> {
    refuse_what_cannot_be_kept(&message)?;
    let mut seen = std::collections::BTreeSet::new();
    let mut outputs = Vec::with_capacity(message.output_files.len());
    for file in message.output_files {
        if !is_below(&file.path) || !seen.insert(file.path.clone()) {
            return Err(ResultError::Path(shown(&file.path)));
        }
        let blob = file.digest.as_ref().and_then(from_wire);
        let blob =
            blob.ok_or_else(|| ResultError::Digest { field: "output_files[].digest", path: shown(&file.path) })?;
        outputs.push(OutputFile { path: file.path, blob, executable: file.is_executable });
    }
    let stderr = match message.stderr_digest {
        // Both may be there; what is here need not be fetched.
        Some(digest) if message.stderr_raw.is_empty() => {
            let blob = from_wire(&digest)
                .ok_or_else(|| ResultError::Digest { field: "stderr_digest", path: "the result".to_owned() })?;
            if blob.size_bytes == 0 { Stderr::Inline(String::new()) } else { Stderr::Blob(blob) }
        }
        _ => Stderr::Inline(String::from_utf8(message.stderr_raw).map_err(|_| ResultError::NoText)?),
    };
    let (cpu_us, wall_us) = message.execution_metadata.as_ref().map_or((0, 0), times);
    let result = ActionResult { exit: message.exit_code, outputs, stderr: String::new(), cpu_us, wall_us };
    if !result.settles() {
        return Err(ResultError::NotSettled(result.exit));
    }
    Ok(Received { result, stderr })
}

impl Received {
    /// The result, with its standard error where that was in the message.
    ///
    /// # Errors
    /// The blob that it has to be fetched from, with the rest.
    pub fn whole(self) -> Result<ActionResult, (ActionResult, BlobDigest)> {
        match self.stderr {
            Stderr::Inline(stderr) => Ok(ActionResult { stderr, ..self.result }),
            Stderr::Blob(blob) => Err((self.result, blob)),
        }
    }
}

#[expect(deprecated, reason = "clients of old versions of the API send these")]
fn refuse_what_cannot_be_kept(message: &wire::ActionResult) -> Result<(), ResultError> {
    let links =
        message.output_symlinks.len() + message.output_file_symlinks.len() + message.output_directory_symlinks.len();
    if links > 0 {
        return Err(ResultError::Unknown("a symbolic link as output"));
    }
    if !message.output_directories.is_empty() {
        return Err(ResultError::Unknown("a folder as output"));
    }
    let stdout = message.stdout_digest.as_ref().is_some_and(|digest| digest.size_bytes != 0);
    if stdout || !message.stdout_raw.is_empty() {
        return Err(ResultError::Unknown("a standard output"));
    }
    Ok(())
}

/// Relative, with neither `.` nor `..`, and with no empty part.
fn is_below(path: &str) -> bool {
    !path.contains('\0') && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

fn duration(us: u64) -> Duration {
    let seconds = i64::try_from(us / 1_000_000).unwrap_or(i64::MAX);
    Duration { seconds, nanos: i32::try_from(us % 1_000_000 * 1_000).unwrap_or_default() }
}

/// CPU and wall time in microseconds; what is not said, or cannot be, is 0.
fn times(metadata: &wire::ExecutedActionMetadata) -> (u64, u64) {
    let cost = metadata.auxiliary_metadata.iter().find(|any| any.type_url == COST_URL);
    let cpu_us = cost.and_then(|any| Cost::decode(any.value.as_slice()).ok()).map_or(0, |cost| cost.cpu_us);
    let us = |seconds: i64, nanos: i32| {
        let whole = u64::try_from(seconds).ok()?.checked_mul(1_000_000)?;
        whole.checked_add(u64::try_from(nanos).ok()? / 1_000)
    };
    let wall = match (&metadata.virtual_execution_duration, &metadata.execution_start_timestamp) {
        (Some(duration), _) => us(duration.seconds, duration.nanos),
        (None, Some(start)) => metadata
            .execution_completed_timestamp
            .as_ref()
            .and_then(|end| us(end.seconds, end.nanos)?.checked_sub(us(start.seconds, start.nanos)?)),
        (None, None) => None,
    };
    (cpu_us, wall.unwrap_or(0))
}

fn shown(text: &str) -> String {
    text.chars().take(120).collect()
}

#[cfg(test)]
mod tests {
    use bazel_remote_apis::google::protobuf::Timestamp;
    use proptest::prelude::*;

    use super::*;

    fn result() -> ActionResult {
        let output = |path: &str, executable| OutputFile {
            path: path.to_owned(),
            blob: BlobDigest::of(path.as_bytes()),
            executable,
        };
        ActionResult {
            exit: 1,
            outputs: vec![output("a.o", false), output("sub/a", true)],
            stderr: "a.c:1: é\u{1}\n".to_owned(),
            cpu_us: 1_234_567,
            wall_us: 2_000_003,
        }
    }

    #[test]
    fn a_result_that_cannot_be_kept_is_refused_by_what_it_says() {
        type Change = fn(&mut wire::ActionResult);
        let table: [(Change, ResultError); 9] = [
            (|it| it.stdout_raw = b"x".to_vec(), ResultError::Unknown("a standard output")),
            (
                |it| it.output_symlinks.push(wire::OutputSymlink::default()),
                ResultError::Unknown("a symbolic link as output"),
            ),
            (
                |it| it.output_directories.push(wire::OutputDirectory::default()),
                ResultError::Unknown("a folder as output"),
            ),
            (|it| it.stderr_raw = vec![0xff], ResultError::NoText),
            (|it| it.exit_code = 137, ResultError::NotSettled(137)),
            (|it| it.output_files[0].path = "../a.o".to_owned(), ResultError::Path("../a.o".to_owned())),
            (|it| it.output_files[0].path = "/a.o".to_owned(), ResultError::Path("/a.o".to_owned())),
            (|it| it.output_files[0].path = "sub/a".to_owned(), ResultError::Path("sub/a".to_owned())),
            (
                |it| it.output_files[0].digest = None,
                ResultError::Digest { field: "output_files[].digest", path: "a.o".to_owned() },
            ),
        ];
        for (change, error) in table {
            let mut message = encode(&result(), None);
            change(&mut message);
            assert_eq!(decode(message), Err(error));
        }
    }

    #[test]
    fn a_standard_error_can_be_a_blob() {
        let blob = BlobDigest::of(result().stderr.as_bytes());
        let message = encode(&result(), Some(&blob));
        assert!(message.stderr_raw.is_empty());
        let (rest, named) = decode(message).unwrap().whole().unwrap_err();
        assert_eq!(named, blob);
        assert_eq!(ActionResult { stderr: result().stderr, ..rest }, result());
    }

    #[test]
    fn times_of_other_programs_are_understood() {
        let at = |seconds, nanos| Some(Timestamp { seconds, nanos });
        let mut message = encode(&result(), None);
        message.execution_metadata = Some(wire::ExecutedActionMetadata {
            execution_start_timestamp: at(10, 500_000_000),
            execution_completed_timestamp: at(12, 0),
            ..wire::ExecutedActionMetadata::default()
        });
        let read = decode(message.clone()).unwrap().result;
        assert_eq!((read.cpu_us, read.wall_us), (0, 1_500_000));
        message.execution_metadata = Some(wire::ExecutedActionMetadata {
            execution_start_timestamp: at(10, 0),
            execution_completed_timestamp: at(-1, 0),
            ..wire::ExecutedActionMetadata::default()
        });
        assert_eq!(decode(message).unwrap().result.wall_us, 0);
    }

    proptest! {
        #[test]
        fn results_come_back_from_the_wire(exit in 0i32..128, names in prop::collection::btree_set("[a-z]{1,3}(/[a-z.]{1,2}x)?", 0..5), stderr in ".{0,40}", cpu_us: u64, wall_us: u64) {
            let outputs = names.into_iter().map(|path| OutputFile { blob: BlobDigest::of(path.as_bytes()), executable: path.len() > 2, path }).collect();
            let result = ActionResult { exit, outputs, stderr, cpu_us, wall_us };
            let bytes = encode(&result, None).encode_to_vec();
            let message = wire::ActionResult::decode(bytes.as_slice()).unwrap();
            prop_assert_eq!(decode(message).unwrap().whole(), Ok(result));
        }

        #[test]
        fn any_bytes_give_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(message) = wire::ActionResult::decode(bytes.as_slice()) {
                let _ = decode(message);
            }
        }
    }
}
