//! Action graphs of states, by what was built and for what.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bombproof_core::plan::graph::Graph;

use crate::atomic::FileError;
use crate::results::ResultKey;
use crate::table::SealedTable;

/// The kind and version of the files; changed whenever the meaning of a graph changes.
const DOMAIN: &str = "bombproof/graph-file/v4";

/// Keeps graphs. What was put is got, equal in every field; a damaged graph, and one that points nowhere, is not there.
pub trait Graphs: Send + Sync {
    /// The graph of a state.
    ///
    /// # Errors
    /// When the store cannot be read at all.
    fn get(&self, key: &ResultKey) -> Result<Option<Arc<Graph>>, FileError>;

    /// Keeps the graph of a state.
    ///
    /// # Errors
    /// When it cannot be written; nothing is half-written then.
    fn put(&self, key: &ResultKey, graph: &Arc<Graph>) -> Result<(), FileError>;

    /// Drops a graph that turned out to be wrong.
    ///
    /// # Errors
    /// When it cannot be removed.
    fn forget(&self, key: &ResultKey) -> Result<(), FileError>;
}

/// Graphs as files.
#[derive(Clone, Debug)]
pub struct FileGraphs(SealedTable<Graph>);

impl FileGraphs {
    /// Graphs in this folder.
    pub fn at(folder: PathBuf) -> Self {
        Self(SealedTable::at(folder, DOMAIN))
    }

    /// The files themselves.
    pub fn table(&self) -> &SealedTable<Graph> {
        &self.0
    }
}

impl Graphs for FileGraphs {
    fn get(&self, key: &ResultKey) -> Result<Option<Arc<Graph>>, FileError> {
        Ok(self.0.get(&key.digest())?.filter(Graph::is_whole).map(Arc::new))
    }

    fn put(&self, key: &ResultKey, graph: &Arc<Graph>) -> Result<(), FileError> {
        self.0.put(&key.digest(), graph)
    }

    fn forget(&self, key: &ResultKey) -> Result<(), FileError> {
        self.0.forget(&key.digest())
    }
}

/// Graphs in memory.
#[derive(Debug, Default)]
pub struct MemoryGraphs(Mutex<HashMap<ResultKey, Arc<Graph>>>);

impl Graphs for MemoryGraphs {
    fn get(&self, key: &ResultKey) -> Result<Option<Arc<Graph>>, FileError> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned())
    }

    fn put(&self, key: &ResultKey, graph: &Arc<Graph>) -> Result<(), FileError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(*key, Arc::clone(graph));
        Ok(())
    }

    fn forget(&self, key: &ResultKey) -> Result<(), FileError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bombproof_core::digest::{BlobDigest, Digest};
    use bombproof_core::id::Oid;
    use bombproof_core::plan::graph::{Compile, Node};

    use super::*;

    fn graph(words: usize) -> Arc<Graph> {
        let node = Node {
            compile: Some(Compile { argv: vec![0], depfile: ".a.o.d".to_owned() }),
            inputs: Vec::new(),
            plain: true,
            objtool: None,
            made: None,
            interface: None,
        };
        let units = [(Arc::from("a.o"), node)].into();
        let words = vec![Arc::from("gcc"); words];
        Arc::new(Graph { words, units, arch: "x86".to_owned(), ..Graph::empty(BlobDigest::of(b"")) })
    }

    fn key(tree: char) -> ResultKey {
        ResultKey::new(&Digest::of(b"target"), &Oid::parse(&tree.to_string().repeat(40)).unwrap())
    }

    fn hold(store: &dyn Graphs) {
        assert!(store.get(&key('a')).unwrap().is_none());
        store.put(&key('a'), &graph(1)).unwrap();
        assert_eq!(store.get(&key('a')).unwrap(), Some(graph(1)));
        assert!(store.get(&key('b')).unwrap().is_none());
        store.forget(&key('a')).unwrap();
        store.forget(&key('a')).unwrap();
        assert!(store.get(&key('a')).unwrap().is_none());
    }

    #[test]
    fn the_laws_hold() {
        hold(&MemoryGraphs::default());
        let folder = tempfile::tempdir().unwrap();
        let files = FileGraphs::at(folder.path().to_owned());
        hold(&files);
        files.put(&key('c'), &graph(0)).unwrap();
        assert!(files.get(&key('c')).unwrap().is_none(), "a graph that points nowhere is not believed");
    }
}
