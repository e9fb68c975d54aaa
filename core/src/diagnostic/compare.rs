//! Which diagnostics of a state are those of the state before.
//!
//! The rule: old places are mapped through the patch's own hunks and renames and matched exactly first; what is left is
//! matched by file, option, function and message without numbers, a pair with the same source line first. Pairs are one to
//! one, so two equal warnings in a function stay two, and the same text fixed in one function and brought into another is
//! one fixed and one new. What has no partner is new (or gone).

use std::collections::HashMap;

use super::{Diagnostic, Tool, locate, normalise};
use crate::series::FileChange;

/// Pairs of indices: `pairs[new] = Some(old)`.
pub fn pair(old: &[&Diagnostic], new: &[&Diagnostic], changes: &[FileChange]) -> Vec<Option<usize>> {
    let moved: Vec<Option<Diagnostic>> = old
        .iter()
        .map(|diagnostic| {
            let location = locate::forward(&diagnostic.location, changes)?;
            Some(Diagnostic { location, ..(*diagnostic).clone() })
        })
        .collect();
    let mut pairs = vec![None; new.len()];
    let mut taken = vec![false; old.len()];
    // Each pass is a key; pairs are made within equal keys, in order.
    let passes: [KeyOf<'_>; 3] = [
        &|diagnostic| Some(exact(diagnostic)),
        &|diagnostic| diagnostic.source.as_ref().map(|source| loose(diagnostic, Some(normalise::source(source)))),
        &|diagnostic| Some(loose(diagnostic, None)),
    ];
    for (number, key) in passes.iter().enumerate() {
        let mut open: HashMap<Key, Vec<usize>> = HashMap::new();
        for (index, diagnostic) in old.iter().enumerate().rev() {
            if taken[index] {
                continue;
            }
            // A rewritten line has no place, but it may still be the same warning: by file and text.
            let seen = match (&moved[index], number) {
                (Some(moved), _) => moved.clone(),
                (None, 0) => continue,
                (None, _) => match locate::file(&diagnostic.location.file, changes) {
                    Some(file) => {
                        let location = super::Location { file: file.to_owned(), ..diagnostic.location.clone() };
                        Diagnostic { location, ..(*diagnostic).clone() }
                    }
                    None => continue,
                },
            };
            if let Some(key) = key(&seen) {
                open.entry(key).or_default().push(index);
            }
        }
        for (index, diagnostic) in new.iter().enumerate() {
            if pairs[index].is_none()
                && let Some(key) = key(diagnostic)
                && let Some(partner) = open.get_mut(&key).and_then(Vec::pop)
            {
                pairs[index] = Some(partner);
                taken[partner] = true;
            }
        }
    }
    pairs
}

/// How a pass tells diagnostics apart; `None`: it does not look at this one.
type KeyOf<'a> = &'a dyn Fn(&Diagnostic) -> Option<Key>;

type Key = (Tool, String, Option<u32>, Option<String>, String, Option<String>, Option<String>);

fn exact(diagnostic: &Diagnostic) -> Key {
    (
        diagnostic.tool,
        diagnostic.location.file.clone(),
        Some(diagnostic.location.line),
        diagnostic.flag.clone(),
        normalise::message(&diagnostic.message),
        diagnostic.function.clone(),
        None,
    )
}

/// Without the line. Findings about a symbol (modpost, Kconfig) are known by it, not by their sentence or place.
fn loose(diagnostic: &Diagnostic, source: Option<String>) -> Key {
    let by_symbol =
        matches!(diagnostic.tool, Tool::Modpost | Tool::Kconfig | Tool::Ld) && diagnostic.function.is_some();
    let message = if by_symbol { String::new() } else { normalise::message(&diagnostic.message) };
    let file = if by_symbol { String::new() } else { diagnostic.location.file.clone() };
    (diagnostic.tool, file, None, diagnostic.flag.clone(), message, diagnostic.function.clone(), source)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Location, Severity};
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
