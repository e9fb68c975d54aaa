//! What tests of a farm share: coordinators, workers and a Redis server as processes of this machine, and reports to compare.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    unreachable_pub,
    missing_docs,
    dead_code,
    reason = "part of each test program"
)]

use std::process::{Command, Output};

use serde_json::Value;

use crate::common::{Ground, Process, run, top, until};

/// A coordinator, and whatever workers a test starts.
pub struct Farm<'a> {
    ground: &'a Ground,
    pub coordinator: Process,
    pub url: String,
    lease_ms: u64,
}

impl<'a> Farm<'a> {
    pub fn start(ground: &'a Ground, lease_ms: u64) -> Self {
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
    pub fn restart(&mut self) {
        self.coordinator.kill();
        let listen = self.url.strip_prefix("http://").unwrap().to_owned();
        self.coordinator = Self::coordinator(self.ground, &listen, self.lease_ms);
    }

    pub fn worker(&self, name: &str, more: &[&str]) -> Process {
        self.worker_in(&["--sandbox", "namespaces"], name, more)
    }

    pub fn worker_in(&self, sandbox: &[&str], name: &str, more: &[&str]) -> Process {
        self.worker_at(&self.url, sandbox, name, more)
    }

    /// One that reaches the coordinator by another address; its home is `home-NAME`.
    pub fn worker_at(&self, url: &str, sandbox: &[&str], name: &str, more: &[&str]) -> Process {
        let home = format!("home-{name}");
        let mut command = self.ground.bombproof(&["worker", "--coordinator", url, "--name", name]);
        command.args(["--home", &home]).args(sandbox).args(more);
        if !more.contains(&"--slots") {
            command.args(["--slots", "1"]);
        }
        let worker = Process::start(&mut command, self.ground.path().join(format!("{name}.log")));
        self.coordinator.says(&format!("worker '{name}' came"));
        worker
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.ground.bombproof(args);
        command.args(["--coordinator", &self.url]);
        command
    }

    pub fn ask(&self, args: &[&str]) -> String {
        String::from_utf8(run(&mut self.command(args)).stdout).unwrap()
    }

    pub fn submit(&self, args: &[&str]) -> String {
        self.ask(&[&["submit"], args].concat()).trim().to_owned()
    }

    /// Waits for the end of a series; gives its report.
    pub fn report(&self, series: &str) -> (Option<i32>, Value) {
        report(&self.command(&["watch", series, "--format", "json"]).output().unwrap())
    }

    /// How many slots of a worker are used.
    pub fn used(&self, worker: &str) -> Option<String> {
        let status = self.ask(&["status"]);
        let line = status.lines().find(|line| line.trim_start().starts_with(worker))?;
        Some(line.split_whitespace().rev().nth(2)?.to_owned())
    }

    /// The port that the coordinator listens on.
    pub fn port(&self) -> u16 {
        self.url.rsplit(':').next().unwrap().parse().unwrap()
    }

    /// Whether a series has come to its end.
    pub fn is_over(&self, series: &str) -> bool {
        let listed = self.ask(&["list"]);
        let line = listed.lines().find(|line| line.contains(series)).unwrap();
        !["accepted", "running"].iter().any(|open| line.contains(open))
    }

    pub fn settled(&self) -> u64 {
        let status = self.ask(&["status"]);
        let line = status.lines().find(|line| line.starts_with("farm:")).unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let place = words.iter().position(|word| *word == "settled").unwrap();
        words[place - 1].parse().unwrap()
    }
}

pub fn report(output: &Output) -> (Option<i32>, Value) {
    let report = serde_json::from_slice(&output.stdout);
    let report = report.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), report)
}

/// A report without what differs from run to run.
pub fn lasting(mut report: Value) -> Value {
    let id = report["run"]["id"].as_str().unwrap().to_owned();
    for field in ["id", "started_at", "duration_ms", "sandbox"] {
        report["run"].as_object_mut().unwrap().remove(field);
    }
    report.as_object_mut().unwrap().remove("cost");
    serde_json::from_str(&report.to_string().replace(&id, "RUN")).unwrap()
}

/// A report without what differs when a part of the work was done before something went wrong: whether a result and its log are of an
/// earlier attempt, and whether a link ran again or had no reason to.
pub fn settled_by(report: Value) -> Value {
    let mut report = lasting(report);
    for verdict in report["verdicts"].as_array_mut().unwrap() {
        let verdict = verdict.as_object_mut().unwrap();
        verdict.remove("cached");
        verdict.remove("link");
        if let Some(failure) = verdict.get_mut("failure").and_then(Value::as_object_mut) {
            failure.remove("log");
        }
    }
    report
}

pub fn verdicts(report: &Value) -> Vec<(u64, String)> {
    let entries = report["verdicts"].as_array().unwrap().iter();
    entries.map(|it| (it["patch"].as_u64().unwrap(), it["verdict"].as_str().unwrap().to_owned())).collect()
}

/// A fixture series, as arguments.
pub fn series(name: &str) -> Vec<String> {
    let folder = top().join("fixtures/series").join(name).display().to_string();
    [&folder, "--repo", "repo", "--base", "base", "--config", "tinyconfig"].map(str::to_owned).to_vec()
}

pub fn strs(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

/// A range of commits that a command is run for, in so many states.
pub fn commits(ground: &Ground, count: usize) {
    for number in 0..count {
        std::fs::write(ground.repo().join("notes"), format!("{number}\n")).unwrap();
        ground.git(&["add", "-A"]);
        ground.git(&["commit", "-q", "-m", &format!("note {number}")]);
    }
}

pub fn fixture_names() -> Vec<String> {
    let entries = std::fs::read_dir(top().join("fixtures/series")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The patches of a fixture in a folder of their own: beside them lies what is expected.
pub fn patches(ground: &Ground, name: &str) -> String {
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

/// The image of builds, where there is an engine; without the image the test is wrong, not left out.
pub fn image() -> Option<String> {
    let image = std::env::var("BOMBPROOF_IMAGE").unwrap_or_else(|_| "bombproof-worker:latest".to_owned());
    let docker = |args: &[&str]| Command::new("docker").args(args).output().is_ok_and(|it| it.status.success());
    if !docker(&["version"]) {
        eprintln!("NOT TESTED: no container engine answers");
        return None;
    }
    assert!(docker(&["image", "inspect", &image]), "there is no image '{image}': 'make images' makes it");
    Some(image)
}

/// A port that nobody has at the moment.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A server on loopback, whose data are in a folder of the ground.
pub struct Redis<'a> {
    ground: &'a Ground,
    pub port: u16,
    process: Process,
}

impl<'a> Redis<'a> {
    /// `None`: there is none on this machine.
    pub fn start(ground: &'a Ground) -> Option<Self> {
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
        let data = ground.path().join("redis");
        std::fs::create_dir_all(&data).unwrap();
        command.args(["--appendfsync", "always", "--dir"]).arg(data);
        Process::start(&mut command, ground.path().join("redis.log"))
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("redis-cli");
        command.args(["-p", &self.port.to_string()]).args(words);
        command
    }

    pub fn ask(&self, words: &[&str]) -> String {
        String::from_utf8(run(&mut self.command(words)).stdout).unwrap()
    }

    fn answers(&self) {
        until("redis answers", || {
            let said = self.command(&["PING"]).output().unwrap();
            said.stdout.starts_with(b"PONG").then_some(())
        });
    }

    /// Kills it and starts it again, with what is on its disk then.
    pub fn restart(&mut self, between: impl FnOnce()) {
        self.process.kill();
        between();
        self.process = Self::process(self.ground, self.port);
        self.answers();
    }
}

/// How long the others wait, in milliseconds: more than a busy machine stands still.
const REIGN_MS: &str = "2000";

/// Two coordinators and a worker.
pub struct Pair<'a> {
    ground: &'a Ground,
    redis: u16,
    pub ports: [u16; 2],
    /// The first one leads at the start.
    pub coordinators: [Process; 2],
    pub worker: Process,
    urls: String,
}

impl<'a> Pair<'a> {
    pub fn start(ground: &'a Ground, redis: u16) -> Self {
        let ports = [free_port(), free_port()];
        let first = Self::coordinator(ground, redis, ports[0], 0);
        first.says("reign ");
        let second = Self::coordinator(ground, redis, ports[1], 1);
        second.says("another coordinator leads");
        // The one that does not lead is asked first.
        let urls = format!("http://127.0.0.1:{},http://127.0.0.1:{}", ports[1], ports[0]);
        let mut command = ground.bombproof(&["worker", "--coordinator", &urls, "--name", "one", "--home", "home-one"]);
        command.args(["--slots", "1", "--sandbox", "namespaces"]);
        let worker = Process::start(&mut command, ground.path().join("worker.log"));
        first.says("worker 'one' came");
        Self { ground, redis, ports, coordinators: [first, second], worker, urls }
    }

    fn coordinator(ground: &Ground, redis: u16, port: u16, number: usize) -> Process {
        let (listen, state) = (format!("127.0.0.1:{port}"), format!("redis://127.0.0.1:{redis}/0#farm"));
        let mut command = ground.bombproof(&["coordinator", "--listen", &listen, "--home", "coordinator"]);
        command.args(["--state", &state, "--reign-ms", REIGN_MS]);
        Process::start(&mut command, ground.path().join(format!("coordinator-{number}.log")))
    }

    pub fn restart(&mut self, number: usize) {
        self.coordinators[number].kill();
        self.coordinators[number] = Self::coordinator(self.ground, self.redis, self.ports[number], number);
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.ground.bombproof(args);
        command.args(["--coordinator", &self.urls]);
        command
    }

    /// The number of the one that leads, as soon as one does.
    pub fn leads(&self) -> usize {
        until("one leads", || {
            (0..2).find(|number| {
                let url = format!("http://127.0.0.1:{}", self.ports[*number]);
                self.ground.bombproof(&["list", "--coordinator", &url]).output().unwrap().status.success()
            })
        })
    }

    /// Hands a series in.
    pub fn hand_in(&self, args: &[&str]) -> String {
        let submitted = run(&mut self.command(&[&["submit"], args].concat())).stdout;
        String::from_utf8(submitted).unwrap().trim().to_owned()
    }

    /// A series of states that take a while, of which the one of note 1 fails; it is under way when this returns.
    pub fn submit(&self, marker: &str) -> String {
        let script = format!(": '{marker}'; sleep 1; grep -q 1 notes && exit 1; exit 0");
        let id = self.hand_in(&["base..main", "--repo", "repo", "--exec", &script]);
        until("it runs", || {
            let status = String::from_utf8(run(&mut self.command(&["status"])).stdout).unwrap();
            status.contains("1/1 slots used").then_some(())
        });
        id
    }

    pub fn watch(&self, series: &str) -> Process {
        Process::start(&mut self.command(&["watch", series]), self.ground.path().join(format!("{series}.log")))
    }

    /// The report of a series must be that of an undisturbed run.
    pub fn ends_well(&self, series: &str) {
        let output = self.command(&["watch", series, "--format", "json"]).output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        let entries = report["verdicts"].as_array().unwrap().iter();
        let verdicts: Vec<&str> = entries.map(|it| it["verdict"].as_str().unwrap()).collect();
        assert_eq!(verdicts, ["builds", "builds", "fails", "builds"], "{report:#}");
        assert_eq!((output.status.code(), &report["run"]["finished"]), (Some(1), &Value::Bool(true)));
    }
}
