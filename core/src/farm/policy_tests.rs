use super::*;
use crate::digest::Digest;
use crate::farm::{Attempt, Millis, Platform};
use crate::id::WorkerId;
use crate::target::Arch;

fn platform(arch: Option<&str>, toolchain: &str) -> Platform {
    Platform { arch: arch.and_then(Arch::parse), toolchain: Digest::of(toolchain.as_bytes()) }
}

#[test]
fn table_of_who_fits() {
    let capabilities = |slots, step_slots| Capabilities {
        platforms: [platform(Some("s390x"), "gcc 12"), platform(Some("x86_64"), "gcc 12"), platform(None, "sh")].into(),
        slots,
        step_slots,
    };
    use Kind::{Action, Step};
    for (slots, step_slots, arch, toolchain, kind, want) in [
        (4, 1, Some("s390"), "gcc 12", Action, Ok(())),
        (4, 1, Some("s390"), "gcc 12", Step, Ok(())),
        (4, 1, None, "sh", Step, Ok(())),
        (4, 0, Some("s390"), "gcc 12", Action, Ok(())),
        (4, 0, Some("s390"), "gcc 12", Step, Err(Misfit::Kind)),
        (0, 4, Some("s390"), "gcc 12", Step, Err(Misfit::Kind)),
        (0, 0, Some("s390"), "gcc 12", Action, Err(Misfit::Kind)),
        (4, 1, Some("s390"), "gcc 13", Action, Err(Misfit::Toolchain)),
        (4, 1, Some("arm64"), "gcc 12", Action, Err(Misfit::Arch)),
        (4, 1, None, "gcc 12", Action, Err(Misfit::Toolchain)),
    ] {
        let needs = Needs { platform: platform(arch, toolchain), kind };
        assert_eq!(fits(&capabilities(slots, step_slots), &needs), want, "{slots} {step_slots} {arch:?} {kind:?}");
    }
}

fn trouble(name: &str) -> Trouble {
    let detail = String::new();
    match name {
        "killed" => Trouble::Killed { detail },
        "disk" => Trouble::Disk { detail },
        "sandbox" => Trouble::Sandbox { detail },
        "tree" => Trouble::Tree { detail },
        "toolchain" => Trouble::Toolchain { detail },
        "workers" => Trouble::Workers { detail },
        "internal" => Trouble::Internal { detail },
        "request" => Trouble::Request { detail },
        "timeout" => Trouble::Timeout { limit_s: 7 },
        "interrupted" => Trouble::Interrupted,
        other => panic!("{other}"),
    }
}

#[test]
fn table_of_budgets() {
    let config = Config { max_deaths: 3, max_faults: 6, max_timeouts: 2, max_returns: 4, ..Config::default() };
    let says = |name| Fault::Trouble(trouble(name));
    // The fault, whether the worker is being stopped, and with which one of them the job is given up.
    for (fault, leaving, budget) in [
        (Fault::Silent, false, 3),
        (Fault::Silent, true, 3),
        (Fault::Restarted, false, 3),
        (says("killed"), false, 3),
        (Fault::CutOff, false, 6),
        (Fault::NotStarted, false, 6),
        (Fault::Overdue, false, 2),
        (says("timeout"), false, 2),
        (says("disk"), false, 6),
        (says("sandbox"), false, 6),
        (says("tree"), false, 6),
        (says("toolchain"), false, 6),
        (says("workers"), false, 6),
        (says("internal"), false, 6),
        (says("interrupted"), false, 6),
        (says("interrupted"), true, 4),
        (says("request"), false, 1),
    ] {
        let mut tally = Tally::default();
        let over = (1..20).find(|_| judge(&config, &mut tally, &fault, leaving) == Next::Over);
        assert_eq!(over, Some(budget), "{fault:?} {leaving}");
        assert_eq!(
            tally.faults == 0,
            leaving && fault == says("interrupted"),
            "{fault:?}: only giving back is no fault"
        );
    }
}

#[test]
fn faults_of_all_sorts_share_one_budget() {
    let config = Config { max_faults: 4, ..Config::default() };
    let mut tally = Tally::default();
    let mut faults = [Fault::Silent, Fault::Overdue, Fault::NotStarted].iter();
    assert!(faults.all(|fault| judge(&config, &mut tally, fault, false) != Next::Over));
    assert_eq!(judge(&config, &mut tally, &Fault::CutOff, false), Next::Over);
}

#[test]
fn delays_double_up_to_a_bound() {
    let config = Config { backoff_ms: 100, backoff_max_ms: 1_000, ..Config::default() };
    let delays: Vec<u64> = [1, 2, 3, 4, 5, 64, 65, u32::MAX].map(|faults| backoff(&config, faults)).into();
    assert_eq!(delays, [100, 200, 400, 800, 1_000, 1_000, 1_000, 1_000]);
    let config = Config { quarantine_ms: 100, quarantine_max_ms: 350, ..Config::default() };
    assert_eq!([0, 1, 2, 63, 64].map(|before| quarantine(&config, before)), [100, 200, 350, 350, 350]);
}

#[test]
fn what_waiters_are_told_names_the_cause_and_never_the_patch() {
    let evidence = |worker: &str, fault| Evidence {
        attempt: Attempt { epoch: 1, number: 1 },
        worker: WorkerId::from(worker),
        at: Millis(5),
        fault,
        alone: false,
    };
    let disk = Fault::Trouble(Trouble::Disk { detail: "no space left".to_owned() });
    let table = [
        (
            vec![evidence("w1", disk.clone()), evidence("w2", disk)],
            "no worker of the farm could run it to its end (tried 2 times; at last, on w2: the disk could not be written (no space left))",
        ),
        (
            vec![evidence("w1", Fault::Silent), evidence("w2", Fault::Restarted), evidence("w3", Fault::Silent)],
            "no worker of the farm could run it to its end (tried 3 times; 3 were killed with it, on w1, w2, w3; at last: the worker was not heard any more)",
        ),
        (
            vec![evidence("w1", Fault::Silent), evidence("w2", Fault::Trouble(trouble("timeout")))],
            "it ran longer than the limit of 7 s",
        ),
        (vec![evidence("w1", Fault::Trouble(Trouble::Request { detail: "no Makefile".to_owned() }))], "no Makefile"),
        (vec![], "bug in bombproof: given up without a reason"),
    ];
    for (evidence, want) in table {
        let verdict = verdict(&evidence);
        assert_eq!(verdict.describe(), want);
        assert_ne!(verdict.blame(), crate::outcome::Blame::Patch);
        assert!(!verdict.may_pass(), "the farm has tried often enough: {want}");
    }
}
