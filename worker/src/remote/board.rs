//! What a worker of a farm runs and has run, as its coordinator is to know it. Nothing here waits or runs anything.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bombproof_core::digest::BlobDigest;
use bombproof_core::farm::{
    Answer, Assignment, Attempt, Capabilities, Ended, Finished, JobId, LaneId, Report, Running,
};
use bombproof_core::id::WorkerId;
use bombproof_core::order::{Call, Offer};
use bombproof_core::outcome::Trouble;
use tokio::sync::watch;

/// So many attempts are remembered, so that none is begun twice.
const REMEMBERED: usize = 10_000;
/// So many lanes are told.
const LANES: usize = 256;
/// So much in a row, with nothing coming to an end in between, is too much: a worker withdraws itself, or looks whether it has to.
const TOO_MANY_FAULTS: u32 = 8;

/// What does not change in one life of a worker.
#[derive(Clone, Debug)]
pub(super) struct Card {
    pub(super) worker: WorkerId,
    pub(super) session: u64,
    pub(super) capabilities: Capabilities,
    pub(super) offers: Vec<Offer>,
    pub(super) sandbox: String,
}

/// How an attempt ended, with the blob that its result is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Result(BlobDigest),
    Trouble(Trouble),
}

struct Runs {
    job: JobId,
    stop: watch::Sender<bool>,
}

/// What runs and has run.
pub(super) struct Board {
    card: Card,
    call: u64,
    epoch: u64,
    running: BTreeMap<Attempt, Runs>,
    finished: BTreeMap<Attempt, (JobId, Ending)>,
    begun: BTreeSet<Attempt>,
    lanes: VecDeque<LaneId>,
    /// Faults in a row that are this machine's for certain.
    own: u32,
    /// Faults in a row that a build can bring about too: it takes the disk, or only prints that there is no more of it.
    doubtful: u32,
    draining: bool,
}

/// What many faults in a row say of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fitness {
    /// Nothing yet.
    Fit,
    /// Either something is wrong here, or with what runs here: the machine has to be looked at.
    Doubtful,
    /// Others should do the work.
    Unfit,
}

/// Whose a fault is, as far as can be told from it.
enum Fault {
    Own,
    Doubtful,
    Others,
}

impl Board {
    pub(super) fn new(card: Card) -> Self {
        Self {
            card,
            call: 0,
            epoch: 0,
            running: BTreeMap::new(),
            finished: BTreeMap::new(),
            begun: BTreeSet::new(),
            lanes: VecDeque::new(),
            own: 0,
            doubtful: 0,
            draining: false,
        }
    }

    /// The next call.
    pub(super) fn call(&mut self) -> Call {
        self.call += 1;
        let mut results = BTreeMap::new();
        let finished = self.finished.iter().map(|(attempt, (job, ending))| {
            let ended = match ending {
                Ending::Result(blob) => {
                    results.insert(*attempt, *blob);
                    Ended::Result { digest: blob.hash }
                }
                Ending::Trouble(trouble) => Ended::Trouble(trouble.clone()),
            };
            Finished { attempt: *attempt, job: *job, ended }
        });
        let finished = finished.collect();
        let running = self.running.iter().map(|(attempt, runs)| Running { attempt: *attempt, job: runs.job });
        let report = Report {
            worker: self.card.worker.clone(),
            session: self.card.session,
            call: self.call,
            capabilities: self.card.capabilities.clone(),
            lanes: self.lanes.iter().copied().collect(),
            running: running.collect(),
            finished,
            draining: self.draining,
        };
        Call { report, results, offers: self.card.offers.clone(), sandbox: self.card.sandbox.clone() }
    }

    /// Takes in what the coordinator says; gives what is to be begun, each with what tells it to stop. An answer of an
    /// earlier coordinator is not listened to.
    pub(super) fn take(&mut self, answer: &Answer) -> Vec<(Assignment, watch::Receiver<bool>)> {
        if answer.epoch < self.epoch {
            return Vec::new();
        }
        self.epoch = answer.epoch;
        for attempt in &answer.noted {
            self.finished.remove(attempt);
        }
        for attempt in &answer.stop {
            if let Some(runs) = self.running.get(attempt) {
                runs.stop.send_replace(true);
            }
        }
        let mut begin = Vec::new();
        for assignment in &answer.start {
            if self.draining || !self.begun.insert(assignment.attempt) {
                continue;
            }
            let (stop, stopped) = watch::channel(false);
            self.running.insert(assignment.attempt, Runs { job: assignment.job, stop });
            if let Some(lane) = assignment.lane {
                self.lanes.retain(|known| *known != lane);
                self.lanes.push_front(lane);
                self.lanes.truncate(LANES);
            }
            begin.push((assignment.clone(), stopped));
        }
        while self.begun.len() > REMEMBERED {
            self.begun.pop_first();
        }
        begin
    }

    /// An attempt has ended.
    pub(super) fn end(&mut self, attempt: Attempt, ending: Ending) {
        let Some(runs) = self.running.remove(&attempt) else { return };
        match &ending {
            Ending::Result(_) => (self.own, self.doubtful) = (0, 0),
            Ending::Trouble(trouble) => match fault(trouble) {
                Fault::Own => self.own += 1,
                Fault::Doubtful => self.doubtful += 1,
                Fault::Others => {}
            },
        }
        self.finished.insert(attempt, (runs.job, ending));
    }

    /// Takes nothing new from now on.
    pub(super) fn drain(&mut self) {
        self.draining = true;
    }

    /// Stops everything that runs.
    pub(super) fn stop_all(&self) {
        for runs in self.running.values() {
            runs.stop.send_replace(true);
        }
    }

    /// How many attempts run.
    pub(super) fn running(&self) -> u64 {
        self.running.len() as u64
    }

    /// Something runs.
    pub(super) fn is_busy(&self) -> bool {
        !self.running.is_empty()
    }

    /// Nothing runs, and the coordinator knows how everything ended.
    pub(super) fn is_done(&self) -> bool {
        self.running.is_empty() && self.finished.is_empty()
    }

    /// What went wrong here in a row.
    pub(super) fn fitness(&self) -> Fitness {
        if self.own >= TOO_MANY_FAULTS {
            Fitness::Unfit
        } else if self.own + self.doubtful >= TOO_MANY_FAULTS {
            Fitness::Doubtful
        } else {
            Fitness::Fit
        }
    }

    /// The machine was looked at, and is as it should be.
    pub(super) fn looked_at(&mut self) {
        self.doubtful = 0;
    }
}

fn fault(trouble: &Trouble) -> Fault {
    match trouble {
        Trouble::Toolchain { .. } | Trouble::Internal { .. } => Fault::Own,
        Trouble::Disk { .. } | Trouble::Sandbox { .. } => Fault::Doubtful,
        Trouble::Timeout { .. }
        | Trouble::Killed { .. }
        | Trouble::Tree { .. }
        | Trouble::Workers { .. }
        | Trouble::Interrupted
        | Trouble::Request { .. } => Fault::Others,
    }
}

#[cfg(test)]
mod tests {
    use bombproof_core::digest::Digest;
    use bombproof_core::farm::{Millis, Standing};

    use super::*;

    fn board() -> Board {
        Board::new(Card {
            worker: "w".into(),
            session: 1,
            capabilities: Capabilities { slots: 2, step_slots: 1, ..Capabilities::default() },
            offers: Vec::new(),
            sandbox: "namespaces".to_owned(),
        })
    }

    fn attempt(epoch: u64, number: u64) -> Attempt {
        Attempt { epoch, number }
    }

    fn answer(epoch: u64, start: &[Attempt], stop: &[Attempt], noted: &[Attempt]) -> Answer {
        let start = start.iter().map(|attempt| Assignment {
            attempt: *attempt,
            job: JobId(Digest::of(&attempt.number.to_be_bytes())),
            lane: Some(LaneId(Digest::of(b"lane"))),
            limit_ms: 1,
            lease_until: Millis(0),
        });
        Answer {
            epoch,
            start: start.collect(),
            stop: stop.to_vec(),
            noted: noted.to_vec(),
            standing: Standing::Good,
            hold_ms: 0,
            call_within_ms: 0,
            lease_ms: 0,
        }
    }

    #[test]
    fn no_attempt_is_begun_twice_however_often_it_is_told() {
        let mut board = board();
        let one = attempt(1, 1);
        assert_eq!(board.take(&answer(1, &[one], &[], &[])).len(), 1);
        assert_eq!(board.take(&answer(1, &[one], &[], &[])).len(), 0, "it runs");
        board.end(one, Ending::Trouble(Trouble::Interrupted));
        assert_eq!(board.take(&answer(1, &[one], &[], &[])).len(), 0, "it has ended");
        assert_eq!(board.take(&answer(1, &[one], &[], &[one])).len(), 0, "and that is known");
        assert!(board.is_done());
    }

    #[test]
    fn what_ended_is_told_until_it_is_noted() {
        let mut board = board();
        let one = attempt(1, 1);
        let _stops = board.take(&answer(1, &[one], &[], &[]));
        assert_eq!((board.call().report.running.len(), board.call().report.lanes.len()), (1, 1));
        let blob = BlobDigest::of(b"result");
        board.end(one, Ending::Result(blob));
        for _ in 0..2 {
            let call = board.call();
            assert_eq!(call.report.running, []);
            assert_eq!(call.report.finished[0].ended, Ended::Result { digest: blob.hash });
            assert_eq!(call.results.get(&one), Some(&blob));
        }
        board.take(&answer(1, &[], &[], &[one]));
        assert_eq!(board.call().report.finished, []);
        assert_eq!(board.call().report.call, 6, "calls are counted");
    }

    #[test]
    fn a_coordinator_that_was_replaced_is_not_listened_to() {
        let mut board = board();
        board.take(&answer(2, &[], &[], &[]));
        assert_eq!(board.take(&answer(1, &[attempt(1, 9)], &[], &[])).len(), 0);
        assert_eq!(board.take(&answer(2, &[attempt(2, 1)], &[], &[])).len(), 1);
    }

    #[test]
    fn what_is_told_to_stop_is_stopped_and_who_drains_begins_nothing() {
        let mut board = board();
        let one = attempt(1, 1);
        let begun = board.take(&answer(1, &[one], &[], &[]));
        assert!(!*begun[0].1.borrow());
        board.take(&answer(1, &[], &[one], &[]));
        assert!(*begun[0].1.borrow());
        board.drain();
        assert_eq!(board.take(&answer(1, &[attempt(1, 2)], &[], &[])).len(), 0);
        assert!(board.call().report.draining && board.is_busy());
    }

    #[test]
    fn many_faults_in_a_row_make_it_unfit_or_at_least_doubtful() {
        let mut board = board();
        let mut number = 0;
        let mut run = |board: &mut Board, ending: Ending| {
            number += 1;
            board.take(&answer(1, &[attempt(1, number)], &[], &[]));
            board.end(attempt(1, number), ending);
        };
        let full = || Ending::Trouble(Trouble::Disk { detail: "full".to_owned() });
        let other = || Ending::Trouble(Trouble::Toolchain { detail: "other".to_owned() });
        for _ in 1..TOO_MANY_FAULTS {
            run(&mut board, full());
        }
        run(&mut board, Ending::Result(BlobDigest::of(b"r")));
        for _ in 0..TOO_MANY_FAULTS {
            assert_eq!(board.fitness(), Fitness::Fit);
            run(&mut board, Ending::Trouble(Trouble::Killed { detail: String::new() }));
            run(&mut board, full());
        }
        assert_eq!(board.fitness(), Fitness::Doubtful);
        board.looked_at();
        for _ in 0..TOO_MANY_FAULTS {
            assert_eq!(board.fitness(), Fitness::Fit);
            run(&mut board, other());
        }
        assert_eq!(board.fitness(), Fitness::Unfit);
        board.looked_at();
        assert_eq!(board.fitness(), Fitness::Unfit, "there is nothing to be looked at");
    }
}
