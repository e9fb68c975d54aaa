//! A new leader: what workers run is taken over where it is wanted.

use super::*;

/// A worker that runs "x" and has ended "y", and a new leader that knows nothing.
fn rig(config: Config) -> Rig {
    let mut old = Rig::new(Config::default());
    old.open("s", "a", Priority::Normal);
    old.want_all("s", &["x", "y"]);
    old.hire("w", 2);
    old.call("w");
    old.end("w", "y", result("y"));
    let mut rig = Rig::of(Farm::new(2, config, Millis(500)), 500);
    rig.hands = old.hands;
    rig
}

#[test]
fn what_is_wanted_before_the_worker_calls_is_taken_over_at_once() {
    let mut rig = rig(Config::default());
    rig.open("s", "a", Priority::Normal);
    rig.want_all("s", &["x", "y"]);
    let answer = rig.call("w");
    assert_eq!((answer.epoch, answer.start.len(), answer.stop.len(), answer.noted.len()), (2, 0, 0, 1));
    assert_eq!(rig.announced(&["x", "y"]), [one("y", &["s"], true)]);
    rig.done("w", "x");
    assert_eq!(rig.announced(&["x", "y"]), [one("x", &["s"], true)]);
    let adopted = rig.notices.iter().filter(|notice| matches!(notice, Notice::Adopted(_))).count();
    assert_eq!(adopted, 2);
}

#[test]
fn what_is_wanted_later_is_kept_until_then() {
    let mut rig = rig(Config { adopt_ms: 60_000, ..Config::default() });
    rig.pass_with(30_000, &["w"]);
    assert_eq!(rig.runs("w"), [job("x")], "it goes on");
    assert_eq!(rig.hands["w"].report.finished.len(), 1, "and keeps what it has");
    rig.open("s", "a", Priority::Normal);
    rig.want_all("s", &["x", "y"]);
    rig.call("w");
    assert_eq!(rig.announced(&["x", "y"]), [one("y", &["s"], true)]);
    assert_eq!(rig.done("w", "x").noted.len(), 1);
    assert_eq!(rig.announced(&["x", "y"]), [one("x", &["s"], true)]);
}

#[test]
fn what_nobody_wants_in_time_is_stopped() {
    let mut rig = rig(Config { adopt_ms: 20_000, ..Config::default() });
    rig.pass_with(25_000, &["w"]);
    assert_eq!((rig.runs("w").len(), rig.hands["w"].report.finished.len()), (0, 0));
    rig.open("s", "a", Priority::Normal);
    rig.want_all("s", &["x", "y"]);
    rig.call("w");
    assert_eq!(rig.runs("w").len(), 2, "from the beginning");
    assert!(rig.hands["w"].report.running.iter().all(|running| running.attempt.epoch == 2));
}

#[test]
fn nothing_is_assigned_before_workers_could_call() {
    let mut rig = rig(Config { quiet_ms: 3_000, ..Config::default() });
    rig.open("s", "a", Priority::Normal);
    rig.want_all("s", &["x", "y", "z"]);
    rig.hire("idle", 4);
    rig.call("idle");
    assert_eq!(rig.runs("idle"), [], "somebody may run them");
    rig.call("w");
    rig.pass_with(4_000, &["idle"]);
    assert_eq!(rig.runs("idle"), [job("z")]);
}

#[test]
fn an_attempt_that_was_taken_over_and_lost_is_fenced() {
    let mut rig = rig(Config::default());
    rig.open("s", "a", Priority::Normal);
    rig.want_all("s", &["x", "y"]);
    rig.call("w");
    rig.announced(&["x", "y"]);
    let stale = rig.hands["w"].report.running[0].attempt;
    rig.hire("other", 1);
    rig.pass_with(20_000, &["other"]);
    assert_eq!(rig.runs("other"), [job("x")]);
    rig.done("w", "x");
    assert!(rig.notices.contains(&Notice::Refused(stale)));
    assert_eq!(rig.announced(&["x"]), []);
    rig.done("other", "x");
    assert_eq!(rig.announced(&["x"]), [one("x", &["s"], true)]);
}

#[test]
fn of_two_workers_that_run_one_job_one_goes_on() {
    for wanted_first in [true, false] {
        let mut rig = rig(Config::default());
        let mut twin = rig.hands["w"].clone();
        twin.report.worker = "twin".into();
        twin.report.finished.clear();
        twin.report.running[0].attempt.number += 7;
        rig.hands.insert("twin".to_owned(), twin);
        rig.open("s", "a", Priority::Normal);
        if wanted_first {
            rig.want("s", wanted("x"));
        }
        rig.call("w");
        assert_eq!(rig.call("twin").stop.len(), 1);
        rig.want("s", wanted("x"));
        rig.done("w", "x");
        assert_eq!(rig.announced(&["x"]), [one("x", &["s"], true)], "{wanted_first}");
    }
}

#[test]
fn an_orphan_dies_with_its_worker() {
    let mut rig = rig(Config::default());
    rig.call("w");
    rig.pass(30_000);
    rig.open("s", "a", Priority::Normal);
    rig.want("s", wanted("x"));
    assert_eq!(rig.farm.job(&job("x")).unwrap().state, JobState::Queued, "the worker is lost");
    assert_eq!(rig.call("w").stop.len(), 1, "what it runs is fenced");
}

#[test]
fn attempts_of_a_later_leader_are_not_ours() {
    let mut rig = Rig::new(Config::default());
    rig.open("s", "a", Priority::Normal);
    rig.want("s", wanted("x"));
    rig.hire("w", 1);
    let attempt = Attempt { epoch: 2, number: 1 };
    rig.hands.get_mut("w").unwrap().report.running.push(Running { attempt, job: job("x") });
    let answer = rig.call_in_vain("w");
    assert_eq!(answer.epoch, 1, "the worker does not listen");
    rig.hands.get_mut("w").unwrap().report.running.clear();
    rig.end_foreign("w", attempt, "x");
    rig.call_in_vain("w");
    assert_eq!(rig.announced(&["x"]), [], "and what it has is not taken");
}

impl Rig {
    fn end_foreign(&mut self, name: &str, attempt: Attempt, ended_job: &str) {
        let finished = Finished { attempt, job: job(ended_job), ended: result(ended_job) };
        self.hands.get_mut(name).unwrap().report.finished.push(finished);
    }
}
