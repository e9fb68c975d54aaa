//! A farm of real processes on one machine: coordinator, workers and clients, and what becomes of a series when they die.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]

mod common;

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use common::{Ground, Process, run, top, until};
use serde_json::Value;

/// A coordinator, and whatever workers a test starts.
struct Farm<'a> {
    ground: &'a Ground,
    coordinator: Process,
    url: String,
    lease_ms: u64,
}

impl<'a> Farm<'a> {
    fn start(ground: &'a Ground, lease_ms: u64) -> Self {
        let coordinator = Self::coordinator(ground, "127.0.0.1:0", lease_ms);
        let address = until("the coordinator listens", || {
            let said = coordinator.said();
            let line = said.lines().find_map(|line| line.strip_prefix("listening on "));
            line.map(str::to_owned)
        });
        Self { ground, coordinator, url: format!("http://{address}"), lease_ms }
    }

    fn coordinator(ground: &Ground, listen: &str, lease_ms: u64) -> Process {
        let mut command = ground.bombproof(&["coordinator", "--listen", listen, "--home", "coordinator"]);
        command.args(["--lease-ms", &lease_ms.to_string()]);
        Process::start(&mut command, ground.path().join("coordinator.log"))
    }

    /// Kills the coordinator and starts it again on the same address.
    fn restart(&mut self) {
        self.coordinator.kill();
        let listen = self.url.strip_prefix("http://").unwrap().to_owned();
        self.coordinator = Self::coordinator(self.ground, &listen, self.lease_ms);
    }

    fn worker(&self, name: &str, more: &[&str]) -> Process {
        self.worker_in(&["--sandbox", "namespaces"], name, more)
    }

    fn worker_in(&self, sandbox: &[&str], name: &str, more: &[&str]) -> Process {
        let home = format!("home-{name}");
        let mut command = self.ground.bombproof(&["worker", "--coordinator", &self.url, "--name", name]);
        command.args(["--home", &home, "--slots", "1"]).args(sandbox).args(more);
        let worker = Process::start(&mut command, self.ground.path().join(format!("{name}.log")));
        self.coordinator.says(&format!("worker '{name}' came"));
        worker
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.ground.bombproof(args);
        command.args(["--coordinator", &self.url]);
        command
    }

    fn ask(&self, args: &[&str]) -> String {
        String::from_utf8(run(&mut self.command(args)).stdout).unwrap()
    }

    fn submit(&self, args: &[&str]) -> String {
        self.ask(&[&["submit"], args].concat()).trim().to_owned()
    }

    /// Waits for the end of a series; gives its report.
    fn report(&self, series: &str) -> (Option<i32>, Value) {
        report(&self.command(&["watch", series, "--format", "json"]).output().unwrap())
    }

    /// How many slots of a worker are used.
    fn used(&self, worker: &str) -> Option<String> {
        let status = self.ask(&["status"]);
        let line = status.lines().find(|line| line.trim_start().starts_with(worker))?;
        Some(line.split_whitespace().rev().nth(2)?.to_owned())
    }

    fn settled(&self) -> u64 {
        let status = self.ask(&["status"]);
        let line = status.lines().find(|line| line.starts_with("farm:")).unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let place = words.iter().position(|word| *word == "settled").unwrap();
        words[place - 1].parse().unwrap()
    }
}

fn report(output: &Output) -> (Option<i32>, Value) {
    let report = serde_json::from_slice(&output.stdout);
    let report = report.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), report)
}

/// A report without what differs from run to run.
fn lasting(mut report: Value) -> Value {
    let id = report["run"]["id"].as_str().unwrap().to_owned();
    for field in ["id", "started_at", "duration_ms", "sandbox"] {
        report["run"].as_object_mut().unwrap().remove(field);
    }
    report.as_object_mut().unwrap().remove("cost");
    serde_json::from_str(&report.to_string().replace(&id, "RUN")).unwrap()
}

fn verdicts(report: &Value) -> Vec<(u64, String)> {
    let entries = report["verdicts"].as_array().unwrap().iter();
    entries.map(|it| (it["patch"].as_u64().unwrap(), it["verdict"].as_str().unwrap().to_owned())).collect()
}

/// A fixture series, as arguments.
fn series(name: &str) -> Vec<String> {
    let folder = top().join("fixtures/series").join(name).display().to_string();
    [&folder, "--repo", "repo", "--base", "base", "--config", "tinyconfig"].map(str::to_owned).to_vec()
}

fn strs(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

/// A range of commits that a command is run for, in so many states.
fn commits(ground: &Ground, count: usize) {
    for number in 0..count {
        std::fs::write(ground.repo().join("notes"), format!("{number}\n")).unwrap();
        ground.git(&["add", "-A"]);
        ground.git(&["commit", "-q", "-m", &format!("note {number}")]);
    }
}

fn fixture_names() -> Vec<String> {
    let entries = std::fs::read_dir(top().join("fixtures/series")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The patches of a fixture in a folder of their own: beside them lies what is expected.
fn patches(ground: &Ground, name: &str) -> String {
    let to = ground.path().join("patches").join(name);
    if !to.exists() {
        std::fs::create_dir_all(&to).unwrap();
        for entry in std::fs::read_dir(top().join("fixtures/series").join(name)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|end| end == "patch") {
                std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
            }
        }
    }
    to.display().to_string()
}

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

/// The image of builds, where there is an engine; without the image the test is wrong, not left out.
fn image() -> Option<String> {
    let image = std::env::var("BOMBPROOF_IMAGE").unwrap_or_else(|_| "bombproof-worker:latest".to_owned());
    let docker = |args: &[&str]| Command::new("docker").args(args).output().is_ok_and(|it| it.status.success());
    if !docker(&["version"]) {
        eprintln!("NOT TESTED: no container engine answers");
        return None;
    }
    assert!(docker(&["image", "inspect", &image]), "there is no image '{image}': 'make images' makes it");
    Some(image)
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
