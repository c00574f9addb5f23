//! Index operations of the rewriter: lists the live slices of some files, and replaces them by slices of runs.
//!
//! May not know: why files were chosen.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use ottla_protocol::ids::Offset;

use super::batch_index::BatchIndex;
use super::file::Opened;
use super::partition::{Gap, PartitionIndex};
use super::segment_slice::SegmentSlice;
use super::{Access, ExtentKey, IndexError};
use crate::ids::RunId;

impl BatchIndex {
    /// The first gap in these offsets.
    pub(crate) fn gap(&self, key: ExtentKey, offsets: Range<Offset>) -> Option<Gap> {
        self.partition(key)?.read().gap(&offsets)
    }

    /// The partition's log start offset; 0 if the partition is not known.
    pub(crate) fn log_start(&self, key: ExtentKey) -> Offset {
        self.partition(key).map_or(Offset(0), |partition| partition.read().log_start)
    }

    /// The slices with live batches that lie in these files, by partition, in offset order.
    pub(crate) fn live_slices(&self, files: &BTreeSet<u64>) -> Vec<(ExtentKey, SegmentSlice)> {
        let mut slices = Vec::new();
        for (key, partition) in self.all() {
            let partition = partition.read();
            let live =
                partition.slices.iter().filter(|slice| files.contains(&slice.segment) && slice.live_entries() > 0);
            slices.extend(live.map(|slice| (key, slice.clone())));
        }
        slices
    }

    /// Live bytes by file that will soon be dead without a rewrite: the oldest slices of partitions whose log start
    /// moves; of those that are compacted what lies above the horizon, which the next pass takes along.
    pub(crate) fn dying_bytes(&self, moves: impl Fn(ExtentKey) -> bool) -> BTreeMap<u64, u64> {
        let mut dying = BTreeMap::new();
        for (key, partition) in self.all() {
            let partition = partition.read();
            let (moves, done) = (partition.log_start > Offset(0) && moves(key), partition.pass_done());
            let live = partition.slices.iter().filter(|slice| slice.live_entries() > 0);
            for (place, slice) in live.enumerate() {
                let is_dirty = done.is_some_and(|done| slice.base_offset >= done.pass.horizon);
                if is_dirty || (place == 0 && moves) {
                    *dying.entry(slice.segment).or_default() += slice.live_bytes();
                }
            }
        }
        dying
    }

    /// Marks a segment as rewritten: its index does not count any more, since its live batches lie in runs.
    pub(crate) fn set_rewritten(&self, segment: u64) {
        self.rewritten.lock().insert(segment);
        // Its entries are not needed any more, so it can be unlinked without an index file.
        let ranges = self.table.ranges(segment).unwrap_or_default();
        self.table.set_ranges(segment, ranges, true);
    }

    /// True if the segment's live batches lie in runs.
    pub(crate) fn is_rewritten(&self, segment: u64) -> bool {
        self.rewritten.lock().contains(&segment)
    }

    /// True if the runs list every live entry of the files that is needed; checked before the files are given up.
    pub(crate) fn covers_live(
        &self,
        files: &BTreeSet<u64>,
        is_needed: impl Fn(ExtentKey) -> bool,
        opened: &[(RunId, Opened)],
    ) -> bool {
        let mut ranges: BTreeMap<ExtentKey, Vec<(Offset, Offset)>> = BTreeMap::new();
        for (key, slice) in opened.iter().flat_map(|(_, opened)| &opened.slices) {
            ranges.entry(*key).or_default().push((slice.base_offset, slice.end_offset));
        }
        ranges.values_mut().for_each(|ranges| ranges.sort_unstable());
        self.live_slices(files).into_iter().filter(|(key, _)| is_needed(*key)).all(|(key, slice)| {
            let mut at = slice.base_offset.max(self.log_start(key));
            for (base, end) in ranges.get(&key).into_iter().flatten() {
                if *base <= at {
                    at = at.max(*end);
                }
            }
            at >= slice.end_offset
        })
    }

    /// Replaces the slices of the files `gone` by those of runs, atomically for each partition. The caller ensures that
    /// no other task installs an index of these files meanwhile. An error means that something is still to be counted.
    pub(crate) fn replace(&self, gone: &BTreeSet<u64>, opened: Vec<(RunId, Opened)>) -> Result<(), IndexError> {
        gone.iter().filter(|file| RunId::of_file(**file).is_none()).for_each(|segment| self.set_rewritten(*segment));
        let mut new: BTreeMap<ExtentKey, Vec<SegmentSlice>> = BTreeMap::new();
        for (run, opened) in opened {
            self.table.set_ranges(run.file_number(), opened.ranges, true);
            for (key, slice) in opened.slices {
                new.entry(key).or_default().push(slice);
            }
        }
        let mut outcome = Ok(());
        for (key, partition) in self.all() {
            let slices = new.remove(&key);
            outcome = outcome.and(self.replace_in(key, &mut partition.write(), gone, slices));
            outcome = outcome.and(self.settle(&partition, Access::MayBlock));
        }
        outcome
    }

    fn replace_in(
        &self,
        key: ExtentKey,
        partition: &mut PartitionIndex,
        gone: &BTreeSet<u64>,
        slices: Option<Vec<SegmentSlice>>,
    ) -> Result<(), IndexError> {
        for slice in partition.slices.iter().filter(|slice| gone.contains(&slice.segment)) {
            self.table.remove(slice.segment, u64::from(slice.live_entries()), slice.live_bytes());
        }
        partition.slices.retain(|slice| !gone.contains(&slice.segment));
        let mut outcome = Ok(());
        for slice in slices.into_iter().flatten() {
            outcome = outcome.and(self.insert(key, partition, slice));
        }
        outcome
    }
}
