//! The index read back from frames and verdict frames: for segments whose `.idx` is missing, damaged or not yet due.
//!
//! Frames must be told in log order: an entry voids all earlier ones at its index and above, and it is final once verdicts
//! on its log id are seen. Verdicts on another term at its index say that it is void: the segment with the entry that
//! replaced it may be gone. A relocated entry is told again with its old number and voids nothing; verdicts on it name the
//! segment of the copy that counts.

use std::collections::{BTreeMap, BTreeSet};

use super::batch_index::line_of;
use super::file::{SegmentRanges, widen};
use super::line::Line;
use super::piece::{Lines, Piece};
use super::{BatchLine, ExtentKey};
use crate::entry::{Entry, EntryVerdicts, Verdict};
use crate::ids::{LogId, RaftIndex, ReplicaId};
use crate::log::{BatchPlace, FrameBody, FrameSink, ScannedFrame};

/// What one segment turned out to hold.
#[derive(Debug, Default)]
pub(crate) struct SegmentContents {
    pub(crate) ranges: SegmentRanges,
    pub(crate) pieces: BTreeMap<ExtentKey, Vec<Piece>>,
}

impl SegmentContents {
    /// The lines, as the file codec wants them.
    pub(crate) fn lines(&self) -> BTreeMap<ExtentKey, Vec<&[Line]>> {
        self.pieces
            .iter()
            .map(|(key, pieces)| {
                let runs = pieces.iter().filter_map(|piece| match &piece.lines {
                    Lines::Memory(memory) => Some(memory.as_slice()),
                    Lines::File(_) => None,
                });
                (*key, runs.collect())
            })
            .collect()
    }

    fn push(&mut self, key: ExtentKey, batch: &BatchLine) {
        let pieces = self.pieces.entry(key).or_default();
        if pieces.last().is_none_or(|piece| piece.end_offset != batch.base_offset.0) {
            pieces.push(Piece::new(batch.position.segment, batch.base_offset.0));
        }
        if let Some(piece) = pieces.last_mut() {
            let bytes_before = u32::try_from(piece.bytes).unwrap_or(u32::MAX);
            piece.push(Line::new(batch, bytes_before));
        }
    }
}

/// An entry without verdicts so far.
struct Undecided {
    segment: u64,
    sequence: u64,
    entry: Entry,
    places: Vec<BatchPlace>,
}

/// Collects what the frames say of some segments.
pub(crate) struct Rebuild {
    wanted: BTreeSet<u64>,
    /// Verdicts above these are left to replay; `None` takes all.
    applied: Option<BTreeMap<ReplicaId, RaftIndex>>,
    undecided: BTreeMap<ReplicaId, BTreeMap<RaftIndex, Undecided>>,
    contents: BTreeMap<u64, SegmentContents>,
}

impl Rebuild {
    /// Collects `wanted` segments; entries above `applied` will be recorded anew by replay.
    pub(crate) fn new(wanted: BTreeSet<u64>, applied: Option<BTreeMap<ReplicaId, RaftIndex>>) -> Self {
        let contents = wanted.iter().map(|segment| (*segment, SegmentContents::default())).collect();
        Self { wanted, applied, undecided: BTreeMap::new(), contents }
    }

    fn is_applied(&self, replica: ReplicaId, index: RaftIndex) -> bool {
        match &self.applied {
            None => true,
            Some(applied) => applied.get(&replica).is_some_and(|last| index <= *last),
        }
    }

    /// True while the verdicts of some entry have not been seen, so that further segments are to be read.
    pub(crate) fn is_incomplete(&self) -> bool {
        self.undecided.iter().any(|(replica, entries)| entries.keys().any(|index| self.is_applied(*replica, *index)))
    }

    /// What was found.
    pub(crate) fn finish(self) -> BTreeMap<u64, SegmentContents> {
        self.contents
    }

    fn entry(&mut self, frame: &ScannedFrame, entry: &Entry, places: &[BatchPlace]) {
        let undecided = self.undecided.entry(frame.replica).or_default();
        let index = entry.log_id.index;
        let last = undecided.values().next_back().map_or(0, |other| other.sequence);
        if frame.sequence > last {
            undecided.split_off(&index);
        } else {
            // Relocated: what was numbered later stands.
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
        for ((batch, place), verdict) in found.entry.batches.iter().zip(&found.places).zip(&decided.verdicts) {
            if *verdict == Verdict::Rejected {
                continue;
            }
            let Some(line) = line_of(&batch.data, found.entry.clock_ms, *verdict, place.position) else { continue };
            widen(&mut contents.ranges.entries, frame.replica, decided.log_id.index);
            contents.push(ExtentKey { partition: batch.partition, replica: frame.replica }, &line);
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
