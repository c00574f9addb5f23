//! The usage of each segment: live batches, and verdicts on live batches of other segments. Runs are listed
//! with the segments by their file numbers; they need no verdicts and hold none.
//!
//! May not know: files. It names candidates; the data directory checks the rest before it unlinks.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::ids::{RaftIndex, ReplicaId};
use ottla_env::mutants::{self, Bug};
use ottla_env::rt;

/// First and last Raft index.
pub(crate) type IndexRange = (RaftIndex, RaftIndex);

/// The Raft entries that have batches or verdicts in a segment; its `.idx` file lists them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SegmentRanges {
    /// Entries with an accepted batch in the segment, by replica.
    pub(crate) entries: BTreeMap<ReplicaId, IndexRange>,
    /// Verdict frames in the segment, by replica.
    pub(crate) verdicts: BTreeMap<ReplicaId, IndexRange>,
}

/// Widens a range.
pub(crate) fn widen(ranges: &mut BTreeMap<ReplicaId, IndexRange>, replica: ReplicaId, index: RaftIndex) {
    let range = ranges.entry(replica).or_insert((index, index));
    *range = (range.0.min(index), range.1.max(index));
}

/// The usage of one segment.
#[derive(Debug, Default, Clone)]
struct SegmentUse {
    live_bytes: u64,
    /// Batches at or above log start.
    live_batches: u64,
    ranges: SegmentRanges,
    /// Verdict frames were written that may lie in this segment or the next: only reading the segment can tell.
    verdicts_unsure: bool,
    /// The `.idx` file is written.
    indexed: bool,
    /// When its last batch died.
    died_at: Option<rt::Instant>,
}

impl SegmentUse {
    /// True if verdicts here may be on live batches there.
    fn decides_on(&self, holder: &Self) -> bool {
        let forgets = mutants::is_on(Bug::VerdictFramesUnlinked);
        holder.live_batches > 0 && self.decides_on_entries_of(holder) && !forgets
    }

    fn decides_on_entries_of(&self, holder: &Self) -> bool {
        let held = &holder.ranges.entries;
        self.ranges
            .verdicts
            .iter()
            .any(|(replica, decided)| held.get(replica).is_some_and(|held| overlap(*held, *decided)))
    }
}

/// All segments and runs of a directory.
#[derive(Debug, Default)]
pub(crate) struct SegmentTable {
    segments: Mutex<BTreeMap<u64, SegmentUse>>,
}

impl SegmentTable {
    /// Adds live batches to a segment.
    pub(crate) fn add(&self, segment: u64, batches: u64, bytes: u64) {
        if batches == 0 {
            return;
        }
        let mut segments = self.segments.lock();
        let usage = segments.entry(segment).or_default();
        usage.live_bytes += bytes;
        usage.live_batches += batches;
    }

    /// Counts batches of a segment as dead.
    pub(crate) fn remove(&self, segment: u64, batches: u64, bytes: u64) {
        let mut segments = self.segments.lock();
        let Some(usage) = segments.get_mut(&segment) else { return };
        usage.live_bytes = usage.live_bytes.saturating_sub(bytes);
        usage.died_at = Some(rt::now());
        usage.live_batches = usage.live_batches.saturating_sub(batches);
    }

    /// Records that a Raft entry in the segment has an accepted batch.
    pub(crate) fn entry(&self, segment: u64, replica: ReplicaId, index: RaftIndex) {
        widen(&mut self.segments.lock().entry(segment).or_default().ranges.entries, replica, index);
    }

    /// Records that verdicts on these entries were written into segments `first..=last`.
    pub(crate) fn verdicts(&self, first: u64, last: u64, replica: ReplicaId, range: IndexRange) {
        let mut segments = self.segments.lock();
        for segment in first..=last {
            let usage = segments.entry(segment).or_default();
            if first == last {
                widen(&mut usage.ranges.verdicts, replica, range.0);
                widen(&mut usage.ranges.verdicts, replica, range.1);
            } else {
                usage.verdicts_unsure = true;
            }
        }
    }

    /// Sets the ranges of a segment, read from its frames or from its `.idx`.
    pub(crate) fn set_ranges(&self, segment: u64, ranges: SegmentRanges, indexed: bool) {
        let mut segments = self.segments.lock();
        let usage = segments.entry(segment).or_default();
        usage.ranges = ranges;
        usage.verdicts_unsure = false;
        usage.indexed |= indexed;
    }

    /// The ranges of a segment; `None` if only its frames can tell.
    pub(crate) fn ranges(&self, segment: u64) -> Option<SegmentRanges> {
        let segments = self.segments.lock();
        match segments.get(&segment) {
            Some(usage) if usage.verdicts_unsure => None,
            Some(usage) => Some(usage.ranges.clone()),
            None => Some(SegmentRanges::default()),
        }
    }

    /// True if the segment's `.idx` file is written.
    pub(crate) fn is_indexed(&self, segment: u64) -> bool {
        self.segments.lock().get(&segment).is_some_and(|usage| usage.indexed)
    }

    /// Bytes of live batches in a segment.
    pub(crate) fn live_bytes(&self, segment: u64) -> u64 {
        self.segments.lock().get(&segment).map_or(0, |usage| usage.live_bytes)
    }

    /// True if the segment holds neither a live batch nor a verdict on one.
    pub(crate) fn is_dead(&self, segment: u64) -> bool {
        let segments = self.segments.lock();
        let Some(usage) = segments.get(&segment) else { return false };
        if !usage.indexed || usage.live_batches > 0 || usage.verdicts_unsure {
            return false;
        }
        !segments.iter().any(|(other, holder)| *other != segment && usage.decides_on(holder))
    }

    /// The other segments with live batches on which verdicts in this one may decide: it cannot be unlinked before them.
    pub(crate) fn decided_in(&self, segment: u64) -> Vec<u64> {
        let segments = self.segments.lock();
        let Some(usage) = segments.get(&segment) else { return Vec::new() };
        let others = segments.iter().filter(|(other, holder)| **other != segment && usage.decides_on(holder));
        others.map(|(other, _)| *other).collect()
    }

    /// True if verdicts in the segment may be on batches in one of these others, whether they live or not.
    pub(crate) fn may_decide_on(&self, segment: u64, others: &[u64]) -> bool {
        let segments = self.segments.lock();
        let Some(usage) = segments.get(&segment) else { return true };
        let others = others.iter().filter(|other| **other != segment).filter_map(|other| segments.get(other));
        others.into_iter().any(|other| usage.decides_on_entries_of(other))
    }

    /// True if only its live batches and what they need keep the file: its `.idx` is written, and the ranges of its
    /// verdicts are known.
    pub(crate) fn is_known(&self, segment: u64) -> bool {
        self.segments.lock().get(&segment).is_some_and(|usage| usage.indexed && !usage.verdicts_unsure)
    }

    /// When the last batch of the file died.
    pub(crate) fn died_at(&self, segment: u64) -> Option<rt::Instant> {
        self.segments.lock().get(&segment)?.died_at
    }

    /// Drops a segment that was unlinked.
    pub(crate) fn forget(&self, segment: u64) {
        self.segments.lock().remove(&segment);
    }
}

fn overlap(a: IndexRange, b: IndexRange) -> bool {
    a.0 <= b.1 && b.0 <= a.1
}

#[cfg(test)]
mod tests {
    use super::*;

    const R: ReplicaId = ReplicaId(7);

    fn indexed(table: &SegmentTable, segment: u64) {
        let ranges = table.ranges(segment).unwrap_or_default();
        table.set_ranges(segment, ranges, true);
    }

    #[test]
    fn verdicts_of_live_data_keep_their_segment() {
        let table = SegmentTable::default();
        table.add(1, 2, 200);
        table.entry(1, R, RaftIndex(5));
        table.entry(1, R, RaftIndex(6));
        table.verdicts(2, 2, R, (RaftIndex(6), RaftIndex(9)));
        indexed(&table, 1);
        indexed(&table, 2);
        assert!(!table.is_dead(1));
        assert!(!table.is_dead(2), "the offsets of segment 1 could no longer be read back");
        table.remove(1, 2, 200);
        assert!(table.is_dead(1));
        assert!(table.is_dead(2));
    }

    #[test]
    fn a_segment_without_its_index_file_is_never_dead() {
        let table = SegmentTable::default();
        table.entry(3, R, RaftIndex(1));
        assert!(!table.is_dead(3));
        assert!(!table.is_dead(4), "nothing is deleted because it is unknown");
        indexed(&table, 3);
        assert!(table.is_dead(3));
    }

    #[test]
    fn verdicts_over_a_roll_make_both_segments_unsure() {
        let table = SegmentTable::default();
        table.verdicts(4, 5, R, (RaftIndex(1), RaftIndex(3)));
        assert_eq!(table.ranges(4), None);
        assert_eq!(table.ranges(5), None);
        table.set_ranges(4, SegmentRanges::default(), true);
        assert!(table.is_dead(4));
    }
}
