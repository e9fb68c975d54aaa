//! The audit: one state again, by plain make, and every difference to what was said of it.
//!
//! No shim stands before the compilers, nothing is taken from earlier steps of ours, and the folder is one that only
//! audits use. It is built incrementally from audited state to audited state, or from nothing where that is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bombproof_core::diagnostic::{Diagnostic, Severity, Tool, parse};
use bombproof_core::digest::Digest;
use bombproof_core::kbuild::record::Known;
use bombproof_core::kbuild::roots::{Place, Roots};
use bombproof_core::kbuild::{cmdfile, log};
use bombproof_core::outcome::{Audited, Outcome, StateResult, Trouble};
use bombproof_core::target::Kbuild;
use tokio::sync::watch;

use super::{Folders, Memory, Runner, come_and_gone, disk, drop_objects};
use crate::beneath;
use crate::tree::{MoveError, SourceTree};
use crate::{Attempt, Worker};

/// At most this many differences are named.
const MOST_NAMED: usize = 5;

/// Builds a state by plain make and compares.
pub(crate) async fn audit(
    worker: &Worker,
    kbuild: &Kbuild,
    lease: &Path,
    attempt: &Attempt,
    expected: &StateResult,
    cancel: watch::Receiver<bool>,
) -> Result<Audited, Trouble> {
    let folders = Folders { host: lease.to_owned(), level: worker.launcher.level() };
    // What an audit that was cut off left behind is not looked at.
    let marker = folders.host("step");
    if attempt.clean || marker.exists() {
        for name in ["out", "cfg"] {
            match std::fs::remove_dir_all(folders.host(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(disk(name)(error)),
                Ok(()) | Err(_) => {}
            }
        }
    }
    for name in ["out", "cfg", "log", "bin", "root"] {
        std::fs::create_dir_all(folders.host(name)).map_err(disk(name))?;
    }
    std::fs::write(&marker, "").map_err(disk("the marker of the step"))?;
    let (source, root, to, out) =
        (worker.source.clone(), folders.host("src"), attempt.tree.clone(), folders.host("out"));
    let roots = Roots { source: folders.guest("src"), output: folders.guest("out") };
    let (cwd, places) = (folders.guest("out"), roots.clone());
    let cwd_of_make = cwd.clone();
    let moved = tokio::task::spawn_blocking(move || -> Result<BTreeSet<String>, Trouble> {
        let tree = SourceTree::at(&root);
        let from = tree.position();
        let moved = tree.move_to(source.as_ref(), &to)?;
        match from.filter(|_| !moved.fresh) {
            None => {
                std::fs::remove_dir_all(&out).map_err(disk("emptying the build folder"))?;
                std::fs::create_dir_all(&out).map_err(disk("emptying the build folder"))?;
                Ok(BTreeSet::new())
            }
            Some(from) => {
                let changes = source.changes(Some(&from), &to).map_err(MoveError::from)?;
                let names = come_and_gone(source.as_ref(), &from, &changes).map_err(MoveError::from)?;
                let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
                // make alone does not see a header that shadows another.
                drop_objects(readers(&out, &cwd, &places, &names).map_err(disk("build folder"))?, &root, &out)
                    .map_err(disk("build folder"))?;
                Ok(changes.into_iter().map(|change| change.path).collect())
            }
        }
    });
    let changed = moved.await.map_err(|error| Trouble::Internal { detail: error.to_string() })??;
    let runner = Runner::new(worker, kbuild, &folders, attempt, cancel, false);
    let mut memory = Memory::default();
    let end = match runner.configure(&roots, &mut memory, false).await? {
        Some(_) => 1,
        None => runner.make("out", &kbuild.goals, &["-k", "-O"]).await?,
    };
    let text = runner.log_text()?;
    if let Some(trouble) = runner.trouble(&text).filter(|_| end != 0) {
        return Err(trouble);
    }
    let objects = |unit: &str| Some(Digest::of(&beneath::read(&folders.host("out"), unit).ok()?));
    let reads = |unit: &str| inputs_of(&folders.host("out"), &cwd_of_make, &roots, unit);
    let missed = |unit: &str| missed(unit, expected, &changed, &reads(unit));
    let different = compare(expected, end, &text, &roots, &objects, &missed);
    std::fs::remove_file(&marker).map_err(disk("the marker of the step"))?;
    Ok(if different.is_empty() { Audited::Equal } else { Audited::Different(different) })
}

/// Sources of the objects that read a file of one of these names.
fn readers(
    out: &Path,
    cwd: &str,
    roots: &Roots,
    names: &BTreeSet<&str>,
) -> std::io::Result<Vec<(String, String, bool)>> {
    let mut found = Vec::new();
    let mut folders = if names.is_empty() { Vec::new() } else { vec![out.to_owned()] };
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if name.starts_with('.') && name.ends_with(".cmd") {
                let text = read_below(out, &entry.path())?;
                let Some(file) = cmdfile::read(&text) else { continue };
                let reads = file.inputs.iter().any(|input| names.contains(input.rsplit('/').next().unwrap_or(input)));
                if let Some(source) = file.inputs.first().filter(|_| reads) {
                    let place = roots.place(cwd, source);
                    let generated = !matches!(place, Place::Source(_));
                    found.push((roots.place(cwd, &file.target).into_path(), place.into_path(), generated));
                }
            }
        }
    }
    Ok(found)
}

/// The files of the source tree that plain make saw an object read.
fn inputs_of(out: &Path, cwd: &str, roots: &Roots, unit: &str) -> BTreeSet<String> {
    let (folder, name) = unit.rsplit_once('/').unwrap_or(("", unit));
    let text = beneath::read(&out.join(folder), &format!(".{name}.cmd")).unwrap_or_default();
    let file = cmdfile::read(&String::from_utf8_lossy(&text));
    let places = file.into_iter().flat_map(|file| file.inputs).map(|input| roots.place(cwd, &input));
    places.filter(|place| matches!(place, Place::Source(_))).map(Place::into_path).collect()
}

/// What may have been missed when an object is another one, in words: which of the files that it reads changed since the state that
/// was audited before, and whether it was compiled for that.
fn missed(unit: &str, expected: &StateResult, changed: &BTreeSet<String>, reads: &BTreeSet<String>) -> String {
    let why: Vec<String> = reads.intersection(changed).take(3).map(|path| format!("'{path}'")).collect();
    let anew = match expected.made.get(unit).map(|asked| asked.known) {
        None => "was not compiled anew",
        Some(Known::Ran) => "was compiled anew",
        Some(Known::Cached) => "was known from an earlier compile",
        Some(Known::Token) => "was not compiled, for nothing changed that a compiler sees",
    };
    match why.is_empty() {
        true if reads.is_empty() => format!(", and {anew}"),
        true => format!(", and {anew}: no file that make has on its list changed"),
        false => format!(", and {anew}: it reads {}, changed since the state audited before", why.join(", ")),
    }
}

fn read_below(out: &Path, path: &Path) -> std::io::Result<String> {
    let below = path.strip_prefix(out).unwrap_or(path).to_string_lossy();
    Ok(String::from_utf8_lossy(&beneath::read(out, &below)?).into_owned())
}

/// What is not as it was said to be.
fn compare(
    expected: &StateResult,
    end: i32,
    text: &str,
    roots: &Roots,
    object: &dyn Fn(&str) -> Option<Digest>,
    missed: &dyn Fn(&str) -> String,
) -> Vec<String> {
    let mut different = Vec::new();
    match &expected.outcome {
        Outcome::Built if end != 0 => {
            let failed = log::failures(text).into_iter().map(|failure| failure.target).next().unwrap_or_default();
            different.push(format!("plain make fails ({failed}), the verdict was that it builds"));
        }
        Outcome::Failed(failures) => {
            let said = failures.first().map(|failure| failure.what.clone()).unwrap_or_default();
            if end == 0 {
                different.push(format!("plain make builds, the verdict was that '{said}' fails"));
            }
        }
        Outcome::Built | Outcome::Skipped | Outcome::Trouble(_) => {}
    }
    let objects = expected.units.iter().filter_map(|(name, unit)| Some((name, unit.object?)));
    for (name, said) in objects {
        match object(name) {
            Some(found) if found == said => {}
            Some(_) => different.push(format!("the object '{name}' has other bytes{}", missed(name))),
            None if end != 0 => {}
            None => different.push(format!("the object '{name}' is not there")),
        }
    }
    for (name, found) in said_by_unit(text, roots) {
        let Some(unit) = expected.units.get(&name) else {
            // A build that failed early does not know all of its units.
            if end == 0 {
                different.push(format!("the object '{name}' was made and is not known"));
            }
            continue;
        };
        let said: BTreeSet<_> = unit.diagnostics.iter().filter(|it| it.tool == Tool::Compiler).map(essence).collect();
        let found: BTreeSet<_> = found.iter().map(essence).collect();
        if let Some((file, line, ..)) = found.symmetric_difference(&said).next() {
            different.push(format!("'{name}' has other diagnostics (at {file}:{line})"));
        }
    }
    if different.len() > MOST_NAMED {
        let more = different.len() - MOST_NAMED;
        different.truncate(MOST_NAMED);
        different.push(format!("and {more} more"));
    }
    different
}

fn essence(diagnostic: &Diagnostic) -> (String, u32, Severity, String) {
    let location = &diagnostic.location;
    (location.file.clone(), location.line, diagnostic.severity, diagnostic.message.clone())
}

/// What the compiler said of each object that was made: `make -O` keeps the output of one target together.
fn said_by_unit(text: &str, roots: &Roots) -> BTreeMap<String, Vec<Diagnostic>> {
    let mut units = BTreeMap::new();
    let mut name: Option<String> = None;
    let mut block = String::new();
    let mut close = |name: Option<String>, block: &mut String| {
        if let Some(name) = name {
            units.insert(name, parse::compiler(block, &roots.output, roots, Tool::Compiler));
        }
        block.clear();
    };
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (step, last) = (words.next().unwrap_or_default(), line.split_whitespace().last().unwrap_or_default());
        let is_step = line.starts_with("  ") && step.bytes().all(|byte| byte.is_ascii_uppercase()) && !step.is_empty();
        if is_step || line.starts_with("make") {
            close(name.take(), &mut block);
            if is_step && matches!(step, "CC" | "AS") && last.ends_with(".o") {
                name = Some(roots.place(&roots.output, last).into_path());
            }
        } else {
            block.push_str(line);
            block.push('\n');
        }
    }
    close(name, &mut block);
    units
}

#[cfg(test)]
mod tests {
    use bombproof_core::outcome::{Asked, Failure, Stage, Unit};

    use super::*;

    fn said(outcome: Outcome, object: &[u8]) -> StateResult {
        let unit = Unit {
            source: "a.c".to_owned(),
            command: Digest::of(b""),
            ok: true,
            diagnostics: Vec::new(),
            object: Some(Digest::of(object)),
        };
        let mut result = StateResult::trouble(Trouble::Interrupted);
        result.outcome = outcome;
        result.units = [("a.o".to_owned(), unit)].into();
        result
    }

    #[test]
    fn every_kind_of_difference_is_named() {
        let roots = Roots { source: "/s".to_owned(), output: "/o".to_owned() };
        let failure = Failure { stage: Stage::Compile, what: "a.o".to_owned(), message: String::new(), werror: false };
        let failed = || Outcome::Failed(vec![failure.clone()]);
        let warning = "  CC      a.o\n/s/a.c:3:1: warning: unused variable 'x' [-Wunused-variable]\n";
        for (expected, end, text, now, want) in [
            (said(Outcome::Built, b"1"), 0, "  CC      a.o\n", "1", None),
            (said(Outcome::Built, b"1"), 0, "", "1", None),
            (said(Outcome::Built, b"1"), 2, "make: *** [M:1: a.o] Error 1\n", "1", Some("plain make fails")),
            (said(failed(), b"1"), 2, "", "1", None),
            (said(failed(), b"1"), 0, "", "1", Some("plain make builds")),
            (said(Outcome::Built, b"1"), 0, "", "2", Some("other bytes")),
            (said(Outcome::Built, b"1"), 0, warning, "1", Some("other diagnostics (at a.c:3)")),
            (said(Outcome::Built, b"1"), 0, "  CC      b.o\n", "1", Some("'b.o' was made")),
        ] {
            let found =
                compare(&expected, end, text, &roots, &|_| Some(Digest::of(now.as_bytes())), &|_| String::new());
            assert_eq!(found.len(), usize::from(want.is_some()), "{text} {found:?}");
            assert!(want.is_none_or(|want| found[0].contains(want)), "{found:?}");
        }
        let gone = compare(&said(Outcome::Built, b"1"), 0, "", &roots, &|_| None, &|_| String::new());
        assert!(gone[0].contains("not there"));
    }

    #[test]
    fn what_was_missed_is_named() {
        let mut expected = said(Outcome::Built, b"1");
        let (changed, reads) = (["a.h", "b.h"].map(str::to_owned).into(), ["a.h", "c.h"].map(str::to_owned).into());
        let say = |expected: &StateResult, reads: &BTreeSet<String>| missed("a.o", expected, &changed, reads);
        assert_eq!(
            say(&expected, &reads),
            ", and was not compiled anew: it reads 'a.h', changed since the state audited before"
        );
        assert_eq!(say(&expected, &BTreeSet::new()), ", and was not compiled anew");
        let asked = Asked { because: String::new(), known: Known::Cached };
        expected.made = [("a.o".to_owned(), asked)].into();
        let other = BTreeSet::from(["c.h".to_owned()]);
        assert!(say(&expected, &other).ends_with("earlier compile: no file that make has on its list changed"));
    }
}
