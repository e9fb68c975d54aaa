//! The farm in counts, for whoever watches it over time.

use std::collections::BTreeMap;

use super::Farm;
use super::effect::Standing;
use super::job::{Kind, Priority};
use super::jobs::Place;
use crate::target::Arch;

/// The farm in counts. What it costs to count grows with series, workers and what they run, not with what is queued.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// The epoch of the leader.
    pub epoch: u64,
    /// Jobs that wait for a worker, by the priority of the series that wait for them: one that several series wait for counts
    /// for each of them.
    pub waiting: BTreeMap<Priority, u64>,
    /// Jobs that a worker has the lease of, by what they need.
    pub running: BTreeMap<(Kind, Option<Arch>), u64>,
    /// Workers that are known, by how they stand; `None`: it is not heard.
    pub workers: Vec<Option<Standing>>,
    /// Slots of workers that get work.
    pub slots: u64,
    /// Slots that are occupied, of all workers that are heard.
    pub slots_used: u64,
}

impl Farm {
    /// The farm in counts.
    pub fn figures(&self) -> Figures {
        let now = self.clock.now();
        let mut figures = Figures { epoch: self.epoch, ..Figures::default() };
        for series in self.fair.all_series() {
            let is_running = |key| self.jobs.get(key).is_some_and(|job| matches!(job.place, Place::Running(_)));
            let elsewhere = series.elsewhere.iter().filter(|key| !is_running(**key)).count();
            *figures.waiting.entry(series.priority).or_default() += series.queued + elsewhere as u64;
        }
        for (_, worker) in self.workers.all.iter() {
            figures.workers.push(worker.live.then(|| worker.standing(now)));
            if worker.serves(now) {
                figures.slots += u64::from(worker.capabilities.slots);
            }
            if worker.live {
                figures.slots_used += worker.used() as u64;
            }
            for lease in worker.leases.values() {
                let needs = self.jobs.get(lease.job).and_then(|job| self.classes.needs(job.class));
                let arch = needs.and_then(|needs| needs.platform.arch.clone());
                *figures.running.entry((lease.kind, arch)).or_default() += 1;
            }
        }
        figures
    }
}
