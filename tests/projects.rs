//! A farm of real processes that two projects share.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::process::{Command, Output};

use common::{Ground, Process, run, top, until};

/// A coordinator that knows its callers by tokens, and a worker.
struct Shared<'a> {
    ground: &'a Ground,
    url: String,
    _coordinator: Process,
    _worker: Process,
}

impl<'a> Shared<'a> {
    fn start(ground: &'a Ground, callers: &[(&str, &str)]) -> Self {
        run(&mut ground.bombproof(&["pki", "init", "pki"]));
        for (name, project) in callers {
            let args = ["pki", "token", "pki", name, "--role", "submit", "--project", project];
            ground.file(&format!("{name}.token"), run(&mut ground.bombproof(&args)).stdout);
        }
        let worker = run(&mut ground.bombproof(&["pki", "token", "pki", "w", "--role", "worker"])).stdout;
        ground.file("w.token", worker);
        let args = ["coordinator", "--listen", "127.0.0.1:0", "--home", "coordinator", "--pki", "pki"];
        let coordinator = Process::start(&mut ground.bombproof(&args), ground.path().join("coordinator.log"));
        let address = until("the coordinator listens", || {
            Some(coordinator.said().lines().find_map(|line| line.strip_prefix("listening on "))?.to_owned())
        });
        let url = format!("https://{address}");
        let args = ["worker", "--name", "w", "--home", "home-w", "--slots", "2", "--sandbox", "namespaces"];
        let mut command = ground.bombproof(&args);
        reach(&mut command, &url, "w");
        let worker = Process::start(&mut command, ground.path().join("w.log"));
        coordinator.says("worker 'w' came");
        Self { ground, url, _coordinator: coordinator, _worker: worker }
    }

    fn ask(&self, who: &str, args: &[&str]) -> Output {
        let mut command = self.ground.bombproof(args);
        reach(&mut command, &self.url, who);
        command.output().unwrap()
    }

    /// What somebody is told who asks for something that must be given.
    fn told(&self, who: &str, args: &[&str]) -> String {
        let output = self.ask(who, args);
        assert!(output.status.success(), "{who} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// What somebody is told who is refused.
    fn refused(&self, who: &str, args: &[&str]) -> String {
        let output = self.ask(who, args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{who} {args:?}: {said}");
        said
    }

    /// Jobs that were settled.
    fn settled(&self) -> String {
        let status = self.told("ann", &["status"]);
        status.lines().find_map(|line| line.strip_prefix("farm: ")?.split(", ").last().map(str::to_owned)).unwrap()
    }
}

fn reach(command: &mut Command, url: &str, who: &str) {
    command.args(["--coordinator", url, "--ca", "pki/ca.pem", "--token-file", &format!("{who}.token")]);
}

#[test]
fn two_projects_share_a_farm_and_know_nothing_of_each_other() {
    let ground = Ground::new();
    let farm = Shared::start(&ground, &[("ann", "drivers"), ("bob", "net"), ("dora", "net,drivers")]);
    for text in ["one", "two"] {
        std::fs::write(ground.repo().join("notes"), text).unwrap();
        ground.git(&["add", "-A"]);
        ground.git(&["commit", "-q", "-m", text]);
    }
    let series = ["base..main", "--repo", "repo", "--arch", "x86_64", "--config", "tinyconfig"];
    let check = [&["check"][..], &series].concat();
    let first = farm.ask("ann", &check);
    let said = String::from_utf8_lossy(&first.stderr).into_owned();
    assert_eq!(first.status.code(), Some(0), "{said}");
    assert!(said.contains("the farm does not have everything"), "{said}");
    let list = farm.told("ann", &["list"]);
    assert!(list.ends_with("base..main  (project drivers)"), "{list}");
    let id = list.split(' ').next().unwrap().to_owned();
    // To the other project neither the series nor its commits are there.
    assert!(farm.told("bob", &["list"]).ends_with("has no series"));
    for args in [
        &["status", &id][..],
        &["watch", &id],
        &["report", &id],
        &["explain", "1", "x86_64", "--run", &id],
        &["cancel", &id],
    ] {
        let nothing = args.iter().map(|word| if *word == id { "nothing" } else { word }).collect::<Vec<_>>();
        let refusals = [farm.refused("bob", args), farm.refused("bob", &nothing).replace("nothing", &id)];
        assert_eq!(refusals[0], refusals[1]);
        assert!(refusals[0].contains("there is no series"), "{args:?}: {}", refusals[0]);
    }
    assert!(farm.told("ann", &["explain", "1", "x86_64"]).contains("verdict    builds"));
    // Who hands in the same has it judged, and nothing is built twice.
    let settled = farm.settled();
    let second = farm.ask("bob", &check);
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(0), "{said}");
    assert!(said.contains("the farm does not have everything"), "{said}");
    assert_eq!(farm.settled(), settled);
    let again = String::from_utf8_lossy(&farm.ask("bob", &check).stderr).into_owned();
    assert!(!again.contains("the farm does not have everything"), "{again}");
    // Who is in both says which one is meant.
    let submit = [&["submit"][..], &series].concat();
    assert!(farm.refused("dora", &submit).contains("name one with --project"));
    assert!(farm.refused("ann", &[&submit[..], &["--project", "net"]].concat()).contains("is none of yours: drivers"));
    let of_dora = farm.told("dora", &[&submit[..], &["--project", "net"]].concat());
    assert!(farm.ask("bob", &["watch", &of_dora]).status.success());
    assert!(!farm.told("ann", &["list"]).contains(&of_dora));
    assert_eq!(farm.told("dora", &["list"]).lines().count(), 4);
    // A series of patches in the other project goes on a base that came in a pack.
    let folder = top().join("fixtures/series/warning-swapped").display().to_string();
    let args = ["check", &folder, "--repo", "repo", "--base", "base", "--arch", "x86_64", "--config", "tinyconfig"];
    let (there, here) = (farm.ask("bob", &args), ground.bombproof(&args).output().unwrap());
    assert_eq!(there.status.code(), here.status.code(), "{}", String::from_utf8_lossy(&there.stderr));
}
