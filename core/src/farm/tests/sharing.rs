//! Who runs what, where and in which order.

use super::*;

#[test]
fn a_job_runs_and_is_announced_to_all_that_want_it_once() {
    let mut rig = Rig::new(Config::default());
    rig.open("s1", "a", Priority::Normal);
    rig.open("s2", "b", Priority::Normal);
    rig.want("s1", wanted("x"));
    rig.want("s2", wanted("x"));
    rig.want("s1", wanted("x"));
    rig.hire("w", 4);
    rig.call("w");
    assert_eq!(rig.runs("w"), [job("x")], "once for both");
    rig.want("s2", wanted("x"));
    let answer = rig.done("w", "x");
    assert_eq!(answer.noted.len(), 1);
    assert_eq!(rig.announced(&["x"]), [one("x", &["s1", "s2"], true)]);
    rig.call("w");
    rig.pass(30_000);
    assert_eq!(rig.announced(&["x"]), [], "never again");
    assert!(rig.farm.is_empty());
    rig.want("s1", wanted("x"));
    rig.call("w");
    assert_eq!(rig.runs("w"), [job("x")], "unless it is wanted again");
}

#[test]
fn needs_are_met() {
    let mut rig = Rig::new(Config::default());
    rig.open("s", "a", Priority::Normal);
    rig.hire("x86", 4);
    rig.call("x86");
    let s390 = Needs { platform: platform("s390x"), kind: Kind::Action };
    let other = Platform { toolchain: Digest::of(b"gcc 13"), ..platform("x86_64") };
    rig.want("s", Wanted { needs: s390.clone(), ..wanted("s390") });
    rig.want("s", Wanted { needs: Needs { platform: other, kind: Kind::Action }, ..wanted("gcc 13") });
    rig.want("s", wanted("x86"));
    for name in ["one", "two"] {
        rig.want("s", Wanted { lane: None, ..step(name, "") });
    }
    rig.call("x86");
    assert_eq!(rig.runs("x86").len(), 2, "one action and one of the steps: it has one slot for steps");
    assert!(rig.runs("x86").contains(&job("x86")));
    let needs = rig.farm.overview().needs;
    let waits = needs.iter().filter(|view| view.workers == 0).map(|view| view.jobs).sum::<usize>();
    assert_eq!(waits, 2, "two wait for a worker that is not there");
    assert_eq!(rig.farm.job(&job("s390")).unwrap().needs, s390);
    // The worker gets another toolchain while it works.
    rig.hands.get_mut("x86").unwrap().report.capabilities.platforms.insert(platform("s390x"));
    rig.call("x86");
    assert!(rig.runs("x86").contains(&job("s390")));
}

#[test]
fn urgent_series_go_first_and_nothing_starves() {
    let mut rig = Rig::new(Config { courtesy_every: 5, ..Config::default() });
    for (series, priority) in [("n", Priority::Nightly), ("m", Priority::Normal), ("g", Priority::Gate)] {
        rig.open(series, "a", priority);
        (0..8).for_each(|n| rig.want(series, wanted(&format!("{series}{n}"))));
    }
    rig.hire("w", 1);
    rig.call("w");
    let names: Vec<String> = ["g", "m", "n"].iter().flat_map(|s| (0..8).map(move |n| format!("{s}{n}"))).collect();
    let mut order = String::new();
    while let Some(id) = rig.runs("w").first() {
        let name = names.iter().find(|name| job(name) == *id).unwrap();
        order.extend(name.chars().take(1));
        rig.done("w", name);
    }
    assert_eq!(order, "ggggnggggnmmmmnmmmmnnnnn");
}

#[test]
fn a_job_is_as_urgent_as_the_most_urgent_that_wants_it() {
    let mut rig = Rig::new(Config { courtesy_every: 0, ..Config::default() });
    rig.open("night", "a", Priority::Nightly);
    rig.open("gate", "b", Priority::Gate);
    rig.open("day", "c", Priority::Normal);
    rig.want("night", wanted("shared"));
    rig.want("day", wanted("day"));
    rig.want("gate", wanted("shared"));
    rig.hire("w", 1);
    rig.call("w");
    assert_eq!(rig.runs("w"), [job("shared")]);
}

#[test]
fn a_step_waits_for_the_worker_that_has_its_lane_but_not_for_long() {
    let config = Config { lane_wait_ms: 5_000, ..Config::default() };
    let mut rig = Rig::new(config);
    rig.open("s", "a", Priority::Normal);
    rig.hire("w1", 2);
    rig.hire("w2", 2);
    rig.want("s", step("state 1", "lane"));
    rig.call("w1");
    rig.done("w1", "state 1");
    // Its lane is on w1: w2 does not get it.
    rig.want("s", step("state 2", "lane"));
    rig.call("w2");
    assert_eq!(rig.runs("w2"), []);
    assert_eq!(rig.farm.job(&job("state 2")).unwrap().state, JobState::WaitsFor("w1".into()));
    rig.call("w1");
    assert_eq!(rig.runs("w1"), [job("state 2")]);
    // w1 is busy with something else for longer than the wait.
    rig.done("w1", "state 2");
    rig.want("s", step("other", "other lane"));
    rig.call("w1");
    assert_eq!(rig.runs("w1"), [job("other")]);
    rig.want("s", step("state 3", "lane"));
    rig.pass_with(4_000, &["w1", "w2"]);
    assert_eq!(rig.runs("w2"), []);
    rig.pass_with(2_000, &["w1", "w2"]);
    assert_eq!(rig.runs("w2"), [job("state 3")]);
    // From now on the lane is there.
    rig.done("w2", "state 3");
    rig.want("s", step("state 4", "lane"));
    assert_eq!(rig.farm.job(&job("state 4")).unwrap().state, JobState::WaitsFor("w2".into()));
}

#[test]
fn nobody_waits_for_a_lane_that_is_gone() {
    for how in ["silent", "draining", "drained", "lane dropped", "restarted"] {
        let mut rig = Rig::new(Config::default());
        rig.open("s", "a", Priority::Normal);
        rig.hire("w1", 1);
        rig.want("s", step("state 1", "lane"));
        rig.call("w1");
        rig.done("w1", "state 1");
        // Somebody waits already when it happens, unless the worker would take it at once.
        match how {
            "silent" => rig.pass(60_000),
            "draining" => {
                rig.hands.get_mut("w1").unwrap().report.draining = true;
                rig.call("w1");
            }
            "drained" => {
                rig.step(Event::WorkerDrained { worker: "w1".into(), drain: true });
            }
            "lane dropped" => {
                rig.hands.get_mut("w1").unwrap().report.lanes.clear();
                rig.call("w1");
            }
            _ => {
                rig.restart("w1");
                rig.call("w1");
            }
        }
        rig.want("s", step("state 2", "lane"));
        assert_eq!(rig.farm.job(&job("state 2")).unwrap().state, JobState::Queued, "{how}");
        rig.hire("w2", 1);
        rig.call("w2");
        assert_eq!(rig.runs("w2"), [job("state 2")], "{how}");
    }
}

#[test]
fn a_lane_gives_no_right_to_the_slots_of_others() {
    let mut rig = Rig::new(Config::default());
    rig.open("steps", "a", Priority::Normal);
    rig.open("actions", "b", Priority::Normal);
    rig.hire("w", 2);
    rig.hands.get_mut("w").unwrap().report.capabilities.step_slots = 2;
    let lanes = ["l1", "l2", "l3", "l4"];
    for name in lanes {
        rig.want("steps", step(&format!("{name} 0"), name));
    }
    (0..20).for_each(|n| rig.want("actions", wanted(&format!("action {n}"))));
    rig.call("w");
    let mut actions = 0;
    let mut next = [0; 4];
    for round in 0..30 {
        let running = rig.runs("w");
        let of_steps =
            running.iter().filter(|id| lanes.iter().enumerate().any(|(i, l)| **id == job(&format!("{l} {}", next[i]))));
        assert_eq!(of_steps.count(), 1, "one each, round {round}");
        // The first that runs ends; the lane goes on at once.
        let id = running[round % 2];
        if let Some(i) = (0..4).find(|i| id == job(&format!("{} {}", lanes[*i], next[*i]))) {
            rig.end("w", &format!("{} {}", lanes[i], next[i]), result("x"));
            next[i] += 1;
            rig.want("steps", step(&format!("{} {}", lanes[i], next[i]), lanes[i]));
            rig.call("w");
        } else {
            let name = (0..20).map(|n| format!("action {n}")).find(|name| id == job(name)).unwrap();
            rig.done("w", &name);
            actions += 1;
        }
    }
    assert!(actions >= 10, "{actions}");
}

#[test]
fn calls_that_are_held_back_are_woken_when_there_is_work() {
    let mut rig = Rig::new(Config::default());
    rig.open("s", "a", Priority::Normal);
    rig.hire("w1", 1);
    rig.hire("w2", 1);
    for name in ["w1", "w2"] {
        assert!(rig.call(name).hold_ms > 0, "nothing to do: it may be held");
    }
    rig.want("s", wanted("x"));
    assert_eq!(std::mem::take(&mut rig.woken), [WorkerId::from("w1")], "one job wakes one worker");
    // Its call is told again, with the same number.
    let report = rig.hands["w1"].report.clone();
    let answer = rig.step(Event::WorkerSynchronized(report)).unwrap();
    assert_eq!((answer.start.len(), answer.hold_ms), (1, 0));
    // What wakes nobody because somebody did not come is not forgotten.
    rig.want("s", wanted("y"));
    rig.pass(1_000);
    assert_eq!(std::mem::take(&mut rig.woken), [WorkerId::from("w2")]);
    assert_eq!(rig.call("w2").start.len(), 1);
}

#[test]
fn a_call_is_held_no_longer_than_it_may_be() {
    let mut rig = Rig::new(Config { idle_ms: 10_000, ..Config::default() });
    rig.hire("w", 1);
    assert_eq!(rig.call("w").hold_ms, 10_000);
    rig.now += 3_000;
    let again = |rig: &mut Rig| {
        let report = rig.hands["w"].report.clone();
        rig.step(Event::WorkerSynchronized(report)).unwrap().hold_ms
    };
    assert_eq!(again(&mut rig), 7_000);
    rig.pass(7_000);
    assert_eq!(again(&mut rig), 0);
}

#[test]
fn estimates_tell_of_what_is_before() {
    let mut rig = Rig::new(Config::default());
    rig.open("s", "a", Priority::Normal);
    rig.open("g", "b", Priority::Gate);
    (0..10).for_each(|n| rig.want("s", wanted(&format!("s{n}"))));
    (0..4).for_each(|n| rig.want("g", wanted(&format!("g{n}"))));
    assert_eq!(rig.farm.series(&series("s")).unwrap().estimate_ms, None, "nobody works");
    rig.hire("w", 2);
    rig.call("w");
    let view = rig.farm.series(&series("s")).unwrap();
    assert_eq!((view.queued, view.running, view.user), (10, 0, user("a")));
    assert_eq!(view.estimate_ms, Some(6_000), "two of the gate and ten of its own, on two slots");
    assert_eq!(rig.farm.series(&series("g")).unwrap().estimate_ms, Some(1_000));
    assert_eq!(rig.farm.series(&series("none")), None);
    let overview = rig.farm.overview();
    assert_eq!((overview.jobs, overview.running, overview.slots), (14, 2, 2));
}
