//! Figures of a coordinator.

use bombproof_core::farm::{Fault, Figures};
use bombproof_core::protocol;

use crate::figures::{Count, Counts, Level, Levels, Spread};
use crate::labels::{Arch, Faulted, Kind, Outcome, Phase, Priority, RegisterError, State, Taken, Trouble};
use crate::page::Page;

/// Figures of a coordinator. Clones are the same figures.
#[derive(Clone, Debug)]
pub struct FarmMetrics {
    leads: Level,
    reign: Level,
    open: Level,
    waiting: Levels<Priority>,
    running: Levels<(Kind, Arch)>,
    workers: Levels<State>,
    slots: Level,
    slots_used: Level,
    /// Series that were accepted.
    pub accepted: Counts<Priority>,
    /// Series that came to an end.
    pub over: Counts<Phase>,
    /// Seconds from the moment in which a series was handed in to that in which a worker got the first of its jobs.
    pub first_job: Spread,
    /// Jobs that came to an end.
    pub settled: Counts<((Kind, Arch), Outcome)>,
    taken_back: Counts<Taken>,
    gave_nothing: Counts<Trouble>,
    /// Attempts that ended without a lease.
    pub late: Count,
    /// Calls of the register that went wrong.
    pub register_errors: Counts<RegisterError>,
}

impl Default for FarmMetrics {
    fn default() -> Self {
        Self {
            leads: Level::default(),
            reign: Level::default(),
            open: Level::default(),
            waiting: Levels::default(),
            running: Levels::default(),
            workers: Levels::default(),
            slots: Level::default(),
            slots_used: Level::default(),
            accepted: Counts::default(),
            over: Counts::default(),
            first_job: Spread::seconds(),
            settled: Counts::default(),
            taken_back: Counts::default(),
            gave_nothing: Counts::default(),
            late: Count::default(),
            register_errors: Counts::default(),
        }
    }
}

impl FarmMetrics {
    /// What the queue holds now, and how many series are open. `None`: this process does not lead, and has neither.
    pub fn set(&self, now: Option<(&Figures, u64)>) {
        self.leads.set(now.is_some().into());
        let none = Figures::default();
        let (figures, open) = now.unwrap_or((&none, 0));
        self.reign.set(figures.epoch);
        self.open.set(open);
        self.waiting.set(figures.waiting.iter().map(|(priority, jobs)| ((*priority).into(), *jobs)));
        let running = figures.running.iter();
        self.running.set(running.map(|((kind, arch), jobs)| (((*kind).into(), arch.as_ref().into()), *jobs)));
        self.workers.set(figures.workers.iter().map(|standing| (standing.map_or(State::Silent, State::of), 1)));
        self.slots.set(figures.slots);
        self.slots_used.set(figures.slots_used);
    }

    /// An attempt gave no answer.
    pub fn fault(&self, fault: &Fault) {
        match fault.into() {
            Faulted::Taken(reason) => self.taken_back.add(reason, 1),
            Faulted::Said(trouble) => self.gave_nothing.add(trouble, 1),
        }
    }

    /// Shows them on a page.
    pub fn show(&self, page: &mut Page) {
        let version = Level::default();
        version.set(protocol::VERSION.into());
        page.add("protocol_version", "The version of the protocol that this coordinator speaks", version.0);
        page.add("leads", "1: this coordinator leads", self.leads.0.clone());
        page.add("reign", "The number of the reign, 0 where this coordinator does not lead", self.reign.0.clone());
        page.add("series_open", "Series that are accepted and not over", self.open.0.clone());
        page.add("series_accepted", "Series that were accepted", self.accepted.0.clone());
        page.add("series_over", "Series that came to an end", self.over.0.clone());
        let about = "From handing a series in to the first of its jobs that a worker gets";
        page.add("series_first_job_seconds", about, self.first_job.0.clone());
        let about = "Jobs that wait for a worker; one that several series wait for counts for each";
        page.add("queue_jobs", about, self.waiting.0.clone());
        page.add("jobs_running", "Jobs that a worker has", self.running.0.clone());
        page.add("jobs_settled", "Jobs that came to an end", self.settled.0.clone());
        page.add("leases_taken_back", "Leases that were taken back from a worker", self.taken_back.0.clone());
        let about = "Attempts of which a worker said that they gave no answer";
        page.add("attempts_in_trouble", about, self.gave_nothing.0.clone());
        page.add("attempts_late", "Attempts that ended without a lease, and did not count", self.late.0.clone());
        page.add("workers", "Workers that are known", self.workers.0.clone());
        page.add("slots", "Slots of workers that get work", self.slots.0.clone());
        page.add(
            "slots_used",
            "Slots of all workers that are heard and have something to do",
            self.slots_used.0.clone(),
        );
        page.add("register_errors", "Calls of the register that went wrong", self.register_errors.0.clone());
    }
}
