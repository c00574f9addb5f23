//! The last offset of each key of what is new, in bounded memory: 128 bits of a keyed hash stand for the key.
//!
//! Two keys with one hash would lose a record. By chance that takes 2^64 keys, and nobody who does not know the map's random key can
//! look for a pair. May not know: values, transactions.

use std::hash::Hasher;

use ottla_protocol::id_hash::IdHashMap;
use ottla_protocol::ids::Offset;
use siphasher::sip128::{Hasher128, SipHasher13};

use super::CompactError;

/// A key by its hash.
type KeyHash = [u8; 16];

/// Bytes of a bucket of the map: hash, offset, the map's own byte.
const BUCKET_BYTES: usize = 25;
/// Of the smallest map, which holds seven keys.
const BUCKETS_MIN: usize = 8;

/// One of a number of equal ranges of hashes: where there are too many keys for one map, each range has its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashRange {
    number: u64,
    of: u64,
}

impl HashRange {
    /// All hashes.
    pub const ALL: Self = Self { number: 0, of: 1 };

    /// So many ranges, a power of two, which have all hashes together.
    #[must_use]
    pub fn divide(into: u64) -> Vec<Self> {
        let of = into.max(1).next_power_of_two();
        (0..of).map(|number| Self { number, of }).collect()
    }

    /// Ranges that so many keys need, if they are spread well.
    #[must_use]
    pub fn for_keys(keys: u64, capacity: usize) -> Vec<Self> {
        // A range has more than its share by chance.
        let share = u64::try_from(capacity).unwrap_or(u64::MAX).max(8) / 8 * 7;
        Self::divide(keys.div_ceil(share.max(1)))
    }

    fn contains(self, hash: &KeyHash) -> bool {
        let mut word = [0; 8];
        word.copy_from_slice(&hash[8..]);
        u64::from_le_bytes(word) % self.of == self.number
    }
}

/// Keys and the last offset of each.
#[derive(Debug)]
pub struct KeyMap {
    seed: (u64, u64),
    capacity: usize,
    range: HashRange,
    offsets: IdHashMap<KeyHash, Offset>,
}

impl KeyMap {
    /// An empty map of about so many bytes at the most, for one range of hashes. `seed`: random.
    #[must_use]
    pub fn new(bytes_max: usize, seed: (u64, u64)) -> Self {
        // The map has a power of two of buckets and fills seven eighths of them.
        let buckets = (bytes_max / BUCKET_BYTES).max(BUCKETS_MIN);
        let buckets = if buckets.is_power_of_two() { buckets } else { buckets.next_power_of_two() / 2 };
        Self { seed, capacity: buckets / 8 * 7, range: HashRange::ALL, offsets: IdHashMap::default() }
    }

    /// Keys that it may hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets all keys; from now on those of this range are taken.
    pub fn begin(&mut self, range: HashRange) {
        self.range = range;
        self.offsets.clear();
    }

    fn hash(&self, key: &[u8]) -> KeyHash {
        let mut hasher = SipHasher13::new_with_keys(self.seed.0, self.seed.1);
        hasher.write(key);
        hasher.finish128().as_bytes()
    }

    /// Notes that a key has a record here. Offsets may come in any order.
    pub fn learn(&mut self, key: &[u8], offset: Offset) -> Result<(), CompactError> {
        let hash = self.hash(key);
        if !self.range.contains(&hash) {
            return Ok(());
        }
        if let Some(known) = self.offsets.get_mut(&hash) {
            *known = offset.max(*known);
            return Ok(());
        }
        if self.offsets.len() >= self.capacity {
            return Err(CompactError::MapFull { capacity: self.capacity });
        }
        self.offsets.insert(hash, offset);
        Ok(())
    }

    /// True if the key has a later record, as far as the map was told.
    #[must_use]
    pub fn is_superseded(&self, key: &[u8], offset: Offset) -> bool {
        !self.offsets.is_empty() && self.offsets.get(&self.hash(key)).is_some_and(|last| *last > offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(bytes_max: usize) -> KeyMap {
        KeyMap::new(bytes_max, (1, 2))
    }

    #[test]
    fn every_hash_is_in_one_range() {
        let map = map(1 << 10);
        for into in [1, 2, 3, 8, 100] {
            let ranges = HashRange::divide(into);
            assert_eq!(ranges.len() as u64, into.next_power_of_two());
            for key in 0..1_000_u32 {
                let hash = map.hash(&key.to_be_bytes());
                assert_eq!(ranges.iter().filter(|range| range.contains(&hash)).count(), 1, "{key} of {into}");
            }
        }
    }

    #[test]
    fn a_full_map_says_so_and_still_takes_keys_that_it_knows() {
        let mut map = map(64 * BUCKET_BYTES);
        assert_eq!(map.capacity(), 56);
        (0..56_u32).for_each(|key| map.learn(&key.to_be_bytes(), Offset(1)).unwrap());
        assert_eq!(map.learn(b"other", Offset(2)), Err(CompactError::MapFull { capacity: 56 }));
        map.learn(&7_u32.to_be_bytes(), Offset(9)).unwrap();
        map.learn(&7_u32.to_be_bytes(), Offset(5)).unwrap();
        assert!(
            map.is_superseded(&7_u32.to_be_bytes(), Offset(8)) && !map.is_superseded(&7_u32.to_be_bytes(), Offset(9))
        );
        map.begin(HashRange::ALL);
        map.learn(b"other", Offset(2)).unwrap();
        assert!(!map.is_superseded(&7_u32.to_be_bytes(), Offset(0)));
    }

    #[test]
    fn ranges_for_many_keys_fit() {
        let mut map = map(1 << 14);
        let keys = 10_000_u64;
        let ranges = HashRange::for_keys(keys, map.capacity());
        for range in ranges {
            map.begin(range);
            (0..keys).for_each(|key| map.learn(&key.to_be_bytes(), Offset(1)).unwrap());
        }
    }
}
