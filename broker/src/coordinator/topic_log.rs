//! What a coordinator needs of its internal topic (Kafka's PartitionWriter and more).
//!
//! A trait, so that coordinators can be tested without shards; [`PartitionWriter`](super::PartitionWriter) is the real one.
//! May not know: what the records say.

use std::fmt::Debug;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use ottla_env::watch;
use ottla_protocol::ids::LeaderEpoch;
use uuid::Uuid;

use crate::partition::TransactionPart;
use crate::replicated::error::{AppendError, PartitionError};

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
    /// Id of the topic.
    pub topic: Uuid,
    /// The epoch in which this node leads the partition and serves.
    pub epoch: LeaderEpoch,
}

/// What is judged again when a batch is applied.
#[derive(Debug, Clone, Default)]
pub struct Conditions {
    /// What the replicated store judges, if it judges.
    pub guard: Option<Bytes>,
    /// What the batch has to do with the transaction of the producer that it is written for.
    pub transaction: Option<TransactionPart>,
}

/// The partitions of one internal topic.
pub trait TopicLog: Debug + Send + Sync + 'static {
    /// Number of partitions of the topic, existing or to be.
    fn partition_count(&self) -> i32;

    /// By what this node leads and serves a partition; none where it does not.
    fn leadership(&self, partition: i32) -> Option<Leadership>;

    /// Changes whenever some [`TopicLog::leadership`] may have changed, but for a deletion of the topic.
    fn leadership_changes(&self) -> watch::Receiver<u64>;

    /// The clock of a partition that this node leads.
    fn clock(&self, partition: i32) -> Option<PartitionClock>;

    /// Waits a while for this node to lead and serve the partition, if it is about to.
    fn wait_until_led(&self, partition: i32) -> BoxFuture<'static, Result<(), PartitionError>>;

    /// Appends for a coordinator that began by this leadership, unless there is a later one; the order of calls is the order
    /// of batches.
    fn append(&self, partition: i32, by: Leadership, batch: Bytes, conditions: Conditions) -> AppendFuture;

    /// Waits until what this node has applied is current.
    fn read_index(&self, partition: i32) -> BoxFuture<'static, Result<(), PartitionError>>;

    /// Creates the topic unless it exists; false if that is not possible now.
    fn ensure_topic(&self) -> BoxFuture<'static, bool>;
}

/// Why a coordinator can neither read nor write its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unavailable {
    /// Another node leads it, or none: clients look for the coordinator again.
    NotLed,
    /// It is led here: clients ask again.
    NotNow,
}

impl From<&PartitionError> for Unavailable {
    fn from(error: &PartitionError) -> Self {
        match error {
            PartitionError::UnknownTopicOrPartition
            | PartitionError::UnknownTopicId
            | PartitionError::LeaderNotAvailable
            | PartitionError::NotLeaderOrFollower
            | PartitionError::FencedLeaderEpoch
            | PartitionError::UnknownLeaderEpoch
            | PartitionError::Storage => Self::NotLed,
            PartitionError::OffsetOutOfRange
            | PartitionError::OffsetNotAvailable
            | PartitionError::TimedOut
            | PartitionError::PolicyViolation(_) => Self::NotNow,
        }
    }
}

/// Why a batch was not taken, or not known to be; none if it was judged and refused.
pub(super) fn unavailable(error: &AppendError) -> Option<Unavailable> {
    match error {
        AppendError::Partition(error) => Some(error.into()),
        AppendError::NotEnoughReplicas
        | AppendError::NotEnoughReplicasAfterAppend
        | AppendError::Overloaded
        | AppendError::DiskFull => Some(Unavailable::NotNow),
        AppendError::MessageTooLarge
        | AppendError::EntryTooLarge { .. }
        | AppendError::Group(_)
        | AppendError::Corrupt(_)
        | AppendError::InvalidRecord { .. }
        | AppendError::InvalidTimestamp { .. }
        | AppendError::UnsupportedForMessageFormat
        | AppendError::UnsupportedCompressionType
        | AppendError::InternalTopic
        | AppendError::OutOfOrderSequence
        | AppendError::InvalidProducerEpoch
        | AppendError::InvalidTransactionState
        | AppendError::TransactionEnded
        | AppendError::RefusedByCoordinator(_)
        | AppendError::TransactionCoordinatorFenced => None,
    }
}

/// The partition of an internal topic that keeps a group or a transactional id: Java's hash of the id, made positive, modulo the count.
#[must_use]
pub fn partition_for(id: &str, partition_count: i32) -> i32 {
    let hash = id.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    // Kafka's `Utils.abs` clears nothing but turns MIN_VALUE into 0.
    let positive = hash.checked_abs().unwrap_or(0);
    positive % partition_count.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_lies_where_java_would_put_it() {
        // "my-group".hashCode() and friends, as computed by a JVM.
        assert_eq!(partition_for("", 50), 0);
        assert_eq!(partition_for("a", 50), 97 % 50);
        assert_eq!(partition_for("ab", 50), (97 * 31 + 98) % 50);
        // Its hash is i32::MIN.
        assert_eq!(partition_for("polygenelubricants", 50), 0);
    }
}
