//! Reads the text of a patch: git diffs, plain unified diffs, and the headers in front of them.
//!
//! Sources of the format: the manual pages of git-diff ("Generating patch text with -p"), diff(1) and patch(1).

use thiserror::Error;

use super::binary::BinaryPatch;
use super::{Content, FileDiff, Hunk, HunkLine, Patch, Relation, header, path};
use crate::tree::FileMode;

/// A patch that cannot be read.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{}{message}", if *line == 0 { String::new() } else { format!("line {line}: ") })]
pub struct DiffError {
    /// Line of the text, from 1; 0: the text as a whole.
    pub line: u32,
    /// What is wrong.
    pub message: String,
}

/// Reads a patch file: headers (a mail's, quilt's, DEP-3's) and the changes. `source` names it in messages and gives
/// the subject where no header does.
///
/// # Errors
/// When it holds no change, or one that cannot be read.
pub fn parse_patch(text: &[u8], source: &str, strip: u32) -> Result<Patch, DiffError> {
    if text.contains(&0) {
        let line = lines(text).take_while(|line| !line.contains(&0)).count();
        return Err(error(line, "holds NUL bytes: this is not the text of a patch".to_owned()));
    }
    let files = parse(text, strip)?;
    if files.is_empty() {
        return Err(DiffError {
            line: 0,
            message: "holds no change ('diff --git' or '---' and '+++' lines)".to_owned(),
        });
    }
    let head = header::read(text);
    let stem = source.rsplit('/').next().unwrap_or(source);
    let stem = stem.strip_suffix(".patch").or_else(|| stem.strip_suffix(".diff")).unwrap_or(stem);
    Ok(Patch {
        subject: head.subject.unwrap_or_else(|| stem.to_owned()),
        author: head.author.unwrap_or_default(),
        date: head.date,
        upstream: header::upstream(&head.body),
        body: head.body,
        source: source.to_owned(),
        reverse: false,
        files,
    })
}

/// Reads all changes in a text; what stands before, between and after them is passed over.
///
/// # Errors
/// When a change is cut off or malformed, or names a path that it must not.
pub fn parse(text: &[u8], strip: u32) -> Result<Vec<FileDiff>, DiffError> {
    let mut reader = Reader { lines: lines(text).collect(), at: 0, strip };
    let mut files = Vec::new();
    while let Some(line) = reader.peek() {
        if line.starts_with(b"diff --git ") {
            files.push(reader.git_diff()?);
        } else if line.starts_with(b"--- ")
            && reader.lines.get(reader.at + 1).is_some_and(|next| next.starts_with(b"+++ "))
            && reader.lines.get(reader.at + 2).is_some_and(|next| next.starts_with(b"@@ -"))
        {
            files.push(reader.plain_diff()?);
        } else if line.starts_with(b"GIT binary patch") {
            return Err(reader.wrong("a binary change without its 'diff --git' line"));
        } else {
            reader.at += 1;
        }
    }
    Ok(files)
}

/// Where the first change of a text begins, in bytes; its length, where there is none.
pub(super) fn first_change(text: &[u8]) -> usize {
    let all: Vec<&[u8]> = lines(text).collect();
    let mut offset = 0;
    for (at, line) in all.iter().enumerate() {
        let plain = line.starts_with(b"--- ") && all.get(at + 1).is_some_and(|next| next.starts_with(b"+++ "));
        if line.starts_with(b"diff --git ") || plain || line.starts_with(b"Index: ") {
            return offset;
        }
        offset += line.len();
    }
    text.len()
}

/// The lines of a text, each with its line end.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|byte| *byte == b'\n')
}

fn error(index: usize, message: String) -> DiffError {
    DiffError { line: u32::try_from(index + 1).unwrap_or(u32::MAX), message }
}

struct Reader<'a> {
    lines: Vec<&'a [u8]>,
    at: usize,
    strip: u32,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<&'a [u8]> {
        self.lines.get(self.at).copied()
    }

    fn wrong(&self, message: impl Into<String>) -> DiffError {
        error(self.at, message.into())
    }

    /// A name from a header line, with the first components taken off; `None` for `/dev/null`.
    fn name(&self, text: &[u8], strip: u32) -> Result<Option<String>, DiffError> {
        let text = unquote(trim_end(text)).ok_or_else(|| self.wrong("a quoted path is malformed"))?;
        let text = String::from_utf8(text).map_err(|_| self.wrong("a path is not UTF-8"))?;
        if text == "/dev/null" {
            return Ok(None);
        }
        let mut rest = text.as_str();
        for _ in 0..strip {
            // An absolute path loses its first slash with the first component, as in patch(1): checked below.
            let Some((_, tail)) = rest.split_once('/') else {
                return Err(
                    self.wrong(format!("path '{}' has fewer than {strip} components to strip", text.escape_debug()))
                );
            };
            rest = tail;
        }
        if strip > 0 && text.starts_with('/') {
            return Err(self.wrong(format!("path '{}' is absolute: it leaves the tree", text.escape_debug())));
        }
        path::check(rest).map_err(|problem| self.wrong(problem.to_string()))?;
        Ok(Some(rest.to_owned()))
    }

    fn mode(&self, text: &[u8]) -> Result<FileMode, DiffError> {
        let text = String::from_utf8_lossy(trim_end(text)).into_owned();
        FileMode::from_octal(&text).ok_or_else(|| self.wrong(format!("'{}' is not a file mode", text.escape_debug())))
    }

    fn git_diff(&mut self) -> Result<FileDiff, DiffError> {
        let first = self.lines[self.at];
        let head_names = names_of_git_line(&first[b"diff --git ".len()..], self.strip);
        let mut diff = FileDiff {
            old_path: None,
            new_path: None,
            relation: Relation::Same,
            old_mode: None,
            new_mode: None,
            index: None,
            content: Content::Text(Vec::new()),
        };
        let (mut is_new, mut is_deleted) = (false, false);
        let mut named = false;
        let start = self.at;
        self.at += 1;
        while let Some(line) = self.peek() {
            let after = |prefix: &[u8]| line.strip_prefix(prefix);
            if let Some(mode) = after(b"old mode ") {
                diff.old_mode = Some(self.mode(mode)?);
            } else if let Some(mode) = after(b"new mode ") {
                diff.new_mode = Some(self.mode(mode)?);
            } else if let Some(mode) = after(b"new file mode ") {
                (is_new, diff.new_mode) = (true, Some(self.mode(mode)?));
            } else if let Some(mode) = after(b"deleted file mode ") {
                (is_deleted, diff.old_mode) = (true, Some(self.mode(mode)?));
            } else if let Some(name) = after(b"rename from ").or_else(|| after(b"rename old ")) {
                (diff.relation, diff.old_path, named) = (Relation::Rename, self.name(name, 0)?, true);
            } else if let Some(name) = after(b"rename to ").or_else(|| after(b"rename new ")) {
                diff.new_path = self.name(name, 0)?;
            } else if let Some(name) = after(b"copy from ") {
                (diff.relation, diff.old_path, named) = (Relation::Copy, self.name(name, 0)?, true);
            } else if let Some(name) = after(b"copy to ") {
                diff.new_path = self.name(name, 0)?;
            } else if let Some(index) = after(b"index ") {
                diff.index = index_of(index);
                if let Some(mode) = trim_end(index).split(|byte| *byte == b' ').nth(1) {
                    diff.old_mode = Some(self.mode(mode)?);
                }
            } else if after(b"similarity index ").is_none() && after(b"dissimilarity index ").is_none() {
                break;
            }
            self.at += 1;
        }
        if diff.relation != Relation::Same && (diff.old_path.is_none() || diff.new_path.is_none()) {
            return Err(self.wrong("a rename or copy that does not name both files"));
        }
        if !named {
            let (old, new) =
                head_names.ok_or_else(|| error(start, "the file names cannot be told apart".to_owned()))?;
            for name in [&old, &new] {
                path::check(name).map_err(|problem| error(start, problem.to_string()))?;
            }
            diff.old_path = (!is_new).then_some(old);
            diff.new_path = (!is_deleted).then_some(new);
        }
        match self.peek() {
            Some(line) if line.starts_with(b"--- ") => {
                let old = self.name(before_tab(&line[4..]), self.strip)?;
                self.at += 1;
                let Some(line) = self.peek().filter(|line| line.starts_with(b"+++ ")) else {
                    return Err(self.wrong("a '---' line without its '+++' line"));
                };
                let new = self.name(before_tab(&line[4..]), self.strip)?;
                self.at += 1;
                if diff.relation == Relation::Same {
                    // The names of these lines are not ambiguous, those of the first line may be.
                    (diff.old_path, diff.new_path) = (old.filter(|_| !is_new), new.filter(|_| !is_deleted));
                }
                diff.content = Content::Text(self.hunks()?);
            }
            Some(line) if line.starts_with(b"GIT binary patch") => {
                self.at += 1;
                diff.content = Content::Binary(self.binary()?);
            }
            Some(line) if line.starts_with(b"Binary files ") || line.starts_with(b"Files ") => {
                self.at += 1;
                diff.content = Content::BinaryWithoutData;
            }
            Some(_) | None => {}
        }
        if diff.old_path.is_none() && diff.new_path.is_none() {
            return Err(error(start, "a change that names no file".to_owned()));
        }
        Ok(diff)
    }

    fn plain_diff(&mut self) -> Result<FileDiff, DiffError> {
        let (old_line, new_line) = (&self.lines[self.at][4..], &self.lines[self.at + 1][4..]);
        let mut old = self.name(before_tab(old_line), self.strip)?.filter(|_| !is_epoch(old_line));
        let mut new = self.name(before_tab(new_line), self.strip)?.filter(|_| !is_epoch(new_line));
        let start = self.at;
        self.at += 2;
        let hunks = self.hunks()?;
        // A side is absent only if its one hunk says so too.
        let absent =
            |side: fn(&Hunk) -> u32, none: bool| none && hunks.len() == 1 && hunks.iter().all(|h| side(h) == 0);
        if old.is_none() && !absent(|hunk| hunk.old_start, true) {
            old.clone_from(&new);
        }
        if new.is_none() && !absent(|hunk| hunk.new_start, true) {
            new.clone_from(&old);
        }
        // `--- linux.orig/x` and `+++ linux/x`, or `x.orig` and `x`: the file is the one of the new side.
        if let (Some(before), Some(after)) = (&old, &new)
            && before != after
        {
            old = Some(after.clone());
        }
        if old.is_none() && new.is_none() {
            return Err(error(start, "a change that names no file".to_owned()));
        }
        Ok(FileDiff {
            old_path: old,
            new_path: new,
            relation: Relation::Same,
            old_mode: None,
            new_mode: None,
            index: None,
            content: Content::Text(hunks),
        })
    }

    fn hunks(&mut self) -> Result<Vec<Hunk>, DiffError> {
        let mut hunks = Vec::new();
        while let Some(line) = self.peek().filter(|line| line.starts_with(b"@@ -")) {
            let (head, section) = hunk_head(line).ok_or_else(|| self.wrong("a hunk's '@@' line is malformed"))?;
            let [old_start, mut old_left, new_start, mut new_left] = head;
            let start = self.at;
            self.at += 1;
            let mut body: Vec<HunkLine> = Vec::new();
            while old_left > 0 || new_left > 0 {
                let Some(line) = self.peek() else {
                    return Err(error(
                        start,
                        format!("the hunk is cut off: {old_left} old and {new_left} new lines are missing"),
                    ));
                };
                let (first, rest) = line.split_first().map_or((b' ', line), |(first, rest)| (*first, rest));
                let short = || error(start, "the hunk has more lines than its '@@' line says".to_owned());
                match first {
                    b' ' | b'\n' | b'\r' => {
                        old_left = old_left.checked_sub(1).ok_or_else(short)?;
                        new_left = new_left.checked_sub(1).ok_or_else(short)?;
                        // Some mailers strip the blank of an empty context line.
                        body.push(HunkLine::Context(if first == b' ' { rest } else { line }.to_vec()));
                    }
                    b'-' => {
                        old_left = old_left.checked_sub(1).ok_or_else(short)?;
                        body.push(HunkLine::Removed(rest.to_vec()));
                    }
                    b'+' => {
                        new_left = new_left.checked_sub(1).ok_or_else(short)?;
                        body.push(HunkLine::Added(rest.to_vec()));
                    }
                    b'\\' => no_newline(&mut body),
                    _ => {
                        return Err(self.wrong(format!(
                            "not a line of a hunk (the '@@' line announces {old_left} more old and {new_left} more new lines)"
                        )));
                    }
                }
                self.at += 1;
            }
            if self.peek().is_some_and(|line| line.starts_with(b"\\")) {
                no_newline(&mut body);
                self.at += 1;
            }
            // The text ended without a line end: the file's last line has one all the same.
            if let Some(HunkLine::Context(text) | HunkLine::Removed(text) | HunkLine::Added(text)) = body.last_mut()
                && self.at == self.lines.len()
                && self.lines.last().is_some_and(|line| !line.ends_with(b"\n") && !line.starts_with(b"\\"))
            {
                text.push(b'\n');
            }
            let section = String::from_utf8_lossy(section).into_owned();
            hunks.push(Hunk { old_start, new_start, section, lines: body });
        }
        Ok(hunks)
    }

    fn binary(&mut self) -> Result<BinaryPatch, DiffError> {
        let forward = super::binary::read_hunk(&self.lines, &mut self.at)
            .map_err(|message| self.wrong(message))?
            .ok_or_else(|| self.wrong("a binary change without data"))?;
        let backward = super::binary::read_hunk(&self.lines, &mut self.at).map_err(|message| self.wrong(message))?;
        Ok(BinaryPatch { forward, backward })
    }
}

/// Takes the line end off the last line: `\ No newline at end of file`.
fn no_newline(body: &mut [HunkLine]) {
    if let Some(HunkLine::Context(text) | HunkLine::Removed(text) | HunkLine::Added(text)) = body.last_mut()
        && text.last() == Some(&b'\n')
    {
        text.pop();
    }
}

fn trim_end(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |at| at + 1);
    &text[..end]
}

/// A name ends at a tab; a time may follow it.
fn before_tab(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == b'\t').next().map_or(text, trim_end)
}

/// The time that diff(1) gives to a file that is not there.
fn is_epoch(text: &[u8]) -> bool {
    text.split(|byte| *byte == b'\t')
        .nth(1)
        .is_some_and(|time| time.starts_with(b"1970-01-01 ") || time.starts_with(b"1969-12-31 "))
}

/// Undoes git's quoting of unusual names (`"a\tb\303\244"`).
fn unquote(text: &[u8]) -> Option<Vec<u8>> {
    let Some(inner) = text.strip_prefix(b"\"") else { return Some(text.to_vec()) };
    let inner = inner.strip_suffix(b"\"")?;
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner.iter().copied();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next()? {
            b'a' => 7,
            b'b' => 8,
            b't' => b'\t',
            b'n' => b'\n',
            b'v' => 11,
            b'f' => 12,
            b'r' => b'\r',
            quoted @ (b'"' | b'\\') => quoted,
            high @ b'0'..=b'3' => {
                let (mid, low) = (rest.next()?, rest.next()?);
                let digit = |byte: u8| (b'0'..=b'7').contains(&byte).then(|| byte - b'0');
                (digit(high)? << 6) | (digit(mid)? << 3) | digit(low)?
            }
            _ => return None,
        });
    }
    Some(bytes)
}

/// The two names of a `diff --git` line. Unquoted names may hold blanks, so they are taken apart only where both are the
/// same after stripping, or where there is one way to do it.
fn names_of_git_line(text: &[u8], strip: u32) -> Option<(String, String)> {
    let text = trim_end(text);
    let stripped = |name: &[u8]| -> Option<String> {
        let name = String::from_utf8(unquote(name)?).ok()?;
        let mut rest = name.as_str();
        for _ in 0..strip {
            rest = rest.split_once('/')?.1;
        }
        Some(rest.to_owned())
    };
    let mut one_way = None;
    let mut ways = 0;
    for (at, _) in text.iter().enumerate().filter(|(_, byte)| **byte == b' ') {
        let (old, new) = (&text[..at], &text[at + 1..]);
        let quoted = |name: &[u8]| name.starts_with(b"\"") == name.ends_with(b"\"");
        if !quoted(old) || !quoted(new) {
            continue;
        }
        if let (Some(old), Some(new)) = (stripped(old), stripped(new)) {
            if old == new {
                return Some((old, new));
            }
            ways += 1;
            one_way = Some((old, new));
        }
    }
    one_way.filter(|_| ways == 1)
}

fn index_of(text: &[u8]) -> Option<(String, String)> {
    let text = std::str::from_utf8(trim_end(text)).ok()?;
    let (old, new) = text.split(' ').next()?.split_once("..")?;
    let hex = |id: &str| id.len() >= 4 && id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    (hex(old) && hex(new)).then(|| (old.to_owned(), new.to_owned()))
}

/// `@@ -12,7 +12,8 @@ section`: the four numbers and the section.
fn hunk_head(line: &[u8]) -> Option<([u32; 4], &[u8])> {
    let text = trim_end(line).strip_prefix(b"@@ -")?;
    let end = text.windows(3).position(|window| window == b" @@")?;
    let section = text[end + 3..].strip_prefix(b" ").unwrap_or(&text[end + 3..]);
    let numbers = std::str::from_utf8(&text[..end]).ok()?;
    let (old, new) = numbers.split_once(" +")?;
    let range = |text: &str| -> Option<[u32; 2]> {
        let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        match text.split_once(',') {
            Some((start, count)) => Some([number(start)?, number(count)?]),
            None => Some([number(text)?, 1]),
        }
    };
    let ([old_start, old_count], [new_start, new_count]) = (range(old)?, range(new)?);
    Some(([old_start, old_count, new_start, new_count], section))
}

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;
