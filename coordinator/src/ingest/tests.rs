//! Intake from real files.

use std::path::Path;

use super::*;

const DIFF: &str = "--- a/f\n+++ b/f\n@@ -1 +1 @@\n-a\n+b\n";

fn mail(number: &str) -> String {
    format!(
        "From 0123 Mon Sep 17 00:00:00 2001\nFrom: A <a@b>\nSubject: [PATCH {number}] change {number}\n\ntext\n---\n{DIFF}-- \n2.47\n\n"
    )
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

fn sources(path: &Path) -> Vec<String> {
    read(path, &BTreeSet::new()).unwrap().patches.into_iter().map(|patch| patch.source).collect()
}

#[test]
fn a_quilt_series_by_its_file_its_folder_and_its_parent() {
    let top = folder(&[
        ("patches/series", "# c\na.patch\nsub/b.patch -p0\n"),
        ("patches/a.patch", DIFF),
        ("patches/sub/b.patch", "--- f\n+++ f\n@@ -1 +1 @@\n-a\n+b\n"),
    ]);
    for path in ["patches/series", "patches", "."] {
        assert_eq!(sources(&top.path().join(path)), ["a.patch", "sub/b.patch"], "{path}");
    }
}

#[test]
fn an_mbox_a_maildir_and_a_folder_of_mails_are_put_in_order() {
    let (one, two) = (mail("1/2"), mail("2/2"));
    let top = folder(&[
        ("mbox", &format!("{two}{one}")),
        ("maildir/cur/b", &one),
        ("maildir/new/a", &two),
        ("mails/x-2.eml", &one),
        ("mails/x-1.eml", &two),
    ]);
    for path in ["mbox", "maildir", "mails"] {
        let series = read(&top.path().join(path), &BTreeSet::new()).unwrap();
        let subjects: Vec<_> = series.patches.iter().map(|patch| patch.subject.as_str()).collect();
        assert_eq!(subjects, ["change 1/2", "change 2/2"], "{path}");
    }
}

#[test]
fn patches_of_a_folder_go_by_number_in_their_names() {
    let top = folder(&[("10-x.patch", DIFF), ("2-x.patch", DIFF), ("README.md", "no"), (".hidden", "no")]);
    assert_eq!(sources(top.path()), ["2-x.patch", "10-x.patch"]);
}

#[test]
fn what_is_not_a_series_is_refused_with_words() {
    let table: &[(&str, &str, &str)] = &[
        ("empty", "", "holds no patch"),
        ("prose", "just words\nno more\n", "neither a patch"),
        ("nul", "--- a/f\n+++ b/f\n@@ -1 +1 @@\n-a\0\n+b\n", "NUL bytes"),
        ("cut", "--- a/f\n+++ b/f\n@@ -1,9 +1 @@\n-a\n", "cut off"),
        ("leaves", "--- a/../f\n+++ b/../f\n@@ -1 +1 @@\n-a\n+b\n", "leaves the tree"),
        ("series", "gone.patch\n", "line 1: gone.patch"),
        ("series.2", "a\na\n", "named again"),
        ("series.3", "# nothing\n", "holds no patch"),
        (
            "mbox",
            "From 0 Mon Sep 17 00:00:00 2001\nSubject: [PATCH 2/3] x\n\n--- a/f\n+++ b/f\n@@ -1 +1 @@\n-a\n+b\n",
            "1/3, 3/3",
        ),
    ];
    for (name, text, words) in table {
        let top = folder(&[(name, text)]);
        let error = read(&top.path().join(name), &BTreeSet::new()).unwrap_err();
        assert!(error.to_string().contains(words), "{name}: {error}");
    }
}
