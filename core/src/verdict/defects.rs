//! Which diagnostics a patch brought, and which it removed.
//!
//! A target's diagnostics are followed from state to state: each state's are paired with those carried so far (see
//! [`crate::diagnostic::compare`]). What a unit printed last stays carried while the unit cannot be compiled, so that a
//! broken stretch neither hides nor brings anything. New is what has no partner and shows in a unit that the state before
//! compiled, or whose source is new; without that nobody can say.

use std::collections::{BTreeMap, BTreeSet};

use super::{StateFacts, TargetFacts};
use crate::diagnostic::{Diagnostic, Severity, compare, locate, normalise};
use crate::digest::DigestBuilder;
use crate::id::{DiagnosticId, PatchIndex};
use crate::outcome::{Outcome, Scope, Stage, StateResult};
use crate::report::model::{DiagnosticEntry, Verdict, VerdictEntry};

/// One defect on one target.
#[derive(Clone, Debug)]
pub struct Defect {
    /// As first seen.
    pub diagnostic: Diagnostic,
    /// The state where it was first seen.
    pub seen: PatchIndex,
    /// The patch that brought it; 0: the base had it; `None`: not judged.
    pub introduced_by: Option<PatchIndex>,
    /// The patch that removed it.
    pub fixed_by: Option<PatchIndex>,
    /// How many units printed it where it was first seen.
    pub units: u32,
}

/// Where a diagnostic comes from: a unit or a scope.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    Unit(String),
    Scope(Scope),
}

/// One diagnostic of a state, however many units print it.
struct Finding {
    diagnostic: Diagnostic,
    origins: BTreeSet<Origin>,
}

/// A defect that may still be there.
struct Carried {
    defect: usize,
    /// With its place in the state looked at last.
    diagnostic: Diagnostic,
    origins: BTreeSet<Origin>,
}

/// Follows the diagnostics of a target over its states.
pub fn follow(states: &[StateFacts], results: &[Option<&StateResult>]) -> Vec<Defect> {
    let mut defects: Vec<Defect> = Vec::new();
    let mut carried: Vec<Carried> = Vec::new();
    // The state at which each origin was last known, and the last state with an answer.
    let mut known: BTreeMap<Origin, PatchIndex> = BTreeMap::new();
    let mut last_answer: Option<PatchIndex> = None;
    let mut born: BTreeMap<String, PatchIndex> = BTreeMap::new();
    for (index, state) in states.iter().enumerate() {
        let patch = PatchIndex::from_usize(index);
        for old in &mut carried {
            if let Some(location) = locate::forward(&old.diagnostic.location, &state.changes) {
                old.diagnostic.location = location;
            } else if let Some(file) = locate::file(&old.diagnostic.location.file, &state.changes) {
                old.diagnostic.location.file = file.to_owned();
            }
        }
        for change in &state.changes {
            if let (None, Some(path)) = (&change.old_path, &change.new_path) {
                born.insert(path.clone(), patch);
            }
        }
        let Some(result) = results.get(index).copied().flatten().filter(|result| answers(result)) else { continue };
        let findings = findings(result);
        let current: BTreeSet<Origin> = known_origins(result);
        let reached = reaches_units(result);
        let old: Vec<&Diagnostic> = carried.iter().map(|it| &it.diagnostic).collect();
        let new: Vec<&Diagnostic> = findings.iter().map(|it| &it.diagnostic).collect();
        // Places were mapped above, state by state.
        let pairs = compare::pair(&old, &new, &[]);
        let mut next: Vec<Carried> = Vec::new();
        let mut met = BTreeSet::new();
        for (finding, partner) in findings.into_iter().zip(pairs) {
            let Some(partner) = partner else {
                let judged = patch == PatchIndex::BASE
                    || finding.origins.iter().any(|origin| {
                        let before = patch.previous();
                        let seen_before = known.get(origin).copied() == before && before.is_some();
                        let is_new = match origin {
                            Origin::Unit(output) => result
                                .units
                                .get(output)
                                .is_some_and(|unit| born.get(&unit.source) == Some(&patch) && last_answer == before),
                            Origin::Scope(_) => false,
                        };
                        seen_before || is_new
                    });
                defects.push(Defect {
                    diagnostic: finding.diagnostic.clone(),
                    seen: patch,
                    introduced_by: judged.then_some(patch),
                    fixed_by: None,
                    units: u32::try_from(finding.origins.len()).unwrap_or(u32::MAX),
                });
                next.push(Carried {
                    defect: defects.len() - 1,
                    diagnostic: finding.diagnostic,
                    origins: finding.origins,
                });
                continue;
            };
            met.insert(partner);
            let old = &carried[partner];
            // Units that still cannot be compiled may have it too.
            let mut origins = finding.origins;
            origins.extend(old.origins.iter().filter(|origin| unknown(origin, &current, reached, result)).cloned());
            next.push(Carried { defect: old.defect, diagnostic: finding.diagnostic, origins });
        }
        for (index, old) in carried.into_iter().enumerate() {
            if met.contains(&index) {
                continue;
            }
            let still: BTreeSet<Origin> =
                old.origins.iter().filter(|origin| unknown(origin, &current, reached, result)).cloned().collect();
            if still.is_empty() {
                defects[old.defect].fixed_by = Some(patch);
            } else {
                next.push(Carried { origins: still, ..old });
            }
        }
        carried = next;
        known.extend(current.into_iter().map(|origin| (origin, patch)));
        last_answer = Some(patch);
    }
    defects
}

fn answers(result: &StateResult) -> bool {
    match result.outcome {
        Outcome::Built | Outcome::Failed(_) => true,
        Outcome::Skipped | Outcome::Trouble(_) => false,
    }
}

/// Whether the build got as far as compiling at all.
fn reaches_units(result: &StateResult) -> bool {
    match &result.outcome {
        Outcome::Failed(failures) => failures.iter().all(|failure| failure.stage > Stage::Prepare),
        Outcome::Built => true,
        Outcome::Skipped | Outcome::Trouble(_) => false,
    }
}

/// What this result knows for certain: units that compiled, scopes that ran to their end.
fn known_origins(result: &StateResult) -> BTreeSet<Origin> {
    let units = result.units.iter().filter(|(_, unit)| unit.ok).map(|(output, _)| Origin::Unit(output.clone()));
    let scopes = result.scopes.iter().filter(|(_, state)| state.known).map(|(scope, _)| Origin::Scope(*scope));
    units.chain(scopes).collect()
}

/// Whether nothing can be said of an origin in this state. A unit that is not there any more has nothing to say.
fn unknown(origin: &Origin, current: &BTreeSet<Origin>, reached: bool, result: &StateResult) -> bool {
    if current.contains(origin) {
        return false;
    }
    match origin {
        Origin::Unit(output) => !reached || result.units.get(output).is_some_and(|unit| !unit.ok),
        Origin::Scope(_) => true,
    }
}

fn findings(result: &StateResult) -> Vec<Finding> {
    let units = result.units.iter().flat_map(|(output, unit)| {
        // After an error a compiler warns of what only the error made so; such warnings wait until the unit compiles.
        let counts = move |it: &&Diagnostic| unit.ok || it.severity == Severity::Error;
        unit.diagnostics.iter().filter(counts).map(move |diagnostic| (Origin::Unit(output.clone()), diagnostic))
    });
    let scopes = result
        .scopes
        .iter()
        .flat_map(|(scope, state)| state.diagnostics.iter().map(move |diagnostic| (Origin::Scope(*scope), diagnostic)));
    // A header's warning in 900 units is one finding. Two equal ones of one unit stay two: they are counted.
    let mut found: BTreeMap<(Key, usize), Finding> = BTreeMap::new();
    let mut counts: BTreeMap<(Origin, Key), usize> = BTreeMap::new();
    for (origin, diagnostic) in units.chain(scopes) {
        let key = key(diagnostic);
        let count = counts.entry((origin.clone(), key.clone())).or_default();
        *count += 1;
        found
            .entry((key, *count))
            .or_insert_with(|| Finding { diagnostic: diagnostic.clone(), origins: BTreeSet::new() })
            .origins
            .insert(origin);
    }
    found.into_values().collect()
}

/// What makes two diagnostics of one state the same, whoever prints them, as an error or as a warning.
type Key = (crate::diagnostic::Tool, String, u32, Option<u32>, Option<String>, String);

fn key(diagnostic: &Diagnostic) -> Key {
    (
        diagnostic.tool,
        diagnostic.location.file.clone(),
        diagnostic.location.line,
        diagnostic.location.column,
        diagnostic.flag.clone(),
        diagnostic.message.clone(),
    )
}

/// Puts the defects of all targets together: the same one on several targets is one entry. Fills in the ids in the
/// verdicts, which are by target, then by patch.
pub fn merge(
    targets: &[TargetFacts<'_>],
    by_target: &[Vec<Defect>],
    verdicts: &mut [VerdictEntry],
) -> Vec<DiagnosticEntry> {
    let mut entries: Vec<DiagnosticEntry> = Vec::new();
    let mut places: BTreeMap<(Key, Option<PatchIndex>, usize), usize> = BTreeMap::new();
    let mut ids: BTreeMap<DiagnosticId, u32> = BTreeMap::new();
    let per_target = verdicts.len().checked_div(targets.len()).unwrap_or(0);
    for (number, (target, defects)) in targets.iter().zip(by_target).enumerate() {
        let mut seen: BTreeMap<(Key, Option<PatchIndex>), usize> = BTreeMap::new();
        for defect in defects {
            let same = (key(&defect.diagnostic), defect.introduced_by);
            let count = seen.entry(same.clone()).or_default();
            *count += 1;
            let at = *places.entry((same.0, same.1, *count)).or_insert_with(|| {
                entries.push(entry(defect, &mut ids));
                entries.len() - 1
            });
            let found = &mut entries[at];
            found.targets.push(target.name.clone());
            if defect.diagnostic.werror {
                found.werror_on.push(target.name.clone());
            }
            found.fixed_by = found.fixed_by.max(defect.fixed_by);
            found.units = found.units.max(defect.units);
            let id = found.id.clone();
            let mut at_patch = |patch: PatchIndex, put: &dyn Fn(&mut VerdictEntry)| {
                if let Some(verdict) = verdicts.get_mut(number * per_target + patch.as_usize()) {
                    put(verdict);
                }
            };
            match defect.introduced_by {
                Some(PatchIndex::BASE) => {}
                Some(patch) => at_patch(patch, &|verdict| verdict.new.push(id.clone())),
                None => at_patch(defect.seen, &|verdict| verdict.not_judged.push(id.clone())),
            }
            if let Some(patch) = defect.fixed_by {
                at_patch(patch, &|verdict| {
                    if verdict.verdict != Verdict::NotApplied {
                        verdict.fixed.push(id.clone());
                    }
                });
            }
        }
    }
    for entry in &mut entries {
        entry.targets.dedup();
        entry.werror_on.dedup();
    }
    entries
}

fn entry(defect: &Defect, ids: &mut BTreeMap<DiagnosticId, u32>) -> DiagnosticEntry {
    let it = &defect.diagnostic;
    let digest = DigestBuilder::new("bombproof/diagnostic/v1")
        .field(format!("{:?}", it.tool).as_bytes())
        .field(it.location.file.as_bytes())
        .field(it.flag.as_deref().unwrap_or_default().as_bytes())
        .field(it.function.as_deref().unwrap_or_default().as_bytes())
        .field(normalise::message(&it.message).as_bytes())
        .finish();
    let mut id = DiagnosticId(format!("d-{}", digest.short()));
    // Two of the same kind in one function differ in nothing that lasts: they are numbered.
    let count = ids.entry(id.clone()).or_default();
    *count += 1;
    if *count > 1 {
        id = DiagnosticId(format!("{id}-{count}"));
    }
    DiagnosticEntry {
        id,
        tool: it.tool,
        severity: if it.werror { Severity::Warning } else { it.severity },
        flag: it.flag.clone(),
        file: it.location.file.clone(),
        line: it.location.line,
        column: it.location.column,
        function: it.function.clone(),
        message: it.message.clone(),
        text: it.text.clone(),
        targets: Vec::new(),
        werror_on: Vec::new(),
        introduced_by: defect.introduced_by,
        fixed_by: None,
        units: defect.units,
    }
}
