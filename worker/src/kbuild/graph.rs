//! Reads the action graph off a build folder after a make that went through.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use bombproof_core::action::InputFile;
use bombproof_core::kbuild::cmdfile::{self, CmdFile, Extra};
use bombproof_core::kbuild::interface::Interface;
use bombproof_core::kbuild::reach;
use bombproof_core::kbuild::roots::{Place, Roots};
use bombproof_core::plan::compile::AUTOCONF;
use bombproof_core::plan::graph::{Compile, Graph, GraphFile, Node, Table as Texts};
use bombproof_core::target::Kbuild;
use bombproof_core::target::config::Config;

use super::assemble::Table;
use crate::beneath::{self, Root};
use crate::files::Files;

/// The program of `objtool` runs, below the build folder, and as commands name it.
const OBJTOOL: &str = "tools/objtool/objtool";

/// Where a graph is read from.
pub(super) struct Read<'a> {
    pub(super) source: &'a Path,
    pub(super) output: &'a Path,
    /// Where make ran.
    pub(super) cwd: &'a str,
    pub(super) roots: &'a Roots,
    pub(super) files: &'a Files,
    pub(super) kbuild: &'a Kbuild,
    pub(super) config: &'a Config,
}

/// What kbuild keeps beside its targets.
#[derive(Default)]
struct Kept {
    /// Units that are made by one compile (and objtool), with the words of the objtool run.
    plain: BTreeMap<String, Option<Vec<String>>>,
    modules: BTreeMap<String, Vec<String>>,
    others: BTreeSet<String>,
}

impl Read<'_> {
    /// The graph; the reason, where compiles of this build are not all that a change of a source means.
    pub(super) fn graph(&self, table: &mut Table) -> Result<Graph, String> {
        if let Some(option) = reach::refused_by(self.config) {
            return Err(format!("with CONFIG_{option} a compile is not all"));
        }
        if !reach::plain_arguments(&self.kbuild.make_args) {
            return Err("the arguments of make ask for more than compiles".to_owned());
        }
        let trouble = |error: std::io::Error| format!("the build folder cannot be read: {error}");
        let kept = self.kept(table).map_err(trouble)?;
        let interfaces: BTreeMap<String, Interface> = kept
            .plain
            .keys()
            .filter_map(|unit| {
                let read = || beneath::read(self.output, unit).ok();
                Some((unit.clone(), table.interface(unit, read)?))
            })
            .collect();
        self.assemble(table, kept, interfaces).map_err(trouble)
    }

    fn assemble(
        &self,
        table: &Table,
        kept: Kept,
        mut interfaces: BTreeMap<String, Interface>,
    ) -> std::io::Result<Graph> {
        let (mut words, mut paths) = (Texts::default(), BTreeMap::new());
        // Places in the table of files are known when all paths are: the table is sorted by path.
        for unit in table.for_graph() {
            match unit.compile {
                Some((_, _, inputs, _)) => paths.extend(inputs.iter().map(|path| ((*path).to_owned(), 0_u32))),
                None => paths.extend(unit.inputs.iter().map(|path| (format!("src/{path}"), 0))),
            }
        }
        let mut files = Vec::with_capacity(paths.len());
        for (place, (path, number)) in (0..).zip(&mut paths) {
            *number = place;
            let known = self.get(path)?;
            let file = known.as_ref().map_or_else(InputFile::missing, |known| known.file);
            let symbols = known.iter().flat_map(|known| &known.facts.symbols);
            let symbols = symbols.map(|symbol| words.place(symbol)).collect();
            files.push(GraphFile { path: Arc::from(path.as_str()), file, symbols });
        }
        let place = |path: &str| paths.get(path).copied();
        let mut units = BTreeMap::new();
        for unit in table.for_graph() {
            let plain = kept.plain.get(unit.output);
            let node = match unit.compile {
                Some((argv, depfile, inputs, made)) => Node {
                    compile: Some(Compile {
                        argv: argv.iter().map(|word| words.place(word)).collect(),
                        depfile: depfile.to_owned(),
                    }),
                    inputs: inputs.iter().filter_map(|path| place(path)).collect(),
                    plain: plain.is_some(),
                    objtool: plain
                        .and_then(|objtool| Some(objtool.as_ref()?.iter().map(|word| words.place(word)).collect())),
                    made: Some(made),
                    interface: interfaces.remove(unit.output),
                },
                None => Node {
                    compile: None,
                    inputs: unit.inputs.iter().filter_map(|path| place(&format!("src/{path}"))).collect(),
                    plain: plain.is_some(),
                    objtool: None,
                    made: None,
                    interface: interfaces.remove(unit.output),
                },
            };
            units.insert(Arc::from(unit.output), node);
        }
        let late = self.late(units.keys());
        let blob = |path: &str| Ok::<_, std::io::Error>(self.get(&format!("out/{path}"))?.map(|known| known.file.blob));
        let autoconf = self.get(AUTOCONF)?.ok_or_else(|| std::io::Error::other("there is no autoconf.h"))?;
        Ok(Graph {
            files,
            generated: self.generated()?,
            objtool: self.get(&format!("out/{OBJTOOL}"))?.map(|known| known.file),
            words: words.into_texts(),
            units,
            late,
            others: kept.others,
            kconfig: self.kconfig()?,
            arch: self.kbuild.arch.folder().to_owned(),
            modules: kept.modules,
            autoconf: autoconf.file.blob,
            system_map: blob("System.map")?,
            symvers: blob("Module.symvers")?,
        })
    }

    /// Those of the units that were made after everything was linked together.
    fn late<'u>(&self, units: impl Iterator<Item = &'u Arc<str>>) -> BTreeSet<Arc<str>> {
        let time = |path: &str| {
            let kind = std::fs::symlink_metadata(self.output.join(path)).ok()?;
            kind.modified().ok()
        };
        let Some(linked) = ["vmlinux.o", "vmlinux"].into_iter().filter_map(time).min() else { return BTreeSet::new() };
        units.filter(|unit| time(unit).is_none_or(|made| made > linked)).cloned().collect()
    }

    fn get(&self, path: &str) -> std::io::Result<Option<crate::files::Known>> {
        match path.split_once('/') {
            Some(("src", path)) => self.files.get(&Root::at(self.source)?, path),
            Some(("out", path)) => self.files.get(&Root::at(self.output)?, path),
            Some(_) | None => Ok(None),
        }
    }

    /// The text of a file of the build folder.
    fn text(&self, path: &Path) -> std::io::Result<String> {
        let below = path.strip_prefix(self.output).unwrap_or(path).to_string_lossy();
        Ok(String::from_utf8_lossy(&beneath::read(self.output, &below)?).into_owned())
    }

    /// What Kconfig read: the list that it keeps in `include/config/auto.conf.cmd`, as a variable of make.
    fn kconfig(&self) -> std::io::Result<BTreeSet<String>> {
        let text = match beneath::read(self.output, "include/config/auto.conf.cmd") {
            Ok(text) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            Err(error) => return Err(error),
        };
        let (Some(begin), Some(end)) = (text.find("deps_config"), text.find("\n\n")) else {
            return Ok(BTreeSet::new());
        };
        let words = text.get(begin..end).unwrap_or_default().split_whitespace().skip(2).filter(|word| *word != "\\");
        let paths = words.map(|word| match self.roots.place(&self.roots.source, word) {
            Place::Source(path) if !path.contains('$') => Some(path),
            Place::Source(_) | Place::Output(_) | Place::Elsewhere(_) => None,
        });
        // One that is not understood makes the list worthless.
        Ok(paths.collect::<Option<_>>().unwrap_or_default())
    }

    /// Headers that were generated into folders where compilers look for all.
    fn generated(&self) -> std::io::Result<BTreeMap<String, InputFile>> {
        let mut found = BTreeMap::new();
        let mut folders = vec!["include".to_owned()];
        if let Ok(arches) = std::fs::read_dir(self.output.join("arch")) {
            for entry in arches {
                folders.push(format!("arch/{}/include", entry?.file_name().to_string_lossy()));
            }
        }
        while let Some(folder) = folders.pop() {
            let Ok(entries) = std::fs::read_dir(self.output.join(&folder)) else { continue };
            for entry in entries {
                let entry = entry?;
                let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
                if entry.file_type()?.is_dir() {
                    // One empty file for each symbol.
                    if path != "include/config" {
                        folders.push(path);
                    }
                } else if path.ends_with(".h")
                    && let Some(known) = self.get(&format!("out/{path}"))?
                {
                    found.insert(format!("out/{path}"), known.file);
                }
            }
        }
        Ok(found)
    }

    /// Reads the `.cmd` and `.mod` files.
    fn kept(&self, table: &Table) -> std::io::Result<Kept> {
        let mut kept = Kept::default();
        let mut archives = Archives::default();
        let mut candidates = Vec::new();
        let mut runs_objtool = false;
        let mut folders = vec![self.output.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder)? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if entry.file_type()?.is_dir() {
                    if folder != self.output.join("include") || name != "config" {
                        folders.push(entry.path());
                    }
                } else if name.ends_with(".cmd") && name.starts_with('.') {
                    let text = self.text(&entry.path())?;
                    let Some(file) = cmdfile::read(&text) else { continue };
                    let target = self.roots.place(self.cwd, &file.target).into_path();
                    let extra = file.extra();
                    if table.has(&target) && target.ends_with(".o") && extra != Extra::Unknown {
                        runs_objtool |= extra == Extra::Objtool;
                        candidates.push((target, objtool(&file)));
                    } else if !table.has(&target) {
                        self.add(&mut kept, &file);
                    }
                } else if name.ends_with(".mod") {
                    let text = self.text(&entry.path())?;
                    let objects = text.split_whitespace().map(str::to_owned).collect();
                    let path = entry.path();
                    let below = path.strip_prefix(self.output).unwrap_or(&path);
                    kept.modules.insert(below.to_string_lossy().into_owned(), objects);
                }
            }
        }
        // Kernels before 5.19 run objtool beside the command that they keep.
        let on = |option: &str| self.config.get(option).is_some_and(|value| value != "n");
        let apart = !runs_objtool && (on("OBJTOOL") || on("STACK_VALIDATION"));
        let modules: BTreeSet<&String> = kept.modules.values().flatten().collect();
        let mut plain = BTreeMap::new();
        for (target, objtool) in candidates {
            let is_linked = modules.contains(&target) || archives.hold(self.output, &target);
            if let (false, true, Some(objtool)) = (apart, is_linked, objtool) {
                plain.insert(target, objtool);
            }
        }
        kept.plain = plain;
        Ok(kept)
    }

    /// A step whose inputs count as a whole: those of its list, and every file that its command names.
    fn add(&self, kept: &mut Kept, file: &CmdFile) {
        let words = file.command.split([' ', '\t', '\'', '"', '=', ',', '(', ')', '<', '>', ';']);
        for name in file.inputs.iter().map(String::as_str).chain(words.filter(|word| word.contains(['/', '.']))) {
            if let Place::Source(path) = self.roots.place(self.cwd, name) {
                kept.others.insert(path);
            }
        }
    }
}

/// The words of the objtool run in a command; inner `None`: there is none. `None`: it is not plain words.
fn objtool(file: &CmdFile) -> Option<Option<Vec<String>>> {
    match file.extra() {
        Extra::Nothing => Some(None),
        Extra::Unknown => None,
        Extra::Objtool => {
            let mut parts = file.command.split(';').skip(1).map(str::trim).filter(|part| !part.is_empty());
            let (Some(part), None) = (parts.next(), parts.next()) else { return None };
            let words: Vec<String> = part.split_whitespace().map(str::to_owned).collect();
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-+./,=:".contains(&byte);
            let known = words.first().is_some_and(|word| word.trim_start_matches("./") == OBJTOOL);
            (known && words.iter().all(|word| word.bytes().all(plain))).then_some(Some(words))
        }
    }
}

/// The thin archives of a build folder, each read once.
#[derive(Default)]
struct Archives(BTreeMap<String, BTreeSet<Vec<u8>>>);

impl Archives {
    /// Whether `built-in.a` or `lib.a` of a folder on the way names the object.
    fn hold(&mut self, out: &Path, object: &str) -> bool {
        let mut ends: Vec<usize> = object.match_indices('/').map(|(at, _)| at + 1).collect();
        ends.push(0);
        ends.sort_unstable_by(|a, b| b.cmp(a));
        ends.into_iter().any(|at| {
            let (folder, name) = object.split_at(at);
            ["built-in.a", "lib.a"].iter().any(|archive| {
                let path = format!("{folder}{archive}");
                let names = self.0.entry(path).or_insert_with_key(|path| read_thin(out, path).unwrap_or_default());
                names.contains(name.as_bytes())
            })
        })
    }
}

/// The names in a thin archive: they are in one table, each with `/` and a line end behind it.
fn read_thin(out: &Path, path: &str) -> std::io::Result<BTreeSet<Vec<u8>>> {
    let bytes = beneath::read(out, path)?;
    if !bytes.starts_with(b"!<thin>\n") {
        return Ok(BTreeSet::new());
    }
    let lines = bytes.split(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"/"));
    Ok(lines.map(<[u8]>::to_vec).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(command: &str) -> CmdFile {
        CmdFile { command: command.to_owned(), ..CmdFile::default() }
    }

    #[test]
    fn objtool_runs_in_plain_words_are_understood() {
        let words = |text: &str| Some(Some(text.split(' ').map(str::to_owned).collect::<Vec<_>>()));
        for (command, want) in [
            ("gcc -c a.c", Some(None)),
            ("gcc -c a.c ; ./tools/objtool/objtool --orc a.o", words("./tools/objtool/objtool --orc a.o")),
            ("gcc -c a.c ; ./tools/objtool/objtool --orc 'a.o'", None),
            ("gcc -c a.c ; ./tools/objtool/objtool a.o ; ./tools/objtool/objtool b.o", None),
            ("gcc -c a.c ; strip a.o", None),
        ] {
            assert_eq!(objtool(&file(command)), want, "{command}");
        }
    }

    #[test]
    fn names_of_thin_archives_are_read_and_fat_ones_hold_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        std::fs::create_dir_all(folder.path().join("kernel/sched")).unwrap();
        write("kernel/built-in.a", "!<thin>\n/               0 `\nfork.o/\nsched/core.o/\n");
        write("kernel/sched/built-in.a", "!<arch>\nfair.o/\n");
        let mut archives = Archives::default();
        for (object, held) in [
            ("kernel/fork.o", true),
            ("kernel/sched/core.o", true),
            ("kernel/sched/fair.o", false),
            ("kernel/work.o", false),
            ("kernel/x.o", false),
        ] {
            assert_eq!(archives.hold(folder.path(), object), held, "{object}");
        }
    }
}
