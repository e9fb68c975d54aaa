//! The action graph of a state: every unit of a build, with its command, what it reads and what follows it.
//!
//! It is read off a build that went through. It holds for later states as long as the structure of the build is the same:
//! no makefile, no configuration, no generated file, no set of files changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::action::InputFile;
use crate::digest::BlobDigest;
use crate::kbuild::interface::Interface;

/// A word or a path, by its place in the graph's table.
pub type Index = u32;

/// The action graph of one state on one target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graph {
    /// Every file that a unit reads, as it was in this state.
    pub files: Vec<GraphFile>,
    /// Every header that was generated, read or not, by path below the input root.
    pub generated: BTreeMap<String, InputFile>,
    /// The program of `objtool` runs.
    pub objtool: Option<InputFile>,
    /// Words of commands.
    pub words: Vec<Arc<str>>,
    /// The units, by output below the build folder.
    pub units: BTreeMap<Arc<str>, Node>,
    /// Units that are made after the image was linked, and may hold what it is like: what packs it, what its size is in.
    pub late: BTreeSet<Arc<str>>,
    /// Files of the source tree that other steps name: linker scripts, generators, host programs.
    pub others: BTreeSet<String>,
    /// Files of the source tree that Kconfig read; empty where that is not known.
    pub kconfig: BTreeSet<String>,
    /// The folder of the architecture, in `arch/`.
    pub arch: String,
    /// The objects of each module, by its `.mod` file.
    pub modules: BTreeMap<String, Vec<String>>,
    /// `include/generated/autoconf.h`.
    pub autoconf: BlobDigest,
    /// `System.map`, where the image was linked.
    pub system_map: Option<BlobDigest>,
    /// `Module.symvers`, where modules were made.
    pub symvers: Option<BlobDigest>,
}

/// A file of a graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraphFile {
    /// Below the input root: `src/...` or `out/...`.
    pub path: Arc<str>,
    /// Its content.
    pub file: InputFile,
    /// The configuration symbols that its text mentions.
    pub symbols: Vec<Index>,
}

/// One unit of a graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its command; `None`: it is not understood well enough to be run outside of make.
    pub compile: Option<Compile>,
    /// What it reads, generated files included; sorted. Without a command only files of the source tree.
    pub inputs: Vec<Index>,
    /// It goes into an archive or a module as it is, and nothing but `objtool` follows the compile.
    pub plain: bool,
    /// The words of the `objtool` run that follows the compile.
    pub objtool: Option<Vec<Index>>,
    /// What the compile itself made, before anything that follows.
    pub made: Option<BlobDigest>,
    /// What a link sees of the object as it was in this state.
    pub interface: Option<Interface>,
}

/// The compile of a unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compile {
    /// Its words.
    pub argv: Vec<Index>,
    /// The dependency list that it writes, below the build folder.
    pub depfile: String,
}

impl Graph {
    /// A graph without units, under the configuration of this `autoconf.h`.
    pub fn empty(autoconf: BlobDigest) -> Self {
        Self {
            files: Vec::new(),
            generated: BTreeMap::new(),
            objtool: None,
            words: Vec::new(),
            units: BTreeMap::new(),
            late: BTreeSet::new(),
            others: BTreeSet::new(),
            kconfig: BTreeSet::new(),
            arch: String::new(),
            modules: BTreeMap::new(),
            autoconf,
            system_map: None,
            symvers: None,
        }
    }

    /// The words of a command.
    pub fn command(&self, words: &[Index]) -> Vec<String> {
        words.iter().filter_map(|word| self.words.get(*word as usize)).map(|word| word.to_string()).collect()
    }

    /// The files that a node reads.
    pub fn inputs<'a>(&'a self, node: &'a Node) -> impl Iterator<Item = &'a GraphFile> {
        node.inputs.iter().filter_map(|input| self.files.get(*input as usize))
    }

    /// Every content that planning from here may need.
    pub fn blobs(&self) -> BTreeSet<BlobDigest> {
        let files = self.files.iter().map(|file| file.file.blob);
        let others = self.generated.values().chain(&self.objtool).map(|file| file.blob);
        let texts = [Some(self.autoconf), self.system_map, self.symvers].into_iter().flatten();
        files.chain(others).chain(texts).collect()
    }

    /// Whether all places point into the tables: a stored graph is not believed blindly.
    pub fn is_whole(&self) -> bool {
        let word = |index: &Index| (*index as usize) < self.words.len();
        let files = self.files.iter().flat_map(|file| &file.symbols).all(word);
        files
            && self.units.values().all(|node| {
                node.inputs.iter().all(|input| (*input as usize) < self.files.len())
                    && node.compile.iter().flat_map(|compile| &compile.argv).all(word)
                    && node.objtool.iter().flatten().all(word)
            })
    }
}

/// Gives each distinct text one place in a table.
#[derive(Debug, Default)]
pub struct Table {
    texts: Vec<Arc<str>>,
    places: HashMap<Arc<str>, Index>,
}

impl Table {
    /// The place of a text.
    pub fn place(&mut self, text: &str) -> Index {
        if let Some(known) = self.places.get(text) {
            return *known;
        }
        let place = Index::try_from(self.texts.len()).unwrap_or(Index::MAX);
        let text: Arc<str> = Arc::from(text);
        self.texts.push(Arc::clone(&text));
        self.places.insert(text, place);
        place
    }

    /// All texts, in the order of their places.
    pub fn into_texts(self) -> Vec<Arc<str>> {
        self.texts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_that_points_nowhere_is_not_whole() {
        let mut words = Table::default();
        let argv = vec![words.place("gcc"), words.place("-c"), words.place("gcc")];
        assert_eq!(argv, [0, 1, 0]);
        let file = InputFile { blob: BlobDigest::of(b""), executable: false };
        let node = Node {
            compile: Some(Compile { argv, depfile: ".a.o.d".to_owned() }),
            inputs: vec![0],
            plain: true,
            objtool: None,
            made: None,
            interface: None,
        };
        let graph = Graph {
            files: vec![GraphFile { path: Arc::from("src/a.c"), file, symbols: vec![1] }],
            generated: BTreeMap::new(),
            objtool: None,
            words: words.into_texts(),
            units: [(Arc::from("a.o"), node)].into(),
            late: BTreeSet::new(),
            others: BTreeSet::new(),
            kconfig: BTreeSet::new(),
            arch: "x86".to_owned(),
            modules: BTreeMap::new(),
            autoconf: BlobDigest::of(b""),
            system_map: None,
            symvers: None,
        };
        assert!(graph.is_whole());
        let text = serde_json::to_string(&graph).unwrap();
        assert_eq!(serde_json::from_str::<Graph>(&text).unwrap(), graph);
        let mut broken = graph.clone();
        broken.files.clear();
        assert!(!broken.is_whole());
        let mut broken = graph;
        broken.words.pop();
        assert!(!broken.is_whole());
    }
}
