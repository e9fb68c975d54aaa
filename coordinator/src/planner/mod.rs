//! Plans states: which compiles a state needs, each as an action, from the action graph of an earlier state.
//!
//! A planner stands on the graph of one state and goes forward, state by state, as long as changes reach nothing but compiles.
//! What it does not understand is for make to say, with the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bombproof_core::action::Action;
use bombproof_core::digest::{BlobDigest, Digest};
use bombproof_core::id::Oid;
use bombproof_core::kbuild::reach::{self, Reach};
use bombproof_core::kbuild::roots::Roots;
use bombproof_core::plan::affected::{Changed, Kind, Reached, Reverse, reached};
use bombproof_core::plan::alike::{Alike, Version};
use bombproof_core::plan::graph::Graph;
use bombproof_core::tree::{Change, FileMode};
use bombproof_store::cas::PinGuard;
use bombproof_store::trees::TreeError;

mod includes;
mod options;
pub mod sources;
#[cfg(test)]
mod tests;
mod tokens;
mod view;

use sources::Sources;
use tokens::Tokens;
use view::View;

/// A compile that a state needs.
#[derive(Clone)]
pub struct Unit {
    /// Its output below the build folder.
    pub output: Arc<str>,
    /// The changed file that it reads.
    pub because: String,
    /// The identity of the compile.
    pub digest: BlobDigest,
    /// The identity of the same compile of the files that these are like, if there are any; it gives the same object.
    pub alike: Option<BlobDigest>,
    /// Its object goes into an archive or a module as it is. Of any other, only an unchanged object is understood.
    pub plain: bool,
    /// What it sees. The action itself names some hundred files: it is made when it is to run, and most never run.
    view: Arc<View>,
}

impl Unit {
    /// The compile, with everything that it reads in the store.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn action(&self) -> Result<Action, TreeError> {
        let action = self.view.action(&self.output)?;
        action.ok_or_else(|| TreeError::Unreadable { detail: format!("'{}' is in no graph", self.output) })
    }

    /// The `objtool` run that follows the compile, on the object that it made.
    pub fn objtool(&self) -> Option<impl FnOnce(BlobDigest) -> Action + Send + 'static> {
        self.view.objtool(&self.output)
    }
}

/// What a state needs.
#[derive(Clone, Default)]
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
    /// The state that it is at.
    view: Arc<View>,
    reverse: Arc<Reverse>,
    roots: Roots,
    tokens: Tokens,
    /// The pairs of versions that are the same, by path, in the order in which they came.
    pairs: Vec<(String, Version, Version)>,
    /// Of the tokens, when the first of the classes was found.
    generation: u64,
    /// No eviction takes what the graph names.
    held: Arc<PinGuard>,
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
            reverse: Arc::new(Reverse::of(&graph)),
            roots: roots.clone(),
            tokens: Tokens::new(&autoconf, toolchain),
            pairs: Vec::new(),
            generation: 0,
            view: Arc::new(View::new(sources, graph, tree, toolchain, &autoconf)),
            held: Arc::new(held),
        })
    }

    /// The graph that it stands on.
    pub fn graph(&self) -> &Arc<Graph> {
        &self.view.graph
    }

    /// Versions of files that were found to be alike on the way.
    pub fn alike(&self) -> &Alike {
        &self.view.alike
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
                    settled.insert(Arc::clone(unit), self.view.has_debug(unit));
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
        let view = &self.view;
        let reached = reached(&view.graph, &self.reverse, &seen, &view.more, &|unit| self.may_hold(unit, holds));
        let (units, config) = match reached {
            Reached::Structure(why) => return Ok(Err(why)),
            Reached::Units { units, config } => (units, config),
        };
        settled.retain(|unit, _| !units.contains_key(unit));
        let mut planned = Planned { units: Vec::with_capacity(units.len()), settled, config };
        for (output, because) in units {
            match self.view.unit(&output, because)? {
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
        let units = outputs.iter().map(|output| self.view.unit(output, String::new()));
        units.filter_map(Result::transpose).collect()
    }

    /// The files of the source tree that these units read, as they are now.
    pub fn read_by<'a>(&self, units: impl IntoIterator<Item = &'a Arc<str>>) -> BTreeSet<Arc<str>> {
        self.view.read_by(units.into_iter())
    }

    /// Whether the object of a unit holds line numbers for a debugger.
    pub fn has_debug(&self, unit: &str) -> bool {
        self.view.has_debug(unit)
    }

    /// The state that it is at, to be changed; units that were planned keep theirs.
    fn view_mut(&mut self) -> &mut View {
        Arc::make_mut(&mut self.view)
    }

    /// Takes in what a state has and what its texts say.
    fn take_in(&mut self, changes: &[Change]) -> Result<(), TreeError> {
        for change in changes {
            let blob = regular(change).cloned();
            if let Some(blob) = blob.as_ref().filter(|_| is_text_of_compiles(&change.path)) {
                let version = self.view.sources.read(std::slice::from_ref(blob))?.swap_remove(0);
                self.tokens.take(&self.view.sources, &change.path, &version)?;
            }
            self.view_mut().current.insert(change.path.clone(), blob);
        }
        self.settle_alike()
    }

    /// Takes in a new version of a file. Gives whether no compiler sees a difference, or why make has to run.
    fn replace(&mut self, path: &str, blob: &Oid) -> Result<Result<bool, String>, TreeError> {
        let input = format!("src/{path}");
        let since = self.view.more.iter().filter(|(_, paths)| paths.contains(&input)).map(|(unit, _)| unit);
        let readers: BTreeSet<Arc<str>> = self.reverse.readers(path).chain(since).cloned().collect();
        if readers.is_empty() {
            return Ok(Ok(false));
        }
        let new = self.view.sources.read(std::slice::from_ref(blob))?.swap_remove(0);
        let old = match self.view.changed.get(path) {
            Some(version) => Some(version.clone()),
            None => self.view.in_graph(path)?,
        };
        self.view_mut().changed.insert(path.to_owned(), new.clone());
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
        let same = self.tokens.same(&self.view.sources, &self.view.graph, path, (&old, &new))?;
        if same {
            self.pairs.push((path.to_owned(), old, new));
        }
        if self.tokens.generation() != self.generation {
            self.settle_alike()?;
        } else {
            let alike = &mut Arc::make_mut(&mut self.view).alike;
            alike.stand_on(self.tokens.proof());
            if let (true, Some((_, old, new))) = (same, self.pairs.last()) {
                alike.add(old, new.blob);
            }
        }
        Ok(Ok(same))
    }

    /// Compares again what was the same under the old rules, where other words count now.
    fn settle_alike(&mut self) -> Result<(), TreeError> {
        while self.tokens.generation() != self.generation {
            self.generation = self.tokens.generation();
            let mut alike = Alike::new(self.view.graph.autoconf);
            for (path, old, new) in std::mem::take(&mut self.pairs) {
                if self.tokens.same(&self.view.sources, &self.view.graph, &path, (&old, &new))? {
                    self.pairs.push((path, old, new));
                }
            }
            self.pairs.iter().for_each(|(_, old, new)| alike.add(old, new.blob));
            self.view_mut().alike = alike;
        }
        let alike = &mut Arc::make_mut(&mut self.view).alike;
        alike.stand_on(self.tokens.proof());
        Ok(())
    }

    /// Whether a unit need not be compiled when its files only changed in what no compiler sees. What it may read beside
    /// what the graph says is not known well enough for that.
    fn may_hold(&self, unit: &Arc<str>, holds: &dyn Fn(&str) -> bool) -> bool {
        holds(unit) && !self.view.more.contains_key(unit) && !self.tokens.is_doubtful(&self.view.graph, unit)
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
