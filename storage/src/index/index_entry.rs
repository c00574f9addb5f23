//! An index entry: one accepted batch. 40 bytes in memory and on disk.
//!
//! ```text
//!  0             8              16     20      24             28      32              36      40
//!  | base offset | max timestamp | byte | bytes | record count | epoch | bytes before  | crc32 |
//! ```
//!
//! All integers are little-endian. `byte` is the batch's position in the segment; `bytes before` sums the lengths of
//! the entries before it in the same slice, so that sizes of any range are two reads. The CRC-32 covers the first 36
//! bytes: an entry read by pread is checked by itself.

use ottla_protocol::ids::{LeaderEpoch, Offset};

use super::IndexedBatch;
use crate::ids::LogPosition;
use ottla_env::mutants::{self, Bug};

/// Bytes of an entry on disk.
pub(crate) const INDEX_ENTRY_BYTES: usize = 40;

const CHECKED_BYTES: usize = 36;

/// One accepted batch within a slice; its segment is the slice's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub(crate) base_offset: Offset,
    pub(crate) max_timestamp_ms: i64,
    pub(crate) byte: u32,
    pub(crate) bytes: u32,
    pub(crate) record_count: u32,
    pub(crate) epoch: i32,
    pub(crate) bytes_before: u32,
}

const _: () = assert!(std::mem::size_of::<IndexEntry>() <= INDEX_ENTRY_BYTES);

impl IndexEntry {
    /// The entry of `batch`, which follows `bytes_before` bytes of its slice.
    pub(crate) fn new(batch: &IndexedBatch, bytes_before: u32) -> Self {
        Self {
            base_offset: batch.base_offset,
            max_timestamp_ms: batch.max_timestamp_ms,
            byte: batch.position.byte,
            bytes: batch.bytes,
            record_count: batch.record_count,
            epoch: batch.epoch.0,
            bytes_before,
        }
    }

    /// The offset after the batch's last.
    pub(crate) fn end_offset(&self) -> Offset {
        self.base_offset.plus(i64::from(self.record_count))
    }

    /// Bytes of the slice up to and including this batch.
    pub(crate) fn bytes_through(&self) -> u64 {
        u64::from(self.bytes_before) + u64::from(self.bytes)
    }

    /// The entry with its segment, for use outside the index.
    pub(crate) fn batch(&self, segment: u64) -> IndexedBatch {
        IndexedBatch {
            base_offset: self.base_offset,
            record_count: self.record_count,
            max_timestamp_ms: self.max_timestamp_ms,
            epoch: LeaderEpoch(self.epoch),
            position: LogPosition { segment, byte: self.byte },
            bytes: self.bytes,
        }
    }

    /// Appends the 40 bytes.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.base_offset.0.to_le_bytes());
        out.extend_from_slice(&self.max_timestamp_ms.to_le_bytes());
        out.extend_from_slice(&self.byte.to_le_bytes());
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.extend_from_slice(&self.record_count.to_le_bytes());
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.bytes_before.to_le_bytes());
        let crc = crc32fast::hash(&out[start..]);
        out.extend_from_slice(&crc.to_le_bytes());
    }

    /// The entry in these bytes; `None` if they are damaged.
    pub(crate) fn decode(bytes: &[u8; INDEX_ENTRY_BYTES]) -> Option<Self> {
        let (checked, crc) = bytes.split_at(CHECKED_BYTES);
        if crc32fast::hash(checked).to_le_bytes() != crc && !mutants::is_on(Bug::IndexCrcNotChecked) {
            return None;
        }
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let i64_at = |at: usize| {
            let mut eight = [0; 8];
            eight.copy_from_slice(&bytes[at..at + 8]);
            i64::from_le_bytes(eight)
        };
        Some(Self {
            base_offset: Offset(i64_at(0)),
            max_timestamp_ms: i64_at(8),
            byte: u32_at(16),
            bytes: u32_at(20),
            record_count: u32_at(24),
            epoch: i32::from_le_bytes([bytes[28], bytes[29], bytes[30], bytes[31]]),
            bytes_before: u32_at(32),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_index_entry_comes_back_and_a_flipped_bit_is_seen(
            base_offset in any::<i64>(), max_timestamp_ms in any::<i64>(), byte in any::<u32>(), bytes in any::<u32>(),
            record_count in any::<u32>(), epoch in any::<i32>(), bytes_before in any::<u32>(), bit in 0..INDEX_ENTRY_BYTES * 8,
        ) {
            let entry = IndexEntry { base_offset: Offset(base_offset), max_timestamp_ms, byte, bytes, record_count, epoch, bytes_before };
            let mut out = Vec::new();
            entry.encode(&mut out);
            let mut image: [u8; INDEX_ENTRY_BYTES] = out.try_into().unwrap();
            prop_assert_eq!(IndexEntry::decode(&image), Some(entry));
            image[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(IndexEntry::decode(&image), None);
        }
    }
}
