//! Binary changes of git patches (`GIT binary patch`): base85 of deflated data, literal or delta.
//!
//! Sources of the format: gitformat-pack(5) for deltas, RFC 1950 for the deflated data, and the alphabet of base85 as git
//! writes it; each data line begins with its length (A-Z: 1 to 26 bytes, a-z: 27 to 52).

use std::io::Read;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The two halves of a `GIT binary patch`; the backward half makes the patch reversible.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BinaryPatch {
    /// From old to new.
    pub forward: BinaryHunk,
    /// From new to old.
    pub backward: Option<BinaryHunk>,
}

/// One half: still deflated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BinaryHunk {
    /// A git delta against the other side; otherwise the whole content.
    pub delta: bool,
    /// Size of the inflated data in bytes, as the patch says.
    pub size_bytes: u64,
    /// Deflated data.
    pub deflated: Vec<u8>,
}

/// Binary data that cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BinaryError {
    /// The deflated data is damaged.
    #[error("the binary data is damaged")]
    Damaged,
    /// The data is not of the size that the patch says.
    #[error("the binary data does not have the {0} bytes that the patch says")]
    Size(u64),
    /// The data is larger than allowed.
    #[error("the binary data is larger than the limit of {0} bytes")]
    TooLarge(u64),
    /// The delta is for another file.
    #[error("the binary change was made for a file of {wanted} bytes, this one has {found}")]
    OtherBase {
        /// What the delta was made for.
        wanted: u64,
        /// What is there.
        found: u64,
    },
}

const ALPHABET: &[u8; 85] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~";

impl BinaryHunk {
    /// The content of the other side, given this side's.
    ///
    /// # Errors
    /// When the data is damaged, larger than `limit` bytes, or made for another content.
    pub fn data(&self, base: &[u8], limit: u64) -> Result<Vec<u8>, BinaryError> {
        if self.size_bytes > limit {
            return Err(BinaryError::TooLarge(limit));
        }
        let mut data = Vec::new();
        let inflater = flate2::read::ZlibDecoder::new(self.deflated.as_slice());
        inflater.take(self.size_bytes.saturating_add(1)).read_to_end(&mut data).map_err(|_| BinaryError::Damaged)?;
        if data.len() as u64 != self.size_bytes {
            return Err(BinaryError::Size(self.size_bytes));
        }
        if self.delta { apply_delta(base, &data, limit) } else { Ok(data) }
    }
}

/// Reads one half at line `at`; `None` where there is none. On success `at` is behind the half and its blank line.
pub(super) fn read_hunk(lines: &[&[u8]], at: &mut usize) -> Result<Option<BinaryHunk>, String> {
    let text = |at: usize| lines.get(at).and_then(|line| std::str::from_utf8(line).ok()).map(str::trim_end);
    let Some(head) = text(*at) else { return Ok(None) };
    let (delta, size) = match head.split_once(' ') {
        Some(("literal", size)) => (false, size),
        Some(("delta", size)) => (true, size),
        _ => return Ok(None),
    };
    let size_bytes = size.parse().map_err(|_| "the size of a binary change is malformed".to_owned())?;
    *at += 1;
    let mut deflated = Vec::new();
    while let Some(line) = text(*at) {
        *at += 1;
        let Some((length, digits)) = line.as_bytes().split_first() else {
            return Ok(Some(BinaryHunk { delta, size_bytes, deflated }));
        };
        let length = match length {
            b'A'..=b'Z' => length - b'A' + 1,
            b'a'..=b'z' => length - b'a' + 27,
            _ => return Err("a line of binary data is malformed".to_owned()),
        };
        decode_line(digits, usize::from(length), &mut deflated).ok_or("a line of binary data is malformed")?;
    }
    Ok(Some(BinaryHunk { delta, size_bytes, deflated }))
}

/// Five digits are four bytes; the last group is padded.
fn decode_line(digits: &[u8], length: usize, out: &mut Vec<u8>) -> Option<()> {
    if digits.len() != length.div_ceil(4) * 5 {
        return None;
    }
    let mut left = length;
    for group in digits.chunks(5) {
        let mut value = 0_u32;
        for digit in group {
            let digit = ALPHABET.iter().position(|known| known == digit)?;
            value = value.checked_mul(85)?.checked_add(u32::try_from(digit).ok()?)?;
        }
        let bytes = value.to_be_bytes();
        out.extend_from_slice(&bytes[..left.min(4)]);
        left = left.saturating_sub(4);
    }
    Some(())
}

fn apply_delta(base: &[u8], delta: &[u8], limit: u64) -> Result<Vec<u8>, BinaryError> {
    let mut rest = delta;
    let wanted = size(&mut rest).ok_or(BinaryError::Damaged)?;
    let target = size(&mut rest).ok_or(BinaryError::Damaged)?;
    if wanted != base.len() as u64 {
        return Err(BinaryError::OtherBase { wanted, found: base.len() as u64 });
    }
    if target > limit {
        return Err(BinaryError::TooLarge(limit));
    }
    let mut out: Vec<u8> = Vec::new();
    while let Some((op, tail)) = rest.split_first() {
        rest = tail;
        let piece = if op & 0x80 == 0 {
            let (literal, tail) = rest.split_at_checked(usize::from(*op)).ok_or(BinaryError::Damaged)?;
            rest = tail;
            if literal.is_empty() {
                return Err(BinaryError::Damaged);
            }
            literal
        } else {
            let mut number = |bits: std::ops::Range<u32>| -> Option<usize> {
                let mut value = 0_usize;
                for (place, bit) in bits.enumerate() {
                    if op & (1 << bit) != 0 {
                        let (byte, tail) = rest.split_first()?;
                        rest = tail;
                        value |= usize::from(*byte) << (8 * place);
                    }
                }
                Some(value)
            };
            let offset = number(0..4).ok_or(BinaryError::Damaged)?;
            let length = number(4..7).ok_or(BinaryError::Damaged)?;
            let length = if length == 0 { 0x10000 } else { length };
            offset.checked_add(length).and_then(|end| base.get(offset..end)).ok_or(BinaryError::Damaged)?
        };
        if (out.len() + piece.len()) as u64 > target {
            return Err(BinaryError::Size(target));
        }
        out.extend_from_slice(piece);
    }
    if out.len() as u64 == target { Ok(out) } else { Err(BinaryError::Size(target)) }
}

/// A size in base 128, low part first.
fn size(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..63).step_by(7) {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn deflate(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn hunk(delta: bool, data: &[u8]) -> BinaryHunk {
        BinaryHunk { delta, size_bytes: data.len() as u64, deflated: deflate(data) }
    }

    #[test]
    fn literals_and_deltas() {
        assert_eq!(hunk(false, b"abc").data(b"", 100), Ok(b"abc".to_vec()));
        // Base of 5 bytes, result of 6: copy 3 from 1, insert "xyz".
        let delta = [5, 6, 0x80 | 0x01 | 0x10, 1, 3, 3, b'x', b'y', b'z'];
        assert_eq!(hunk(true, &delta).data(b"abcde", 100), Ok(b"bcdxyz".to_vec()));
        assert_eq!(hunk(true, &delta).data(b"abc", 100), Err(BinaryError::OtherBase { wanted: 5, found: 3 }));
        assert_eq!(hunk(true, &[5, 6, 0x91, 4, 3]).data(b"abcde", 100), Err(BinaryError::Damaged));
        assert_eq!(hunk(false, b"abc").data(b"", 2), Err(BinaryError::TooLarge(2)));
        let lying = BinaryHunk { size_bytes: 2, ..hunk(false, b"abc") };
        assert_eq!(lying.data(b"", 100), Err(BinaryError::Size(2)));
    }

    #[test]
    fn a_half_is_read_up_to_its_blank_line() {
        // What git writes for a new file that holds the bytes 00 01 02.
        let lines: Vec<&[u8]> =
            vec![b"literal 3\n", b"KcmZQzWC8#H2LJ>B\n", b"\n", b"literal 0\n", b"HcmV?d00001\n", b"\n"];
        let mut at = 0;
        let half = read_hunk(&lines, &mut at).unwrap().unwrap();
        assert_eq!((at, half.size_bytes, half.delta), (3, 3, false));
        assert_eq!(half.data(b"", 10), Ok(vec![0, 1, 2]));
        let back = read_hunk(&lines, &mut at).unwrap().unwrap();
        assert_eq!(back.data(b"", 10), Ok(vec![]));
        assert!(read_hunk(&[b"literal 3\n", b"K\"\n"], &mut 0).is_err());
    }

    proptest! {
        #[test]
        fn damaged_data_is_an_error(base in prop::collection::vec(any::<u8>(), 0..40), data in prop::collection::vec(any::<u8>(), 0..60), delta: bool) {
            let _ = hunk(delta, &data).data(&base, 10_000);
            let _ = BinaryHunk { delta, size_bytes: 10, deflated: data }.data(&base, 10_000);
        }
    }
}
