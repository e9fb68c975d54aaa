//! Which macros may lead to the number of a line.
//!
//! `__LINE__` itself, each macro whose text names one that leads there, and each macro that may paste (`##`) such a name
//! together. Names are compared by hash: two names with one hash only make more lines sensitive, never fewer.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

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
}

impl Macro {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
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
            } else {
                made.uses.push(word(piece));
                run.push(Piece::Fixed(utf8(at, end)?.to_owned()));
            }
            at = end;
        } else {
            finish(&mut run, &mut made.pastes);
            match byte {
                b'(' => open += 1,
                b')' => open = open.saturating_sub(1),
                _ => {}
            }
            at = if matches!(byte, b'"' | b'\'') { skip_literal(text, at) } else { at + 1 };
        }
    }
    made.opens = open > 0;
    finish(&mut run, &mut made.pastes);
    made.uses.sort_unstable();
    made.uses.dedup();
    Ok(made)
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
/// line too) and from a test whether a word stands anywhere in these inputs.
pub fn leads_to_line(macros: &[&Macro], is_word: &dyn Fn(Word) -> bool) -> Sensitive {
    let opening: Vec<&str> = macros.iter().filter(|it| it.opens).map(|it| it.name()).collect();
    Sensitive {
        words: leads_to(&["__LINE__", "__builtin_LINE"], macros, is_word),
        opens: if opening.is_empty() { Words::default() } else { leads_to(&opening, macros, is_word) },
    }
}

/// Which macros may lead to one of these names, and the names.
fn leads_to(seeds: &[&str], macros: &[&Macro], is_word: &dyn Fn(Word) -> bool) -> Words {
    let mut users: HashMap<Word, Vec<&Macro>, BuildHasherDefault<Already>> = HashMap::default();
    for it in macros {
        it.uses.iter().for_each(|used| users.entry(*used).or_default().push(it));
    }
    let mut pasting: Vec<&Macro> = macros.iter().filter(|it| !it.pastes.is_empty()).copied().collect();
    let mut found: Words = seeds.iter().map(|seed| word(seed.as_bytes())).collect();
    let mut names: Vec<&str> = seeds.to_vec();
    let mut at = 0;
    while let Some(name) = names.get(at).copied() {
        at += 1;
        let mut add = |it: &&'_ Macro| found.insert(word(it.name.as_bytes()));
        let by_use = users.remove(&word(name.as_bytes())).unwrap_or_default();
        names.extend(by_use.into_iter().filter(&mut add).map(|it| it.name.as_str()));
        let mut target = Target::new(name, is_word);
        pasting.retain(|it| {
            let leads = it.pastes.iter().any(|run| target.may_come_of(run));
            if leads && add(it) {
                names.push(&it.name);
            }
            !leads
        });
    }
    found
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

    /// Whether a part of the name can be the argument of a `##`: a word of the sources, or a few of them joined before.
    fn is_made(&mut self, from: usize, to: usize) -> bool {
        if let Some(known) = self.made.get(&(from, to)) {
            return *known;
        }
        // The fewest pieces of which each beginning of the part is made.
        let text = &self.name[from..];
        let mut pieces: Vec<Option<u32>> = vec![None; text.len() + 1];
        pieces[0] = Some(0);
        for start in 0..text.len() {
            let Some(before) = pieces[start].filter(|before| *before < MAX_PIECES) else { continue };
            for end in start + 1..=text.len() {
                let cost = before + if end - start == 1 { 2 } else { 1 };
                let better = cost <= MAX_PIECES && pieces[end].is_none_or(|known| cost < known);
                if better {
                    let it = word(&text[start..end]);
                    if it != self.whole && (self.is_word)(it) {
                        pieces[end] = Some(cost);
                    }
                }
            }
        }
        for (length, cost) in pieces.iter().enumerate() {
            self.made.insert((from, from + length), cost.is_some());
        }
        pieces[to - from].is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sensitive(defines: &[&str], others: &[&str]) -> Vec<String> {
        let macros: Vec<Macro> = defines.iter().map(|text| define(text.as_bytes()).unwrap()).collect();
        let mut words: Words = others.iter().map(|it| word(it.as_bytes())).collect();
        words.extend(macros.iter().flat_map(|it| it.uses.iter().copied()));
        words.extend(macros.iter().map(|it| word(it.name.as_bytes())));
        let found = leads_to_line(&macros.iter().collect::<Vec<_>>(), &|it| words.contains(&it));
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
    fn definitions_that_are_refused() {
        for text in ["", "1", "(x)", "A$B 1", "\u{e4} 1", "A\u{e4} 1", "A(x", "A x %:%: y"] {
            assert!(define(text.as_bytes()).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_gives_an_answer(text in "([AB]|x|##|#|[(),.\"' \\\\]){0,20}|.{0,30}") {
            if let Ok(made) = define(text.as_bytes()) {
                leads_to_line(&[&made], &|_| true);
            }
        }
    }
}
