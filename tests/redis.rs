//! Coordinators that share a register in Redis: what becomes of a series when one of them, or the server, dies, stands still or forgets.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]

mod common;

use std::process::Command;

use common::{Ground, Process, run, until};
use serde_json::Value;

/// How long the others wait, in milliseconds: more than a busy machine stands still.
const REIGN_MS: &str = "2000";

/// A port that nobody has at the moment.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A server on loopback, whose data are in a folder of the ground.
struct Redis<'a> {
    ground: &'a Ground,
    port: u16,
    process: Process,
}

impl<'a> Redis<'a> {
    /// `None`: there is none on this machine.
    fn start(ground: &'a Ground) -> Option<Self> {
        if !Command::new("redis-server").arg("--version").output().is_ok_and(|it| it.status.success()) {
            eprintln!("NOT TESTED: there is no redis-server; 'make test' installs it");
            return None;
        }
        let port = free_port();
        let process = Self::process(ground, port);
        let redis = Self { ground, port, process };
        redis.answers();
        Some(redis)
    }

    fn process(ground: &Ground, port: u16) -> Process {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "yes"]);
        command.args(["--appendfsync", "always", "--dir"]).arg(ground.path());
        Process::start(&mut command, ground.path().join("redis.log"))
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("redis-cli");
        command.args(["-p", &self.port.to_string()]).args(words);
        command
    }

    fn ask(&self, words: &[&str]) -> String {
        String::from_utf8(run(&mut self.command(words)).stdout).unwrap()
    }

    fn answers(&self) {
        until("redis answers", || {
            let said = self.command(&["PING"]).output().unwrap();
            said.stdout.starts_with(b"PONG").then_some(())
        });
    }

    /// Kills it and starts it again, with what is on its disk.
    fn restart(&mut self) {
        self.process.kill();
        self.process = Self::process(self.ground, self.port);
        self.answers();
    }
}

/// Two coordinators and a worker.
struct Farm<'a> {
    ground: &'a Ground,
    redis: u16,
    ports: [u16; 2],
    /// The first one leads at the start.
    coordinators: [Process; 2],
    worker: Process,
    urls: String,
}

impl<'a> Farm<'a> {
    fn start(ground: &'a Ground, redis: &Redis<'_>) -> Self {
        let ports = [free_port(), free_port()];
        let first = Self::coordinator(ground, redis.port, ports[0], 0);
        first.says("reign ");
        let second = Self::coordinator(ground, redis.port, ports[1], 1);
        second.says("another coordinator leads");
        // The one that does not lead is asked first.
        let urls = format!("http://127.0.0.1:{},http://127.0.0.1:{}", ports[1], ports[0]);
        let mut command = ground.bombproof(&["worker", "--coordinator", &urls, "--name", "one", "--home", "home-one"]);
        command.args(["--slots", "1", "--sandbox", "namespaces"]);
        let worker = Process::start(&mut command, ground.path().join("worker.log"));
        first.says("worker 'one' came");
        Self { ground, redis: redis.port, ports, coordinators: [first, second], worker, urls }
    }

    fn coordinator(ground: &Ground, redis: u16, port: u16, number: usize) -> Process {
        let (listen, state) = (format!("127.0.0.1:{port}"), format!("redis://127.0.0.1:{redis}/0#farm"));
        let mut command = ground.bombproof(&["coordinator", "--listen", &listen, "--home", "coordinator"]);
        command.args(["--state", &state, "--reign-ms", REIGN_MS]);
        Process::start(&mut command, ground.path().join(format!("coordinator-{number}.log")))
    }

    fn restart(&mut self, number: usize) {
        self.coordinators[number].kill();
        self.coordinators[number] = Self::coordinator(self.ground, self.redis, self.ports[number], number);
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.ground.bombproof(args);
        command.args(["--coordinator", &self.urls]);
        command
    }

    /// A series of states that take a while, of which the one of note 1 fails; it is under way when this returns.
    fn submit(&self, marker: &str) -> String {
        let script = format!(": {marker}; sleep 1; grep -q 1 notes && exit 1; exit 0");
        let args = ["submit", "base..main", "--repo", "repo", "--exec", &script];
        let id = String::from_utf8(run(&mut self.command(&args)).stdout).unwrap().trim().to_owned();
        until("it runs", || {
            let status = String::from_utf8(run(&mut self.command(&["status"])).stdout).unwrap();
            status.contains("1/1 slots used").then_some(())
        });
        id
    }

    fn watch(&self, series: &str) -> Process {
        Process::start(&mut self.command(&["watch", series]), self.ground.path().join(format!("{series}.log")))
    }

    /// The report of a series must be that of an undisturbed run.
    fn ends_well(&self, series: &str) {
        let output = self.command(&["watch", series, "--format", "json"]).output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        let entries = report["verdicts"].as_array().unwrap().iter();
        let verdicts: Vec<&str> = entries.map(|it| it["verdict"].as_str().unwrap()).collect();
        assert_eq!(verdicts, ["builds", "builds", "fails", "builds"], "{report:#}");
        assert_eq!((output.status.code(), &report["run"]["finished"]), (Some(1), &Value::Bool(true)));
    }
}

/// Commits whose notes say 0, 1, 2.
fn commits(ground: &Ground) {
    for number in 0..3 {
        std::fs::write(ground.repo().join("notes"), format!("{number}\n")).unwrap();
        ground.git(&["add", "-A"]);
        ground.git(&["commit", "-q", "-m", &format!("note {number}")]);
    }
    // The base has none, and grep says so.
}

#[test]
fn a_leader_that_is_killed_or_stands_still_is_followed_by_the_other_one() {
    let ground = Ground::new();
    commits(&ground);
    let Some(redis) = Redis::start(&ground) else { return };
    let mut farm = Farm::start(&ground, &redis);
    let series = farm.submit("killed");
    let mut watching = farm.watch(&series);
    watching.says("farm, sandbox");
    farm.coordinators[0].kill();
    farm.coordinators[1].says("1 series to go on with");
    assert_eq!(watching.ends(), Some(1), "{}", watching.said());
    assert_eq!(watching.said().matches("farm, sandbox").count(), 1, "nothing is shown twice: {}", watching.said());
    farm.ends_well(&series);
    // The one that leads now is stopped for longer than its lease, and wakes up in the middle of the same series.
    farm.restart(0);
    let series = farm.submit("stopped");
    farm.coordinators[1].signal("STOP");
    farm.coordinators[0].says("1 series to go on with");
    farm.coordinators[1].signal("CONT");
    farm.coordinators[1].says("the reign is over");
    farm.ends_well(&series);
    let said = farm.coordinators[1].said();
    assert!(!said.contains(&format!("series {series} is failed")), "{said}");
    // One that is told to end leaves the lease.
    farm.coordinators[0].signal("TERM");
    assert_eq!(farm.coordinators[0].ends(), Some(0));
    farm.ends_well(&series);
    assert!(!farm.worker.said().contains("gave no answer"), "{}", farm.worker.said());
}

#[test]
fn a_register_that_is_away_for_a_while_fails_nothing() {
    let ground = Ground::new();
    commits(&ground);
    let Some(mut redis) = Redis::start(&ground) else { return };
    let farm = Farm::start(&ground, &redis);
    // Started again, with its data.
    let series = farm.submit("restarted");
    redis.restart();
    farm.ends_well(&series);
    // Slow for longer than a lease: both are answered late, and one of them leads then.
    let series = farm.submit("paused");
    redis.ask(&["CLIENT", "PAUSE", "4000", "ALL"]);
    farm.ends_well(&series);
    // It only reads, as one that was made a replica by mistake.
    let series = farm.submit("read-only");
    redis.ask(&["REPLICAOF", "127.0.0.1", "1"]);
    until("nobody leads", || {
        let said = ground.bombproof(&["status", "--coordinator", &format!("http://127.0.0.1:{}", farm.ports[0])]);
        let said = { said }.output().unwrap();
        (said.status.code() == Some(2)).then_some(())
    });
    redis.ask(&["REPLICAOF", "NO", "ONE"]);
    farm.ends_well(&series);
    for coordinator in &farm.coordinators {
        assert!(!coordinator.said().contains("is failed"), "{}", coordinator.said());
    }
}

#[test]
fn a_register_that_lost_its_data_is_said_and_nothing_passes_for_success() {
    let ground = Ground::new();
    commits(&ground);
    let Some(redis) = Redis::start(&ground) else { return };
    let farm = Farm::start(&ground, &redis);
    let series = farm.submit("forgotten");
    redis.ask(&["FLUSHALL"]);
    farm.coordinators[0].says("its data are lost");
    farm.coordinators[1].says("its data are lost");
    for port in farm.ports {
        let url = format!("http://127.0.0.1:{port}");
        for args in [&["list"][..], &["status", &series], &["report", &series]] {
            let said = ground.bombproof(args).args(["--coordinator", &url]).output().unwrap();
            let words = String::from_utf8_lossy(&said.stderr).into_owned();
            assert_eq!((said.status.code(), words.contains("its data are lost")), (Some(2), true), "{args:?}: {words}");
        }
    }
    // The operator takes it for lost, and the farm begins anew, above the reigns of before.
    std::fs::remove_file(ground.path().join("coordinator/register.id")).unwrap();
    let next = farm.submit("anew");
    farm.ends_well(&next);
    let gone = farm.command(&["watch", &series]).output().unwrap();
    assert_eq!(gone.status.code(), Some(64), "{}", String::from_utf8_lossy(&gone.stderr));
}
