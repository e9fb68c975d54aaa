//! Where the logical lines, words, literals and comments of a C source (or an assembler source for the C preprocessor)
//! begin and end.
//!
//! This is what translation phases 1 to 3 need and no more: no token becomes a value of its own. A place where two readings
//! are possible (a line continued inside a word, a raw string) refuses the whole text.

use thiserror::Error;

/// Why a text is not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// A carriage return or another control byte, or a byte order mark.
    #[error("it holds a control byte or a byte order mark")]
    ControlByte,
    /// `%:` at the start of a line, or in a macro.
    #[error("it uses digraphs")]
    Digraph,
    /// A line that goes on (`\` at its end) inside a word or another token, or with blanks behind the `\`.
    #[error("a line goes on inside a token, or blanks follow its backslash")]
    Spliced,
    /// A comment without an end.
    #[error("a comment has no end")]
    OpenComment,
    /// `R"..."`: its end is found by other rules.
    #[error("it holds a raw string")]
    RawString,
    /// `#endif` without `#if`, `#else` after `#else`, words behind an `#endif` that would be left out...
    #[error("its conditions are not well formed")]
    Conditions,
    /// Conditions of C23, which not every compiler knows.
    #[error("it uses #elifdef")]
    ElifDef,
    /// `#line`, or a line marker.
    #[error("it sets line numbers")]
    LineMarker,
    /// `#pragma once`, `#import`: whether the file is read again depends on bytes that a reduced text leaves out.
    #[error("it asks to be read once")]
    Once,
    /// `__DATE__`, `__TIME__`, `__TIMESTAMP__`: it depends on more than the text.
    #[error("it asks for the time")]
    Time,
    /// A column of the source as a value.
    #[error("it asks for columns")]
    Column,
    /// `1'000`: a number with separators, or one that a literal follows.
    #[error("a quote follows a number")]
    Separator,
    /// `__has_include` and its like: it names files where comments would stand elsewhere.
    #[error("it asks whether a file is there")]
    HasInclude,
    /// The name of a file with a `\`.
    #[error("it names a file with a backslash")]
    FileName,
    /// A macro whose name or parameters are not plain.
    #[error("a macro's definition is not understood")]
    Macro,
}

/// One physical line of a logical line, as far as it holds code.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    /// Where the physical line begins (or the one in which a comment that goes on ends).
    pub(super) from: usize,
    /// The end of the last token or kept comment; `from` if there is none.
    pub(super) end: usize,
    /// Number of the physical line, from 1.
    pub(super) line: u32,
    /// Whether the line goes on, and if so whether blanks or comments stand before the `\`.
    pub(super) splice: Option<bool>,
}

/// A logical line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Logical<'a> {
    /// Where it begins.
    pub(super) from: usize,
    /// Where the next one begins.
    pub(super) to: usize,
    /// The `#` that makes it a directive.
    pub(super) hash: Option<usize>,
    /// Number of its first physical line, from 1.
    pub(super) line: u32,
    /// It holds something of which a compiler may warn even where it is not compiled.
    pub(super) noted: bool,
    /// It ends with a comment that may stand for a fall through.
    pub(super) falls: bool,
    /// Its physical lines; those that lie within comments have none.
    pub(super) segments: &'a [Segment],
}

/// What a scan tells.
pub(super) trait Sink {
    /// An identifier or a number.
    fn word(&mut self, from: usize, to: usize, line: u32);
    /// Another byte of code: punctuation, a literal's first byte.
    fn byte(&mut self, byte: u8, at: usize, line: u32);
    /// A logical line has ended.
    fn end(&mut self, line: &Logical<'_>) -> Result<(), Refused>;
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Plain,
    Blank,
    Newline,
    Word,
    Digit,
    Slash,
    Quote,
    Backslash,
    High,
}

#[expect(clippy::cast_possible_truncation, reason = "it is below 256")]
const CLASS: [Class; 256] = {
    let mut class = [Class::Plain; 256];
    let mut byte = 0;
    while byte < 256 {
        class[byte] = match byte as u8 {
            b' ' | b'\t' | 0x0b | 0x0c => Class::Blank,
            b'\n' => Class::Newline,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => Class::Word,
            b'0'..=b'9' => Class::Digit,
            b'/' => Class::Slash,
            b'"' | b'\'' => Class::Quote,
            b'\\' => Class::Backslash,
            0x80.. => Class::High,
            _ => Class::Plain,
        };
        byte += 1;
    }
    class
};

/// Whether this byte can be part of an identifier or a number.
pub(super) fn is_word(byte: u8) -> bool {
    matches!(CLASS[usize::from(byte)], Class::Word | Class::Digit)
}

/// Blanks as the preprocessor has them, newlines left out.
pub(super) fn is_blank(byte: u8) -> bool {
    CLASS[usize::from(byte)] == Class::Blank
}

/// Refuses bytes that no source should hold: then they can stand for something else in a reduced text.
pub(super) fn no_control_bytes(text: &[u8]) -> Result<(), Refused> {
    let bad =
        text.iter().fold(false, |bad, &byte| bad | ((byte < 0x20) & !matches!(byte, b'\t' | b'\n' | 0x0b | 0x0c)));
    if bad || text.starts_with(b"\xef\xbb\xbf") { Err(Refused::ControlByte) } else { Ok(()) }
}

/// The newline that this backslash joins with the next line, if it does; blanks may stand between.
fn splice(text: &[u8], backslash: usize) -> Option<usize> {
    let mut at = backslash + 1;
    while text.get(at).copied().is_some_and(is_blank) {
        at += 1;
    }
    (text.get(at) == Some(&b'\n')).then_some(at)
}

struct Comment {
    to: usize,
    newlines: u32,
    /// A compiler may warn of it, wherever it stands.
    noted: bool,
    /// It may stand for a fall through, or talk to a checker.
    kept: bool,
}

/// Words in comments that compilers and checkers read.
fn talks(text: &[u8]) -> bool {
    let begins = |at: usize, word: &[u8]| text.get(at..at + word.len()).is_some_and(|it| it.eq_ignore_ascii_case(word));
    text.iter().enumerate().any(|(at, byte)| match byte | 0x20 {
        b'f' => begins(at, b"fall"),
        b'n' => begins(at, b"notreached"),
        b'a' => begins(at, b"argsused"),
        b'l' => begins(at, b"lint ") || begins(at, b"lint:") || begins(at, b"lint-"),
        _ => false,
    })
}

fn block_comment(text: &[u8], from: usize) -> Result<Comment, Refused> {
    let mut at = from + 2;
    let mut newlines = 0;
    let mut noted = false;
    loop {
        match text.get(at) {
            None => return Err(Refused::OpenComment),
            Some(b'*') if text.get(at + 1) == Some(&b'/') => break,
            Some(b'/') if text.get(at + 1) == Some(&b'*') => noted = true,
            Some(b'\n') => newlines += 1,
            Some(b'\\') => {
                if let Some(end) = splice(text, at)
                    && text[at - 1] == b'*'
                    && matches!(text.get(end + 1), Some(b'/' | b'\\'))
                {
                    return Err(Refused::Spliced);
                }
            }
            Some(b'?') if text.get(at + 1) == Some(&b'?') => noted = true,
            Some(0x80..) => noted = true,
            Some(_) => {}
        }
        at += 1;
    }
    let kept = noted || talks(&text[from..at]);
    Ok(Comment { to: at + 2, newlines, noted, kept })
}

fn line_comment(text: &[u8], from: usize) -> Comment {
    let mut at = from + 2;
    let mut newlines = 0;
    let mut noted = false;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'\n' => break,
            b'\\' => {
                noted = true;
                if let Some(end) = splice(text, at) {
                    newlines += 1;
                    at = end;
                }
            }
            b'?' if text.get(at + 1) == Some(&b'?') => noted = true,
            0x80.. => noted = true,
            _ => {}
        }
        at += 1;
    }
    let kept = noted || talks(&text[from..at]);
    Comment { to: at, newlines, noted, kept }
}

/// Where a literal ends, how many newlines it holds and whether its quote is closed; without one it takes the whole line,
/// as with the compilers.
fn literal(text: &[u8], from: usize) -> Result<(usize, u32, bool), Refused> {
    let mut at = from + 1;
    let mut newlines = 0;
    while let Some(&byte) = text.get(at) {
        if byte == text[from] {
            return Ok((at + 1, newlines, true));
        }
        match byte {
            b'\n' => break,
            b'\\' => match splice(text, at) {
                Some(end) => {
                    newlines += 1;
                    at = end;
                }
                // An escaped byte; where the escape itself is followed by a continued line, nobody should guess.
                None if text.get(at + 1) == Some(&b'\\') && splice(text, at + 1).is_some() => {
                    return Err(Refused::Spliced);
                }
                None => at += 1,
            },
            _ => {}
        }
        at += 1;
    }
    Ok((at.min(text.len()), newlines, false))
}

/// Refuses a continued line between two bytes that could belong to one token.
fn between(before: Option<u8>, after: Option<u8>) -> Result<(), Refused> {
    let (Some(before), Some(after)) = (before, after) else {
        // A backslash at the very end of the text.
        return if after.is_none() { Err(Refused::Spliced) } else { Ok(()) };
    };
    let word = |byte: u8| is_word(byte) || byte >= 0x80 || byte == b'$' || byte == b'.';
    let joined = before == b'\\'
        || (word(before) && (word(after) || matches!(after, b'"' | b'\'' | b'\\')))
        || (matches!(before, b'/' | b'#' | b'%' | b'<' | b'>' | b':') && !is_blank(after) && after != b'\n');
    if joined { Err(Refused::Spliced) } else { Ok(()) }
}

struct Scan<'a> {
    text: &'a [u8],
    at: usize,
    line: u32,
    segments: Vec<Segment>,
    /// The directive may name a file in `<>`: quotes and slashes mean nothing there.
    names_file: bool,
}

/// Reads the whole text.
pub(super) fn scan<S: Sink>(text: &[u8], sink: &mut S) -> Result<(), Refused> {
    let mut scan = Scan { text, at: 0, line: 1, segments: Vec::new(), names_file: false };
    while scan.at < text.len() {
        scan.logical(sink)?;
    }
    Ok(())
}

impl Scan<'_> {
    #[inline]
    fn logical<S: Sink>(&mut self, sink: &mut S) -> Result<(), Refused> {
        let text = self.text;
        let (from, line) = (self.at, self.line);
        self.segments.clear();
        self.names_file = false;
        let (mut first, mut hash, mut noted, mut falls) = (None, None, false, false);
        let mut segment = Segment { from, end: from, line, splice: None };
        let mut after_hash = false;
        while let Some(&byte) = text.get(self.at) {
            let at = self.at;
            match CLASS[usize::from(byte)] {
                Class::Blank => {
                    self.at += 1;
                    continue;
                }
                Class::Newline => {
                    self.at += 1;
                    self.line += 1;
                    break;
                }
                Class::Word | Class::Digit => {
                    let number = CLASS[usize::from(byte)] == Class::Digit;
                    let mut to = at + 1;
                    while text.get(to).is_some_and(|&it| is_word(it) || (number && it == b'.')) {
                        to += 1;
                    }
                    if after_hash {
                        after_hash = false;
                        self.names_file = matches!(&text[at..to], b"include" | b"include_next" | b"import" | b"embed");
                    }
                    if number && text.get(to) == Some(&b'\'') {
                        return Err(Refused::Separator);
                    }
                    sink.word(at, to, self.line);
                    self.at = to;
                }
                Class::Slash if text.get(at + 1) == Some(&b'*') || text.get(at + 1) == Some(&b'/') => {
                    let comment = if text[at + 1] == b'*' { block_comment(text, at)? } else { line_comment(text, at) };
                    self.at = comment.to;
                    self.line += comment.newlines;
                    noted |= comment.noted;
                    if comment.kept {
                        segment.end = comment.to;
                        falls = true;
                    }
                    continue;
                }
                Class::Quote => {
                    let before = text[..at].iter().rev().take_while(|it| is_word(**it)).count();
                    if byte == b'"' && matches!(&text[at - before..at], b"R" | b"LR" | b"uR" | b"UR" | b"u8R") {
                        return Err(Refused::RawString);
                    }
                    sink.byte(byte, at, self.line);
                    let (to, newlines, closed) = literal(text, at)?;
                    if self.names_file && text[at..to].contains(&b'\\') {
                        return Err(Refused::FileName);
                    }
                    let odd = |pair: &[u8]| pair[0] >= 0x80 || pair == b"??";
                    noted |= !closed || text[at..to].windows(2).any(odd);
                    self.at = to;
                    self.line += newlines;
                }
                Class::Backslash => {
                    if let Some(newline) = splice(text, at) {
                        between(at.checked_sub(1).map(|it| text[it]), text.get(newline + 1).copied())?;
                        if newline > at + 1 {
                            return Err(Refused::Spliced);
                        }
                        segment.splice = Some(segment.end < at);
                        self.segments.push(segment);
                        self.at = newline + 1;
                        self.line += 1;
                        segment = Segment { from: self.at, end: self.at, line: self.line, splice: None };
                        continue;
                    }
                    sink.byte(byte, at, self.line);
                    self.at += 1;
                }
                Class::Plain | Class::Slash | Class::High => {
                    if first.is_none() {
                        if byte == b'#' {
                            hash = Some(at);
                            after_hash = true;
                        } else if byte == b'%' && text.get(at + 1) == Some(&b':') {
                            return Err(Refused::Digraph);
                        }
                    }
                    noted |= byte >= 0x80 || (byte == b'?' && text.get(at + 1) == Some(&b'?'));
                    sink.byte(byte, at, self.line);
                    self.at += 1;
                    if byte == b'<' && self.names_file {
                        self.names_file = false;
                        let rest = text[at..].iter().position(|it| matches!(it, b'>' | b'\n' | b'\\'));
                        match rest {
                            Some(to) if text[at + to] == b'>' => self.at = at + to + 1,
                            Some(to) if text[at + to] == b'\\' => return Err(Refused::FileName),
                            Some(_) | None => {}
                        }
                    }
                }
            }
            // A token: what stands before it on this line, comments too, is kept as it is.
            first = first.or(Some(at));
            falls = false;
            segment.end = self.at;
        }
        self.segments.push(segment);
        let logical = Logical { from, to: self.at, hash, line, noted, falls, segments: &self.segments };
        sink.end(&logical)
    }
}

/// The text of a logical line without comments (a blank for each) and without the joints of continued lines.
pub(super) fn clean(text: &[u8], into: &mut Vec<u8>) {
    into.clear();
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'/' if text.get(at + 1) == Some(&b'*') => {
                into.push(b' ');
                at = block_comment(text, at).map_or(text.len(), |comment| comment.to);
                continue;
            }
            b'/' if text.get(at + 1) == Some(&b'/') => {
                into.push(b' ');
                at = line_comment(text, at).to;
                continue;
            }
            b'\\' => {
                if let Some(newline) = splice(text, at) {
                    at = newline + 1;
                    continue;
                }
                into.push(byte);
            }
            b'"' | b'\'' => {
                let to = literal(text, at).map_or(text.len(), |(to, ..)| to);
                into.extend_from_slice(&text[at..to]);
                at = to;
                continue;
            }
            b'\n' => {}
            _ => into.push(byte),
        }
        at += 1;
    }
}
