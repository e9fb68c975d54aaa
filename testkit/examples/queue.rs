//! How fast the farm's queue is, and what a queued job costs: `cargo run --release -p bombproof-testkit --example queue [JOBS...]`.
//!
//! Only the queue: no wire, no disk. 100 series of 10 users; 1,000 workers of 4 slots that end what they run one by one, in
//! an order of chance; for each that ends one is assigned in the same call. Then one series after the other is cancelled.
#![expect(clippy::print_stdout, reason = "a program that prints figures")]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bombproof_core::digest::{Digest, DigestBuilder};
use bombproof_core::farm::{
    Capabilities, Config, Effects, Ended, Event, Farm, Finished, JobId, Kind, Millis, Needs, Platform, Priority,
    Report, Running, Wanted,
};
use bombproof_core::target::Arch;
use bombproof_testkit::chance::Chance;

const SERIES: u64 = 100;
const USERS: u64 = 10;
const WORKERS: u64 = 1_000;
const SLOTS: u32 = 4;
const ARCHES: [&str; 4] = ["x86_64", "arm64", "powerpc", "s390"];

fn platform(arch: &str) -> Platform {
    Platform { arch: Arch::parse(arch), toolchain: Digest::of(arch.as_bytes()) }
}

fn wanted(number: u64, chance: &mut Chance) -> Wanted {
    let arch = ARCHES.get(usize::try_from(number % 4).unwrap_or(0)).copied().unwrap_or("x86_64");
    Wanted {
        job: JobId(DigestBuilder::new("bench").field(&number.to_be_bytes()).finish()),
        needs: Needs { platform: platform(arch), kind: Kind::Action },
        rank: u32::try_from(chance.between(0, 400)).unwrap_or(0),
        expected_ms: u32::try_from(chance.between(100, 20_000)).unwrap_or(0),
        limit_ms: 600_000,
        lane: None,
    }
}

/// Memory of this process that is in use, in bytes.
fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4_096
}

struct Times(Vec<Duration>);

impl Times {
    fn take(&mut self, farm: &mut Farm, event: Event, now: u64) -> Effects {
        let begin = Instant::now();
        let effects = farm.step(event, Millis(now));
        self.0.push(begin.elapsed());
        effects
    }

    fn percentile(&mut self, of_thousand: usize) -> Duration {
        self.0.sort_unstable();
        self.0.get(self.0.len() * of_thousand / 1_000).or(self.0.last()).copied().unwrap_or_default()
    }

    fn line(&mut self) -> String {
        let sum: Duration = self.0.iter().sum();
        let rate = self.0.len() as f64 / sum.as_secs_f64();
        let [p50, p99, most] = [500, 990, 1_000].map(|of_thousand| self.percentile(of_thousand));
        format!("{rate:>9.0}/s   median {p50:>9.1?}   p99 {p99:>9.1?}   longest {most:>9.1?}")
    }
}

fn round(jobs: u64) {
    let mut chance = Chance::new(1);
    let before = memory();
    let mut farm = Farm::new(1, Config::default(), Millis(0));
    for number in 0..SERIES {
        let user = format!("user {}", number % USERS).as_str().into();
        let series = format!("series {number}").as_str().into();
        let _ = farm.step(Event::SeriesOpened { series, user, priority: Priority::Normal }, Millis(0));
    }
    let mut wants = Times(Vec::new());
    for number in 0..jobs {
        let series = format!("series {}", number % SERIES).as_str().into();
        let event = Event::JobWanted { series, job: wanted(number, &mut chance) };
        let _ = wants.take(&mut farm, event, 0);
    }
    wants.0.shrink_to_fit();
    let own = wants.0.capacity() as u64 * size_of::<Duration>() as u64;
    let bytes = memory().saturating_sub(before).saturating_sub(own);
    println!("{jobs:>9} jobs: {:.0} bytes each in memory ({:.0} MB)", bytes as f64 / jobs as f64, bytes as f64 / 1e6);
    println!("          wanted    {}", wants.line());

    let mut reports: Vec<Report> = (0..WORKERS)
        .map(|number| Report {
            worker: format!("worker {number}").as_str().into(),
            session: 1,
            call: 0,
            capabilities: Capabilities {
                platforms: ARCHES.iter().map(|arch| platform(arch)).collect(),
                slots: SLOTS,
                step_slots: 1,
            },
            lanes: Vec::new(),
            running: Vec::new(),
            finished: Vec::new(),
            draining: false,
        })
        .collect();
    let mut calls = Times(Vec::new());
    let mut order: VecDeque<usize> = (0..reports.len()).collect();
    let mut dispatched = 0_u64;
    let (mut now, mut last_tick) = (0, 0);
    let most = jobs.min(200_000);
    while dispatched < most {
        let Some(number) = order.pop_front() else { break };
        // Workers call in an order of chance.
        let other = usize::try_from(chance.between(0, order.len() as u64)).unwrap_or(0);
        order.push_back(number);
        let back = order.len() - 1;
        order.swap(other, back);
        let Some(report) = reports.get_mut(number) else { break };
        now += 1;
        if now / 1_000 > last_tick {
            last_tick = now / 1_000;
            let _ = farm.step(Event::Tick, Millis(now / 4));
        }
        report.call += 1;
        if let Some(Running { attempt, job }) = report.running.pop() {
            report.finished.push(Finished { attempt, job, ended: Ended::Result { digest: job.0 } });
        }
        let effects = calls.take(&mut farm, Event::WorkerSynchronized(report.clone()), now / 4);
        let Some(answer) = effects.answer else { break };
        report.finished.retain(|finished| !answer.noted.contains(&finished.attempt));
        dispatched += answer.start.len() as u64;
        report.running.extend(answer.start.iter().map(|start| Running { attempt: start.attempt, job: start.job }));
    }
    let spent: Duration = calls.0.iter().sum();
    println!(
        "          dispatched {dispatched} jobs: {:>9.0}/s of the queue's own time",
        dispatched as f64 / spent.as_secs_f64()
    );
    println!("          calls     {}", calls.line());
    let mut cancels = Times(Vec::new());
    for number in 0..SERIES {
        let series = format!("series {number}").as_str().into();
        let _ = cancels.take(&mut farm, Event::SeriesCancelled { series }, now / 4);
    }
    println!("          cancelled {}", cancels.line());
}

fn main() {
    let given: Vec<u64> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let sizes = if given.is_empty() { vec![10_000, 100_000, 1_000_000] } else { given };
    sizes.into_iter().for_each(round);
}
