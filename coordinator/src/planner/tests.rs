//! The planner on a small graph, with trees in memory.

use std::collections::HashMap;
use std::sync::Mutex;

use bombproof_core::action::InputFile;
use bombproof_core::plan::compile::AUTOCONF;
use bombproof_core::plan::graph::{Compile, GraphFile, Node, Table};
use bombproof_core::plan::reconfigure::Switched;
use bombproof_core::tree::Entry;
use bombproof_store::cas::{Cas, MemoryCas};
use bombproof_store::trees::{BlobSink, TreeSource};

use super::*;

type Files = BTreeMap<String, String>;

/// The units of a state with the files that they are given, or why make has to run.
type Said = Result<Vec<(String, Vec<String>)>, String>;

/// Trees and blobs, each under a made-up id.
#[derive(Default)]
struct Trees {
    trees: Mutex<HashMap<Oid, BTreeMap<String, Oid>>>,
    blobs: Mutex<HashMap<Oid, String>>,
}

fn oid(text: &str) -> Oid {
    Oid::parse(Digest::of(text.as_bytes()).to_string().get(..40).unwrap()).unwrap()
}

impl Trees {
    fn add(&self, files: &Files) -> Oid {
        let listing: BTreeMap<String, Oid> = files.iter().map(|(path, text)| (path.clone(), oid(text))).collect();
        self.blobs.lock().unwrap().extend(files.values().map(|text| (oid(text), text.clone())));
        let id = oid(&format!("{files:?}"));
        self.trees.lock().unwrap().insert(id.clone(), listing);
        id
    }
}

impl TreeSource for Trees {
    fn changes(&self, from: Option<&Oid>, to: &Oid) -> Result<Vec<Change>, TreeError> {
        let trees = self.trees.lock().unwrap();
        let (empty, to) = (BTreeMap::new(), &trees[to]);
        let from = from.map_or(&empty, |from| &trees[from]);
        let paths: BTreeSet<&String> =
            from.keys().chain(to.keys()).filter(|path| from.get(*path) != to.get(*path)).collect();
        let entry = |blob: &Oid| Entry { mode: FileMode::Regular, blob: blob.clone() };
        let change = |path: &String| Change {
            path: path.clone(),
            entry: to.get(path).map(entry),
            added: !from.contains_key(path),
        };
        Ok(paths.into_iter().map(change).collect())
    }

    fn blobs(&self, blobs: &[Oid], sink: &mut BlobSink<'_>) -> Result<(), TreeError> {
        let known = self.blobs.lock().unwrap();
        blobs.iter().try_for_each(|blob| sink(blob, known[blob].as_bytes()))
    }
}

fn base() -> Files {
    [
        ("net/a.c", "#include \"own.h\"\n#include <net/shared.h>\n"),
        ("net/b.c", "#include <net/shared.h>\n"),
        ("net/own.h", "int own;\n"),
        ("include/net/shared.h", "int shared;\n"),
        ("include/net/spare.h", "#include <net/deep.h>\nint spare;\n"),
        ("include/net/deep.h", "int deep;\n"),
        ("other/shared.h", "int other;\n"),
    ]
    .map(|(path, text)| (path.to_owned(), text.to_owned()))
    .into()
}

const ROOTS: (&str, &str) = ("/bombproof/src", "/bombproof/out");

/// `a.o` and `b.o`, which look in `include` and, before that, in `early`.
fn graph(files: &Files, cas: &dyn Cas) -> Graph {
    let mut words = Table::default();
    let mut argv = |source: &str| -> Vec<u32> {
        let line = format!("gcc -nostdinc -I{0}/early -I{0}/include -c -o {source}.o {0}/{source}.c", ROOTS.0);
        line.split(' ').map(|word| words.place(word)).collect()
    };
    let argvs = [argv("net/a"), argv("net/b")];
    let mut paths: Vec<&str> = ["include/net/shared.h", "net/a.c", "net/b.c", "net/own.h"].into();
    paths.sort_unstable();
    let file = |path: &&str| GraphFile {
        path: format!("src/{path}").into(),
        file: InputFile { blob: cas.put(files[*path].as_bytes()).unwrap(), executable: false },
        symbols: Vec::new(),
    };
    let node = |argv: &[u32], inputs: &[u32]| Node {
        compile: Some(Compile { argv: argv.to_vec(), depfile: "x.d".to_owned() }),
        inputs: inputs.to_vec(),
        plain: true,
        objtool: None,
        made: None,
        interface: None,
    };
    let autoconf = cas.put(b"").unwrap();
    let header = InputFile { blob: autoconf, executable: false };
    let header = GraphFile { path: AUTOCONF.into(), file: header, symbols: Vec::new() };
    Graph {
        files: std::iter::once(header).chain(paths.iter().map(file)).collect(),
        units: [
            (Arc::from("net/a.o"), node(&argvs[0], &[0, 1, 2, 4])),
            (Arc::from("net/b.o"), node(&argvs[1], &[0, 1, 3])),
        ]
        .into(),
        words: words.into_texts(),
        arch: "x86".to_owned(),
        ..Graph::empty(autoconf)
    }
}

/// A planner on the graph of a state, with its tree.
fn stand(files: &Files) -> (Arc<Trees>, Oid, Planner) {
    let (trees, cas): (Arc<Trees>, Arc<dyn Cas>) = (Arc::default(), Arc::new(MemoryCas::default()));
    let graph = graph(files, &*cas);
    let at = trees.add(files);
    let sources = Arc::new(Sources::new(Arc::clone(&trees) as Arc<dyn TreeSource>, Arc::clone(&cas)));
    let roots = Roots { source: ROOTS.0.to_owned(), output: ROOTS.1.to_owned() };
    let planner = Planner::new(&sources, Arc::new(graph), &at, &Digest::of(b"gcc"), &roots).unwrap();
    (trees, at, planner)
}

/// Goes through states, each given by what it makes of the one before (`None`: the file is removed); gives for each the units
/// with the files that they are given, or why make has to run.
fn go(states: &[&[(&str, Option<&str>)]]) -> Vec<Said> {
    let mut files = base();
    let (trees, mut at, mut planner) = stand(&files);
    let mut said = Vec::new();
    for edits in states {
        for (path, text) in *edits {
            match text {
                Some(text) => files.insert((*path).to_owned(), (*text).to_owned()),
                None => files.remove(*path),
            };
        }
        let to = trees.add(&files);
        let changes = trees.changes(Some(&at), &to).unwrap();
        at = to;
        let planned = planner.advance(&changes, &|_| true).unwrap();
        let stop = planned.is_err();
        said.push(planned.map(|planned| {
            let inputs = |unit: &Unit| {
                let action = unit.action().unwrap();
                action.inputs.keys().filter_map(|it| it.strip_prefix("src/")).map(str::to_owned).collect()
            };
            planned.units.iter().map(|unit| (unit.output.to_string(), inputs(unit))).collect()
        }));
        if stop {
            break;
        }
    }
    said
}

fn units(planned: &Said) -> Vec<(&str, Vec<&str>)> {
    let units = planned.as_ref().unwrap().iter();
    units.map(|(unit, inputs)| (unit.as_str(), inputs.iter().map(String::as_str).collect())).collect()
}

#[test]
fn a_changed_file_reaches_its_readers() {
    let said = go(&[&[("net/own.h", Some("long own;\n"))], &[("other/shared.h", Some("long other;\n"))]]);
    assert_eq!(units(&said[0]), [("net/a.o", vec!["include/net/shared.h", "net/a.c", "net/own.h"])]);
    assert_eq!(units(&said[1]), []);
}

#[test]
fn an_include_that_is_added_is_followed_to_its_end() {
    let said = go(&[&[("net/b.c", Some("#include <net/shared.h>\n#include <net/spare.h>\n"))]]);
    let inputs = vec!["include/net/deep.h", "include/net/shared.h", "include/net/spare.h", "net/b.c"];
    assert_eq!(units(&said[0]), [("net/b.o", inputs)]);
}

#[test]
fn a_header_that_shadows_another_one_is_given_to_all_that_look_for_its_name() {
    let said = go(&[&[("early/net/shared.h", Some("#include <net/deep.h>\nint early;\n"))]]);
    let (a, b) = (&units(&said[0])[0], &units(&said[0])[1]);
    assert_eq!((a.0, b.0), ("net/a.o", "net/b.o"));
    for (_, inputs) in [a, b] {
        assert!(inputs.contains(&"early/net/shared.h") && inputs.contains(&"include/net/deep.h"), "{inputs:?}");
    }
}

#[test]
fn a_header_of_another_name_reaches_nobody() {
    assert_eq!(units(&go(&[&[("early/net/new.h", Some("int x;\n"))]])[0]), []);
}

#[test]
fn a_header_moves_with_its_readers() {
    let said = go(&[
        &[
            ("net/own.h", None),
            ("include/net/own.h", Some("int own;\n")),
            ("net/a.c", Some("#include <net/own.h>\n#include <net/shared.h>\n")),
        ],
        &[("include/net/own.h", Some("long own;\n"))],
    ]);
    for state in &said {
        assert_eq!(units(state), [("net/a.o", vec!["include/net/own.h", "include/net/shared.h", "net/a.c"])]);
    }
}

#[test]
fn where_a_header_goes_the_next_one_of_its_name_is_found() {
    let said = go(&[
        &[("early/net/shared.h", Some("int early;\n"))],
        &[("early/net/shared.h", None)],
        &[("include/net/shared.h", None)],
        &[("include/net/shared.h", Some("int again;\n"))],
    ]);
    let without: Vec<bool> = said.iter().map(|state| units(state)[0].1.contains(&"early/net/shared.h")).collect();
    assert_eq!(without, [true, false, false, false]);
    let shared: Vec<bool> = said.iter().map(|state| units(state)[1].1.contains(&"include/net/shared.h")).collect();
    assert_eq!(shared, [true, true, false, true], "it is not there in the third state: the compile has to say so");
}

#[test]
fn what_is_not_certain_is_for_make() {
    for (edit, why) in [
        (("arch/x86/include/asm/shared.h", Some("int x;\n")), "comes or goes"),
        (("net/new.c", Some("int x;\n")), "comes or goes"),
        (("net/b.c", None), "comes or goes"),
        (("early/net/shared.h", Some("#include NAME\n")), "includes what is not known"),
        (("net/b.c", Some("#if __has_include(<x.h>)\n#endif\n")), "no list names"),
        (("net/Makefile", Some("obj-y += a.o\n")), "more than compiles"),
    ] {
        let said = go(&[&[edit]]);
        assert!(said[0].as_ref().is_err_and(|it| it.contains(why)), "{edit:?}: {:?}", said[0]);
    }
}

#[test]
fn an_option_that_is_switched_on_reaches_those_that_name_it() {
    let files = |edits: &[(&str, &str)]| {
        let mut files = base();
        files.extend(edits.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())));
        files
    };
    let named = ("net/b.c", "#include <net/shared.h>\n#ifdef CONFIG_X\n#include <net/spare.h>\n#endif\n");
    let on = Switched { symbol: "X".to_owned(), before: None, after: Some(true) };
    let ask = |edits: &[(&str, &str)]| {
        let (trees, at, mut planner) = stand(&base());
        let to = trees.add(&files(edits));
        let changes = trees.changes(Some(&at), &to).unwrap();
        // A makefile that comes is for make; here it is there from the beginning, as is what Kconfig reads.
        let changes: Vec<Change> = changes
            .into_iter()
            .filter(|change| !change.path.ends_with("file") && !change.path.ends_with("config"))
            .collect();
        planner.advance(&changes, &|_| true).unwrap().unwrap();
        planner.view_mut().current.extend(files(edits).iter().map(|(path, text)| (path.clone(), Some(oid(text)))));
        let mut fork = planner.fork();
        let reached = fork.reconfigure(std::slice::from_ref(&on)).unwrap();
        let digest = |planner: &Planner, unit: &str| planner.again(&[Arc::from(unit)].into()).unwrap()[0].digest;
        reached.map(|units| {
            let anew = ["net/a.o", "net/b.o"].map(|unit| digest(&planner, unit) != digest(&fork, unit));
            let inputs = fork.again(&units).unwrap().iter().map(|unit| unit.action().unwrap().inputs.len()).collect();
            (units.iter().map(ToString::to_string).collect::<Vec<_>>(), anew, inputs)
        })
    };
    assert_eq!(ask(&[]), Ok((vec![], [false, false], Vec::<usize>::new())), "nobody names it");
    let (units, anew, inputs) = ask(&[named]).unwrap();
    assert_eq!((units, anew), (vec!["net/b.o".to_owned()], [false, true]));
    assert_eq!(inputs, [5], "what stands behind the option can be read now");
    let steered = ask(&[named, ("net/Makefile", "obj-$(CONFIG_X) += x.o\n")]);
    assert_eq!(steered, Err("'net/Makefile' names CONFIG_X".to_owned()));
    assert!(ask(&[named, ("net/Makefile", "obj-$(CONFIG_XY) += x.o\n"), ("net/Kconfig", "CONFIG_X")]).is_ok());
}
