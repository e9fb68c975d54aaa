//! Versions of files that are one and the same to every compiler of a build.
//!
//! The proof is made elsewhere ([`crate::source`]). Here is what follows from it: a compile whose files differ only so from
//! those of an earlier one gives the same object, provided that it says nothing (what a compiler says has line numbers
//! in it) and keeps no line numbers for a debugger.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::digest::{BlobDigest, Digest};
use crate::source::Facts;

/// One version of a file.
#[derive(Clone, Debug)]
pub struct Version {
    /// Its content.
    pub blob: BlobDigest,
    /// What its text says.
    pub facts: Arc<Facts>,
}

/// What the proof looked at. Of a compile that it did not look at nothing is proven: what is the same to all others may hold a
/// macro that only this one uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// Contents of files.
    pub contents: HashSet<BlobDigest>,
    /// Commands, as [`super::compile::manifest_key`] names them.
    pub commands: HashSet<Digest>,
}

/// Classes of versions, each with the one that was there first.
#[derive(Clone, Debug)]
pub struct Alike {
    autoconf: BlobDigest,
    first: HashMap<BlobDigest, Version>,
    proof: Arc<Proof>,
}

/// Everything that an [`Alike`] says, in order and without what the texts themselves say: fit to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    /// The configuration under which it holds.
    pub autoconf: BlobDigest,
    /// Versions, each with the one that stands for it.
    pub first: BTreeMap<String, BlobDigest>,
    /// What the proof looked at: contents.
    pub contents: BTreeSet<BlobDigest>,
    /// And commands.
    pub commands: BTreeSet<Digest>,
}

impl Alike {
    /// What it says.
    pub fn parts(&self) -> Parts {
        Parts {
            autoconf: self.autoconf,
            first: self.first.iter().map(|(later, first)| (later.to_string(), first.blob)).collect(),
            contents: self.proof.contents.iter().copied().collect(),
            commands: self.proof.commands.iter().copied().collect(),
        }
    }

    /// From what was said; `text` gives the content of a blob. `None`: a content is missing, or a name is none.
    pub fn from_parts(parts: &Parts, mut text: impl FnMut(&BlobDigest) -> Option<Vec<u8>>) -> Option<Self> {
        let mut first = HashMap::new();
        for (later, blob) in &parts.first {
            let (hash, size) = later.split_once('/')?;
            let later = BlobDigest { hash: hash.parse().ok()?, size_bytes: size.parse().ok()? };
            let facts = Arc::new(Facts::of(&text(blob)?));
            first.insert(later, Version { blob: *blob, facts });
        }
        let contents = parts.contents.iter().copied().collect();
        let proof = Arc::new(Proof { contents, commands: parts.commands.iter().copied().collect() });
        Some(Self { autoconf: parts.autoconf, first, proof })
    }

    /// None yet, under the configuration of this `autoconf.h`.
    pub fn new(autoconf: BlobDigest) -> Self {
        Self { autoconf, first: HashMap::new(), proof: Arc::default() }
    }

    /// Takes in what the proof looks at now.
    pub fn stand_on(&mut self, proof: &Arc<Proof>) {
        self.proof = Arc::clone(proof);
    }

    /// Whether the proof looked at this command and at all these contents.
    pub fn covers(&self, command: &Digest, contents: impl IntoIterator<Item = BlobDigest>) -> bool {
        self.proof.commands.contains(command) && contents.into_iter().all(|blob| self.proof.contents.contains(&blob))
    }

    /// Takes in that a version is like an earlier one.
    pub fn add(&mut self, earlier: &Version, later: BlobDigest) {
        let first = self.first.get(&earlier.blob).unwrap_or(earlier).clone();
        // A version that comes back is its own first.
        if first.blob != later {
            self.first.entry(later).or_insert(first);
        }
    }

    /// Whether no version stands for another one.
    pub fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// The version that stands for this one, if that is another one.
    pub fn first(&self, blob: &BlobDigest) -> Option<&Version> {
        self.first.get(blob)
    }

    /// Whether it holds under this configuration, and says anything.
    pub fn applies(&self, autoconf: &BlobDigest) -> bool {
        self.autoconf == *autoconf && !self.first.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        Version { blob: BlobDigest::of(text.as_bytes()), facts: Arc::new(Facts::of(text.as_bytes())) }
    }

    #[test]
    fn the_earliest_of_a_class_stands_for_it() {
        let [a, b, c, other] = ["a", "b", "c", "x"].map(version);
        let config = BlobDigest::of(b"");
        let mut alike = Alike::new(config);
        assert!(!alike.applies(&config));
        alike.add(&a, b.blob);
        alike.add(&b, c.blob);
        alike.add(&c, a.blob);
        let first = |of: &Version| alike.first(&of.blob).map(|first| first.blob);
        assert_eq!([&a, &b, &c, &other].map(first), [None, Some(a.blob), Some(a.blob), None]);
        assert!(alike.applies(&config) && !alike.applies(&a.blob));
        let (known, unknown) = (Digest::of(b"gcc a"), Digest::of(b"gcc b"));
        assert!(!alike.covers(&known, []));
        let contents = [a.blob, b.blob].into();
        alike.stand_on(&Arc::new(Proof { contents, commands: [known].into() }));
        assert!(alike.covers(&known, []) && alike.covers(&known, [a.blob, b.blob]));
        assert!(!alike.covers(&known, [a.blob, other.blob]) && !alike.covers(&unknown, [a.blob]));
        let texts = [("a", &a), ("b", &b), ("c", &c)];
        let text = |blob: &BlobDigest| {
            let found = texts.iter().find(|(_, version)| version.blob == *blob)?;
            Some(found.0.as_bytes().to_vec())
        };
        let again = Alike::from_parts(&alike.parts(), text).unwrap();
        assert_eq!(again.parts(), alike.parts());
        assert_eq!(again.first(&c.blob).map(|first| &first.facts), alike.first(&c.blob).map(|first| &first.facts));
        assert!(again.covers(&known, [a.blob, b.blob]) && Alike::from_parts(&alike.parts(), |_| None).is_none());
    }
}
