//! The search for the first failing state of an opaque command, with several probes at a time.
//!
//! It assumes that once a state fails all later ones fail, and the report must say so: where that is not true it finds
//! *a* place where a success is followed by a failure, not the first one.

use std::collections::BTreeMap;

use crate::id::PatchIndex;

/// What a probe said of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It passes.
    Good,
    /// It fails.
    Bad,
    /// It cannot be tested, or nothing could be found out.
    Unknown,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Test these states, at once if there are slots for all.
    Probe(Vec<PatchIndex>),
    /// The base fails: no patch is blamed.
    BaseFails,
    /// The base, or the tip, could not be tested: nothing can be searched.
    Undecided(PatchIndex),
    /// The tip passes; under the assumption so do all states.
    NothingFails,
    /// `culprit` fails and `parent` passes; the states between them, if any, could not be tested, so that the first
    /// failing one is any of them or `culprit`.
    Found {
        /// The first state that is known to fail.
        culprit: PatchIndex,
        /// The last state that is known to pass.
        parent: PatchIndex,
    },
}

/// The next step of the search over states 0 to `last`, with what is known and `width` probes at a time.
///
/// With `w` probes a round divides the stretch into `w + 1` parts, so `log(n) / log(w + 1)` rounds suffice.
pub fn next(last: PatchIndex, known: &BTreeMap<PatchIndex, Answer>, width: usize) -> Next {
    let ends: Vec<_> = [PatchIndex::BASE, last].into_iter().filter(|end| !known.contains_key(end)).collect();
    if !ends.is_empty() {
        let mut ends = ends;
        ends.dedup();
        return Next::Probe(ends);
    }
    match (known.get(&PatchIndex::BASE), known.get(&last)) {
        (Some(Answer::Bad), _) => return Next::BaseFails,
        (Some(Answer::Unknown), _) => return Next::Undecided(PatchIndex::BASE),
        (_, Some(Answer::Good)) => return Next::NothingFails,
        (_, Some(Answer::Unknown)) => return Next::Undecided(last),
        (Some(Answer::Good) | None, Some(Answer::Bad) | None) => {}
    }
    let bad = known.iter().find(|(_, answer)| **answer == Answer::Bad).map_or(last, |(state, _)| *state);
    let good = known.range(..bad).rev().find(|(_, answer)| **answer == Answer::Good);
    let good = good.map_or(PatchIndex::BASE, |(state, _)| *state);
    let open: Vec<PatchIndex> =
        (good.0 + 1..bad.0).map(PatchIndex).filter(|state| !known.contains_key(state)).collect();
    if open.is_empty() {
        return Next::Found { culprit: bad, parent: good };
    }
    let width = width.clamp(1, open.len());
    Next::Probe((1..=width).map(|part| open[(part * open.len()) / (width + 1)]).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn search(last: u32, width: usize, answer: impl Fn(u32) -> Answer) -> (Next, usize, BTreeSet<u32>) {
        let mut known = BTreeMap::new();
        let mut rounds = 0;
        loop {
            match next(PatchIndex(last), &known, width) {
                Next::Probe(states) => {
                    rounds += 1;
                    assert!(!states.is_empty() && rounds < 1_000);
                    for state in states {
                        assert!(known.insert(state, answer(state.0)).is_none(), "{state} was probed twice");
                    }
                }
                end @ (Next::BaseFails | Next::Undecided(_) | Next::NothingFails | Next::Found { .. }) => {
                    return (end, rounds, known.keys().map(|state| state.0).collect());
                }
            }
        }
    }

    fn found(culprit: u32, parent: u32) -> Next {
        Next::Found { culprit: PatchIndex(culprit), parent: PatchIndex(parent) }
    }

    #[test]
    fn table_of_endings() {
        let from = |first_bad: u32| move |state: u32| if state >= first_bad { Answer::Bad } else { Answer::Good };
        assert_eq!(search(10, 1, from(11)).0, Next::NothingFails);
        assert_eq!(search(10, 1, from(0)).0, Next::BaseFails);
        assert_eq!(search(10, 1, from(7)).0, found(7, 6));
        assert_eq!(search(1, 3, from(1)).0, found(1, 0));
        assert_eq!(search(0, 3, from(1)).0, Next::NothingFails);
        let untestable = |state: u32| match state {
            5 | 6 => Answer::Unknown,
            0..=4 => Answer::Good,
            _ => Answer::Bad,
        };
        assert_eq!(search(10, 2, untestable).0, found(7, 4), "5, 6 or 7");
        assert_eq!(search(3, 1, |_| Answer::Unknown).0, Next::Undecided(PatchIndex::BASE));
    }

    #[test]
    fn three_probes_at_a_time_need_half_the_rounds_of_one() {
        let bad = |state: u32| if state >= 700 { Answer::Bad } else { Answer::Good };
        let (_, one, _) = search(1_000, 1, bad);
        let (_, three, _) = search(1_000, 3, bad);
        assert!(one <= 11 && three <= 6, "{one} {three}");
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_full_scan_wherever_failure_is_monotonic(last in 0_u32..80, first_bad in 0_u32..90, width in 1_usize..6) {
            let want = match first_bad {
                0 => Next::BaseFails,
                bad if bad > last => Next::NothingFails,
                bad => found(bad, bad - 1),
            };
            prop_assert_eq!(search(last, width, |s| if s >= first_bad { Answer::Bad } else { Answer::Good }).0, want);
        }

        #[test]
        fn what_it_finds_was_seen_to_fail_and_its_parent_to_pass(answers in prop::collection::vec(0_u8..3, 1..60), width in 1_usize..5) {
            let answer = |state: u32| match answers[state as usize] { 0 => Answer::Good, 1 => Answer::Bad, _ => Answer::Unknown };
            let last = u32::try_from(answers.len() - 1).unwrap();
            if let (Next::Found { culprit, parent }, _, probed) = search(last, width, answer) {
                prop_assert!(answer(culprit.0) == Answer::Bad && answer(parent.0) == Answer::Good && parent < culprit);
                prop_assert!(probed.contains(&culprit.0) && probed.contains(&parent.0));
            }
        }
    }
}
