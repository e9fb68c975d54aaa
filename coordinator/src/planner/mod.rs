//! Plans states: which compiles a state needs, each as an action, from the action graph of an earlier state.
//!
//! A planner stands on the graph of one state and goes forward, state by state, as long as changes reach nothing but compiles.
//! What it does not understand is for make to say, with the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bombproof_core::action::{Action, InputFile, InputTree};
use bombproof_core::digest::{BlobDigest, Digest};
use bombproof_core::id::Oid;
use bombproof_core::kbuild::reach::{self, Reach};
use bombproof_core::kbuild::roots::Roots;
use bombproof_core::plan::affected::{Changed, Kind, Reached, Reverse, reached};
use bombproof_core::plan::alike::{Alike, Version};
use bombproof_core::plan::compile::{self, AUTOCONF};
use bombproof_core::plan::graph::{Graph, Node};
use bombproof_core::source::project;
use bombproof_core::tree::{Change, FileMode};
use bombproof_store::cas::PinGuard;
use bombproof_store::trees::TreeError;

mod includes;
pub mod sources;
#[cfg(test)]
mod tests;
mod tokens;

use sources::Sources;
use tokens::Tokens;

/// The program of `objtool` runs, below the input root.
const OBJTOOL: &str = "out/tools/objtool/objtool";

/// A compile that a state needs.
#[derive(Clone, Debug)]
pub struct Unit {
    /// Its output below the build folder.
    pub output: Arc<str>,
    /// The changed file that it reads.
    pub because: String,
    /// The compile.
    pub action: Arc<Action>,
    /// The identity of the compile.
    pub digest: BlobDigest,
    /// The identity of the same compile of the files that these are like, if there are any; it gives the same object.
    pub alike: Option<BlobDigest>,
    /// The words of the `objtool` run that follows.
    pub objtool: Option<Vec<String>>,
    /// Its object goes into an archive or a module as it is. Of any other, only an unchanged object is understood.
    pub plain: bool,
}

/// What a state needs.
#[derive(Clone, Debug, Default)]
pub struct Planned {
    /// The compiles.
    pub units: Vec<Unit>,
    /// Units that read what changed, but in whose compile nothing changes that a compiler sees. `true`: their objects hold
    /// debug information, and its lines moved.
    pub settled: BTreeMap<Arc<str>, bool>,
    /// A file that Kconfig reads: all this holds if the configuration comes out the same.
    pub config: Option<String>,
}

/// Goes forward from the state of a graph.
pub struct Planner {
    sources: Arc<Sources>,
    graph: Arc<Graph>,
    reverse: Reverse,
    roots: Roots,
    toolchain: Digest,
    autoconf: String,
    /// The tree of the graph's state.
    tree: Oid,
    /// Every path of that tree; read when it is needed first.
    listing: Option<BTreeMap<String, Oid>>,
    /// Files of the source tree that are not what they were in the graph's state.
    changed: BTreeMap<String, Version>,
    /// Every file that changed since, read by a unit or not, as it is now; `None`: it is gone.
    current: BTreeMap<String, Option<Oid>>,
    /// What units may read beside what the graph says, below the input root.
    more: BTreeMap<Arc<str>, BTreeSet<String>>,
    tokens: Tokens,
    alike: Alike,
    /// The pairs of versions that are the same, by path, in the order in which they came.
    pairs: Vec<(String, Version, Version)>,
    /// Of the tokens, when the first of the classes was found.
    generation: u64,
    /// No eviction takes what the graph names.
    _held: PinGuard,
}

impl Planner {
    /// Stands on the graph of a state with this tree.
    ///
    /// # Errors
    /// When a blob of the graph is gone from the store.
    pub fn new(
        sources: &Arc<Sources>,
        graph: Arc<Graph>,
        tree: &Oid,
        toolchain: &Digest,
        roots: &Roots,
    ) -> Result<Self, TreeError> {
        let blobs: Vec<BlobDigest> = graph.blobs().into_iter().collect();
        let held = sources.hold(&blobs)?;
        let autoconf = sources.content(&graph.autoconf)?;
        let autoconf = String::from_utf8_lossy(&autoconf).into_owned();
        Ok(Self {
            sources: Arc::clone(sources),
            reverse: Reverse::of(&graph),
            roots: roots.clone(),
            toolchain: *toolchain,
            tokens: Tokens::new(&autoconf, toolchain),
            alike: Alike::new(graph.autoconf),
            pairs: Vec::new(),
            generation: 0,
            graph,
            autoconf,
            tree: tree.clone(),
            listing: None,
            changed: BTreeMap::new(),
            current: BTreeMap::new(),
            more: BTreeMap::new(),
            _held: held,
        })
    }

    /// The graph that it stands on.
    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// Versions of files that were found to be alike on the way.
    pub fn alike(&self) -> &Alike {
        &self.alike
    }

    /// Goes on to the next state, which differs by these changes; `holds` says of a unit whether what is known of it holds
    /// when only lines moved. The inner error is why make has to run; the planner cannot go further then.
    ///
    /// # Errors
    /// When sources cannot be read.
    pub fn advance(
        &mut self,
        changes: &[Change],
        holds: &dyn Fn(&str) -> bool,
    ) -> Result<Result<Planned, String>, TreeError> {
        // An include that one file gains may lead to another one that changes with it, or that nobody read so far.
        self.take_in(changes)?;
        let mut seen: Vec<Changed<'_>> = Vec::new();
        let mut settled = BTreeMap::new();
        for change in changes {
            let kind = match regular(change) {
                Some(_) if change.added => Kind::Comes,
                Some(_) => Kind::Changes,
                None if change.entry.is_none() => Kind::Goes,
                None => Kind::Odd,
            };
            let mut unseen = false;
            if let (Some(blob), Kind::Changes, Reach::Units) = (regular(change), kind, reach::of(&change.path)) {
                match self.replace(&change.path, blob)? {
                    Ok(same) => unseen = same,
                    Err(why) => return Ok(Err(why)),
                }
            }
            if unseen {
                for unit in self.reverse.readers(&change.path).filter(|unit| self.may_hold(unit, holds)) {
                    settled.insert(Arc::clone(unit), self.has_debug(unit));
                }
            }
            seen.push(Changed { path: &change.path, kind, unseen });
        }
        for change in seen.iter().filter(|change| matches!(change.kind, Kind::Comes | Kind::Goes)) {
            if reach::is_plain_header(change.path)
                && let Err(why) = self.look_again(change)?
            {
                return Ok(Err(why));
            }
        }
        let reached = reached(&self.graph, &self.reverse, &seen, &self.more, &|unit| self.may_hold(unit, holds));
        let (units, config) = match reached {
            Reached::Structure(why) => return Ok(Err(why)),
            Reached::Units { units, config } => (units, config),
        };
        settled.retain(|unit, _| !units.contains_key(unit));
        let mut planned = Planned { units: Vec::with_capacity(units.len()), settled, config };
        for (output, because) in units {
            match self.unit(&output, because)? {
                Some(unit) => planned.units.push(unit),
                None => return Ok(Err(format!("'{output}' is made by make alone"))),
            }
        }
        Ok(Ok(planned))
    }

    /// Plans these units once more, as they are now.
    ///
    /// # Errors
    /// As [`Planner::advance`].
    pub fn again(&self, outputs: &BTreeSet<Arc<str>>) -> Result<Vec<Unit>, TreeError> {
        let units = outputs.iter().map(|output| self.unit(output, String::new()));
        units.filter_map(Result::transpose).collect()
    }

    /// Takes in what a state has and what its texts say.
    fn take_in(&mut self, changes: &[Change]) -> Result<(), TreeError> {
        for change in changes {
            let blob = regular(change).cloned();
            if let Some(listing) = &mut self.listing {
                match &blob {
                    Some(blob) => listing.insert(change.path.clone(), blob.clone()),
                    None => listing.remove(&change.path),
                };
            }
            if let Some(blob) = blob.as_ref().filter(|_| is_text_of_compiles(&change.path)) {
                let version = self.sources.read(std::slice::from_ref(blob))?.swap_remove(0);
                self.tokens.take(&self.sources, &change.path, &version)?;
            }
            self.current.insert(change.path.clone(), blob);
        }
        self.settle_alike()
    }

    /// Takes in a new version of a file. Gives whether no compiler sees a difference, or why make has to run.
    fn replace(&mut self, path: &str, blob: &Oid) -> Result<Result<bool, String>, TreeError> {
        let input = format!("src/{path}");
        let since = self.more.iter().filter(|(_, paths)| paths.contains(&input)).map(|(unit, _)| unit);
        let readers: BTreeSet<Arc<str>> = self.reverse.readers(path).chain(since).cloned().collect();
        if readers.is_empty() {
            return Ok(Ok(false));
        }
        let new = self.sources.read(std::slice::from_ref(blob))?.swap_remove(0);
        let old = match self.changed.get(path) {
            Some(version) => Some(version.clone()),
            None => self.in_graph(path)?,
        };
        self.changed.insert(path.to_owned(), new.clone());
        if let Some(why) = new.facts.reads_unknown() {
            return Ok(Err(format!("'{path}' reads files that no list names ({why})")));
        }
        let Some(old) = old else { return Ok(Ok(false)) };
        if new.facts.assembler != old.facts.assembler {
            return Ok(Err(format!("'{path}' has the assembler include something else")));
        }
        let added: Vec<_> = new.facts.includes.iter().filter(|it| !old.facts.includes.contains(it)).cloned().collect();
        if new.facts.computed_includes && !old.facts.computed_includes {
            return Ok(Err(format!("'{path}' includes what a macro names")));
        }
        for unit in readers.iter().filter(|_| !added.is_empty()) {
            if let Err(why) = self.follow(unit, &input, &added)? {
                return Ok(Err(why));
            }
        }
        let same = self.tokens.same(&self.sources, &self.graph, path, (&old, &new))?;
        if same {
            self.pairs.push((path.to_owned(), old, new));
        }
        if self.tokens.generation() != self.generation {
            self.settle_alike()?;
        } else {
            self.alike.stand_on(self.tokens.proof());
            if let (true, Some((_, old, new))) = (same, self.pairs.last()) {
                self.alike.add(old, new.blob);
            }
        }
        Ok(Ok(same))
    }

    /// Compares again what was the same under the old rules, where other words count now.
    fn settle_alike(&mut self) -> Result<(), TreeError> {
        while self.tokens.generation() != self.generation {
            self.generation = self.tokens.generation();
            self.alike = Alike::new(self.graph.autoconf);
            for (path, old, new) in std::mem::take(&mut self.pairs) {
                if self.tokens.same(&self.sources, &self.graph, &path, (&old, &new))? {
                    self.pairs.push((path, old, new));
                }
            }
            self.pairs.iter().for_each(|(_, old, new)| self.alike.add(old, new.blob));
        }
        self.alike.stand_on(self.tokens.proof());
        Ok(())
    }

    /// Whether a unit need not be compiled when its files only changed in what no compiler sees. What it may read beside
    /// what the graph says is not known well enough for that.
    fn may_hold(&self, unit: &Arc<str>, holds: &dyn Fn(&str) -> bool) -> bool {
        holds(unit) && !self.more.contains_key(unit) && !self.tokens.is_doubtful(&self.graph, unit)
    }

    /// The version of a file in the graph's state, if a unit reads it.
    fn in_graph(&self, path: &str) -> Result<Option<Version>, TreeError> {
        let input = format!("src/{path}");
        // The table of files is sorted by path.
        let place = self.graph.files.binary_search_by(|file| (*file.path).cmp(input.as_str()));
        let Some(file) = place.ok().and_then(|place| self.graph.files.get(place)) else { return Ok(None) };
        let blob = file.file.blob;
        Ok(Some(Version { blob, facts: self.sources.facts(&blob)? }))
    }

    /// Whether the object of a unit holds line numbers for a debugger.
    pub fn has_debug(&self, unit: &str) -> bool {
        let Some(Node { compile: Some(compile), .. }) = self.graph.units.get(unit) else { return true };
        let words = compile.argv.iter().filter_map(|word| self.graph.words.get(*word as usize));
        words.into_iter().any(|word| word.starts_with("-g") && &**word != "-g0")
    }

    /// The compile of a unit, as its files are now.
    fn unit(&self, output: &Arc<str>, because: String) -> Result<Option<Unit>, TreeError> {
        let Some(node) = self.graph.units.get(output) else { return Ok(None) };
        let Some(compile) = &node.compile else { return Ok(None) };
        let outputs = vec![output.to_string(), compile.depfile.clone()];
        let argv = self.graph.command(&compile.argv);
        let (inputs, autoconf) = self.inputs(output, node, None)?;
        let command = compile::manifest_key(&argv, &self.toolchain);
        let contents = inputs.iter().filter(|(path, _)| *path != AUTOCONF).map(|(_, file)| file.blob);
        let alike = match inputs.values().any(|file| self.alike.first(&file.blob).is_some()) {
            true if self.alike.covers(&command, contents) => {
                let (inputs, autoconf) = self.inputs(output, node, Some(&self.alike))?;
                let action = compile::action(argv.clone(), outputs.clone(), inputs, autoconf, &self.toolchain);
                Some(bombproof_proto::reapi::digest(&action))
            }
            true | false => None,
        };
        let action = compile::action(argv, outputs, inputs, autoconf, &self.toolchain);
        let digest = bombproof_proto::reapi::digest(&action);
        let objtool = node.objtool.as_ref().map(|words| self.graph.command(words));
        Ok(Some(Unit {
            output: Arc::clone(output),
            because,
            action: Arc::new(action),
            digest,
            alike,
            objtool,
            plain: node.plain,
        }))
    }

    /// The files of a unit as they are now, or those that stand for them; and the configuration as far as they name it.
    fn inputs(
        &self,
        output: &Arc<str>,
        node: &Node,
        alike: Option<&Alike>,
    ) -> Result<(InputTree, Option<InputFile>), TreeError> {
        let mut inputs = InputTree::new();
        let mut symbols: BTreeSet<String> = BTreeSet::new();
        let mut take = |path: &str, file: InputFile, version: Option<&Version>, known: &[u32]| {
            let first = alike.and_then(|alike| alike.first(&file.blob));
            if path != AUTOCONF {
                match first.map(|first| &first.facts).or(version.map(|version| &version.facts)) {
                    Some(facts) => symbols.extend(facts.symbols.iter().cloned()),
                    None => symbols.extend(self.graph.command(known)),
                }
            }
            let blob = first.map_or(file.blob, |first| first.blob);
            inputs.insert(path.to_owned(), InputFile { blob, ..file });
        };
        for file in self.graph.inputs(node) {
            if file.path.strip_prefix("src/").is_some_and(|path| self.current.get(path) == Some(&None)) {
                continue;
            }
            let changed = file.path.strip_prefix("src/").and_then(|path| self.changed.get(path));
            let content = match changed {
                Some(version) => InputFile { blob: version.blob, executable: file.file.executable },
                None => file.file,
            };
            take(&file.path, content, changed, &file.symbols);
        }
        for path in self.more.get(output).into_iter().flatten() {
            if path.strip_prefix("src/").is_some_and(|path| self.current.get(path) == Some(&None)) {
                continue;
            }
            let version = match path.strip_prefix("src/") {
                Some(source) => self.current(source)?,
                None => match self.graph.generated.get(path) {
                    Some(file) => Version { blob: file.blob, facts: self.sources.facts(&file.blob)? },
                    None => continue,
                },
            };
            take(path, InputFile { blob: version.blob, executable: false }, Some(&version), &[]);
        }
        let autoconf = match inputs.contains_key(AUTOCONF) {
            true => {
                let text = project(&self.autoconf, &symbols);
                Some(InputFile { blob: self.sources.keep(text.as_bytes())?, executable: false })
            }
            false => None,
        };
        Ok((inputs, autoconf))
    }

    /// The present version of any file.
    fn current(&self, path: &str) -> Result<Version, TreeError> {
        let missing = || TreeError::Unreadable { detail: format!("'{path}' is not in the tree") };
        let listed = || self.listing.as_ref().and_then(|listing| listing.get(path));
        let blob = match self.current.get(path) {
            Some(blob) => blob.as_ref(),
            None => listed(),
        };
        let blob = blob.ok_or_else(missing)?;
        Ok(self.sources.read(std::slice::from_ref(blob))?.swap_remove(0))
    }

    /// The `objtool` run that follows a compile, on the object that it made.
    pub fn objtool(&self, unit: &Unit) -> Option<impl FnOnce(BlobDigest) -> Action + Send + 'static> {
        let argv = unit.objtool.clone()?;
        let (program, toolchain, output) = (self.graph.objtool?, self.toolchain, unit.output.to_string());
        Some(move |object: BlobDigest| {
            let object = InputFile { blob: object, executable: false };
            let inputs = [(OBJTOOL.to_owned(), program), (format!("out/{output}"), object)].into();
            compile::action(argv, vec![output], inputs, None, &toolchain)
        })
    }
}

/// The blob of a change after which a path is a file.
fn regular(change: &Change) -> Option<&Oid> {
    let regular = |mode| matches!(mode, FileMode::Regular | FileMode::Executable);
    change.entry.as_ref().filter(|entry| regular(entry.mode)).map(|entry| &entry.blob)
}

/// Whether compiles may read a file of this name.
fn is_text_of_compiles(path: &str) -> bool {
    let other = ["Documentation/", "tools/testing/", "LICENSES/"].iter().any(|folder| path.starts_with(folder));
    let name = path.rsplit('/').next().unwrap_or(path);
    let text = [".rst", ".txt", ".yaml", ".json", ".py", ".sh", ".dts"].iter().any(|ending| name.ends_with(ending));
    !other && !text && name.contains('.')
}
