//! Leases, fences, lost and repeated calls, cancelling and draining.

use super::*;

fn rig() -> Rig {
    let mut rig = Rig::new(Config::default());
    rig.open("s", "a", Priority::Normal);
    rig.hire("w1", 1);
    rig.hire("w2", 1);
    rig
}

#[test]
fn a_silent_worker_loses_its_job_and_its_late_result_is_refused() {
    let mut rig = rig();
    rig.want("s", wanted("x"));
    rig.call("w1");
    let stale = rig.hands["w1"].report.running[0].attempt;
    rig.pass_with(17_000, &["w2"]);
    assert!(rig.notices.contains(&Notice::Lost("w1".into())));
    assert_eq!(rig.runs("w2"), [job("x")]);
    // It stood still and comes back with a result.
    let answer = rig.done("w1", "x");
    assert_eq!(answer.noted, [stale], "it need not say it again");
    assert!(rig.notices.contains(&Notice::Refused(stale)));
    assert_eq!(rig.announced(&["x"]), [], "but it does not count");
    rig.done("w2", "x");
    assert_eq!(rig.announced(&["x"]), [one("x", &["s"], true)]);
}

#[test]
fn what_runs_without_a_lease_is_stopped_and_holds_its_slot_until_it_has() {
    let mut rig = rig();
    rig.want("s", wanted("x"));
    rig.call("w1");
    rig.pass_with(17_000, &["w2"]);
    rig.want("s", wanted("y"));
    let answer = rig.call_in_vain("w1");
    assert_eq!((answer.stop.len(), answer.start.len()), (1, 0), "the slot is not free yet");
    let answer = rig.call("w1");
    assert_eq!((answer.stop.len(), answer.start.len()), (1, 0));
    rig.call("w1");
    assert_eq!(rig.runs("w1"), [job("y")]);
}

#[test]
fn a_lost_answer_is_repeated() {
    let mut rig = rig();
    rig.want("s", wanted("x"));
    let first = rig.call_in_vain("w1");
    let second = rig.call("w1");
    assert_eq!(first.start[0].attempt, second.start[0].attempt);
    rig.end("w1", "x", result("x"));
    rig.call_in_vain("w1");
    let answer = rig.call("w1");
    assert_eq!(answer.noted.len(), 1, "the worker says it again and is told again");
    assert_eq!(rig.announced(&["x"]), [one("x", &["s"], true)], "it counted once");
    assert!(!rig.notices.iter().any(|notice| matches!(notice, Notice::Refused(_))), "and was never refused");
}

#[test]
fn an_attempt_that_is_never_taken_up_does_not_last() {
    let mut rig = rig();
    rig.want("s", wanted("x"));
    // The worker calls and calls, but never says that it runs it.
    rig.call_in_vain("w1");
    for _ in 0..17 {
        rig.now += 1_000;
        rig.call_in_vain("w1");
    }
    let failed = rig.notices.iter().find_map(|notice| {
        let Notice::Retried { evidence, .. } = notice else { return None };
        Some(evidence.fault.clone())
    });
    assert_eq!(failed, Some(Fault::NotStarted));
    rig.call("w2");
    assert_eq!(rig.runs("w2"), [job("x")]);
}

#[test]
fn an_overtaken_call_changes_nothing() {
    let mut rig = rig();
    rig.want("s", wanted("x"));
    rig.call("w1");
    let old = rig.hands["w1"].report.clone();
    rig.end("w1", "x", result("x"));
    rig.call("w1");
    rig.want("s", wanted("y"));
    rig.call("w1");
    assert_eq!(rig.runs("w1"), [job("y")]);
    let answer = rig.step(Event::WorkerSynchronized(old)).unwrap();
    assert_eq!((answer.start.len(), answer.stop.len(), answer.noted.len()), (0, 0, 0));
    assert_eq!(rig.announced(&["x", "y"]), [one("x", &["s"], true)]);
    rig.done("w1", "y");
    assert_eq!(rig.announced(&["x", "y"]), [one("y", &["s"], true)]);
}

#[test]
fn a_second_life_ends_the_first() {
    let mut rig = rig();
    rig.want("s", wanted("x"));
    rig.call("w1");
    let first_life = rig.hands["w1"].report.clone();
    rig.restart("w1");
    rig.call("w1");
    let retried = rig
        .notices
        .iter()
        .any(|notice| matches!(notice, Notice::Retried { evidence, .. } if evidence.fault == Fault::Restarted));
    assert!(retried);
    // The first life was not dead after all.
    let answer = rig.step(Event::WorkerSynchronized(first_life)).unwrap();
    assert_eq!((answer.standing, answer.stop.len()), (Standing::Replaced, 1));
    rig.pass_with(2_000, &["w2"]);
    assert_eq!(rig.runs("w2"), [job("x")]);
}

#[test]
fn cancelling_stops_what_nobody_else_wants() {
    let mut rig = rig();
    rig.open("t", "b", Priority::Normal);
    rig.want("s", wanted("shared"));
    rig.call("w1");
    rig.want("t", wanted("shared"));
    rig.want("s", wanted("own"));
    rig.call("w2");
    rig.want_all("s", &["queued 1", "queued 2"]);
    rig.want("t", wanted("queued 2"));
    rig.step(Event::SeriesCancelled { series: series("s") });
    assert_eq!(rig.farm.len(), 2, "what t wants");
    let answer = rig.call("w2");
    assert_eq!(answer.stop.len(), 1, "nobody wants it");
    assert_eq!(rig.call("w1").stop.len(), 0, "somebody does");
    rig.call("w2");
    assert_eq!(rig.runs("w2"), [job("queued 2")]);
    rig.done("w1", "shared");
    rig.done("w2", "queued 2");
    assert_eq!(
        rig.announced(&["shared", "own", "queued 1", "queued 2"]),
        [one("shared", &["t"], true), one("queued 2", &["t"], true)]
    );
    rig.want("s", wanted("late"));
    assert_eq!(rig.settled.last().map(|settlement| &settlement.settled), Some(&Settled::Closed));
    rig.step(Event::SeriesCancelled { series: series("s") });
    assert!(rig.farm.is_empty());
}

#[test]
fn a_job_that_is_not_wanted_any_more_leaves_from_wherever_it_is() {
    // Where the job is when it is no longer wanted.
    for place in ["queue", "lane", "delayed", "again", "alone", "running", "reserved"] {
        let mut rig = Rig::new(Config { alone_after: 1, avoid_ms: 10_000, ..Config::default() });
        rig.open("s", "a", Priority::Normal);
        rig.hire("w", 2);
        let x = step("x", "lane");
        match place {
            "lane" => {
                rig.want("s", step("before", "lane"));
                rig.call("w");
                rig.done("w", "before");
                rig.want("s", x);
            }
            "delayed" | "again" => {
                rig.want("s", x);
                rig.call("w");
                rig.trouble("w", "x", Trouble::Disk { detail: String::new() });
                rig.pass(if place == "again" { 2_000 } else { 0 });
            }
            "alone" | "reserved" => {
                rig.want("s", x);
                rig.call("w");
                rig.want("s", wanted("beside"));
                rig.trouble("w", "x", Trouble::Killed { detail: String::new() });
                rig.pass_with(if place == "reserved" { 12_000 } else { 1_000 }, &["w"]);
            }
            _ => rig.want("s", x),
        }
        if place == "running" {
            rig.call("w");
        }
        let state = rig.farm.job(&job("x")).unwrap().state;
        let fits = match state {
            JobState::Queued => matches!(place, "queue" | "again"),
            JobState::WaitsFor(_) => place == "lane",
            JobState::Delayed => place == "delayed",
            JobState::WaitsAlone => matches!(place, "alone" | "reserved"),
            JobState::Running { .. } => place == "running",
        };
        assert!(fits, "{place}");
        rig.step(Event::JobUnwanted { series: series("s"), job: job("x") });
        rig.step(Event::JobUnwanted { series: series("s"), job: job("x") });
        assert_eq!(rig.farm.job(&job("x")), None, "{place}");
        assert_eq!(rig.call("w").stop.len(), usize::from(place == "running"), "{place}");
        rig.pass_with(60_000, &["w"]);
        assert!(rig.announced(&["x", "before", "beside"]).iter().all(|(name, ..)| name != "x"), "{place}");
    }
}

#[test]
fn a_worker_that_drains_gives_back_and_is_not_to_blame() {
    let mut rig = rig();
    rig.want("s", wanted("x"));
    rig.want("s", wanted("y"));
    rig.call("w1");
    rig.hands.get_mut("w1").unwrap().report.draining = true;
    let answer = rig.call("w1");
    assert_eq!((answer.standing, answer.start.len(), answer.stop.len()), (Standing::Draining, 0, 0));
    let first = rig.runs("w1")[0];
    let name = if first == job("x") { "x" } else { "y" };
    rig.trouble("w1", name, Trouble::Interrupted);
    rig.pass_with(1_000, &["w2"]);
    assert_eq!(rig.runs("w2"), [first], "at once, before what was queued behind it");
    assert_eq!(rig.farm.job(&first).unwrap().evidence, [], "no fault");
    rig.pass_with(60_000, &["w2"]);
    assert!(rig.notices.contains(&Notice::Left("w1".into())));
    assert!(!rig.farm.overview().workers.iter().any(|view| view.worker == "w1".into()));
}

#[test]
fn somebody_else_can_drain_a_worker_and_let_it_go_on() {
    let mut rig = rig();
    rig.call("w1");
    rig.step(Event::WorkerDrained { worker: "w1".into(), drain: true });
    assert_eq!(rig.woken, [WorkerId::from("w1")], "it is told at once");
    rig.want("s", wanted("x"));
    assert_eq!(rig.call("w1").standing, Standing::Draining);
    assert_eq!(rig.runs("w1"), []);
    rig.step(Event::WorkerDrained { worker: "w1".into(), drain: false });
    assert_eq!(rig.call("w1").standing, Standing::Good);
    assert_eq!(rig.runs("w1"), [job("x")]);
    rig.step(Event::WorkerDrained { worker: "nobody".into(), drain: true });
}

#[test]
fn a_coordinator_that_stood_still_blames_nobody() {
    let mut rig = rig();
    rig.want("s", wanted("x"));
    rig.call("w1");
    rig.now += 3_600_000;
    rig.step(Event::Tick);
    assert_eq!(rig.notices, [Notice::Joined("w1".into())]);
    rig.done("w1", "x");
    assert_eq!(rig.announced(&["x"]), [one("x", &["s"], true)]);
    rig.now -= 1_000_000;
    rig.step(Event::Tick);
    assert_eq!(rig.now, 2_601_000, "a clock that goes back does no harm");
}

#[test]
fn a_forgotten_worker_leaves_nothing_behind() {
    let mut rig = Rig::new(Config { forget_ms: 100_000, ..Config::default() });
    rig.hire("w", 1);
    rig.call("w");
    rig.pass(60_000);
    assert_eq!(rig.farm.overview().workers.len(), 1, "it may come back");
    rig.pass(100_000);
    assert_eq!(rig.farm.overview().workers, []);
    rig.call("w");
    assert_eq!(rig.farm.overview().workers.len(), 1);
}
