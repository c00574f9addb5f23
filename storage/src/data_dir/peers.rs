//! The other replicas of a shard, as a directory sees them: the trait through which batches are fetched from them.
//!
//! May not know: how they are reached.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use ottla_protocol::ids::{Offset, PartitionId};

use crate::compact::PassDone;

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
    /// The last pass of compaction over the partition here, if there was one: it decides what of the batches below its horizon is left.
    pub done: Option<PassDone>,
}

/// Why a replica cannot take what a peer has of a partition: they have compacted it differently far (design section 12.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PassConflict {
    /// Another peer may have it, or this one later.
    #[error("it has compacted the partition less far")]
    PeerBehind,
    /// The next state, which the leader cuts soon, will reach the peer's horizon.
    #[error("it has compacted the partition further than the state goes")]
    PeerAhead,
    /// What is here, or was taken so far, ends below the peer's horizon: values among it may be of keys that were deleted since, and
    /// the peer has no tombstones of these any more. The partition has to be taken anew, from its log start on.
    #[error("it has compacted the partition beyond what is here")]
    Anew,
}

/// The other replicas of a shard.
pub trait Peers: Send + Sync {
    /// Batches of a partition that hold these offsets, from a replica that has the first of them, and has compacted the partition as far as
    /// this one where it matters; an error if none has.
    fn fetch(
        self: Arc<Self>,
        partition: PartitionId,
        offsets: Range<Offset>,
    ) -> BoxFuture<'static, io::Result<Exported>>;
}
