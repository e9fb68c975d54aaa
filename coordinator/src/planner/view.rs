//! A state as its compiles see it: the graph of an earlier state, and what is different since.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bombproof_core::action::{Action, InputFile, InputTree};
use bombproof_core::digest::{BlobDigest, Digest};
use bombproof_core::id::Oid;
use bombproof_core::plan::alike::{Alike, Version};
use bombproof_core::plan::compile::{self, AUTOCONF};
use bombproof_core::plan::graph::{Graph, Node};
use bombproof_core::source::{Chosen, Options};
use bombproof_store::trees::TreeError;

use super::Unit;
use super::sources::Sources;

/// The program of `objtool` runs, below the input root.
const OBJTOOL: &str = "out/tools/objtool/objtool";

/// One state. A copy holds most in common with what it is a copy of.
#[derive(Clone)]
pub(super) struct View {
    pub(super) sources: Arc<Sources>,
    pub(super) graph: Arc<Graph>,
    /// Files of the source tree that are not what they were in the graph's state.
    pub(super) changed: BTreeMap<String, Version>,
    /// Every file that changed since, read by a unit or not, as it is now; `None`: it is gone.
    pub(super) current: BTreeMap<String, Option<Oid>>,
    /// What units may read beside what the graph says, below the input root.
    pub(super) more: BTreeMap<Arc<str>, BTreeSet<String>>,
    pub(super) alike: Alike,
    toolchain: Digest,
    options: Arc<Words>,
    /// The tree of the graph's state.
    tree: Oid,
    /// Every path of that tree; read when it is needed first.
    listing: Option<Arc<BTreeMap<String, Oid>>>,
}

/// The configuration, and which of its lines each word of the graph is.
struct Words {
    options: Options,
    lines: Vec<Box<[u32]>>,
}

impl Words {
    fn new(graph: &Graph, autoconf: &str) -> Self {
        let options = Options::read(autoconf);
        let lines = graph.words.iter().map(|word| options.lines(word).into()).collect();
        Self { options, lines }
    }
}

/// The files of a compile.
struct Inputs {
    files: InputTree,
    /// The part of the configuration that they name, if it is read.
    autoconf: Option<String>,
}

impl View {
    /// The state of the graph itself, under its configuration.
    pub(super) fn new(
        sources: &Arc<Sources>,
        graph: Arc<Graph>,
        tree: &Oid,
        toolchain: &Digest,
        autoconf: &str,
    ) -> Self {
        Self {
            sources: Arc::clone(sources),
            alike: Alike::new(graph.autoconf),
            toolchain: *toolchain,
            options: Arc::new(Words::new(&graph, autoconf)),
            tree: tree.clone(),
            listing: None,
            graph,
            changed: BTreeMap::new(),
            current: BTreeMap::new(),
            more: BTreeMap::new(),
        }
    }

    /// The same state under another configuration; the graph differs from the one before in nothing else.
    pub(super) fn reconfigured(&self, graph: Arc<Graph>, autoconf: &str) -> Self {
        Self {
            alike: Alike::new(graph.autoconf),
            options: Arc::new(Words::new(&graph, autoconf)),
            graph,
            ..self.clone()
        }
    }

    /// The version of a file in the graph's state, if a unit reads it.
    pub(super) fn in_graph(&self, path: &str) -> Result<Option<Version>, TreeError> {
        let input = format!("src/{path}");
        // The table of files is sorted by path.
        let place = self.graph.files.binary_search_by(|file| (*file.path).cmp(input.as_str()));
        let Some(file) = place.ok().and_then(|place| self.graph.files.get(place)) else { return Ok(None) };
        let blob = file.file.blob;
        Ok(Some(Version { blob, facts: self.sources.facts(&blob)? }))
    }

    /// Whether every path of the tree is known.
    pub(super) fn is_listed(&self) -> bool {
        self.listing.is_some()
    }

    /// Reads which paths there are.
    pub(super) fn list(&mut self) -> Result<(), TreeError> {
        let all = self.sources.trees().changes(None, &self.tree)?;
        let blobs = all.into_iter().filter_map(|change| Some((change.path, change.entry?.blob)));
        self.listing = Some(Arc::new(blobs.collect()));
        Ok(())
    }

    /// Whether there is a file, a path below the input root; nothing is there as long as the tree is not listed.
    pub(super) fn is_there(&self, place: &str) -> bool {
        match place.strip_prefix("src/") {
            Some(source) => self.blob(source).is_some(),
            None => self.graph.generated.contains_key(place),
        }
    }

    /// Every path that there is; the tree has to be listed.
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        let listed =
            self.listing.iter().flat_map(|listing| listing.keys()).filter(|path| !self.current.contains_key(*path));
        let current = self.current.iter().filter(|(_, blob)| blob.is_some()).map(|(path, _)| path);
        listed.chain(current).map(String::as_str)
    }

    /// The content of a path, if it is there.
    pub(super) fn blob(&self, path: &str) -> Option<&Oid> {
        match self.current.get(path) {
            Some(blob) => blob.as_ref(),
            None => self.listing.as_ref().and_then(|listing| listing.get(path)),
        }
    }

    /// The present version of any file.
    pub(super) fn current(&self, path: &str) -> Result<Version, TreeError> {
        let missing = || TreeError::Unreadable { detail: format!("'{path}' is not in the tree") };
        let blob = self.blob(path).ok_or_else(missing)?;
        Ok(self.sources.read(std::slice::from_ref(blob))?.swap_remove(0))
    }

    /// Whether the object of a unit tells lines of its files apart.
    pub(super) fn has_debug(&self, unit: &str) -> bool {
        let Some(Node { compile: Some(compile), .. }) = self.graph.units.get(unit) else { return true };
        let words = compile.argv.iter().filter_map(|word| self.graph.words.get(*word as usize));
        compile::keeps_lines(words.map(|word| &**word))
    }

    /// What a unit needs, as its files are now.
    pub(super) fn unit(self: &Arc<Self>, output: &Arc<str>, because: String) -> Result<Option<Unit>, TreeError> {
        let Some(node) = self.graph.units.get(output) else { return Ok(None) };
        let Some(compile) = &node.compile else { return Ok(None) };
        let inputs = self.inputs(output, node, None)?;
        let is_alike = !self.alike.is_empty() && {
            let argv = self.graph.command(&compile.argv);
            let contents = inputs.files.iter().filter(|(path, _)| *path != AUTOCONF).map(|(_, file)| file.blob);
            inputs.files.values().any(|file| self.alike.first(&file.blob).is_some())
                && self.alike.covers(&compile::manifest_key(&argv, &self.toolchain), contents)
        };
        let digest = |inputs: Inputs| {
            let autoconf = inputs.autoconf.as_ref().map(|text| BlobDigest::of(text.as_bytes()));
            bombproof_proto::reapi::digest(&self.compile(output, compile, inputs.files, autoconf))
        };
        let alike = match is_alike {
            true => Some(digest(self.inputs(output, node, Some(&self.alike))?)),
            false => None,
        };
        Ok(Some(Unit {
            output: Arc::clone(output),
            because,
            digest: digest(inputs),
            alike,
            plain: node.plain,
            view: Arc::clone(self),
        }))
    }

    /// The compile of a unit, with everything that it reads in the store.
    pub(super) fn action(&self, output: &Arc<str>) -> Result<Option<Action>, TreeError> {
        let Some(node) = self.graph.units.get(output) else { return Ok(None) };
        let Some(compile) = &node.compile else { return Ok(None) };
        let inputs = self.inputs(output, node, None)?;
        let autoconf = inputs.autoconf.map(|text| self.sources.keep(text.as_bytes())).transpose()?;
        Ok(Some(self.compile(output, compile, inputs.files, autoconf)))
    }

    fn compile(
        &self,
        output: &Arc<str>,
        compile: &bombproof_core::plan::graph::Compile,
        files: InputTree,
        autoconf: Option<BlobDigest>,
    ) -> Action {
        let outputs = vec![output.to_string(), compile.depfile.clone()];
        let autoconf = autoconf.map(|blob| InputFile { blob, executable: false });
        compile::action(self.graph.command(&compile.argv), outputs, files, autoconf, &self.toolchain)
    }

    /// The `objtool` run that follows the compile of a unit, on the object that it made.
    pub(super) fn objtool(&self, output: &Arc<str>) -> Option<impl FnOnce(BlobDigest) -> Action + Send + 'static> {
        let words = self.graph.units.get(output)?.objtool.as_ref()?;
        let (argv, program) = (self.graph.command(words), self.graph.objtool?);
        let (toolchain, output) = (self.toolchain, output.to_string());
        Some(move |object: BlobDigest| {
            let object = InputFile { blob: object, executable: false };
            let inputs = [(OBJTOOL.to_owned(), program), (format!("out/{output}"), object)].into();
            compile::action(argv, vec![output], inputs, None, &toolchain)
        })
    }

    /// The files of the source tree that these units read.
    pub(super) fn read_by<'a>(&self, units: impl Iterator<Item = &'a Arc<str>>) -> BTreeSet<Arc<str>> {
        let mut places: BTreeSet<&u32> = BTreeSet::new();
        let mut read = BTreeSet::new();
        for output in units {
            places.extend(self.graph.units.get(output).into_iter().flat_map(|node| &node.inputs));
            let more = self.more.get(output).into_iter().flatten();
            read.extend(more.filter_map(|path| path.strip_prefix("src/")).map(Arc::from));
        }
        let files = places.into_iter().filter_map(|place| self.graph.files.get(*place as usize));
        read.extend(files.filter_map(|file| file.path.strip_prefix("src/")).map(Arc::from));
        read.retain(|path| !self.is_gone(path));
        read
    }

    fn is_gone(&self, path: &str) -> bool {
        self.current.get(path) == Some(&None)
    }

    /// The files of a unit as they are now, or those that stand for them; and the configuration as far as they name it.
    fn inputs(&self, output: &Arc<str>, node: &Node, alike: Option<&Alike>) -> Result<Inputs, TreeError> {
        let mut files = InputTree::new();
        let mut chosen = Chosen::default();
        let words = &self.options;
        let mut take = |path: &str, file: InputFile, version: Option<&Version>, known: &[u32]| {
            let first = alike.and_then(|alike| alike.first(&file.blob));
            if path != AUTOCONF {
                match first.map(|first| &first.facts).or(version.map(|version| &version.facts)) {
                    Some(facts) => facts.symbols.iter().for_each(|symbol| chosen.add(words.options.lines(symbol))),
                    None => known.iter().filter_map(|it| words.lines.get(*it as usize)).for_each(|it| chosen.add(it)),
                }
            }
            let blob = first.map_or(file.blob, |first| first.blob);
            files.insert(path.to_owned(), InputFile { blob, ..file });
        };
        for file in self.graph.inputs(node) {
            let source = file.path.strip_prefix("src/").filter(|_| !self.current.is_empty());
            if source.is_some_and(|path| self.is_gone(path)) {
                continue;
            }
            let changed = source.and_then(|path| self.changed.get(path));
            let content = match changed {
                Some(version) => InputFile { blob: version.blob, executable: file.file.executable },
                None => file.file,
            };
            take(&file.path, content, changed, &file.symbols);
        }
        for path in self.more.get(output).into_iter().flatten() {
            let version = match path.strip_prefix("src/") {
                Some(source) if self.is_gone(source) => continue,
                Some(source) => self.current(source)?,
                None => match self.graph.generated.get(path) {
                    Some(file) => Version { blob: file.blob, facts: self.sources.facts(&file.blob)? },
                    None => continue,
                },
            };
            take(path, InputFile { blob: version.blob, executable: false }, Some(&version), &[]);
        }
        let autoconf = files.contains_key(AUTOCONF).then(|| words.options.text(&chosen));
        Ok(Inputs { files, autoconf })
    }
}
