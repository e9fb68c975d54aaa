use proptest::prelude::*;

use super::*;

fn one(text: &str) -> FileDiff {
    let mut files = parse(text.as_bytes(), 1).unwrap();
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}

#[test]
fn a_git_diff_with_everything_around_it() {
    let text = "From 0123 Mon Sep 17 00:00:00 2001\nFrom: A <a@b>\nSubject: [PATCH 2/3] x: y\n\nbody\n---\n a | 2 +-\n\n\
diff --git a/k/a.c b/k/a.c\nindex 1111111..2222222 100644\n--- a/k/a.c\n+++ b/k/a.c\n@@ -1,3 +1,3 @@ int f(void)\n one\n-two\n+2\n three\n-- \n2.39\n";
    let diff = one(text);
    assert_eq!((diff.old_path.as_deref(), diff.new_path.as_deref()), (Some("k/a.c"), Some("k/a.c")));
    assert_eq!(diff.index, Some(("1111111".to_owned(), "2222222".to_owned())));
    let Content::Text(hunks) = &diff.content else { panic!("{diff:?}") };
    assert_eq!(hunks[0].section, "int f(void)");
    assert_eq!(hunks[0].lines.len(), 4, "the mail's signature is not content");
    let patch = parse_patch(text.as_bytes(), "0002-x.patch", 1).unwrap();
    assert_eq!((patch.subject.as_str(), patch.author.as_str(), patch.body.as_str()), ("x: y", "A <a@b>", "body"));
}

#[test]
fn headers_of_git_say_new_deleted_renamed_copied_and_modes() {
    let new = one(
        "diff --git a/n b/n\nnew file mode 100755\nindex 0000000..1234567\n--- /dev/null\n+++ b/n\n@@ -0,0 +1 @@\n+x\n",
    );
    assert_eq!((new.old_path, new.new_path.as_deref(), new.new_mode), (None, Some("n"), Some(FileMode::Executable)));
    let empty = one("diff --git a/n b/n\nnew file mode 100644\nindex 0000000..e69de29\n");
    assert_eq!((empty.old_path, empty.content), (None, Content::Text(vec![])));
    let gone = one("diff --git a/n b/n\ndeleted file mode 100644\n--- a/n\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n");
    assert_eq!((gone.old_path.as_deref(), gone.new_path), (Some("n"), None));
    let moved =
        one("diff --git a/old name b/new name\nsimilarity index 100%\nrename from old name\nrename to new name\n");
    assert_eq!(moved.relation, Relation::Rename);
    assert_eq!((moved.old_path.as_deref(), moved.new_path.as_deref()), (Some("old name"), Some("new name")));
    let mode = one("diff --git a/s b/s\nold mode 100644\nnew mode 100755\n");
    assert_eq!((mode.old_mode, mode.new_mode), (Some(FileMode::Regular), Some(FileMode::Executable)));
    let quoted = one("diff --git \"a/\\303\\244\" \"b/\\303\\244\"\nold mode 100644\nnew mode 100755\n");
    assert_eq!(quoted.new_path.as_deref(), Some("ä"));
    assert_eq!(
        one("diff --git a/x b/x\nindex 12345..12346\nBinary files a/x and b/x differ\n").content,
        Content::BinaryWithoutData
    );
}

#[test]
fn plain_diffs_with_other_first_components_and_times() {
    let diff = one(
        "Index: linux/a.c\n====\n--- linux.orig/a.c\t2020-01-01 00:00:00\n+++ linux/a.c\t2020-01-02\n@@ -1 +1 @@\n-a\n+b\n",
    );
    assert_eq!((diff.old_path.as_deref(), diff.new_path.as_deref()), (Some("a.c"), Some("a.c")));
    let new = one("--- linux.orig/a.c\t1970-01-01 00:00:00.0\n+++ linux/a.c\t2020-01-02\n@@ -0,0 +1 @@\n+b\n");
    assert_eq!((new.old_path, new.new_path.as_deref()), (None, Some("a.c")));
    let top = parse(b"--- a.c\n+++ a.c\n@@ -1 +1 @@\n-a\n+b\n", 0).unwrap();
    assert_eq!(top[0].new_path.as_deref(), Some("a.c"));
}

#[test]
fn line_ends_are_kept_as_they_are() {
    let diff = one(
        "--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n a\r\n-b\n\\ No newline at end of file\n+c\r\n\\ No newline at end of file\n",
    );
    let Content::Text(hunks) = diff.content else { panic!() };
    assert_eq!(hunks[0].old_lines().collect::<Vec<_>>(), [&b"a\r\n"[..], b"b"]);
    assert_eq!(hunks[0].new_lines().collect::<Vec<_>>(), [&b"a\r\n"[..], b"c\r"]);
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    let table = [
        ("--- a/x\n+++ b/x\n@@ -1,3 +1,3 @@\n a\n", 3, "cut off"),
        ("--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n a\nrubbish\n", 5, "not a line of a hunk"),
        ("--- a/x\n+++ b/x\n@@ -1,99999999999 +1 @@\n a\n", 3, "malformed"),
        ("--- a/../../x\n+++ b/../../x\n@@ -1 +1 @@\n-a\n+b\n", 1, "leaves the tree"),
        ("--- /etc/passwd\n+++ /etc/passwd\n@@ -1 +1 @@\n-a\n+b\n", 1, "absolute"),
        ("diff --git a/.git/config b/.git/config\nold mode 100644\nnew mode 100755\n", 1, "git's own folder"),
        ("diff --git a/x b/x\nold mode 100999\n", 2, "not a file mode"),
        ("diff --git a/x b/y\nrename from x\n", 3, "does not name both"),
        ("--- x\n+++ x\n@@ -1 +1 @@\n-a\n+b\n", 1, "components to strip"),
    ];
    for (text, line, words) in table {
        let error = parse(text.as_bytes(), 1).unwrap_err();
        assert!(error.line == line && error.message.contains(words), "{text:?}: {error}");
    }
    assert!(parse_patch(b"hello\n", "x", 1).unwrap_err().message.contains("no change"));
    assert_eq!(parse_patch(b"hello\nx\0y\n", "x", 1).unwrap_err().line, 2);
}

#[test]
fn headers_of_dep3_name_author_and_subject() {
    let text = "Description: fix the thing\n more\nAuthor: B <b@c>\nOrigin: upstream, https://git.example.org/c/0123456789012345678901234567890123456789\n\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n";
    let patch = parse_patch(text.as_bytes(), "dir/x.patch", 1).unwrap();
    assert_eq!((patch.subject.as_str(), patch.author.as_str()), ("fix the thing", "B <b@c>"));
    assert_eq!(patch.upstream.as_deref(), Some("0123456789012345678901234567890123456789"));
    let bare = parse_patch(b"--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n", "dir/fix-it.patch", 1).unwrap();
    assert_eq!(bare.subject, "fix-it");
}

proptest! {
    #[test]
    fn any_bytes_give_a_value_or_an_error(text in prop::collection::vec(any::<u8>(), 0..400), strip in 0_u32..4) {
        let _ = parse(&text, strip);
        let _ = parse_patch(&text, "x", strip);
    }

    #[test]
    fn pieces_of_patches_in_any_order_do_no_harm(pieces in prop::collection::vec(prop::sample::select(vec![
        "diff --git a/x b/x\n", "--- a/x\n", "+++ b/x\n", "@@ -1,2 +1,2 @@\n", "@@ -0,0 +1 @@\n", " a\n", "-a\n", "+b\n", "\\ No newline\n",
        "rename from x\n", "rename to y\n", "GIT binary patch\n", "literal 3\n", "delta 3\n", "Kcmb\n", "\n", "index 1111111..2222222 100644\n", "new file mode 100644\n",
    ]), 0..30)) {
        let _ = parse(pieces.concat().as_bytes(), 1);
    }
}
