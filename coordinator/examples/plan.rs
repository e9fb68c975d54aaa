//! Times the planning of a long series on a graph as large as that of an `allmodconfig` kernel, and says how much memory it took.
//!
//! `plan FOLDER STATES UNITS` makes a graph of that many units, each of which reads some seven hundred files, keeps it as a run does,
//! reads it again and plans a series of patches on it: most change one source, some a header of a driver or of a subsystem, and
//! one a header that everything reads. Used by `scripts/bench-plan`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bombproof_coordinator::planner::Planner;
use bombproof_coordinator::planner::sources::Sources;
use bombproof_core::action::InputFile;
use bombproof_core::digest::{BlobDigest, Digest};
use bombproof_core::id::Oid;
use bombproof_core::kbuild::roots::Roots;
use bombproof_core::plan::compile::AUTOCONF;
use bombproof_core::plan::graph::{Compile, Graph, GraphFile, Node, Table};
use bombproof_core::tree::{Change, Entry, FileMode};
use bombproof_store::cas::{Cas, DiskCas};
use bombproof_store::graphs::{FileGraphs, Graphs};
use bombproof_store::results::ResultKey;
use bombproof_store::trees::{BlobSink, TreeError, TreeSource};

/// Headers that every unit reads.
const COMMON: usize = 350;
/// Headers that a unit reads beside these: those of its subsystem and of its driver.
const OF_SUBSYSTEM: usize = 340;
const OF_DRIVER: usize = 10;
/// Units of a subsystem, and of a driver.
const SUBSYSTEM: usize = 700;
const DRIVER: usize = 14;
/// Symbols of the configuration.
const SYMBOLS: usize = 9000;

type Failed = Box<dyn std::error::Error>;

/// New versions of files, each under the id of its text.
#[derive(Default)]
struct Later(Mutex<HashMap<Oid, String>>);

impl Later {
    fn add(&self, text: String) -> Result<Oid, Failed> {
        let id = Digest::of(text.as_bytes()).to_string().chars().take(40).collect::<String>();
        let id = Oid::parse(&id).map_err(|error| format!("{error:?}"))?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), text);
        Ok(id)
    }
}

impl TreeSource for Later {
    fn changes(&self, _: Option<&Oid>, _: &Oid) -> Result<Vec<Change>, TreeError> {
        Err(TreeError::Unreadable { detail: "no tree of this series is listed".to_owned() })
    }

    fn blobs(&self, blobs: &[Oid], sink: &mut BlobSink<'_>) -> Result<(), TreeError> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        blobs.iter().try_for_each(|blob| match known.get(blob) {
            Some(text) => sink(blob, text.as_bytes()),
            None => Err(TreeError::Missing { oid: blob.to_string(), detail: "never made".to_owned() }),
        })
    }
}

fn source(unit: usize) -> String {
    format!("drivers/part-{}/driver-{}/file-{unit}.c", unit / SUBSYSTEM, unit / DRIVER)
}

fn common(number: usize) -> String {
    format!("include/linux/common-{number}.h")
}

fn of_subsystem(unit: usize, number: usize) -> String {
    format!("include/net/part-{}/header-{number}.h", unit / SUBSYSTEM)
}

fn of_driver(unit: usize, number: usize) -> String {
    format!("drivers/part-{}/driver-{}/header-{number}.h", unit / SUBSYSTEM, unit / DRIVER)
}

/// The text of a file in one of its versions: as long as a short header, with macros and conditions.
fn text(path: &str, version: usize) -> String {
    let name: String = path.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let mut text = format!("#ifndef {name}_\n#define {name}_\nint {name}_{version};\n");
    let number = path.bytes().fold(0_usize, |sum, byte| (sum * 31 + usize::from(byte)) % SYMBOLS);
    for line in 0..16 {
        let symbol = (number + line * 577) % SYMBOLS;
        text.push_str(&format!(
            "#ifdef CONFIG_SYMBOL_{symbol}\n#define {name}_{line}(it) ((it)->field_{line} + {line})\n#else\nstatic inline int {name}_{line}(int it)\n{{\n\treturn it;\n}}\n#endif\n"
        ));
    }
    text.push_str("#endif\n");
    text
}

fn graph(units: usize, cas: &dyn Cas) -> Result<Graph, Failed> {
    let mut paths: Vec<String> = (0..COMMON).map(common).collect();
    for unit in (0..units).step_by(SUBSYSTEM) {
        paths.extend((0..OF_SUBSYSTEM).map(|number| of_subsystem(unit, number)));
    }
    for unit in (0..units).step_by(DRIVER) {
        paths.extend((0..OF_DRIVER).map(|number| of_driver(unit, number)));
    }
    paths.extend((0..units).map(source));
    let autoconf: String = (0..SYMBOLS).map(|symbol| format!("#define CONFIG_SYMBOL_{symbol} 1\n")).collect();
    let autoconf = cas.put(autoconf.as_bytes())?;
    let mut words = Table::default();
    let mut files = vec![GraphFile {
        path: Arc::from(AUTOCONF),
        file: InputFile { blob: autoconf, executable: false },
        symbols: Vec::new(),
    }];
    for path in paths {
        let text = text(&path, 0);
        let mut symbols: Vec<u32> = text
            .lines()
            .filter_map(|line| line.strip_prefix("#ifdef CONFIG_"))
            .map(|symbol| words.place(symbol))
            .collect();
        symbols.sort_unstable();
        let blob = cas.put(text.as_bytes())?;
        files.push(GraphFile {
            path: Arc::from(format!("src/{path}")),
            file: InputFile { blob, executable: false },
            symbols,
        });
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
    let places: HashMap<Arc<str>, u32> =
        (0..).zip(&files).map(|(place, file)| (Arc::clone(&file.path), place)).collect();
    let place = |path: String| places.get(&*format!("src/{path}")).copied();
    let mut nodes = std::collections::BTreeMap::new();
    for unit in 0..units {
        let output = source(unit).replace(".c", ".o");
        let depfile = format!("{output}.d");
        let line = format!(
            "gcc -Wp,-MMD,{depfile} -nostdinc -I/bombproof/src/include -include /bombproof/src/include/linux/kconfig.h {} -O2 -c -o {output} /bombproof/src/{}",
            (0..50).map(|flag| format!("-fflag-{flag}")).collect::<Vec<_>>().join(" "),
            source(unit)
        );
        let mut inputs: Vec<u32> = (0..COMMON)
            .map(common)
            .chain((0..OF_SUBSYSTEM).map(|number| of_subsystem(unit, number)))
            .chain((0..OF_DRIVER).map(|number| of_driver(unit, number)))
            .chain([source(unit)])
            .filter_map(place)
            .chain(places.get(AUTOCONF).copied())
            .collect();
        inputs.sort_unstable();
        let compile = Compile { argv: line.split(' ').map(|word| words.place(word)).collect(), depfile };
        let made = Some(BlobDigest::of(output.as_bytes()));
        let node = Node { compile: Some(compile), inputs, plain: true, objtool: None, made, interface: None };
        nodes.insert(Arc::from(output), node);
    }
    Ok(Graph { files, units: nodes, words: words.into_texts(), arch: "x86".to_owned(), ..Graph::empty(autoconf) })
}

/// What the patch of a state changes: seven of ten one source, two a source and a header of its driver, the tenth one of its
/// subsystem.
fn changed(state: usize, states: usize, units: usize) -> Vec<String> {
    let unit = (state * 7919) % units;
    match state % 10 {
        _ if state == states / 2 => vec![common(state % COMMON)],
        0 => vec![source(unit), of_subsystem(unit, state % OF_SUBSYSTEM)],
        1 | 2 => vec![source(unit), of_driver(unit, state % OF_DRIVER)],
        _ => vec![source(unit)],
    }
}

/// The most memory that the process held so far, in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default() / 1024
}

fn say(what: &str, since: Instant) {
    let line = format!("| {what} | {} | {} |\n", since.elapsed().as_millis(), peak());
    let _ = std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes());
}

fn fill(folder: &Path, units: usize) -> Result<(), Failed> {
    let cas = DiskCas::at(folder.join("cas")).durable(false);
    let graph = Arc::new(graph(units, &cas)?);
    let began = Instant::now();
    FileGraphs::at(folder.join("graphs")).put(&key()?, &graph)?;
    say("the graph is written", began);
    Ok(())
}

fn key() -> Result<ResultKey, Failed> {
    Ok(ResultKey::new(&Digest::of(b"target"), &Oid::parse(&"0".repeat(40)).map_err(|error| format!("{error:?}"))?))
}

fn plan(folder: &Path, states: usize, units: usize) -> Result<(), Failed> {
    let began = Instant::now();
    let graph =
        FileGraphs::at(folder.join("graphs")).get(&key()?)?.ok_or("there is no graph: fill the folder first")?;
    say("the graph is read", began);
    let later = Arc::new(Later::default());
    let cas: Arc<dyn Cas> = Arc::new(DiskCas::at(folder.join("cas")).durable(false));
    let sources = Arc::new(Sources::new(Arc::clone(&later) as Arc<dyn TreeSource>, cas));
    let roots = Roots { source: "/bombproof/src".to_owned(), output: "/bombproof/out".to_owned() };
    let began = Instant::now();
    let tree = Oid::parse(&"0".repeat(40)).map_err(|error| format!("{error:?}"))?;
    let mut planner = Planner::new(&sources, graph, &tree, &Digest::of(b"gcc"), &roots)?;
    say("the planner stands on it", began);
    let (mut narrow, mut compiles, began) = (0, 0, Instant::now());
    let mut wide = None;
    for state in 1..=states {
        let paths = changed(state, states, units);
        let mut changes = Vec::new();
        for path in paths {
            let blob = later.add(text(&path, state))?;
            changes.push(Change { path, entry: Some(Entry { mode: FileMode::Regular, blob }), added: false });
        }
        let started = Instant::now();
        let planned = planner.advance(&changes, &|_| true)?.map_err(|why| format!("state {state}: {why}"))?;
        if state == states / 2 {
            wide = Some((planned.units.len(), started.elapsed()));
            say("up to the patch that everything reads, with it", began);
        } else {
            (narrow, compiles) = (narrow + 1, compiles + planned.units.len());
        }
    }
    say(&format!("{narrow} states, {compiles} compiles, and the one that everything reads"), began);
    if let Some((units, took)) = wide {
        let line = format!("| of it the one that everything reads, {units} compiles | {} | |\n", took.as_millis());
        std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes())?;
    }
    Ok(())
}

fn main() -> Result<(), Failed> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [what, folder, states, units] = &args[..] else { return Err("plan fill|plan FOLDER STATES UNITS".into()) };
    let (folder, states, units) = (PathBuf::from(folder), states.parse()?, units.parse()?);
    match what.as_str() {
        "fill" => fill(&folder, units),
        "plan" => plan(&folder, states, units),
        other => Err(format!("'{other}' is neither fill nor plan").into()),
    }
}
