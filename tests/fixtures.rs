//! Every fixture series gets the verdicts that its name says, with real compilers for two architectures.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::collections::BTreeMap;

use common::{Ground, top};
use serde_json::Value;

/// One letter a state, as `fixtures/make-series` has them.
fn letters(report: &Value, arch: &str) -> String {
    let verdicts = report["verdicts"].as_array().unwrap().iter();
    verdicts
        .filter(|entry| entry["target"].as_str().unwrap().starts_with(&format!("{arch}-")))
        .map(|entry| match entry["verdict"].as_str().unwrap() {
            "builds" => 'b',
            "fails" if entry["failure"]["since"].is_null() => 'F',
            "fails" => 'f',
            "not-compiled" => '-',
            "not-applied" => 'x',
            _ => '!',
        })
        .collect()
}

/// How many warnings each patch brought (`new`) or removed (`fixed`), over all targets.
fn counts(report: &Value, field: &str) -> BTreeMap<u64, usize> {
    let mut counts = BTreeMap::new();
    for it in report["diagnostics"].as_array().unwrap().iter().filter(|it| it["severity"] == "warning") {
        if let Some(patch) = it[field].as_u64().filter(|patch| *patch > 0) {
            *counts.entry(patch).or_default() += 1;
        }
    }
    counts
}

#[test]
fn each_series_gets_the_verdicts_that_its_name_says() {
    let ground = Ground::new();
    let mut wrong = Vec::new();
    let mut direct = 0;
    let mut names: Vec<_> =
        std::fs::read_dir(top().join("fixtures/series")).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert!(names.len() >= 12);
    for folder in names {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let patches = ground.path().join(&name);
        std::fs::create_dir(&patches).unwrap();
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|end| end == "patch") {
                std::fs::copy(&path, patches.join(path.file_name().unwrap())).unwrap();
            }
        }
        let output = ground
            .bombproof(&["check", &patches.display().to_string(), "--repo", "repo", "--base", "base"])
            .args(["--arch", "x86_64,s390x", "--config", "tinyconfig", "--format", "json", "--audit", "all"])
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        let report: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{name}: {error} {stderr}"));
        let audited = report["run"]["notes"].as_array().unwrap().iter().filter_map(Value::as_str);
        let audited: Vec<_> = audited.filter(|note| note.starts_with("audit:")).collect();
        if !matches!(audited[..], [one] if one.ends_with("all agree")) {
            wrong.push(format!("{name}: {audited:?} {stderr}"));
        }
        direct += report["verdicts"].as_array().unwrap().iter().filter(|it| it["link"] == "unchanged").count();
        let (mut new, mut fixed) = (BTreeMap::new(), BTreeMap::new());
        for line in std::fs::read_to_string(folder.join("expect")).unwrap().lines() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["new", patch, count] => drop(new.insert(patch.parse().unwrap(), count.parse().unwrap())),
                ["fixed", patch, count] => drop(fixed.insert(patch.parse().unwrap(), count.parse().unwrap())),
                [arch, want] if letters(&report, arch) != want => {
                    wrong.push(format!("{name} {arch}: {} instead of {want}", letters(&report, arch)));
                }
                _ => {}
            }
        }
        for (field, want) in [("introduced_by", new), ("fixed_by", fixed)] {
            if counts(&report, field) != want {
                wrong.push(format!("{name} {field}: {:?} instead of {want:?}", counts(&report, field)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(direct >= 8, "{direct} states needed compiles only");
}

#[test]
fn the_report_for_a_terminal() {
    let ground = Ground::new();
    let series = top().join("fixtures/series/header-break-on-one-arch");
    let output = ground
        .bombproof(&["check", &series.display().to_string(), "--repo", "repo", "--base", "base"])
        .args(["--arch", "x86_64,s390x", "--config", "tinyconfig"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    // Times and the id of the run differ from run to run.
    let stable: Vec<&str> = text.lines().filter(|line| !line.contains("sandbox:")).collect();
    insta::assert_snapshot!(stable.join("\n"));
    let markdown = ground.bombproof(&["report", "--format", "markdown"]).output().unwrap();
    assert!(String::from_utf8_lossy(&markdown.stdout).contains("| 1 | sched: lazy preemption | ok | **FAIL** |"));
    let explained = ground.bombproof(&["explain", "1", "s390x"]).output().unwrap();
    let explained = String::from_utf8_lossy(&explained.stdout).into_owned();
    for words in ["verdict    fails", "TIF_LAZY", "compile:", "kernel/sched.o"] {
        assert!(explained.contains(words), "{words}: {explained}");
    }
}

#[test]
fn a_second_run_builds_nothing_and_says_the_same() {
    let ground = Ground::new();
    let series = top().join("fixtures/series/breaks-at-2-heals-at-4");
    let check = || {
        let output = ground
            .bombproof(&["check", &series.display().to_string(), "--repo", "repo", "--base", "base"])
            .args(["--arch", "x86_64", "--config", "tinyconfig", "--format", "json"])
            .output()
            .unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let (first, second) = (check(), check());
    assert_eq!((&first["cost"]["states_built"], &second["cost"]["states_built"]), (&5.into(), &0.into()));
    assert_eq!(first["diagnostics"], second["diagnostics"]);
    assert_eq!(first["summary"], second["summary"]);
}

#[test]
fn the_script_of_reproduce_shows_the_same_failure() {
    let ground = Ground::new();
    let series = top().join("fixtures/series/breaks-at-2-heals-at-4");
    let check = ground
        .bombproof(&["check", &series.display().to_string(), "--repo", "repo", "--base", "base"])
        .args(["--arch", "x86_64", "--config", "tinyconfig"])
        .output()
        .unwrap();
    assert_eq!(check.status.code(), Some(1));
    for (patch, builds) in [("1", true), ("2", false)] {
        let script = ground.bombproof(&["reproduce", patch, "x86_64"]).output().unwrap();
        let name = ground.file(&format!("repro-{patch}.sh"), &script.stdout);
        let run = std::process::Command::new("sh")
            .args([&name, &format!("work-{patch}")])
            .current_dir(ground.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        assert_eq!(run.status.success(), builds, "{said}");
        assert_eq!(said.contains("lazy_flag"), !builds, "{said}");
    }
    // A folder that holds the tree of another patch would show what is not asked for.
    let other =
        std::process::Command::new("sh").args(["repro-2.sh", "work-1"]).current_dir(ground.path()).output().unwrap();
    let said = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(other.status.code() == Some(64) && said.contains("work-1 holds another tree"), "{said}");
}

#[test]
fn a_gate_looks_at_base_and_tip_only_and_a_check_does_not_believe_it() {
    let ground = Ground::new();
    let series = top().join("fixtures/series/breaks-at-2-heals-at-4").display().to_string();
    let run = |command: &str, more: &[&str]| {
        let mut all =
            vec![command, &series, "--repo", "repo", "--base", "base", "--arch", "x86_64", "--config", "tinyconfig"];
        all.extend(["--format", "json"]);
        all.extend(more);
        let output = ground.bombproof(&all).output().unwrap();
        (output.status.code(), serde_json::from_slice::<Value>(&output.stdout).unwrap())
    };
    let (code, report) = run("gate", &[]);
    assert_eq!((code, letters(&report, "x86_64").as_str()), (Some(0), "b!!!b"));
    let (code, report) = run("check", &[]);
    assert_eq!((code, letters(&report, "x86_64").as_str()), (Some(1), "bbFfb"));
    assert_eq!(report["cost"]["states_cached"], 2);
    assert_eq!(run("check", &["--bisect-exit"]).0, Some(1));
    assert_eq!(run("check", &["--fail-on", "warnings"]).0, Some(0));
}

#[test]
fn targets_of_a_file_have_fragments_and_what_did_not_take_effect_is_said() {
    let ground = Ground::new();
    let series = top().join("fixtures/series/nothing-compiled").display().to_string();
    ground.file("no-net.config", "# CONFIG_NET is not set\nCONFIG_NOWHERE=y\n");
    ground.file(
        "bombproof.toml",
        "[[target]]\nname = \"small\"\narch = \"x86_64\"\nconfig = \"tinyconfig\"\nfragments = [\"no-net.config\"]\n\
         [[target]]\nname = \"other\"\narch = \"s390x\"\nconfig = \"tinyconfig\"\n",
    );
    let output = ground
        .bombproof(&["check", &series, "--repo", "repo", "--base", "base", "--target", "small", "--format", "json"])
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["targets"].as_array().unwrap().len(), 1);
    assert_eq!(report["targets"][0]["config"], "tinyconfig+no-net.config");
    assert_eq!(report["targets"][0]["not_effective"][0], "NOWHERE=y (got: not set)");
    assert_eq!(report["verdicts"][1]["verdict"], "not-compiled");
    let unknown =
        ground.bombproof(&["check", &series, "--repo", "repo", "--base", "base", "--target", "nope"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("its targets: small, other"));
}
