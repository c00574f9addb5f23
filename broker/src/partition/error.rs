//! Why a partition refuses. Small causes; the mapping to Kafka's codes is total and sits here.

use thiserror::Error;

/// A record at fault within a batch (KIP-467).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordError {
    /// Index of the record within its batch.
    pub batch_index: i32,
    /// What is wrong with it.
    pub message: Option<String>,
}

/// Why a partition cannot answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PartitionError {
    /// No such topic name, or no such partition.
    #[error("unknown topic or partition")]
    UnknownTopicOrPartition,
    /// No such topic id.
    #[error("unknown topic id")]
    UnknownTopicId,
    /// The partition exists, its shard has not adopted it yet or has no leader.
    #[error("leader not available")]
    LeaderNotAvailable,
    /// This node does not lead the partition, or not yet.
    #[error("not leader or follower")]
    NotLeaderOrFollower,
    /// The client's leader epoch is older than the partition's.
    #[error("fenced leader epoch")]
    FencedLeaderEpoch,
    /// The client's leader epoch is newer than what this node knows.
    #[error("unknown leader epoch")]
    UnknownLeaderEpoch,
    /// The offset is below log start, or provably beyond the end.
    #[error("offset out of range")]
    OffsetOutOfRange,
    /// The offset is above what this replica has applied.
    #[error("offset not available")]
    OffsetNotAvailable,
    /// The bytes could not be read or written.
    #[error("storage error")]
    Storage,
    /// It took longer than the client waits.
    #[error("request timed out")]
    TimedOut,
    /// The operation is not possible for this partition (e.g. DeleteRecords on a compacted topic).
    #[error("policy violation: {0}")]
    PolicyViolation(&'static str),
}

/// Why an append was refused or rejected.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AppendError {
    /// The partition cannot take it now.
    #[error(transparent)]
    Partition(#[from] PartitionError),
    /// The batch is damaged: CRC or structure.
    #[error("corrupt batch: {0}")]
    Corrupt(String),
    /// The batch is larger than `max.message.bytes` (after recompression too).
    #[error("message too large")]
    MessageTooLarge,
    /// The batch is well formed but not allowed; names the records at fault where it can.
    #[error("invalid record: {message}")]
    InvalidRecord {
        /// What is wrong.
        message: String,
        /// Records at fault.
        records: Vec<RecordError>,
    },
    /// A timestamp lies outside the topic's bounds.
    #[error("invalid timestamp: {message}")]
    InvalidTimestamp {
        /// What is wrong.
        message: String,
        /// Records at fault.
        records: Vec<RecordError>,
    },
    /// Old message format.
    #[error("unsupported message format")]
    UnsupportedForMessageFormat,
    /// Unknown codec.
    #[error("unsupported compression type")]
    UnsupportedCompressionType,
    /// A client may not write to an internal topic.
    #[error("internal topic")]
    InternalTopic,
    /// Fewer voters in sync than `min.insync.replicas`; nothing was appended.
    #[error("not enough replicas")]
    NotEnoughReplicas,
    /// Appended, but not synced by `min.insync.replicas` voters in time.
    #[error("not enough replicas after append")]
    NotEnoughReplicasAfterAppend,
    /// The queue of this shard is full, or the disk is nearly full: try again.
    #[error("overloaded: {0}")]
    Overloaded(&'static str),
    /// An earlier batch of this producer on this connection was refused; this one must wait for its retry.
    #[error("refused behind an earlier refusal")]
    BehindRefusal,
    /// The sequence does not follow the last one.
    #[error("out of order sequence number")]
    OutOfOrderSequence,
    /// The producer's epoch is older than the partition's.
    #[error("invalid producer epoch")]
    InvalidProducerEpoch,
    /// Transactional data outside a transaction.
    #[error("invalid transaction state")]
    InvalidTransactionState,
    /// The group store refused the commit at apply; the code is its answer.
    #[error("refused by the group: code {0}")]
    Group(i16),
}
