//! The farm in counts.

use super::*;

#[test]
fn what_waits_and_what_runs_is_counted_by_what_it_is() {
    let mut rig = Rig::new(Config::default());
    rig.open("s1", "a", Priority::Normal);
    rig.open("s2", "b", Priority::Gate);
    rig.want_all("s1", &["x", "y", "z"]);
    rig.want("s2", wanted("x"));
    rig.want("s1", step("build", "lane"));
    let s390 = Needs { platform: platform("s390x"), kind: Kind::Action };
    rig.want("s1", Wanted { needs: s390, ..wanted("elsewhere") });
    let figures = rig.farm.figures();
    assert_eq!(figures.epoch, 1);
    assert_eq!(figures.waiting, [(Priority::Gate, 1), (Priority::Normal, 5)].into());
    assert_eq!((figures.running.len(), figures.workers.len(), figures.slots), (0, 0, 0));
    rig.hire("w", 3);
    rig.call("w");
    let figures = rig.farm.figures();
    let arch = Arch::parse("x86_64");
    let running: u64 = figures.running.values().sum();
    assert_eq!((running, figures.slots, figures.slots_used), (3, 3, 3));
    assert!(figures.running.keys().all(|(_, of)| *of == arch), "{figures:?}");
    let waiting: u64 = figures.waiting.values().sum();
    assert_eq!(waiting, 2, "one on x86_64, and the one that no worker can run: {figures:?}");
    assert_eq!(figures.waiting[&Priority::Gate], 0, "what is urgent runs");
    assert_eq!(figures.workers, [Some(Standing::Good)]);
}

#[test]
fn a_job_that_is_tried_again_waits_and_a_lost_worker_is_silent() {
    let mut rig = Rig::new(Config::default());
    rig.open("s", "a", Priority::Normal);
    rig.want("s", wanted("x"));
    rig.hire("w", 1);
    rig.call("w");
    assert_eq!(rig.farm.figures().waiting[&Priority::Normal], 0);
    rig.pass(60_000);
    let figures = rig.farm.figures();
    assert_eq!((figures.waiting[&Priority::Normal], figures.running.len()), (1, 0));
    assert_eq!((figures.workers, figures.slots, figures.slots_used), (vec![None], 0, 0));
    rig.step(Event::SeriesCancelled { series: "s".into() });
    assert_eq!(rig.farm.figures().waiting.values().sum::<u64>(), 0);
}
