//! Which macros may lead to the number of a line.
//!
//! `__LINE__` itself, each macro whose text names one that leads there, and each macro that may paste (`##`) such a name
//! together. Names are compared by hash: two names with one hash only make more lines sensitive, never fewer.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use super::flow::{Call, Flow, Reach};
use super::lex::{Refused, is_blank, is_word};

/// The hash of an identifier or a number.
pub type Word = u64;

/// A set of words; the words are hashes already.
pub type Words = HashSet<Word, BuildHasherDefault<Already>>;

/// Takes a [`Word`] as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Already(u64);

impl Hasher for Already {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// The hash of a word.
#[inline]
pub fn word(text: &[u8]) -> Word {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut hash = text.len() as u64;
    let mut chunks = text.chunks_exact(8);
    for chunk in &mut chunks {
        let value = chunk.try_into().map_or(0, u64::from_le_bytes);
        hash = (hash.rotate_left(5) ^ value).wrapping_mul(FACTOR);
    }
    let rest = chunks.remainder().iter().fold(0, |rest, byte| (rest << 8) | u64::from(*byte));
    hash = (hash.rotate_left(5) ^ rest).wrapping_mul(FACTOR);
    hash ^ (hash >> 29)
}

/// What a `##` joins.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// A word of the macro's own text.
    Fixed(String),
    /// A parameter.
    Any,
}

/// A `#define`, as far as it is of use here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Macro {
    name: String,
    /// Words in its text, parameters left out.
    uses: Vec<Word>,
    /// Runs of words that are joined.
    pastes: Vec<Vec<Piece>>,
    /// Its text opens a parenthesis that it does not close.
    opens: bool,
    /// Calls in its text.
    pub(super) calls: Vec<Call>,
    /// Words in its text that call nothing, or it is not clear with what.
    pub(super) loose: Vec<Word>,
}

impl Macro {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn uses(&self) -> &[Word] {
        &self.uses
    }

    pub(super) fn pastes_words(&self) -> bool {
        !self.pastes.is_empty()
    }
}

impl Macro {
    /// The macro of an option `-D`, given without it: `NAME`, `NAME=TEXT`.
    ///
    /// # Errors
    /// When it is not understood.
    pub fn of_option(text: &str) -> Result<Self, Refused> {
        let (name, value) = text.split_once('=').unwrap_or((text, "1"));
        define(format!("{name} {value}").as_bytes())
    }
}

/// Reads what stands behind `#define`, without comments and in one line.
pub(super) fn define(text: &[u8]) -> Result<Macro, Refused> {
    let skip = |at: usize| at + text[at..].iter().take_while(|byte| is_blank(**byte)).count();
    let to = |at: usize| at + text[at..].iter().take_while(|byte| is_word(**byte)).count();
    let utf8 = |from: usize, to: usize| std::str::from_utf8(&text[from..to]).map_err(|_| Refused::Macro);
    let from = skip(0);
    let mut at = to(from);
    let odd = |byte: u8| byte >= 0x80 || matches!(byte, b'$' | b'\\');
    if at == from || text[from].is_ascii_digit() || text.get(at).copied().is_some_and(odd) {
        return Err(Refused::Macro);
    }
    let mut made = Macro { name: utf8(from, at)?.to_owned(), ..Macro::default() };
    let mut parameters: HashSet<&[u8]> = [b"__VA_ARGS__".as_slice(), b"__VA_OPT__"].into();
    if text.get(at) == Some(&b'(') {
        let close = text[at..].iter().position(|byte| *byte == b')').ok_or(Refused::Macro)? + at;
        for parameter in text[at + 1..close].split(|byte| *byte == b',') {
            let parameter = parameter.trim_ascii();
            let parameter = parameter.strip_suffix(b"...").unwrap_or(parameter).trim_ascii();
            if !parameter.iter().all(|byte| is_word(*byte)) {
                return Err(Refused::Macro);
            }
            parameters.insert(parameter);
        }
        at = close + 1;
    }
    let mut run: Vec<Piece> = Vec::new();
    let (mut joined, mut before, mut open) = (false, 0, 0_u32);
    let mut calls = Calls::default();
    while at < text.len() {
        let byte = text[at];
        if is_blank(byte) {
            at += 1;
            continue;
        }
        if byte == b'#' && text.get(at + 1) == Some(&b'#') {
            joined = true;
            at += 2;
            continue;
        }
        if byte == b'%' && text.get(at + 1) == Some(&b':') {
            return Err(Refused::Digraph);
        }
        if !joined {
            finish(&mut run, &mut made.pastes);
        } else if run.is_empty() && before == b')' {
            // Behind `__VA_OPT__(...)`.
            run.push(Piece::Any);
        }
        (joined, before) = (false, byte);
        if is_word(byte) {
            let end = to(at);
            let piece = &text[at..end];
            if parameters.contains(piece) {
                run.push(Piece::Any);
                calls.parameter(&mut made);
            } else {
                made.uses.push(word(piece));
                calls.word(&mut made, word(piece));
                run.push(Piece::Fixed(utf8(at, end)?.to_owned()));
            }
            at = end;
        } else {
            finish(&mut run, &mut made.pastes);
            match byte {
                b'(' => {
                    open += 1;
                    calls.open();
                }
                b')' => {
                    open = open.saturating_sub(1);
                    calls.close(&mut made);
                }
                _ => calls.other(&mut made),
            }
            at = if matches!(byte, b'"' | b'\'') { skip_literal(text, at) } else { at + 1 };
        }
    }
    made.opens = open > 0;
    calls.end(&mut made);
    finish(&mut run, &mut made.pastes);
    made.uses.sort_unstable();
    made.uses.dedup();
    Ok(made)
}

/// The calls of a text, while it is read.
#[derive(Default)]
struct Calls {
    before: Option<Word>,
    /// Those that are open.
    open: Vec<Option<Call>>,
}

impl Calls {
    fn word(&mut self, made: &mut Macro, it: Word) {
        made.loose.extend(self.before.replace(it));
        self.open.iter_mut().flatten().for_each(|call| call.words.push(it));
    }

    fn parameter(&mut self, made: &mut Macro) {
        self.other(made);
        self.open.iter_mut().flatten().for_each(|call| call.passes = true);
    }

    fn open(&mut self) {
        self.open.push(self.before.take().map(|name| Call { name, words: Vec::new(), passes: false }));
    }

    fn close(&mut self, made: &mut Macro) {
        self.other(made);
        made.calls.extend(self.open.pop().flatten());
    }

    fn other(&mut self, made: &mut Macro) {
        made.loose.extend(self.before.take());
    }

    fn end(mut self, made: &mut Macro) {
        self.other(made);
        made.loose.extend(self.open.into_iter().flatten().map(|call| call.name));
    }
}

fn finish(run: &mut Vec<Piece>, pastes: &mut Vec<Vec<Piece>>) {
    let run = std::mem::take(run);
    if run.len() > 1 {
        pastes.push(run);
    }
}

fn skip_literal(text: &[u8], from: usize) -> usize {
    let mut at = from + 1;
    while at < text.len() && text[at] != text[from] {
        at += if text[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

/// The macros of some inputs that may lead to the number of a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sensitive {
    words: Words,
    /// Macros that may open a parenthesis.
    opens: Words,
}

impl Sensitive {
    /// Whether this word may expand to the number of a line.
    #[inline]
    pub fn has(&self, it: Word) -> bool {
        self.words.contains(&it)
    }

    /// Whether this word may expand to a parenthesis that it does not close.
    #[inline]
    pub(super) fn opens(&self, it: Word) -> bool {
        self.opens.contains(&it)
    }

    /// How many names are sensitive.
    pub fn count(&self) -> usize {
        self.words.len()
    }
}

/// Which macros of a compile may lead to the number of a line, from all macros of all its inputs (those of the command
/// line too), from a test whether a word stands anywhere in these inputs, and from their calls; without these a macro may be
/// called with anything.
pub fn leads_to_line(macros: &[&Macro], is_word: &dyn Fn(Word) -> bool, flow: Option<&Flow>) -> Sensitive {
    let opening: Vec<&str> = macros.iter().filter(|it| it.opens).map(|it| it.name()).collect();
    let mut search = Search::of(macros, is_word, flow);
    Sensitive {
        words: search.leads_to(&["__LINE__", "__builtin_LINE"]),
        opens: if opening.is_empty() { Words::default() } else { search.leads_to(&opening) },
    }
}

/// Finds the macros that may lead to a name.
struct Search<'a> {
    is_word: &'a dyn Fn(Word) -> bool,
    users: HashMap<Word, Vec<&'a Macro>, BuildHasherDefault<Already>>,
    pasting: Vec<&'a Macro>,
    reach: Option<Reach<'a>>,
    /// Names that a paste may make, of macros whose arguments matter.
    made: Words,
}

impl<'a> Search<'a> {
    fn of(macros: &[&'a Macro], is_word: &'a dyn Fn(Word) -> bool, flow: Option<&'a Flow>) -> Self {
        let mut users: HashMap<Word, Vec<&Macro>, BuildHasherDefault<Already>> = HashMap::default();
        for it in macros {
            it.uses.iter().for_each(|used| users.entry(*used).or_default().push(it));
        }
        let pasting: Vec<&Macro> = macros.iter().filter(|it| !it.pastes.is_empty()).copied().collect();
        let reach = flow.map(|flow| Reach::of(macros, flow));
        let mut search = Self { is_word, users, pasting, reach, made: Words::default() };
        // What may be called by a name that is made may be called with anything: until nothing more is made.
        let handing_on: Vec<&str> =
            search.reach.as_ref().map(|reach| reach.handing_on(&search.pasting)).into_iter().flatten().collect();
        let candidates: Vec<(&str, Vec<&Macro>)> =
            handing_on.into_iter().map(|name| (name, search.coarse(name))).filter(|(_, by)| !by.is_empty()).collect();
        loop {
            let before = search.made.len();
            for (name, by) in &candidates {
                let it = word(name.as_bytes());
                if !search.made.contains(&it) && by.iter().any(|by| search.may_make(by, name)) {
                    search.made.insert(it);
                }
            }
            if search.made.len() == before {
                return search;
            }
        }
    }

    /// The macros that may make a name of any words.
    fn coarse(&self, name: &str) -> Vec<&'a Macro> {
        let mut target = Target::new(name, self.is_word);
        let may = |it: &&&Macro| it.pastes.iter().any(|run| target.may_come_of(run));
        self.pasting.iter().filter(may).copied().collect()
    }

    /// Whether a macro may make a name of the words that may be its arguments.
    fn may_make(&self, by: &Macro, name: &str) -> bool {
        let Some(words) = self.reach.as_ref().and_then(|reach| reach.arguments(&by.name, &self.made)) else {
            return true;
        };
        let is_word = |it: Word| words.contains(&it);
        let mut target = Target::new(name, &is_word);
        by.pastes.iter().any(|run| target.may_come_of(run))
    }

    /// The macros that may lead to one of these names, and the names.
    fn leads_to(&mut self, seeds: &[&'a str]) -> Words {
        let mut found: Words = seeds.iter().map(|seed| word(seed.as_bytes())).collect();
        let mut names: Vec<&str> = seeds.to_vec();
        let mut at = 0;
        while let Some(name) = names.get(at).copied() {
            at += 1;
            let by_use = self.users.get(&word(name.as_bytes())).into_iter().flatten().copied();
            let by_paste = self.coarse(name);
            let by_paste = by_paste.into_iter().filter(|by| !found.contains(&word(by.name.as_bytes())));
            let by_paste: Vec<&Macro> = by_paste.filter(|by| self.may_make(by, name)).collect();
            for it in by_use.chain(by_paste) {
                if found.insert(word(it.name.as_bytes())) {
                    names.push(&it.name);
                }
            }
        }
        found
    }
}

/// Most pieces, words of one letter counted as two, of which an argument of `##` is itself taken to be made.
const MAX_PIECES: u32 = 4;

/// Names longer than this are taken to come of any paste.
const MAX_NAME: usize = 120;

/// A name that may be pasted together.
struct Target<'a> {
    name: &'a [u8],
    whole: Word,
    is_word: &'a dyn Fn(Word) -> bool,
    /// For each part of the name whether it can be the argument of a `##`, once known.
    made: HashMap<(usize, usize), bool>,
}

impl<'a> Target<'a> {
    fn new(name: &'a str, is_word: &'a dyn Fn(Word) -> bool) -> Self {
        Self { name: name.as_bytes(), whole: word(name.as_bytes()), is_word, made: HashMap::new() }
    }

    /// Whether some part of a run, of two pieces or more, can be joined to this name. A name that is itself the argument
    /// does not count: it then stands where the macro is used.
    fn may_come_of(&mut self, run: &[Piece]) -> bool {
        let length = self.name.len();
        if length > MAX_NAME {
            return true;
        }
        // How much of the name the pieces so far may be: with one piece, and with more.
        let (mut one, mut more) = (vec![false; length + 1], vec![false; length + 1]);
        for piece in run {
            let (mut next_one, mut next_more) = (vec![false; length + 1], vec![false; length + 1]);
            for from in 0..=length {
                let (begins, goes_on) = (from == 0, one[from] || more[from]);
                if !begins && !goes_on {
                    continue;
                }
                let mut reach = |to: usize| {
                    next_one[to] |= begins;
                    next_more[to] |= goes_on;
                };
                match piece {
                    Piece::Fixed(text) => {
                        if self.name[from..].starts_with(text.as_bytes()) {
                            reach(from + text.len());
                        }
                    }
                    Piece::Any => {
                        // An argument may be empty.
                        reach(from);
                        for to in from + 1..=length {
                            if self.is_made(from, to) {
                                reach(to);
                            }
                        }
                    }
                }
            }
            (one, more) = (next_one, next_more);
            if more[length] {
                return true;
            }
        }
        false
    }

    /// Whether a part of the name can be the argument of a `##`.
    fn is_made(&mut self, from: usize, to: usize) -> bool {
        if let Some(known) = self.made.get(&(from, to)) {
            return *known;
        }
        let pieces = pieces(&self.name[from..], &|it| it != self.whole && (self.is_word)(it));
        for (length, cost) in pieces.iter().enumerate() {
            self.made.insert((from, from + length), cost.is_some());
        }
        pieces[to - from].is_some()
    }
}

/// Whether a name can be joined of a few words.
pub(super) fn is_joined(name: &[u8], is_word: &dyn Fn(Word) -> bool) -> bool {
    name.len() > MAX_NAME || pieces(name, is_word).last().is_some_and(Option::is_some)
}

/// For each beginning of a text the fewest words of which it is made, joined by pastes before; `None`: too many.
fn pieces(text: &[u8], is_word: &dyn Fn(Word) -> bool) -> Vec<Option<u32>> {
    let mut pieces: Vec<Option<u32>> = vec![None; text.len() + 1];
    pieces[0] = Some(0);
    for start in 0..text.len() {
        let Some(before) = pieces[start].filter(|before| *before < MAX_PIECES) else { continue };
        for end in start + 1..=text.len() {
            let cost = before + if end - start == 1 { 2 } else { 1 };
            if cost <= MAX_PIECES && pieces[end].is_none_or(|known| cost < known) && is_word(word(&text[start..end])) {
                pieces[end] = Some(cost);
            }
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::condition::Autoconf;
    use super::super::reduce::reduce;
    use super::*;

    fn sensitive(defines: &[&str], others: &[&str]) -> Vec<String> {
        let macros: Vec<Macro> = defines.iter().map(|text| define(text.as_bytes()).unwrap()).collect();
        let mut words: Words = others.iter().map(|it| word(it.as_bytes())).collect();
        words.extend(macros.iter().flat_map(|it| it.uses.iter().copied()));
        words.extend(macros.iter().map(|it| word(it.name.as_bytes())));
        let found = leads_to_line(&macros.iter().collect::<Vec<_>>(), &|it| words.contains(&it), None);
        macros.iter().filter(|it| found.has(word(it.name.as_bytes()))).map(|it| it.name.clone()).collect()
    }

    #[test]
    fn the_names_that_lead_to_a_line() {
        for (defines, others, want) in [
            (vec!["A __LINE__", "B A", "C(x) B x", "D 1", "E D"], vec![], vec!["A", "B", "C"]),
            (vec!["A B", "B A"], vec![], vec![]),
            // Parameters are no names, texts neither.
            (vec!["A(__LINE__) __LINE__", "B \"__LINE__\"", "C '__LINE__'", "D(x) #x"], vec![], vec![]),
            (vec!["A(x...) __LINE__ x", "B(a, ...) A(__VA_ARGS__)"], vec![], vec!["A", "B"]),
            (vec!["A __builtin_LINE()"], vec![], vec!["A"]),
            // Pasting: with the macro's own words, or with any two words of the sources.
            (vec!["WARN_ON __LINE__", "CALL(x) x##_ON(1)"], vec!["WARN"], vec!["WARN_ON", "CALL"]),
            (vec!["WARN_ON __LINE__", "CALL(x) x##_ON(1)"], vec!["other"], vec!["WARN_ON"]),
            (
                vec!["WARN_ON __LINE__", "PASTE(a, b) a##b", "USE(x) PASTE(x, 1)"],
                vec!["WARN", "_ON"],
                vec!["WARN_ON", "PASTE", "USE"],
            ),
            (vec!["WARN_ON __LINE__", "PASTE(a, b) a ## b"], vec!["WA", "RN", "_ON"], vec!["WARN_ON", "PASTE"]),
            (vec!["WARN_ON __LINE__", "PASTE(a, b) a##b"], vec!["_O", "N"], vec!["WARN_ON"]),
            (vec!["X __##LINE##__"], vec![], vec!["X"]),
            (vec!["AB __LINE__", "P(x) A##x##B"], vec![], vec!["AB", "P"]),
            (vec!["AB __LINE__", "P(x...) __VA_OPT__(A)##B"], vec![], vec!["AB", "P"]),
            // The comma of `, ## args` joins no words.
            (vec!["A(x...) f(1, ##x)"], vec!["__LINE__"], vec![]),
        ] {
            assert_eq!(sensitive(&defines, &others), want, "{defines:?}");
        }
    }

    #[test]
    fn what_is_pasted_are_the_arguments_of_a_macro() {
        let sensitive = |text: &str| {
            let reduced = reduce(text.as_bytes(), &Autoconf::unknown()).unwrap();
            let mut flow = Flow::default();
            flow.take(&reduced.marks);
            let macros: Vec<&Macro> = reduced.macros().iter().collect();
            let found = leads_to_line(&macros, &|it| reduced.words().contains(&it), Some(&flow));
            found.has(word(b"CAT"))
        };
        let head = "#define WARN_ON __LINE__\n#define CAT(a, b) a##b\nint WARN, _ON;\n";
        for (text, want) in [
            ("", false),
            ("CAT(a, b);\n", false),
            ("CAT(WARN, _ON);\n", true),
            ("CAT(x, f(WARN, g(_ON)));\n", true),
            ("CAT(WARN, x); CAT(y, _ON);\n", true),
            ("CAT(a, b); f(WARN, _ON);\n", false),
            // Called with what is not seen.
            ("#define ALSO CAT\n", true),
            ("f(CAT);\n", true),
            ("CAT\n", true),
            ("#if A\nCAT(a,\n#else\nCAT(b,\n#endif\nc)\n", true),
            ("CAT(\n#include \"a.h\"\n)\n", true),
            ("#ifdef CAT\n#undef CAT\n#endif\n", false),
            ("#if CAT(1, 2)\n#endif\n", true),
            ("CAT\n#ifdef CAT\n#endif\n(1)\n", true),
            // Handed on.
            ("#define CAT2(a, b) CAT(a, b)\nCAT2(WARN, _ON);\n", true),
            // Which argument goes where is not looked at.
            ("#define CAT2(a, b) CAT(1, b)\nCAT2(WARN, _ON);\n", true),
            ("#define CAT2(a, b) f(a) CAT(c, d)\nCAT2(WARN, _ON);\n", false),
            ("#define CAT2(a, b) CAT(WARN, b)\nCAT2(x, _ON);\n", true),
            ("#define CAT2(a...) CAT(a)\n#define CAT3 CAT2\nCAT3(a, b);\n", true),
            ("#define CAT2(...) CAT(__VA_ARGS__)\nCAT2(WARN, _ON);\n", true),
            // Expanded before.
            ("#define A WARN\n#define CAT2(a, b) CAT(a, b)\nCAT2(A, _ON);\n", true),
            ("#define A(x) B x\n#define B WARN\n#define CAT2(a, b) CAT(a, b)\nCAT2(A(1), _ON);\n", true),
            ("#define AB WARN\n#define CAT2(a, b) CAT(a, b)\nCAT2(CAT(A, B), _ON);\n", true),
            ("CAT(CAT(WA, RN), _ON);\nint WA, RN;\n", true),
            // Called by a name that is made.
            ("#define CAT2(a, b) CAT(a, b)\n#define OTHER(x) x##2\nOTHER(CAT)(WARN, _ON);\n", true),
            ("#define K2(a, b) CAT(a, b)\n#define OTHER(x) x##2\nOTHER(K)(WARN, _ON);\n", true),
            ("#define K2(a, b) CAT(a, b)\n#define OTHER(x) x##3\nOTHER(K)(WARN, _ON);\n", false),
        ] {
            assert_eq!(sensitive(&format!("{head}{text}")), want, "{text}");
        }
    }

    #[test]
    fn definitions_that_are_refused() {
        for text in ["", "1", "(x)", "A$B 1", "\u{e4} 1", "A\u{e4} 1", "A(x", "A x %:%: y"] {
            assert!(define(text.as_bytes()).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_gives_an_answer(text in "([AB]|x|##|#|[(),.\"' \\\\]){0,20}|.{0,30}") {
            if let Ok(made) = define(text.as_bytes()) {
                leads_to_line(&[&made], &|_| true, None);
            }
        }
    }
}
