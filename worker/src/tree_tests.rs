//! Moves between trees, whole and cut off.

use std::collections::BTreeMap;

use bombproof_store::trees::BlobSink;
use proptest::prelude::*;

use super::*;

/// Trees in memory: a tree is a list of files, a blob is its content.
#[derive(Default)]
struct Memory {
    trees: BTreeMap<Oid, BTreeMap<String, Entry>>,
    blobs: BTreeMap<Oid, Vec<u8>>,
    /// Reading fails after so many blobs: the machine died.
    dies_after: Option<usize>,
}

fn oid(seed: &str) -> Oid {
    let digest = bombproof_core::digest::Digest::of(seed.as_bytes()).to_string();
    Oid::parse(digest.get(..40).unwrap()).unwrap()
}

impl Memory {
    fn add(&mut self, name: &str, files: &BTreeMap<String, String>) -> Oid {
        let mut tree = BTreeMap::new();
        for (path, content) in files {
            let blob = oid(content);
            self.blobs.insert(blob.clone(), content.clone().into_bytes());
            tree.insert(path.clone(), Entry { mode: FileMode::Regular, blob });
        }
        self.trees.insert(oid(name), tree);
        oid(name)
    }
}

impl TreeSource for Memory {
    fn changes(&self, from: Option<&Oid>, to: &Oid) -> Result<Vec<Change>, TreeError> {
        let missing = |oid: &Oid| TreeError::Missing { oid: oid.to_string(), detail: String::new() };
        let empty = BTreeMap::new();
        let old = match from {
            Some(from) => self.trees.get(from).ok_or_else(|| missing(from))?,
            None => &empty,
        };
        let new = self.trees.get(to).ok_or_else(|| missing(to))?;
        let paths: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let differs = paths.into_iter().filter(|path| old.get(*path) != new.get(*path));
        Ok(differs
            .map(|path| Change { path: path.clone(), entry: new.get(path).cloned(), added: !old.contains_key(path) })
            .collect())
    }

    fn blobs(&self, blobs: &[Oid], sink: &mut BlobSink<'_>) -> Result<(), TreeError> {
        for (number, blob) in blobs.iter().enumerate() {
            if self.dies_after.is_some_and(|limit| number >= limit) {
                return Err(TreeError::Unreadable { detail: "died".to_owned() });
            }
            sink(blob, &self.blobs[blob])?;
        }
        Ok(())
    }
}

fn on_disk(root: &Path) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                let path = entry.path().strip_prefix(root).unwrap().to_string_lossy().into_owned();
                files.insert(path, std::fs::read_to_string(entry.path()).unwrap());
            }
        }
    }
    files
}

fn files(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(path, content)| ((*path).to_owned(), (*content).to_owned())).collect()
}

#[test]
fn only_what_differs_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let tree = SourceTree::at(&folder.path().join("src"));
    let mut memory = Memory::default();
    let one = memory.add("one", &files(&[("a", "1"), ("d/b", "2"), ("d/c", "3")]));
    let two = memory.add("two", &files(&[("a", "1"), ("d", "now a file"), ("e/f", "4")]));
    assert!(tree.move_to(&memory, &one).unwrap().fresh);
    let kept = std::fs::metadata(folder.path().join("src/a")).unwrap().modified().unwrap();
    let moved = tree.move_to(&memory, &two).unwrap();
    assert_eq!((moved.fresh, moved.paths), (false, vec!["d".to_owned(), "d/b".into(), "d/c".into(), "e/f".into()]));
    assert_eq!(on_disk(&folder.path().join("src")), files(&[("a", "1"), ("d", "now a file"), ("e/f", "4")]));
    assert_eq!(std::fs::metadata(folder.path().join("src/a")).unwrap().modified().unwrap(), kept);
    assert!(tree.move_to(&memory, &two).unwrap().paths.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    /// Whatever moves there were, and wherever one of them was cut off, the tree ends as the state says.
    #[test]
    fn a_move_that_is_cut_off_is_repaired(
        states in prop::collection::vec(prop::collection::btree_map("[abc](/[xy])?", "[0-9]{1,3}", 0..6), 2..5),
        cut in prop::collection::vec((0_usize..5, 0_usize..4), 1..6),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let tree = SourceTree::at(&folder.path().join("src"));
        let mut memory = Memory::default();
        // A path cannot be a file and a folder at once.
        let states: Vec<BTreeMap<String, String>> = states
            .into_iter()
            .map(|files| {
                let names: Vec<String> = files.keys().cloned().collect();
                files.into_iter().filter(|(path, _)| !names.iter().any(|other| other.starts_with(&format!("{path}/")))).collect()
            })
            .collect();
        let oids: Vec<Oid> = states.iter().enumerate().map(|(number, files)| memory.add(&number.to_string(), files)).collect();
        for (state, dies_after) in cut {
            memory.dies_after = Some(dies_after);
            let _ = tree.move_to(&memory, &oids[state % oids.len()]);
        }
        memory.dies_after = None;
        for (oid, files) in oids.iter().zip(&states) {
            tree.move_to(&memory, oid).unwrap();
            prop_assert_eq!(&on_disk(&folder.path().join("src")), files);
        }
    }
}
