//! What an operator of a farm sees of it, with real processes.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output};

use common::{Ground, Process, run, until};

/// What a process said after these words, to the end of the line.
fn said_after(process: &Process, words: &str) -> String {
    until(words, || {
        let said = process.said();
        let line = said.lines().find_map(|line| line.split_once(words).map(|(_, rest)| rest.to_owned()));
        line.map(|line| line.trim().to_owned())
    })
}

/// A coordinator, a worker and the options that reach it.
struct Farm<'a> {
    ground: &'a Ground,
    coordinator: Process,
    worker: Process,
    url: String,
}

impl<'a> Farm<'a> {
    fn start(ground: &'a Ground, more: &[&str]) -> Self {
        let mut command = ground.bombproof(&["coordinator", "--listen", "127.0.0.1:0", "--home", "coordinator"]);
        let coordinator = Process::start(command.args(more), ground.path().join("coordinator.log"));
        let url = format!("http://{}", said_after(&coordinator, "listening on "));
        let mut command =
            ground.bombproof(&["worker", "--coordinator", &url, "--name", "builder-7", "--home", "home-one"]);
        command.args(["--slots", "1", "--sandbox", "namespaces", "--metrics", "127.0.0.1:0"]);
        let worker = Process::start(&mut command, ground.path().join("one.log"));
        Self { ground, coordinator, worker, url }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.ground.bombproof(args);
        command.args(["--coordinator", &self.url]);
        command
    }
}

fn page(process: &Process) -> String {
    let address = said_after(process, "figures at http://");
    let mut stream = TcpStream::connect(address.trim_end_matches("/metrics")).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    answer
}

/// A figure of a page.
fn figure(page: &str, what: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {what}: {page}")).parse().unwrap()
}

/// The sum of a figure over its labels.
fn total(page: &str, name: &str) -> f64 {
    let lines = page.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{')?.split_once("} "));
    lines.map(|(_, value)| value.parse::<f64>().unwrap()).sum()
}

fn one_commit(ground: &Ground) {
    std::fs::write(ground.repo().join("notes"), "1\n").unwrap();
    ground.git(&["add", "-A"]);
    ground.git(&["commit", "-q", "-m", "note"]);
}

fn exit(output: &Output, code: i32) -> String {
    let said = [&output.stdout[..], &output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    said
}

#[test]
fn figures_say_what_a_farm_did_and_hold_no_names() {
    let ground = Ground::new();
    one_commit(&ground);
    let farm = Farm::start(&ground, &["--metrics", "127.0.0.1:0"]);
    let before = page(&farm.coordinator);
    assert_eq!(figure(&before, "bombproof_leads"), 1.0);
    assert_eq!(figure(&before, "bombproof_series_over_total{phase=\"finished\"}"), 0.0);
    let script = "test -e /bombproof/src/notes && exit 1; exit 0";
    let check = ["check", "base..main", "--repo", "repo", "--exec", script];
    exit(&farm.command(&check).output().unwrap(), 1);
    let after = page(&farm.coordinator);
    for (what, number) in [
        ("bombproof_series_accepted_total{priority=\"normal\"}", 1.0),
        ("bombproof_series_over_total{phase=\"finished\"}", 1.0),
        ("bombproof_series_first_job_seconds_count", 1.0),
        ("bombproof_jobs_settled_total{kind=\"step\",arch=\"none\",outcome=\"succeeded\"}", 1.0),
        ("bombproof_jobs_settled_total{kind=\"step\",arch=\"none\",outcome=\"failed\"}", 1.0),
        ("bombproof_series_open", 0.0),
        ("bombproof_workers{state=\"good\"}", 1.0),
        ("bombproof_slots", 1.0),
    ] {
        assert_eq!(figure(&after, what), number, "{what}: {after}");
    }
    assert_eq!(total(&after, "bombproof_queue_jobs"), 0.0);
    let worker = page(&farm.worker);
    assert_eq!(total(&worker, "bombproof_worker_attempts_answered_total"), 2.0);
    assert_eq!(figure(&worker, "bombproof_worker_state{state=\"good\"}"), 1.0);
    let way = |page: &str, way: &str| figure(page, &format!("bombproof_blob_bytes_total{{direction=\"{way}\"}}"));
    assert!(way(&after, "in") > 0.0);
    assert_eq!(way(&after, "in"), way(&worker, "out"), "what one gave the other got");
    for page in [&after, &worker] {
        for name in ["builder-7", "base", "main", "notes", ground.path().to_str().unwrap()] {
            assert!(!page.contains(name), "{name}: {page}");
        }
    }
    for service in [&["coordinator", "--listen", "127.0.0.1:0"][..], &["worker", "--coordinator", &farm.url]] {
        let open = ground.bombproof(service).args(["--home", "other", "--metrics", "0.0.0.0:0"]).output().unwrap();
        assert!(exit(&open, 64).contains("will not show figures on 0.0.0.0"));
    }
}

#[test]
fn whoever_asks_is_told_the_protocol_and_nothing_else() {
    let ground = Ground::new();
    run(&mut ground.bombproof(&["pki", "init", "pki"]));
    let mut command = ground.bombproof(&["coordinator", "--listen", "127.0.0.1:0", "--home", "coordinator"]);
    let coordinator = Process::start(command.args(["--pki", "pki"]), ground.path().join("coordinator.log"));
    let url = format!("https://{}", said_after(&coordinator, "listening on "));
    let ask = |command: &str, url: &str| {
        ground.bombproof(&[command, "--coordinator", url, "--ca", "pki/ca.pem"]).output().unwrap()
    };
    let told = exit(&ask("protocol", &url), 0);
    assert!(told.contains(&format!("{url}: takes ")), "{told}");
    exit(&ask("status", &url), 64);
    let told = exit(&ask("protocol", &format!("{url},https://127.0.0.1:9")), 2);
    assert!(told.contains(&format!("{url}: takes ")) && told.contains(":9: does not answer"), "{told}");
    assert!(exit(&ground.bombproof(&["protocol"]).output().unwrap(), 0).starts_with("this program: protocol "));
}
