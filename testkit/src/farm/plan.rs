//! What is to be done, and what goes wrong.

use std::collections::BTreeMap;

use bombproof_core::digest::{Digest, DigestBuilder};
use bombproof_core::farm::{JobId, Kind, LaneId, Needs, Platform, Priority, Wanted};
use bombproof_core::id::{SeriesId, UserId, WorkerId};
use bombproof_core::target::Arch;

use crate::chance::Chance;

/// A whole run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Everything of chance that happens while it is played comes from here.
    pub seed: u64,
    /// Who works.
    pub workers: Vec<WorkerPlan>,
    /// What is submitted.
    pub series: Vec<SeriesPlan>,
    /// What the jobs are like, whoever wants them.
    pub jobs: BTreeMap<JobId, JobPlan>,
    /// How calls and answers travel.
    pub network: Network,
    /// What goes wrong, and when, in milliseconds.
    pub faults: Vec<(u64, Fault)>,
    /// Faults wait while they would hit a job more often than the queue promises to endure. Without that, good jobs may be
    /// given up; but what is said of them must still be true.
    pub endurable: bool,
}

/// A worker.
#[derive(Clone, Debug)]
pub struct WorkerPlan {
    /// Its name.
    pub id: WorkerId,
    /// How many jobs at once.
    pub slots: u32,
    /// How many of them may be steps.
    pub step_slots: u32,
    /// What it has compilers for.
    pub arches: Vec<&'static str>,
}

/// A series.
#[derive(Clone, Debug)]
pub struct SeriesPlan {
    /// Its id.
    pub id: SeriesId,
    /// Whose it is.
    pub user: UserId,
    /// How urgent.
    pub priority: Priority,
    /// When it is accepted, in milliseconds.
    pub at: u64,
    /// Its jobs, each with its rank and the one that has to be settled before it.
    pub jobs: Vec<(JobId, u32, Option<JobId>)>,
}

/// What a job is like.
#[derive(Clone, Debug)]
pub struct JobPlan {
    /// As the queue sees it.
    pub wanted: Wanted,
    /// How long it really takes, in milliseconds.
    pub takes_ms: u64,
    /// What it does.
    pub nature: Nature,
}

/// What a job does to its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// It ends with a result.
    Good,
    /// It kills every worker that runs it.
    Poison,
    /// It takes memory until it is killed.
    Greedy,
    /// It runs until its time is up.
    Endless,
}

/// How calls and answers travel; in messages of a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Network {
    /// Lost.
    pub lost: u64,
    /// Come twice, the second time later.
    pub repeated: u64,
    /// Take seconds instead of milliseconds, and are overtaken.
    pub late: u64,
}

/// Something that goes wrong. Workers and series are named by their place in the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A worker dies with all that it runs and comes back.
    Kill(usize, u64),
    /// A worker stands still for so long.
    Pause(usize, u64),
    /// A worker is cut off from everybody for so long.
    Cut(usize, u64),
    /// The disk of a worker is full for so long: whatever runs there fails.
    DiskFull(usize, u64),
    /// A worker is told to stop, gives back what it cannot finish, and is started again.
    Drain(usize),
    /// A series is cancelled.
    Cancel(usize),
    /// The leader dies; another one takes over after so long.
    KillLeader(u64),
    /// The leader stands still; another one takes over after the first time, and the old one wakes after the second.
    PauseLeader(u64, u64),
    /// The clock of the leader jumps forward by so much.
    ClockJump(u64),
    /// Some of what is in the store of blobs is lost.
    LoseBlobs,
}

const ARCHES: [&str; 3] = ["x86_64", "arm64", "s390"];

fn platform(arch: &str) -> Platform {
    Platform { arch: Arch::parse(arch), toolchain: Digest::of(arch.as_bytes()) }
}

impl WorkerPlan {
    /// What it says it can do.
    pub fn platforms(&self) -> impl Iterator<Item = Platform> {
        self.arches.iter().map(|arch| platform(arch))
    }
}

fn id_of(kind: &str, number: u64) -> Digest {
    DigestBuilder::new("bombproof/testkit/v1").field(kind.as_bytes()).field(&number.to_be_bytes()).finish()
}

impl Plan {
    /// A farm of a few workers with some series, of which many want the same, and a dozen faults.
    pub fn from_seed(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let workers = Self::some_workers(&mut chance);
        let mut plan = Self {
            seed: chance.draw(),
            workers,
            series: Vec::new(),
            jobs: BTreeMap::new(),
            network: Network {
                lost: chance.between(0, 100),
                repeated: chance.between(0, 150),
                late: chance.between(0, 80),
            },
            faults: Vec::new(),
            endurable: true,
        };
        plan.add_series(&mut chance);
        plan.add_faults(&mut chance);
        plan
    }

    /// The same work on a farm where nothing goes wrong.
    #[must_use]
    pub fn undisturbed(&self) -> Self {
        Self { faults: Vec::new(), network: Network::default(), ..self.clone() }
    }

    fn some_workers(chance: &mut Chance) -> Vec<WorkerPlan> {
        let count = chance.between(4, 9);
        let worker = |number: u64| WorkerPlan {
            id: format!("w{number}").as_str().into(),
            slots: 1 + u32::try_from(number % 4).unwrap_or(0),
            step_slots: 1 + u32::try_from(number % 2).unwrap_or(0),
            // The first ones have everything, so that each job has workers to fail on.
            arches: if number < 4 { ARCHES.to_vec() } else { vec![ARCHES[0], ARCHES[1]] },
        };
        (0..count).map(worker).collect()
    }

    fn add_series(&mut self, chance: &mut Chance) {
        for number in 0..chance.between(3, 7) {
            let mut jobs: Vec<(JobId, u32, Option<JobId>)> = Vec::new();
            // Actions, of which series have many in common.
            for _ in 0..chance.between(10, 50) {
                let action = chance.between(0, 120);
                let id = self.job(id_of("action", action), Kind::Action, None, action, chance);
                if !jobs.iter().any(|(other, ..)| *other == id) {
                    jobs.push((id, u32::try_from(chance.between(0, 4)).unwrap_or(0), None));
                }
            }
            // Lanes of steps, one after the other; some action waits for each of them.
            for lane in 0..chance.between(0, 3) {
                let lane = number * 10 + lane;
                let mut before = None;
                for state in 0..chance.between(2, 6) {
                    let number = lane * 100 + state;
                    let lane = Some(LaneId(id_of("lane", lane)));
                    let id = self.job(id_of("step", number), Kind::Step, lane, number, chance);
                    jobs.push((id, 1, before));
                    before = Some(id);
                    let after = self.job(id_of("after", number), Kind::Action, None, number, chance);
                    jobs.push((after, 0, before));
                }
            }
            self.series.push(SeriesPlan {
                id: format!("s{number}").as_str().into(),
                user: format!("u{}", number % 3).as_str().into(),
                priority: match number % 4 {
                    1 => Priority::Gate,
                    2 => Priority::Nightly,
                    _ => Priority::Normal,
                },
                at: chance.between(0, 20_000),
                jobs,
            });
        }
    }

    fn job(&mut self, id: Digest, kind: Kind, lane: Option<LaneId>, number: u64, chance: &mut Chance) -> JobId {
        let id = JobId(id);
        if self.jobs.contains_key(&id) {
            return id;
        }
        let arch = ARCHES.get(usize::try_from(number % 3).unwrap_or(0)).copied().unwrap_or("x86_64");
        let takes_ms = match kind {
            Kind::Action => chance.between(50, 4_000),
            Kind::Step => chance.between(2_000, 25_000),
        };
        let nature = match chance.between(0, 250) {
            0 => Nature::Poison,
            1 | 2 => Nature::Greedy,
            3 => Nature::Endless,
            _ => Nature::Good,
        };
        let wanted = Wanted {
            job: id,
            needs: Needs { platform: platform(arch), kind },
            rank: 0,
            expected_ms: u32::try_from(takes_ms * chance.between(50, 200) / 100).unwrap_or(u32::MAX),
            limit_ms: 60_000,
            lane,
        };
        self.jobs.insert(id, JobPlan { wanted, takes_ms, nature });
        id
    }

    fn add_faults(&mut self, chance: &mut Chance) {
        for _ in 0..chance.between(4, 16) {
            let at = chance.between(1_000, 150_000);
            let worker = usize::try_from(chance.between(0, self.workers.len() as u64)).unwrap_or(0);
            let series = usize::try_from(chance.between(0, self.series.len() as u64)).unwrap_or(0);
            let fault = match chance.between(0, 20) {
                0..=4 => Fault::Kill(worker, chance.between(200, 40_000)),
                5..=7 => Fault::Pause(worker, chance.between(1_000, 60_000)),
                8..=9 => Fault::Cut(worker, chance.between(1_000, 60_000)),
                10 => Fault::DiskFull(worker, chance.between(2_000, 40_000)),
                11..=12 => Fault::Drain(worker),
                13 => Fault::Cancel(series),
                14..=15 => Fault::KillLeader(chance.between(500, 15_000)),
                16..=17 => {
                    let takeover = chance.between(2_000, 15_000);
                    Fault::PauseLeader(takeover, takeover + chance.between(0, 30_000))
                }
                18 => Fault::ClockJump(chance.between(1_000, 10_000_000)),
                _ => Fault::LoseBlobs,
            };
            self.faults.push((at, fault));
        }
        self.faults.sort_by_key(|(at, _)| *at);
    }
}
