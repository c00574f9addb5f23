//! What a pass of compaction could go over: bytes below and above the horizon of the last one.
//!
//! May not know: when a pass is due.

use ottla_protocol::ids::Offset;

use super::batch_index::BatchIndex;
use super::partition::PartitionIndex;
use super::segment_slice::{IndexEntries, SegmentSlice};
use super::{Access, ExtentKey, IndexError};

/// A partition beside a horizon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DirtyBytes {
    /// Bytes of the batches below the horizon.
    pub clean: u64,
    /// Bytes of those above it that may be compacted.
    pub dirty: u64,
    /// The end of the last one of them; the horizon, if there are none.
    pub end: Offset,
    /// The greatest timestamp of the first one of them.
    pub first_ms: Option<i64>,
}

/// What of a slice may be compacted: the bytes of its live batches that end at or below `up_to`, before the first that is not older than
/// `before_ms`; and where these end.
fn part_of(slice: &SegmentSlice, up_to: Offset, before_ms: i64, access: Access) -> Result<(u64, Offset), IndexError> {
    let (entries, mut count) = (&slice.entries, slice.entries.count());
    if let Some(young) = entries.first_at_or_after(slice.dead_entries, before_ms, access)? {
        count = entries.first_ending_above(young.base_offset, access)?;
    }
    if slice.end_offset > up_to {
        count = count.min(entries.first_ending_above(up_to, access)?);
    }
    let Some(last) = count.checked_sub(1).filter(|last| *last >= slice.dead_entries) else {
        return Ok((0, slice.base_offset));
    };
    let last = entries.get(last, access)?;
    Ok((last.bytes_through().saturating_sub(slice.dead_bytes), last.end_offset()))
}

/// Sums up whole slices, and the part of the one in which it ends; returns that one if its entries are in a file.
fn in_memory(
    partition: &PartitionIndex,
    horizon: Offset,
    up_to: Offset,
    before_ms: i64,
) -> Result<(DirtyBytes, Option<SegmentSlice>), IndexError> {
    let mut found = DirtyBytes { end: horizon, ..DirtyBytes::default() };
    for slice in partition.slices.iter().filter(|slice| slice.live_entries() > 0) {
        if slice.base_offset < horizon {
            found.clean += slice.live_bytes();
        } else if slice.end_offset <= up_to && slice.max_timestamp_ms < before_ms {
            found.add((slice.live_bytes(), slice.end_offset));
        } else if slice.base_offset >= up_to {
            break;
        } else if matches!(slice.entries, IndexEntries::File(_)) {
            return Ok((found, Some(slice.clone())));
        } else {
            found.add(part_of(slice, up_to, before_ms, Access::Resident)?);
            break;
        }
    }
    Ok((found, None))
}

impl DirtyBytes {
    fn add(&mut self, (bytes, end): (u64, Offset)) {
        self.dirty += bytes;
        self.end = self.end.max(end);
    }
}

impl BatchIndex {
    /// See [`crate::data_dir::DataDir::dirty_bytes`].
    pub(crate) fn dirty_bytes(
        &self,
        key: ExtentKey,
        horizon: Offset,
        up_to: Offset,
        before_ms: i64,
        access: Access,
    ) -> Result<DirtyBytes, IndexError> {
        self.settle_one(key, access)?;
        let Some(partition) = self.partition(key) else { return Ok(DirtyBytes { end: horizon, ..Default::default() }) };
        let (mut found, inside) = in_memory(&partition.read(), horizon, up_to, before_ms)?;
        if let Some(slice) = inside {
            found.add(part_of(&slice, up_to, before_ms, access)?);
        }
        if found.end > horizon {
            found.first_ms =
                self.at(key, horizon.max(self.log_start(key)), access)?.map(|first| first.max_timestamp_ms);
        }
        Ok(found)
    }
}
