//! Which names may lead to the number of a line.
//!
//! All tokens of an expansion come from the tokens it began with and from the texts of macros named on the way; a `##` joins
//! such tokens to names, which may be macros again. So it is enough to look at the words of one call, with all that stands in
//! its parentheses, and at all macros that these words reach: the words of a whole kernel together could be joined to nearly any
//! name. Names are compared by hash: two names with one hash only make more lines count, never fewer.

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

/// A `#define`, as far as it is of use here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Macro {
    name: String,
    /// Words in its text, parameters left out.
    uses: Vec<Word>,
    /// It joins words.
    pastes: bool,
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

/// Longer names than any compiler has to know are refused.
const MAX_NAME: usize = 250;

/// Reads what stands behind `#define`, without comments and in one line.
pub(super) fn define(text: &[u8]) -> Result<Macro, Refused> {
    let skip = |at: usize| at + text[at..].iter().take_while(|byte| is_blank(**byte)).count();
    let to = |at: usize| at + text[at..].iter().take_while(|byte| is_word(**byte)).count();
    let utf8 = |from: usize, to: usize| std::str::from_utf8(&text[from..to]).map_err(|_| Refused::Macro);
    let from = skip(0);
    let mut at = to(from);
    let odd = |byte: u8| byte >= 0x80 || matches!(byte, b'$' | b'\\');
    if at == from || at - from > MAX_NAME || text[from].is_ascii_digit() || text.get(at).copied().is_some_and(odd) {
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
    // The token before is a word, or `##` follows one or something that may end with one.
    let (mut joined, mut before, mut open) = (false, 0, 0_u32);
    while at < text.len() {
        let byte = text[at];
        if is_blank(byte) {
            at += 1;
            continue;
        }
        if byte == b'#' && text.get(at + 1) == Some(&b'#') {
            joined = is_word(before) || before == b')';
            at += 2;
            continue;
        }
        if byte == b'%' && text.get(at + 1) == Some(&b':') {
            return Err(Refused::Digraph);
        }
        before = byte;
        if is_word(byte) {
            made.pastes |= joined;
            let end = to(at);
            let piece = &text[at..end];
            if !parameters.contains(piece) {
                made.uses.push(word(piece));
            }
            at = end;
        } else {
            match byte {
                b'(' => open += 1,
                b')' => open = open.saturating_sub(1),
                _ => {}
            }
            at = if matches!(byte, b'"' | b'\'') { skip_literal(text, at) } else { at + 1 };
        }
        joined = false;
    }
    made.opens = open > 0;
    made.uses.sort_unstable();
    made.uses.dedup();
    Ok(made)
}

fn skip_literal(text: &[u8], from: usize) -> usize {
    let mut at = from + 1;
    while at < text.len() && text[at] != text[from] {
        at += if text[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

const SEEDS: [&str; 2] = ["__LINE__", "__builtin_LINE"];

/// What some words may become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Become {
    /// The number of a line.
    pub line: bool,
    /// A parenthesis that they do not close.
    pub opens: bool,
}

/// The macros of a compile, by what they may lead to.
#[derive(Clone, Debug, Default)]
pub struct Sensitive {
    /// Words in the texts of each macro, all its definitions together.
    uses: ByWord<Vec<Word>>,
    /// Names that lead to a line, where nothing is joined.
    line: Words,
    /// Names that lead to a macro which joins words.
    pastes: Words,
    /// Names that lead to a macro which opens a parenthesis, where nothing is joined.
    opens: Words,
    /// The names of macros, and of what gives the line, by each beginning that is itself a word.
    beginnings: ByWord<Vec<Box<str>>>,
}

/// Equal ones say the same of all words that were there when either was made.
impl PartialEq for Sensitive {
    fn eq(&self, other: &Self) -> bool {
        // The beginnings follow from the names of the macros, and from words.
        self.line == other.line && self.pastes == other.pastes && self.opens == other.opens && self.uses == other.uses
    }
}

type ByWord<T> = HashMap<Word, T, BuildHasherDefault<Already>>;

impl Sensitive {
    /// From all macros of all inputs of the compile, those of the command line too, and a test whether a word stands anywhere
    /// in these inputs.
    pub fn of(macros: &[&Macro], is_word: &dyn Fn(Word) -> bool) -> Self {
        let mut made = Self::default();
        let mut users: ByWord<Vec<Word>> = HashMap::default();
        let mut names: HashSet<&str> = SEEDS.into();
        for it in macros {
            let name = word(it.name.as_bytes());
            names.insert(&it.name);
            made.uses.entry(name).or_default().extend(&it.uses);
            it.uses.iter().for_each(|used| users.entry(*used).or_default().push(name));
        }
        let named = |which: &dyn Fn(&Macro) -> bool| -> Vec<Word> {
            macros.iter().filter(|it| which(it)).map(|it| word(it.name.as_bytes())).collect()
        };
        for uses in made.uses.values_mut() {
            uses.sort_unstable();
            uses.dedup();
        }
        made.line = users_of(SEEDS.map(|seed| word(seed.as_bytes())).into(), &users);
        made.pastes = users_of(named(&|it| it.pastes), &users);
        made.opens = users_of(named(&|it| it.opens), &users);
        for name in names {
            for end in 1..name.len() {
                let beginning = word(&name.as_bytes()[..end]);
                if is_word(beginning) {
                    made.beginnings.entry(beginning).or_default().push(name.into());
                }
            }
        }
        made
    }

    /// Whether this word opens a parenthesis without a join.
    #[inline]
    pub(super) fn opens(&self, it: Word) -> bool {
        self.opens.contains(&it)
    }

    /// What these words may become when they are expanded together. It takes no more looks than `budget`, and counts them
    /// off; beyond that they may become anything.
    pub(super) fn become_of(&self, words: &[Word], budget: &mut u32) -> Become {
        let has = |set: &Words| words.iter().any(|it| set.contains(it));
        let found = Become { line: has(&self.line), opens: has(&self.opens) };
        if found.line || !has(&self.pastes) {
            return found;
        }
        let mut all: Words = words.iter().copied().collect();
        let mut open: Vec<Word> = words.to_vec();
        let mut found = found;
        while !open.is_empty() {
            // All that the macros name.
            let mut known = 0;
            while let Some(it) = open.get(known) {
                for used in self.uses.get(it).into_iter().flatten() {
                    if spend(budget) {
                        return Become { line: true, opens: true };
                    }
                    if all.insert(*used) {
                        open.push(*used);
                    }
                }
                known += 1;
            }
            // All that can be joined.
            open.clear();
            for name in all.iter().filter_map(|it| self.beginnings.get(it)).flatten() {
                let it = word(name.as_bytes());
                if spend(budget) {
                    return Become { line: true, opens: true };
                }
                if !all.contains(&it) && is_joined(name.as_bytes(), &all) {
                    open.push(it);
                    found.line |= self.line.contains(&it);
                    found.opens |= self.opens.contains(&it);
                }
            }
            if found.line {
                return found;
            }
            open.sort_unstable();
            open.dedup();
            all.extend(&open);
        }
        found
    }

    /// How many names lead to a line, where nothing is joined.
    pub fn count(&self) -> usize {
        self.line.len()
    }
}

/// Whether nothing is left.
fn spend(budget: &mut u32) -> bool {
    *budget = budget.saturating_sub(1);
    *budget == 0
}

/// Some names, and the macros that lead to them.
fn users_of(mut open: Vec<Word>, users: &ByWord<Vec<Word>>) -> Words {
    let mut found: Words = open.iter().copied().collect();
    while let Some(it) = open.pop() {
        open.extend(users.get(&it).into_iter().flatten().filter(|user| found.insert(**user)));
    }
    found
}

/// Whether a name is some words, one behind the other.
fn is_joined(name: &[u8], words: &Words) -> bool {
    let mut reached = vec![false; name.len() + 1];
    reached[0] = true;
    for start in 0..name.len() {
        for end in start + 1..=name.len() {
            if reached[start] && !reached[end] && words.contains(&word(&name[start..end])) {
                reached[end] = true;
            }
        }
    }
    reached[name.len()]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
                Sensitive::of(&[&made], &|_| true).become_of(&[word(b"A")], &mut 1000);
            }
        }
    }
}
