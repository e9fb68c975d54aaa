//! Follows include directives that a patch adds: what a compile may read beside what it is known to read.
//!
//! Whatever an include may mean in any branch is added, so that the compile finds what it looks for; that it is given more than it
//! reads does no harm. What is not found at all is left to the compiler to say.

use std::collections::BTreeSet;
use std::sync::Arc;

use bombproof_core::plan::affected::{Changed, Kind, readers};
use bombproof_core::plan::compile;
use bombproof_core::source::{Facts, Include, SearchPath};
use bombproof_store::trees::TreeError;

use super::Planner;
use super::view::View;

impl Planner {
    /// Takes in that a header comes or goes: where includes of its name lead now, for every unit that looks for one. The inner error
    /// is why make has to run.
    pub(super) fn look_again(&mut self, change: &Changed<'_>) -> Result<Result<(), String>, TreeError> {
        let units = readers(&self.view.graph, &self.reverse, change, &self.view.more);
        let name = change.path.rsplit('/').next().unwrap_or(change.path);
        if change.kind == Kind::Comes && self.reverse.is_read(change.path) {
            // It was there in the state of the graph, and comes back.
            let version = self.view.current(change.path)?;
            self.view_mut().changed.insert(change.path.to_owned(), version);
        }
        for unit in units {
            // What it reads is no longer what the graph says: no cutting off for it from here on.
            self.view_mut().more.entry(Arc::clone(&unit)).or_default();
            for (path, includes) in self.view.includers(&unit, name)? {
                if let Err(why) = self.follow(&unit, &path, &includes)? {
                    return Ok(Err(why));
                }
            }
        }
        Ok(Ok(()))
    }

    /// Takes in that a file which a unit reads (a path below the input root) has these includes, which may lead to files that the
    /// unit did not read so far. The inner error is why make has to run.
    pub(super) fn follow(
        &mut self,
        unit: &Arc<str>,
        path: &str,
        added: &[Include],
    ) -> Result<Result<(), String>, TreeError> {
        let graph = Arc::clone(&self.view.graph);
        let Some(node) = graph.units.get(unit) else { return Ok(Ok(())) };
        let Some(compile) = &node.compile else { return Ok(Ok(())) };
        if !self.view.is_listed() {
            self.view_mut().list()?;
        }
        let search = SearchPath::of(&graph.command(&compile.argv));
        let below = |folder: &String| compile::input(&self.roots, &self.roots.output, folder);
        let angle: Vec<String> = search.angle.iter().filter_map(below).collect();
        let quote: Vec<String> = search.quote.iter().filter_map(below).chain(angle.iter().cloned()).collect();
        let mut known: BTreeSet<String> = graph.inputs(node).map(|file| file.path.to_string()).collect();
        known.extend(self.view.more.get(unit).into_iter().flatten().cloned());
        let mut found: BTreeSet<String> = BTreeSet::new();
        let mut open: Vec<(String, Include)> = added.iter().map(|include| (path.to_owned(), include.clone())).collect();
        while let Some((from, include)) = open.pop() {
            let own = from.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
            let folders = if include.quoted { &quote } else { &angle };
            let places = Some(own).filter(|_| include.quoted).into_iter().chain(folders.iter().cloned());
            let places = places.map(|folder| join(&folder, &include.name)).filter(|place| self.view.is_there(place));
            // `include_next` goes on behind the file's own folder.
            let places: Vec<String> = if include.next { places.collect() } else { places.take(1).collect() };
            for place in places {
                if known.contains(&place) || !found.insert(place.clone()) {
                    continue;
                }
                let facts = match place.strip_prefix("src/") {
                    Some(source) => self.view.current(source)?.facts,
                    None => match graph.generated.get(&place) {
                        Some(file) => self.view.sources.facts(&file.blob)?,
                        None => continue,
                    },
                };
                if facts.computed_includes || facts.reads_unknown().is_some() || !facts.assembler.is_empty() {
                    return Ok(Err(format!("'{place}', newly included, includes what is not known")));
                }
                open.extend(facts.includes.iter().map(|include| (place.clone(), include.clone())));
            }
        }
        for path in found.iter().filter_map(|path| path.strip_prefix("src/")) {
            let version = self.view.current(path)?;
            self.tokens.take(&self.view.sources, path, &version)?;
        }
        self.settle_alike()?;
        if !found.is_empty() {
            self.view_mut().more.entry(Arc::clone(unit)).or_default().extend(found);
        }
        Ok(Ok(()))
    }
}

impl View {
    /// The files of the source tree that a unit reads and that include something of this name, each with those includes.
    fn includers(&self, unit: &Arc<str>, name: &str) -> Result<Vec<(String, Vec<Include>)>, TreeError> {
        let Some(node) = self.graph.units.get(unit) else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        let mut look = |path: &str, facts: &Facts| {
            let named = |include: &&Include| include.name.rsplit('/').next() == Some(name);
            let includes: Vec<Include> = facts.includes.iter().filter(named).cloned().collect();
            if !includes.is_empty() {
                found.push((path.to_owned(), includes));
            }
        };
        for file in self.graph.inputs(node) {
            let path = file.path.strip_prefix("src/");
            match path.and_then(|path| self.changed.get(path)) {
                Some(version) => look(&file.path, &version.facts),
                None => look(&file.path, &*self.sources.facts(&file.file.blob)?),
            }
        }
        for path in self.more.get(unit).into_iter().flatten() {
            match path.strip_prefix("src/") {
                Some(source) if self.current.get(source) == Some(&None) => {}
                Some(source) => look(path, &self.current(source)?.facts),
                None => {
                    if let Some(file) = self.graph.generated.get(path) {
                        look(path, &*self.sources.facts(&file.blob)?);
                    }
                }
            }
        }
        Ok(found)
    }
}

/// Joins a folder and a name, without `.` and `..`.
fn join(folder: &str, name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(name.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}
