//! Things that refer to each other by small numbers.

use std::marker::PhantomData;

use slab::Slab;

/// A number in an [`Arena`]; the number of a thing that was taken out is given to another one.
pub(super) trait Key: Copy + Ord {
    fn new(index: usize) -> Self;
    fn index(self) -> usize;
}

macro_rules! keys {
    ($($(#[$meta:meta])* $name:ident)*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) struct $name(u32);

        impl Key for $name {
            fn new(index: usize) -> Self {
                // Four thousand million things do not fit into memory.
                Self(u32::try_from(index).unwrap_or(u32::MAX))
            }

            fn index(self) -> usize {
                self.0 as usize
            }
        }
    )*};
}

keys! {
    /// A user.
    UserKey
    /// A series that is open.
    SeriesKey
    /// A job that somebody waits for.
    JobKey
    /// A worker.
    WorkerKey
    /// Jobs with the same needs.
    Class
}

#[derive(Debug)]
pub(super) struct Arena<K, T> {
    slots: Slab<T>,
    key: PhantomData<K>,
}

impl<K, T> Default for Arena<K, T> {
    fn default() -> Self {
        Self { slots: Slab::new(), key: PhantomData }
    }
}

impl<K: Key, T> Arena<K, T> {
    pub(super) fn insert(&mut self, value: T) -> K {
        K::new(self.slots.insert(value))
    }

    pub(super) fn remove(&mut self, key: K) -> Option<T> {
        self.slots.try_remove(key.index())
    }

    pub(super) fn get(&self, key: K) -> Option<&T> {
        self.slots.get(key.index())
    }

    pub(super) fn get_mut(&mut self, key: K) -> Option<&mut T> {
        self.slots.get_mut(key.index())
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        self.slots.iter().map(|(index, value)| (K::new(index), value))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (K, &mut T)> {
        self.slots.iter_mut().map(|(index, value)| (K::new(index), value))
    }
}
