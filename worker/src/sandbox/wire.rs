//! What goes between a worker and the agent in its container: frames on the agent's standard input and output.
//!
//! A frame is its length (4 bytes, little-endian, of all that follows), its kind (1 byte), the number of the command that it belongs to
//! (4 bytes, little-endian), and a body: JSON for requests and replies, bytes for output. Many commands may run at once.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Spec, Usage};
use crate::toolchain::{MissingTool, Toolchain};

/// Largest body, in bytes: the command of a link may name tens of thousands of files.
pub(super) const MAX_BODY_BYTES: usize = 32 << 20;
/// Bytes of a head behind the length.
const HEAD: usize = 5;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// To the agent: run this ([`Command`]).
    Run,
    /// To the agent: stop it.
    Stop,
    /// To the agent: which compilers has the image for this target (`TargetSpec`)?
    Toolchain,
    /// From the agent, once, before everything else ([`Hello`]).
    Hello,
    /// From the agent: output of a command.
    Output,
    /// From the agent: how a command ended ([`Reply`]); nothing more comes of it.
    Reply,
    /// From the agent: the compilers ([`Found`]).
    Found,
}

impl Kind {
    const ALL: [Self; 7] =
        [Self::Run, Self::Stop, Self::Toolchain, Self::Hello, Self::Output, Self::Reply, Self::Found];

    fn number(self) -> u8 {
        match self {
            Self::Run => 1,
            Self::Stop => 2,
            Self::Toolchain => 3,
            Self::Hello => 65,
            Self::Output => 66,
            Self::Reply => 67,
            Self::Found => 68,
        }
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    /// Which command.
    pub(super) id: u32,
    pub(super) body: Vec<u8>,
}

/// A command for the agent.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Command {
    pub(super) spec: Spec,
    /// The named pipe with the tokens of makes.
    pub(super) jobs: Option<std::path::PathBuf>,
}

/// The first word of an agent.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    /// Version of its program.
    pub(super) version: String,
    /// Why no sandbox can be made in this container.
    pub(super) refused: Option<String>,
}

/// How a command ended.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Reply {
    /// By itself.
    Ended {
        /// Exit code; 128 + n for signal n.
        exit: i32,
        /// What it used up.
        usage: Usage,
    },
    /// The container ran out of memory while it ran, and it did not end well.
    OutOfMemory,
    /// The sandbox could not be set up.
    Refused(String),
    /// As asked.
    Stopped,
}

/// The compilers of an image.
pub(super) type Found = Result<Toolchain, MissingTool>;

/// What comes over the wire is not ours.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum WireError {
    #[error("a frame of {0} bytes")]
    Size(usize),
    #[error("a frame of the unknown kind {0}")]
    Kind(u8),
}

impl Frame {
    pub(super) fn bytes(kind: Kind, id: u32, body: Vec<u8>) -> Self {
        Self { kind, id, body }
    }

    pub(super) fn json(kind: Kind, id: u32, body: &impl Serialize) -> serde_json::Result<Self> {
        Ok(Self { kind, id, body: serde_json::to_vec(body)? })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let length = u32::try_from(self.body.len() + HEAD).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(self.body.len() + HEAD + 4);
        bytes.extend(length.to_le_bytes());
        bytes.push(self.kind.number());
        bytes.extend(self.id.to_le_bytes());
        bytes.extend(&self.body);
        bytes
    }
}

/// Cuts a stream of bytes into frames.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    buffer: Vec<u8>,
    start: usize,
}

impl Decoder {
    /// Adds what was read.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend(bytes);
    }

    /// The next whole frame, if there is one.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, WireError> {
        let rest = self.buffer.get(self.start..).unwrap_or_default();
        let Some((length, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        if !(HEAD..=MAX_BODY_BYTES + HEAD).contains(&length) {
            return Err(WireError::Size(length));
        }
        let Some(frame) = rest.get(..length) else { return Ok(None) };
        let Some(([number], frame)) = frame.split_first_chunk::<1>() else { return Err(WireError::Size(length)) };
        let Some((id, body)) = frame.split_first_chunk::<4>() else { return Err(WireError::Size(length)) };
        let kind = Kind::ALL.into_iter().find(|kind| kind.number() == *number).ok_or(WireError::Kind(*number))?;
        let frame = Frame { kind, id: u32::from_le_bytes(*id), body: body.to_vec() };
        self.start += length + 4;
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(decoder: &mut Decoder) -> Result<Vec<Frame>, WireError> {
        let mut frames = Vec::new();
        while let Some(frame) = decoder.next()? {
            frames.push(frame);
        }
        Ok(frames)
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        for (bytes, want) in [
            (vec![4, 0, 0, 0, 1, 0, 0, 0], WireError::Size(4)),
            (vec![255, 255, 255, 255], WireError::Size(u32::MAX as usize)),
            (vec![5, 0, 0, 0, 9, 0, 0, 0, 0], WireError::Kind(9)),
        ] {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            assert_eq!(decoder.next(), Err(want));
        }
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_they_are_cut(
            bodies in proptest::collection::vec((0..7_usize, any::<u32>(), proptest::collection::vec(any::<u8>(), 0..300)), 0..8),
            cut in 1..64_usize,
        ) {
            let frames: Vec<Frame> =
                bodies.into_iter().map(|(kind, id, body)| Frame::bytes(Kind::ALL[kind], id, body)).collect();
            let bytes: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
            let mut decoder = Decoder::default();
            let mut got = Vec::new();
            for piece in bytes.chunks(cut) {
                decoder.push(piece);
                got.extend(all(&mut decoder).unwrap());
            }
            prop_assert_eq!(got, frames);
        }

        #[test]
        fn any_bytes_give_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            let _ = all(&mut decoder);
        }
    }
}
