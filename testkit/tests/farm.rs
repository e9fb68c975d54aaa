//! A simulated farm in which things go wrong, from seeds. A seed that fails is printed; `BOMBPROOF_SEED=N cargo test -p
//! bombproof-testkit --test farm` plays it alone, `BOMBPROOF_SEEDS=N` the first N instead of 200.
#![expect(clippy::panic, reason = "tests")]

use bombproof_testkit::farm::{End, Fault, Network, Outcome, Plan, config, run};

/// Plays a plan; says which seed it was if something went wrong.
fn play(seed: u64, plan: &Plan) -> Outcome {
    run(plan).unwrap_or_else(|violation| panic!("seed {seed}: {violation}\nBOMBPROOF_SEED={seed} plays it again"))
}

fn compare(seed: u64) -> Outcome {
    let plan = Plan::from_seed(seed);
    let undisturbed = play(seed, &plan.undisturbed());
    let disturbed = play(seed, &plan);
    for (key, end) in &disturbed.ends {
        assert_eq!(Some(end), undisturbed.ends.get(key), "seed {seed}: {key:?} came to something else");
    }
    let expected = undisturbed.ends.keys().filter(|(series, _)| !disturbed.cancelled.contains(series)).count();
    assert_eq!(disturbed.ends.len(), expected, "seed {seed}: something was lost");
    disturbed
}

#[test]
fn whatever_goes_wrong_every_series_comes_to_what_it_would_have_come_to() {
    let given = std::env::var("BOMBPROOF_SEED").ok().and_then(|seed| seed.parse().ok());
    let count = std::env::var("BOMBPROOF_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(200);
    let seeds = given.map_or(0..count, |seed: u64| seed..seed + 1);
    let mut sums = (0, 0, 0, 0, 0);
    for seed in seeds {
        let outcome = compare(seed);
        println!(
            "seed {seed}: {} ends after {} s; {} faults, {} leaders; {} tried again, {} refused, {} taken over",
            outcome.ends.len(),
            outcome.took_ms / 1_000,
            outcome.faults,
            outcome.leaders,
            outcome.retried,
            outcome.refused,
            outcome.adopted
        );
        sums.0 += outcome.faults;
        sums.1 += outcome.retried;
        sums.2 += outcome.refused;
        sums.3 += outcome.adopted;
        sums.4 += outcome.leaders;
    }
    println!("all: {sums:?}");
    if given.is_none() && count >= 200 {
        assert!(sums.0 > 1_000 && sums.1 > 1_000 && sums.2 > 100 && sums.3 > 100 && sums.4 > 300, "too tame: {sums:?}");
    }
}

#[test]
fn a_seed_can_be_played_again() {
    let plan = Plan::from_seed(7);
    assert_eq!(play(7, &plan), play(7, &plan));
    assert_ne!(play(7, &plan).trace, play(8, &Plan::from_seed(8)).trace);
}

/// When more goes wrong than a job has to endure, jobs are given up; nothing else may happen, and nothing untrue is said.
#[test]
fn too_much_is_told_as_it_was() {
    let mut given_up = 0;
    for seed in 1_000..1_060 {
        let mut plan = Plan::from_seed(seed);
        plan.endurable = false;
        let kills = (0..90).map(|n| (1_500 * n, Fault::Kill(usize::try_from(n * 7 % 9).unwrap_or(0), 1_000)));
        plan.faults.extend(kills);
        let undisturbed = play(seed, &plan.undisturbed());
        let outcome = play(seed, &plan);
        for (key, end) in &outcome.ends {
            let fits = *end == End::GivenUp || undisturbed.ends.get(key) == Some(end);
            assert!(fits, "seed {seed}: {key:?} came to something else");
        }
        let all = |outcome: &Outcome| outcome.ends.values().filter(|end| **end == End::GivenUp).count();
        given_up += all(&outcome).saturating_sub(all(&undisturbed));
    }
    assert!(given_up > 20, "too tame: {given_up}");
}

#[test]
fn a_cancelled_series_gives_its_slots_back_within_two_seconds() {
    let mut longest = 0;
    for seed in 0..40 {
        let mut plan = Plan::from_seed(seed);
        plan.network = Network::default();
        plan.faults =
            (0..plan.series.len()).map(|series| (22_000 + 3_000 * series as u64, Fault::Cancel(series))).collect();
        let outcome = play(seed, &plan);
        assert!(outcome.freed_within_ms <= 2_000, "seed {seed}: {} ms", outcome.freed_within_ms);
        longest = longest.max(outcome.freed_within_ms);
    }
    assert!(longest > config().call_ms / 2, "nothing ran when it was cancelled: {longest} ms");
}
