//! Any events in any order, with messages of workers that are wrong, stale or mad: nothing is inconsistent after any step,
//! each wait is settled once, and never by an attempt that did not hold the lease.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Move {
    Open(u8, u8, u8),
    Want { series: u8, job: u8, rank: u8, step: bool, lane: Option<u8> },
    Unwant(u8, u8),
    Cancel(u8),
    Share(u8, u8),
    Call { worker: u8, heard: bool, drop: u8, draining: bool },
    End { worker: u8, which: u8, how: u8 },
    Restart(u8),
    Stale(u8),
    Forged { worker: u8, epoch: u8, number: u8, job: u8, running: bool },
    Drain(u8, bool),
    Pass(u16),
    NewLeader,
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        2 => (0..4_u8, 0..3_u8, 0..3_u8).prop_map(|(s, u, p)| Move::Open(s, u, p)),
        12 => (0..4_u8, 0..12_u8, 0..3_u8, any::<bool>(), prop::option::of(0..3_u8))
            .prop_map(|(series, job, rank, step, lane)| Move::Want { series, job, rank, step, lane }),
        2 => (0..4_u8, 0..12_u8).prop_map(|(s, j)| Move::Unwant(s, j)),
        1 => (0..4_u8).prop_map(Move::Cancel),
        1 => (0..3_u8, 0..4_u8).prop_map(|(u, q)| Move::Share(u, q)),
        14 => (0..3_u8, prop::bool::weighted(0.9), 0..20_u8, prop::bool::weighted(0.05))
            .prop_map(|(worker, heard, drop, draining)| Move::Call { worker, heard, drop, draining }),
        8 => (0..3_u8, any::<u8>(), 0..9_u8).prop_map(|(worker, which, how)| Move::End { worker, which, how }),
        1 => (0..3_u8).prop_map(Move::Restart),
        1 => (0..3_u8).prop_map(Move::Stale),
        1 => (0..3_u8, 0..4_u8, 0..20_u8, 0..12_u8, any::<bool>())
            .prop_map(|(worker, epoch, number, job, running)| Move::Forged { worker, epoch, number, job, running }),
        1 => (0..3_u8, any::<bool>()).prop_map(|(w, d)| Move::Drain(w, d)),
        6 => (1..20_000_u16).prop_map(Move::Pass),
        1 => Just(Move::NewLeader),
    ]
}

fn name(number: u8) -> String {
    format!("j{number}")
}

/// What has to hold, seen from outside.
#[derive(Default)]
struct Model {
    open: BTreeSet<u8>,
    waiting: BTreeSet<(String, JobId)>,
    epoch: u64,
}

impl Model {
    fn take_in(&mut self, rig: &mut Rig) -> Result<(), TestCaseError> {
        for settlement in std::mem::take(&mut rig.settled) {
            for waiter in &settlement.waiters {
                let waited = self.waiting.remove(&(waiter.0.clone(), settlement.job));
                let closed = settlement.settled == Settled::Closed;
                prop_assert!(waited != closed, "settled twice, or for one who did not wait: {settlement:?}");
            }
            match settlement.settled {
                Settled::Result { digest, attempt, .. } => {
                    prop_assert_eq!(
                        digest,
                        Digest::of(attempt.to_string().as_bytes()),
                        "the result of another attempt"
                    );
                }
                Settled::Trouble { trouble, evidence } => {
                    prop_assert_ne!(trouble.blame(), crate::outcome::Blame::Patch);
                    prop_assert!(!evidence.is_empty());
                }
                Settled::Closed => {}
            }
        }
        Ok(())
    }
}

fn play(moves: Vec<Move>) -> Result<(), TestCaseError> {
    let config = Config { alone_after: 1, max_deaths: 2, half_life_ms: 300, courtesy_every: 3, ..Config::default() };
    let mut rig = Rig::new(config.clone());
    let mut model = Model { epoch: 1, ..Model::default() };
    let mut stale: Vec<Report> = Vec::new();
    for number in 0..3_u32 {
        rig.hire(&format!("w{number}"), number + 1);
    }
    for step_of in moves {
        match step_of {
            Move::Open(s, u, p) => {
                let priority = [Priority::Gate, Priority::Normal, Priority::Nightly][p as usize];
                rig.open(&format!("s{s}"), &format!("u{u}"), priority);
                model.open.insert(s);
            }
            Move::Want { series, job: number, rank, step: is_step, lane: in_lane } => {
                if model.open.contains(&series) {
                    model.waiting.insert((format!("s{series}"), job(&name(number))));
                }
                let lane = in_lane.map(|number| lane(&name(number)));
                // Every third job is a step, so that a job has the same needs whoever wants it.
                let kind = if number % 3 == 0 && is_step { Kind::Step } else { Kind::Action };
                let needs = Needs { platform: platform("x86_64"), kind };
                rig.want(&format!("s{series}"), Wanted { needs, rank: rank.into(), lane, ..wanted(&name(number)) });
            }
            Move::Unwant(s, number) => {
                model.waiting.remove(&(format!("s{s}"), job(&name(number))));
                rig.step(Event::JobUnwanted { series: series(&format!("s{s}")), job: job(&name(number)) });
            }
            Move::Cancel(s) => {
                model.open.remove(&s);
                model.waiting.retain(|(waiter, _)| *waiter != format!("s{s}"));
                rig.step(Event::SeriesCancelled { series: series(&format!("s{s}")) });
            }
            Move::Share(u, quota) => {
                let share = Share { weight: u32::from(quota), quota: u32::from(quota) };
                rig.step(Event::UserSet { user: user(&format!("u{u}")), share });
            }
            Move::Call { worker, heard, drop, draining } => {
                let name = format!("w{worker}");
                let hand = rig.hands.get_mut(&name).unwrap();
                hand.report.draining = draining;
                if drop == 0 {
                    hand.report.running.pop();
                }
                if drop == 1 {
                    hand.report.lanes.clear();
                }
                stale.push(hand.report.clone());
                if heard {
                    rig.call(&name)
                } else {
                    rig.call_in_vain(&name)
                };
            }
            Move::End { worker, which, how } => {
                let running = &mut rig.hands.get_mut(&format!("w{worker}")).unwrap().report;
                if running.running.is_empty() {
                    continue;
                }
                let Running { attempt, job } = running.running.remove(which as usize % running.running.len());
                let detail = String::new();
                let ended = match how {
                    0 => Ended::Trouble(Trouble::Disk { detail }),
                    1 => Ended::Trouble(Trouble::Killed { detail }),
                    2 => Ended::Trouble(Trouble::Interrupted),
                    3 => Ended::Trouble(Trouble::Timeout { limit_s: 1 }),
                    4 => Ended::Trouble(Trouble::Request { detail }),
                    _ => Ended::Result { digest: Digest::of(attempt.to_string().as_bytes()) },
                };
                running.finished.push(Finished { attempt, job, ended });
            }
            Move::Restart(worker) => rig.restart(&format!("w{worker}")),
            Move::Stale(pick) => {
                if let Some(report) = stale.get(pick as usize * 7) {
                    let report = report.clone();
                    rig.step(Event::WorkerSynchronized(report));
                }
            }
            Move::Forged { worker, epoch, number, job: of, running } => {
                let attempt = Attempt { epoch: epoch.into(), number: number.into() };
                let mut report = rig.hands[&format!("w{worker}")].report.clone();
                let of = job(&name(of));
                let ended = Ended::Result { digest: Digest::of(attempt.to_string().as_bytes()) };
                if running {
                    report.running.push(Running { attempt, job: of });
                } else {
                    report.finished.push(Finished { attempt, job: of, ended });
                }
                rig.step(Event::WorkerSynchronized(report));
            }
            Move::Drain(worker, drain) => {
                rig.step(Event::WorkerDrained { worker: format!("w{worker}").as_str().into(), drain });
            }
            Move::Pass(ms) => rig.pass(ms.into()),
            Move::NewLeader => {
                model.epoch += 1;
                rig.farm = Farm::new(model.epoch, config.clone(), Millis(rig.now));
                model.open.clear();
                model.waiting.clear();
            }
        }
        model.take_in(&mut rig)?;
        let queued: BTreeSet<JobId> = model.waiting.iter().map(|(_, job)| *job).collect();
        prop_assert_eq!(rig.farm.len(), queued.len(), "what is waited for is there, and nothing else");
    }
    finish(&mut rig, &mut model)
}

/// With workers that do their work everything comes to an end.
fn finish(rig: &mut Rig, model: &mut Model) -> Result<(), TestCaseError> {
    for number in 0..3 {
        rig.step(Event::UserSet { user: user(&format!("u{number}")), share: Share { weight: 1, quota: 9 } });
        rig.step(Event::WorkerDrained { worker: format!("w{number}").as_str().into(), drain: false });
        let report = &mut rig.hands.get_mut(&format!("w{number}")).unwrap().report;
        report.draining = false;
        // Calls that were forged had their number.
        report.call += 1;
    }
    for _ in 0..400 {
        for number in 0..3 {
            let name = format!("w{number}");
            rig.call(&name);
            let report = &mut rig.hands.get_mut(&name).unwrap().report;
            for Running { attempt, job } in std::mem::take(&mut report.running) {
                let ended = Ended::Result { digest: Digest::of(attempt.to_string().as_bytes()) };
                report.finished.push(Finished { attempt, job, ended });
            }
        }
        rig.pass(1_000);
        model.take_in(rig)?;
        if model.waiting.is_empty() {
            return Ok(());
        }
    }
    prop_assert!(false, "{} are never settled: {:?}", model.waiting.len(), rig.farm.overview());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_iters: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_or_settled_twice(moves in prop::collection::vec(moves(), 1..150)) {
        play(moves)?;
    }
}
