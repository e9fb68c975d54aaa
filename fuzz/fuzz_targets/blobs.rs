//! Names of blobs, and streams of an upload: each line of the input is a message.
#![no_main]
use bombproof_core::blob::name::{ReadName, WriteName};
use bombproof_core::blob::upload::{Piece, Stream};
use bombproof_core::digest::Digest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    // A digest is nothing that is found by chance.
    let text = &text.replace("HASH", &Digest::of(b"").to_string());
    if let Ok(name) = ReadName::parse(text) {
        assert_eq!(name.to_string(), *text, "a blob has one name");
    }
    if let Ok(name) = WriteName::parse(text) {
        assert!(text.starts_with(&name.to_string()), "a blob has one name");
    }
    // "OFFSET LENGTH FINISH NAME"
    let pieces = text.lines().filter_map(|line| {
        let mut words = line.splitn(4, ' ');
        let (offset, len) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let finish = words.next()? == "1";
        Some(Piece { name: words.next().unwrap_or_default(), offset, len, finish })
    });
    let mut stream: Option<Stream> = None;
    let mut taken = 0_u64;
    for piece in pieces {
        if stream.is_none() {
            stream = Stream::begin(&piece, |name| name.blob.size_bytes / 2).ok();
            taken = stream.as_ref().map_or(0, Stream::committed);
        }
        let Some(stream) = &mut stream else { continue };
        if let Ok(accepted) = stream.step(&piece) {
            assert_eq!(u64::try_from(piece.offset), Ok(taken), "nothing is left out and nothing comes twice");
            taken += piece.len as u64;
            assert_eq!(accepted.whole, taken == stream.name().blob.size_bytes);
        }
        assert_eq!(stream.committed(), taken);
        assert!(taken <= stream.name().blob.size_bytes, "no more than was said");
        assert!(!stream.is_finished() || taken == stream.name().blob.size_bytes);
    }
});
