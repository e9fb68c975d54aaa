//! Where a line of the state before is in the state after.

use super::Location;
use crate::series::{FileChange, Span};

/// Where an old place is after the changes: the file renamed, the line moved. `None`: the line was removed or rewritten,
/// or its file is gone.
pub fn forward(location: &Location, changes: &[FileChange]) -> Option<Location> {
    let change = changes.iter().find(|change| change.old_path.as_deref() == Some(location.file.as_str()));
    let Some(change) = change else { return Some(location.clone()) };
    let file = change.new_path.clone()?;
    Some(Location { file, line: line(location.line, &change.spans)?, column: location.column })
}

/// The name of an old file after the changes; `None`: it is gone.
pub fn file<'a>(old: &'a str, changes: &'a [FileChange]) -> Option<&'a str> {
    match changes.iter().find(|change| change.old_path.as_deref() == Some(old)) {
        Some(change) => change.new_path.as_deref(),
        None => Some(old),
    }
}

fn line(old: u32, spans: &[Span]) -> Option<u32> {
    // Line 0 stands for the file as a whole.
    if old == 0 {
        return Some(0);
    }
    let before = spans.iter().take_while(|span| span.old_start <= old);
    let mut shift = 0_i64;
    for span in before {
        if span.old_lines > 0 && old < span.old_start + span.old_lines {
            return None;
        }
        shift += i64::from(span.new_lines) - i64::from(span.old_lines);
    }
    u32::try_from(i64::from(old) + shift).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_with_the_hunks() {
        let spans = [
            Span { old_start: 10, old_lines: 2, new_start: 10, new_lines: 5 },
            Span { old_start: 20, old_lines: 0, new_start: 23, new_lines: 1 },
            Span { old_start: 30, old_lines: 1, new_start: 34, new_lines: 0 },
        ];
        for (old, want) in [
            (0, Some(0)),
            (9, Some(9)),
            (10, None),
            (11, None),
            (12, Some(15)),
            (19, Some(22)),
            (20, Some(24)),
            (30, None),
            (31, Some(34)),
        ] {
            assert_eq!(line(old, &spans), want, "{old}");
        }
    }

    #[test]
    fn files_go_with_renames() {
        let rename = FileChange { old_path: Some("a".into()), new_path: Some("b".into()), spans: Vec::new() };
        let gone = FileChange { old_path: Some("c".into()), new_path: None, spans: Vec::new() };
        let at = |file: &str| Location { file: file.to_owned(), line: 3, column: Some(1) };
        assert_eq!(forward(&at("a"), &[rename.clone(), gone.clone()]), Some(at("b")));
        assert_eq!(forward(&at("c"), &[rename, gone]), None);
        assert_eq!(forward(&at("x"), &[]), Some(at("x")));
    }
}
