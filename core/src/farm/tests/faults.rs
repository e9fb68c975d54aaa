//! Faults: what is tried again, what is given up, and who is to blame.

use super::*;

fn disk() -> Trouble {
    Trouble::Disk { detail: "full".to_owned() }
}

fn killed() -> Trouble {
    Trouble::Killed { detail: "signal 9".to_owned() }
}

/// So many workers of one slot, that have called.
fn rig(workers: usize, config: Config) -> (Rig, Vec<String>) {
    let mut rig = Rig::new(config);
    rig.open("s", "a", Priority::Normal);
    let names: Vec<String> = (1..=workers).map(|n| format!("w{n}")).collect();
    names.iter().for_each(|name| rig.hire(name, 1));
    (rig, names)
}

/// Who runs the job, after workers had time to call; workers that are `dead` do not.
fn runner(rig: &mut Rig, names: &[String], dead: &[String]) -> String {
    let calling: Vec<&str> = names.iter().filter(|name| !dead.contains(name)).map(String::as_str).collect();
    for _ in 0..60 {
        rig.pass_with(1_000, &calling);
        if let Some(name) = calling.iter().find(|name| rig.runs(name).contains(&job("x"))) {
            return (*name).to_owned();
        }
    }
    panic!("nobody runs it");
}

#[test]
fn a_job_that_kills_three_workers_is_settled_with_the_evidence() {
    let (mut rig, names) = rig(5, Config::default());
    rig.want("s", wanted("x"));
    let mut dead = Vec::new();
    for _ in 0..3 {
        let victim = runner(&mut rig, &names, &dead);
        dead.push(victim);
        let calling: Vec<&str> = names.iter().filter(|name| !dead.contains(name)).map(String::as_str).collect();
        rig.pass_with(17_000, &calling);
    }
    let evidence = rig.evidence();
    let victims: Vec<String> = evidence.iter().map(|evidence| evidence.worker.0.clone()).collect();
    assert_eq!(victims, dead, "three different ones, in order");
    assert!(evidence.iter().all(|evidence| evidence.fault == Fault::Silent));
    assert_eq!(evidence.iter().map(|evidence| evidence.alone).collect::<Vec<_>>(), [false, false, true]);
    assert!(rig.farm.is_empty());
    assert!(!rig.notices.iter().any(|notice| matches!(notice, Notice::Quarantined { .. })), "it was not the workers");
}

/// One job other than "x" comes to an end on each worker that runs any.
fn go_on(rig: &mut Rig, names: &[String]) {
    for name in names {
        let first = rig.runs(name).into_iter().find(|id| *id != job("x"));
        if let Some(ended) = first.and_then(|id| (0..400).map(|n| format!("innocent {n}")).find(|name| job(name) == id))
        {
            rig.done(name, &ended);
            rig.announced(&[&ended]);
        }
    }
}

#[test]
fn before_a_job_is_convicted_it_runs_alone() {
    let config = Config { alone_after: 2, max_deaths: 3, ..Config::default() };
    let (mut rig, names) = rig(4, config);
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    for name in &names {
        rig.hands.get_mut(name).unwrap().report.capabilities.slots = 3;
    }
    rig.want("s", wanted("x"));
    // More than enough for all slots, until the end.
    (0..400).for_each(|n| rig.want("s", Wanted { rank: 1, ..wanted(&format!("innocent {n}")) }));
    let mut beside = Vec::new();
    for _ in 0..60 {
        rig.pass_with(1_000, &all);
        let runner = names.iter().find(|name| rig.runs(name).contains(&job("x"))).cloned();
        if let Some(name) = runner {
            beside.push(rig.runs(&name).len() - 1);
            rig.restart(&name);
            rig.call(&name);
        }
        if beside.len() == 3 {
            break;
        }
        go_on(&mut rig, &names);
    }
    assert_eq!(beside, [2, 2, 0], "all workers are full, and still one is emptied for it");
    assert_eq!(rig.evidence().iter().map(|evidence| evidence.alone).collect::<Vec<_>>(), [false, false, true]);
    assert_eq!(rig.farm.overview().running, 12, "the others go on");
}

#[test]
fn one_worker_cannot_be_kept_free_by_everybody() {
    let (mut rig, names) = rig(4, Config { alone_after: 1, ..Config::default() });
    rig.want_all("s", &["x", "y"]);
    rig.call("w1");
    rig.call("w2");
    for name in ["w1", "w2"] {
        rig.restart(name);
        rig.call(name);
    }
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    rig.pass_with(10_000, &all);
    let running: usize = names.iter().map(|name| rig.runs(name).len()).sum();
    assert_eq!(running, 1, "one worker in eight, at least one");
}

#[test]
fn who_was_cut_off_was_not_killed() {
    let config = Config { max_deaths: 2, alone_after: 9, ..Config::default() };
    let (mut rig, _) = rig(2, config);
    rig.want("s", wanted("x"));
    rig.call("w1");
    rig.pass_with(18_000, &["w2"]);
    assert_eq!(rig.runs("w2"), [job("x")]);
    assert_eq!(rig.farm.job(&job("x")).unwrap().evidence[0].fault, Fault::Silent);
    rig.call("w1");
    assert_eq!(rig.farm.job(&job("x")).unwrap().evidence[0].fault, Fault::CutOff, "it is back, and was never dead");
    // One more loss would have been the second death.
    rig.pass_with(18_000, &["w1"]);
    assert_eq!(rig.announced(&["x"]), []);
    rig.pass_with(5_000, &["w1"]);
    rig.done("w1", "x");
    assert_eq!(rig.announced(&["x"]), [one("x", &["s"], true)]);
}

#[test]
fn a_job_is_tried_again_elsewhere_and_later_each_time() {
    let config = Config { backoff_ms: 2_000, avoid_ms: 60_000, ..Config::default() };
    let (mut rig, _) = rig(2, config);
    rig.want("s", wanted("x"));
    rig.call("w1");
    rig.trouble("w1", "x", disk());
    assert_eq!(rig.farm.job(&job("x")).unwrap().state, JobState::Delayed);
    rig.pass_with(1_000, &["w1", "w2"]);
    assert_eq!((rig.runs("w1"), rig.runs("w2")), (vec![], vec![]), "not yet");
    rig.pass_with(10_000, &["w1"]);
    assert_eq!(rig.runs("w1"), [], "not there");
    rig.call("w2");
    assert_eq!(rig.runs("w2"), [job("x")]);
    rig.trouble("w2", "x", disk());
    rig.pass_with(3_000, &["w1", "w2"]);
    assert_eq!(rig.farm.job(&job("x")).unwrap().state, JobState::Delayed, "twice as long");
}

#[test]
fn the_only_worker_gets_it_again_after_a_while() {
    let (mut rig, _) = rig(1, Config { avoid_ms: 5_000, backoff_ms: 500, ..Config::default() });
    rig.want("s", wanted("x"));
    rig.call("w1");
    rig.trouble("w1", "x", disk());
    rig.pass_with(4_000, &["w1"]);
    assert_eq!(rig.runs("w1"), []);
    rig.pass_with(3_000, &["w1"]);
    assert_eq!(rig.runs("w1"), [job("x")]);
}

#[test]
fn table_of_what_is_settled_at_once_and_what_later() {
    for (trouble, tries) in [
        (Trouble::Request { detail: "no Makefile".to_owned() }, 1),
        (Trouble::Timeout { limit_s: 60 }, 2),
        (killed(), 3),
        (disk(), 6),
        (Trouble::Internal { detail: "a bug".to_owned() }, 6),
        (Trouble::Interrupted, 6),
    ] {
        let (mut rig, names) = rig(8, Config::default());
        rig.want("s", wanted("x"));
        for _ in 0..tries {
            assert_eq!(rig.settled, [], "{trouble:?}");
            let name = runner(&mut rig, &names, &[]);
            rig.trouble(&name, "x", trouble.clone());
        }
        let evidence = rig.evidence();
        assert_eq!(evidence.len(), tries, "{trouble:?}");
        assert!(evidence.iter().all(|evidence| evidence.fault == Fault::Trouble(trouble.clone())));
        assert!(
            !rig.notices.iter().any(|notice| matches!(notice, Notice::Quarantined { .. })),
            "nothing proves that it was the workers"
        );
    }
}

#[test]
fn a_worker_on_which_fails_what_others_can_do_is_quarantined() {
    let config = Config { quarantine_after: 3, quarantine_ms: 30_000, ..Config::default() };
    let (mut rig, _) = rig(2, config);
    let quarantined = |rig: &Rig| {
        let found = rig.notices.iter().filter_map(|notice| {
            let Notice::Quarantined { worker, for_ms } = notice else { return None };
            Some((worker.0.clone(), *for_ms))
        });
        found.collect::<Vec<_>>()
    };
    let fail_here_and_not_there = |rig: &mut Rig, name: &str| {
        rig.want("s", wanted(name));
        rig.call("w1");
        rig.trouble("w1", name, disk());
        rig.pass_with(3_000, &["w2"]);
        rig.done("w2", name);
    };
    for name in ["1", "2"] {
        fail_here_and_not_there(&mut rig, name);
    }
    // A success between them takes it back.
    rig.want("s", wanted("good"));
    rig.call("w1");
    rig.done("w1", "good");
    rig.pass_with(1_000, &["w1"]);
    for name in ["3", "4"] {
        fail_here_and_not_there(&mut rig, name);
    }
    assert_eq!(quarantined(&rig), []);
    fail_here_and_not_there(&mut rig, "5");
    assert_eq!(quarantined(&rig), [("w1".to_owned(), 30_000)]);
    rig.want("s", wanted("6"));
    assert!(matches!(rig.call("w1").standing, Standing::Quarantined { .. }));
    assert_eq!(rig.runs("w1"), []);
    rig.call("w2");
    assert_eq!(rig.done("w2", "6").standing, Standing::Good);
    // Then it gets one chance; the next fault doubles the time.
    rig.pass_with(30_000, &["w1", "w2"]);
    fail_here_and_not_there(&mut rig, "7");
    assert_eq!(quarantined(&rig).last(), Some(&("w1".to_owned(), 60_000)));
    rig.pass_with(60_000, &["w1", "w2"]);
    rig.want("s", wanted("8"));
    rig.call("w1");
    rig.done("w1", "8");
    rig.pass_with(1_000, &["w1"]);
    for name in ["9", "10"] {
        fail_here_and_not_there(&mut rig, name);
    }
    assert_eq!(quarantined(&rig).len(), 2, "a good one clears its name");
}

#[test]
fn one_loss_of_a_worker_is_one_fault_of_it() {
    let (mut rig, _) = rig(2, Config { quarantine_after: 2, ..Config::default() });
    for name in ["w1", "w2"] {
        rig.hands.get_mut(name).unwrap().report.capabilities.slots = 5;
    }
    let names = ["1", "2", "3", "4", "5"];
    rig.want_all("s", &names);
    rig.call("w1");
    rig.restart("w1");
    rig.pass_with(3_000, &["w2"]);
    rig.call("w1");
    rig.pass_with(3_000, &["w2"]);
    for name in names {
        rig.done("w2", name);
    }
    assert_eq!(rig.announced(&names).len(), 5);
    assert!(!rig.notices.iter().any(|notice| matches!(notice, Notice::Quarantined { .. })));
}

#[test]
fn a_worker_that_holds_on_past_the_limit_loses_the_job() {
    let (mut rig, _) = rig(2, Config { overdue_ms: 30_000, ..Config::default() });
    rig.want("s", Wanted { limit_ms: 10_000, ..wanted("x") });
    rig.call("w1");
    rig.pass_with(39_000, &["w1"]);
    assert_eq!(rig.runs("w1"), [job("x")]);
    rig.pass_with(3_000, &["w1"]);
    assert_eq!(rig.runs("w1"), [], "it was told to stop");
    assert_eq!(rig.farm.job(&job("x")).unwrap().evidence[0].fault, Fault::Overdue);
    rig.call("w2");
    assert_eq!(rig.runs("w2"), [job("x")]);
}

#[test]
fn a_worker_that_does_not_stop_is_quarantined_in_the_end() {
    let config = Config { stop_ms: 10_000, quarantine_after: 2, ..Config::default() };
    let (mut rig, _) = rig(1, config);
    rig.want("s", wanted("x"));
    rig.call("w1");
    rig.step(Event::SeriesCancelled { series: series("s") });
    for _ in 0..30 {
        rig.now += 1_000;
        assert_eq!(rig.call_in_vain("w1").stop.len(), 1);
    }
    assert!(rig.notices.iter().any(|notice| matches!(notice, Notice::Quarantined { .. })));
}

#[test]
fn a_fault_costs_its_user_nothing() {
    let (mut rig, _) = rig(1, Config { courtesy_every: 0, avoid_ms: 0, backoff_ms: 0, ..Config::default() });
    rig.open("t", "b", Priority::Normal);
    rig.want("s", Wanted { expected_ms: 500_000, ..wanted("x") });
    rig.call("w1");
    rig.now += 100_000;
    rig.trouble("w1", "x", disk());
    rig.want("t", wanted("y"));
    rig.pass_with(1_000, &["w1"]);
    assert_eq!(rig.runs("w1"), [job("x")], "equal ones: what was tried before goes first");
}
