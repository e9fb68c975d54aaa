//! Which diagnostics of a state are those of the state before.
//!
//! The rule: old places are mapped through the patch's own hunks and renames and matched exactly first; what is left is
//! matched by file, option, function and message without numbers, a pair with the same source line first. Pairs are one to
//! one, so two equal warnings in a function stay two, and the same text fixed in one function and brought into another is
//! one fixed and one new. What has no partner is new (or gone).

use std::borrow::Cow;
use std::collections::HashMap;

use super::{Diagnostic, Location, Tool, locate, normalise};
use crate::series::FileChange;

/// Pairs of indices: `pairs[new] = Some(old)`.
pub fn pair(old: &[&Diagnostic], new: &[&Diagnostic], changes: &[FileChange]) -> Vec<Option<usize>> {
    let mut pairs = vec![None; new.len()];
    let mut taken = vec![false; old.len()];
    let moved: Vec<Option<Seen<'_>>> = old.iter().map(|diagnostic| Seen::moved(diagnostic, changes)).collect();
    let new: Vec<Seen<'_>> = new.iter().map(|diagnostic| Seen::here(diagnostic)).collect();
    // Each pass is a key; pairs are made within equal keys, in order.
    let passes: [KeyOf; 3] = [|seen| seen.exact(), |seen| seen.by_source(), |seen| seen.by_message()];
    for key in passes {
        if pairs.iter().all(Option::is_some) {
            break;
        }
        let mut open: HashMap<Key<'_>, Vec<usize>> = HashMap::new();
        for (index, seen) in moved.iter().enumerate().rev().filter(|(index, _)| !taken[*index]) {
            if let Some(key) = seen.as_ref().and_then(key) {
                open.entry(key).or_default().push(index);
            }
        }
        for (index, seen) in new.iter().enumerate() {
            if pairs[index].is_none()
                && let Some(key) = key(seen)
                && let Some(partner) = open.get_mut(&key).and_then(Vec::pop)
            {
                pairs[index] = Some(partner);
                taken[partner] = true;
            }
        }
    }
    pairs
}

/// A diagnostic at its place in the new state.
struct Seen<'a> {
    diagnostic: &'a Diagnostic,
    file: Cow<'a, str>,
    /// `None`: the line was rewritten.
    line: Option<u32>,
    message: String,
}

/// How a pass tells diagnostics apart; `None`: it does not look at this one.
type KeyOf = for<'a, 'b> fn(&'a Seen<'b>) -> Option<Key<'a>>;

type Key<'a> = (Tool, &'a str, Option<u32>, Option<&'a str>, &'a str, Option<&'a str>, Option<String>);

impl<'a> Seen<'a> {
    fn here(diagnostic: &'a Diagnostic) -> Self {
        let Location { file, line, .. } = &diagnostic.location;
        let message = normalise::message(&diagnostic.message);
        Self { diagnostic, file: Cow::Borrowed(file), line: Some(*line), message }
    }

    /// An old one; `None`: its file is gone.
    fn moved(diagnostic: &'a Diagnostic, changes: &'a [FileChange]) -> Option<Self> {
        if changes.is_empty() {
            return Some(Self::here(diagnostic));
        }
        let (file, line) = match locate::forward(&diagnostic.location, changes) {
            Some(location) => (Cow::Owned(location.file), Some(location.line)),
            // A rewritten line has no place, but it may still be the same warning: by file and text.
            None => (Cow::Borrowed(locate::file(&diagnostic.location.file, changes)?), None),
        };
        Some(Self { diagnostic, file, line, message: normalise::message(&diagnostic.message) })
    }

    fn exact(&self) -> Option<Key<'_>> {
        let it = self.diagnostic;
        let (flag, function) = (it.flag.as_deref(), it.function.as_deref());
        Some((it.tool, &self.file, Some(self.line?), flag, &self.message, function, None))
    }

    fn by_source(&self) -> Option<Key<'_>> {
        self.diagnostic.source.as_ref().map(|source| self.loose(Some(normalise::source(source))))
    }

    fn by_message(&self) -> Option<Key<'_>> {
        Some(self.loose(None))
    }

    /// Without the line. Findings about a symbol (modpost, Kconfig) are known by it, not by their sentence or place.
    fn loose(&self, source: Option<String>) -> Key<'_> {
        let it = self.diagnostic;
        let by_symbol = matches!(it.tool, Tool::Modpost | Tool::Kconfig | Tool::Ld) && it.function.is_some();
        let (file, message) = if by_symbol { ("", "") } else { (&*self.file, &*self.message) };
        (it.tool, file, None, it.flag.as_deref(), message, it.function.as_deref(), source)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Severity;
    use super::*;
    use crate::series::Span;

    fn warning(line: u32, function: &str, message: &str) -> Diagnostic {
        Diagnostic {
            tool: Tool::Compiler,
            severity: Severity::Warning,
            flag: Some("unused-variable".into()),
            werror: false,
            location: Location { file: "a.c".into(), line, column: Some(2) },
            function: Some(function.into()),
            message: message.into(),
            source: Some(format!("int {message};")),
            text: Vec::new(),
        }
    }

    fn pairs(old: &[Diagnostic], new: &[Diagnostic], spans: &[Span]) -> Vec<Option<usize>> {
        let change = FileChange { old_path: Some("a.c".into()), new_path: Some("a.c".into()), spans: spans.to_vec() };
        pair(&old.iter().collect::<Vec<_>>(), &new.iter().collect::<Vec<_>>(), &[change])
    }

    #[test]
    fn truth_table() {
        let insert = [Span { old_start: 1, old_lines: 0, new_start: 1, new_lines: 5 }];
        let rewrite = [Span { old_start: 10, old_lines: 1, new_start: 10, new_lines: 1 }];
        let x = |line, function| warning(line, function, "unused x");
        type Row<'a> = (&'a str, &'a [Diagnostic], &'a [Diagnostic], &'a [Span], &'a [Option<usize>]);
        let rows: &[Row<'_>] = &[
            ("only moved", &[x(10, "f")], &[x(15, "f")], &insert, &[Some(0)]),
            ("rewritten line, same warning", &[x(10, "f")], &[x(10, "f")], &rewrite, &[Some(0)]),
            ("one more", &[x(10, "f")], &[x(10, "f"), x(12, "f")], &[], &[Some(0), None]),
            ("fixed here, new there", &[x(10, "f")], &[x(30, "g")], &[], &[None]),
            ("two equal ones stay two", &[x(10, "f"), x(11, "f")], &[x(10, "f"), x(11, "f")], &[], &[Some(0), Some(1)]),
            ("new", &[], &[x(10, "f")], &[], &[None]),
            ("another text", &[x(10, "f")], &[warning(10, "f", "unused y")], &[], &[None]),
        ];
        for (name, old, new, spans, want) in rows {
            assert_eq!(pairs(old, new, spans), *want, "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_diff_with_itself_is_empty(lines in prop::collection::vec((1_u32..30, 0_u8..3, 0_u8..3), 0..12)) {
            let all: Vec<_> = lines.iter().map(|(line, f, m)| warning(*line, &format!("f{f}"), &format!("m{m}"))).collect();
            let want: std::collections::BTreeSet<_> = (0..all.len()).map(Some).collect();
            prop_assert_eq!(pairs(&all, &all, &[]).into_iter().collect::<std::collections::BTreeSet<_>>(), want);
        }

        #[test]
        fn inserted_lines_bring_nothing_new(lines in prop::collection::btree_set(1_u32..30, 0..12), at in 1_u32..30, count in 1_u32..9) {
            let old: Vec<_> = lines.iter().map(|line| warning(*line, "f", "x")).collect();
            let new: Vec<_> = lines.iter().map(|line| warning(if *line >= at { line + count } else { *line }, "f", "x")).collect();
            let span = Span { old_start: at, old_lines: 0, new_start: at, new_lines: count };
            prop_assert!(pairs(&old, &new, &[span]).iter().all(Option::is_some));
        }
    }
}
