//! Maps keyed by numbers that the broker gives: partitions, positions, slots. A client cannot make them collide, so they need no
//! keyed hash, which takes most of a lookup; without a seed, so that a simulated run can be repeated. Names that clients choose
//! do not belong here.
//!
//! May not know: what the numbers mean.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map keyed by numbers that the broker gives.
pub type IdHashMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// Hashes numbers, by rotation and multiplication.
#[derive(Debug, Default, Clone, Copy)]
pub struct IdHasher(u64);

impl IdHasher {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        // The map takes the low bits, and a product's low bits know nothing of its factor's high ones.
        self.0.rotate_left(32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.mix(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.mix(number);
    }

    fn write_usize(&mut self, number: usize) {
        self.mix(number as u64);
    }

    fn write_i32(&mut self, number: i32) {
        self.mix(u64::from(number.cast_unsigned()));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::hash::BuildHasher;

    use super::*;
    use crate::ids::PartitionId;

    /// hashbrown takes the low bits for the place and the top seven for the tag.
    #[test]
    fn partitions_of_a_topic_are_spread() {
        let hasher = BuildHasherDefault::<IdHasher>::default();
        let topic = uuid::Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        let hashes: Vec<u64> = (0..4096).map(|index| hasher.hash_one(PartitionId { topic, index })).collect();
        let places: BTreeSet<u64> = hashes.iter().map(|hash| hash & 4095).collect();
        let tags: BTreeSet<u64> = hashes.iter().map(|hash| hash >> 57).collect();
        // A random function hits 63 % of the places.
        assert!(places.len() > 2_400, "{} of 4096 places", places.len());
        assert!(tags.len() > 100, "{} of 128 tags", tags.len());
    }
}
