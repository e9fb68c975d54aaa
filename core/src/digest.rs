//! Content digests: SHA-256, and a canonical way to digest structured values.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// A SHA-256 digest; shown, stored and parsed as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// A text that is not 64 hexadecimal digits.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("'{0}' is not a digest of 64 hexadecimal digits")]
pub struct ParseDigestError(String);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The first 12 digits: enough for a person to tell two apart.
    pub fn short(&self) -> String {
        self.to_string().chars().take(12).collect()
    }

    /// Its first eight bytes, as a number: as good as any hash of it.
    pub fn head(&self) -> u64 {
        self.0.iter().take(8).fold(0, |head, byte| (head << 8) | u64::from(*byte))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One write: names of blobs are made by the hundred for each compile.
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 64];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseDigestError(text.chars().take(80).collect());
        let digits: Vec<u8> = text
            .chars()
            .map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()))
            .collect::<Option<_>>()
            .ok_or_else(error)?;
        let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair.iter().fold(0, |high, low| (high << 4) | low)).collect();
        if digits.len() == 64 { bytes.try_into().map(Self).map_err(|_| error()) } else { Err(error()) }
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A blob as the Remote Execution API names it: by the digest of its content and its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlobDigest {
    /// SHA-256 of the content.
    pub hash: Digest,
    /// Its length in bytes.
    pub size_bytes: u64,
}

impl BlobDigest {
    /// The name of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self { hash: Digest::of(bytes), size_bytes: bytes.len() as u64 }
    }
}

impl fmt::Display for BlobDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.hash, self.size_bytes)
    }
}

/// Names a blob whose content comes in pieces.
#[derive(Debug, Default)]
pub struct BlobHasher {
    hash: Sha256,
    size_bytes: u64,
}

impl BlobHasher {
    /// Adds the next bytes of the content.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.size_bytes += bytes.len() as u64;
    }

    /// The name of all bytes so far.
    pub fn finish(self) -> BlobDigest {
        BlobDigest { hash: Digest(self.hash.finalize().into()), size_bytes: self.size_bytes }
    }
}

/// Digests a sequence of fields so that no two different sequences give the same bytes.
///
/// Rule: every field is its length in bytes as 8 bytes big-endian, then the bytes. The first field is the domain, a
/// name with a version such as `bombproof/target/v1`, so that digests of different kinds never meet.
#[derive(Debug)]
pub struct DigestBuilder(Sha256);

impl DigestBuilder {
    /// Starts a digest of the given domain.
    pub fn new(domain: &str) -> Self {
        Self(Sha256::new()).field(domain.as_bytes())
    }

    /// Adds one field.
    #[must_use]
    pub fn field(mut self, bytes: &[u8]) -> Self {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
        self
    }

    /// Adds a list: its length, then each item.
    #[must_use]
    pub fn list<'a>(self, items: impl ExactSizeIterator<Item = &'a str>) -> Self {
        let counted = self.field(&(items.len() as u64).to_be_bytes());
        items.fold(counted, |builder, item| builder.field(item.as_bytes()))
    }

    /// The digest of all fields.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_values_do_not_change() {
        assert_eq!(Digest::of(b"").to_string(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        let built = DigestBuilder::new("bombproof/test/v1").field(b"a").list(["b", "c"].into_iter()).finish();
        assert_eq!(Digest::of(b"").head(), 0xe3b0_c442_98fc_1c14);
        assert_eq!(built.to_string(), "9ff868cc58372bb5d45f227c6b5c73559eaf4a6bd7da1587829854b9ece64f48");
    }

    #[test]
    fn pieces_give_the_name_of_the_whole() {
        for cut in 0..=5 {
            let (head, tail) = b"bytes".split_at(cut);
            let mut hasher = BlobHasher::default();
            hasher.update(head);
            hasher.update(tail);
            assert_eq!(hasher.finish(), BlobDigest::of(b"bytes"));
        }
    }

    #[test]
    fn fields_cannot_run_into_each_other() {
        let one = DigestBuilder::new("d").field(b"ab").field(b"c").finish();
        let other = DigestBuilder::new("d").field(b"a").field(b"bc").finish();
        assert_ne!(one, other);
    }

    #[test]
    fn text_form_is_read_back_and_rubbish_is_refused() {
        let digest = Digest::of(b"x");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        for bad in ["", "abc", "zz", &"g".repeat(64), &"a".repeat(63), &"a".repeat(66), "é"] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
