//! `series` files of quilt, with the guards of SUSE's `series.conf`.
//!
//! Sources of the format: quilt(1); the guards are those of SUSE's kernel-source `series.conf`.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

/// One line of a series file that names a patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The patch's file, relative to the folder of the series file (or its `patches` folder).
    pub name: String,
    /// `-pN`.
    pub strip: u32,
    /// `-R`.
    pub reverse: bool,
    /// The line, from 1.
    pub line: u32,
}

/// A series file that cannot be read.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("line {line}: {message}")]
pub struct QuiltError {
    /// From 1.
    pub line: u32,
    /// What is wrong.
    pub message: String,
}

/// Reads a series file; lines whose guards exclude them under the `defined` symbols are left out.
///
/// Guards are read from left to right and the last one that applies decides: `+x` includes if `x` is defined, `-x`
/// excludes if it is, `+!x` and `-!x` likewise if it is not, a bare `-` always excludes. A line whose first guard begins
/// with `+` is excluded to begin with.
///
/// # Errors
/// At an unknown option, a path that leaves the folder, and a patch that is named twice.
pub fn parse_series(text: &str, defined: &BTreeSet<String>) -> Result<Vec<Entry>, QuiltError> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let mut pending: Option<(u32, String)> = None;
    for (number, raw) in (1_u32..).zip(text.lines()) {
        let (line, joined) = match pending.take() {
            Some((first, mut before)) => {
                before.push(' ');
                before.push_str(raw);
                (first, before)
            }
            None => (number, raw.to_owned()),
        };
        if let Some(before) = joined.strip_suffix('\\') {
            pending = Some((line, before.to_owned()));
            continue;
        }
        read_line(&joined, line, defined, &mut entries, &mut seen)?;
    }
    if let Some((line, joined)) = pending {
        read_line(&joined, line, defined, &mut entries, &mut seen)?;
    }
    Ok(entries)
}

fn read_line(
    text: &str,
    line: u32,
    defined: &BTreeSet<String>,
    entries: &mut Vec<Entry>,
    seen: &mut BTreeMap<String, u32>,
) -> Result<(), QuiltError> {
    let wrong = |message: String| QuiltError { line, message };
    let mut entry = Entry { name: String::new(), strip: 1, reverse: false, line };
    let mut included = None;
    let guard = |included: &mut Option<bool>, include: bool, symbol: &str| {
        let holds = match symbol.strip_prefix('!') {
            Some(not) => !defined.contains(not),
            None => defined.contains(symbol),
        };
        let start = included.unwrap_or(!include);
        *included = Some(if holds { include } else { start });
    };
    let mut words = text.split_whitespace();
    while let Some(word) = words.next() {
        if word.starts_with('#') {
            break;
        }
        if let Some(symbol) = word.strip_prefix('+') {
            guard(&mut included, true, symbol);
        } else if word == "-R" {
            entry.reverse = true;
        } else if word == "-p" {
            entry.strip = strip(words.next().unwrap_or_default()).map_err(wrong)?;
        } else if let Some(number) =
            word.strip_prefix("-p").filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        {
            entry.strip = strip(number).map_err(wrong)?;
        } else if word == "-p" || word == "-pab" {
            entry.strip = 1;
        } else if let Some(symbol) = word.strip_prefix('-') {
            if symbol.is_empty() {
                included = Some(false);
            } else if entry.name.is_empty() {
                guard(&mut included, false, symbol);
            } else {
                return Err(wrong(format!("'{word}' is not an option of a series file (-pN, -R)")));
            }
        } else if entry.name.is_empty() {
            word.clone_into(&mut entry.name);
        } else {
            return Err(wrong(format!(
                "'{}' after the name of the patch: names cannot hold blanks",
                word.escape_debug()
            )));
        }
    }
    if entry.name.is_empty() || included == Some(false) {
        return Ok(());
    }
    if entry.name.starts_with('/') || entry.name.split('/').any(|part| part == "..") || entry.name.contains('\0') {
        return Err(wrong(format!("'{}' leaves the folder of the series", entry.name.escape_debug())));
    }
    if let Some(first) = seen.insert(entry.name.clone(), line) {
        return Err(wrong(format!("'{}' is named again (first in line {first})", entry.name.escape_debug())));
    }
    entries.push(entry);
    Ok(())
}

fn strip(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(number) if number <= 16 => Ok(number),
        _ => Err(format!("'-p{}' is not a number of components from 0 to 16", text.escape_debug())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(text: &str, defined: &[&str]) -> Vec<String> {
        let defined = defined.iter().map(|name| (*name).to_owned()).collect();
        parse_series(text, &defined).unwrap().into_iter().map(|entry| entry.name).collect()
    }

    #[test]
    fn comments_options_and_blank_lines() {
        let entries = parse_series("# top\n\na.patch\n b/c.diff -p0 -R # why\nd -p2\n", &BTreeSet::new()).unwrap();
        let short: Vec<_> = entries.iter().map(|e| (e.name.as_str(), e.strip, e.reverse, e.line)).collect();
        assert_eq!(short, [("a.patch", 1, false, 3), ("b/c.diff", 0, true, 4), ("d", 2, false, 5)]);
    }

    #[test]
    fn guards() {
        let text = "+x a\n-x b\n+!x c\n-!x d\n- e\n+x -y f\ng\n";
        assert_eq!(names(text, &[]), ["b", "c", "g"]);
        assert_eq!(names(text, &["x"]), ["a", "d", "f", "g"]);
        assert_eq!(names(text, &["x", "y"]), ["a", "d", "g"]);
    }

    #[test]
    fn a_line_may_go_on() {
        assert_eq!(names("+x \\\na\nb\\\n", &["x"]), ["a", "b"]);
    }

    #[test]
    fn what_is_wrong() {
        for (text, line, words) in [
            ("a\na\n", 2, "first in line 1"),
            ("../a\n", 1, "leaves the folder"),
            ("/a\n", 1, "leaves the folder"),
            ("a b\n", 1, "blanks"),
            ("a -p99\n", 1, "components"),
            ("a --fuzz\n", 1, "not an option"),
        ] {
            let error = parse_series(text, &BTreeSet::new()).unwrap_err();
            assert!(error.line == line && error.message.contains(words), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_gives_an_answer(text in "[-+!#a-cpR0-9 \\\\\n/.]{0,80}") {
            let _ = parse_series(&text, &BTreeSet::new());
        }
    }
}
