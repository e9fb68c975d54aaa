//! What the arguments of macros can be: words that stand in the parentheses behind the macro's name.
//!
//! A `##` joins arguments as they are written. Any two words of a kernel make many names, so it matters which words reach
//! which macro: those of its calls in the sources and in the texts of macros, and, where such a text hands its own arguments on, those of
//! that macro's calls. A macro whose name stands somewhere without a parenthesis behind it may be called with anything.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasherDefault;

use super::lines::{Kind, Mark, What};
use super::macros::{Already, Macro, Word, Words, is_joined, word};

type ByWord<T> = HashMap<Word, T, BuildHasherDefault<Already>>;

/// A call in the text of a macro.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) name: Word,
    /// Words in its parentheses, parameters left out.
    pub(super) words: Vec<Word>,
    /// A parameter of the macro is among its arguments.
    pub(super) passes: bool,
}

/// The calls that stand in sources.
#[derive(Clone, Debug, Default)]
pub struct Flow {
    /// All words in the parentheses behind a name.
    calls: ByWord<Words>,
    /// Names that also stand where nothing is called, or a call that is not understood.
    loose: Words,
}

impl Flow {
    /// Takes in the tokens of a text.
    pub(super) fn take(&mut self, marks: &[Mark]) {
        // Calls that are open: the name, where its words begin, and how many directives of conditions came before.
        let mut open: Vec<Option<(Word, usize, u32)>> = Vec::new();
        let mut words: Vec<Word> = Vec::new();
        let mut before: Option<Word> = None;
        let mut conditions = 0;
        for mark in marks {
            match mark.what {
                What::Open => {
                    open.push(before.take().map(|name| (name, words.len(), conditions)));
                    continue;
                }
                What::Word(it) => {
                    self.loose.extend(before.replace(it));
                    if !open.is_empty() {
                        words.push(it);
                    }
                    continue;
                }
                What::Directive { kind: Kind::Other, .. } => continue,
                What::Directive { .. } => conditions += 1,
                What::Asked(it) => drop(self.loose.insert(it)),
                What::Close => {
                    if let Some(Some((name, from, known))) = open.pop() {
                        self.calls.entry(name).or_default().extend(&words[from..]);
                        if known != conditions {
                            self.loose.insert(name);
                        }
                    }
                    if open.is_empty() {
                        words.clear();
                    }
                }
                What::Other => {}
            }
            self.loose.extend(before.take());
        }
        self.loose.extend(before);
        self.loose.extend(open.into_iter().flatten().map(|(name, ..)| name));
    }
}

/// What reaches the arguments of the macros of some inputs.
pub(super) struct Reach<'a> {
    flow: &'a Flow,
    by_name: ByWord<Vec<&'a Macro>>,
    callers: ByWord<Vec<(&'a Macro, &'a Call)>>,
    loose: Words,
}

impl<'a> Reach<'a> {
    pub(super) fn of(macros: &[&'a Macro], flow: &'a Flow) -> Self {
        let mut reach =
            Self { flow, by_name: HashMap::default(), callers: HashMap::default(), loose: flow.loose.clone() };
        for it in macros {
            reach.by_name.entry(word(it.name().as_bytes())).or_default().push(it);
            reach.loose.extend(&it.loose);
            for call in &it.calls {
                reach.callers.entry(call.name).or_default().push((it, call));
            }
        }
        reach
    }

    /// The macros whose arguments may become those of a macro that pastes.
    pub(super) fn handing_on(&self, pasting: &[&'a Macro]) -> HashSet<&'a str> {
        let mut found: HashSet<&str> = pasting.iter().map(|it| it.name()).collect();
        let mut open: Vec<&str> = found.iter().copied().collect();
        while let Some(name) = open.pop() {
            for (caller, call) in self.callers.get(&word(name.as_bytes())).into_iter().flatten() {
                if call.passes && found.insert(caller.name()) {
                    open.push(caller.name());
                }
            }
        }
        found
    }

    /// The words that may be or become arguments of a macro; `None`: any. `made` are names that a paste may make.
    pub(super) fn arguments(&self, name: &str, made: &Words) -> Option<Words> {
        let mut words = Words::default();
        let first = word(name.as_bytes());
        let mut seen: Words = [first].into_iter().collect();
        let mut open = vec![first];
        while let Some(it) = open.pop() {
            if self.loose.contains(&it) || made.contains(&it) {
                return None;
            }
            words.extend(self.flow.calls.get(&it).into_iter().flatten());
            for (caller, call) in self.callers.get(&it).into_iter().flatten() {
                words.extend(&call.words);
                let caller = word(caller.name().as_bytes());
                if call.passes && seen.insert(caller) {
                    open.push(caller);
                }
            }
        }
        // Arguments are expanded before a text hands them on; a paste among them may make the name of a macro.
        let mut open: Vec<Word> = words.iter().copied().collect();
        let mut pastes = false;
        loop {
            while let Some(it) = open.pop() {
                for it in self.by_name.get(&it).into_iter().flatten() {
                    pastes |= it.pastes_words();
                    for used in it.uses() {
                        if words.insert(*used) {
                            open.push(*used);
                        }
                    }
                }
            }
            if pastes {
                let made = |it: &&Word| !words.contains(*it) && self.is_made(**it, &words);
                open = self.by_name.keys().filter(made).copied().collect();
            }
            if open.is_empty() {
                return Some(words);
            }
            words.extend(&open);
        }
    }

    fn is_made(&self, name: Word, words: &Words) -> bool {
        let Some(it) = self.by_name.get(&name).and_then(|named| named.first()) else { return false };
        is_joined(it.name().as_bytes(), &|it| it != name && words.contains(&it))
    }
}
