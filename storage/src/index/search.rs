//! Searches by time and by size, for ListOffsets and retention.
//!
//! Entries in memory are searched under the partition's lock; slices whose entries are in files are copied (a few words
//! each) and searched without it, so that a slow disk never delays an apply.

use ottla_protocol::ids::Offset;

use super::batch_index::BatchIndex;
use super::partition::{PartitionIndex, Step};
use super::segment_slice::{IndexEntries, SegmentSlice};
use super::{Access, ExtentKey, IndexError, IndexedBatch};

/// Result of the search under the lock: slices whose files are to be searched first, then the result from memory.
struct ByTime {
    in_files: Vec<SegmentSlice>,
    otherwise: Option<IndexedBatch>,
}

fn by_time_in_memory(partition: &PartitionIndex, timestamp_ms: i64) -> Result<ByTime, IndexError> {
    let mut in_files = Vec::new();
    for slice in &partition.slices {
        if slice.live_entries() == 0 || slice.max_timestamp_ms < timestamp_ms {
            continue;
        }
        if matches!(slice.entries, IndexEntries::File(_)) {
            in_files.push(slice.clone());
            if slice.dead_entries == 0 {
                return Ok(ByTime { in_files, otherwise: None });
            }
        } else if let Some(entry) =
            slice.entries.first_at_or_after(slice.dead_entries, timestamp_ms, Access::Resident)?
        {
            return Ok(ByTime { in_files, otherwise: Some(entry.batch(slice.segment)) });
        }
    }
    let otherwise = partition.live_unplaced().find(|entry| entry.max_timestamp_ms >= timestamp_ms).copied();
    Ok(ByTime { in_files, otherwise })
}

/// Greatest timestamp among the live entries of a slice.
fn newest_of(slice: &SegmentSlice, access: Access) -> Result<i64, IndexError> {
    if slice.dead_entries == 0 {
        return Ok(slice.max_timestamp_ms);
    }
    // It may be that of a dead entry: step from live entry to live entry with a greater one.
    let mut newest = i64::MIN;
    while let Some(entry) = slice.entries.first_at_or_after(slice.dead_entries, newest.saturating_add(1), access)? {
        newest = entry.max_timestamp_ms;
        if newest >= slice.max_timestamp_ms {
            break;
        }
    }
    Ok(newest)
}

/// End of the longest run of live entries at the front of a slice that sum up to at most `excess` bytes.
fn end_within(slice: &SegmentSlice, excess: u64, access: Access) -> Result<Option<Offset>, IndexError> {
    let (mut low, mut high) = (slice.dead_entries, slice.entries.count());
    while low < high {
        let middle = low + (high - low) / 2;
        if slice.entries.get(middle, access)?.bytes_through().saturating_sub(slice.dead_bytes) <= excess {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if low == slice.dead_entries { Ok(None) } else { Ok(Some(slice.entries.get(low - 1, access)?.end_offset())) }
}

/// Result of retention by size under the lock: the point so far, and the slice in which it lies.
struct BySize {
    point: Offset,
    inside: Option<(SegmentSlice, u64)>,
}

fn by_size_in_memory(partition: &PartitionIndex, bytes_max: u64) -> Result<BySize, IndexError> {
    let mut excess = partition.live_bytes().saturating_sub(bytes_max);
    let mut point = partition.log_start;
    for slice in partition.slices.iter().filter(|slice| slice.live_entries() > 0) {
        if slice.live_bytes() > excess {
            if matches!(slice.entries, IndexEntries::File(_)) {
                return Ok(BySize { point, inside: Some((slice.clone(), excess)) });
            }
            let end = end_within(slice, excess, Access::Resident)?;
            return Ok(BySize { point: end.unwrap_or(point), inside: None });
        }
        excess -= slice.live_bytes();
        point = point.max(slice.end_offset);
    }
    for entry in partition.live_unplaced() {
        if u64::from(entry.bytes) > excess {
            break;
        }
        excess -= u64::from(entry.bytes);
        point = entry.end_offset();
    }
    Ok(BySize { point, inside: None })
}

impl BatchIndex {
    /// The first batch, not wholly below log start, whose greatest timestamp is at least `timestamp_ms`.
    pub(crate) fn by_time(
        &self,
        key: ExtentKey,
        timestamp_ms: i64,
        access: Access,
    ) -> Result<Option<IndexedBatch>, IndexError> {
        self.settle_one(key, access)?;
        let Some(partition) = self.partition(key) else { return Ok(None) };
        let look = by_time_in_memory(&partition.read(), timestamp_ms)?;
        for slice in look.in_files {
            if let Some(entry) = slice.entries.first_at_or_after(slice.dead_entries, timestamp_ms, access)? {
                return Ok(Some(entry.batch(slice.segment)));
            }
        }
        Ok(look.otherwise)
    }

    /// The first batch with the greatest timestamp.
    pub(crate) fn of_max_timestamp(&self, key: ExtentKey, access: Access) -> Result<Option<IndexedBatch>, IndexError> {
        self.settle_one(key, access)?;
        let Some(partition) = self.partition(key) else { return Ok(None) };
        let (mut newest, partly_dead) = {
            let partition = partition.read();
            let mut newest = partition.live_unplaced().map(|entry| entry.max_timestamp_ms).max();
            let mut partly_dead = Vec::new();
            for slice in partition.slices.iter().filter(|slice| slice.live_entries() > 0) {
                if slice.dead_entries > 0 && matches!(slice.entries, IndexEntries::File(_)) {
                    partly_dead.push(slice.clone());
                } else {
                    newest = newest.max(Some(newest_of(slice, Access::Resident)?));
                }
            }
            (newest, partly_dead)
        };
        for slice in &partly_dead {
            newest = newest.max(Some(newest_of(slice, access)?));
        }
        newest.map_or(Ok(None), |newest| self.by_time(key, newest, access))
    }

    /// The batch that holds `offset`.
    pub(crate) fn at(
        &self,
        key: ExtentKey,
        offset: Offset,
        access: Access,
    ) -> Result<Option<IndexedBatch>, IndexError> {
        let Some(partition) = self.partition(key) else { return Ok(None) };
        let step = partition.read().step(offset, offset.plus(1), 0);
        let found = match step {
            Step::End | Step::Missing(_) => None,
            Step::InMemory(entries) => entries.first().copied(),
            Step::Unplaced(batches) => batches.first().map(|unplaced| unplaced.indexed),
            Step::InFile(slice) => {
                let number = slice.entries.first_ending_above(offset, access)?.max(slice.dead_entries);
                let entry = (number < slice.entries.count()).then(|| slice.entries.get(number, access)).transpose()?;
                entry.map(|entry| entry.batch(slice.segment))
            }
        };
        Ok(found.filter(|entry| entry.base_offset <= offset))
    }

    /// The log start offset by retention; see `DataDir::retention_point`.
    pub(crate) fn retention_point(
        &self,
        key: ExtentKey,
        up_to: Offset,
        cutoff_ms: Option<i64>,
        bytes_max: Option<u64>,
        access: Access,
    ) -> Result<Option<Offset>, IndexError> {
        let Some(partition) = self.partition(key) else { return Ok(None) };
        self.settle_one(key, access)?;
        let (log_start, end) = {
            let partition = partition.read();
            (partition.log_start, partition.end_offset())
        };
        let mut point = log_start;
        if let (Some(cutoff_ms), Some(end)) = (cutoff_ms, end) {
            let kept = self.by_time(key, cutoff_ms, access)?;
            point = point.max(kept.map_or(end, |entry| entry.base_offset));
        }
        if let Some(bytes_max) = bytes_max {
            let look = by_size_in_memory(&partition.read(), bytes_max)?;
            point = point.max(look.point);
            if let Some((slice, excess)) = look.inside {
                point = point.max(end_within(&slice, excess, access)?.unwrap_or(point));
            }
        }
        // Only whole batches below `up_to` are deleted.
        if point > up_to {
            point = self.at(key, up_to, access)?.map_or(up_to, |entry| entry.base_offset);
        }
        Ok((point > log_start).then_some(point))
    }
}
