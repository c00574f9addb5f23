//! An ordered map that is cheap to clone and cheap to change: copies of it share all chunks that did not change.
//!
//! A `BTreeMap` of 10,000 topics would be copied whole for every new topic, because the image is immutable and
//! swapped whole. Here the entries lie in sorted chunks behind `Arc`; a change copies one chunk and the list of chunks.
//! May not know: its keys and values.

use std::borrow::Borrow;
use std::sync::Arc;

/// A chunk is split when it grows beyond this many entries.
const CHUNK_ENTRIES_MAX: usize = 128;

type Chunk<K, V> = Arc<Vec<(K, V)>>;

/// A position in one version of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    chunk: usize,
    entry: usize,
}

/// An ordered map with structural sharing between its versions.
#[derive(Debug)]
pub struct SharedMap<K, V> {
    /// Sorted, none of them empty.
    chunks: Vec<Chunk<K, V>>,
    count: usize,
}

impl<K, V> Clone for SharedMap<K, V> {
    fn clone(&self) -> Self {
        Self { chunks: self.chunks.clone(), count: self.count }
    }
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        Self { chunks: Vec::new(), count: 0 }
    }
}

impl<K: Ord + Clone, V: Clone> SharedMap<K, V> {
    /// An empty map.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// True when there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The chunk that holds `key` or would hold it.
    fn chunk_of<Q>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        let after = self.chunks.partition_point(|chunk| chunk.first().is_some_and(|(first, _)| first.borrow() <= key));
        after.saturating_sub(1)
    }

    /// The value of `key`.
    pub fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        let chunk = self.chunks.get(self.chunk_of(key))?;
        let at = chunk.binary_search_by(|(k, _)| k.borrow().cmp(key)).ok()?;
        chunk.get(at).map(|(_, value)| value)
    }

    /// True when `key` has a value.
    pub fn contains_key<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        self.get(key).is_some()
    }

    /// Sets the value of `key`; returns the former one.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let place = self.chunk_of(&key);
        let Some(chunk) = self.chunks.get_mut(place) else {
            self.chunks.push(Arc::new(vec![(key, value)]));
            self.count = 1;
            return None;
        };
        let entries = Arc::make_mut(chunk);
        match entries.binary_search_by(|(k, _)| k.cmp(&key)) {
            Ok(at) => Some(std::mem::replace(&mut entries[at].1, value)),
            Err(at) => {
                entries.insert(at, (key, value));
                self.count += 1;
                if entries.len() > CHUNK_ENTRIES_MAX {
                    let upper = entries.split_off(entries.len() / 2);
                    self.chunks.insert(place + 1, Arc::new(upper));
                }
                None
            }
        }
    }

    /// Removes `key`; returns its value.
    pub fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        let place = self.chunk_of(key);
        let at = self.chunks.get(place)?.binary_search_by(|(k, _)| k.borrow().cmp(key)).ok()?;
        let entries = Arc::make_mut(self.chunks.get_mut(place)?);
        let (_, value) = entries.remove(at);
        self.count -= 1;
        if entries.is_empty() {
            self.chunks.remove(place);
        }
        Some(value)
    }

    /// All entries in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.chunks.iter().flat_map(|chunk| chunk.iter().map(|(k, v)| (k, v)))
    }

    /// The position of the first entry that is not below `key`, for [`SharedMap::iter_at`].
    pub fn position<Q>(&self, key: &Q) -> Position
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        let chunk = self.chunk_of(key);
        let entry = self.chunks.get(chunk).map_or(0, |c| c.partition_point(|(k, _)| k.borrow() < key));
        Position { chunk, entry }
    }

    /// All entries from `position` on, in the order of their keys.
    pub fn iter_at(&self, position: Position) -> impl Iterator<Item = (&K, &V)> {
        self.chunks.iter().skip(position.chunk).flat_map(|chunk| chunk.iter().map(|(k, v)| (k, v))).skip(position.entry)
    }

    /// All values in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// All keys in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_behaves_as_a_btree_map(changes in proptest::collection::vec((any::<bool>(), 0_u16..600), 0..2_000)) {
            let mut shared = SharedMap::new();
            let mut model = BTreeMap::new();
            for (step, (insert, key)) in changes.into_iter().enumerate() {
                if insert {
                    prop_assert_eq!(shared.insert(key, step), model.insert(key, step));
                } else {
                    prop_assert_eq!(shared.remove(&key), model.remove(&key));
                }
                prop_assert_eq!(shared.len(), model.len());
            }
            prop_assert!(shared.iter().eq(model.iter()));
            for key in 0..600 {
                prop_assert_eq!(shared.get(&key), model.get(&key));
                prop_assert!(shared.iter_at(shared.position(&key)).take(3).eq(model.range(key..).take(3)));
            }
        }
    }

    #[test]
    fn a_change_leaves_older_copies_as_they_were_and_shares_the_rest() {
        let mut map = SharedMap::new();
        for key in 0..10_000 {
            map.insert(key, key);
        }
        let old = map.clone();
        map.insert(5_000, -1);
        assert_eq!(old.get(&5_000), Some(&5_000));
        assert_eq!(map.get(&5_000), Some(&-1));
        let shared = map.chunks.iter().zip(&old.chunks).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert_eq!(shared, old.chunks.len() - 1);
    }
}
