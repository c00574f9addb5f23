//! What the coordinator needs of the partitions of `__consumer_offsets` (Kafka's PartitionWriter and more), and of the
//! metadata about topics.
//!
//! A trait, so that the runtime can be tested without shards. [`PartitionWriter`](super::PartitionWriter) is the real
//! one.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use ottla_env::watch;
use ottla_protocol::ids::LeaderEpoch;
use parking_lot::Mutex;
use uuid::Uuid;

use super::error::GroupError;
use crate::metadata::FeatureLevel;
use crate::replicated::error::{AppendError, PartitionError};
use crate::replicated::group::store::GroupStore;

/// Waits until an append is applied.
pub type AppendFuture = BoxFuture<'static, Result<(), AppendError>>;

/// The time by which a partition's records are stamped and expire: the shard clock of design section 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionClock {
    /// Milliseconds since 1970; falls only when an operator sets it, whichever node leads.
    pub now_ms: i64,
    /// The time by which something may expire; none while no time is certain.
    pub for_expiry_ms: Option<i64>,
}

/// What a coordinator holds by: another one begins where either changes. A topic that was deleted and created again has another id, and
/// may have the same epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leadership {
    /// Id of `__consumer_offsets`.
    pub topic: Uuid,
    /// The epoch in which this node leads the partition and serves.
    pub epoch: LeaderEpoch,
}

/// The log of the coordinator: `__consumer_offsets`, and the metadata about topics.
pub trait CoordinatorLog: Debug + Send + Sync + 'static {
    /// The feature level in force: which formats may be written.
    fn level(&self) -> FeatureLevel;

    /// Number of partitions of the topic, existing or to be.
    fn partition_count(&self) -> i32;

    /// By what this node leads and serves a partition; none where it does not.
    fn leadership(&self, partition: i32) -> Option<Leadership>;

    /// Changes whenever some [`CoordinatorLog::leadership`] may have changed, but for a deletion of the topic.
    fn leadership_changes(&self) -> watch::Receiver<u64>;

    /// Changes whenever a topic was deleted.
    fn topic_deletions(&self) -> watch::Receiver<u64>;

    /// The clock of a partition that this node leads.
    fn clock(&self, partition: i32) -> Option<PartitionClock>;

    /// Waits a while for this node to lead and serve the partition, if it is about to.
    fn wait_until_led(&self, partition: i32) -> BoxFuture<'static, Result<(), PartitionError>>;

    /// The replicated groups of a partition; none where this node has no replica.
    fn store(&self, partition: i32) -> Option<Arc<Mutex<GroupStore>>>;

    /// Appends for a coordinator that began by this leadership, unless there is a later one; the order of calls is the order
    /// of batches.
    fn append(&self, partition: i32, by: Leadership, batch: Bytes, guard: Bytes) -> AppendFuture;

    /// Waits until what this node has applied is current.
    fn read_index(&self, partition: i32) -> BoxFuture<'static, Result<(), PartitionError>>;

    /// Those of `topics` that are certainly deleted (under that id, unless it is nil).
    fn deleted_topics(&self, topics: Vec<(Arc<str>, Uuid)>) -> BoxFuture<'static, Vec<(Arc<str>, Uuid)>>;

    /// Creates the topic unless it exists.
    fn ensure_topic(&self) -> BoxFuture<'static, Result<(), GroupError>>;
}

/// The group error for a failed append.
pub(super) fn append_refusal(error: &AppendError) -> GroupError {
    match error {
        AppendError::Partition(error) => partition_refusal(error),
        AppendError::MessageTooLarge | AppendError::EntryTooLarge { .. } => GroupError::CommitTooLarge,
        AppendError::Group(code) => GroupError::from_apply(*code),
        AppendError::NotEnoughReplicas
        | AppendError::NotEnoughReplicasAfterAppend
        | AppendError::Overloaded
        | AppendError::DiskFull => GroupError::CoordinatorNotAvailable,
        AppendError::Corrupt(_)
        | AppendError::InvalidRecord { .. }
        | AppendError::InvalidTimestamp { .. }
        | AppendError::UnsupportedForMessageFormat
        | AppendError::UnsupportedCompressionType
        | AppendError::InternalTopic
        | AppendError::OutOfOrderSequence
        | AppendError::InvalidProducerEpoch
        | AppendError::InvalidTransactionState
        | AppendError::TransactionEnded
        | AppendError::TransactionCoordinatorFenced => GroupError::Internal,
    }
}

/// The group error for a refusal of the partition.
pub(super) fn partition_refusal(error: &PartitionError) -> GroupError {
    match error {
        PartitionError::UnknownTopicOrPartition
        | PartitionError::UnknownTopicId
        | PartitionError::LeaderNotAvailable
        | PartitionError::NotLeaderOrFollower
        | PartitionError::FencedLeaderEpoch
        | PartitionError::UnknownLeaderEpoch
        | PartitionError::Storage => GroupError::NotCoordinator,
        PartitionError::OffsetOutOfRange
        | PartitionError::OffsetNotAvailable
        | PartitionError::TimedOut
        | PartitionError::PolicyViolation(_) => GroupError::CoordinatorNotAvailable,
    }
}
