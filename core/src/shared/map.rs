//! A sorted map in parts that copies hold in common.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A part is made with this many entries, and split when it has twice as many.
const PART: usize = 32;

type Entry<V> = (Arc<str>, V);
type Part<V> = Arc<Vec<Entry<V>>>;

/// A map from texts, sorted by them.
///
/// A copy costs nothing; a change of a copy costs one part and a list of parts. No part is empty.
pub struct SharedMap<V> {
    parts: Arc<Vec<Part<V>>>,
    len: usize,
}

/// One entry that two maps do not have in common; at least one of the values is there.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference<'a, V> {
    /// Its key.
    pub key: &'a Arc<str>,
    /// In the first map.
    pub before: Option<&'a V>,
    /// In the second map.
    pub after: Option<&'a V>,
}

impl<V> SharedMap<V> {
    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&V> {
        let part = &self.parts[self.part_of(key)?];
        let at = place(part, key).ok()?;
        Some(&part[at].1)
    }

    /// Whether it has the key.
    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// The entries, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &V)> {
        self.entries().map(|(key, value)| (&**key, value))
    }

    /// The keys, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries().map(|(key, _)| &**key)
    }

    /// The values, sorted by key.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.entries().map(|(_, value)| value)
    }

    /// The entries with keys that can be held in common.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry<V>> {
        self.parts.iter().flat_map(|part| part.iter())
    }

    /// Whether both are one map in memory. If not they may still be equal.
    pub fn is_one_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.parts, &other.parts)
    }

    /// The part in which a key is, if it is anywhere.
    fn part_of(&self, key: &str) -> Option<usize> {
        let first = |part: &Part<V>| part.first().is_some_and(|(first, _)| **first <= *key);
        self.parts.partition_point(first).checked_sub(1)
    }
}

impl<V: Clone> SharedMap<V> {
    /// Adds an entry, in place of one with the same key, whose value it gives.
    pub fn insert(&mut self, key: Arc<str>, value: impl Into<V>) -> Option<V> {
        let value = value.into();
        let number = self.part_of(&key).unwrap_or(0);
        let parts = Arc::make_mut(&mut self.parts);
        let Some(part) = parts.get_mut(number) else {
            parts.push(Arc::new(vec![(key, value)]));
            self.len = 1;
            return None;
        };
        let part = Arc::make_mut(part);
        match place(part, &key) {
            Ok(at) => return Some(std::mem::replace(&mut part[at].1, value)),
            Err(at) => part.insert(at, (key, value)),
        }
        self.len += 1;
        if part.len() > 2 * PART {
            let rest = part.split_off(PART);
            parts.insert(number + 1, Arc::new(rest));
        }
        None
    }

    /// Takes an entry out and gives its value.
    pub fn remove(&mut self, key: &str) -> Option<V> {
        let number = self.part_of(key)?;
        let at = place(&self.parts[number], key).ok()?;
        let parts = Arc::make_mut(&mut self.parts);
        let part = Arc::make_mut(&mut parts[number]);
        let (_, value) = part.remove(at);
        if part.is_empty() {
            parts.remove(number);
        }
        self.len -= 1;
        Some(value)
    }

    /// From entries in any order; of equal keys the last one counts.
    fn of(mut entries: Vec<Entry<V>>) -> Self {
        if !entries.is_sorted_by(|a, b| a.0 < b.0) {
            entries = entries.into_iter().collect::<BTreeMap<_, _>>().into_iter().collect();
        }
        let len = entries.len();
        let parts = entries.chunks(PART).map(|part| Arc::new(part.to_vec())).collect();
        Self { parts: Arc::new(parts), len }
    }
}

impl<V: Eq> SharedMap<V> {
    /// What `after` has otherwise, sorted by key. What both hold in common is not looked at.
    pub fn differences<'a>(&'a self, after: &'a Self) -> impl Iterator<Item = Difference<'a, V>> {
        let (mut old, mut new) = (Cursor::at_start(self), Cursor::at_start(after));
        std::iter::from_fn(move || {
            loop {
                if Cursor::skip_common(&mut old, &mut new) {
                    continue;
                }
                let difference = match (old.entry(), new.entry()) {
                    (None, None) => return None,
                    (Some((key, before)), Some((other, after))) => match key.cmp(other) {
                        Ordering::Less => Difference { key, before: Some(before), after: None },
                        Ordering::Greater => Difference { key: other, before: None, after: Some(after) },
                        Ordering::Equal if before == after => {
                            old.step();
                            new.step();
                            continue;
                        }
                        Ordering::Equal => Difference { key, before: Some(before), after: Some(after) },
                    },
                    (Some((key, before)), None) => Difference { key, before: Some(before), after: None },
                    (None, Some((key, after))) => Difference { key, before: None, after: Some(after) },
                };
                if difference.before.is_some() {
                    old.step();
                }
                if difference.after.is_some() {
                    new.step();
                }
                return Some(difference);
            }
        })
    }
}

impl<V: Clone + Eq> SharedMap<V> {
    /// Holds what is equal in common with the other, unless most of it is otherwise.
    pub fn share_with(&mut self, other: &Self) {
        if self.is_one_with(other) {
            return;
        }
        let differences: Vec<_> = other.differences(self).take(self.len / 2 + 2).collect();
        if differences.len() > self.len / 2 + 1 {
            return;
        }
        let mut shared = other.clone();
        for difference in differences {
            match difference.after {
                Some(value) => shared.insert(Arc::clone(difference.key), value.clone()),
                None => shared.remove(difference.key),
            };
        }
        *self = shared;
    }
}

/// The place of a key in a part, or where it would be.
fn place<V>(part: &[Entry<V>], key: &str) -> Result<usize, usize> {
    part.binary_search_by(|(other, _)| (**other).cmp(key))
}

/// A place in a map.
struct Cursor<'a, V> {
    parts: &'a [Part<V>],
    part: usize,
    at: usize,
}

impl<'a, V> Cursor<'a, V> {
    fn at_start(map: &'a SharedMap<V>) -> Self {
        Self { parts: &map.parts, part: 0, at: 0 }
    }

    fn entry(&self) -> Option<&'a Entry<V>> {
        self.parts.get(self.part)?.get(self.at)
    }

    fn step(&mut self) {
        self.at += 1;
        if self.parts.get(self.part).is_some_and(|part| self.at >= part.len()) {
            (self.part, self.at) = (self.part + 1, 0);
        }
    }

    /// Goes past a part that both are at the start of. Keys are sorted, so both come to it at the same time.
    fn skip_common(old: &mut Self, new: &mut Self) -> bool {
        let common = old.at == 0
            && new.at == 0
            && match (old.parts.get(old.part), new.parts.get(new.part)) {
                (Some(one), Some(other)) => Arc::ptr_eq(one, other),
                (Some(_) | None, _) => false,
            };
        if common {
            old.part += 1;
            new.part += 1;
        }
        common
    }
}

impl<V> Clone for SharedMap<V> {
    fn clone(&self) -> Self {
        Self { parts: Arc::clone(&self.parts), len: self.len }
    }
}

impl<V> Default for SharedMap<V> {
    fn default() -> Self {
        Self { parts: Arc::default(), len: 0 }
    }
}

impl<V: Eq> PartialEq for SharedMap<V> {
    fn eq(&self, other: &Self) -> bool {
        self.is_one_with(other) || (self.len == other.len && self.differences(other).next().is_none())
    }
}

impl<V: Eq> Eq for SharedMap<V> {}

impl<V: fmt::Debug> fmt::Debug for SharedMap<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Into<Arc<str>>, I: Into<V>, V: Clone> FromIterator<(K, I)> for SharedMap<V> {
    fn from_iter<T: IntoIterator<Item = (K, I)>>(entries: T) -> Self {
        Self::of(entries.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

impl<K: Into<Arc<str>>, I: Into<V>, V: Clone, const N: usize> From<[(K, I); N]> for SharedMap<V> {
    fn from(entries: [(K, I); N]) -> Self {
        entries.into_iter().collect()
    }
}

impl<V: Clone> From<&BTreeMap<String, V>> for SharedMap<V> {
    fn from(map: &BTreeMap<String, V>) -> Self {
        map.iter().map(|(key, value)| (key.as_str(), value.clone())).collect()
    }
}

impl<V: Serialize> Serialize for SharedMap<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de, V: Deserialize<'de> + Clone> Deserialize<'de> for SharedMap<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de> + Clone> Visitor<'de> for Entries<V> {
            type Value = SharedMap<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(SharedMap::of(entries.into_iter().map(|(key, value): (Box<str>, V)| (key.into(), value)).collect()))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}
