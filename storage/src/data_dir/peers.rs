//! The other replicas of a shard, as a directory sees them: whom to ask for batches, and what they give.
//!
//! May not know: how they are reached.

use std::io;
use std::ops::Range;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use ottla_protocol::ids::{Offset, PartitionId};

/// A batch on its way to another replica: base offset and leader epoch stand in its head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedBatch {
    /// Greatest timestamp as the index knows it: a batch without timestamps has that of its entry.
    pub max_timestamp_ms: i64,
    /// The whole batch.
    pub data: Bytes,
}

/// Batches of one partition from an offset on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Where the partition begins here: what lies before it has expired.
    pub log_start: Offset,
    /// Whole batches in the order of their offsets; none if there are none at or above the offset.
    pub batches: Vec<ExportedBatch>,
}

/// The other replicas of a shard.
pub trait Peers: Send + Sync {
    /// Batches of a partition that hold these offsets, from one who has the first of them; an error if nobody gives it.
    fn fetch(&self, partition: PartitionId, offsets: Range<Offset>) -> BoxFuture<'_, io::Result<Exported>>;
}
