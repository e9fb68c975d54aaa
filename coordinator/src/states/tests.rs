//! States beside what git itself makes.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use bombproof_store::trees::TreeSource;

use super::*;
use crate::ingest;

fn git(top: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "core.autocrlf=false"])
        .args(args)
        .current_dir(top)
        .output()
        .unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn write(top: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    std::fs::create_dir_all(top.join(name).parent().unwrap()).unwrap();
    std::fs::write(top.join(name), bytes).unwrap();
}

fn commit(top: &Path, subject: &str) {
    git(top, &["add", "-A"]);
    git(top, &["commit", "-q", "--allow-empty", "-m", subject]);
}

/// A repository with every kind of change that a patch can hold; `base` is tagged.
fn repository(format: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path();
    git(top, &["init", "-q", "-b", "main", &format!("--object-format={format}")]);
    let long: String = (1..60).map(|line| format!("line {line}\n")).collect();
    write(top, "a.c", &long);
    write(top, "dir/b.c", &long);
    write(top, "dos.txt", "one\r\ntwo\r\n");
    write(top, "end.txt", "no newline");
    write(top, "binary", [0_u8, 1, 2, 255].repeat(300));
    commit(top, "base");
    git(top, &["tag", "base"]);
    write(top, "a.c", long.replace("line 7\n", "line seven\n").replace("line 50\n", ""));
    commit(top, "edit two places");
    std::fs::rename(top.join("dir/b.c"), top.join("c.c")).unwrap();
    write(top, "c.c", long.replace("line 3\n", "line three\n"));
    commit(top, "rename and edit, the folder goes");
    std::fs::set_permissions(top.join("a.c"), std::fs::Permissions::from_mode(0o755)).unwrap();
    commit(top, "mode");
    write(top, "dos.txt", "one\r\n2\r\n");
    write(top, "end.txt", "still no newline");
    commit(top, "line ends");
    write(top, "binary", [9_u8, 0, 2, 255].repeat(280));
    commit(top, "binary");
    std::os::unix::fs::symlink("a.c", top.join("link")).unwrap();
    write(top, "new \"odd\" näme", "x\n");
    write(top, "empty", "");
    commit(top, "new files");
    std::fs::remove_file(top.join("c.c")).unwrap();
    write(top, "c.c/now-a-folder", "x\n");
    commit(top, "a folder takes the place of a file");
    std::fs::copy(top.join("a.c"), top.join("copy.c")).unwrap();
    commit(top, "copy");
    folder
}

fn trees(top: &Path) -> Vec<String> {
    let commits = git(top, &["rev-list", "--reverse", "base..HEAD"]);
    commits.lines().map(|commit| git(top, &["rev-parse", &format!("{commit}^{{tree}}")])).collect()
}

#[test]
fn every_kind_of_change_gives_the_tree_that_git_has_as_patches_and_as_a_range() {
    for format in ["sha1", "sha256"] {
        let folder = repository(format);
        let top = folder.path();
        let out = tempfile::tempdir().unwrap();
        let patches = out.path().join("patches");
        git(
            top,
            &[
                "format-patch",
                "-q",
                "--binary",
                "-M",
                "-C",
                "--find-copies-harder",
                "-o",
                patches.to_str().unwrap(),
                "base",
            ],
        );
        let repository = Repository::open(top).unwrap();
        let series = ingest::read(&patches, &BTreeSet::new()).unwrap();
        let objects = out.path().join("objects");
        let made = repository.states(&series, "base", &objects).unwrap();
        let why: Vec<_> = made.states.iter().filter_map(|state| state.not_applied.clone()).collect();
        assert!(why.is_empty(), "{why:?}");
        let got: Vec<String> = made.states[1..].iter().map(|state| state.tree.to_string()).collect();
        assert_eq!(got, trees(top), "{format}");
        let range = repository.range("base..HEAD").unwrap().unwrap();
        let (_, ranged) = repository.states_of_range(&range, "base..HEAD", &objects).unwrap();
        let got: Vec<String> = ranged.states[1..].iter().map(|state| state.tree.to_string()).collect();
        assert_eq!(got, trees(top), "{format}");
        for (one, other) in made.states.iter().zip(&ranged.states) {
            let spans = |state: &State| -> Vec<FileChange> {
                let mut changes: Vec<_> =
                    state.changes.iter().filter(|it| it.old_path.is_some() && !it.spans.is_empty()).cloned().collect();
                changes.sort_by(|a, b| a.new_path.cmp(&b.new_path));
                changes
            };
            assert_eq!(spans(one), spans(other), "both ways see the same lines move");
        }
        // What a worker gets is what git would check out.
        let source = GitTrees::open(&objects);
        let last = &made.states.last().unwrap().tree;
        let all = source.changes(None, last).unwrap();
        let blobs: Vec<Oid> = all.iter().filter_map(|change| change.entry.as_ref()).map(|it| it.blob.clone()).collect();
        let mut contents = Vec::new();
        source
            .blobs(&blobs, &mut |_, bytes| {
                contents.push(bytes.to_vec());
                Ok(())
            })
            .unwrap();
        for (change, content) in all.iter().zip(&contents) {
            if change.path != "link" {
                assert_eq!(&std::fs::read(top.join(&change.path)).unwrap(), content, "{}", change.path);
            }
        }
        assert_eq!(source.changes(Some(last), last).unwrap(), []);
    }
}

#[test]
fn a_patch_that_does_not_apply_says_where_and_when_it_would() {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path();
    git(top, &["init", "-q", "-b", "main"]);
    write(top, "a.c", "one\ntwo\nthree\n");
    commit(top, "base");
    let out = tempfile::tempdir().unwrap();
    let patch = |number: u32, old: &str, new: &str| {
        let text = format!(
            "Subject: [PATCH {number}/3] p{number}\n\n--- a/a.c\n+++ b/a.c\n@@ -1,3 +1,3 @@\n one\n-{old}\n+{new}\n three\n"
        );
        write(out.path(), &format!("p/{number}.patch"), text);
    };
    patch(1, "2", "zwei");
    patch(2, "two", "2");
    patch(3, "1", "two");
    let series = ingest::read(&out.path().join("p"), &BTreeSet::new()).unwrap();
    let made = Repository::open(top).unwrap().states(&series, "HEAD", &out.path().join("objects")).unwrap();
    let first = made.states[1].not_applied.as_ref().unwrap();
    assert_eq!((first.file.as_str(), first.hunk, first.applies_after), ("a.c", 1, Some(PatchIndex(2))));
    assert!(first.nearest.as_ref().unwrap().starts_with("a.c:2: reads 'two'"), "{first:?}");
    assert!(made.states[2].not_applied.is_none());
    assert!(made.states[3].not_applied.is_some());
    assert_eq!(made.states[1].tree, made.states[0].tree);
    assert_eq!(made.states[3].tree, made.states[2].tree);
}

#[test]
fn merges_and_unknown_ends_are_refused() {
    let folder = repository("sha1");
    let top = folder.path();
    git(top, &["checkout", "-q", "-b", "side", "base"]);
    commit(top, "side");
    git(top, &["checkout", "-q", "main"]);
    git(top, &["merge", "-q", "--no-ff", "-m", "merge", "side"]);
    let repository = Repository::open(top).unwrap();
    let range = repository.range("base..HEAD").unwrap().unwrap();
    let error = repository.states_of_range(&range, "base..HEAD", &top.join("o")).unwrap_err();
    assert!(error.to_string().contains("merge commit"), "{error}");
    let error = repository.range("bass..HEAD").unwrap_err();
    assert!(error.hint().unwrap().contains("base"), "{error}");
    assert!(repository.range("a/../b").unwrap().is_none() && repository.range("../x").unwrap().is_none());
}
