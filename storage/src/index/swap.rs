//! What the rewriter asks of the index: which lines of some files live, and to let lines of runs stand in for them.
//!
//! May not know: why files were chosen.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::batch_index::BatchIndex;
use super::file::Opened;
use super::partition::Gap;
use super::piece::Piece;
use super::{ExtentKey, IndexError};
use crate::ids::RunId;

impl BatchIndex {
    /// The first of these offsets of which nothing is known.
    pub(crate) fn gap(&self, key: ExtentKey, offsets: Range<i64>) -> Option<Gap> {
        self.partition(key)?.read().gap(&offsets)
    }

    /// The partition's log start; 0 if it is not known.
    pub(crate) fn log_start(&self, key: ExtentKey) -> i64 {
        self.partition(key).map_or(0, |partition| partition.read().log_start)
    }

    /// The pieces with live batches that lie in these files, by partition, in offset order.
    pub(crate) fn live_pieces(&self, files: &BTreeSet<u64>) -> Vec<(ExtentKey, Piece)> {
        let mut pieces = Vec::new();
        for (key, partition) in self.all() {
            let partition = partition.read();
            let live = partition.pieces.iter().filter(|piece| files.contains(&piece.segment) && piece.live_lines() > 0);
            pieces.extend(live.map(|piece| (key, piece.clone())));
        }
        pieces
    }

    /// Live bytes by file that will soon die by themselves: the oldest batches of partitions whose log start moves.
    pub(crate) fn dying_bytes(&self, moves: impl Fn(ExtentKey) -> bool) -> BTreeMap<u64, u64> {
        let mut dying = BTreeMap::new();
        for (key, partition) in self.all() {
            let partition = partition.read();
            let oldest = partition.pieces.iter().find(|piece| piece.live_lines() > 0);
            if let Some(piece) = oldest.filter(|_| partition.log_start > 0 && moves(key)) {
                *dying.entry(piece.segment).or_default() += piece.live_bytes();
            }
        }
        dying
    }

    /// From now on what the index of this segment lists does not count: its live batches lie in runs.
    pub(crate) fn set_rewritten(&self, segment: u64) {
        self.rewritten.lock().insert(segment);
        // Nobody asks for its lines any more, so it needs no index to be unlinked.
        let ranges = self.table.ranges(segment).unwrap_or_default();
        self.table.set_ranges(segment, ranges, true);
    }

    /// True if the segment's live batches lie in runs.
    pub(crate) fn is_rewritten(&self, segment: u64) -> bool {
        self.rewritten.lock().contains(&segment)
    }

    /// True if every live line of the files that is needed is among those of the runs: asked before the files are given up.
    pub(crate) fn stands_in(
        &self,
        files: &BTreeSet<u64>,
        is_needed: impl Fn(ExtentKey) -> bool,
        opened: &[(RunId, Opened)],
    ) -> bool {
        let mut ranges: BTreeMap<ExtentKey, Vec<(i64, i64)>> = BTreeMap::new();
        for (key, piece) in opened.iter().flat_map(|(_, opened)| &opened.pieces) {
            ranges.entry(*key).or_default().push((piece.base_offset, piece.end_offset));
        }
        ranges.values_mut().for_each(|ranges| ranges.sort_unstable());
        self.live_pieces(files).into_iter().filter(|(key, _)| is_needed(*key)).all(|(key, piece)| {
            let mut at = piece.base_offset.max(self.log_start(key));
            for (base, end) in ranges.get(&key).into_iter().flatten() {
                if *base <= at {
                    at = at.max(*end);
                }
            }
            at >= piece.end_offset
        })
    }

    /// Lines of runs take the place of those of other files: for each partition at one moment. The caller sees to it that
    /// nobody installs an index of these files meanwhile. An error means that something is still to be counted.
    pub(crate) fn swap(&self, gone: &BTreeSet<u64>, opened: Vec<(RunId, Opened)>) -> Result<(), IndexError> {
        gone.iter().filter(|file| RunId::of_file(**file).is_none()).for_each(|segment| self.set_rewritten(*segment));
        let mut new: BTreeMap<ExtentKey, Vec<Piece>> = BTreeMap::new();
        for (run, opened) in opened {
            self.table.set_ranges(run.file_number(), opened.ranges, true);
            for (key, piece) in opened.pieces {
                new.entry(key).or_default().push(piece);
            }
        }
        let mut outcome = Ok(());
        for (key, partition) in self.all() {
            let pieces = new.remove(&key);
            let mut partition = partition.write();
            let old = partition.pieces.iter().filter(|piece| gone.contains(&piece.segment));
            for piece in old {
                self.table.remove(piece.segment, key.replica, u64::from(piece.live_lines()), piece.live_bytes());
            }
            partition.pieces.retain(|piece| !gone.contains(&piece.segment));
            for piece in pieces.into_iter().flatten() {
                outcome = outcome.and(self.insert(key, &mut partition, piece));
            }
        }
        outcome
    }
}
