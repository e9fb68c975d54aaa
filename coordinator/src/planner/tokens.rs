//! Whether a compiler sees a difference between two versions of a file, for all compiles of one graph.
//!
//! Where lines move, text after them stays what it was unless it asks for its line. Which names do so is known only when the
//! macros of all files are: they are gathered when the first two versions have to be compared.

use std::collections::HashSet;

use bombproof_core::plan::compile::AUTOCONF;
use bombproof_core::plan::graph::{Graph, Node};
use bombproof_core::source::macros::{Macro, Sensitive, Word, Words, leads_to_line, word};
use bombproof_core::source::{Autoconf, Reduced, reduce};
use bombproof_store::trees::TreeError;

use super::sources::{Sources, Version};

/// The file in which the macros that ask for options are defined.
const KCONFIG: &str = "src/include/linux/kconfig.h";

/// What is known of the texts of a graph.
pub(super) struct Tokens {
    autoconf: Autoconf,
    all: Option<Gathered>,
}

/// The macros and words of all files.
#[derive(Default)]
struct Gathered {
    config: Autoconf,
    macros: Vec<Macro>,
    words: Words,
    /// Below the input root: files whose macros are not known.
    refused: HashSet<String>,
    /// Of a command: then nothing can be told.
    doubtful: bool,
    sensitive: Sensitive,
    /// `sensitive` is not that of all macros yet.
    is_old: bool,
    generation: u64,
    /// Names of files that the assembler reads as they are: it has other comments, and no conditions of the preprocessor.
    assembled: HashSet<String>,
}

impl Tokens {
    /// Under the configuration of this `autoconf.h`.
    pub(super) fn new(autoconf: &str) -> Self {
        Self { autoconf: Autoconf::read(autoconf), all: None }
    }

    /// Whether two versions of a file are the same to every compiler. A version that is not brings its own macros.
    pub(super) fn same(
        &mut self,
        sources: &Sources,
        graph: &Graph,
        path: &str,
        (old, new): (&Version, &Version),
    ) -> Result<bool, TreeError> {
        let (before, after) = (sources.content(&old.blob)?, sources.content(&new.blob)?);
        // Most versions differ in what is compiled; that is seen without the other files.
        let quick = |text: &[u8]| reduce(text, &self.autoconf);
        let differ = match (quick(&before), quick(&after)) {
            (Ok(before), Ok(after)) => before.text() != after.text(),
            _ => true,
        };
        if differ && self.all.is_none() {
            return Ok(false);
        }
        if self.all.is_none() {
            self.all = Some(Gathered::of(sources, graph, &self.autoconf)?);
        }
        let Some(all) = &mut self.all else { return Ok(false) };
        all.assembled.extend([old, new].into_iter().flat_map(|version| version.facts.assembler.iter().cloned()));
        if all.assembled.iter().any(|name| path.ends_with(name.trim_start_matches(['.', '/']))) {
            return Ok(false);
        }
        let reduced = [&before, &after].map(|text| reduce(text, &all.config));
        let [Ok(before), Ok(after)] = reduced else {
            all.refused.insert(format!("src/{path}"));
            return Ok(false);
        };
        if before.text() != after.text() {
            all.take(&after);
            return Ok(false);
        }
        if all.doubtful {
            return Ok(false);
        }
        let sensitive = all.sensitive();
        Ok(before.with_lines(sensitive) == after.with_lines(sensitive))
    }

    /// Counts how often words were found to lead to a line that did not before: what was compared earlier was compared
    /// under other rules.
    pub(super) fn generation(&self) -> u64 {
        self.all.as_ref().map_or(0, |all| all.generation)
    }

    /// Whether a unit reads a file whose macros are not known, or does not read the configuration.
    pub(super) fn is_doubtful(&self, graph: &Graph, node: &Node) -> bool {
        let Some(all) = &self.all else { return true };
        let refused = !all.refused.is_empty() && graph.inputs(node).any(|file| all.refused.contains(&*file.path));
        refused || !graph.inputs(node).any(|file| *file.path == *AUTOCONF)
    }
}

impl Gathered {
    fn of(sources: &Sources, graph: &Graph, autoconf: &Autoconf) -> Result<Self, TreeError> {
        // A command that sets an option itself leaves it open as well.
        let options = graph.words.iter().filter_map(|word| word.strip_prefix("-D").or_else(|| word.strip_prefix("-U")));
        let names = options.map(|option| option.split('=').next().unwrap_or_default().to_owned());
        let mut assembled = HashSet::new();
        let mut redefined: HashSet<String> = names.filter(|name| name.starts_with("CONFIG_")).collect();
        for file in graph.files.iter().filter(|file| *file.path != *KCONFIG && *file.path != *AUTOCONF) {
            let facts = sources.facts(&file.file.blob)?;
            redefined.extend(facts.redefines.iter().cloned());
            assembled.extend(facts.assembler.iter().cloned());
        }
        let mut all = Self { config: autoconf.clone().doubting(&redefined), assembled, ..Self::default() };
        for file in &graph.files {
            match reduce(&sources.content(&file.file.blob)?, &all.config) {
                Ok(reduced) => all.take(&reduced),
                Err(_) => drop(all.refused.insert(file.path.to_string())),
            }
        }
        for option in graph.words.iter().filter_map(|word| word.strip_prefix("-D")) {
            match Macro::of_option(option) {
                Ok(it) => all.macros.push(it),
                Err(_) => all.doubtful = true,
            }
        }
        // Values of macros of the command line are words too.
        for text in &graph.words {
            let parts = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
            all.words.extend(parts.filter(|part| !part.is_empty()).map(|part| word(part.as_bytes())));
        }
        Ok(all)
    }

    fn take(&mut self, reduced: &Reduced) {
        self.macros.extend(reduced.macros().iter().cloned());
        self.words.extend(reduced.words().iter().copied());
        self.is_old = true;
    }

    fn sensitive(&mut self) -> &Sensitive {
        if self.is_old {
            let is_word = |it: Word| self.words.contains(&it);
            let now = leads_to_line(&self.macros.iter().collect::<Vec<_>>(), &is_word);
            if now != self.sensitive {
                self.sensitive = now;
                self.generation += 1;
            }
            self.is_old = false;
        }
        &self.sensitive
    }
}
