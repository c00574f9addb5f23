//! Searches by time and by size: ListOffsets and retention.
//!
//! Lines in memory are searched under the partition's lock; pieces whose lines are in files are copied (a few words
//! each) and searched without it, so that a slow disk never holds up an apply.

use ottla_protocol::ids::Offset;

use super::batch_index::{BatchIndex, Bounds};
use super::partition::PartitionIndex;
use super::piece::{Lines, Piece};
use super::{Access, BatchLine, ExtentKey, IndexError};

/// What a look under the lock gave: pieces to be searched in files first, then the answer from memory.
struct ByTime {
    in_files: Vec<Piece>,
    otherwise: Option<BatchLine>,
}

fn by_time_in_memory(partition: &PartitionIndex, timestamp_ms: i64) -> Result<ByTime, IndexError> {
    let mut in_files = Vec::new();
    for piece in &partition.pieces {
        if piece.live_lines() == 0 || piece.max_timestamp_ms < timestamp_ms {
            continue;
        }
        if matches!(piece.lines, Lines::File(_)) {
            in_files.push(piece.clone());
            if piece.dead_lines == 0 {
                return Ok(ByTime { in_files, otherwise: None });
            }
        } else if let Some(line) = piece.lines.first_at_or_after(piece.dead_lines, timestamp_ms, Access::Resident)? {
            return Ok(ByTime { in_files, otherwise: Some(line.batch(piece.segment)) });
        }
    }
    let otherwise = partition.live_unplaced().find(|line| line.max_timestamp_ms >= timestamp_ms).copied();
    Ok(ByTime { in_files, otherwise })
}

/// Greatest timestamp among the live lines of a piece.
fn newest_of(piece: &Piece, access: Access) -> Result<i64, IndexError> {
    if piece.dead_lines == 0 {
        return Ok(piece.max_timestamp_ms);
    }
    // It may lie among the dead lines: climb from line to line with a greater one.
    let mut newest = i64::MIN;
    while let Some(line) = piece.lines.first_at_or_after(piece.dead_lines, newest.saturating_add(1), access)? {
        newest = line.max_timestamp_ms;
        if newest >= piece.max_timestamp_ms {
            break;
        }
    }
    Ok(newest)
}

/// End of the longest run of live lines at the front of a piece that sum up to at most `excess` bytes.
fn end_within(piece: &Piece, excess: u64, access: Access) -> Result<Option<i64>, IndexError> {
    let (mut low, mut high) = (piece.dead_lines, piece.lines.count());
    while low < high {
        let middle = low + (high - low) / 2;
        if piece.lines.get(middle, access)?.bytes_through().saturating_sub(piece.dead_bytes) <= excess {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if low == piece.dead_lines { Ok(None) } else { Ok(Some(piece.lines.get(low - 1, access)?.end_offset())) }
}

/// What a look under the lock says of retention by size: the point so far, and the piece in which it lies.
struct BySize {
    point: i64,
    inside: Option<(Piece, u64)>,
}

fn by_size_in_memory(partition: &PartitionIndex, bytes_max: u64) -> Result<BySize, IndexError> {
    let mut excess = partition.live_bytes().saturating_sub(bytes_max);
    let mut point = partition.log_start;
    for piece in partition.pieces.iter().filter(|piece| piece.live_lines() > 0) {
        if piece.live_bytes() > excess {
            if matches!(piece.lines, Lines::File(_)) {
                return Ok(BySize { point, inside: Some((piece.clone(), excess)) });
            }
            let end = end_within(piece, excess, Access::Resident)?;
            return Ok(BySize { point: end.unwrap_or(point), inside: None });
        }
        excess -= piece.live_bytes();
        point = point.max(piece.end_offset);
    }
    for line in partition.live_unplaced() {
        if u64::from(line.bytes) > excess {
            break;
        }
        excess -= u64::from(line.bytes);
        point = line.end_offset().0;
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
    ) -> Result<Option<BatchLine>, IndexError> {
        self.settle_one(key, access)?;
        let Some(partition) = self.partition(key) else { return Ok(None) };
        let look = by_time_in_memory(&partition.read(), timestamp_ms)?;
        for piece in look.in_files {
            if let Some(line) = piece.lines.first_at_or_after(piece.dead_lines, timestamp_ms, access)? {
                return Ok(Some(line.batch(piece.segment)));
            }
        }
        Ok(look.otherwise)
    }

    /// The first batch with the greatest timestamp.
    pub(crate) fn of_max_timestamp(&self, key: ExtentKey, access: Access) -> Result<Option<BatchLine>, IndexError> {
        self.settle_one(key, access)?;
        let Some(partition) = self.partition(key) else { return Ok(None) };
        let (mut newest, partly_dead) = {
            let partition = partition.read();
            let mut newest = partition.live_unplaced().map(|line| line.max_timestamp_ms).max();
            let mut partly_dead = None;
            for piece in partition.pieces.iter().filter(|piece| piece.live_lines() > 0) {
                if piece.dead_lines > 0 && matches!(piece.lines, Lines::File(_)) {
                    partly_dead = Some(piece.clone());
                } else {
                    newest = newest.max(Some(newest_of(piece, Access::Resident)?));
                }
            }
            (newest, partly_dead)
        };
        if let Some(piece) = partly_dead {
            newest = newest.max(Some(newest_of(&piece, access)?));
        }
        newest.map_or(Ok(None), |newest| self.by_time(key, newest, access))
    }

    /// The batch that holds `offset`.
    pub(crate) fn at(&self, key: ExtentKey, offset: i64, access: Access) -> Result<Option<BatchLine>, IndexError> {
        let bounds = Bounds { from: offset, up_to: offset.saturating_add(1), bytes_max: 0, at_least_one: true };
        let found = match self.plan(key, bounds, access) {
            Err(IndexError::Lacking { .. }) => return Ok(None),
            found => found?,
        };
        Ok(found.first().map(|planned| planned.line).filter(|line| line.base_offset <= Offset(offset)))
    }

    /// The log start that retention wants; see `DataDir::retention_point`.
    pub(crate) fn retention_point(
        &self,
        key: ExtentKey,
        up_to: i64,
        cutoff_ms: Option<i64>,
        bytes_max: Option<u64>,
        access: Access,
    ) -> Result<Option<i64>, IndexError> {
        let Some(partition) = self.partition(key) else { return Ok(None) };
        self.settle_one(key, access)?;
        let (log_start, end) = {
            let partition = partition.read();
            (partition.log_start, partition.end_offset())
        };
        let mut point = log_start;
        if let (Some(cutoff_ms), Some(end)) = (cutoff_ms, end) {
            let kept = self.by_time(key, cutoff_ms, access)?;
            point = point.max(kept.map_or(end, |line| line.base_offset.0));
        }
        if let Some(bytes_max) = bytes_max {
            let look = by_size_in_memory(&partition.read(), bytes_max)?;
            point = point.max(look.point);
            if let Some((piece, excess)) = look.inside {
                point = point.max(end_within(&piece, excess, access)?.unwrap_or(point));
            }
        }
        // Only whole batches below `up_to` go.
        if point > up_to {
            point = self.at(key, up_to, access)?.map_or(up_to, |line| line.base_offset.0);
        }
        Ok((point > log_start).then_some(point))
    }
}
