//! Every level of the sandbox holds what it promises, by the helper itself.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::json;

/// Runs a shell command at a level; gives what the helper said and what the command printed.
fn run(level: &str, script: &str) -> (String, String) {
    let folder = tempfile::tempdir().unwrap();
    let (own, root, secret) = (folder.path().join("own"), folder.path().join("root"), folder.path().join("secret"));
    std::fs::create_dir(&own).unwrap();
    std::fs::create_dir(&root).unwrap();
    std::fs::write(&secret, "hidden").unwrap();
    let guest = if matches!(level, "namespaces" | "bubblewrap") {
        "/bombproof/own".to_owned()
    } else {
        own.display().to_string()
    };
    let script = script.replace("@SECRET@", &secret.display().to_string());
    let spec = json!({
        "argv": ["/bin/sh", "-c", script], "cwd": guest, "env": [["PATH", "/usr/bin:/bin"]],
        "binds": [{"host": own, "guest": guest, "writable": true}],
        "limits": {"processes": 4096, "file_bytes": 1 << 20, "memory_bytes": 8_u64 << 30, "time_s": 20}, "mount_point": root,
    });
    let mut child = Command::new(env!("CARGO_BIN_EXE_bombproof"))
        .args(["__sandbox", level])
        .env("SECRET_TOKEN", "x")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    writeln!(input, "{spec}").unwrap();
    let output = child.wait_with_output().unwrap();
    drop(input);
    (String::from_utf8_lossy(&output.stdout).trim().to_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn what_a_build_must_not_do_it_cannot_do() {
    let rows = [
        ("writes its own folder", "echo x > here && cat here > /dev/null", true),
        ("runs compilers", "gcc --version > /dev/null", true),
        ("writes to the system", "touch /usr/owned", false),
        ("reads what is not its own", "cat @SECRET@", false),
        ("reads the user's home", "ls /root/ /home/*/ 2>/dev/null | grep -q .", false),
        ("sees the environment", "env | grep -q SECRET_TOKEN", false),
        ("fills the disk with one file", "head -c 2000000 /dev/zero > big", false),
    ];
    for level in ["namespaces", "bubblewrap", "landlock"] {
        for (what, script, works) in rows {
            let (said, log) = run(level, script);
            assert!(said.starts_with("{\"ended\":"), "{level}, {what}: {said} {log}");
            assert_eq!(said.starts_with("{\"ended\":[0,"), works, "{level}, {what}: {said} {log}");
        }
    }
    for level in ["namespaces", "bubblewrap"] {
        let (said, log) = run(
            level,
            "[ $(tail -n +3 /proc/net/dev | grep -cv 'lo:') = 0 ] && [ $(ls -d /proc/[0-9]* | wc -l) -lt 12 ]",
        );
        assert!(said.starts_with("{\"ended\":[0,"), "{level} shows a network or other processes: {log}");
    }
}

#[test]
fn the_exit_code_is_the_commands_own_and_a_set_up_that_fails_is_told_apart() {
    assert!(run("namespaces", "exit 42").0.starts_with("{\"ended\":[42,"));
    assert!(run("namespaces", "kill -9 $$").0.starts_with("{\"ended\":[137,"));
    assert!(run("nonsense", "true").0.starts_with("{\"refused\":"));
}

#[test]
fn links_that_a_build_leaves_in_its_folders_lead_nobody_out_of_them() {
    let ground = common::Ground::new();
    let precious = ground.file("precious/file", "precious");
    let makefile = std::fs::read_to_string(ground.repo().join("Makefile")).unwrap();
    let folder = ground.path().join("precious").display().to_string();
    // When everything is built: the shims are not to stumble over it.
    let recipe = format!(
        "hostile: $(O)/vmlinux $(mods)\n\t@ln -sf {precious} /bombproof/log/journal\n\t@ln -sf {precious} $(O)/.config\n\
         \t@ln -sf {precious} /bombproof/cfg/.config\n\t@rm -rf $(O)/drivers && ln -s {folder} $(O)/drivers\n"
    );
    let hostile = makefile
        .replace("\nall: ", "\nall: hostile ")
        .replace("\n$(O)/kernel/bounds.s:", &format!("\n{recipe}\n$(O)/kernel/bounds.s:"));
    let kconfig = std::fs::read_to_string(ground.repo().join("Kconfig")).unwrap();
    for (subject, text, more) in
        [("one", hostile, ""), ("two", format!("{makefile}# two\n"), "\nconfig TWO\n\tbool \"two\"\n\tdefault y\n")]
    {
        std::fs::write(ground.repo().join("Makefile"), text).unwrap();
        std::fs::write(ground.repo().join("Kconfig"), format!("{kconfig}{more}")).unwrap();
        ground.git(&["commit", "-qam", subject]);
    }
    let output = ground
        .bombproof(&["check", "base..HEAD", "--repo", "repo", "--arch", "x86_64", "--config", "tinyconfig"])
        .args(["--sandbox", "namespaces", "--jobs", "1"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious", "{said}");
    let there: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(there, ["file"], "{said}");
    // What it did to its build folder is its own trouble, and no bug of ours.
    assert!(!said.contains("bug in bombproof"), "{said}");
}

#[test]
fn a_command_that_makes_a_folder_a_link_has_nothing_written_elsewhere() {
    let ground = common::Ground::new();
    let folder = ground.path().join("precious");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(ground.repo().join("kernel/fork.c"), "/* two */\n").unwrap();
    ground.git(&["commit", "-qam", "two"]);
    let command = format!("rm -rf kernel && ln -s {} kernel", folder.display());
    let output = ground
        .bombproof(&["check", "base..HEAD", "--repo", "repo", "--exec", &command, "--jobs", "1"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
}
