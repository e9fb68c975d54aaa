//! Which units a change reaches, and whether they are all that it reaches.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::graph::{Graph, Node};
use crate::kbuild::reach::{self, Reach};

/// One path that differs between two neighbouring states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Changed<'a> {
    /// Below the top of the source tree.
    pub path: &'a str,
    /// What becomes of it.
    pub kind: Kind,
    /// No compiler sees a difference: only comments, white space or text that this configuration switches off.
    pub unseen: bool,
}

/// What becomes of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A file stays one.
    Changes,
    /// A file is new.
    Comes,
    /// A file is no more.
    Goes,
    /// It is or was something else than a file.
    Odd,
}

/// What has to be done for a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reached {
    /// These units have to be compiled, each because it reads that file.
    Units {
        /// The units.
        units: BTreeMap<Arc<str>, String>,
        /// A file that Kconfig reads: all this holds if the configuration comes out the same.
        config: Option<String>,
    },
    /// More than compiles: make has to run. Why.
    Structure(String),
}

/// The readers of each file of the source tree.
#[derive(Debug)]
pub struct Reverse {
    units: Vec<Arc<str>>,
    readers: HashMap<Arc<str>, Vec<u32>>,
}

impl Reverse {
    /// Reads a graph the other way round.
    pub fn of(graph: &Graph) -> Self {
        let mut readers: Vec<Vec<u32>> = vec![Vec::new(); graph.files.len()];
        for (unit, node) in (0..).zip(graph.units.values()) {
            for input in &node.inputs {
                if let Some(readers) = readers.get_mut(*input as usize) {
                    readers.push(unit);
                }
            }
        }
        let paths = graph.files.iter().map(|file| &file.path);
        let of_source = paths.zip(readers).filter_map(|(path, readers)| {
            let path = path.strip_prefix("src/")?;
            (!readers.is_empty()).then(|| (Arc::from(path), readers))
        });
        Self { units: graph.units.keys().cloned().collect(), readers: of_source.collect() }
    }

    /// The units that read a file of the source tree.
    pub fn readers(&self, path: &str) -> impl Iterator<Item = &Arc<str>> {
        let units = self.readers.get(path).map(Vec::as_slice).unwrap_or_default();
        units.iter().filter_map(|unit| self.units.get(*unit as usize))
    }

    /// Whether any unit reads it.
    pub fn is_read(&self, path: &str) -> bool {
        self.readers.contains_key(path)
    }
}

/// What a change reaches in a graph. `more` are files below the input root that units read since, which the graph does not know
/// of; `holds` says whether what is known of a unit holds when only lines moved (it has no diagnostics).
pub fn reached(
    graph: &Graph,
    reverse: &Reverse,
    changes: &[Changed<'_>],
    more: &BTreeMap<Arc<str>, BTreeSet<String>>,
    holds: &dyn Fn(&Arc<str>) -> bool,
) -> Reached {
    let (mut units, mut config) = (BTreeMap::new(), None);
    for change in changes {
        let path = change.path;
        let comes_or_goes = change.kind != Kind::Changes;
        match reach::of(path) {
            Reach::Nothing => continue,
            Reach::Structure if unread_by_kbuild(graph, change) => {}
            Reach::Structure if is_kconfig(path) && graph.kconfig.contains(path) && !comes_or_goes => {
                config.get_or_insert_with(|| path.to_owned());
            }
            Reach::Structure => return Reached::Structure(format!("'{path}' may change more than compiles")),
            Reach::Units => {}
        }
        if comes_or_goes && (change.kind == Kind::Odd || !reach::is_plain_header(path)) {
            return Reached::Structure(format!("'{path}' comes or goes"));
        }
        // Such a step may run without the configuration: what is unseen by compiles is not unseen by it.
        let also_named = |other: &String| comes_or_goes && same_name(other, path);
        if graph.others.contains(path) || graph.others.iter().any(also_named) {
            return Reached::Structure(format!("'{path}' is read by a step that is no compile"));
        }
        for unit in &readers(graph, reverse, change, more) {
            if change.unseen && holds(unit) {
                continue;
            }
            match graph.units.get(unit) {
                Some(Node { compile: Some(_), .. }) => {
                    units.entry(Arc::clone(unit)).or_insert_with(|| path.to_owned());
                }
                Some(_) | None => {
                    return Reached::Structure(format!("'{unit}' reads '{path}' and is made by make alone"));
                }
            }
        }
    }
    Reached::Units { units, config }
}

/// The units that a change of a file may mean something to: those that read it or, where it comes, one of its name.
///
/// A compile looks for a header by a name that ends in that of the file. Where it found none so far it failed, and nothing is planned.
pub fn readers(
    graph: &Graph,
    reverse: &Reverse,
    change: &Changed<'_>,
    more: &BTreeMap<Arc<str>, BTreeSet<String>>,
) -> BTreeSet<Arc<str>> {
    if change.kind != Kind::Comes {
        let input = format!("src/{}", change.path);
        let since = more.iter().filter(|(_, paths)| paths.contains(&input)).map(|(unit, _)| unit);
        return reverse.readers(change.path).chain(since).cloned().collect();
    }
    let since = more.iter().filter(|(_, paths)| paths.iter().any(|other| same_name(other, change.path)));
    let mut found: BTreeSet<Arc<str>> = since.map(|(unit, _)| Arc::clone(unit)).collect();
    let namesakes: Vec<u32> = (0..)
        .zip(&graph.files)
        .filter(|(_, file)| same_name(&file.path, change.path))
        .map(|(place, _)| place)
        .collect();
    if !namesakes.is_empty() {
        let reads = |node: &Node| namesakes.iter().any(|place| node.inputs.binary_search(place).is_ok());
        found.extend(graph.units.iter().filter(|(_, node)| reads(node)).map(|(unit, _)| Arc::clone(unit)));
    }
    found
}

/// Whether two paths end in the same name.
fn same_name(one: &str, other: &str) -> bool {
    one.rsplit('/').next() == other.rsplit('/').next()
}

/// Whether the build of this graph does not look at a file of Kconfig or make.
fn unread_by_kbuild(graph: &Graph, change: &Changed<'_>) -> bool {
    let kconfig = is_kconfig(change.path) && !graph.kconfig.is_empty() && !graph.kconfig.contains(change.path);
    change.kind == Kind::Changes && (kconfig || reach::is_foreign(change.path, &graph.arch))
}

fn is_kconfig(path: &str) -> bool {
    !path.starts_with("scripts/") && path.rsplit('/').next().is_some_and(|name| name.starts_with("Kconfig"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::InputFile;
    use crate::digest::BlobDigest;
    use crate::plan::graph::{Compile, GraphFile};

    fn graph() -> Graph {
        let files = ["src/a.c", "src/include/h.h", "src/include/lds.h", "out/g.h", "src/tool.h"];
        let file = |path: &&str| GraphFile {
            path: Arc::from(*path),
            file: InputFile { blob: BlobDigest::of(path.as_bytes()), executable: false },
            symbols: Vec::new(),
        };
        let node = |inputs: &[u32], known: bool| Node {
            compile: known.then(|| Compile { argv: Vec::new(), depfile: String::new() }),
            inputs: inputs.to_vec(),
            plain: true,
            objtool: None,
            made: None,
            interface: None,
        };
        Graph {
            files: files.iter().map(file).collect(),
            generated: BTreeMap::new(),
            objtool: None,
            words: Vec::new(),
            units: [
                (Arc::from("a.o"), node(&[0, 1, 3], true)),
                (Arc::from("b.o"), node(&[1, 2], true)),
                (Arc::from("tool"), node(&[4], false)),
            ]
            .into(),
            late: BTreeSet::new(),
            others: ["include/lds.h".to_owned()].into(),
            kconfig: ["kernel/Kconfig".to_owned()].into(),
            arch: "x86".to_owned(),
            modules: BTreeMap::new(),
            autoconf: BlobDigest::of(b""),
            system_map: None,
            symvers: None,
        }
    }

    #[test]
    fn table() {
        let graph = graph();
        let reverse = Reverse::of(&graph);
        let more = BTreeMap::from([(Arc::from("b.o"), BTreeSet::from(["src/include/new.h".to_owned()]))]);
        let plain = |path| Changed { path, kind: Kind::Changes, unseen: false };
        let comes = |path| Changed { kind: Kind::Comes, ..plain(path) };
        let goes = |path| Changed { kind: Kind::Goes, ..plain(path) };
        let odd = |path| Changed { kind: Kind::Odd, ..plain(path) };
        let unseen = |path| Changed { unseen: true, ..plain(path) };
        for (changes, want) in [
            (vec![], Ok("")),
            (vec![plain("a.c")], Ok("a.o")),
            (vec![plain("include/h.h")], Ok("a.o b.o")),
            (vec![plain("a.c"), plain("include/h.h")], Ok("a.o b.o")),
            (vec![plain("include/nobody.h")], Ok("")),
            (vec![plain("include/new.h")], Ok("b.o")),
            (vec![plain("Documentation/x.rst"), comes("Documentation/y.rst")], Ok("")),
            (vec![unseen("a.c")], Ok("a.o")),
            (vec![unseen("include/h.h")], Ok("a.o")),
            (vec![unseen("include/lds.h")], Err("no compile")),
            (vec![comes("include/nobody.h")], Ok("")),
            (vec![comes("drivers/h.h")], Ok("a.o b.o")),
            (vec![comes("drivers/g.h")], Ok("a.o")),
            (vec![comes("drivers/new.h")], Ok("b.o")),
            (vec![comes("drivers/lds.h")], Err("no compile")),
            (vec![comes("drivers/tool.h")], Err("made by make alone")),
            (vec![goes("include/h.h")], Ok("a.o b.o")),
            (vec![goes("drivers/h.h")], Ok("")),
            (vec![goes("include/new.h"), comes("net/new.h")], Ok("b.o")),
            (vec![odd("include/h.h")], Err("comes or goes")),
            (vec![comes("arch/x86/include/asm/h.h")], Err("comes or goes")),
            (vec![comes("new.c")], Err("comes or goes")),
            (vec![goes("a.c")], Err("comes or goes")),
            (vec![plain("include/lds.h")], Err("no compile")),
            (vec![plain("tool.h")], Err("made by make alone")),
            (vec![plain("kernel/Makefile")], Err("more than compiles")),
            (vec![plain("arch/s390/Makefile"), plain("arch/arm/Kconfig"), plain("lib/Kconfig.x")], Ok("")),
            (vec![plain("arch/x86/Makefile")], Err("more than compiles")),
            (vec![comes("lib/Kconfig.x")], Err("more than compiles")),
            (vec![plain("kernel/Kconfig"), plain("a.c")], Ok("a.o kernel/Kconfig")),
            (vec![plain("kernel/Kconfig"), plain("tool.h")], Err("made by make alone")),
        ] {
            // `a.o` has a diagnostic: its lines would have to move.
            let got = reached(&graph, &reverse, &changes, &more, &|unit| &**unit != "a.o");
            match (got, want) {
                (Reached::Units { units, config }, Ok(want)) => {
                    let names = units.keys().map(|unit| &**unit).chain(config.as_deref());
                    let names: Vec<&str> = names.collect();
                    assert_eq!(names.join(" "), want, "{changes:?}");
                }
                (Reached::Structure(why), Err(want)) => assert!(why.contains(want), "{why}"),
                (got, want) => panic!("{changes:?}: {got:?} instead of {want:?}"),
            }
        }
        assert!(reverse.is_read("a.c") && !reverse.is_read("g.h"));
    }
}
