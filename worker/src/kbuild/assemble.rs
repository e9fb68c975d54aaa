//! From what a step said (journal, log, exit code) and what was known to the result of a state.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bombproof_core::diagnostic::{Diagnostic, Severity, Tool, parse};
use bombproof_core::digest::{BlobDigest, Digest};
use bombproof_core::kbuild::depfile;
use bombproof_core::kbuild::interface::{self, Interface};
use bombproof_core::kbuild::invocation::{self, Invocation};
use bombproof_core::kbuild::log::{self, DiskSeen, MachineTrouble};
use bombproof_core::kbuild::record::{Known as From, Record};
use bombproof_core::kbuild::roots::{Place, Roots};
use bombproof_core::outcome::{
    Asked, Failure, LinkCheck, Outcome, Scope, ScopeState, Stage, StateResult, Trouble, Unit,
};
use bombproof_core::shared::Shared;
use serde::{Deserialize, Serialize};

use super::agent::Made;

/// What a lane knows of its build folder: every unit in it, with what it was made from.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Table {
    /// Paths of the source tree that units read, and words of commands; units name them by index.
    paths: Vec<String>,
    units: BTreeMap<String, Known>,
    scopes: Shared<BTreeMap<Scope, ScopeState>>,
    #[serde(skip)]
    index: HashMap<String, u32>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Known {
    unit: Shared<Unit>,
    /// The source is a file of the build folder.
    generated: bool,
    inputs: Vec<u32>,
    /// How it is compiled, where the agent understood that.
    #[serde(default)]
    compile: Option<Kept>,
    /// What a link sees of its object, the digest of that object, and by which rules it was read.
    #[serde(default)]
    seen: Option<(Digest, Interface, u32)>,
}

/// A compile that needs no make. Words and paths are places in the table.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Kept {
    argv: Vec<u32>,
    depfile: String,
    /// Below the input root.
    inputs: Vec<u32>,
    made: BlobDigest,
}

/// A unit as a graph needs it.
pub(super) struct ForGraph<'a> {
    pub(super) output: &'a str,
    /// Words, dependency list, inputs below the input root, and what the compile itself made.
    pub(super) compile: Option<(Vec<&'a str>, &'a str, Vec<&'a str>, BlobDigest)>,
    /// Of the source tree.
    pub(super) inputs: Vec<&'a str>,
}

/// One step, as it ended.
pub(super) struct Step<'a> {
    pub(super) records: &'a [Record],
    pub(super) log: &'a str,
    /// Exit code of make.
    pub(super) exit: i32,
    /// What the machine says of the disk.
    pub(super) disk: DiskSeen,
    pub(super) roots: &'a Roots,
    /// Where make ran.
    pub(super) cwd: &'a str,
    /// Whether make linked; where it did not, only compiles were run and what make said before still holds.
    pub(super) link: LinkCheck,
}

impl Table {
    fn intern(&mut self, path: &str) -> u32 {
        if self.index.len() != self.paths.len() {
            self.index = self.paths.iter().cloned().zip(0..).collect();
        }
        if let Some(known) = self.index.get(path) {
            return *known;
        }
        let number = u32::try_from(self.paths.len()).unwrap_or(u32::MAX);
        self.paths.push(path.to_owned());
        self.index.insert(path.to_owned(), number);
        number
    }

    /// Units that may resolve an include differently when a file of one of these names comes or goes: those that read
    /// a file of that name, wherever it lies.
    ///
    /// Gives output and source of each, and whether the source is a file of the build folder.
    pub(super) fn readers_of_names(&self, names: &BTreeSet<&str>) -> Vec<(&str, &str, bool)> {
        let named = |path: &str| names.contains(path.rsplit('/').next().unwrap_or(path));
        let hit: BTreeSet<u32> =
            self.paths.iter().zip(0..).filter(|(path, _)| named(path)).map(|(_, number)| number).collect();
        self.units
            .iter()
            .filter(|(_, known)| known.inputs.iter().any(|input| hit.contains(input)))
            .map(|(output, known)| (output.as_str(), known.unit.source.as_str(), known.generated))
            .collect()
    }

    /// Whether this is the output of a unit.
    pub(super) fn has(&self, output: &str) -> bool {
        self.units.contains_key(output)
    }

    /// The units as a graph needs them.
    pub(super) fn for_graph(&self) -> impl Iterator<Item = ForGraph<'_>> {
        let text = |place: &u32| self.paths.get(*place as usize).map_or("", String::as_str);
        self.units.iter().map(move |(output, known)| ForGraph {
            output,
            compile: known.compile.as_ref().map(|kept| {
                let texts = |places: &[u32]| places.iter().map(text).collect();
                (texts(&kept.argv), kept.depfile.as_str(), texts(&kept.inputs), kept.made)
            }),
            inputs: known.inputs.iter().map(text).collect(),
        })
    }

    /// What a link sees of a unit; `read` gives the bytes of its object, and is asked only when that is a new one.
    pub(super) fn interface(&mut self, output: &str, read: impl FnOnce() -> Option<Vec<u8>>) -> Option<Interface> {
        let known = self.units.get_mut(output)?;
        let object = known.unit.object?;
        let holds = |of: &Digest, rules: u32| *of == object && rules == interface::VERSION;
        if !known.seen.as_ref().is_some_and(|(of, _, rules)| holds(of, *rules)) {
            known.seen = interface::read(&read()?).map(|interface| (object, interface, interface::VERSION));
        }
        known.seen.as_ref().map(|(_, interface, _)| interface.clone())
    }

    /// Takes in what a step recorded, and forgets what is no longer there.
    ///
    /// `exists` tells whether a file is there, of the build folder (`true`) or the source tree; `object` is the digest of
    /// a file of the build folder.
    pub(super) fn update(
        &mut self,
        step: &Step<'_>,
        made: &HashMap<String, Made>,
        exists: impl Fn(&str, bool) -> bool,
        object: impl Fn(&str) -> Option<Digest>,
    ) {
        let mut retried = BTreeSet::new();
        let mut checks: Vec<(String, Vec<Diagnostic>)> = Vec::new();
        for record in step.records {
            match invocation::read(&record.argv) {
                Invocation::Compile { source, output } => {
                    let source = step.roots.place(&record.cwd, &source);
                    let generated = matches!(source, Place::Output(_));
                    let output = step.roots.place(&record.cwd, &output).into_path();
                    let source = source.into_path();
                    let named = record.depfile.as_deref().map(depfile::prerequisites).unwrap_or_default();
                    let mut inputs: BTreeSet<u32> = named
                        .iter()
                        .filter_map(|name| match step.roots.place(&record.cwd, name) {
                            Place::Source(path) => Some(self.intern(&path)),
                            Place::Output(_) | Place::Elsewhere(_) => None,
                        })
                        .collect();
                    if !generated {
                        inputs.insert(self.intern(&source));
                    }
                    // A compile that failed, and one without a list, read at least what it read before.
                    if named.is_empty()
                        && let Some(before) = self.units.get(&output)
                    {
                        inputs.extend(&before.inputs);
                    }
                    let unit = Unit {
                        source,
                        command: invocation::digest(&record.cwd, &record.argv),
                        ok: record.exit == Some(0),
                        diagnostics: parse::compiler(&record.stderr, &record.cwd, step.roots, Tool::Compiler),
                        object: None,
                    };
                    retried.insert(output.clone());
                    let compile = made.get(&output).filter(|_| record.exit == Some(0)).map(|made| Kept {
                        argv: record.argv.iter().map(|word| self.intern(word)).collect(),
                        depfile: made.depfile.clone(),
                        inputs: made.inputs.iter().map(|path| self.intern(path)).collect(),
                        made: made.object,
                    });
                    let inputs = inputs.into_iter().collect();
                    let known = Known { unit: unit.into(), generated, inputs, compile, seen: None };
                    self.units.insert(output, known);
                }
                Invocation::Check { source } => {
                    let found = parse::compiler(&record.stderr, &record.cwd, step.roots, Tool::Sparse);
                    checks.push((step.roots.place(&record.cwd, &source).into_path(), found));
                }
                Invocation::Other => {}
            }
        }
        for output in &retried {
            if let Some(known) = self.units.get_mut(output).filter(|known| known.unit.ok) {
                known.unit.object = object(output);
            }
        }
        for (source, found) in checks {
            let owner = self.units.values_mut().find(|known| known.unit.source == source);
            if let Some(owner) = owner {
                owner.unit.diagnostics.retain(|diagnostic| diagnostic.tool != Tool::Sparse);
                owner.unit.diagnostics.extend(found);
            }
        }
        // What failed before and was not tried again is no part of this state; nor is what lost its source or output.
        self.units.retain(|output, known| {
            (known.unit.ok || retried.contains(output))
                && exists(&known.unit.source, known.generated)
                && (!known.unit.ok || exists(output, true) || exists(output, false))
        });
        self.update_scopes(step);
    }

    fn update_scopes(&mut self, step: &Step<'_>) {
        let mut by_scope: BTreeMap<Scope, Vec<Diagnostic>> = BTreeMap::new();
        for finding in parse::log(step.log, step.cwd, step.roots) {
            let scope = match finding.diagnostic.tool {
                Tool::Objtool => {
                    let object = finding.object.unwrap_or_default();
                    match self.units.get_mut(&object) {
                        // A unit that was compiled anew has none of before; objtool runs right after it.
                        Some(known) => {
                            known.unit.diagnostics.push(finding.diagnostic);
                            continue;
                        }
                        None => Scope::Link,
                    }
                }
                Tool::Modpost => Scope::Modpost,
                Tool::Ld => Scope::Link,
                Tool::Kconfig => Scope::Config,
                Tool::Dtc => Scope::Dtb,
                Tool::Make => Scope::Make,
                Tool::Compiler | Tool::Sparse => continue,
            };
            by_scope.entry(scope).or_default().push(finding.diagnostic);
        }
        let ran = |words: &[&str]| {
            step.log.lines().any(|line| {
                let mut parts = line.split_whitespace();
                line.starts_with("  ") && parts.next().is_some_and(|word| words.contains(&word))
            })
        };
        let whole = step.exit == 0;
        let links = ran(&["LD"]) && step.log.lines().any(|line| line.starts_with("  LD ") && line.contains("vmlinux"));
        for (scope, again) in [
            (Scope::Modpost, ran(&["MODPOST"])),
            (Scope::Link, links || ran(&["LD", "AR"])),
            (Scope::Dtb, ran(&["DTC"])),
            (Scope::Make, step.link == LinkCheck::Run),
        ] {
            let found = by_scope.remove(&scope).unwrap_or_default();
            let state = self.scopes.entry(scope).or_insert(ScopeState { known: false, diagnostics: Vec::new() });
            if again || !found.is_empty() {
                state.diagnostics = found;
            }
            // A build that went through reached all of them; nothing else says that the old findings still hold.
            state.known = whole || (again && scope == Scope::Modpost);
        }
    }

    /// What Kconfig said when the configuration was derived for this state.
    pub(super) fn set_config_findings(&mut self, text: &str, cwd: &str, roots: &Roots) {
        self.scopes.insert(Scope::Config, Self::config_findings(text, cwd, roots));
    }

    /// What Kconfig said in a log.
    pub(super) fn config_findings(text: &str, cwd: &str, roots: &Roots) -> ScopeState {
        let found = parse::log(text, cwd, roots).into_iter().map(|finding| finding.diagnostic);
        let found = found.filter(|diagnostic| diagnostic.tool == Tool::Kconfig).collect();
        ScopeState { known: true, diagnostics: found }
    }

    /// The result of the state that the build folder now holds.
    pub(super) fn result(&self, step: &Step<'_>) -> StateResult {
        let outcome = self.outcome(step);
        let mut result = StateResult::trouble(Trouble::Interrupted);
        let prepared = match &outcome {
            Outcome::Failed(failures) => failures.iter().all(|failure| failure.stage > Stage::Prepare),
            Outcome::Built | Outcome::Skipped | Outcome::Trouble(_) => true,
        };
        // When the preparation fails nothing behind it was looked at: what is known is of another state.
        let current = |output: &String| prepared || step.records.iter().any(|record| is_of(record, output, step.roots));
        result.units = self
            .units
            .iter()
            .filter(|(output, _)| current(output))
            .map(|(output, known)| (output.clone(), known.unit.clone()))
            .collect();
        let used: BTreeSet<u32> = self.units.values().flat_map(|known| known.inputs.iter().copied()).collect();
        result.inputs = used.iter().filter_map(|number| self.paths.get(*number as usize).cloned()).collect();
        result.scopes.clone_from(&self.scopes);
        result.outcome = outcome;
        result.link = step.link;
        for record in step.records {
            if let Invocation::Compile { .. } | Invocation::Check { .. } = invocation::read(&record.argv) {
                match record.known {
                    From::Ran => result.cost.compiles += 1,
                    From::Cached => result.cost.cached += 1,
                    From::Token => result.cost.by_token += 1,
                }
            }
            result.cost.compile_cpu_ms += record.cpu_us / 1000;
        }
        result
    }

    /// The compiles that a step asked for, each with the first of these changed files that it reads.
    pub(super) fn asked(&self, step: &Step<'_>, changed: &BTreeSet<&str>) -> BTreeMap<String, Asked> {
        let compiles = step.records.iter().filter_map(|record| match invocation::read(&record.argv) {
            Invocation::Compile { output, .. } => {
                Some((step.roots.place(&record.cwd, &output).into_path(), record.known))
            }
            Invocation::Check { .. } | Invocation::Other => None,
        });
        let because = |output: &str| {
            let inputs = self.units.get(output).map(|known| known.inputs.as_slice()).unwrap_or_default();
            let paths = inputs.iter().filter_map(|place| self.paths.get(*place as usize));
            paths.into_iter().find(|path| changed.contains(path.as_str())).cloned().unwrap_or_default()
        };
        compiles.map(|(output, known)| (output.clone(), Asked { because: because(&output), known })).collect()
    }

    fn outcome(&self, step: &Step<'_>) -> Outcome {
        if step.exit == 0 {
            return Outcome::Built;
        }
        let trouble = log::machine_trouble(step.log, step.disk)
            .or_else(|| step.records.iter().find_map(|record| log::machine_trouble(&record.stderr, step.disk)))
            .or_else(|| {
                let killed = step.records.iter().find(|record| record.exit.is_some_and(|code| code >= 128));
                killed.map(|record| MachineTrouble::Killed(record.argv.last().cloned().unwrap_or_default()))
            });
        if let Some(trouble) = trouble {
            return Outcome::Trouble(trouble.into());
        }
        let mut failures: Vec<Failure> = log::failures(step.log)
            .into_iter()
            .map(|failed| {
                let what = step.roots.place(step.cwd, &failed.target).into_path();
                let unit = self.units.get(&what).or_else(|| {
                    let below = self.units.iter().find(|(output, _)| output.ends_with(&format!("/{}", failed.target)));
                    below.map(|(_, known)| known)
                });
                let unit = unit.filter(|known| !known.unit.ok).map(|known| &*known.unit);
                let (message, werror) = unit.and_then(Unit::first_error).unwrap_or_else(|| {
                    (self.scope_error(failed.stage).unwrap_or_else(|| failed.message.clone()), false)
                });
                let stage = if unit.is_some() { log::stage(&what) } else { failed.stage };
                Failure { stage, what, message, werror }
            })
            .collect();
        if failures.is_empty() {
            let last = step.log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("make failed");
            let message = last.trim().chars().take(300).collect();
            failures.push(Failure { stage: Stage::Prepare, what: "make".to_owned(), message, werror: false });
        }
        failures.sort();
        failures.dedup();
        Outcome::Failed(failures)
    }

    fn scope_error(&self, stage: Stage) -> Option<String> {
        let scope = match stage {
            Stage::Modpost => Scope::Modpost,
            Stage::Link => Scope::Link,
            Stage::Config => Scope::Config,
            Stage::Apply | Stage::Prepare | Stage::Compile | Stage::Command => return None,
        };
        let errors = self.scopes.get(&scope)?.diagnostics.iter().filter(|it| it.severity == Severity::Error);
        let errors: Vec<_> = errors.collect();
        let first = errors.first()?;
        let place = if first.location.file.is_empty() { String::new() } else { format!("{}: ", first.location.file) };
        let more = if errors.len() > 1 { format!(" (and {} more)", errors.len() - 1) } else { String::new() };
        Some(format!("{place}{}{more}", first.message))
    }
}

fn is_of(record: &Record, output: &str, roots: &Roots) -> bool {
    match invocation::read(&record.argv) {
        Invocation::Compile { output: made, .. } => roots.place(&record.cwd, &made).into_path() == output,
        Invocation::Check { .. } | Invocation::Other => false,
    }
}
