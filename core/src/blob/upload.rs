//! Which bytes of an upload count.
//!
//! An upload may be cut off at any place and taken up again, by another connection too. What counts is the number of bytes
//! that are committed; a message counts when it begins exactly there. A client that repeats what is committed already is
//! told so, because a blob must not depend on which of two messages came first.

use thiserror::Error;

use super::name::{NameError, WriteName};

/// One message of a stream that writes. Only the first of a stream has to name the upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The resource; may be empty after the first message.
    pub name: &'a str,
    /// Where the bytes belong.
    pub offset: i64,
    /// How many there are.
    pub len: usize,
    /// Nothing follows.
    pub finish: bool,
}

/// One stream, from its first message on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    name: WriteName,
    text: String,
    committed: u64,
    finished: bool,
}

/// What is to be done with the bytes of a message: they are appended, all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// All bytes are there: now the content has to be compared with the digest.
    pub whole: bool,
}

/// A message that does not belong here.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum UploadError {
    /// The name of the first message.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Another upload in the same stream.
    #[error("this stream writes '{expected}', not '{found}'")]
    OtherName {
        /// That of the first message.
        expected: String,
        /// That of this one.
        found: String,
    },
    /// Bytes are missing before these, or they are there already.
    #[error(
        "{committed} bytes are committed, and the next ones are said to be at {offset}: ask QueryWriteStatus and go on there"
    )]
    Offset {
        /// What is there.
        committed: u64,
        /// Where the message begins.
        offset: i64,
    },
    /// More than the name says.
    #[error("the blob is to have {size_bytes} bytes, and there are {found}")]
    TooLong {
        /// What the name says.
        size_bytes: u64,
        /// What came.
        found: u64,
    },
    /// Nothing follows, and it is not whole.
    #[error("the stream says that it is finished at {committed} bytes of {size_bytes}")]
    TooShort {
        /// What came.
        committed: u64,
        /// What the name says.
        size_bytes: u64,
    },
    /// Something follows what was to be the end.
    #[error("a message follows the one that finished the upload")]
    AfterEnd,
}

impl Stream {
    /// Begins with the name in the first message; `committed` tells how many bytes of that upload are there.
    ///
    /// # Errors
    /// When it names no upload.
    pub fn begin(first: &Piece<'_>, committed: impl FnOnce(&WriteName) -> u64) -> Result<Self, UploadError> {
        let name = WriteName::parse(first.name)?;
        let committed = committed(&name);
        Ok(Self { name, text: first.name.to_owned(), committed, finished: false })
    }

    /// What is written.
    pub fn name(&self) -> &WriteName {
        &self.name
    }

    /// Bytes that are there.
    pub fn committed(&self) -> u64 {
        self.committed
    }

    /// Whether the end was said and is right.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Takes the next message, the first one too.
    ///
    /// # Errors
    /// When it does not belong here; nothing changed then.
    pub fn step(&mut self, piece: &Piece<'_>) -> Result<Accepted, UploadError> {
        if self.finished {
            return Err(UploadError::AfterEnd);
        }
        if !piece.name.is_empty() && piece.name != self.text {
            let found = piece.name.chars().take(120).collect();
            return Err(UploadError::OtherName { expected: self.text.clone(), found });
        }
        if u64::try_from(piece.offset) != Ok(self.committed) {
            return Err(UploadError::Offset { committed: self.committed, offset: piece.offset });
        }
        let size_bytes = self.name.blob.size_bytes;
        let found = self.committed.saturating_add(piece.len as u64);
        if found > size_bytes {
            return Err(UploadError::TooLong { size_bytes, found });
        }
        if piece.finish && found < size_bytes {
            return Err(UploadError::TooShort { committed: found, size_bytes });
        }
        self.committed = found;
        self.finished = piece.finish;
        Ok(Accepted { whole: found == size_bytes })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::digest::BlobDigest;

    fn name(size: usize) -> String {
        format!("uploads/u-1/blobs/{}", BlobDigest::of(&vec![0; size]))
    }

    fn piece(name: &str, offset: i64, len: usize, finish: bool) -> Piece<'_> {
        Piece { name, offset, len, finish }
    }

    #[test]
    fn pieces_count_in_their_order_only() {
        let name = name(10);
        let first = piece(&name, 0, 4, false);
        let mut stream = Stream::begin(&first, |_| 0).unwrap();
        assert_eq!(stream.step(&first), Ok(Accepted { whole: false }));
        for (offset, wrong) in [(0, "again"), (3, "overlap"), (5, "gap"), (-1, "before the beginning")] {
            let error = stream.step(&piece("", offset, 1, false)).unwrap_err();
            assert_eq!(error, UploadError::Offset { committed: 4, offset }, "{wrong}");
        }
        assert!(matches!(stream.step(&piece("uploads/u/blobs/x/1", 4, 1, false)), Err(UploadError::OtherName { .. })));
        assert_eq!(stream.step(&piece("", 4, 7, false)), Err(UploadError::TooLong { size_bytes: 10, found: 11 }));
        assert_eq!(stream.step(&piece("", 4, 5, true)), Err(UploadError::TooShort { committed: 9, size_bytes: 10 }));
        assert_eq!(stream.committed(), 4, "what was refused changed nothing");
        assert_eq!(stream.step(&piece(&name, 4, 6, true)), Ok(Accepted { whole: true }));
        assert!(stream.is_finished());
        assert_eq!(stream.step(&piece("", 10, 0, true)), Err(UploadError::AfterEnd));
    }

    #[test]
    fn an_upload_goes_on_where_it_was() {
        let name = name(10);
        let first = piece(&name, 7, 3, true);
        let mut stream = Stream::begin(&first, |it| it.blob.size_bytes - 3).unwrap();
        assert_eq!(stream.step(&first), Ok(Accepted { whole: true }));
        assert!(Stream::begin(&piece("", 0, 0, false), |_| 0).is_err(), "the first message names it");
    }

    #[test]
    fn an_empty_blob_is_whole_at_once() {
        let name = name(0);
        let first = piece(&name, 0, 0, true);
        let mut stream = Stream::begin(&first, |_| 0).unwrap();
        assert_eq!(stream.step(&first), Ok(Accepted { whole: true }));
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_each_byte_once(pieces in prop::collection::vec((0i64..12, 0usize..6, any::<bool>()), 1..30)) {
            let name = name(9);
            let mut stream = Stream::begin(&piece(&name, 0, 0, false), |_| 0).unwrap();
            let mut taken = 0;
            for (offset, len, finish) in pieces {
                if stream.step(&piece("", offset, len, finish)).is_ok() {
                    prop_assert_eq!(offset, taken);
                    taken += i64::try_from(len).unwrap();
                }
            }
            prop_assert_eq!(u64::try_from(taken).unwrap(), stream.committed());
            prop_assert!(stream.committed() <= 9 && (!stream.is_finished() || taken == 9));
        }
    }
}
