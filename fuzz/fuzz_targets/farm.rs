//! Messages of workers, clients and coordinators: any bytes give a value or an error, and a value survives the way back.
#![no_main]

use bombproof_core::order::{Done, Order};
use bombproof_core::submission::{Seen, Submission};
use bombproof_proto::farm::{
    answer_from_wire, answer_to_wire, call_from_wire, call_to_wire, change_from_wire, from_json, inflated, wire,
};
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(call) = wire::SynchronizeRequest::decode(bytes).map_err(drop).and_then(|m| call_from_wire(m).map_err(drop)) {
        let again = call_to_wire(&call).map(call_from_wire);
        assert!(matches!(again, Ok(Ok(again)) if again == call));
    }
    if let Ok(answer) = wire::SynchronizeResponse::decode(bytes).map_err(drop).and_then(|m| answer_from_wire(m).map_err(drop)) {
        assert_eq!(answer_from_wire(answer_to_wire(&answer)).as_ref(), Ok(&answer));
    }
    if let Ok(change) = wire::Change::decode(bytes) {
        let _ = change_from_wire(change);
    }
    let _ = from_json::<Order>("order", bytes).map(|order| match order {
        Order::Action(_) => None,
        Order::Step(step) => Some((step.job(), step.lane())),
    });
    let _ = from_json::<Done>("result", bytes).map(|done| done.blobs());
    let _ = from_json::<Seen>("event", bytes);
    let _ = inflated::<Submission>("submission", bytes, 1 << 20);
});
