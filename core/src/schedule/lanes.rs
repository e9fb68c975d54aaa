//! Lanes: sequences of states that are built one after the other in one tree, several lanes at a time.
//!
//! An incremental build pays for the difference to the state it built last, so the states of a target stay in one lane
//! and in order. Lanes share the slots; the one that has settled the smallest part of its states goes first, so that all
//! targets come forward together and a failure on any of them is seen early.

use std::collections::VecDeque;

use crate::id::PatchIndex;

/// How many times a state is tried when the trouble is the machine's: the second attempt runs in the same lane at once.
pub const MAX_ATTEMPTS: u32 = 2;

/// One lane of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Lane {
    todo: VecDeque<PatchIndex>,
    total: usize,
    running: Option<(PatchIndex, u32)>,
}

/// The whole state of the schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lanes {
    lanes: Vec<Lane>,
    slots: usize,
    cancelled: bool,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The run begins.
    Begin,
    /// An attempt ended.
    Ended {
        /// In this lane.
        lane: usize,
        /// This state.
        state: PatchIndex,
        /// The attempt that ended; an older one than the current is ignored.
        attempt: u32,
        /// What it gave.
        ending: Ending,
    },
    /// The user wants it to stop.
    Cancel,
}

/// How an attempt ended, as far as the schedule cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// An answer about the source, or trouble that another attempt would meet again.
    Settled,
    /// Trouble of the machine that may pass.
    Transient,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Start this attempt.
    Run {
        /// In this lane.
        lane: usize,
        /// This state.
        state: PatchIndex,
        /// Counted from 1; the result must carry it.
        attempt: u32,
    },
    /// The result of the attempt that just ended is the result of this state.
    Settle {
        /// In this lane.
        lane: usize,
        /// This state.
        state: PatchIndex,
    },
    /// Stop everything that runs.
    Stop,
    /// Nothing runs and nothing is left to do.
    Done,
}

impl Lanes {
    /// Lanes with their states in order, over `slots` slots (at least one).
    pub fn new(lanes: impl IntoIterator<Item = Vec<PatchIndex>>, slots: usize) -> Self {
        let lane = |states: Vec<PatchIndex>| Lane { total: states.len(), todo: states.into(), running: None };
        Self { lanes: lanes.into_iter().map(lane).collect(), slots: slots.max(1), cancelled: false }
    }

    /// How many attempts run.
    pub fn running(&self) -> usize {
        self.lanes.iter().filter(|lane| lane.running.is_some()).count()
    }

    /// Takes an event in; gives the new state and what is to be done, in order.
    #[must_use]
    pub fn step(mut self, event: Event) -> (Self, Vec<Effect>) {
        let mut effects = Vec::new();
        match event {
            Event::Begin => {}
            Event::Cancel => {
                if !self.cancelled {
                    self.cancelled = true;
                    effects.push(Effect::Stop);
                }
            }
            Event::Ended { lane, state, attempt, ending } => {
                let cancelled = self.cancelled;
                match self.lanes.get_mut(lane) {
                    Some(found) if found.running == Some((state, attempt)) => {
                        if ending == Ending::Transient && attempt < MAX_ATTEMPTS && !cancelled {
                            found.running = Some((state, attempt + 1));
                            effects.push(Effect::Run { lane, state, attempt: attempt + 1 });
                        } else {
                            found.running = None;
                            effects.push(Effect::Settle { lane, state });
                        }
                    }
                    // A late or repeated result of an older attempt: the newer one decides.
                    Some(_) | None => return (self, effects),
                }
            }
        }
        self.fill(&mut effects);
        (self, effects)
    }

    /// Starts attempts in free slots.
    fn fill(&mut self, effects: &mut Vec<Effect>) {
        while !self.cancelled && self.running() < self.slots {
            let free =
                self.lanes.iter().enumerate().filter(|(_, lane)| lane.running.is_none() && !lane.todo.is_empty());
            // The smallest settled part first; fractions are compared by cross multiplication.
            let next = free.min_by(|(_, a), (_, b)| {
                let settled = |lane: &Lane| lane.total - lane.todo.len();
                (settled(a) * b.total).cmp(&(settled(b) * a.total))
            });
            let Some(lane) = next.map(|(lane, _)| lane) else { break };
            if let Some(state) = self.lanes[lane].todo.pop_front() {
                self.lanes[lane].running = Some((state, 1));
                effects.push(Effect::Run { lane, state, attempt: 1 });
            }
        }
        let left = self.lanes.iter().any(|lane| !lane.todo.is_empty());
        if self.running() == 0 && (self.cancelled || !left) {
            effects.push(Effect::Done);
        }
    }
}

/// Splits states into at most `slots` contiguous stretches of nearly equal length: an incremental build pays for the
/// distance between neighbours, so neighbours stay together.
pub fn stretches(states: &[PatchIndex], slots: usize) -> Vec<Vec<PatchIndex>> {
    if states.is_empty() {
        return Vec::new();
    }
    let count = slots.clamp(1, states.len());
    let bound = |part: usize| part * states.len() / count;
    (0..count).map(|part| states[bound(part)..bound(part + 1)].to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn p(n: u32) -> PatchIndex {
        PatchIndex(n)
    }

    fn ended(lane: usize, state: u32, attempt: u32, ending: Ending) -> Event {
        Event::Ended { lane, state: p(state), attempt, ending }
    }

    fn run(lane: usize, state: u32, attempt: u32) -> Effect {
        Effect::Run { lane, state: p(state), attempt }
    }

    #[test]
    fn the_lane_that_is_behind_goes_first_and_each_lane_keeps_its_order() {
        let lanes = Lanes::new([vec![p(0), p(1)], vec![p(0), p(1)], vec![p(0)]], 2);
        let (lanes, effects) = lanes.step(Event::Begin);
        assert_eq!(effects, [run(0, 0, 1), run(1, 0, 1)]);
        let (lanes, effects) = lanes.step(ended(0, 0, 1, Ending::Settled));
        assert_eq!(effects, [Effect::Settle { lane: 0, state: p(0) }, run(2, 0, 1)]);
        let (lanes, effects) = lanes.step(ended(2, 0, 1, Ending::Settled));
        assert_eq!(effects, [Effect::Settle { lane: 2, state: p(0) }, run(0, 1, 1)]);
        let (lanes, _) = lanes.step(ended(0, 1, 1, Ending::Settled));
        let (lanes, effects) = lanes.step(ended(1, 0, 1, Ending::Settled));
        assert_eq!(effects, [Effect::Settle { lane: 1, state: p(0) }, run(1, 1, 1)]);
        let (_, effects) = lanes.step(ended(1, 1, 1, Ending::Settled));
        assert_eq!(effects, [Effect::Settle { lane: 1, state: p(1) }, Effect::Done]);
    }

    #[test]
    fn transient_trouble_is_tried_again_and_late_results_are_fenced() {
        let (lanes, _) = Lanes::new([vec![p(0)]], 1).step(Event::Begin);
        let (lanes, effects) = lanes.step(ended(0, 0, 1, Ending::Transient));
        assert_eq!(effects, [run(0, 0, 2)]);
        let (lanes, effects) = lanes.step(ended(0, 0, 1, Ending::Settled));
        assert_eq!(effects, [], "the first attempt is over");
        let (_, effects) = lanes.step(ended(0, 0, 2, Ending::Transient));
        assert_eq!(effects, [Effect::Settle { lane: 0, state: p(0) }, Effect::Done], "the budget is spent");
    }

    #[test]
    fn cancel_stops_what_runs_and_starts_nothing() {
        let (lanes, _) = Lanes::new([vec![p(0), p(1)]], 1).step(Event::Begin);
        let (lanes, effects) = lanes.step(Event::Cancel);
        assert_eq!(effects, [Effect::Stop]);
        let (lanes, effects) = lanes.step(Event::Cancel);
        assert_eq!(effects, [], "only once");
        let (_, effects) = lanes.step(ended(0, 0, 1, Ending::Transient));
        assert_eq!(effects, [Effect::Settle { lane: 0, state: p(0) }, Effect::Done]);
    }

    #[test]
    fn a_run_with_nothing_to_do_is_done_at_once() {
        assert_eq!(Lanes::new([], 1).step(Event::Begin).1, [Effect::Done]);
        assert_eq!(Lanes::new([vec![]], 1).step(Event::Begin).1, [Effect::Done]);
    }

    #[test]
    fn stretches_are_contiguous_and_complete() {
        let states: Vec<_> = (0..7).map(p).collect();
        assert_eq!(stretches(&states, 2), [states[..3].to_vec(), states[3..].to_vec()]);
        assert_eq!(stretches(&states, 100).len(), 7);
        assert_eq!(stretches(&[], 3), Vec::<Vec<PatchIndex>>::new());
    }

    proptest! {
        /// Every state is settled exactly once, never more than `slots` run, and the end is announced once, whatever
        /// the order in which attempts end and whichever of them are transient.
        #[test]
        fn every_state_is_settled_once(sizes in prop::collection::vec(0_u32..6, 1..5), slots in 1_usize..4, picks in prop::collection::vec((0_usize..100, any::<bool>()), 200)) {
            let lanes: Vec<Vec<_>> = sizes.iter().map(|n| (0..*n).map(p).collect()).collect();
            let (mut state, effects) = Lanes::new(lanes.clone(), slots).step(Event::Begin);
            let mut running = Vec::new();
            let mut settled = Vec::new();
            let mut done = 0;
            let mut picks = picks.into_iter();
            let mut queue = effects;
            loop {
                for effect in std::mem::take(&mut queue) {
                    match effect {
                        Effect::Run { lane, state, attempt } => running.push((lane, state, attempt)),
                        Effect::Settle { lane, state } => settled.push((lane, state)),
                        Effect::Done => done += 1,
                        Effect::Stop => prop_assert!(false, "nobody cancelled"),
                    }
                }
                prop_assert!(running.len() <= slots);
                if running.is_empty() { break; }
                let (pick, transient) = picks.next().unwrap_or((0, false));
                let (lane, patch, attempt) = running.remove(pick % running.len());
                let ending = if transient { Ending::Transient } else { Ending::Settled };
                (state, queue) = state.step(Event::Ended { lane, state: patch, attempt, ending });
            }
            let mut all: Vec<_> = lanes.iter().enumerate().flat_map(|(lane, states)| states.iter().map(move |s| (lane, *s))).collect();
            all.sort();
            settled.sort();
            prop_assert_eq!(settled, all);
            prop_assert_eq!(done, 1);
        }
    }
}
