//! Where the machine fails a build, later states are judged by what is known, never by what is left.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use bombproof_core::digest::Digest;
use common::{Ground, top};
use serde_json::Value;

fn verdicts(ground: &Ground, command: &str, series: &str) -> (Vec<String>, Value) {
    let series = top().join("fixtures/series").join(series).display().to_string();
    let output = ground
        .bombproof(&[command, &series, "--repo", "repo", "--base", "base", "--arch", "x86_64"])
        .args(["--config", "tinyconfig", "--jobs", "1", "--format", "json"])
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let said = report["verdicts"].as_array().unwrap().iter();
    (said.map(|it| it["verdict"].as_str().unwrap().to_owned()).collect(), report)
}

/// No compile of a plan can run: what stands for the folder of a slot is a file.
fn block_compiles(ground: &Ground) {
    let slot = Digest::of(b"bombproof/action-slot/v1").short();
    for number in 0..4 {
        let path = ground.path().join("home/trees").join(format!("{slot}-{number}"));
        let _ = std::fs::remove_dir_all(&path);
        ground.file(&path.display().to_string(), "");
    }
}

#[test]
fn a_state_behind_one_whose_compiles_gave_no_answer_is_not_taken_to_build() {
    for series in ["breaks-at-2-heals-at-4", "missing-header-heals-at-4"] {
        let ground = Ground::new();
        // Make judges base and tip, so that the states between are planned from a graph.
        let (gate, _) = verdicts(&ground, "gate", series);
        assert_eq!((gate[0].as_str(), gate[4].as_str()), ("builds", "builds"), "{series}");
        block_compiles(&ground);
        let (check, report) = verdicts(&ground, "check", series);
        assert_eq!(check, ["builds", "builds", "fails", "fails", "builds"], "{series}: {report:#}");
        assert!(report["cost"]["kbuild_steps"].as_u64().unwrap() > 0, "{series}: make had to judge");
    }
}
