//! Which diagnostics a patch brought, and which it removed.
//!
//! A target's diagnostics are followed from state to state: each state's are paired with those carried so far (see
//! [`crate::diagnostic::compare`]). What a unit printed last stays carried while the unit cannot be compiled, so that a
//! broken stretch neither hides nor brings anything. A state that says what the one before said is passed over. New is what has no partner and shows in a unit that the state before
//! compiled, or whose source is new; without that nobody can say.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::{StateFacts, TargetFacts};
use crate::diagnostic::{Diagnostic, Location, Severity, Tool, compare, locate, normalise};
use crate::digest::DigestBuilder;
use crate::id::{DiagnosticId, PatchIndex};
use crate::outcome::{Outcome, Scope, Stage, StateResult, Trouble, Unit};
use crate::report::model::{DiagnosticEntry, Verdict, VerdictEntry};
use crate::series::FileChange;

/// One defect on one target.
#[derive(Clone, Debug, PartialEq, Eq)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Origin<'a> {
    Unit(&'a str),
    Scope(Scope),
}

/// One diagnostic of a state, however many units print it.
struct Finding<'a> {
    diagnostic: &'a Diagnostic,
    origins: BTreeSet<Origin<'a>>,
}

/// A defect that may still be there.
struct Carried<'a> {
    defect: usize,
    /// With its place in the state looked at last.
    diagnostic: Cow<'a, Diagnostic>,
    origins: BTreeSet<Origin<'a>>,
}

/// Follows the diagnostics of a target over its states.
pub fn follow(states: &[StateFacts], results: &[Option<&StateResult>]) -> Vec<Defect> {
    follow_all(states, results, true)
}

/// As [`follow`]; whether a state that says what the one before said is passed over must make no difference.
pub(super) fn follow_all(states: &[StateFacts], results: &[Option<&StateResult>], pass_over: bool) -> Vec<Defect> {
    let nothing = StateResult::trouble(Trouble::Interrupted);
    let mut defects: Vec<Defect> = Vec::new();
    let mut carried: Vec<Carried<'_>> = Vec::new();
    // The last state with an answer.
    let mut last: Option<(PatchIndex, &StateResult)> = None;
    let mut heard = Heard::default();
    let mut moved = false;
    let mut born: BTreeMap<&str, PatchIndex> = BTreeMap::new();
    for (index, state) in states.iter().enumerate() {
        let patch = PatchIndex::from_usize(index);
        moved |= forward(&mut carried, &state.changes);
        for change in &state.changes {
            if let (None, Some(path)) = (&change.old_path, &change.new_path) {
                born.insert(path, patch);
            }
        }
        let Some(result) = results.get(index).copied().flatten().filter(|result| answers(result)) else { continue };
        let reached = reaches_units(result);
        let says_the_same = heard.listen(last.map_or(&nothing, |(_, before)| before), result);
        let before = last.replace((patch, result));
        if pass_over && says_the_same && !moved && before.is_some() {
            continue;
        }
        moved = false;
        // The state right before, if it gave an answer.
        let before = before.filter(|(index, _)| Some(*index) == patch.previous()).map(|(_, before)| before);
        let findings = findings(&heard, result);
        let old: Vec<&Diagnostic> = carried.iter().map(|it| &*it.diagnostic).collect();
        let new: Vec<&Diagnostic> = findings.iter().map(|it| it.diagnostic).collect();
        // Places were mapped above, state by state.
        let pairs = compare::pair(&old, &new, &[]);
        let mut next: Vec<Carried<'_>> = Vec::new();
        let mut met = BTreeSet::new();
        for (finding, partner) in findings.into_iter().zip(pairs) {
            let Some(partner) = partner else {
                let judged = patch == PatchIndex::BASE
                    || finding.origins.iter().any(|origin| {
                        let seen_before = before.is_some_and(|before| is_known(origin, before));
                        let is_new = match origin {
                            Origin::Unit(output) => result
                                .units
                                .get(output)
                                .is_some_and(|unit| born.get(unit.source.as_str()) == Some(&patch) && before.is_some()),
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
                    diagnostic: Cow::Borrowed(finding.diagnostic),
                    origins: finding.origins,
                });
                continue;
            };
            met.insert(partner);
            let old = &carried[partner];
            // Units that still cannot be compiled may have it too.
            let mut origins = finding.origins;
            origins.extend(old.origins.iter().filter(|origin| unknown(origin, reached, result)));
            next.push(Carried { defect: old.defect, diagnostic: Cow::Borrowed(finding.diagnostic), origins });
        }
        for (index, old) in carried.into_iter().enumerate() {
            if met.contains(&index) {
                continue;
            }
            let still: BTreeSet<Origin<'_>> =
                old.origins.iter().filter(|origin| unknown(origin, reached, result)).copied().collect();
            if still.is_empty() {
                defects[old.defect].fixed_by = Some(patch);
            } else {
                next.push(Carried { origins: still, ..old });
            }
        }
        carried = next;
    }
    defects
}

/// Takes the places of what is carried through the changes; says whether any is another place now.
fn forward(carried: &mut [Carried<'_>], changes: &[FileChange]) -> bool {
    let changed: BTreeSet<&str> = changes.iter().filter_map(|change| change.old_path.as_deref()).collect();
    let mut moved = false;
    for old in carried.iter_mut().filter(|old| changed.contains(old.diagnostic.location.file.as_str())) {
        let location = &old.diagnostic.location;
        let place = locate::forward(location, changes).or_else(|| {
            let file = locate::file(&location.file, changes)?.to_owned();
            Some(Location { file, ..location.clone() })
        });
        if let Some(place) = place.filter(|place| place != location) {
            old.diagnostic.to_mut().location = place;
            moved = true;
        }
    }
    moved
}

/// The units of the last answer that printed anything. Nearly all of a state's units are silent, and those of the state
/// before: only what differs is looked at.
#[derive(Default)]
struct Heard<'a>(BTreeMap<&'a str, &'a Unit>);

impl<'a> Heard<'a> {
    /// Goes from one answer to the next. True: what units and scopes say, and what is known of them, is the same, so
    /// that pairing what is carried with it would change nothing.
    fn listen(&mut self, before: &'a StateResult, now: &'a StateResult) -> bool {
        let reached = reaches_units(now);
        let mut same = reached == reaches_units(before) && before.scopes == now.scopes;
        for unit in before.units.differences(&now.units) {
            same &= match (unit.before, unit.after) {
                (Some(before), Some(now)) => before.ok == now.ok && before.diagnostics == now.diagnostics,
                // Of a unit that compiled in silence nothing is carried.
                (Some(one), None) | (None, Some(one)) => reached && one.ok && one.diagnostics.is_empty(),
                (None, None) => true,
            };
            match unit.after.filter(|unit| !unit.diagnostics.is_empty()) {
                Some(now) => self.0.insert(unit.key, now),
                None => self.0.remove(&**unit.key),
            };
        }
        same
    }
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

/// Whether this result knows an origin for certain: a unit that compiled, a scope that ran to its end.
fn is_known(origin: &Origin<'_>, result: &StateResult) -> bool {
    match origin {
        Origin::Unit(output) => result.units.get(output).is_some_and(|unit| unit.ok),
        Origin::Scope(scope) => result.scopes.get(scope).is_some_and(|state| state.known),
    }
}

/// Whether nothing can be said of an origin in this state. A unit that is not there any more has nothing to say.
fn unknown(origin: &Origin<'_>, reached: bool, result: &StateResult) -> bool {
    if is_known(origin, result) {
        return false;
    }
    match origin {
        Origin::Unit(output) => !reached || result.units.get(output).is_some_and(|unit| !unit.ok),
        Origin::Scope(_) => true,
    }
}

fn findings<'a>(heard: &Heard<'a>, result: &'a StateResult) -> Vec<Finding<'a>> {
    let units = heard.0.iter().flat_map(|(output, unit)| {
        // After an error a compiler warns of what only the error made so; such warnings wait until the unit compiles.
        let counts = |it: &&Diagnostic| unit.ok || it.severity == Severity::Error;
        unit.diagnostics.iter().filter(counts).map(|diagnostic| (Origin::Unit(output), diagnostic))
    });
    let scopes = result
        .scopes
        .iter()
        .flat_map(|(scope, state)| state.diagnostics.iter().map(move |diagnostic| (Origin::Scope(*scope), diagnostic)));
    // A header's warning in 900 units is one finding. Two equal ones of one unit stay two: they are counted.
    let mut found: BTreeMap<(Key<'_>, usize), Finding<'_>> = BTreeMap::new();
    let mut counts: BTreeMap<(Origin<'_>, Key<'_>), usize> = BTreeMap::new();
    for (origin, diagnostic) in units.chain(scopes) {
        let key = key(diagnostic);
        let count = counts.entry((origin, key)).or_default();
        *count += 1;
        found
            .entry((key, *count))
            .or_insert_with(|| Finding { diagnostic, origins: BTreeSet::new() })
            .origins
            .insert(origin);
    }
    found.into_values().collect()
}

/// What makes two diagnostics of one state the same, whoever prints them, as an error or as a warning.
type Key<'a> = (Tool, &'a str, u32, Option<u32>, Option<&'a str>, &'a str);

fn key(diagnostic: &Diagnostic) -> Key<'_> {
    let location = &diagnostic.location;
    let flag = diagnostic.flag.as_deref();
    (diagnostic.tool, &location.file, location.line, location.column, flag, &diagnostic.message)
}

/// Puts the defects of all targets together: the same one on several targets is one entry. Fills in the ids in the
/// verdicts, which are by target, then by patch.
pub fn merge(
    targets: &[TargetFacts<'_>],
    by_target: &[Vec<Defect>],
    verdicts: &mut [VerdictEntry],
) -> Vec<DiagnosticEntry> {
    let mut entries: Vec<DiagnosticEntry> = Vec::new();
    let mut places: BTreeMap<(Key<'_>, Option<PatchIndex>, usize), usize> = BTreeMap::new();
    let mut ids: BTreeMap<DiagnosticId, u32> = BTreeMap::new();
    let per_target = verdicts.len().checked_div(targets.len()).unwrap_or(0);
    for (number, (target, defects)) in targets.iter().zip(by_target).enumerate() {
        let mut seen: BTreeMap<(Key<'_>, Option<PatchIndex>), usize> = BTreeMap::new();
        for defect in defects {
            let same = (key(&defect.diagnostic), defect.introduced_by);
            let count = seen.entry(same).or_default();
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
