//! A partition beside passes of compaction: which of its slices count (design section 12.3).
//!
//! What a pass has made lies in runs, and replaces whatever else lists offsets below its horizon: segments whose frames and index files list
//! what is gone, and older runs. Entries in memory stay until their segment's index file is written, which lists every accepted batch. May
//! not know: what is kept and why.

use std::collections::BTreeMap;

use super::batch_index::BatchIndex;
use super::compacted::Compacted;
use super::file::Opened;
use super::partition::PartitionIndex;
use super::segment_slice::{IndexEntries, SegmentSlice};
use super::{Access, ExtentKey, IndexError};
use crate::compact::{Pass, PassDone};
use crate::ids::RunId;

impl PartitionIndex {
    pub(super) fn pass_done(&self) -> Option<PassDone> {
        self.compacted.as_ref().map(Compacted::done)
    }

    /// True if a pass has replaced the slice, or the front of it.
    pub(super) fn is_replaced(&self, slice: &SegmentSlice) -> bool {
        let of =
            |compacted: &Compacted| compacted.replaces(slice.segment) && slice.base_offset < compacted.pass.horizon;
        self.compacted.as_ref().is_some_and(of)
    }

    /// What is left of a slice that a pass has replaced: its part above the horizon, as a slice with a dead front, or nothing. Reads the
    /// entries of one that reaches over the horizon.
    fn rest_of(&self, slice: &SegmentSlice) -> Result<Option<SegmentSlice>, IndexError> {
        let Some(Compacted { pass: Pass { horizon, .. }, .. }) = self.compacted else { return Ok(Some(slice.clone())) };
        if slice.end_offset <= horizon {
            return Ok(None);
        }
        let dead_entries = slice.entries.first_ending_above(horizon, Access::MayBlock)?;
        let first = slice.entries.get(dead_entries, Access::MayBlock)?;
        // A horizon is the end of a batch.
        if first.base_offset != horizon {
            return Err(IndexError::Damaged { segment: slice.segment });
        }
        let (entries, dead_bytes) = (slice.entries.clone(), u64::from(first.bytes_before));
        let (dead_entries, dead_bytes) = (dead_entries.max(slice.dead_entries), dead_bytes.max(slice.dead_bytes));
        Ok(Some(SegmentSlice { base_offset: horizon, dead_entries, dead_bytes, entries, ..*slice }))
    }

    /// Keeps the entries of a slice that is gone, if they are in memory, for the index file of their segment.
    pub(super) fn set_aside(&mut self, slice: SegmentSlice) {
        if matches!(slice.entries, IndexEntries::Memory(_)) {
            self.aside.push(slice);
        }
    }
}

impl BatchIndex {
    /// The last pass over a lineage.
    pub(crate) fn pass_done(&self, key: ExtentKey) -> Option<PassDone> {
        self.partition(key).and_then(|partition| partition.read().pass_done())
    }

    /// Sets what the checkpoint holds, before any file is read.
    pub(crate) fn set_compacted(&self, compacted: &BTreeMap<ExtentKey, Compacted>) {
        for (key, compacted) in compacted {
            self.partition_or_new(*key).write().compacted = Some(compacted.clone());
        }
    }

    /// Puts the runs of a pass in the place of what lies below its horizon, atomically. An error about a damaged file changes
    /// nothing.
    pub(crate) fn install_compacted(
        &self,
        key: ExtentKey,
        compacted: Compacted,
        opened: &[(RunId, Opened)],
    ) -> Result<(), IndexError> {
        for (run, opened) in opened {
            self.table.set_ranges(run.file_number(), opened.ranges.clone(), true);
        }
        let partition = self.partition_or_new(key);
        let mut guard = partition.write();
        let state = &mut *guard;
        self.drop_replaced(key, state, compacted)?;
        let slices = opened.iter().flat_map(|(_, opened)| &opened.slices).filter(|(of, _)| *of == key);
        for (_, slice) in slices {
            self.insert(key, state, slice.clone())?;
        }
        drop(guard);
        self.settle(&partition, Access::MayBlock)
    }

    /// Sets what a lineage is by a pass that a peer has done, before its batches are installed: what was here below the horizon goes. An
    /// error about a damaged file changes nothing.
    pub(crate) fn begin_imported(&self, key: ExtentKey, compacted: Compacted) -> Result<(), IndexError> {
        self.drop_replaced(key, &mut self.partition_or_new(key).write(), compacted)
    }

    fn drop_replaced(
        &self,
        key: ExtentKey,
        state: &mut PartitionIndex,
        compacted: Compacted,
    ) -> Result<(), IndexError> {
        let former = state.compacted.replace(compacted);
        let rest = |slice| state.is_replaced(slice).then(|| self.rest_of(key, state, slice)).transpose();
        let rests: Result<Vec<_>, IndexError> = state.slices.iter().map(rest).collect();
        let rests = rests.inspect_err(|_| state.compacted = former)?;
        for (slice, rest) in std::mem::take(&mut state.slices).into_iter().zip(rests) {
            let Some(rest) = rest else {
                state.slices.push_back(slice);
                continue;
            };
            self.table.remove(slice.segment, u64::from(slice.live_entries()), slice.live_bytes());
            match rest {
                Some(rest) => {
                    self.table.add(rest.segment, u64::from(rest.live_entries()), rest.live_bytes());
                    state.slices.push_back(rest);
                }
                None => state.set_aside(slice),
            }
        }
        Ok(())
    }

    /// What is left of a slice that a pass has replaced. Its segment is needed as long as a generation of the checkpoint does not have
    /// that pass.
    pub(super) fn rest_of(
        &self,
        key: ExtentKey,
        partition: &PartitionIndex,
        slice: &SegmentSlice,
    ) -> Result<Option<SegmentSlice>, IndexError> {
        let rest = partition.rest_of(slice)?;
        let compacted = partition.compacted.as_ref().filter(|_| RunId::of_file(slice.segment).is_none());
        if let Some(compacted) = compacted {
            self.held.lock().entry(slice.segment).or_default().insert(key, compacted.number);
        }
        Ok(rest)
    }

    /// The segments of which a generation of the checkpoint with these passes needs what was compacted since.
    pub(crate) fn held_by_passes(&self, older: Option<&BTreeMap<ExtentKey, Compacted>>) -> Vec<u64> {
        let mut held = self.held.lock();
        let has = |key: &ExtentKey, number: u64| {
            older.is_some_and(|older| older.get(key).is_some_and(|compacted| compacted.number >= number))
        };
        held.retain(|_, passes| {
            passes.retain(|key, number| !has(key, *number));
            !passes.is_empty()
        });
        held.keys().copied().collect()
    }
}
