//! Goes over to another configuration where that means nothing but compiles.

use std::collections::BTreeSet;
use std::sync::Arc;

use bombproof_core::plan::reconfigure::{self, Switched};
use bombproof_store::trees::TreeError;

use super::Planner;

impl Planner {
    /// A planner at the same state, from which may be gone on otherwise.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self {
            view: Arc::clone(&self.view),
            reverse: Arc::clone(&self.reverse),
            roots: self.roots.clone(),
            tokens: self.tokens.fork(),
            pairs: self.pairs.clone(),
            generation: self.generation,
            held: Arc::clone(&self.held),
        }
    }

    /// Takes in that these options have other values from the state on that it is at; gives the units for which that means
    /// something. The inner error is why make has to run; the planner cannot go further then.
    ///
    /// # Errors
    /// When sources cannot be read.
    pub fn reconfigure(&mut self, switched: &[Switched]) -> Result<Result<BTreeSet<Arc<str>>, String>, TreeError> {
        if let Err(why) = self.look_for_steps(switched)? {
            return Ok(Err(why));
        }
        let view = &self.view;
        let names = |symbols: &BTreeSet<String>| switched.iter().any(|it| symbols.contains(&it.symbol));
        let changed = |path: &str| view.changed.get(path).map(|version| names(&version.facts.symbols));
        let named = reconfigure::naming(&view.graph, switched, &changed)
            .and_then(|places| Ok((reconfigure::readers(&view.graph, &places)?, places)));
        let (mut units, places) = match named {
            Ok(named) => named,
            Err(why) => return Ok(Err(why)),
        };
        let text = view.sources.content(&view.graph.autoconf)?;
        let text = match reconfigure::autoconf(&String::from_utf8_lossy(&text), switched) {
            Ok(text) => text,
            Err(why) => return Ok(Err(why)),
        };
        let graph = Arc::new(reconfigure::graph(&view.graph, view.sources.keep(text.as_bytes())?));
        for (unit, paths) in &view.more {
            for path in paths {
                let generated = view.graph.generated.get(path);
                let facts = match (path.strip_prefix("src/"), generated) {
                    (Some(source), _) => view.current(source)?.facts,
                    (None, Some(file)) => view.sources.facts(&file.blob)?,
                    (None, None) => continue,
                };
                match names(&facts.symbols) {
                    true if generated.is_some() => return Ok(Err(format!("'{path}' is made with it"))),
                    true => drop(units.insert(Arc::clone(unit))),
                    false => {}
                }
            }
        }
        // Behind a condition that holds now stand includes that led nowhere so far.
        let mut follow = Vec::new();
        for unit in &units {
            let inputs = view.graph.units.get(unit).into_iter().flat_map(|node| &node.inputs);
            for place in inputs.filter(|place| places.contains(place)) {
                let Some(file) = view.graph.files.get(*place as usize) else { continue };
                let changed = file.path.strip_prefix("src/").and_then(|path| view.changed.get(path));
                let facts = match changed {
                    Some(version) => Arc::clone(&version.facts),
                    None => view.sources.facts(&file.file.blob)?,
                };
                if !facts.includes.is_empty() {
                    follow.push((Arc::clone(unit), Arc::clone(&file.path), facts));
                }
            }
        }
        let blobs: Vec<_> = graph.blobs().into_iter().collect();
        self.held = Arc::new(view.sources.hold(&blobs)?);
        self.tokens = self.tokens.under(&text);
        self.view = Arc::new(view.reconfigured(graph, &text));
        self.settle_alike()?;
        for (unit, path, facts) in follow {
            if let Err(why) = self.follow(&unit, &path, &facts.includes)? {
                return Ok(Err(why));
            }
        }
        Ok(Ok(units))
    }

    /// Whether a step that is no compile may do something else: the inner error names the file that says so.
    fn look_for_steps(&mut self, switched: &[Switched]) -> Result<Result<(), String>, TreeError> {
        if !self.view.is_listed() {
            self.view_mut().list()?;
        }
        let view = &self.view;
        let others = &view.graph.others;
        let steers = |path: &&str| reconfigure::may_steer(path, &view.graph.arch) || others.contains(*path);
        let paths: Vec<&str> = view.paths().filter(steers).collect();
        let blobs: Vec<_> = paths.iter().filter_map(|path| view.blob(path).cloned()).collect();
        let versions = view.sources.read(&blobs)?;
        for (path, version) in paths.iter().zip(versions) {
            let content = view.sources.content(&version.blob)?;
            if let Err(what) = reconfigure::is_steered(&content, &version.facts.symbols, switched) {
                return Ok(Err(format!("'{path}' names {what}")));
            }
        }
        Ok(Ok(()))
    }
}
