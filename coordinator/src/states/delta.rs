//! A content as what is copied from the content before it, and what is new (gitformat-pack(5), "Deltified representation").

use bombproof_core::series::Span;

/// The most that one instruction copies, and the most that one inserts, in bytes.
const MAX_COPY: usize = 0xff_ffff;
const MAX_INSERT: usize = 127;
/// Offsets of copies have four bytes.
const MAX_SIZE: usize = u32::MAX as usize;

/// What makes `new` of `old`, if `spans` are the lines in which they differ; `None` where they are not, or where it would save
/// less than half.
pub(super) fn between(old: &[u8], new: &[u8], spans: &[Span]) -> Option<Vec<u8>> {
    if spans.is_empty() || old.len() > MAX_SIZE {
        return None;
    }
    let (mut old_lines, mut new_lines) = (Lines::of(old), Lines::of(new));
    let mut delta = Vec::new();
    size(&mut delta, old.len());
    size(&mut delta, new.len());
    // The end of the span before.
    let (mut old_at, mut new_at) = (0, 0);
    for span in spans {
        let (old_start, new_start) = (old_lines.start(span.old_start)?, new_lines.start(span.new_start)?);
        copy(&mut delta, old, new, old_at..old_start, new_at..new_start)?;
        old_at = old_lines.start(span.old_start.checked_add(span.old_lines)?)?;
        new_at = new_lines.start(span.new_start.checked_add(span.new_lines)?)?;
        insert(&mut delta, new.get(new_start..new_at)?);
        if delta.len() > new.len() / 2 {
            return None;
        }
    }
    copy(&mut delta, old, new, old_at..old.len(), new_at..new.len())?;
    Some(delta)
}

/// What makes `new` of `old` if they differ in one place; `None` where it would save less than half.
pub(super) fn one_place(old: &[u8], new: &[u8]) -> Option<Vec<u8>> {
    let before = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) = (&old[before..], &new[before..]);
    let after = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(a, b)| a == b).count();
    let between = &new_rest[..new_rest.len() - after];
    if between.len() > new.len() / 2 || old.len() > MAX_SIZE {
        return None;
    }
    let mut delta = Vec::new();
    size(&mut delta, old.len());
    size(&mut delta, new.len());
    copy(&mut delta, old, new, 0..before, 0..before)?;
    insert(&mut delta, between);
    copy(&mut delta, old, new, old.len() - after..old.len(), new.len() - after..new.len())?;
    Some(delta)
}

/// Offsets of the lines of a text, asked for in order.
struct Lines<'a> {
    ends: memchr::Memchr<'a>,
    /// This line (from 1) begins here.
    line: u32,
    at: usize,
    len: usize,
}

impl<'a> Lines<'a> {
    fn of(text: &'a [u8]) -> Self {
        Self { ends: memchr::memchr_iter(b'\n', text), line: 1, at: 0, len: text.len() }
    }

    /// Where a line begins; the line after the last begins at the end.
    fn start(&mut self, line: u32) -> Option<usize> {
        while self.line < line {
            self.at = match self.ends.next() {
                Some(end) => end + 1,
                // A last line without an end.
                None if self.at < self.len => self.len,
                None => return None,
            };
            self.line += 1;
        }
        (self.line == line).then_some(self.at)
    }
}

fn insert(delta: &mut Vec<u8>, bytes: &[u8]) {
    for piece in bytes.chunks(MAX_INSERT) {
        delta.push(u8::try_from(piece.len()).unwrap_or(0));
        delta.extend_from_slice(piece);
    }
}

fn copy(
    delta: &mut Vec<u8>,
    old: &[u8],
    new: &[u8],
    from: std::ops::Range<usize>,
    to: std::ops::Range<usize>,
) -> Option<()> {
    // Whoever made the spans, what is copied is what is there.
    if old.get(from.clone())? != new.get(to)? {
        return None;
    }
    let mut at = from.start;
    while at < from.end {
        let count = (from.end - at).min(MAX_COPY);
        let mark = delta.len();
        delta.push(0x80);
        let offset = u32::try_from(at).ok()?.to_le_bytes();
        let length = u32::try_from(count).ok()?.to_le_bytes();
        for (bit, byte) in offset.iter().chain(length.iter().take(3)).enumerate() {
            if *byte != 0 {
                delta[mark] |= 1 << bit;
                delta.push(*byte);
            }
        }
        at += count;
    }
    Some(())
}

/// A size, seven bits a byte, the low ones first.
fn size(delta: &mut Vec<u8>, mut rest: usize) {
    loop {
        let low = u8::try_from(rest & 0x7f).unwrap_or(0);
        rest >>= 7;
        if rest == 0 {
            delta.push(low);
            return;
        }
        delta.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What git does with a delta.
    fn patched(old: &[u8], delta: &[u8]) -> Vec<u8> {
        let mut rest = delta.iter().copied();
        let mut number = || {
            let (mut value, mut shift) = (0_usize, 0);
            for byte in rest.by_ref() {
                value |= usize::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            value
        };
        assert_eq!(number(), old.len());
        let size = number();
        let mut new = Vec::new();
        while let Some(op) = rest.next() {
            if op & 0x80 == 0 {
                new.extend(rest.by_ref().take(usize::from(op)));
                continue;
            }
            let mut value = [0_usize; 7];
            for (bit, slot) in value.iter_mut().enumerate() {
                if op & (1 << bit) != 0 {
                    *slot = usize::from(rest.next().unwrap());
                }
            }
            let number = |bytes: &[usize]| bytes.iter().rev().fold(0, |high, low| (high << 8) | low);
            let (at, count) = (number(&value[..4]), number(&value[4..]));
            new.extend_from_slice(&old[at..at + count]);
        }
        assert_eq!(new.len(), size);
        new
    }

    fn span(old_start: u32, old_lines: u32, new_start: u32, new_lines: u32) -> Span {
        Span { old_start, old_lines, new_start, new_lines }
    }

    #[test]
    fn a_delta_gives_the_new_content_back() {
        let line = |n: u32| format!("{n}: {}\n", "x".repeat(50));
        let text = |range: std::ops::Range<u32>| range.map(line).collect::<String>();
        let old = text(0..500_000) + "no end";
        let long = "y".repeat(300) + "\n";
        let table = [
            (text(1..500_000) + "no end", vec![span(1, 1, 1, 0)]),
            (long.clone() + &old, vec![span(1, 0, 1, 1)]),
            (
                text(0..10) + &long + &text(12..400_000) + &text(400_001..500_000) + "no end",
                vec![span(11, 2, 11, 1), span(400_001, 1, 400_000, 0)],
            ),
            (text(0..500_000) + "an end\n", vec![span(500_001, 1, 500_001, 1)]),
            (text(0..500_000), vec![span(500_001, 1, 500_001, 0)]),
        ];
        for (new, spans) in table {
            let delta = between(old.as_bytes(), new.as_bytes(), &spans).unwrap();
            assert!(delta.len() < 500, "{}", delta.len());
            assert!(patched(old.as_bytes(), &delta) == new.as_bytes(), "{spans:?}");
        }
    }

    #[test]
    fn one_place_is_found() {
        let old = "same ".repeat(20_000);
        let new = |middle: &str| "same ".repeat(200) + middle + &"same ".repeat(19_800);
        for new in [
            old.clone(),
            new("x"),
            new(&"long ".repeat(99)),
            "same ".repeat(1_800),
            old.clone() + "end",
            "s".to_owned() + &old,
        ] {
            let delta = one_place(old.as_bytes(), new.as_bytes()).unwrap();
            assert!(delta.len() < 600 && patched(old.as_bytes(), &delta) == new.as_bytes());
        }
        assert_eq!(one_place(b"abc", b"xyz"), None);
        assert_eq!(patched(b"abc", &one_place(b"abc", b"").unwrap()), b"");
    }

    #[test]
    fn what_does_not_fit_or_not_pay_gives_none() {
        for (old, new, spans) in [
            ("a\nb\n", "a\nc\n", vec![]),
            ("a\nb\n", "c\nb\n", vec![span(2, 1, 2, 1)]),
            ("a\n", "a\nb\n", vec![span(9, 0, 2, 1)]),
            ("a\nb\n", "a\ncccccccccccc\n", vec![span(2, 1, 2, 1)]),
            ("", "a\n", vec![span(1, 0, 1, 1)]),
        ] {
            assert_eq!(between(old.as_bytes(), new.as_bytes(), &spans), None, "{old:?} {new:?}");
        }
    }
}
