//! Hostile builds on a farm whose worker builds in containers: what they are is reported, and who builds beside them on the same worker is
//! not disturbed.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]

mod attacks;
mod common;
mod on_farm;

use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use attacks::{ATTACKS, Attack};
use common::{Ground, Process, Small, run};
use on_farm::{Farm, image, report, settled_by};
use serde_json::Value;

/// What only a farm has to be guarded against, and what lies about the machine.
const ON_A_FARM: &[Attack] = &[
    Attack {
        what: "reaches the coordinator, the register and whatever else listens on the worker's machine",
        script: "for a in 127.0.0.1/@PORT@ 127.0.0.1/@COORDINATOR@ @GATEWAY@/@PORT@ @GATEWAY@/@COORDINATOR@; do \
                 bash -c \"exec 3<>/dev/tcp/$$a\" && exit 0; done; false",
        verdict: "fails",
        words: "attack failed",
    },
    Attack {
        what: "asks the cloud for its credentials",
        script: "bash -c 'exec 3<>/dev/tcp/169.254.169.254/80'",
        verdict: "fails",
        words: "Network is unreachable",
    },
    Attack {
        what: "writes into the stores of worker and coordinator",
        script: "sh -c 'echo x > @HOME@/cas/x || echo x > @STORE@/cas/x || echo x > @STORE@/register.redb'",
        verdict: "fails",
        words: "cannot create",
    },
    Attack {
        what: "takes the place of our program and of the compiler",
        script: "sh -c 'echo x > /bombproof/bombproof || cp /bin/true /usr/bin/gcc || cp /bin/true /bombproof/bin/gcc'",
        verdict: "fails",
        words: "attack failed",
    },
    Attack {
        what: "puts links to the machine into its build folder",
        script: "ln -sfn / /bombproof/out/kernel && ln -sf /etc/passwd /bombproof/out/.config && false",
        verdict: "fails",
        words: "attack failed",
    },
    Attack { what: "kills whatever it can", script: "kill -9 -1", verdict: "not-judged", words: "killed" },
    Attack {
        what: "only says that the disk is full",
        script: "sh -c 'echo cc1: error: writing kernel/fork.o: No space left on device >&2; exit 1'",
        verdict: "fails",
        words: "No space left on device",
    },
    Attack {
        what: "only says that nothing can be written",
        script: "sh -c 'echo touch: cannot touch x: Read-only file system >&2; exit 1'",
        verdict: "fails",
        words: "Read-only file system",
    },
];

/// A port of this machine, on all of its addresses, that counts who comes.
fn listen() -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let (port, count) = (listener.local_addr().unwrap().port(), Arc::new(AtomicU64::new(0)));
    let counting = Arc::clone(&count);
    std::thread::spawn(move || {
        for _ in listener.incoming() {
            counting.fetch_add(1, Ordering::Relaxed);
        }
    });
    (port, count)
}

/// The address of this machine in the network of the engine.
fn gateway() -> String {
    let args = ["network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}"];
    let said = Command::new("docker").args(args).output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap().trim().to_owned();
    if said.is_empty() { "172.17.0.1".to_owned() } else { said }
}

/// Harmless patches that nobody built before, of which the second one breaks a file and the third one heals it.
fn neighbour(ground: &Ground, name: &str) {
    ground.git(&["checkout", "-q", "-B", name, "base"]);
    let path = ground.repo().join("kernel/fork.c");
    let text = std::fs::read_to_string(&path).unwrap();
    for (subject, added) in [("one", String::new()), ("two", "int x = nowhere;\n".to_owned()), ("three", String::new())]
    {
        std::fs::write(&path, format!("{text}/* {subject} {name} */\n{added}")).unwrap();
        ground.git(&["commit", "-qam", subject]);
    }
}

fn range(branch: &str) -> [&str; 7] {
    [branch, "--repo", "repo", "--arch", "x86_64", "--config", "tinyconfig"]
}

fn alone(ground: &Ground, branch: &str) -> (Option<i32>, Value) {
    let args = [&["check"], &range(branch)[..], &["--format", "json"]].concat();
    let (code, found) = report(&ground.bombproof(&args).output().unwrap());
    (code, settled_by(found))
}

/// A farm of one worker with two containers, on a disk of its own.
struct Site<'a> {
    farm: Farm<'a>,
    worker: Process,
    wrong: Vec<String>,
}

impl<'a> Site<'a> {
    fn open(ground: &'a Ground, image: &str) -> Self {
        let farm = Farm::start(ground, 15_000);
        let sandbox = ["--sandbox", "container", "--image", image, "--slot-memory", "768MiB"];
        let worker = farm.worker_in(&sandbox, "one", &["--slots", "2"]);
        Self { farm, worker, wrong: Vec::new() }
    }

    /// Has a hostile series and a harmless one built beside each other.
    fn suffer(&mut self, ground: &Ground, number: usize, attack: &Attack, known: &[(&str, &str)]) {
        let (hostile, beside) = (format!("hostile-{number}"), format!("beside-{number}"));
        attack.branch(ground, &hostile, known);
        neighbour(ground, &beside);
        let (hostile, beside) = (format!("base..{hostile}"), format!("base..{beside}"));
        let want = alone(ground, &beside);
        let bad = self.farm.submit(&range(&hostile));
        let good = self.farm.submit(&range(&beside));
        let (code, found) = self.farm.report(&good);
        let found = (code, settled_by(found));
        if found != want {
            self.wrong.push(format!("{} disturbs another series:\n{:#}\n{:#}", attack.what, found.1, want.1));
        }
        let (_, found) = self.farm.report(&bad);
        let of = |patch: usize| &found["verdicts"][patch];
        let log = ground.path().join("coordinator/runs").join(&bad).join("logs/x86_64-tinyconfig/2.log");
        let log = std::fs::read(log).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default();
        let told = format!("{} {log}", of(2));
        if of(2)["verdict"] != attack.verdict || !told.contains(attack.words) {
            self.wrong.push(format!("{}: {told}", attack.what));
        }
        for patch in [0, 1, 3] {
            if of(patch)["verdict"] != "builds" {
                self.wrong.push(format!("{} disturbs {patch}: {}", attack.what, of(patch)));
            }
        }
    }

    /// The stores are whole, and nothing is left but what belongs there.
    fn close(self, ground: &Ground) {
        assert!(self.wrong.is_empty(), "{}\n{}", self.wrong.join("\n"), self.worker.said());
        for home in ["home-one", "coordinator"] {
            let mut command = ground.bombproof(&["cache", "verify"]);
            command.env("BOMBPROOF_HOME", ground.path().join(home));
            run(&mut command);
        }
        let all = run(Command::new("ps").args(["-eo", "args"])).stdout;
        assert!(!String::from_utf8_lossy(&all).contains("sleep 98761"), "a process was left behind");
    }
}

#[test]
fn what_a_hostile_build_tries_to_reach_is_not_there() {
    let Some(image) = image() else { return };
    let ground = Ground::new();
    let (port, count) = listen();
    let mut site = Site::open(&ground, &image);
    let [home, store] = ["home-one", "coordinator"].map(|name| ground.path().join(name).display().to_string());
    let (port, coordinator, gateway) = (port.to_string(), site.farm.port().to_string(), gateway());
    let known = [
        ("@HOME@", home.as_str()),
        ("@STORE@", &store),
        ("@PORT@", &port),
        ("@COORDINATOR@", &coordinator),
        ("@GATEWAY@", &gateway),
    ];
    let before = std::fs::read("/etc/passwd").unwrap();
    for (number, attack) in ON_A_FARM.iter().enumerate() {
        site.suffer(&ground, number, attack, &known);
    }
    assert_eq!(count.load(Ordering::Relaxed), 0, "a build reached a port of this machine");
    assert_eq!(std::fs::read("/etc/passwd").unwrap(), before);
    site.close(&ground);
}

#[test]
fn what_a_hostile_build_uses_up_is_its_own() {
    let Some(image) = image() else { return };
    let ground = Ground::new();
    let home = ground.path().join("home-one");
    let Some(_small) = Small::mount(&home, "size=1g") else { return };
    let mut site = Site::open(&ground, &image);
    let home = home.display().to_string();
    for (number, attack) in ATTACKS.iter().enumerate() {
        site.suffer(&ground, number, attack, &[("@HOME@", &home)]);
    }
    site.close(&ground);
}
