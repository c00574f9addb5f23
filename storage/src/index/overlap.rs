//! Overlapping slices: a batch that is stored in two files is listed once.
//!
//! After a restart a replica may install a snapshot over frames whose verdicts are in the log but which are not applied
//! again yet: the snapshot brings the same batches in runs, and from the next start on both count. Which of the two is
//! listed does not matter, since offsets are never reused with other content (I2). May not know: the table of live
//! bytes.

use super::index_entry::IndexEntry;
use super::partition::PartitionIndex;
use super::segment_slice::SegmentSlice;
use super::{Access, IndexError};

/// How a new slice fits into those of the partition.
pub(super) struct Resolved {
    /// Known slices that lie within the new one: they are removed.
    pub(super) replaced: Vec<SegmentSlice>,
    /// What is to be added: mostly the new slice as it is.
    pub(super) missing: Vec<SegmentSlice>,
}

fn is_within(inner: &SegmentSlice, outer: &SegmentSlice) -> bool {
    inner.base_offset >= outer.base_offset && inner.end_offset <= outer.end_offset
}

impl PartitionIndex {
    /// Removes known slices that lie within the new one, and returns the parts of the new one that no other slice
    /// lists. Reads the entries of the new slice if it shares only a part with another.
    pub(super) fn resolve_overlap(&mut self, slice: SegmentSlice) -> Result<Resolved, IndexError> {
        let first = self.slice_above(slice.base_offset);
        let end = self.slices.partition_point(|known| known.base_offset < slice.end_offset).max(first);
        if self.slices.range(first..end).any(|known| is_within(&slice, known)) {
            return Ok(Resolved { replaced: Vec::new(), missing: Vec::new() });
        }
        let (replaced, kept): (Vec<_>, Vec<_>) =
            self.slices.range(first..end).cloned().partition(|known| is_within(known, &slice));
        let missing = if kept.is_empty() { vec![slice] } else { missing_from(&kept, &slice)? };
        self.slices.retain(|known| !replaced.iter().any(|replaced| replaced.covers_as(known)));
        Ok(Resolved { replaced, missing })
    }
}

/// The entries of a slice that none of the known ones lists.
fn missing_from(known: &[SegmentSlice], slice: &SegmentSlice) -> Result<Vec<SegmentSlice>, IndexError> {
    let mut missing: Vec<SegmentSlice> = Vec::new();
    for entry in slice.entries.range(0, slice.entries.count(), Access::MayBlock)? {
        if known.iter().any(|known| known.base_offset < entry.end_offset() && entry.base_offset < known.end_offset) {
            continue;
        }
        if missing.last().is_none_or(|slice| slice.end_offset != entry.base_offset) {
            missing.push(SegmentSlice::new(slice.segment, entry.base_offset));
        }
        if let Some(missing) = missing.last_mut() {
            let bytes_before = u32::try_from(missing.bytes).unwrap_or(u32::MAX);
            missing.push(IndexEntry { bytes_before, ..entry });
        }
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use ottla_protocol::ids::Offset;

    /// Two records a batch.
    fn slice(segment: u64, from: i64, to: i64) -> SegmentSlice {
        let mut slice = SegmentSlice::new(segment, Offset(from));
        for base_offset in (from..to).step_by(2) {
            let bytes_before = u32::try_from(slice.bytes).unwrap();
            let (byte, bytes, record_count) = (bytes_before, 10, 2);
            slice.push(IndexEntry {
                base_offset: Offset(base_offset),
                max_timestamp_ms: 0,
                byte,
                bytes,
                record_count,
                epoch: 1,
                bytes_before,
            });
        }
        slice
    }

    fn extents(slices: &[SegmentSlice]) -> Vec<(u64, i64, i64, u64)> {
        slices.iter().map(|slice| (slice.segment, slice.base_offset.0, slice.end_offset.0, slice.bytes)).collect()
    }

    #[test]
    fn each_offset_is_listed_once() {
        let mut partition = PartitionIndex::default();
        partition.insert(slice(1, 10, 20));
        partition.insert(slice(2, 24, 40));
        let mut resolved = |from, to| {
            let resolved = partition.resolve_overlap(slice(9, from, to)).unwrap();
            (extents(&resolved.replaced), extents(&resolved.missing))
        };
        assert_eq!(resolved(40, 50), (vec![], vec![(9, 40, 50, 50)]), "it touches");
        assert_eq!(resolved(20, 24), (vec![], vec![(9, 20, 24, 20)]), "it fits between");
        assert_eq!(resolved(24, 40), (vec![], vec![]), "it is known");
        assert_eq!(resolved(12, 14), (vec![], vec![]), "it is known, as a part");
        assert_eq!(resolved(30, 44), (vec![], vec![(9, 40, 44, 20)]), "a part is known");
        assert_eq!(
            resolved(0, 30),
            (vec![(1, 10, 20, 50)], vec![(9, 0, 24, 120)]),
            "it holds one, and a part of another"
        );
        assert_eq!(resolved(22, 42), (vec![(2, 24, 40, 80)], vec![(9, 22, 42, 100)]), "it holds one");
        assert_eq!(extents(&partition.slices.iter().cloned().collect::<Vec<_>>()), []);
    }
}
