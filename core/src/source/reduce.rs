//! The reduced text of a source or header: what of it a compiler sees, under one configuration.
//!
//! A reduced text is itself a C text, and preprocessing it gives the tokens that preprocessing the whole text gives, but for
//! the values of `__LINE__`. So if the reduced texts of *all* inputs of a compile are the same before and after a change
//! (and the command, and which file each `#include` finds), the compiler gets the same tokens; with the numbers of
//! [`Reduced::with_lines`] also the same `__LINE__`s. `docs/adr/0012-reduced-text.md` has the argument.
//!
//! Left out are comments, blank lines, blanks at the end of lines, and the groups and directives of conditions that
//! [`Autoconf`] decides. All else is kept byte for byte, line breaks of continued lines too: a line that is kept has the
//! tokens, the columns and the neighbours on its line that it had. What a compiler may read or warn of in a left-out part
//! is kept, as it is or as a marker, a line that begins with a byte that no source holds:
//!
//! - a comment that may mean a fall through (-Wimplicit-fallthrough reads it), and that a directive follows it: the
//!   compiler then forgets it;
//! - a comment with another one's start, with a continued line or with letters beyond ASCII (-Wcomment, -Wbidi-chars);
//! - a left-out line with a quote that is not closed, letters beyond ASCII, or an unknown directive;
//! - a left-out line that is indented less than the code around it (-Wmisleading-indentation reads such lines);
//! - a left-out directive before a line that begins with `(`: a macro is not called across a directive, not even across
//!   one that says nothing.

use std::collections::BTreeSet;

use super::condition::Autoconf;
use super::lex::{self, Logical, Refused, Sink, clean, is_blank};
use super::lines::{self, Kind, Mark, What};
use super::macros::{self, Macro, Sensitive, Words, word};
use super::symbols::config_symbols;
use crate::digest::Digest;

/// The byte with which a marker begins.
const MARKER: u8 = 1;

/// The reduced text of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reduced {
    pub(super) text: Vec<u8>,
    /// For each line of the text the number that it had, from 1; 0 for markers.
    pub(super) lines: Vec<u32>,
    /// What of its tokens says which lines may be expanded to their number.
    pub(super) marks: Vec<Mark>,
    macros: Vec<Macro>,
    words: Words,
}

impl Reduced {
    /// The text, without line numbers.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The macros that it defines or may define.
    pub fn macros(&self) -> &[Macro] {
        &self.macros
    }

    /// The words that stand in it, and in the comments of no part of it.
    pub fn words(&self) -> &Words {
        &self.words
    }

    /// The options that it still names; what they are has to be part of a key.
    pub fn symbols(&self) -> BTreeSet<String> {
        config_symbols(&self.text)
    }

    /// The text with the number of each line that may be expanded to one.
    pub fn with_lines(&self, sensitive: &Sensitive) -> Vec<u8> {
        lines::number(self, sensitive)
    }

    /// The digest of [`Self::with_lines`].
    pub fn digest(&self, sensitive: &Sensitive) -> Digest {
        Digest::of(&self.with_lines(sensitive))
    }
}

/// Reduces a text under a configuration.
///
/// # Errors
///
/// [`Refused`]: the text holds something whose meaning is not plain from the text.
pub fn reduce(text: &[u8], config: &Autoconf) -> Result<Reduced, Refused> {
    lex::no_control_bytes(text)?;
    let mut reducer = Reducer {
        text,
        config,
        out: Reduced { text: Vec::with_capacity(text.len() / 2), ..Reduced::default() },
        frames: Vec::new(),
        blocks: Blocks::default(),
        removed: Vec::new(),
        falls: false,
        dropped: false,
        first_mark: 0,
        in_code: true,
        begun: 0,
        misleading: None,
        buffer: Vec::new(),
        trouble: None,
    };
    lex::scan(text, &mut reducer)?;
    if let Some(refused) = reducer.trouble {
        return Err(refused);
    }
    if !text.is_empty() && !text.ends_with(b"\n") {
        // -Wnewline-eof
        reducer.marker(b"no newline");
    }
    if reducer.frames.is_empty() { Ok(reducer.out) } else { Err(Refused::Conditions) }
}

/// An `#if` that is not closed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    /// Not decided: everything stays. Holds how many blocks were open at its start.
    Open(usize),
    /// Decided: this group is compiled.
    Taken,
    /// Decided: no group so far was compiled.
    Waiting,
    /// Decided: an earlier group was compiled.
    Done,
    /// Within a group that is not compiled.
    Dead,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    group: Group,
    has_else: bool,
}

struct Reducer<'a> {
    text: &'a [u8],
    config: &'a Autoconf,
    out: Reduced,
    frames: Vec<Frame>,
    blocks: Blocks,
    /// What was left out since the last line of code.
    removed: Vec<(usize, usize)>,
    /// The last that was kept is a comment that may mean a fall through.
    falls: bool,
    /// A directive was left out since the last line with a token.
    dropped: bool,
    /// The first mark of the logical line.
    first_mark: usize,
    /// The logical line is no directive.
    in_code: bool,
    /// The last physical line of code that began.
    begun: u32,
    /// The column of the line that is being read, where it begins further to the right than its block.
    misleading: Option<u32>,
    buffer: Vec<u8>,
    trouble: Option<Refused>,
}

/// For each `{` that is open the least column at which a line of its block begins.
///
/// A line of code can only be the misleading one of -Wmisleading-indentation if it begins further to the right than some
/// line of its block before it.
#[derive(Debug, Default)]
struct Blocks {
    least: Vec<u32>,
    top: Option<u32>,
    /// The column of the line being read, once known.
    column: u32,
    /// A `{` was the last token: its block has begun in this line only if another token follows.
    opened: bool,
    /// The braces do not match in all groups of some condition.
    tangled: bool,
}

impl Blocks {
    fn here(&mut self) {
        let column = self.column;
        match self.least.last_mut() {
            Some(least) => *least = (*least).min(column),
            None => self.top = Some(self.top.map_or(column, |least| least.min(column))),
        }
    }

    #[inline]
    fn token(&mut self, byte: u8) {
        if self.opened {
            self.opened = false;
            if byte != b'}' {
                self.here();
            }
        }
        match byte {
            b'{' => {
                self.least.push(u32::MAX);
                self.opened = true;
            }
            b'}' => {
                self.least.pop();
                self.here();
            }
            _ => {}
        }
    }

    /// The least column of the current block.
    fn least(&self) -> u32 {
        if self.tangled { 0 } else { self.least.last().copied().or(self.top).unwrap_or(u32::MAX) }
    }
}

/// The column at which the physical line that holds this place begins, tabs being 8 wide; `None`: the line is blank.
fn indentation(text: &[u8], at: usize) -> Option<u32> {
    let from = text[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    let mut column = 0_u32;
    for byte in &text[from..] {
        match byte {
            b'\t' => column = (column / 8).saturating_add(1).saturating_mul(8),
            b'\n' => return None,
            byte if is_blank(*byte) => column = column.saturating_add(1),
            _ => return Some(column),
        }
    }
    None
}

impl Reducer<'_> {
    fn is_dead(&self) -> bool {
        self.frames.last().is_some_and(|frame| !matches!(frame.group, Group::Open(_) | Group::Taken))
    }

    /// The first token of a physical line of code makes its column known.
    fn begin(&mut self, at: usize, line: u32) {
        if self.begun == line {
            return;
        }
        self.begun = line;
        let column = indentation(self.text, at).unwrap_or(0);
        self.blocks.column = column;
        self.misleading = (column > self.blocks.least()).then_some(column);
        self.blocks.here();
    }

    fn marker(&mut self, what: &[u8]) {
        self.out.text.push(MARKER);
        self.out.text.extend_from_slice(what);
        self.out.text.push(b'\n');
        self.out.lines.resize(self.out.lines.len() + 1 + what.iter().filter(|byte| **byte == b'\n').count(), 0);
    }

    fn keep(&mut self, line: &Logical<'_>) {
        if line.hash.is_none() {
            let removed = std::mem::take(&mut self.removed);
            if let Some(column) = self.misleading.take()
                && removed.iter().any(|(from, to)| is_left_of(&self.text[*from..*to], column))
            {
                self.marker(b"less indented");
            }
            match self.out.marks.get(self.first_mark).map(|mark| mark.what) {
                Some(What::Open) if std::mem::take(&mut self.dropped) => self.marker(b"a directive before ("),
                Some(_) => self.dropped = false,
                None => {}
            }
        } else {
            self.dropped = false;
        }
        for segment in line.segments {
            let text = &self.text[segment.from..segment.end];
            self.out.text.extend_from_slice(text);
            match segment.splice {
                Some(true) => self.out.text.extend_from_slice(b" \\"),
                Some(false) => self.out.text.push(b'\\'),
                None => {}
            }
            self.out.text.push(b'\n');
            // A comment over several lines may stand before the last token.
            let newlines = u32::try_from(text.iter().filter(|byte| **byte == b'\n').count()).unwrap_or(0);
            self.out.lines.extend((0..=newlines).map(|number| segment.line + number));
        }
        self.falls = line.falls;
    }

    /// Leaves out a line that is not compiled, or a directive that is decided.
    fn leave_out(&mut self, line: &Logical<'_>) {
        if line.noted {
            let text = self.text[line.from..line.to].to_vec();
            self.marker(&text);
        }
        self.removed.push((line.from, line.to));
    }

    fn drop_directive(&mut self, line: &Logical<'_>) {
        self.out.marks.truncate(self.first_mark);
        self.dropped = true;
        if std::mem::take(&mut self.falls) {
            self.marker(b"a directive");
        }
        self.leave_out(line);
    }

    fn directive(&mut self, line: &Logical<'_>, hash: usize) -> Result<(), Refused> {
        let mut buffer = std::mem::take(&mut self.buffer);
        clean(&self.text[hash + 1..line.to], &mut buffer);
        let done = self.read_directive(line, &buffer);
        self.buffer = buffer;
        done
    }

    fn read_directive(&mut self, line: &Logical<'_>, text: &[u8]) -> Result<(), Refused> {
        let text = text.trim_ascii();
        let (name, rest) = text.split_at(text.iter().take_while(|byte| lex::is_word(**byte)).count());
        let rest = rest.trim_ascii();
        match name {
            b"if" | b"ifdef" | b"ifndef" => self.begin_group(line, name, rest),
            b"elif" => self.next_group(line, Some(rest)),
            b"else" => self.next_group(line, None).and_then(|()| self.nothing_behind(rest)),
            b"endif" => self.end_group(line, rest),
            b"elifdef" | b"elifndef" => Err(Refused::ElifDef),
            _ if self.is_dead() => {
                let known: [&[u8]; 12] = [
                    b"",
                    b"define",
                    b"undef",
                    b"include",
                    b"include_next",
                    b"import",
                    b"pragma",
                    b"error",
                    b"warning",
                    b"ident",
                    b"line",
                    b"sccs",
                ];
                if !known.contains(&name) {
                    let text = self.text[line.from..line.to].to_vec();
                    self.marker(&text);
                }
                self.drop_directive(line);
                Ok(())
            }
            b"line" => Err(Refused::LineMarker),
            _ if name.first().is_some_and(u8::is_ascii_digit) => Err(Refused::LineMarker),
            b"import" => Err(Refused::Once),
            b"pragma" if rest.starts_with(b"once") => Err(Refused::Once),
            // It compares the times of files.
            b"pragma" if rest.starts_with(b"GCC dependency") => Err(Refused::Time),
            b"define" => {
                self.out.macros.push(macros::define(rest)?);
                // It is expanded where the macro is used.
                self.out.marks.truncate(self.first_mark);
                self.keep(line);
                Ok(())
            }
            b"include" | b"include_next" => {
                self.keep_directive(line, Kind::Include);
                Ok(())
            }
            b"undef" => {
                self.out.marks.truncate(self.first_mark);
                self.keep_directive(line, Kind::Other);
                Ok(())
            }
            b"" | b"pragma" | b"error" | b"warning" | b"ident" | b"sccs" | b"assert" | b"unassert" => {
                self.keep_directive(line, Kind::Other);
                Ok(())
            }
            // In assembler sources, a line like any other.
            _ => {
                self.out.marks.insert(self.first_mark, Mark { line: line.line, what: What::Other });
                self.keep(line);
                Ok(())
            }
        }
    }

    /// Keeps a directive whose tokens take no part in the code around it.
    fn keep_directive(&mut self, line: &Logical<'_>, kind: Kind) {
        let to = line.segments.last().map_or(line.line, |segment| segment.line);
        let named: Vec<Mark> = self.out.marks.drain(self.first_mark..).filter_map(Mark::in_directive).collect();
        self.out.marks.push(Mark { line: line.line, what: What::Directive { kind, to } });
        self.out.marks.extend(named);
        self.keep(line);
    }

    /// Words whose meaning is more than the text.
    fn refuse_word(&mut self, it: &[u8], behind: usize) {
        match it {
            b"__DATE__" | b"__TIME__" | b"__TIMESTAMP__" => self.trouble = Some(Refused::Time),
            b"__builtin_COLUMN" | b"__builtin_source_location" => self.trouble = Some(Refused::Column),
            b"_Pragma" => {
                let between = |byte: &u8| is_blank(*byte) || matches!(byte, b'(' | b'"' | b'L');
                let from = behind + self.text[behind..].iter().take_while(|byte| between(byte)).count();
                if self.text[from..].starts_with(b"once") {
                    self.trouble = Some(Refused::Once);
                }
            }
            _ if it.starts_with(b"__has_include") || it.starts_with(b"__has_embed") => {
                self.trouble = Some(Refused::HasInclude);
            }
            _ => {}
        }
    }

    /// Words behind a directive bring a warning: they are not left out.
    fn nothing_behind(&self, rest: &[u8]) -> Result<(), Refused> {
        let open = self.frames.last().is_none_or(|frame| matches!(frame.group, Group::Open(_)));
        if rest.is_empty() || open { Ok(()) } else { Err(Refused::Conditions) }
    }

    fn begin_group(&mut self, line: &Logical<'_>, name: &[u8], rest: &[u8]) -> Result<(), Refused> {
        if self.is_dead() {
            self.frames.push(Frame { group: Group::Dead, has_else: false });
            self.drop_directive(line);
            return Ok(());
        }
        let value = if name == b"if" {
            self.config.decide(rest)
        } else {
            let is_name = !rest.is_empty() && rest.iter().all(|byte| lex::is_word(*byte));
            let defined = if is_name { self.config.is_defined(rest) } else { None };
            defined.map(|defined| defined == (name == b"ifdef"))
        };
        let group = match value {
            None => Group::Open(self.blocks.least.len()),
            Some(true) => Group::Taken,
            Some(false) => Group::Waiting,
        };
        self.frames.push(Frame { group, has_else: false });
        match group {
            Group::Open(_) => {
                if name != b"if" {
                    // Its name is not expanded.
                    self.out.marks.truncate(self.first_mark);
                }
                self.keep_directive(line, Kind::If);
            }
            Group::Taken | Group::Waiting | Group::Done | Group::Dead => self.drop_directive(line),
        }
        Ok(())
    }

    /// `#elif` with its condition, or `#else`.
    fn next_group(&mut self, line: &Logical<'_>, condition: Option<&[u8]>) -> Result<(), Refused> {
        let blocks = self.blocks.least.len();
        let Some(frame) = self.frames.last_mut().filter(|frame| !frame.has_else) else {
            return Err(Refused::Conditions);
        };
        frame.has_else = condition.is_none();
        match frame.group {
            Group::Open(begun) => {
                self.blocks.tangled |= begun != blocks;
                self.keep_directive(line, Kind::Else);
                return Ok(());
            }
            Group::Taken | Group::Done => frame.group = Group::Done,
            Group::Dead => {}
            Group::Waiting => match condition.map(|condition| self.config.decide(condition)) {
                None | Some(Some(true)) => frame.group = Group::Taken,
                Some(Some(false)) => {}
                // The first group that is not decided: the others before it are gone.
                Some(None) => {
                    frame.group = Group::Open(blocks);
                    self.become_if(line, condition.unwrap_or_default());
                    return Ok(());
                }
            },
        }
        self.drop_directive(line);
        Ok(())
    }

    /// An `#elif` of which no group before it is left.
    fn become_if(&mut self, line: &Logical<'_>, condition: &[u8]) {
        self.out.text.extend_from_slice(b"#if ");
        self.out.text.extend_from_slice(condition);
        self.out.text.push(b'\n');
        self.out.lines.push(line.line);
        (self.falls, self.dropped) = (false, false);
        // It was read as what is not compiled.
        let to = line.segments.last().map_or(line.line, |segment| segment.line);
        self.out.marks.push(Mark { line: line.line, what: What::Directive { kind: Kind::If, to } });
        for it in condition.split(|byte| !lex::is_word(*byte)).filter(|it| !it.is_empty()) {
            self.refuse_word(it, line.to);
            self.out.words.insert(word(it));
            self.out.marks.push(Mark { line: line.line, what: What::Asked(word(it)) });
        }
        // Each of its lines has a number of its own.
        for number in line.line..to {
            self.marker(b"goes on");
            if let Some(last) = self.out.lines.last_mut() {
                *last = number + 1;
            }
        }
    }

    fn end_group(&mut self, line: &Logical<'_>, rest: &[u8]) -> Result<(), Refused> {
        self.nothing_behind(rest)?;
        let frame = self.frames.pop().ok_or(Refused::Conditions)?;
        match frame.group {
            Group::Open(begun) => {
                self.blocks.tangled |= begun != self.blocks.least.len();
                self.keep_directive(line, Kind::Endif);
            }
            Group::Taken | Group::Waiting | Group::Done | Group::Dead => self.drop_directive(line),
        }
        Ok(())
    }
}

/// Whether a line of this text begins left of a column.
fn is_left_of(text: &[u8], column: u32) -> bool {
    text.split(|byte| *byte == b'\n').any(|line| {
        let first = line.iter().position(|byte| !is_blank(*byte));
        first.and_then(|first| indentation(line, first)).is_some_and(|begins| begins < column)
    })
}

impl Sink for Reducer<'_> {
    #[inline]
    fn word(&mut self, from: usize, to: usize, line: u32) {
        if self.is_dead() {
            return;
        }
        let it = &self.text[from..to];
        if it.starts_with(b"_") {
            self.refuse_word(it, to);
        }
        let it = word(it);
        self.out.words.insert(it);
        self.out.marks.push(Mark { line, what: What::Word(it) });
        if self.in_code {
            self.begin(from, line);
            self.blocks.token(b'a');
        }
    }

    #[inline]
    fn byte(&mut self, byte: u8, at: usize, line: u32) {
        if byte == b'#' && self.text[..at].iter().rev().find(|it| !is_blank(**it)).is_none_or(|it| *it == b'\n') {
            self.in_code = false;
        }
        if self.is_dead() {
            return;
        }
        let what = match byte {
            b'(' => What::Open,
            b')' => What::Close,
            _ => What::Other,
        };
        self.out.marks.push(Mark { line, what });
        if self.in_code {
            self.begin(at, line);
            self.blocks.token(byte);
        }
    }

    fn end(&mut self, line: &Logical<'_>) -> Result<(), Refused> {
        self.in_code = true;
        if let Some(hash) = line.hash {
            self.directive(line, hash)?;
        } else if self.is_dead() {
            self.leave_out(line);
        } else if line.segments.iter().all(|segment| segment.end == segment.from) {
            self.removed.push((line.from, line.to));
        } else {
            self.keep(line);
        }
        self.first_mark = self.out.marks.len();
        Ok(())
    }
}

#[cfg(test)]
#[path = "reduce_tests.rs"]
mod tests;
