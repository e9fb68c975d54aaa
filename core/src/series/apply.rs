//! Applies the change of one file to its content.
//!
//! The default is exact context, at any offset, as `git apply` does: hunks in order, each searched outward from where it
//! is expected; a hunk that begins at line 1 must match at the top, one with less context after than before must match
//! at the end. With fuzz, lines of context are left out at both ends as GNU patch(1) does, and that is reported.

use super::{Content, FileDiff, Hunk, HunkLine, Span};

/// Largest content that a binary change may give, in bytes.
const MAX_BINARY_BYTES: u64 = 256 << 20;
/// At most this many comparisons of lines are spent to find the place most like a hunk that does not apply.
const NEAREST_EFFORT: usize = 4_000_000;

/// A change that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The content after; `None`: the file is deleted.
    pub content: Option<Vec<u8>>,
    /// What lines were replaced, in order; empty for binary changes.
    pub spans: Vec<Span>,
    /// Hunks (from 1) that needed fuzz, and how much.
    pub fuzzed: Vec<(u32, u32)>,
    /// How many hunks were found at another line than expected.
    pub offsets: u32,
}

/// A change that does not apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplyError {
    /// The hunk, from 1; 0: the file as a whole.
    pub hunk: u32,
    /// What is wrong, one line.
    pub message: String,
    /// The line (from 1) where the file is most like the hunk, and what differs there.
    pub nearest: Option<(u32, String)>,
    /// The change is in the file already.
    pub already_applied: bool,
}

impl ApplyError {
    fn whole(message: impl Into<String>) -> Self {
        Self { hunk: 0, message: message.into(), nearest: None, already_applied: false }
    }
}

/// Applies `diff` to the content of its old path (`None`: there is no such file); `reverse` undoes it.
///
/// # Errors
/// When it does not apply, with the place that is most like it. Nothing is ever applied in part.
pub fn apply(old: Option<&[u8]>, diff: &FileDiff, fuzz: u32, reverse: bool) -> Result<Applied, ApplyError> {
    let (before, after) = if reverse { (&diff.new_path, &diff.old_path) } else { (&diff.old_path, &diff.new_path) };
    let name = before.as_deref().or(after.as_deref()).unwrap_or_default();
    let content = match (before, old) {
        (Some(_), None) => return Err(ApplyError::whole(format!("{name}: there is no such file"))),
        (None, Some(content)) => {
            let already_applied = !reverse && is_applied(content, diff);
            return Err(ApplyError {
                already_applied,
                ..ApplyError::whole(format!("{name}: the file exists already"))
            });
        }
        (Some(_), Some(content)) => content,
        (None, None) => &[],
    };
    let applied = match &diff.content {
        Content::Text(hunks) => apply_text(content, hunks, fuzz, reverse)
            .map_err(|error| ApplyError { already_applied: !reverse && is_applied(content, diff), ..error })?,
        Content::Binary(binary) => {
            let half = if reverse { binary.backward.as_ref() } else { Some(&binary.forward) };
            let half =
                half.ok_or_else(|| ApplyError::whole(format!("{name}: the binary change cannot be reversed")))?;
            let data =
                half.data(content, MAX_BINARY_BYTES).map_err(|error| ApplyError::whole(format!("{name}: {error}")))?;
            Applied { content: Some(data), spans: Vec::new(), fuzzed: Vec::new(), offsets: 0 }
        }
        Content::BinaryWithoutData => {
            let message = format!(
                "{name}: the patch says that a binary file differs but does not hold its data; make it with 'git diff --binary'"
            );
            return Err(ApplyError::whole(message));
        }
    };
    if after.is_some() {
        return Ok(applied);
    }
    let left = applied.content.as_deref().unwrap_or_default();
    if left.is_empty() {
        Ok(Applied { content: None, ..applied })
    } else {
        let message = format!("{name}: the patch deletes the file, but {} bytes would be left", left.len());
        Err(ApplyError::whole(message))
    }
}

/// Whether the change can be undone here, so that it is there already.
fn is_applied(content: &[u8], diff: &FileDiff) -> bool {
    match &diff.content {
        Content::Text(hunks) => !hunks.is_empty() && apply_text(content, hunks, 0, true).is_ok(),
        Content::Binary(binary) => binary.forward.data(&[], MAX_BINARY_BYTES).is_ok_and(|data| data == content),
        Content::BinaryWithoutData => false,
    }
}

/// One line of a hunk, with the side of the change that is undone or done already chosen.
#[derive(Clone, Copy)]
enum Line<'a> {
    Context(&'a [u8]),
    Removed(&'a [u8]),
    Added(&'a [u8]),
}

fn lines_of<'a>(hunk: &'a Hunk, reverse: bool) -> Vec<Line<'a>> {
    let line = |line: &'a HunkLine| match (line, reverse) {
        (HunkLine::Context(text), _) => Line::Context(text),
        (HunkLine::Removed(text), false) | (HunkLine::Added(text), true) => Line::Removed(text),
        (HunkLine::Added(text), false) | (HunkLine::Removed(text), true) => Line::Added(text),
    };
    hunk.lines.iter().map(line).collect()
}

/// The text, cut into lines only as far as it is looked at.
struct Text<'a> {
    bytes: &'a [u8],
    /// Where each line begins; one more entry for the end.
    starts: Vec<usize>,
}

impl<'a> Text<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let mut starts = Vec::with_capacity(bytes.len() / 24 + 2);
        starts.push(0);
        let mut from = 0;
        while let Some(at) = bytes[from..].iter().position(|byte| *byte == b'\n') {
            from += at + 1;
            starts.push(from);
        }
        if from < bytes.len() {
            starts.push(bytes.len());
        }
        Self { bytes, starts }
    }

    fn count(&self) -> usize {
        self.starts.len() - 1
    }

    fn line(&self, index: usize) -> &'a [u8] {
        &self.bytes[self.starts[index]..self.starts[index + 1]]
    }

    fn matches(&self, at: usize, wanted: &[&[u8]]) -> bool {
        at + wanted.len() <= self.count()
            && wanted.iter().enumerate().all(|(offset, line)| self.line(at + offset) == *line)
    }
}

fn apply_text(content: &[u8], hunks: &[Hunk], fuzz: u32, reverse: bool) -> Result<Applied, ApplyError> {
    let text = Text::new(content);
    let mut out = Vec::with_capacity(content.len() + 1024);
    let mut spans: Vec<Span> = Vec::new();
    let (mut fuzzed, mut offsets) = (Vec::new(), 0);
    // Lines of the old text that are dealt with; how far the last hunk was from where it was expected; lines written.
    let (mut done, mut drift, mut written) = (0_usize, 0_i64, 0_usize);
    for (number, hunk) in (1_u32..).zip(hunks) {
        let lines = lines_of(hunk, reverse);
        let start = if reverse { hunk.new_start } else { hunk.old_start };
        let place = locate(&text, &lines, start, done, drift, fuzz, hunks.len() == 1);
        let Some(place) = place else { return Err(mismatch(&text, &lines, start, number, drift)) };
        if place.fuzz > 0 {
            fuzzed.push((number, place.fuzz));
        }
        let expected = expected_line(start, &lines);
        let moved = i64::try_from(place.line).unwrap_or(i64::MAX) - place.front_i64() - expected;
        if moved != 0 {
            offsets += 1;
        }
        drift = moved;
        out.extend_from_slice(&content[text.starts[done]..text.starts[place.line]]);
        written += place.line - done;
        done = place.line;
        for line in &lines[place.front..lines.len() - place.back] {
            match line {
                Line::Context(_) => {
                    // The file's own line, which fuzz may have let differ... but kept lines match exactly.
                    out.extend_from_slice(text.line(done));
                    (done, written) = (done + 1, written + 1);
                }
                Line::Removed(_) => {
                    grow(&mut spans, done, written, true);
                    done += 1;
                }
                Line::Added(added) => {
                    grow(&mut spans, done, written, false);
                    if out.last().is_some_and(|byte| *byte != b'\n') {
                        // The file's last line had no end and something follows it now.
                        out.push(b'\n');
                    }
                    out.extend_from_slice(added);
                    written += 1;
                }
            }
        }
    }
    out.extend_from_slice(&content[text.starts[done]..]);
    Ok(Applied { content: Some(out), spans, fuzzed, offsets })
}

/// Adds one removed or added line to the last span, or begins a new one.
fn grow(spans: &mut Vec<Span>, old: usize, new: usize, removed: bool) {
    let line = |index: usize| u32::try_from(index + 1).unwrap_or(u32::MAX);
    let (old, new) = (line(old), line(new));
    let joins = spans
        .last()
        .is_some_and(|span| span.old_start + span.old_lines == old && span.new_start + span.new_lines == new);
    if !joins {
        spans.push(Span { old_start: old, old_lines: 0, new_start: new, new_lines: 0 });
    }
    if let Some(span) = spans.last_mut() {
        if removed {
            span.old_lines += 1;
        } else {
            span.new_lines += 1;
        }
    }
}

/// Where a hunk goes.
struct Place {
    /// Index of the first line of the text that the kept part of the hunk covers.
    line: usize,
    /// Lines of the hunk left out at its front and back.
    front: usize,
    back: usize,
    fuzz: u32,
}

impl Place {
    fn front_i64(&self) -> i64 {
        i64::try_from(self.front).unwrap_or(0)
    }
}

/// The index of the line where the hunk says that it begins; a hunk without old lines names the line before it.
fn expected_line(start: u32, lines: &[Line<'_>]) -> i64 {
    let has_old = lines.iter().any(|line| !matches!(line, Line::Added(_)));
    if has_old { i64::from(start) - 1 } else { i64::from(start) }
}

fn locate(
    text: &Text<'_>,
    lines: &[Line<'_>],
    start: u32,
    done: usize,
    drift: i64,
    fuzz: u32,
    only: bool,
) -> Option<Place> {
    let is_context = |line: &&Line<'_>| matches!(line, Line::Context(_));
    let leading = lines.iter().take_while(is_context).count();
    let trailing = lines.iter().rev().take_while(is_context).count();
    let all_context = leading == lines.len();
    let expected = expected_line(start, lines);
    for tolerance in 0..=fuzz {
        let tolerance_lines = tolerance as usize;
        let widest = leading.max(trailing);
        if tolerance > 0 && (tolerance_lines > widest || all_context) {
            return None;
        }
        // As patch(1): the longer side loses first, so that both end up equally long.
        let front = (tolerance_lines + leading).saturating_sub(widest).min(leading);
        let back = (tolerance_lines + trailing).saturating_sub(widest).min(trailing);
        let kept = &lines[front..lines.len() - back];
        let old: Vec<&[u8]> = kept
            .iter()
            .filter_map(|line| match line {
                Line::Context(text) | Line::Removed(text) => Some(*text),
                Line::Added(_) => None,
            })
            .collect();
        // An anchor holds only as long as nothing was left out at that side.
        let at_start = tolerance == 0 && start <= 1 && leading < lines.len() && (leading <= trailing || start == 0);
        let at_end = tolerance == 0 && trailing < leading;
        let guess = expected.saturating_add(drift).saturating_add(i64::try_from(front).unwrap_or(0));
        let place = |line: usize| Place { line, front, back, fuzz: tolerance };
        if old.is_empty() && only && text.count() == 0 {
            return Some(place(0));
        }
        if let Some(line) = search(text, &old, guess, done, at_start && leading < 3, at_end) {
            return Some(place(line));
        }
    }
    None
}

/// The place nearest to `guess` where the lines match; forward first at equal distance, as git does.
fn search(text: &Text<'_>, old: &[&[u8]], guess: i64, done: usize, at_start: bool, at_end: bool) -> Option<usize> {
    let last = text.count().checked_sub(old.len())?;
    let fits = |line: usize| {
        line >= done && line <= last && (!at_start || line == 0) && (!at_end || line == last) && text.matches(line, old)
    };
    let guess = usize::try_from(guess.max(0)).unwrap_or(usize::MAX).clamp(done.min(last), last);
    if fits(guess) {
        return Some(guess);
    }
    if at_start {
        return fits(0).then_some(0);
    }
    if at_end {
        return fits(last).then_some(last);
    }
    let reach = (last - guess).max(guess.saturating_sub(done));
    (1..=reach).find_map(|distance| {
        let forward = guess.checked_add(distance).filter(|line| fits(*line));
        forward.or_else(|| guess.checked_sub(distance).filter(|line| fits(*line)))
    })
}

/// Describes a hunk that matches nowhere: where it would fit best and what differs there.
fn mismatch(text: &Text<'_>, lines: &[Line<'_>], start: u32, number: u32, drift: i64) -> ApplyError {
    let old: Vec<&[u8]> = lines
        .iter()
        .filter_map(|line| match line {
            Line::Context(text) | Line::Removed(text) => Some(*text),
            Line::Added(_) => None,
        })
        .collect();
    let message = format!("hunk {number} (line {start}) does not match");
    let mut error = ApplyError { hunk: number, message, nearest: None, already_applied: false };
    if old.is_empty() || text.count() == 0 {
        return error;
    }
    let guess = usize::try_from((expected_line(start, lines) + drift).max(0)).unwrap_or(0).min(text.count() - 1);
    let score = |at: usize| {
        let alike =
            |(offset, line): (usize, &&[u8])| at + offset < text.count() && blank_free(text.line(at + offset), line);
        old.iter().enumerate().filter(|(offset, line)| alike((*offset, line))).count()
    };
    let reach = (NEAREST_EFFORT / old.len()).min(text.count());
    let mut best = (score(guess), guess);
    for distance in 1..=reach {
        for at in [guess.checked_add(distance).filter(|at| *at < text.count()), guess.checked_sub(distance)]
            .into_iter()
            .flatten()
        {
            let found = score(at);
            if found > best.0 {
                best = (found, at);
            }
        }
    }
    if best.0 == 0 {
        return error;
    }
    let at = best.1;
    let differs = (0..old.len()).find(|offset| at + offset >= text.count() || text.line(at + offset) != old[*offset]);
    let offset = differs.unwrap_or(0);
    let shown = |bytes: &[u8]| {
        let line: String = String::from_utf8_lossy(bytes).trim_end_matches('\n').chars().take(120).collect();
        line.escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'")
    };
    let words = match (at + offset < text.count()).then(|| text.line(at + offset)) {
        None => format!("the file ends where the patch expects '{}'", shown(old[offset])),
        Some(found) if blank_free(found, old[offset]) => {
            format!("'{}' differs in blanks or line end from what the patch expects", shown(found))
        }
        Some(found) => format!("reads '{}' where the patch expects '{}'", shown(found), shown(old[offset])),
    };
    error.nearest = Some((u32::try_from(at + offset + 1).unwrap_or(u32::MAX), words));
    error
}

/// Equal but for blanks.
fn blank_free(a: &[u8], b: &[u8]) -> bool {
    a == b
        || a.iter().filter(|byte| !byte.is_ascii_whitespace()).eq(b.iter().filter(|byte| !byte.is_ascii_whitespace()))
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
