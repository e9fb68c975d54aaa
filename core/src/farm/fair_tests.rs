use super::*;
use crate::farm::arena::Key as _;

const ACTIONS: u32 = 0;

fn class(number: u32) -> Class {
    Class::new(number as usize)
}

fn job(number: u32) -> JobKey {
    JobKey::new(number as usize)
}

fn fair() -> Fair {
    Fair::new(Share { weight: 1, quota: u32::MAX }, 600_000, 0)
}

fn open(fair: &mut Fair, series: &str, user: &str, priority: Priority) -> SeriesKey {
    fair.open(&series.into(), &user.into(), priority);
    fair.find(&series.into()).unwrap()
}

/// Adds jobs of equal length to a series: `count` of them, numbered from `first`.
fn fill(fair: &mut Fair, series: SeriesKey, in_class: u32, first: u32, count: u32, ms: u32) {
    (first..first + count).for_each(|n| fair.add(series, class(in_class), Entry::new(n, ms, job(n))));
}

/// A farm of `slots` slots, whose jobs take as long as expected, until `until`: how many milliseconds each series had.
fn run(
    fair: &mut Fair,
    slots: usize,
    classes: &[u32],
    length: impl Fn(JobKey) -> u32,
    until: u64,
) -> BTreeMap<String, u64> {
    let classes: Vec<Class> = classes.iter().map(|n| class(*n)).collect();
    let mut running: BTreeSet<(u64, JobKey, SeriesKey)> = BTreeSet::new();
    let mut had = BTreeMap::new();
    let mut now = 0;
    loop {
        while running.len() < slots
            && let Some(pick) = fair.pick(Priority::Normal, &classes)
        {
            let ms = length(pick.job);
            let (entry, found) = classes
                .iter()
                .map(|class| (Entry::new(pick.job.index().try_into().unwrap(), ms, pick.job), *class))
                .find(|(entry, class)| fair.is_queued(pick.series, *class, *entry))
                .unwrap();
            fair.remove(pick.series, found, entry);
            fair.started(pick.series, ms, now);
            running.insert((now + u64::from(ms), pick.job, pick.series));
        }
        let Some((at, job, series)) = running.pop_first() else { return had };
        if at > until {
            // What still runs is given back.
            let left = running.into_iter().chain([(at, job, series)]);
            left.for_each(|(at, job, series)| fair.ended(series, length(job), at - u64::from(length(job)), None));
            return had;
        }
        now = at;
        let ms = length(job);
        fair.ended(series, ms, now - u64::from(ms), Some(ms.into()));
        *had.entry(fair.series(series).unwrap().id.0.clone()).or_default() += u64::from(ms);
        let runs: Vec<SeriesKey> = running.iter().map(|(_, _, series)| *series).collect();
        assert_eq!(fair.check(&runs), Ok(()));
    }
}

fn shares(had: &BTreeMap<String, u64>) -> Vec<(&str, u64)> {
    let total: u64 = had.values().sum();
    had.iter().map(|(series, ms)| (series.as_str(), (ms * 100 + total / 2) / total)).collect()
}

#[test]
fn users_share_evenly_however_many_jobs_and_series_they_have() {
    for slots in [1, 2, 7, 40] {
        let mut fair = fair();
        let one = open(&mut fair, "a1", "a", Priority::Normal);
        let two = open(&mut fair, "a2", "a", Priority::Normal);
        let three = open(&mut fair, "b1", "b", Priority::Normal);
        fill(&mut fair, one, ACTIONS, 0, 5_000, 100);
        fill(&mut fair, two, ACTIONS, 10_000, 5_000, 100);
        fill(&mut fair, three, ACTIONS, 20_000, 5_000, 100);
        let had = run(&mut fair, slots, &[ACTIONS], |_| 100, 100_000 / slots as u64);
        assert_eq!(shares(&had), [("a1", 25), ("a2", 25), ("b1", 50)], "{slots} slots");
    }
}

#[test]
fn long_jobs_get_no_more_time_than_short_ones() {
    for slots in [1, 2, 8] {
        let mut fair = fair();
        let long = open(&mut fair, "long", "a", Priority::Normal);
        let short = open(&mut fair, "short", "b", Priority::Normal);
        fill(&mut fair, long, ACTIONS, 0, 1_000, 5_000);
        fill(&mut fair, short, ACTIONS, 10_000, 50_000, 100);
        let length = |job: JobKey| if job.index() < 10_000 { 5_000 } else { 100 };
        let had = run(&mut fair, slots, &[ACTIONS], length, 600_000);
        assert_eq!(shares(&had), [("long", 50), ("short", 50)], "{slots} slots");
    }
}

#[test]
fn weights_count() {
    for slots in [1, 3, 9] {
        let mut fair = fair();
        fair.set_share(&"a".into(), Share { weight: 2, quota: u32::MAX });
        let heavy = open(&mut fair, "heavy", "a", Priority::Normal);
        let light = open(&mut fair, "light", "b", Priority::Normal);
        fill(&mut fair, heavy, ACTIONS, 0, 9_000, 100);
        fill(&mut fair, light, ACTIONS, 10_000, 9_000, 100);
        let had = run(&mut fair, slots, &[ACTIONS], |_| 100, 300_000 / slots as u64);
        assert_eq!(shares(&had), [("heavy", 67), ("light", 33)], "{slots} slots");
    }
}

#[test]
fn a_quota_holds_and_leaves_the_rest_to_others() {
    let mut fair = fair();
    fair.set_share(&"a".into(), Share { weight: 1, quota: 2 });
    let capped = open(&mut fair, "capped", "a", Priority::Normal);
    let free = open(&mut fair, "free", "b", Priority::Normal);
    fill(&mut fair, capped, ACTIONS, 0, 9_000, 100);
    fill(&mut fair, free, ACTIONS, 10_000, 9_000, 100);
    let had = run(&mut fair, 10, &[ACTIONS], |_| 100, 30_000);
    assert_eq!(shares(&had), [("capped", 20), ("free", 80)]);
    fair.set_share(&"a".into(), Share { weight: 1, quota: 0 });
    let next = fair.pick(Priority::Normal, &[class(ACTIONS)]).unwrap();
    assert_eq!(next.series, free);
    assert_eq!(fair.turn_of([capped].into_iter()), None);
    assert_eq!(fair.turn_of([capped, free].into_iter()).map(|(_, _, series)| series), Some(free));
}

#[test]
fn who_comes_late_gets_an_even_share_and_not_what_was_missed() {
    let mut fair = fair();
    let old = open(&mut fair, "old", "a", Priority::Normal);
    fill(&mut fair, old, ACTIONS, 0, 50_000, 100);
    run(&mut fair, 4, &[ACTIONS], |_| 100, 200_000);
    let new = open(&mut fair, "new", "b", Priority::Normal);
    fill(&mut fair, new, ACTIONS, 100_000, 50_000, 100);
    let had = run(&mut fair, 4, &[ACTIONS], |_| 100, 100_000);
    assert_eq!(shares(&had), [("new", 50), ("old", 50)]);
}

#[test]
fn a_user_who_can_use_only_a_part_does_not_save_up_for_later() {
    let (wide, narrow) = (0, 1);
    let mut fair = fair();
    let one = open(&mut fair, "one", "a", Priority::Normal);
    let two = open(&mut fair, "two", "b", Priority::Normal);
    fill(&mut fair, one, wide, 0, 90_000, 100);
    // For a long time the second one has only what a single slot can run.
    fill(&mut fair, two, narrow, 100_000, 1_000, 100);
    for _ in 0..500 {
        let pick = fair.pick(Priority::Normal, &[class(narrow)]).unwrap();
        let entry = Entry::new(pick.job.index().try_into().unwrap(), 100, pick.job);
        fair.remove(pick.series, class(narrow), entry);
        fair.started(pick.series, 100, 0);
        fair.ended(pick.series, 100, 0, Some(100));
    }
    run(&mut fair, 8, &[wide], |_| 100, 50_000);
    fill(&mut fair, two, wide, 200_000, 90_000, 100);
    let had = run(&mut fair, 8, &[wide], |_| 100, 20_000);
    assert_eq!(shares(&had), [("one", 50), ("two", 50)]);
}

#[test]
fn within_a_series_rank_goes_first_and_then_length() {
    let mut fair = fair();
    let series = open(&mut fair, "s", "a", Priority::Normal);
    let entries = [(5, 10, 1), (0, 10, 2), (5, 90, 3), (0, 20, 4), (5, 10, 5), (5, u32::MAX, 6)];
    for (rank, ms, number) in entries {
        fair.add(series, class(number % 2), Entry::new(rank, ms, job(number)));
    }
    let both = [class(0), class(1)];
    let mut order = Vec::new();
    while let Some(pick) = fair.pick(Priority::Normal, &both) {
        let (rank, ms, number) = *entries.iter().find(|(_, _, number)| job(*number) == pick.job).unwrap();
        fair.remove(series, class(number % 2), Entry::new(rank, ms, pick.job));
        order.push(number);
    }
    assert_eq!(order, [4, 2, 6, 3, 1, 5]);
    assert_eq!((fair.series(series).unwrap().queued, fair.series(series).unwrap().queued_ms), (0, 0));
}

#[test]
fn only_what_a_worker_can_run_is_picked() {
    let mut fair = fair();
    let series = open(&mut fair, "s", "a", Priority::Gate);
    fill(&mut fair, series, 3, 0, 1, 10);
    assert_eq!(fair.pick(Priority::Gate, &[class(1), class(2)]), None);
    assert_eq!(fair.pick(Priority::Normal, &[class(3)]), None);
    assert_eq!(fair.pick(Priority::Gate, &[class(1), class(3)]).map(|pick| pick.job), Some(job(0)));
    assert!(fair.has(class(3)) && !fair.has(class(1)));
}

#[test]
fn a_closed_series_leaves_nothing_behind() {
    let mut fair = fair();
    let series = open(&mut fair, "s", "a", Priority::Normal);
    fill(&mut fair, series, ACTIONS, 0, 10, 10);
    fair.keep_elsewhere(series, job(99));
    let mut jobs = fair.clear(series);
    jobs.sort_unstable();
    assert_eq!(jobs, (0..10).chain([99]).map(job).collect::<Vec<_>>());
    fair.close(series);
    assert_eq!(fair.check(&[]), Ok(()));
    assert!(!fair.has(class(ACTIONS)) && fair.find(&"s".into()).is_none());
}

#[test]
fn orders_survive_the_shrinking_of_amounts() {
    let mut fair = Fair::new(Share { weight: 1, quota: u32::MAX }, 1_000, 0);
    let busy = open(&mut fair, "busy", "a", Priority::Normal);
    let idle = open(&mut fair, "idle", "b", Priority::Normal);
    fill(&mut fair, busy, ACTIONS, 0, 3, 50);
    fill(&mut fair, idle, ACTIONS, 10, 3, 50);
    fair.started(busy, 50_000, 19_000);
    fair.ended(busy, 50_000, 19_000, Some(40_000));
    let next = |fair: &Fair| fair.pick(Priority::Normal, &[class(ACTIONS)]).map(|pick| pick.series);
    assert_eq!(next(&fair), Some(idle));
    fair.tick(20_500);
    assert_eq!((next(&fair), fair.check(&[])), (Some(idle), Ok(())));
    fair.tick(10_000_000);
    assert_eq!(fair.check(&[]), Ok(()), "and when all is forgotten");
}
