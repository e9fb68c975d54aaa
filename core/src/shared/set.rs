//! A sorted set in parts that copies hold in common.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::SharedMap;

/// A sorted set of texts; see [`SharedMap`].
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SharedSet(SharedMap<()>);

impl SharedSet {
    /// How many texts it has.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it has this text.
    pub fn contains(&self, text: &str) -> bool {
        self.0.contains_key(text)
    }

    /// The texts, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.keys()
    }

    /// The texts, in a form that can be held in common.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.entries().map(|(text, ())| text)
    }

    /// Adds a text; false: it was there.
    pub fn insert(&mut self, text: Arc<str>) -> bool {
        self.0.insert(text, ()).is_none()
    }

    /// Takes a text out; false: it was not there.
    pub fn remove(&mut self, text: &str) -> bool {
        self.0.remove(text).is_some()
    }

    /// Whether both are one set in memory. If not they may still be equal.
    pub fn is_one_with(&self, other: &Self) -> bool {
        self.0.is_one_with(&other.0)
    }

    /// Holds what is equal in common with the other, unless most of it is otherwise.
    pub fn share_with(&mut self, other: &Self) {
        self.0.share_with(&other.0);
    }

    /// The set as a map to nothing.
    pub(crate) fn as_map(&self) -> &SharedMap<()> {
        &self.0
    }
}

impl fmt::Debug for SharedSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl From<SharedMap<()>> for SharedSet {
    fn from(map: SharedMap<()>) -> Self {
        Self(map)
    }
}

impl<K: Into<Arc<str>>> FromIterator<K> for SharedSet {
    fn from_iter<T: IntoIterator<Item = K>>(texts: T) -> Self {
        Self(texts.into_iter().map(|text| (text, ())).collect())
    }
}

impl<K: Into<Arc<str>>, const N: usize> From<[K; N]> for SharedSet {
    fn from(texts: [K; N]) -> Self {
        texts.into_iter().collect()
    }
}

impl Serialize for SharedSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for SharedSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::<Box<str>>::deserialize(deserializer).map(|texts| texts.into_iter().collect())
    }
}
