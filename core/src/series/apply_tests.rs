use proptest::prelude::*;

use super::super::diff::parse;
use super::*;

fn diff(text: &str) -> FileDiff {
    parse(text.as_bytes(), 1).unwrap().remove(0)
}

fn change(hunks: &str) -> FileDiff {
    diff(&format!("--- a/f\n+++ b/f\n{hunks}"))
}

fn applied(old: &str, hunks: &str) -> Result<String, ApplyError> {
    apply(Some(old.as_bytes()), &change(hunks), 0, false).map(|done| String::from_utf8(done.content.unwrap()).unwrap())
}

const TWO: &str = "@@ -2,3 +2,3 @@\n b\n-c\n+C\n d\n";

#[test]
fn exact_and_at_an_offset() {
    assert_eq!(applied("a\nb\nc\nd\ne\n", TWO).unwrap(), "a\nb\nC\nd\ne\n");
    assert_eq!(applied("x\ny\na\nb\nc\nd\ne\n", TWO).unwrap(), "x\ny\na\nb\nC\nd\ne\n");
    let done = apply(Some(b"x\ny\na\nb\nc\nd\ne\n"), &change(TWO), 0, false).unwrap();
    assert_eq!((done.offsets, done.spans), (1, vec![Span { old_start: 5, old_lines: 1, new_start: 5, new_lines: 1 }]));
}

#[test]
fn the_nearest_of_several_places_is_taken() {
    let old = "b\nc\nd\nx\nx\nb\nc\nd\nx\nx\nb\nc\nd\n";
    assert_eq!(applied(old, "@@ -6,3 +6,3 @@\n b\n-c\n+C\n d\n").unwrap(), "b\nc\nd\nx\nx\nb\nC\nd\nx\nx\nb\nc\nd\n");
}

#[test]
fn one_different_line_of_context_refuses_and_fuzz_accepts_and_says_so() {
    let old = "A\nb\nc\nd\n";
    let hunk = "@@ -1,4 +1,4 @@\n a\n b\n-c\n+C\n d\n";
    let error = applied(old, hunk).unwrap_err();
    assert_eq!(error.hunk, 1);
    assert_eq!(error.nearest, Some((1, "reads 'A' where the patch expects 'a'".to_owned())));
    let done = apply(Some(old.as_bytes()), &change(hunk), 2, false).unwrap();
    assert_eq!((done.content.as_deref(), done.fuzzed), (Some(&b"A\nb\nC\nd\n"[..]), vec![(1, 1)]));
}

#[test]
fn files_come_and_go() {
    let new = diff("diff --git a/n b/n\nnew file mode 100644\n--- /dev/null\n+++ b/n\n@@ -0,0 +1,2 @@\n+x\n+y\n");
    assert_eq!(apply(None, &new, 0, false).unwrap().content.as_deref(), Some(&b"x\ny\n"[..]));
    let there = apply(Some(b"x\ny\n"), &new, 0, false).unwrap_err();
    assert!(there.already_applied && there.message.contains("exists already"));
    assert!(!apply(Some(b"other\n"), &new, 0, false).unwrap_err().already_applied);
    assert_eq!(apply(Some(b"x\ny\n"), &new, 0, true).unwrap().content, None);
    let gone = diff("diff --git a/n b/n\ndeleted file mode 100644\n--- a/n\n+++ /dev/null\n@@ -1,2 +0,0 @@\n-x\n-y\n");
    assert_eq!(apply(Some(b"x\ny\n"), &gone, 0, false).unwrap().content, None);
    assert!(apply(Some(b"x\ny\nz\n"), &gone, 0, false).is_err());
    assert!(apply(None, &gone, 0, false).unwrap_err().message.contains("no such file"));
}

#[test]
fn what_is_there_already_is_recognised() {
    let error = applied("a\nb\nC\nd\ne\n", TWO).unwrap_err();
    assert!(error.already_applied);
    assert!(!applied("a\nb\nX\nd\ne\n", TWO).unwrap_err().already_applied);
}

#[test]
fn ends_of_files_without_a_line_end() {
    assert_eq!(
        applied("a\nb", "@@ -1,2 +1,2 @@\n a\n-b\n\\ No newline at end of file\n+c\n\\ No newline at end of file\n")
            .unwrap(),
        "a\nc"
    );
    assert!(applied("a\nb\n", "@@ -1,2 +1,2 @@\n a\n-b\n\\ No newline at end of file\n+c\n").is_err());
}

#[test]
fn line_ends_of_dos_must_agree() {
    let error = applied("a\r\nb\r\nc\r\n", "@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n").unwrap_err();
    assert!(error.nearest.unwrap().1.contains("blanks or line end"));
}

/// The change between two texts as one hunk for each run of differing lines, with `context` lines around it.
fn between(old: &[String], new: &[String]) -> FileDiff {
    let same_head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let same_tail =
        old[same_head..].iter().rev().zip(new[same_head..].iter().rev()).take_while(|(a, b)| a == b).count();
    let from = same_head.saturating_sub(3);
    let tail = same_tail.min(3);
    let bytes = |line: &String| format!("{line}\n").into_bytes();
    let mut lines: Vec<HunkLine> = old[from..same_head].iter().map(|line| HunkLine::Context(bytes(line))).collect();
    lines.extend(old[same_head..old.len() - same_tail].iter().map(|line| HunkLine::Removed(bytes(line))));
    lines.extend(new[same_head..new.len() - same_tail].iter().map(|line| HunkLine::Added(bytes(line))));
    lines.extend(
        old[old.len() - same_tail..old.len() - same_tail + tail].iter().map(|line| HunkLine::Context(bytes(line))),
    );
    let count = |f: fn(&HunkLine) -> bool| lines.iter().filter(|line| f(line)).count();
    let start = |lines: usize| u32::try_from(if lines == 0 { from } else { from + 1 }).unwrap();
    let old_start = start(count(|line| !matches!(line, HunkLine::Added(_))));
    let new_start = start(count(|line| !matches!(line, HunkLine::Removed(_))));
    let hunks = if old == new { vec![] } else { vec![Hunk { old_start, new_start, section: String::new(), lines }] };
    FileDiff {
        old_path: Some("f".into()),
        new_path: Some("f".into()),
        relation: super::super::Relation::Same,
        old_mode: None,
        new_mode: None,
        index: None,
        content: Content::Text(hunks),
    }
}

proptest! {
    #[test]
    fn applying_a_difference_gives_the_new_text_and_reversing_it_the_old(
        old in prop::collection::vec("[ab]{1,2}", 0..25), new in prop::collection::vec("[ab]{1,2}", 0..25),
    ) {
        let text = |lines: &[String]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        let diff = between(&old, &new);
        let done = apply(Some(text(&old).as_bytes()), &diff, 0, false).unwrap();
        prop_assert_eq!(String::from_utf8(done.content.unwrap()).unwrap(), text(&new));
        let back = apply(Some(text(&new).as_bytes()), &diff, 0, true).unwrap();
        prop_assert_eq!(String::from_utf8(back.content.unwrap()).unwrap(), text(&old));
    }

    #[test]
    fn any_text_and_any_hunk_give_an_answer(old in "[ab\n]{0,40}", start in 0_u32..50, lines in "[ab]{0,6}", fuzz in 0_u32..4, reverse: bool) {
        let lines = lines.chars().enumerate().map(|(n, c)| {
            let text = format!("{c}\n").into_bytes();
            match n % 3 { 0 => HunkLine::Context(text), 1 => HunkLine::Removed(text), _ => HunkLine::Added(text) }
        }).collect();
        let hunk = Hunk { old_start: start, new_start: start, section: String::new(), lines };
        let diff = FileDiff { content: Content::Text(vec![hunk]), ..between(&[], &[]) };
        let _ = apply(Some(old.as_bytes()), &diff, fuzz, reverse);
    }
}
