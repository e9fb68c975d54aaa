//! A farm of real processes on one machine: coordinator, workers and clients, and what becomes of a series when they die.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]

mod common;
mod on_farm;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Ground, Process, run, until};
use on_farm::{Farm, commits, fixture_names, image, lasting, patches, report, series, strs, verdicts};
use serde_json::Value;

#[test]
fn the_report_of_a_farm_is_that_of_one_machine() {
    let ground = Ground::new();
    let farm = Farm::start(&ground, 15_000);
    let _workers = [farm.worker("one", &[]), farm.worker("two", &[])];
    let mut wrong = Vec::new();
    for name in fixture_names() {
        let folder = patches(&ground, &name);
        let args = ["check", &folder, "--repo", "repo", "--base", "base", "--arch", "x86_64,s390x", "--config"];
        let args = [&args[..], &["tinyconfig", "--format", "json"]].concat();
        let (code, here) = report(&ground.bombproof(&args).output().unwrap());
        let (farm_code, there) = report(&farm.command(&args).output().unwrap());
        if (code, lasting(here.clone())) != (farm_code, lasting(there.clone())) {
            wrong.push(format!("{name}: {code:?} {farm_code:?}\n{:#}\n{:#}", lasting(here), lasting(there)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The same by range, whose commits the farm does not have.
    commits(&ground, 2);
    let args = ["check", "base..main", "--repo", "repo", "--arch", "x86_64", "--config", "tinyconfig"];
    let args = [&args[..], &["--format", "json"]].concat();
    let here = report(&ground.bombproof(&args).output().unwrap());
    let there = report(&farm.command(&args).output().unwrap());
    assert_eq!((here.0, lasting(here.1)), (there.0, lasting(there.1)));
    let listed = farm.ask(&["list"]);
    assert_eq!(listed.lines().count(), fixture_names().len() + 1, "{listed}");
    let explained = farm.ask(&["explain", "1", "x86_64"]);
    assert!(explained.contains("verdict    builds"), "{explained}");
}

#[test]
fn a_worker_builds_in_containers_and_the_report_is_the_same() {
    let Some(image) = image() else { return };
    let ground = Ground::new();
    let farm = Farm::start(&ground, 15_000);
    let mut worker = farm.worker_in(&["--sandbox", "container", "--image", &image], "one", &[]);
    for name in ["breaks-at-2-heals-at-4", "warning-swapped"] {
        let folder = patches(&ground, name);
        let args = ["check", &folder, "--repo", "repo", "--base", "base", "--arch", "x86_64,s390x", "--config"];
        let args = [&args[..], &["tinyconfig", "--format", "json"]].concat();
        let (code, here) = report(&ground.bombproof(&args).output().unwrap());
        let (farm_code, there) = report(&farm.command(&args).output().unwrap());
        assert_eq!(there["run"]["sandbox"], "container", "{there:#}");
        assert_eq!((code, lasting(here)), (farm_code, lasting(there)), "{name}");
    }
    worker.signal("TERM");
    assert_eq!(worker.ends(), Some(0));
    let home = ground.path().join("home-one").canonicalize().unwrap();
    let label = format!("label=org.bombproof.home={}", home.display());
    until("its containers are gone", || {
        let left = run(Command::new("docker").args(["ps", "-aq", "--filter", &label])).stdout;
        left.is_empty().then_some(())
    });
}

#[test]
fn the_same_series_of_two_users_is_paid_once() {
    let ground = Ground::new();
    let args = [&series("breaks-at-2-heals-at-4")[..], &["--arch".to_owned(), "x86_64".to_owned()]].concat();
    let args = strs(&args);
    let farm = Farm::start(&ground, 15_000);
    let first = farm.submit(&args);
    let second = farm.submit(&args);
    // Both wait for the same before anybody can do it.
    farm.coordinator.says(&format!("series {second}: there is no worker"));
    let _workers = [farm.worker("one", &[]), farm.worker("two", &[])];
    let (one, two) = (farm.report(&first), farm.report(&second));
    assert_eq!(one.0, Some(1));
    assert_eq!(verdicts(&one.1), verdicts(&two.1));
    let both = farm.settled();
    let other = Ground::new();
    let alone = Farm::start(&other, 15_000);
    let only = alone.submit(&args);
    let _worker = alone.worker("one", &[]);
    assert_eq!(verdicts(&alone.report(&only).1), verdicts(&one.1));
    assert_eq!(both, alone.settled());
}

#[test]
fn a_cancelled_series_frees_its_slots() {
    let ground = Ground::new();
    commits(&ground, 2);
    let farm = Farm::start(&ground, 15_000);
    let _worker = farm.worker("one", &[]);
    let id = farm.submit(&["base..main", "--repo", "repo", "--exec", "sleep 1000"]);
    until("it runs", || (farm.used("one")? == "1/1").then_some(()));
    let begin = Instant::now();
    assert!(farm.ask(&["cancel", &id]).contains("cancelled"));
    until("the slot is free", || (farm.used("one")? == "0/1").then_some(()));
    // Two seconds on a machine that has nothing else to do.
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
    assert!(farm.ask(&["cancel", &id]).contains("over already"));
    let (code, report) = farm.report(&id);
    assert_eq!((code, &report["run"]["finished"]), (Some(2), &Value::Bool(false)));
    // The worker is as good as new.
    let next = farm.submit(&["base..main", "--repo", "repo", "--exec", "true"]);
    assert_eq!(farm.report(&next).0, Some(0));
}

#[test]
fn a_series_goes_on_when_its_client_is_killed() {
    let ground = Ground::new();
    commits(&ground, 2);
    let farm = Farm::start(&ground, 15_000);
    let mut command = farm.command(&["check", "base..main", "--repo", "repo", "--exec", "sleep 1"]);
    let mut client = Process::start(&mut command, ground.path().join("client.log"));
    let id = until("the series has an id", || {
        let said = client.said();
        Some(said.split_once("  series ")?.1.split_once(' ')?.0.to_owned())
    });
    client.kill();
    let _worker = farm.worker("one", &[]);
    assert_eq!(farm.report(&id).0, Some(0));
}

#[test]
fn a_worker_that_is_killed_loses_nothing_but_its_work() {
    let ground = Ground::new();
    let args = [&series("breaks-at-2-heals-at-4")[..], &["--arch".to_owned(), "x86_64,s390x".to_owned()]].concat();
    let want =
        report(&ground.bombproof(&[&["check"], &strs(&args)[..], &["--format", "json"]].concat()).output().unwrap());
    commits(&ground, 4);
    let farm = Farm::start(&ground, 1_500);
    let mut one = farm.worker("one", &[]);
    let _two = farm.worker("two", &[]);
    let id = farm.submit(&["base..main", "--repo", "repo", "--exec", "sleep 2; grep -q 1 notes && exit 1; exit 0"]);
    until("the first one is at it", || (farm.used("one")? == "1/1").then_some(()));
    one.kill();
    let (code, found) = farm.report(&id);
    assert_eq!(code, Some(1));
    let words = ["builds", "builds", "fails", "builds", "builds"].map(str::to_owned);
    assert_eq!(verdicts(&found), (0..).zip(words).collect::<Vec<_>>());
    // And in the middle of builds, again and again.
    let id = farm.submit(&strs(&args));
    let kills = std::thread::scope(|scope| {
        let watching = scope.spawn(|| farm.report(&id));
        let mut kills = 0;
        while !watching.is_finished() && kills < 2 {
            let mut three = farm.worker(&format!("three-{kills}"), &[]);
            std::thread::sleep(Duration::from_millis(700));
            three.kill();
            kills += 1;
        }
        let (code, found) = watching.join().unwrap();
        assert_eq!((code, verdicts(&found)), (want.0, verdicts(&want.1)));
        assert_eq!(found["diagnostics"], want.1["diagnostics"]);
        kills
    });
    assert!(kills > 0);
}

#[test]
fn a_worker_that_stood_still_past_its_lease_is_not_listened_to() {
    let ground = Ground::new();
    commits(&ground, 1);
    let farm = Farm::start(&ground, 1_000);
    let one = farm.worker("one", &[]);
    let id = farm.submit(&["base..main", "--repo", "repo", "--exec", "sleep 3"]);
    until("it runs", || (farm.used("one")? == "1/1").then_some(()));
    one.signal("STOP");
    farm.coordinator.says("worker 'one' is not heard any more");
    let _two = farm.worker("two", &[]);
    assert_eq!(farm.report(&id).0, Some(0));
    let settled = farm.settled();
    one.signal("CONT");
    // It is one of the farm again, and what it did meanwhile settles nothing.
    until("it is heard again", || (farm.used("one")? == "0/1").then_some(()));
    assert_eq!(farm.settled(), settled);
}

#[test]
fn a_coordinator_that_is_killed_goes_on_where_it_was() {
    let ground = Ground::new();
    let args = [&series("breaks-at-2-heals-at-4")[..], &["--arch".to_owned(), "x86_64,s390x".to_owned()]].concat();
    let want =
        report(&ground.bombproof(&[&["check"], &strs(&args)[..], &["--format", "json"]].concat()).output().unwrap());
    let mut farm = Farm::start(&ground, 15_000);
    let _workers = [farm.worker("one", &[]), farm.worker("two", &[])];
    let mut command =
        farm.command(&[&["check"], &strs(&args)[..], &["--format", "json", "--output", "out.json"]].concat());
    let mut client = Process::start(&mut command, ground.path().join("client.log"));
    client.says("  series ");
    for pause in [300, 2_000] {
        std::thread::sleep(Duration::from_millis(pause));
        farm.restart();
    }
    assert_eq!(client.ends(), want.0, "{}", client.said());
    let found: Value = serde_json::from_slice(&std::fs::read(ground.path().join("out.json")).unwrap()).unwrap();
    assert_eq!((verdicts(&found), &found["diagnostics"]), (verdicts(&want.1), &want.1["diagnostics"]));
    assert_eq!(found["summary"], want.1["summary"]);
}

#[test]
fn a_worker_that_is_told_to_end_gives_its_work_back() {
    let ground = Ground::new();
    commits(&ground, 1);
    let farm = Farm::start(&ground, 15_000);
    let mut one = farm.worker("one", &["--grace", "0"]);
    let id =
        farm.submit(&["base..main", "--repo", "repo", "--exec", "test -e /bombproof/src/notes || sleep 1; sleep 4"]);
    until("it runs", || (farm.used("one")? == "1/1").then_some(()));
    one.signal("TERM");
    assert_eq!(one.ends(), Some(0), "{}", one.said());
    let _two = farm.worker("two", &[]);
    let (code, report) = farm.report(&id);
    assert_eq!(code, Some(0), "{report:#}");
}

#[test]
fn what_a_farm_refuses_is_the_request_that_is_wrong() {
    let ground = Ground::new();
    let farm = Farm::start(&ground, 15_000);
    let fails = |args: &[&str], words: &str, code: i32| {
        let output = farm.command(args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), said.contains(words)), (Some(code), true), "{args:?}: {said}");
    };
    fails(&["watch", "nothing"], "there is no series 'nothing'", 64);
    fails(&["cancel", "nothing"], "there is no series 'nothing'", 64);
    fails(&["check", "base..base", "--repo", "repo", "--exec", "true"], "holds no patch", 64);
    commits(&ground, 1);
    fails(&["submit", "base..main", "--repo", "repo", "--exec", "true", "--farm-repo", "nowhere"], "no repository", 64);
    let open = ground.bombproof(&["coordinator", "--listen", "0.0.0.0:0", "--home", "other"]).output().unwrap();
    assert_eq!(open.status.code(), Some(64), "{}", String::from_utf8_lossy(&open.stderr));
    let gone = ground.bombproof(&["list", "--coordinator", "http://127.0.0.1:9"]).output().unwrap();
    assert_eq!(gone.status.code(), Some(2), "{}", String::from_utf8_lossy(&gone.stderr));
    assert!(Path::new(&ground.path().join("coordinator/register.redb")).is_file());
}

#[test]
fn a_farm_that_knows_its_callers_lets_nobody_else_in() {
    let ground = Ground::new();
    commits(&ground, 1);
    run(&mut ground.bombproof(&["pki", "init", "pki"]));
    let token = |name: &str, role: &str| {
        let token = run(&mut ground.bombproof(&["pki", "token", "pki", name, "--role", role])).stdout;
        ground.file(&format!("{name}.token"), token)
    };
    let [ann, bob, worker] = [token("ann", "submit"), token("bob", "submit"), token("w", "worker")];
    let mut command = ground.bombproof(&["coordinator", "--listen", "127.0.0.1:0", "--home", "coordinator"]);
    command.args(["--pki", "pki", "--max-open", "1"]);
    let coordinator = Process::start(&mut command, ground.path().join("coordinator.log"));
    let address = until("the coordinator listens", || {
        Some(coordinator.said().lines().find_map(|line| line.strip_prefix("listening on "))?.to_owned())
    });
    let reach = ["--coordinator", &format!("https://{address}"), "--ca", "pki/ca.pem"].map(str::to_owned);
    let ask = |args: &[&str], token: Option<&str>| {
        let mut command = ground.bombproof(args);
        command.args(&reach);
        if let Some(token) = token {
            command.args(["--token-file", token]);
        }
        command.output().unwrap()
    };
    let mut command = ground.bombproof(&["worker", "--name", "w", "--home", "home-w", "--slots", "1"]);
    command.args(&reach).args(["--token-file", &worker, "--sandbox", "namespaces"]);
    let _worker = Process::start(&mut command, ground.path().join("w.log"));
    let series = ["base..main", "--repo", "repo", "--exec", "true"];
    let nobody = ask(&[&["submit"], &series[..]].concat(), None);
    assert_eq!(nobody.status.code(), Some(64), "{}", String::from_utf8_lossy(&nobody.stderr));
    let wrong = ask(&[&["submit"], &series[..]].concat(), Some(&worker));
    assert_eq!(wrong.status.code(), Some(64), "{}", String::from_utf8_lossy(&wrong.stderr));
    let checked = ask(&[&["check"], &series[..]].concat(), Some(&ann));
    assert_eq!(checked.status.code(), Some(0), "{}", String::from_utf8_lossy(&checked.stderr));
    let long = ask(&["submit", "base..main", "--repo", "repo", "--exec", "sleep 1000"], Some(&ann));
    let id = String::from_utf8(long.stdout).unwrap().trim().to_owned();
    let second = ask(&[&["submit"], &series[..]].concat(), Some(&ann));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!((second.status.code(), said.contains("not over, and 1 may be")), (Some(64), true), "{said}");
    let other = ask(&["cancel", &id], Some(&bob));
    assert_eq!(other.status.code(), Some(64), "{}", String::from_utf8_lossy(&other.stderr));
    // A token that is taken back counts no more, also in a call that began with it.
    let mut command = ground.bombproof(&["watch", &id]);
    let mut watching = command.args(&reach).args(["--token-file", &bob]).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    assert!(watching.try_wait().unwrap().is_none(), "it watches");
    let access = std::fs::read_to_string(ground.path().join("pki/access")).unwrap();
    let (bobs, others): (Vec<&str>, Vec<&str>) = access.lines().partition(|line| line.ends_with(" bob"));
    assert_eq!(bobs.len(), 1, "{access}");
    ground.file("pki/access", others.join("\n") + "\n");
    let ended = until("the watch ends", || watching.try_wait().unwrap());
    assert_eq!(ended.code(), Some(64));
    ground.file("pki/access", access);
    assert_eq!(ask(&["cancel", &id], Some(&ann)).status.code(), Some(0));
    let listed = String::from_utf8(ask(&["list"], Some(&bob)).stdout).unwrap();
    assert!(listed.lines().all(|line| line.contains("  ann  ")), "{listed}");
}
