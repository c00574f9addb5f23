//! Rebuilds the index from frames and verdict frames: for segments whose `.idx` file is missing, damaged or not yet
//! due.
//!
//! Frames must be passed in log order: an entry voids all earlier ones at its index and above, and it is final once
//! verdicts on its log id are seen. Verdicts on another term at its index mean that it is void: the segment with the
//! entry that replaced it may be gone. A relocated entry is passed again with its old number and voids nothing;
//! verdicts on it name the segment of the copy that counts.

use std::collections::{BTreeMap, BTreeSet};

use super::batch_index::indexed_batch_of;
use super::index_entry::IndexEntry;
use super::segment_slice::{IndexEntries, SegmentSlice};
use super::{ExtentKey, IndexedBatch};
use crate::entry::{Entry, EntryVerdicts, Verdict};
use crate::ids::{Lineage, LogId, RaftIndex, ReplicaId};
use crate::log::{BatchPlace, FrameBody, FrameSink, ScannedFrame};
use crate::space::table::{SegmentRanges, widen};

/// The index of one segment, as rebuilt.
#[derive(Debug, Default)]
pub(crate) struct SegmentContents {
    pub(crate) ranges: SegmentRanges,
    pub(crate) slices: BTreeMap<ExtentKey, Vec<SegmentSlice>>,
}

impl SegmentContents {
    /// The index entries, in the form that the file codec takes.
    pub(crate) fn entries(&self) -> BTreeMap<ExtentKey, Vec<&[IndexEntry]>> {
        self.slices
            .iter()
            .map(|(key, slices)| {
                let runs = slices.iter().filter_map(|slice| match &slice.entries {
                    IndexEntries::Memory(memory) => Some(memory.as_slice()),
                    IndexEntries::File(_) => None,
                });
                (*key, runs.collect())
            })
            .collect()
    }

    /// The contents of a segment with these batches, in any order: a partition's may be decided by several writers.
    fn new(ranges: SegmentRanges, mut batches: Vec<(ExtentKey, IndexedBatch)>) -> Self {
        let mut contents = Self { ranges, slices: BTreeMap::new() };
        batches.sort_by_key(|(key, batch)| (*key, batch.base_offset));
        batches.iter().for_each(|(key, batch)| contents.push(*key, batch));
        contents
    }

    fn push(&mut self, key: ExtentKey, batch: &IndexedBatch) {
        let slices = self.slices.entry(key).or_default();
        if slices.last().is_none_or(|slice| slice.end_offset != batch.base_offset) {
            slices.push(SegmentSlice::new(batch.position.segment, batch.base_offset));
        }
        if let Some(slice) = slices.last_mut() {
            let bytes_before = u32::try_from(slice.bytes).unwrap_or(u32::MAX);
            slice.push(IndexEntry::new(batch, bytes_before));
        }
    }
}

/// A Raft entry without verdicts so far.
struct Undecided {
    segment: u64,
    sequence: u64,
    entry: Entry,
    places: Vec<BatchPlace>,
}

/// The index of one segment, while its frames are read.
#[derive(Debug, Default)]
struct Collected {
    ranges: SegmentRanges,
    batches: Vec<(ExtentKey, IndexedBatch)>,
}

/// What a rebuild takes of each writer.
#[derive(Debug, Clone)]
pub(crate) enum Take {
    /// All that is decided.
    All,
    /// What the checkpoint contains; the rest is recorded by replay.
    Applied {
        /// The last entry of each replica that it contains.
        upto: BTreeMap<ReplicaId, RaftIndex>,
        /// The replicas that are here. All verdicts of others count, where what they wrote may belong to one that is here;
        /// `None` where it does not.
        here: Option<BTreeSet<ReplicaId>>,
    },
}

/// Collects the frames of some segments and builds their indexes.
pub(crate) struct Rebuild {
    wanted: BTreeSet<u64>,
    take: Take,
    undecided: BTreeMap<ReplicaId, BTreeMap<RaftIndex, Undecided>>,
    contents: BTreeMap<u64, Collected>,
}

impl Rebuild {
    /// Collects the segments `wanted`.
    pub(crate) fn new(wanted: BTreeSet<u64>, take: Take) -> Self {
        let contents = wanted.iter().map(|segment| (*segment, Collected::default())).collect();
        Self { wanted, take, undecided: BTreeMap::new(), contents }
    }

    fn is_applied(&self, replica: ReplicaId, index: RaftIndex) -> bool {
        match &self.take {
            Take::All => true,
            Take::Applied { upto, here } => match upto.get(&replica) {
                Some(last) => index <= *last,
                None => here.as_ref().is_some_and(|here| !here.contains(&replica)),
            },
        }
    }

    /// True while the verdicts of some entry have not been seen, so that further segments are to be read.
    pub(crate) fn is_incomplete(&self) -> bool {
        self.undecided.iter().any(|(replica, entries)| entries.keys().any(|index| self.is_applied(*replica, *index)))
    }

    /// The rebuilt indexes.
    pub(crate) fn finish(self) -> BTreeMap<u64, SegmentContents> {
        let finish = |(segment, found): (u64, Collected)| (segment, SegmentContents::new(found.ranges, found.batches));
        self.contents.into_iter().map(finish).collect()
    }

    fn entry(&mut self, frame: &ScannedFrame, entry: &Entry, places: &[BatchPlace]) {
        let undecided = self.undecided.entry(frame.replica).or_default();
        let index = entry.log_id.index;
        let last = undecided.values().next_back().map_or(0, |other| other.sequence);
        if frame.sequence > last {
            undecided.split_off(&index);
        } else {
            // Relocated: it voids nothing, so entries with later numbers stay.
            let later = undecided.split_off(&index);
            undecided.extend(later.into_iter().filter(|(_, other)| other.sequence > frame.sequence));
        }
        let segment = frame.position.segment;
        if self.wanted.contains(&segment) && !entry.batches.is_empty() {
            let kept = Undecided { segment, sequence: frame.sequence, entry: entry.clone(), places: places.to_vec() };
            undecided.insert(index, kept);
        }
    }

    fn truncate(&mut self, replica: ReplicaId, last: Option<LogId>) {
        let Some(undecided) = self.undecided.get_mut(&replica) else { return };
        match last {
            Some(last) => drop(undecided.split_off(&RaftIndex(last.index.0.saturating_add(1)))),
            None => undecided.clear(),
        }
    }

    fn verdicts(&mut self, frame: &ScannedFrame, decided: &EntryVerdicts) {
        if let Some(contents) = self.contents.get_mut(&frame.position.segment) {
            widen(&mut contents.ranges.verdicts, frame.replica, decided.log_id.index);
        }
        if !self.is_applied(frame.replica, decided.log_id.index) {
            return;
        }
        let Some(found) =
            self.undecided.get_mut(&frame.replica).and_then(|entries| entries.remove(&decided.log_id.index))
        else {
            return;
        };
        let lies_elsewhere = decided.relocated_to.is_some_and(|segment| segment != found.segment);
        if found.entry.log_id != decided.log_id || lies_elsewhere {
            return;
        }
        let fits =
            decided.verdicts.len() == found.entry.batches.len() && found.places.len() == found.entry.batches.len();
        if !fits {
            tracing::error!(
                replica = frame.replica.0,
                index = decided.log_id.index.0,
                "verdicts do not fit their entry: not indexed"
            );
            return;
        }
        let Some(contents) = self.contents.get_mut(&found.segment) else { return };
        let placed = found.entry.batches.iter().zip(&found.places).zip(&decided.verdicts);
        for (number, ((batch, place), verdict)) in placed.enumerate() {
            if *verdict == Verdict::Rejected {
                continue;
            }
            let Some(indexed) = indexed_batch_of(&batch.data, found.entry.clock_ms, *verdict, place.position) else {
                continue;
            };
            widen(&mut contents.ranges.entries, frame.replica, decided.log_id.index);
            let moved = decided.lineages.get(number).copied().flatten();
            let lineage = moved.unwrap_or(Lineage::of(frame.replica));
            contents.batches.push((ExtentKey { partition: batch.partition, lineage }, indexed));
        }
    }
}

impl FrameSink for Rebuild {
    fn frame(&mut self, frame: &ScannedFrame, batches: &[BatchPlace]) {
        match &frame.body {
            FrameBody::Entry(entry) => self.entry(frame, entry, batches),
            FrameBody::Truncate(last) => self.truncate(frame.replica, *last),
            FrameBody::Verdicts(decided) => decided.iter().for_each(|one| self.verdicts(frame, one)),
            FrameBody::Remove => drop(self.undecided.remove(&frame.replica)),
            FrameBody::Vote(_) | FrameBody::Purge(_) | FrameBody::Create(_) | FrameBody::Lost => {}
        }
    }
}
