//! The direct step: where a change reaches nothing but compiles, only those compiles are run.
//!
//! It does to the build folder what the project's make would do, less the walk over the tree: each unit that reads a changed file
//! is made by the very command that kbuild kept beside it, objtool included, and its dependency list is written anew by
//! kbuild's own `fixdep`. A later make finds everything up to date. Where the link would see a difference, make runs after
//! all; it then has only the link to do.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use bombproof_core::kbuild::cmdfile::{self, Extra};
use bombproof_core::kbuild::interface::{self, Interface, Linked, View};
use bombproof_core::kbuild::reach::{self, Reach};
use bombproof_core::kbuild::roots::{Place, Roots};
use bombproof_core::outcome::LinkCheck;
use bombproof_core::target::config::Config;
use bombproof_core::tree::{Change, FileMode};
use serde::{Deserialize, Serialize};

use super::assemble::Table;

/// What is known of the steps of a build folder, as the last make left it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Structure {
    /// Units that are made by one compile (and objtool) and go into archives or modules as they are.
    plain: BTreeSet<String>,
    /// The objects of each module, by its `.mod` file.
    modules: BTreeMap<String, Vec<String>>,
    /// Files of the source tree that other steps name: linker scripts, generators, host programs.
    others: BTreeSet<String>,
}

impl Structure {
    /// Reads what kbuild keeps beside the targets of a build folder.
    pub(super) fn read(out: &Path, cwd: &str, roots: &Roots, table: &Table, config: &Config) -> std::io::Result<Self> {
        let mut known = Self::default();
        let mut archives = Archives::default();
        let mut candidates = Vec::new();
        let mut objtool = false;
        let mut folders = vec![out.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder)? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if entry.file_type()?.is_dir() {
                    // One empty file for each symbol.
                    if folder != out.join("include") || name != "config" {
                        folders.push(entry.path());
                    }
                } else if name.ends_with(".cmd") && name.starts_with('.') {
                    let text = String::from_utf8_lossy(&std::fs::read(entry.path())?).into_owned();
                    let Some(file) = cmdfile::read(&text) else { continue };
                    let target = roots.place(cwd, &file.target).into_path();
                    let extra = file.extra();
                    if table.has(&target) && target.ends_with(".o") && extra != Extra::Unknown {
                        objtool |= extra == Extra::Objtool;
                        candidates.push((target, file));
                    } else {
                        known.add(&file, cwd, roots);
                    }
                } else if name.ends_with(".mod") {
                    let text = String::from_utf8_lossy(&std::fs::read(entry.path())?).into_owned();
                    let objects = text.split_whitespace().map(str::to_owned).collect();
                    known.modules.insert(entry.path().to_string_lossy().into_owned(), objects);
                }
            }
        }
        // Kernels before 5.19 run objtool beside the command that they keep.
        let on = |option: &str| config.get(option).is_some_and(|value| value != "n");
        let apart = !objtool && (on("OBJTOOL") || on("STACK_VALIDATION"));
        let modules: BTreeSet<String> = known.modules.values().flatten().cloned().collect();
        for (target, file) in candidates {
            if !apart && is_simple(&target) && (modules.contains(&target) || archives.hold(out, &target)) {
                known.plain.insert(target);
            } else {
                known.add(&file, cwd, roots);
            }
        }
        Ok(known)
    }

    /// A step whose inputs count as a whole: those of its list, and every file that its command names.
    fn add(&mut self, file: &cmdfile::CmdFile, cwd: &str, roots: &Roots) {
        let words = file.command.split([' ', '\t', '\'', '"', '=', ',', '(', ')', '<', '>', ';']);
        for name in file.inputs.iter().map(String::as_str).chain(words.filter(|word| word.contains(['/', '.']))) {
            if let Place::Source(path) = roots.place(cwd, name) {
                self.others.insert(path);
            }
        }
    }

    /// The units that have to be made for these changes, each with the file that it reads; the reason, where that is not all that has to be done.
    pub(super) fn plan(
        &self,
        changes: &[Change],
        added_or_removed: &BTreeSet<&str>,
        table: &Table,
    ) -> Result<BTreeMap<String, String>, String> {
        let mut changed = BTreeSet::new();
        for change in changes {
            let path = change.path.as_str();
            match reach::of(path) {
                Reach::Nothing => continue,
                Reach::Structure => return Err(format!("'{path}' may change more than compiles")),
                Reach::Units => {}
            }
            let is_file = change
                .entry
                .as_ref()
                .is_some_and(|entry| matches!(entry.mode, FileMode::Regular | FileMode::Executable));
            if !is_file || added_or_removed.contains(path) {
                return Err(format!("'{path}' comes or goes"));
            }
            if self.others.contains(path) {
                return Err(format!("'{path}' is read by a step that is no compile"));
            }
            changed.insert(path);
        }
        let units = table.readers_of(&changed);
        match units.keys().find(|unit| !self.plain.contains(*unit)) {
            Some(unit) => Err(format!("'{unit}' is no plain object")),
            None => Ok(units),
        }
    }
}

/// Names that need no quoting, neither for make nor for the shell.
fn is_simple(path: &str) -> bool {
    path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-+./,".contains(&byte))
}

/// The thin archives of a build folder, each read once.
#[derive(Default)]
struct Archives(BTreeMap<String, Vec<u8>>);

impl Archives {
    /// Whether `built-in.a` or `lib.a` of a folder on the way names the object.
    fn hold(&mut self, out: &Path, object: &str) -> bool {
        let mut ends: Vec<usize> = object.match_indices('/').map(|(at, _)| at + 1).collect();
        ends.push(0);
        ends.sort_unstable_by(|a, b| b.cmp(a));
        ends.into_iter().any(|at| {
            let (folder, name) = object.split_at(at);
            // Thin archives have all names in one table, each with `/` and a line end behind it.
            let entry = format!("\n{name}/\n");
            ["built-in.a", "lib.a"].iter().any(|archive| {
                let path = format!("{folder}{archive}");
                let bytes =
                    self.0.entry(path).or_insert_with_key(|path| read_thin(&out.join(path)).unwrap_or_default());
                bytes.windows(entry.len()).any(|window| window == entry.as_bytes())
            })
        })
    }
}

/// The head of a thin archive, up to the end of its names (symbols and names come first).
fn read_thin(path: &Path) -> std::io::Result<Vec<u8>> {
    let bytes = std::fs::read(path)?;
    Ok(if bytes.starts_with(b"!<thin>\n") { bytes } else { Vec::new() })
}

/// What the link sees of these units now; `None` for a unit whose object is not there or not understood.
pub(super) fn interfaces(out: &Path, units: &[String]) -> Vec<Option<Interface>> {
    units.iter().map(|unit| interface::read(&std::fs::read(out.join(unit)).ok()?)).collect()
}

impl Structure {
    /// Whether a link would go through as the last one did, now that these units are made: what was seen of each `before`
    /// is compared with what is there now. The reason, where only the link can tell.
    pub(super) fn link(&self, out: &Path, units: &[String], before: &[Option<Interface>]) -> Result<LinkCheck, String> {
        let after = interfaces(out, units);
        let mut linked = None;
        let mut known = LinkCheck::Unchanged;
        for (unit, (before, after)) in units.iter().zip(before.iter().zip(&after)) {
            let (Some(before), Some(after)) = (before, after) else {
                return Err(format!("'{unit}' was not there, or is no object"));
            };
            if before == after {
                continue;
            }
            let linked = linked.get_or_insert_with(|| {
                let text = |name: &str| std::fs::read(out.join(name)).unwrap_or_default();
                let (map, symvers) = (text("System.map"), text("Module.symvers"));
                Linked::read(&String::from_utf8_lossy(&map), &String::from_utf8_lossy(&symvers))
            });
            let mut owners = self.modules.values().filter(|objects| objects.contains(unit));
            let view = match (owners.next(), owners.next()) {
                (None, _) => interface::view_in_image(before, after, linked),
                (Some(objects), None) => {
                    let others: Vec<String> = objects.iter().filter(|other| *other != unit).cloned().collect();
                    match interfaces(out, &others).into_iter().collect::<Option<Vec<_>>>() {
                        Some(others) => interface::view_in_module(before, after, &others, linked),
                        None => View::Unclear("an object of its module is not understood".to_owned()),
                    }
                }
                (Some(_), Some(_)) => View::Unclear("it is part of several modules".to_owned()),
            };
            match view {
                View::Same => {}
                View::Resolved => known = LinkCheck::Symbols,
                View::Unclear(why) => return Err(format!("the link sees another '{unit}': {why}")),
            }
        }
        Ok(known)
    }
}

/// The makefile that makes the units; `log` is where it lies. `None`: kbuild did not keep what is needed.
pub(super) fn makefile(out: &Path, units: &[String]) -> Option<String> {
    // `make-cmd` and `escsq` as kbuild has them: the command is kept for the next make in the form in which it was found.
    let mut text = String::from(
        "MAKEFLAGS += -rR\nsquote := '\npound := \\#\n\
         escsq = $(subst $(squote),'\\$(squote)',$1)\n\
         keep = $(call escsq,$(subst $(pound),$$(pound),$(subst $$,$$$$,$1)))\n\
         .DELETE_ON_ERROR:\n.PHONY: bombproof-units bombproof-force\nbombproof-units:\nbombproof-force:\n",
    );
    for unit in units {
        let (folder, name) =
            unit.rsplit_once('/').map_or((String::new(), unit.as_str()), |(f, n)| (format!("{f}/"), n));
        let cmd = format!("{folder}.{name}.cmd");
        let file = cmdfile::read(&String::from_utf8_lossy(&std::fs::read(out.join(&cmd)).ok()?))?;
        let depfile = format!("{folder}.{name}.d");
        if file.target != *unit || !file.command.contains(&depfile) {
            return None;
        }
        let variable = file.variable;
        let _ = writeln!(
            text,
            "include {cmd}\nbombproof-units: {unit}\n{unit}: bombproof-force\n\
             \t@set -e; echo '  CC      {unit}'; $({variable}); \
             scripts/basic/fixdep {depfile} {unit} '$(call keep,$({variable}))' > {cmd}; rm -f {depfile}"
        );
    }
    Some(text)
}

#[cfg(test)]
#[path = "direct_tests.rs"]
mod tests;
