//! Puts a report together.

use std::collections::BTreeSet;

use super::model::{
    ActionCounts, BrokenRange, CostTotals, FirstFailing, NewWarnings, Report, Run, SCHEMA, SeriesInfo, StateCost,
    Summary, TargetInfo, Verdict, VerdictEntry,
};
use crate::diagnostic::Severity;
use crate::id::PatchIndex;
use crate::verdict::{Facts, judge};

/// What the report says beside verdicts.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The run.
    pub run: Run,
    /// The series.
    pub series: SeriesInfo,
    /// The targets, in the order of the facts.
    pub targets: Vec<TargetInfo>,
    /// Parallel slots.
    pub slots: u32,
}

/// Judges and puts the report together.
pub fn build(frame: Frame, facts: &Facts<'_>) -> Report {
    let judged = judge(facts);
    let mut cost = CostTotals { wall_ms: frame.run.duration_ms, slots: frame.slots, ..CostTotals::default() };
    let mut actions = ActionCounts::default();
    for target in facts.targets {
        // Equal trees share a result: it was paid once.
        let mut paid = BTreeSet::new();
        for (patch, (result, cached)) in target.results.iter().zip(&target.cached).enumerate() {
            let Some(result) = result else { continue };
            if !paid.insert(std::ptr::from_ref(*result)) {
                continue;
            }
            let known = result.cost.cached + result.cost.by_token;
            actions.planned += result.cost.compiles + known;
            if *cached {
                actions.cached += result.cost.compiles + known;
                cost.states_cached += 1;
            } else {
                actions.executed += result.cost.compiles;
                actions.cached += known;
                actions.by_token += result.cost.by_token;
                cost.kbuild_steps += result.cost.kbuild_steps;
                cost.compile_cpu_ms += result.cost.compile_cpu_ms;
                cost.states_built += 1;
                cost.states.push(StateCost {
                    target: target.name.clone(),
                    patch: PatchIndex::from_usize(patch),
                    wall_ms: result.cost.wall_ms,
                    compile_cpu_ms: result.cost.compile_cpu_ms,
                    compiles: result.cost.compiles,
                    cached: result.cost.cached,
                    by_token: result.cost.by_token,
                    kbuild_steps: result.cost.kbuild_steps,
                });
            }
        }
    }
    cost.actions = actions;
    let mut report = Report {
        schema: SCHEMA.to_owned(),
        run: frame.run,
        series: frame.series,
        targets: frame.targets,
        verdicts: judged.verdicts,
        diagnostics: judged.diagnostics,
        summary: Summary::default(),
        cost,
    };
    report.summary = summarise(&report);
    report
}

/// Verdicts of one target, by patch.
pub fn of_target<'a>(report: &'a Report, name: &'a crate::id::TargetName) -> impl Iterator<Item = &'a VerdictEntry> {
    report.verdicts.iter().filter(move |entry| entry.target == *name)
}

/// The state itself is known not to build, whoever is to blame.
pub fn is_broken(entry: &VerdictEntry) -> bool {
    entry.failure.is_some()
}

fn summarise(report: &Report) -> Summary {
    let mut summary = Summary::default();
    for target in &report.targets {
        let entries: Vec<&VerdictEntry> = of_target(report, &target.name).collect();
        let first = entries.iter().find(|entry| {
            entry.patch > PatchIndex::BASE
                && entry.verdict == Verdict::Fails
                && entry.failure.as_ref().is_some_and(|failure| failure.since.is_none())
        });
        if let Some(first) = first {
            summary.first_failing.push(FirstFailing { target: target.name.clone(), patch: first.patch });
        }
        let mut open: Option<BrokenRange> = None;
        for entry in &entries {
            // A patch that does not apply leaves the tree, and what is wrong with it, as it is.
            let goes_on = entry.verdict == Verdict::NotApplied;
            match open.as_mut() {
                Some(range) if is_broken(entry) => range.to = entry.patch,
                Some(_) if goes_on => {}
                Some(range) => {
                    if matches!(entry.verdict, Verdict::Builds | Verdict::NotCompiled) {
                        range.healed_by = Some(entry.patch);
                    }
                    summary.broken_ranges.extend(open.take());
                }
                None if is_broken(entry) => {
                    open = Some(BrokenRange {
                        target: target.name.clone(),
                        from: entry.patch,
                        to: entry.patch,
                        healed_by: None,
                    });
                }
                None => {}
            }
        }
        summary.broken_ranges.extend(open);
        let count = report
            .diagnostics
            .iter()
            .filter(|it| it.severity == Severity::Warning && it.targets.contains(&target.name))
            .filter(|it| it.introduced_by.is_some_and(|patch| patch > PatchIndex::BASE))
            .count();
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        summary.new_warnings.push(NewWarnings { target: target.name.clone(), count });
    }
    let open = report.verdicts.iter().filter(|it| it.verdict == Verdict::NotJudged && was_asked(report, it)).count();
    summary.not_judged = u32::try_from(open).unwrap_or(u32::MAX);
    let not_applied = report.series.patches.iter().filter(|patch| patch.not_applied.is_some()).count();
    summary.not_applied = u32::try_from(not_applied).unwrap_or(u32::MAX);
    summary.clean = summary.first_failing.is_empty()
        && summary.broken_ranges.is_empty()
        && summary.new_warnings.iter().all(|target| target.count == 0)
        && summary.not_judged == 0
        && summary.not_applied == 0
        && report.run.finished;
    summary
}

/// Whether the mode of the run meant to judge this state.
fn was_asked(report: &Report, entry: &VerdictEntry) -> bool {
    let last = report.series.patches.last().map_or(PatchIndex::BASE, |patch| patch.index);
    match report.run.mode.as_str() {
        "tip" => entry.patch == PatchIndex::BASE || entry.patch == last,
        // A search decides by what it probes; its notes say whether it came to an end.
        "search" => false,
        _ => true,
    }
}

/// What counts as a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailOn {
    /// Patches that fail or do not apply.
    pub fails: bool,
    /// New warnings.
    pub warnings: bool,
}

/// What it comes to, for an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing was found, everything was judged.
    Clean,
    /// Something was found.
    Findings,
    /// Nothing was found, but not everything could be judged.
    Undecided,
}

/// Decides.
pub fn decide(report: &Report, fail_on: FailOn) -> Decision {
    let summary = &report.summary;
    let fails = !summary.first_failing.is_empty()
        || summary.not_applied > 0
        || report.verdicts.iter().any(|entry| entry.patch > PatchIndex::BASE && entry.verdict == Verdict::Fails);
    let warns = summary.new_warnings.iter().any(|target| target.count > 0);
    let base_broken = summary.broken_ranges.iter().any(|range| range.from == PatchIndex::BASE);
    let search_failed = report.run.mode == "search"
        && report
            .run
            .notes
            .iter()
            .any(|note| note.starts_with("NOT confirmed") || note.contains("nothing was searched"));
    if (fails && fail_on.fails) || (warns && fail_on.warnings) {
        Decision::Findings
    } else if summary.not_judged > 0 || base_broken || search_failed || !report.run.finished {
        Decision::Undecided
    } else {
        Decision::Clean
    }
}
