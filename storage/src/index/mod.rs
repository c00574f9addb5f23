//! The batch index: where the batches of a partition lie, by offset and by time.
//!
//! Lines are added when an entry is applied, held in memory until their segment's `.idx` is written, and then read from
//! that file. May not know: what a topic is, or why a batch was rejected.

mod batch_index;
pub(crate) mod file;
pub(crate) mod held;
pub(crate) mod line;
mod open_file;
pub(crate) mod partition;
pub(crate) mod piece;
pub(crate) mod rebuild;
mod search;
mod swap;
#[cfg(test)]
mod tests;
mod twice;

use ottla_protocol::ids::{LeaderEpoch, Offset, PartitionId};

pub(crate) use batch_index::{BatchIndex, Bounds, Planned};

use crate::ids::{LogPosition, ReplicaId};

/// A partition as one replica carries it: the unit under which lines are kept.
///
/// After a split the data of one partition lies under several replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtentKey {
    /// The partition.
    pub partition: PartitionId,
    /// The replica whose frames hold the batches.
    pub replica: ReplicaId,
}

/// One accepted batch: what the index says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLine {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Number of offsets the batch takes.
    pub record_count: u32,
    /// Greatest timestamp in the batch, milliseconds since 1970.
    pub max_timestamp_ms: i64,
    /// Leader epoch that held at `base_offset`.
    pub epoch: LeaderEpoch,
    /// Where the raw batch begins.
    pub position: LogPosition,
    /// Length of the raw batch.
    pub bytes: u32,
}

impl BatchLine {
    /// The offset after the batch's last one.
    #[must_use]
    pub fn end_offset(&self) -> Offset {
        self.base_offset.plus(i64::from(self.record_count))
    }
}

/// Whether a look-up may wait for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// On an async thread: what is not known to be in memory is not touched.
    Resident,
    /// On a blocking thread.
    MayBlock,
}

/// Why a look-up in the index did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IndexError {
    /// Ask again on a blocking thread.
    #[error("not resident")]
    NotResident,
    /// The `.idx` file is damaged: rebuild it and ask again.
    #[error("index of segment {segment} is damaged")]
    Damaged { segment: u64 },
    /// Below the bound of the search and not below log start, and no line holds it: its frame was damaged when the
    /// index was read back.
    #[error("nothing is known of offset {offset}: what held it is damaged")]
    Lacking { offset: i64 },
    /// Another batch has these offsets already.
    #[error("offset {offset} is taken by another batch (known: {known:?}, told: {told:?})")]
    Conflict { offset: Offset, known: Box<BatchLine>, told: Box<BatchLine> },
    /// A number beyond the end, which a sound index never leads to.
    #[error("no such line")]
    NoSuchLine,
    /// The disk failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}
