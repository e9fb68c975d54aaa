//! Verdicts: what each patch is worth on each target, from the results of states k-1 and k.
//!
//! Pure functions of results; [`judge`] is the way in. [`compiled`] says whether a patch touches anything compiled,
//! [`failing`] whose failure a failing state is, [`defects`] which diagnostics a patch brought.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{PatchIndex, TargetName};
use crate::outcome::{Outcome, StateResult};
use crate::report::model::{DiagnosticEntry, FailureInfo, LinkCheck, NotApplied, Verdict, VerdictEntry};
use crate::series::FileChange;
use crate::target::config;

pub mod compiled;
pub mod defects;
pub mod failing;

/// What the series did to get to a state.
#[derive(Clone, Debug, Default)]
pub struct StateFacts {
    /// How its tree differs from the one before.
    pub changes: Vec<FileChange>,
    /// Why its patch does not apply.
    pub not_applied: Option<NotApplied>,
}

/// What is known of a target.
#[derive(Clone, Debug)]
pub struct TargetFacts<'a> {
    /// Its name.
    pub name: TargetName,
    /// It is a command: nothing is known of what it compiles.
    pub command: bool,
    /// By state.
    pub results: Vec<Option<&'a StateResult>>,
    /// By state: the result came from an earlier run.
    pub cached: Vec<bool>,
    /// By state: where its log lies.
    pub logs: Vec<String>,
}

/// Everything that verdicts are made of.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// By state; entry 0 is the base.
    pub states: &'a [StateFacts],
    /// In the order of the request.
    pub targets: &'a [TargetFacts<'a>],
    /// The states that were to be judged.
    pub asked: &'a BTreeSet<PatchIndex>,
    /// A search under the assumption that failure is monotone: states that were not built are inferred.
    pub search: bool,
}

/// The verdicts and the diagnostics that they name.
#[derive(Clone, Debug)]
pub struct Judged {
    /// By target, then by patch.
    pub verdicts: Vec<VerdictEntry>,
    /// Each defect once.
    pub diagnostics: Vec<DiagnosticEntry>,
}

/// Judges every patch on every target.
pub fn judge(facts: &Facts<'_>) -> Judged {
    let mut verdicts = Vec::new();
    let mut all = Vec::new();
    for target in facts.targets {
        let mut of_target = of_target(facts, target);
        let found = defects::follow(facts.states, &target.results);
        all.push(found);
        verdicts.append(&mut of_target);
    }
    let diagnostics = defects::merge(facts.targets, &all, &mut verdicts);
    name_other_targets(&mut verdicts);
    Judged { verdicts, diagnostics }
}

fn of_target(facts: &Facts<'_>, target: &TargetFacts<'_>) -> Vec<VerdictEntry> {
    let blame = failing::history(&target.results);
    let mut entries = Vec::with_capacity(facts.states.len());
    for (index, state) in facts.states.iter().enumerate() {
        let patch = PatchIndex::from_usize(index);
        let result = target.results.get(index).copied().flatten();
        let before = index.checked_sub(1).and_then(|before| target.results.get(before).copied().flatten());
        let mut entry = VerdictEntry {
            patch,
            target: target.name.clone(),
            verdict: Verdict::NotJudged,
            observed: result.is_some_and(|result| !matches!(result.outcome, Outcome::Trouble(_))),
            cached: target.cached.get(index).copied().unwrap_or(false),
            link: link_of(result),
            failure: None,
            reason: None,
            new: Vec::new(),
            fixed: Vec::new(),
            not_judged: Vec::new(),
            config_drift: match (before, result) {
                (Some(before), Some(result)) if is_answer(before) && is_answer(result) && !result.config.is_empty() => {
                    config::drift(&before.config, &result.config)
                }
                (Some(_) | None, _) => Vec::new(),
            },
            compiled_on: Vec::new(),
        };
        if state.not_applied.is_some() {
            entry.verdict = Verdict::NotApplied;
            entry.observed = false;
            entries.push(entry);
            continue;
        }
        match result.map(|result| &result.outcome) {
            None if facts.search => {
                entry.reason = Some("not built: the search did not need it".to_owned());
            }
            None if !facts.asked.contains(&patch) => entry.reason = Some("not asked for: only base and tip".to_owned()),
            None => entry.reason = Some("the run was stopped before it".to_owned()),
            Some(Outcome::Trouble(trouble)) => entry.reason = Some(trouble.describe()),
            Some(Outcome::Skipped) => {
                entry.reason = Some("the command says that it cannot be tested (exit code 125)".to_owned());
            }
            Some(Outcome::Built) => {
                let touches = match (before, result) {
                    _ if patch == PatchIndex::BASE || target.command => true,
                    (Some(before), Some(result)) => compiled::touches(&state.changes, before, result),
                    (Some(_) | None, _) => true,
                };
                entry.verdict = if touches { Verdict::Builds } else { Verdict::NotCompiled };
            }
            Some(Outcome::Failed(_)) => {
                if let Some(found) = blame.get(index).and_then(Option::as_ref) {
                    let log = target.logs.get(index).cloned().unwrap_or_default();
                    (entry.verdict, entry.reason) = (found.verdict, found.reason.clone());
                    entry.failure = Some(FailureInfo { log, ..found.failure.clone() });
                }
            }
        }
        entries.push(entry);
    }
    entries
}

fn is_answer(result: &StateResult) -> bool {
    match result.outcome {
        Outcome::Built | Outcome::Failed(_) => true,
        Outcome::Skipped | Outcome::Trouble(_) => false,
    }
}

fn link_of(result: Option<&StateResult>) -> LinkCheck {
    match result.map(|result| &result.outcome) {
        Some(Outcome::Built) => result.map_or(LinkCheck::None, |result| result.link),
        Some(Outcome::Failed(_) | Outcome::Skipped | Outcome::Trouble(_)) | None => LinkCheck::None,
    }
}

/// A patch that is not compiled on a target: which target of this run does compile it?
fn name_other_targets(verdicts: &mut [VerdictEntry]) {
    let mut compiled: BTreeMap<PatchIndex, Vec<TargetName>> = BTreeMap::new();
    for entry in verdicts.iter() {
        if matches!(entry.verdict, Verdict::Builds | Verdict::Fails) {
            compiled.entry(entry.patch).or_default().push(entry.target.clone());
        }
    }
    for entry in verdicts.iter_mut().filter(|entry| entry.verdict == Verdict::NotCompiled) {
        entry.compiled_on = compiled.get(&entry.patch).cloned().unwrap_or_default();
    }
}

#[cfg(test)]
mod tests;
