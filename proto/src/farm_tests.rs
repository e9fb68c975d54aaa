use bombproof_core::outcome::Trouble;
use proptest::prelude::*;
use prost::Message;

use super::*;

fn some_digest() -> impl Strategy<Value = Digest> {
    any::<u64>().prop_map(|number| Digest::of(&number.to_be_bytes()))
}

fn some_attempt() -> impl Strategy<Value = Attempt> {
    (any::<u64>(), any::<u64>()).prop_map(|(epoch, number)| Attempt { epoch, number })
}

fn some_arch() -> impl Strategy<Value = Arch> {
    prop_oneof!["x86_64", "arm64", "s390", "powerpc"].prop_map(|name| Arch::parse(&name).unwrap())
}

fn some_ended() -> impl Strategy<Value = Ended> {
    prop_oneof![
        some_digest().prop_map(|digest| Ended::Result { digest }),
        any::<u64>().prop_map(|limit_s| Ended::Trouble(Trouble::Timeout { limit_s })),
        ".*".prop_map(|detail| Ended::Trouble(Trouble::Killed { detail })),
        Just(Ended::Trouble(Trouble::Interrupted)),
    ]
}

fn some_offer() -> impl Strategy<Value = Offer> {
    (some_arch(), any::<bool>(), "[a-z-]{0,20}", "[a-z 0-9.]{0,40}", some_digest()).prop_map(
        |(arch, clang, prefix, version, digest)| Offer {
            arch,
            compiler: if clang { Compiler::Clang } else { Compiler::Gcc },
            prefix,
            toolchain: Toolchain { version, digest },
        },
    )
}

prop_compose! {
    fn some_call()(
        worker in "[a-z0-9.é-]{1,30}",
        numbers in any::<(u64, u64, u32, u32, bool)>(),
        platforms in proptest::collection::btree_set((proptest::option::of(some_arch()), some_digest()), 0..4),
        lanes in proptest::collection::vec(some_digest(), 0..4),
        running in proptest::collection::vec((some_attempt(), some_digest()), 0..4),
        finished in proptest::collection::btree_map(some_attempt(), (some_digest(), some_ended(), any::<u64>()), 0..4),
        offers in proptest::collection::vec(some_offer(), 0..3),
        sandbox in "[a-z]{0,12}",
    ) -> Call {
        let (session, call, slots, step_slots, draining) = numbers;
        let platforms = platforms.into_iter().map(|(arch, toolchain)| Platform { arch, toolchain }).collect();
        let mut results = BTreeMap::new();
        let finished = finished
            .into_iter()
            .map(|(attempt, (job, ended, size_bytes))| {
                if let Ended::Result { digest } = &ended {
                    results.insert(attempt, BlobDigest { hash: *digest, size_bytes });
                }
                Finished { attempt, job: JobId(job), ended }
            })
            .collect();
        let report = Report {
            worker: WorkerId(worker),
            session,
            call,
            capabilities: Capabilities { platforms, slots, step_slots },
            lanes: lanes.into_iter().map(LaneId).collect(),
            running: running.into_iter().map(|(attempt, job)| Running { attempt, job: JobId(job) }).collect(),
            finished,
            draining,
        };
        Call { report, results, offers, sandbox }
    }
}

prop_compose! {
    fn some_answer()(
        numbers in any::<(u64, u64, u64)>(),
        start in proptest::collection::vec((some_attempt(), some_digest(), proptest::option::of(some_digest()), any::<u32>()), 0..4),
        stop in proptest::collection::vec(some_attempt(), 0..4),
        noted in proptest::collection::vec(some_attempt(), 0..4),
        standing in prop_oneof![
            Just(Standing::Good), Just(Standing::Draining), Just(Standing::Replaced),
            any::<u64>().prop_map(|for_ms| Standing::Quarantined { for_ms }),
        ],
    ) -> Answer {
        let (epoch, call_within_ms, lease_ms) = numbers;
        let start = start
            .into_iter()
            .map(|(attempt, job, lane, limit_ms)| {
                let lane = lane.map(LaneId);
                Assignment { attempt, job: JobId(job), lane, limit_ms, lease_until: Millis(0) }
            })
            .collect();
        Answer { epoch, start, stop, noted, standing, hold_ms: 0, call_within_ms, lease_ms }
    }
}

proptest! {
    #[test]
    fn a_call_comes_out_as_it_went_in(call in some_call()) {
        let bytes = call_to_wire(&call).unwrap().encode_to_vec();
        let message = wire::SynchronizeRequest::decode(bytes.as_slice()).unwrap();
        prop_assert_eq!(call_from_wire(message).unwrap(), call);
    }

    #[test]
    fn an_answer_comes_out_as_it_went_in(answer in some_answer()) {
        let bytes = answer_to_wire(&answer).encode_to_vec();
        let message = wire::SynchronizeResponse::decode(bytes.as_slice()).unwrap();
        prop_assert_eq!(answer_from_wire(message).unwrap(), answer);
    }

    #[test]
    fn any_bytes_give_a_value_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(message) = wire::SynchronizeRequest::decode(bytes.as_slice()) {
            let _ = call_from_wire(message);
        }
        if let Ok(message) = wire::SynchronizeResponse::decode(bytes.as_slice()) {
            let _ = answer_from_wire(message);
        }
        if let Ok(message) = wire::Change::decode(bytes.as_slice()) {
            let _ = change_from_wire(message);
        }
        let _ = inflated::<serde_json::Value>("submission", &bytes, 1_000);
    }
}

#[test]
fn an_error_names_the_field() {
    let good = || wire::SynchronizeRequest { version: VERSION, worker: "w".to_owned(), ..Default::default() };
    assert!(call_from_wire(good()).is_ok());
    let said = |message| call_from_wire(message).unwrap_err().to_string();
    assert!(said(wire::SynchronizeRequest { version: 9, ..good() }).contains("version 9"));
    assert!(said(wire::SynchronizeRequest { worker: "a\nb".to_owned(), ..good() }).contains("'worker'"));
    assert!(said(wire::SynchronizeRequest { lanes: vec!["x".to_owned()], ..good() }).contains("'lanes'"));
    let running = vec![wire::Running { attempt: None, job: Digest::of(b"").to_string() }];
    assert!(said(wire::SynchronizeRequest { running, ..good() }).contains("'running.attempt'"));
    let many = vec![Digest::of(b"").to_string(); MAX_ENTRIES + 1];
    assert!(said(wire::SynchronizeRequest { lanes: many, ..good() }).contains("at most"));
}

#[test]
fn a_path_that_leads_out_of_the_tree_is_refused() {
    for (path, fine) in [("a/b.c", true), ("../a", false), ("/etc/passwd", false), (".git/config", false), ("", false)]
    {
        let message = wire::Change { path: path.to_owned(), ..Default::default() };
        assert_eq!(change_from_wire(message).is_ok(), fine, "{path}");
    }
}

#[test]
fn what_is_deflated_has_a_limit_when_it_is_inflated() {
    let text = "a".repeat(100_000);
    let small = deflated("submission", &text).unwrap();
    assert!(small.len() < 1_000);
    assert_eq!(inflated::<String>("submission", &small, 200_000).unwrap(), text);
    let refused = inflated::<String>("submission", &small, 1_000).unwrap_err();
    assert_eq!(refused, WireError::TooLarge { field: "submission", limit_bytes: 1_000 });
}
