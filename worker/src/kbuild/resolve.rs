//! Where the includes of a compile lead, in the tree as it is now.
//!
//! A list of files that were read says nothing of files that were looked for and not there: a new header on the way shadows an old
//! one. So the way of every include directive of every file is part of what is remembered of a compile. The source tree
//! does not change while a step runs, and what is found there is found once; the build folder does, and is asked each time.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bombproof_core::digest::{Digest, DigestBuilder};
use bombproof_core::kbuild::roots::Roots;
use bombproof_core::plan::compile;
use bombproof_core::source::{Facts, SearchPath};

/// Looks includes up in the folders of one lane.
pub(super) struct Resolver {
    source: PathBuf,
    output: PathBuf,
    /// By the folders of a command.
    searches: Mutex<HashMap<Vec<String>, Arc<Search>>>,
    /// Whether a file of the source tree is there.
    there: Mutex<HashMap<String, bool>>,
}

/// The folders in which a command looks, below the input root.
struct Search {
    quote: Vec<String>,
    angle: Vec<String>,
    /// For the assembler: the folder in which it runs first.
    assembler: Vec<String>,
    ways: Mutex<Ways>,
}

/// By form and name: the places where it may be, up to the first of the source tree that is there.
type Ways = HashMap<(bool, String), Arc<[String]>>;

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Resolver {
    pub(super) fn new(source: &Path, output: &Path) -> Self {
        Self {
            source: source.to_owned(),
            output: output.to_owned(),
            searches: Mutex::default(),
            there: Mutex::default(),
        }
    }

    /// The digest of all ways, for a command and the files that it reads.
    pub(super) fn resolution(&self, argv: &[String], roots: &Roots, files: &[(&String, Arc<Facts>)]) -> Digest {
        let search = self.search(argv, roots);
        let look = Look::new(self);
        let mut found: Vec<String> = Vec::new();
        let mut computed = false;
        for (path, facts) in files {
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            computed |= facts.computed_includes;
            for include in &facts.includes {
                // The folder of the file itself comes first, for the form with quotes.
                let own = include.quoted.then(|| clean(folder, &include.name));
                let way = search.way(include.quoted, &include.name, &look);
                let places = own.iter().map(String::as_str).chain(way.iter().map(String::as_str));
                // `include_next` goes on behind the folder of the file: all places count.
                let lead: Vec<&str> = if include.next {
                    places.filter(|place| look.is_there(place)).collect()
                } else {
                    places.into_iter().find(|place| look.is_there(place)).into_iter().collect()
                };
                found.push(lead.join(" "));
            }
            found.extend(facts.assembler.iter().map(|name| search.of_assembler(name, &look).join(" ")));
        }
        if computed {
            // The name comes from a macro: every file that could bear the name of one that was read counts.
            for (path, _) in files {
                let mut rest = path.as_str();
                while let Some((_, name)) = rest.split_once('/') {
                    rest = name;
                    let way = search.all(name).into_iter().filter(|place| look.is_there(place));
                    found.push(way.collect::<Vec<_>>().join(" "));
                }
            }
        }
        DigestBuilder::new("bombproof/resolution/v1").list(found.iter().map(String::as_str)).finish()
    }

    /// The one place where the assembler finds a file; `None`: there is none, or it is a matter of the order of folders.
    pub(super) fn of_assembler(&self, argv: &[String], roots: &Roots, name: &str) -> Option<String> {
        let search = self.search(argv, roots);
        let mut places = search.of_assembler(name, &Look::new(self)).into_iter();
        places.next().filter(|_| places.next().is_none())
    }

    fn search(&self, argv: &[String], roots: &Roots) -> Arc<Search> {
        let folders = SearchPath::of(argv);
        let place = |folder: &String| compile::input(roots, &roots.output, folder).unwrap_or_else(|| folder.clone());
        let quote: Vec<String> = folders.quote.iter().map(place).collect();
        let angle: Vec<String> = folders.angle.iter().map(place).collect();
        let assembler =
            [roots.output.clone()].iter().chain(&folders.assembler).map(place).chain(angle.clone()).collect();
        let key = [&quote, &angle, &assembler]
            .into_iter()
            .flat_map(|list: &Vec<String>| list.iter().cloned().chain([String::new()]));
        let key = key.collect();
        let mut searches = lock(&self.searches);
        Arc::clone(
            searches.entry(key).or_insert_with(|| Arc::new(Search { quote, angle, assembler, ways: Mutex::default() })),
        )
    }

    fn is_in_source(&self, path: &str) -> bool {
        if let Some(known) = lock(&self.there).get(path) {
            return *known;
        }
        let known = self.source.join(path).is_file();
        lock(&self.there).insert(path.to_owned(), known);
        known
    }
}

/// One look at the tree, for one compile: most names are looked for in folders that the build folder does not have, and a
/// question to the system for each of them costs milliseconds.
struct Look<'a> {
    resolver: &'a Resolver,
    /// Whether a folder of the build folder is there.
    folders: RefCell<HashMap<String, bool>>,
    /// Whether a file of the build folder is there: hundreds of headers include the same ones.
    files: RefCell<HashMap<String, bool>>,
}

impl<'a> Look<'a> {
    fn new(resolver: &'a Resolver) -> Self {
        Self { resolver, folders: RefCell::default(), files: RefCell::default() }
    }

    fn is_there(&self, place: &str) -> bool {
        match place.split_once('/') {
            Some(("src", path)) => self.resolver.is_in_source(path),
            Some(("out", path)) => self.has_folder_of(path) && self.has_file(path),
            // A folder of the toolchain: it does not change without the toolchain's digest.
            Some(_) | None => false,
        }
    }

    fn has_file(&self, path: &str) -> bool {
        if let Some(known) = self.files.borrow().get(path) {
            return *known;
        }
        let known = self.resolver.output.join(path).is_file();
        self.files.borrow_mut().insert(path.to_owned(), known);
        known
    }

    fn has_folder_of(&self, path: &str) -> bool {
        let Some((folder, _)) = path.rsplit_once('/') else { return true };
        if let Some(known) = self.folders.borrow().get(folder) {
            return *known;
        }
        let known = self.resolver.output.join(folder).is_dir();
        self.folders.borrow_mut().insert(folder.to_owned(), known);
        known
    }
}

impl Search {
    fn folders(&self, quoted: bool) -> impl Iterator<Item = &String> {
        self.quote.iter().filter(move |_| quoted).chain(&self.angle)
    }

    fn way(&self, quoted: bool, name: &str, look: &Look<'_>) -> Arc<[String]> {
        let key = (quoted, name.to_owned());
        if let Some(known) = lock(&self.ways).get(&key) {
            return Arc::clone(known);
        }
        let mut way = Vec::new();
        for folder in self.folders(quoted) {
            let place = clean(folder, name);
            if !place.starts_with("src/") {
                way.push(place);
            } else if look.is_there(&place) {
                way.push(place);
                break;
            }
        }
        let way: Arc<[String]> = way.into();
        lock(&self.ways).insert(key, Arc::clone(&way));
        way
    }

    /// All places where the assembler may find a file.
    fn of_assembler(&self, name: &str, look: &Look<'_>) -> Vec<String> {
        let mut places: Vec<String> = self.assembler.iter().map(|folder| clean(folder, name)).collect();
        places.retain(|place| look.is_there(place));
        places.sort_unstable();
        places.dedup();
        places
    }

    fn all(&self, name: &str) -> Vec<String> {
        self.folders(true).map(|folder| clean(folder, name)).collect()
    }
}

/// Joins a folder and a name, without `.` and `..`.
fn clean(folder: &str, name: &str) -> String {
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
