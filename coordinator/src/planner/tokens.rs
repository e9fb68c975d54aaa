//! Whether a compiler sees a difference between two versions of a file, for all compiles of one graph.
//!
//! What the graph's files and all later versions define is gathered when the first two versions have to be compared.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use bombproof_core::digest::{BlobDigest, Digest};
use bombproof_core::plan::alike::{Proof, Version};
use bombproof_core::plan::compile::{self, AUTOCONF};
use bombproof_core::plan::graph::Graph;
use bombproof_core::source::macros::Sensitive;
use bombproof_core::source::texts::{set_by, understands};
use bombproof_core::source::{Autoconf, SearchPath, Texts, reduce};
use bombproof_store::trees::TreeError;

use super::sources::Sources;

/// The file in which the macros that ask for options are defined; the configuration is read through it.
const KCONFIG: &str = "include/linux/kconfig.h";

/// What is known of the texts of a graph.
pub(super) struct Tokens {
    autoconf: Autoconf,
    toolchain: Digest,
    /// Versions of files of the source tree that came after the graph.
    later: BTreeMap<String, BTreeSet<BlobDigest>>,
    /// Names of the configuration that such versions define.
    redefined: BTreeSet<String>,
    /// Names of files that the assembler reads as they are: it has other comments, and no conditions of the preprocessor.
    assembled: BTreeSet<String>,
    all: Option<Gathered>,
    /// The words that led to a line when versions were compared last.
    sensitive: Sensitive,
    generation: u64,
    /// What was gathered.
    proof: Arc<Proof>,
}

/// The macros and words of all files.
struct Gathered {
    texts: Texts,
    /// Units of whose files nothing can be told.
    doubtful: HashSet<Arc<str>>,
    /// Files that are read before the configuration is, as commands name them.
    early: BTreeSet<String>,
}

impl Tokens {
    /// Under the configuration of this `autoconf.h`.
    pub(super) fn new(autoconf: &str, toolchain: &Digest) -> Self {
        let autoconf = Autoconf::read(autoconf);
        Self {
            autoconf,
            toolchain: *toolchain,
            later: BTreeMap::new(),
            redefined: BTreeSet::new(),
            assembled: BTreeSet::new(),
            all: None,
            sensitive: Sensitive::default(),
            generation: 0,
            proof: Arc::default(),
        }
    }

    /// The same; what was gathered is gathered again when it is needed.
    pub(super) fn fork(&self) -> Self {
        Self {
            autoconf: self.autoconf.clone(),
            toolchain: self.toolchain,
            later: self.later.clone(),
            redefined: self.redefined.clone(),
            assembled: self.assembled.clone(),
            all: None,
            sensitive: self.sensitive.clone(),
            generation: self.generation,
            proof: Arc::clone(&self.proof),
        }
    }

    /// The same under another configuration: nothing that was compared holds.
    pub(super) fn under(&self, autoconf: &str) -> Self {
        Self {
            autoconf: Autoconf::read(autoconf),
            sensitive: Sensitive::default(),
            generation: self.generation + 1,
            proof: Arc::default(),
            ..self.fork()
        }
    }

    /// Takes in a version of a file that a compile may read from now on.
    pub(super) fn take(&mut self, sources: &Sources, path: &str, version: &Version) -> Result<(), TreeError> {
        let new = self.later.entry(path.to_owned()).or_default().insert(version.blob);
        let Some(all) = self.all.as_mut().filter(|_| new) else { return Ok(()) };
        Arc::make_mut(&mut self.proof).contents.insert(version.blob);
        all.texts.take(&format!("src/{path}"), &sources.content(&version.blob)?);
        self.assembled.extend(version.facts.assembler.iter().cloned());
        self.doubt(&version.facts.redefines);
        self.look_at_words();
        Ok(())
    }

    /// What was decided by these names of the configuration is open from now on.
    fn doubt<'a>(&mut self, redefined: impl IntoIterator<Item = &'a String>) {
        for name in redefined {
            if self.redefined.insert(name.clone()) {
                self.all = None;
                self.generation += 1;
            }
        }
    }

    fn look_at_words(&mut self) {
        let Some(all) = &mut self.all else { return };
        if *all.texts.sensitive() != self.sensitive {
            self.sensitive = all.texts.sensitive().clone();
            self.generation += 1;
        }
    }

    /// What the comparisons look at.
    pub(super) fn proof(&self) -> &Arc<Proof> {
        &self.proof
    }

    /// Whether two versions of a file are the same to every compiler. Every version that any unit reads has to pass here.
    pub(super) fn same(
        &mut self,
        sources: &Sources,
        graph: &Graph,
        path: &str,
        (old, new): (&Version, &Version),
    ) -> Result<bool, TreeError> {
        self.later.entry(path.to_owned()).or_default().extend([old.blob, new.blob]);
        self.doubt(&new.facts.redefines);
        self.assembled.extend([old, new].into_iter().flat_map(|version| version.facts.assembler.iter().cloned()));
        let (before, after) = (sources.content(&old.blob)?, sources.content(&new.blob)?);
        if self.all.is_none() {
            // Most versions differ in what is compiled; that is seen without the other files.
            let quick = |text: &[u8]| reduce(text, &self.autoconf);
            let differ = match (quick(&before), quick(&after)) {
                (Ok(before), Ok(after)) => before.text() != after.text(),
                _ => true,
            };
            if differ {
                return Ok(false);
            }
            self.all = Some(self.gather(sources, graph)?);
        }
        Arc::make_mut(&mut self.proof).contents.extend([old.blob, new.blob]);
        let Some(all) = &mut self.all else { return Ok(false) };
        let same = all.texts.same(&format!("src/{path}"), &before, &after);
        self.look_at_words();
        let Some(all) = &self.all else { return Ok(false) };
        let assembled = self.assembled.iter().any(|name| path.ends_with(name.trim_start_matches(['.', '/'])));
        Ok(same && !assembled && !all.early.iter().any(|name| name.ends_with(path)))
    }

    /// Counts how often the rules changed under which versions are compared: what was the same before may not be now.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether nothing can be told of the files of a unit: one is not understood, or the configuration is not read first.
    pub(super) fn is_doubtful(&self, graph: &Graph, unit: &str) -> bool {
        let (Some(all), Some(node)) = (&self.all, graph.units.get(unit)) else { return true };
        let refused = all.texts.refuses_any() && graph.inputs(node).any(|file| all.texts.refuses(&file.path));
        refused || all.doubtful.contains(unit)
    }

    fn gather(&mut self, sources: &Sources, graph: &Graph) -> Result<Gathered, TreeError> {
        // A command that sets an option itself leaves it open as well.
        let words = || graph.words.iter().map(|word| &**word);
        let mut redefined: HashSet<String> = set_by(words()).map(str::to_owned).collect();
        redefined.extend(self.redefined.iter().cloned());
        for file in &graph.files {
            if file.path.strip_prefix("src/") != Some(KCONFIG) && *file.path != *AUTOCONF {
                redefined.extend(sources.facts(&file.file.blob)?.redefines.iter().cloned());
            }
        }
        let mut texts = Texts::new(self.autoconf.clone().doubting(&redefined));
        let mut proof = Proof::default();
        for file in &graph.files {
            proof.contents.insert(file.file.blob);
            texts.take(&file.path, &sources.content(&file.file.blob)?);
            self.assembled.extend(sources.facts(&file.file.blob)?.assembler.iter().cloned());
        }
        for (path, blobs) in &self.later {
            for blob in blobs {
                texts.take(&format!("src/{path}"), &sources.content(blob)?);
                proof.contents.insert(*blob);
            }
        }
        let plain = texts.command(words());
        let mut all = Gathered { texts, doubtful: HashSet::new(), early: BTreeSet::new() };
        for (unit, node) in &graph.units {
            let argv = node.compile.as_ref().map(|compile| graph.command(&compile.argv)).unwrap_or_default();
            proof.commands.insert(compile::manifest_key(&argv, &self.toolchain));
            let forced = SearchPath::of(&argv).forced;
            // `kconfig.h` itself counts: what stands in it before it reads the configuration does not know that.
            let early = forced.iter().position(|name| name.ends_with(KCONFIG)).and_then(|place| forced.get(..=place));
            let reads = graph.inputs(node).any(|file| *file.path == *AUTOCONF);
            match early {
                Some(early) if plain && reads && understands(&argv) => all.early.extend(early.iter().cloned()),
                Some(_) | None => drop(all.doubtful.insert(Arc::clone(unit))),
            }
        }
        // An early file that reads others makes these early too.
        for file in graph.files.iter().filter(|file| !file.path.ends_with(KCONFIG)) {
            let path = file.path.strip_prefix("src/").unwrap_or(&file.path);
            let is_early = all.early.iter().any(|name| name.ends_with(path));
            if is_early && !sources.facts(&file.file.blob)?.includes.is_empty() {
                all.doubtful.extend(graph.units.keys().cloned());
            }
        }
        self.proof = Arc::new(proof);
        Ok(all)
    }
}
