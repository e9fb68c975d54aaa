//! Names of blobs in streams.
//!
//! ```text
//! [INSTANCE/]blobs/HASH/SIZE                             what is read
//! [INSTANCE/]uploads/UUID/blobs/HASH/SIZE[/ANYTHING]     what is written
//! ```
//!
//! An instance may have several parts, none of which is a word of the API. Names of compressed blobs and of other digest
//! functions are understood, and refused by what they are.

use std::fmt;

use thiserror::Error;

use crate::digest::{BlobDigest, Digest};

/// Longest name that is looked at, in bytes; an instance and all the rest are far below.
const MAX_BYTES: usize = 1024;
/// Longest name of an upload, in bytes; that of a UUID is 36.
const MAX_UPLOAD_BYTES: usize = 64;
/// Words of the API that no part of an instance's name may be.
const RESERVED: [&str; 7] =
    ["blobs", "uploads", "actions", "actionResults", "operations", "capabilities", "compressed-blobs"];

/// What a stream reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadName {
    /// Which store of the server; empty for its only one.
    pub instance: String,
    /// Which blob.
    pub blob: BlobDigest,
}

/// What a stream writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteName {
    /// Which store of the server; empty for its only one.
    pub instance: String,
    /// The upload, by a name that the client made: a UUID.
    pub upload: String,
    /// What it is to be.
    pub blob: BlobDigest,
}

/// A name that is none.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NameError {
    /// Longer than any name that means something.
    #[error("the name has {0} bytes, more than {MAX_BYTES}")]
    TooLong(usize),
    /// The words of the API are not there, or not in their order.
    #[error("'{0}' is no name of a blob: expected [INSTANCE/]{1}")]
    Shape(String, &'static str),
    /// Another form of the blob than its bytes.
    #[error("compressed blobs ('{0}') are not kept here: ask for blobs/HASH/SIZE")]
    Compressed(String),
    /// The digest is none of SHA-256, in lower case.
    #[error("'{0}' is not a SHA-256 digest of 64 lower-case hexadecimal digits")]
    Hash(String),
    /// The size is no number, or one that is written in another way than numbers are.
    #[error("'{0}' is not a size in bytes")]
    Size(String),
    /// The upload is not named as uploads are.
    #[error("'{0}' names no upload: up to {MAX_UPLOAD_BYTES} letters, digits and hyphens are expected, as in a UUID")]
    Upload(String),
}

const READ: &str = "blobs/HASH/SIZE";
const WRITE: &str = "uploads/UUID/blobs/HASH/SIZE";

impl ReadName {
    /// Understands a name.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        let (instance, rest) = split(name, READ)?;
        match rest.as_slice() {
            ["blobs", hash, size] => Ok(Self { instance, blob: blob(hash, size)? }),
            ["compressed-blobs", compressor, ..] => Err(NameError::Compressed(shown(compressor))),
            _ => Err(NameError::Shape(shown(name), READ)),
        }
    }
}

impl WriteName {
    /// Understands a name.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        let (instance, rest) = split(name, WRITE)?;
        match rest.as_slice() {
            // What follows the size is the client's own.
            ["uploads", upload, "blobs", hash, size, ..] => {
                let right = (1..=MAX_UPLOAD_BYTES).contains(&upload.len())
                    && upload.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
                if !right {
                    return Err(NameError::Upload(shown(upload)));
                }
                Ok(Self { instance, upload: (*upload).to_owned(), blob: blob(hash, size)? })
            }
            ["uploads", _, "compressed-blobs", compressor, ..] => Err(NameError::Compressed(shown(compressor))),
            _ => Err(NameError::Shape(shown(name), WRITE)),
        }
    }
}

impl fmt::Display for ReadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}blobs/{}", Prefix(&self.instance), self.blob)
    }
}

impl fmt::Display for WriteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}uploads/{}/blobs/{}", Prefix(&self.instance), self.upload, self.blob)
    }
}

struct Prefix<'a>(&'a str);

impl fmt::Display for Prefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "{}/", self.0) }
    }
}

/// The instance, and all parts from the first word of the API on.
fn split<'a>(name: &'a str, expected: &'static str) -> Result<(String, Vec<&'a str>), NameError> {
    if name.len() > MAX_BYTES {
        return Err(NameError::TooLong(name.len()));
    }
    let parts: Vec<&str> = name.split('/').collect();
    let shape = || NameError::Shape(shown(name), expected);
    let at = parts.iter().position(|part| RESERVED.contains(part)).ok_or_else(shape)?;
    let (instance, rest) = parts.split_at(at);
    if instance.iter().any(|part| part.is_empty()) {
        return Err(shape());
    }
    Ok((instance.join("/"), rest.to_vec()))
}

fn blob(hash: &str, size: &str) -> Result<BlobDigest, NameError> {
    let digest: Digest = hash.parse().map_err(|_| NameError::Hash(shown(hash)))?;
    // Upper case would be another name of the same blob.
    if digest.to_string() != hash {
        return Err(NameError::Hash(shown(hash)));
    }
    let number: u64 = size.parse().map_err(|_| NameError::Size(shown(size)))?;
    // Sizes are signed on the wire; and "+1" and "01" would be other names of the same blob.
    if number.to_string() != size || i64::try_from(number).is_err() {
        return Err(NameError::Size(shown(size)));
    }
    Ok(BlobDigest { hash: digest, size_bytes: number })
}

/// As much of it as an error should repeat.
fn shown(text: &str) -> String {
    text.chars().take(120).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let blob = BlobDigest::of(b"x");
        for instance in ["", "main", "team/one"] {
            let read = ReadName { instance: instance.to_owned(), blob };
            assert_eq!(ReadName::parse(&read.to_string()), Ok(read));
            let upload = "6f1c9c1e-0000-4000-8000-0123456789ab".to_owned();
            let write = WriteName { instance: instance.to_owned(), upload, blob };
            assert_eq!(WriteName::parse(&write.to_string()), Ok(write.clone()));
            assert_eq!(WriteName::parse(&format!("{write}/src/file.c")), Ok(write), "what follows is the client's own");
        }
    }

    #[test]
    fn what_is_wrong_with_a_name_is_said() {
        let hash = Digest::of(b"x").to_string();
        let upper = hash.to_uppercase();
        let read = |name: &str| ReadName::parse(name).unwrap_err();
        let write = |name: &str| WriteName::parse(name).unwrap_err();
        for name in
            ["", "/", "blobs", &format!("blobs/{hash}"), &format!("blobs/{hash}/1/2"), &format!("/blobs/{hash}/1")]
        {
            assert_eq!(read(name), NameError::Shape(name.to_owned(), READ), "{name}");
        }
        assert!(matches!(read(&format!("actions/blobs/{hash}/1")), NameError::Shape(..)), "no instance is called so");
        assert!(matches!(read(&format!("a//blobs/{hash}/1")), NameError::Shape(..)));
        assert_eq!(read(&format!("compressed-blobs/zstd/{hash}/1")), NameError::Compressed("zstd".to_owned()));
        assert_eq!(read(&format!("blobs/{upper}/1")), NameError::Hash(upper));
        assert_eq!(read("blobs/blake3/1"), NameError::Hash("blake3".to_owned()));
        for size in ["", "-1", "+1", "01", "1.0", "99999999999999999999", "18446744073709551615"] {
            assert_eq!(read(&format!("blobs/{hash}/{size}")), NameError::Size(size.to_owned()));
        }
        for upload in ["", "..", "a b", "é", &"a".repeat(65)] {
            assert_eq!(write(&format!("uploads/{upload}/blobs/{hash}/1")), NameError::Upload(upload.to_owned()));
        }
        assert_eq!(
            write(&format!("uploads/u/compressed-blobs/zstd/{hash}/1")),
            NameError::Compressed("zstd".to_owned())
        );
        assert!(matches!(write(&format!("blobs/{hash}/1")), NameError::Shape(..)));
        assert_eq!(read(&"a".repeat(2000)), NameError::TooLong(2000));
    }

    proptest! {
        #[test]
        fn any_text_gives_an_answer_and_each_blob_has_one_name(text in "(main/)?(uploads/[a-f0-9-]{0,4}/)?(blobs|compressed-blobs/zstd)?/[0-9a-fA-F]{62,66}/[+0-9]{0,3}(/x)?|.{0,40}") {
            if let Ok(name) = ReadName::parse(&text) {
                prop_assert_eq!(name.to_string(), text.clone());
            }
            if let Ok(name) = WriteName::parse(&text) {
                prop_assert!(text.starts_with(&name.to_string()));
            }
        }
    }
}
