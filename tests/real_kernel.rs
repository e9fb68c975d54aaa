//! On a real kernel with real series; the folder is made by `scripts/fetch-linux` and named by `BOMBPROOF_LINUX`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::path::PathBuf;
use std::process::Command;

use common::{Ground, run, top};
use serde_json::Value;

fn linux() -> PathBuf {
    PathBuf::from(std::env::var_os("BOMBPROOF_LINUX").expect("BOMBPROOF_LINUX names the folder of scripts/fetch-linux"))
}

fn base() -> String {
    format!("v{}", std::fs::read_to_string(linux().join("version")).unwrap().trim())
}

/// Patches `from` to `to` of the real-time series as a series of their own, on a commit that holds those before.
fn slice(from: usize, to: usize) -> (String, String) {
    let series = linux().join("debian/patches-rt/series");
    let text = std::fs::read_to_string(&series).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')).collect();
    let part = series.with_file_name(format!("series.{from}-{to}"));
    std::fs::write(&part, lines[from - 1..to].join("\n")).unwrap();
    let mut command = Command::new(top().join("scripts/commit-of-patches"));
    command.arg(linux().join("linux.git")).arg(base()).arg(&series).arg((from - 1).to_string());
    let commit = String::from_utf8(run(&mut command).stdout).unwrap().trim().to_owned();
    (part.display().to_string(), commit)
}

#[test]
#[ignore = "needs a kernel tree: make test"]
fn a_header_break_in_the_real_time_series_is_found_and_its_healing_too() {
    let ground = Ground::new();
    let (series, commit) = slice(33, 35);
    let repo = linux().join("linux.git").display().to_string();
    let args = [
        "check",
        &series,
        "--repo",
        &repo,
        "--base",
        &commit,
        "--arch",
        "s390x",
        "--config",
        "tinyconfig",
        "--format",
        "json",
    ];
    let output = ground.bombproof(&args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let verdicts: Vec<&str> =
        report["verdicts"].as_array().unwrap().iter().map(|entry| entry["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["builds", "builds", "fails", "builds"]);
    let failure = &report["verdicts"][2]["failure"];
    assert_eq!(failure["stage"], "compile");
    assert!(failure["message"].as_str().unwrap().contains("_TIF_NEED_RESCHED_MASK"), "{failure}");
    assert_eq!(report["summary"]["broken_ranges"][0]["healed_by"], 3);
    // What git would have made of the same patches, bit for bit.
    let made: Vec<&str> =
        report["series"]["patches"].as_array().unwrap().iter().map(|it| it["tree"].as_str().unwrap()).collect();
    for (number, tree) in (33..=35).zip(made) {
        let (_, commit) = slice(number + 1, number + 1);
        let mut command = Command::new("git");
        command.arg("-C").arg(&repo).args(["rev-parse", &format!("{commit}^{{tree}}")]);
        assert_eq!(String::from_utf8(run(&mut command).stdout).unwrap().trim(), tree, "patch {number}");
    }
}
