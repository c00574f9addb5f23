//! The batch index: where the batches of a partition lie, by offset and by time.
//!
//! Lines are added when an entry is applied. May not know: what a topic is, or why a batch was rejected.

use ottla_protocol::ids::{LeaderEpoch, Offset, PartitionId};

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
