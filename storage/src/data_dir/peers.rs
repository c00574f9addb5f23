//! The other replicas of a shard, as a directory sees them: the trait through which batches are fetched from them.
//!
//! May not know: how they are reached.

use std::io;
use std::ops::Range;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use ottla_protocol::ids::{Offset, PartitionId};

/// A batch that is sent to another replica: base offset and leader epoch are set in its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedBatch {
    /// Greatest timestamp by the index: a batch without timestamps has that of its entry.
    pub max_timestamp_ms: i64,
    /// The whole batch.
    pub data: Bytes,
}

/// Batches of one partition from an offset on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Log start offset of the partition here: what lies before it has expired.
    pub log_start: Offset,
    /// Whole batches in the order of their offsets; none if there are none at or above the offset.
    pub batches: Vec<ExportedBatch>,
}

/// The other replicas of a shard.
pub trait Peers: Send + Sync {
    /// Batches of a partition that hold these offsets, from a replica that has the first of them; an error if none has it.
    fn fetch(&self, partition: PartitionId, offsets: Range<Offset>) -> BoxFuture<'_, io::Result<Exported>>;
}
