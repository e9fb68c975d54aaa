//! Requests that cannot be carried out, and runs that are disturbed.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::{Duration, Instant};

use common::{Ground, Small, top};

const DIFF: &str = "--- a/kernel/fork.c\n+++ b/kernel/fork.c\n@@ -4,3 +4,3 @@\n {\n-\tparent->children++;\n+\tparent->children--;\n \treturn parent;\n";

fn series(name: &str) -> String {
    top().join("fixtures/series").join(name).display().to_string()
}

#[test]
fn bad_input_gets_a_clear_error_and_exit_64() {
    let ground = Ground::new();
    let good = ground.file("good.patch", DIFF);
    let named = |name: &str, text: &str| ground.file(name, text);
    let leaves = |path: &str| DIFF.replace("kernel/fork.c", path);
    std::fs::create_dir(ground.path().join("empty")).unwrap();
    // Bytes of no text at all, and links that lead to each other.
    let rubbish = ground
        .file("rubbish", (0..=u8::MAX).cycle().take(100_000).map(|byte| byte.wrapping_mul(167)).collect::<Vec<_>>());
    named("ring/series", "one.patch\ntwo.patch\n");
    for (from, to) in [("one.patch", "two.patch"), ("two.patch", "one.patch")] {
        std::os::unix::fs::symlink(to, ground.path().join("ring").join(from)).unwrap();
    }
    let large = format!("--- /dev/null\n+++ b/x\n@@ -0,0 +1,50000000 @@\n{}", "+\n".repeat(50_000_000));
    let rows: Vec<(Vec<String>, &str)> = vec![
        (vec![good.clone()], "no base is given"),
        (vec![good.clone(), "--base".into(), "v9.9".into()], "the base 'v9.9' is not a commit"),
        (vec!["gone.patch".into(), "--base".into(), "base".into()], "cannot read 'gone.patch'"),
        (vec!["empty".into(), "--base".into(), "base".into()], "holds no patch"),
        (vec![named("prose", "no patch at all\n"), "--base".into(), "base".into()], "neither a patch"),
        (vec![named("nul", "--- a/x\0\n"), "--base".into(), "base".into()], "holds NUL bytes"),
        (vec![named("up", &leaves("../x")), "--base".into(), "base".into()], "leaves the tree"),
        (
            vec![named("abs", &DIFF.replace("a/kernel/fork.c", "/etc/passwd")), "--base".into(), "base".into()],
            "absolute",
        ),
        (vec![named("git", &leaves(".git/config")), "--base".into(), "base".into()], "git's own folder"),
        (vec![named("list/series", "a.patch\nb.patch\n"), "--base".into(), "base".into()], "line 1: a.patch"),
        (vec![named("twice/series", "a.patch\na.patch\n"), "--base".into(), "base".into()], "named again"),
        (vec![named("self/series", "series\n"), "--base".into(), "base".into()], "names itself"),
        (vec![rubbish, "--base".into(), "base".into()], "'rubbish' is not a patch: line 1: holds NUL bytes"),
        (vec![named("comments/series", "# nothing\n"), "--base".into(), "base".into()], "holds no patch"),
        (vec!["ring".into(), "--base".into(), "base".into()], "line 1: one.patch"),
        (vec!["base..base".into()], "holds no patch"),
        (vec![named("large", &large), "--base".into(), "base".into()], "larger than 64 MiB"),
        (vec!["base..nowhere".into()], "the base 'nowhere' is not a commit"),
        (
            vec![good.clone(), "--base".into(), "base".into(), "--arch".into(), "vax".into()],
            "'vax' is not an architecture",
        ),
        (
            vec![good.clone(), "--base".into(), "base".into(), "--config".into(), "nothing".into()],
            "neither a configuration file",
        ),
        (
            vec![good.clone(), "--base".into(), "base".into(), "--config".into(), "fooconfig".into()],
            "there is no configuration 'fooconfig'",
        ),
        (
            vec![good.clone(), "--base".into(), "base".into(), "--mode".into(), "search".into()],
            "--mode search is for --exec",
        ),
        (vec![good.clone(), "--base".into(), "base".into(), "--target".into(), "x".into()], "there is no such file"),
        (
            vec![good.clone(), "--base".into(), "base".into(), "--output".into(), "gone/report".into()],
            "cannot be written",
        ),
        (
            vec![good.clone(), "--base".into(), "base".into(), "--repo".into(), "empty".into()],
            "is not a git repository",
        ),
        (vec![good, "--base".into(), "base".into(), "--arch".into(), "alpha".into()], "which is not installed"),
        (vec!["--nonsense".into()], "unexpected argument"),
    ];
    for (args, words) in rows {
        let mut all = vec!["check".to_owned()];
        all.extend(args.iter().cloned());
        if !args.iter().any(|word| word == "--repo") {
            all.extend(["--repo".to_owned(), "repo".to_owned()]);
        }
        let output = ground.bombproof(&all.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?}: {said}");
        assert!(!said.contains("panicked"), "{said}");
        // It says what to do; the parser of the command line does so in its own words.
        assert!(said.contains("\nhint: ") || said.contains("--help"), "{args:?}: {said}");
    }
}

#[test]
fn a_patch_through_a_link_is_not_applied_and_the_work_tree_is_never_touched() {
    let ground = Ground::new();
    std::os::unix::fs::symlink("/etc", ground.repo().join("link")).unwrap();
    ground.git(&["add", "link"]);
    ground.git(&["commit", "-qm", "link"]);
    std::fs::write(ground.repo().join("kernel/fork.c"), "local change").unwrap();
    let before = ground.git(&["status", "--porcelain", "--branch"]);
    let refs = ground.git(&["for-each-ref"]);
    let patch = ground.file("x.patch", "--- /dev/null\n+++ b/link/owned\n@@ -0,0 +1 @@\n+x\n");
    let output = ground
        .bombproof(&["check", &patch, "--repo", "repo", "--base", "HEAD", "--arch", "x86_64", "--config", "tinyconfig"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("leads through 'link'"), "{text} {}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(ground.git(&["status", "--porcelain", "--branch"]), before);
    assert_eq!(ground.git(&["for-each-ref"]), refs);
    assert!(!std::path::Path::new("/etc/owned").exists());
}

#[test]
fn commands_are_run_in_every_state_skipped_at_125_and_searched() {
    let ground = Ground::new();
    for number in 1..=9 {
        std::fs::write(ground.repo().join("number"), format!("{number}\n")).unwrap();
        ground.git(&["add", "-A"]);
        ground.git(&["commit", "-qm", &format!("number {number}")]);
    }
    let json = |args: &[&str]| -> (Option<i32>, serde_json::Value) {
        let mut all = vec!["check", "base..HEAD", "--repo", "repo", "--format", "json"];
        all.extend(args);
        let output = ground.bombproof(&all).output().unwrap();
        let report = serde_json::from_slice(&output.stdout);
        (
            output.status.code(),
            report.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr))),
        )
    };
    let command = "n=$(cat number 2>/dev/null || echo 0); echo spoilt > number; [ $n = 3 ] && exit 125; [ $n -lt 6 ]";
    let (code, report) = json(&["--exec", command]);
    assert_eq!(code, Some(1));
    let verdicts: Vec<&str> =
        report["verdicts"].as_array().unwrap().iter().map(|it| it["verdict"].as_str().unwrap()).collect();
    assert_eq!(
        verdicts,
        ["builds", "builds", "builds", "not-judged", "builds", "builds", "fails", "fails", "fails", "fails"]
    );
    assert_eq!(report["summary"]["first_failing"][0]["patch"], 6);
    let (code, report) = json(&["--exec", "[ $(cat number 2>/dev/null || echo 0) -lt 6 ]", "--mode", "search"]);
    assert_eq!(code, Some(1), "{report}");
    let notes = report["run"]["notes"].to_string();
    assert!(notes.contains("assumed") && notes.contains("verified by clean runs: 6 fails, 5 passes"), "{notes}");
}

#[test]
fn a_build_sees_no_network_no_home_and_cannot_write_elsewhere() {
    let ground = Ground::new();
    std::fs::write(ground.repo().join("x"), "1").unwrap();
    ground.git(&["add", "-A"]);
    ground.git(&["commit", "-qm", "one"]);
    let secret = ground.file("secret", "hidden");
    let command = format!(
        "cat {secret} && exit 3; ls /root /home 2>/dev/null && exit 4; touch /usr/x 2>/dev/null && exit 5; \
         [ $(wc -l < /proc/net/dev) -le 3 ] || exit 6; env | grep -q SECRET_TOKEN && exit 7; touch here"
    );
    let output = ground
        .bombproof(&["check", "base..HEAD", "--repo", "repo", "--exec", &command])
        .env("SECRET_TOKEN", "x")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
}

/// A process that was started, killed if the test fails.
struct Started(std::process::Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_for(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn results(ground: &Ground) -> usize {
    let folders = std::fs::read_dir(ground.path().join("home/results"));
    folders.map_or(0, |folders| {
        folders.flatten().map(|folder| std::fs::read_dir(folder.path()).map_or(0, Iterator::count)).sum()
    })
}

#[test]
fn a_run_that_is_killed_or_stopped_goes_on_where_it_was() {
    for signal in ["KILL", "INT"] {
        let ground = Ground::new();
        for number in 1..=4 {
            std::fs::write(ground.repo().join("number"), format!("{number}\n")).unwrap();
            ground.git(&["add", "-A"]);
            ground.git(&["commit", "-qm", &format!("number {number}")]);
        }
        // The third state hangs until it is told to end.
        let sleep = format!("sleep 9{:05}.{}", std::process::id(), signal.len());
        let command = format!("if [ \"$(cat number)\" = 3 ]; then {sleep}; fi; true");
        let args = ["check", "base..HEAD", "--repo", "repo", "--exec", &command, "--jobs", "1"];
        let mut child = Started(
            ground
                .bombproof(&args)
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .spawn()
                .unwrap(),
        );
        wait_for("states before the third are settled", || results(&ground) == 3);
        let start = Instant::now();
        common::run(std::process::Command::new("kill").args([&format!("-{signal}"), &child.0.id().to_string()]));
        child.0.wait().unwrap();
        assert!(start.elapsed() < Duration::from_secs(5), "it stops at once");
        wait_for("nothing of the build is left", || {
            let listed = std::process::Command::new("pgrep").args(["-fx", &sleep]).output().unwrap();
            listed.stdout.is_empty()
        });
        assert_eq!(results(&ground), 3, "no finished state is lost");
        let status = ground.bombproof(&["status"]).output().unwrap();
        let word = if signal == "KILL" { "killed" } else { "interrupted" };
        assert!(String::from_utf8_lossy(&status.stdout).contains(word), "{}", String::from_utf8_lossy(&status.stdout));
    }
}

#[test]
fn two_checks_at_once_in_one_state_folder_both_work() {
    let ground = Ground::new();
    let start = |name: &str| {
        let args =
            ["check", &series(name), "--repo", "repo", "--base", "base", "--arch", "x86_64", "--config", "tinyconfig"];
        ground.bombproof(&args).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap()
    };
    let mut both = [start("breaks-at-2-heals-at-4"), start("warning-moved")];
    let codes: Vec<_> = both.iter_mut().map(|child| child.wait().unwrap().code()).collect();
    assert_eq!(codes, [Some(1), Some(0)]);
}

#[test]
fn a_state_folder_that_cannot_be_written_is_said() {
    let ground = Ground::new();
    let patch = ground.file("good.patch", DIFF);
    let output = ground
        .bombproof(&["check", &patch, "--repo", "repo", "--base", "base", "--arch", "x86_64"])
        .env("BOMBPROOF_HOME", "/proc/nowhere")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains("/proc/nowhere") && said.contains("BOMBPROOF_HOME"), "{said}");
}

#[test]
fn a_state_folder_that_is_read_only_or_full_from_the_beginning_is_said() {
    for (options, words) in [("size=1m,ro", "Read-only file system"), ("size=16k", "No space left on device")] {
        let ground = Ground::new();
        let home = ground.path().join("home");
        let Some(_small) = Small::mount(&home, options) else { return };
        let patch = ground.file("good.patch", DIFF);
        let args = ["check", &patch, "--repo", "repo", "--base", "base", "--arch", "x86_64", "--config", "tinyconfig"];
        let output = ground.bombproof(&args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{said}");
        assert!(said.contains(words) && said.contains("hint: set BOMBPROOF_HOME"), "{said}");
    }
}

#[test]
fn a_full_disk_blames_no_patch() {
    let ground = Ground::new();
    let Some(_small) = Small::mount(&ground.path().join("home"), "size=24m") else { return };
    std::fs::write(ground.repo().join("x"), "1").unwrap();
    ground.git(&["add", "-A"]);
    ground.git(&["commit", "-qm", "one"]);
    let command = "[ ! -e x ] || head -c 50000000 /dev/zero > big";
    let args = ["check", "base..HEAD", "--repo", "repo", "--exec", command, "--jobs", "1", "--format", "json"];
    let output = ground.bombproof(&args).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["verdicts"][1]["verdict"], "not-judged", "{report}");
    assert!(report["verdicts"][1]["reason"].as_str().unwrap().contains("No space left on device"), "{report}");
    assert_eq!(output.status.code(), Some(2));
}
