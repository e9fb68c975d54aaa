//! What fits into one message.

use crate::digest::BlobDigest;

/// What a blob costs in a message beside its content: its digest in text, its size, a status, the tags of fields.
pub const ENTRY_BYTES: u64 = 128;

/// Blobs in messages of their own kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// Each of these fits into one message.
    pub batches: Vec<Vec<BlobDigest>>,
    /// Each of these needs a stream.
    pub streams: Vec<BlobDigest>,
}

/// Splits blobs into batches of at most `limit_bytes`, content and [`ENTRY_BYTES`] together; what is too large for any, or
/// larger than `stream_bytes`, goes alone. Order is kept; repeated ones are taken once.
pub fn split(blobs: &[BlobDigest], limit_bytes: u64, stream_bytes: u64) -> Split {
    let mut split = Split::default();
    let mut seen = std::collections::HashSet::with_capacity(blobs.len());
    let (mut batch, mut filled) = (Vec::new(), 0_u64);
    for blob in blobs.iter().filter(|blob| seen.insert(**blob)) {
        let cost = blob.size_bytes.saturating_add(ENTRY_BYTES);
        if cost > limit_bytes || blob.size_bytes > stream_bytes {
            split.streams.push(*blob);
            continue;
        }
        if filled + cost > limit_bytes {
            split.batches.push(std::mem::take(&mut batch));
            filled = 0;
        }
        batch.push(*blob);
        filled += cost;
    }
    if !batch.is_empty() {
        split.batches.push(batch);
    }
    split
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn blob(number: u64, size_bytes: u64) -> BlobDigest {
        BlobDigest { size_bytes, ..BlobDigest::of(&number.to_be_bytes()) }
    }

    #[test]
    fn what_is_large_goes_alone() {
        let (small, large, vast) = (blob(1, 10), blob(2, 700), blob(3, u64::MAX));
        let split = split(&[small, large, vast, small], 1_000, 500);
        assert_eq!(split, Split { batches: vec![vec![small]], streams: vec![large, vast] });
    }

    proptest! {
        #[test]
        fn each_blob_goes_once_and_no_batch_is_too_large(sizes in prop::collection::vec(0u64..3_000, 0..60), limit in 0u64..2_000) {
            let blobs: Vec<BlobDigest> = sizes.iter().zip(0..).map(|(size, number)| blob(number, *size)).collect();
            let split = split(&blobs, limit, 1_500);
            for batch in &split.batches {
                prop_assert!(!batch.is_empty());
                prop_assert!(batch.iter().map(|blob| blob.size_bytes + ENTRY_BYTES).sum::<u64>() <= limit);
            }
            let mut sent: Vec<BlobDigest> = split.batches.concat();
            prop_assert!(sent.iter().is_sorted_by_key(|blob| blobs.iter().position(|other| other == blob)));
            sent.extend(&split.streams);
            sent.sort_unstable();
            let mut all = blobs;
            all.sort_unstable();
            prop_assert_eq!(sent, all);
        }
    }
}
