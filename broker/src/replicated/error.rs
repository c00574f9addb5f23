//! The errors of a partition, and the one total mapping to Kafka's codes.

use ottla_protocol::batch::BatchError;
use ottla_protocol::error::ErrorCode;
use ottla_protocol::records::RecordsError;
use thiserror::Error;

/// An invalid record within a batch (KIP-467).
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
    /// The operation took longer than the client waits.
    #[error("request timed out")]
    TimedOut,
    /// The operation is not possible for this partition (e.g. DeleteRecords on a compacted topic).
    #[error("policy violation: {0}")]
    PolicyViolation(&'static str),
}

/// Why an append was refused or rejected.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AppendError {
    /// The partition cannot take the batch now.
    #[error(transparent)]
    Partition(#[from] PartitionError),
    /// The batch is damaged: CRC or structure.
    #[error("corrupt batch: {0}")]
    Corrupt(String),
    /// The batch is larger than `max.message.bytes` (after recompression too).
    #[error("message too large")]
    MessageTooLarge,
    /// The batch is larger than what segments of this node are meant for, whatever `max.message.bytes` says.
    #[error("a batch of {bytes} bytes: with ottla.log.segment.bytes as it is here at most {bytes_max} are accepted")]
    EntryTooLarge {
        /// The batch's size.
        bytes: usize,
        /// What is accepted.
        bytes_max: usize,
    },
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
    /// Too many bytes wait for this shard: try again.
    #[error("too many bytes wait for this shard")]
    Overloaded,
    /// The disk is nearly full: nothing is written until space is freed.
    #[error("the disk is nearly full")]
    DiskFull,
    /// The sequence does not follow the last one.
    #[error("out of order sequence number")]
    OutOfOrderSequence,
    /// The producer's epoch is older than the partition's.
    #[error("invalid producer epoch")]
    InvalidProducerEpoch,
    /// Transactional data outside a transaction.
    #[error("invalid transaction state")]
    InvalidTransactionState,
    /// A transaction of the producer has ended since its coordinator was asked about this one: it is asked again.
    #[error("the transaction has ended")]
    TransactionEnded,
    /// What the coordinator of its transaction says about a batch that would open one, in the code for this client.
    #[error("refused by the coordinator of the transaction: {0}")]
    RefusedByCoordinator(ErrorCode),
    /// A marker of a coordinator that has been replaced.
    #[error("the transaction coordinator has been replaced")]
    TransactionCoordinatorFenced,
    /// The group store refused the commit at apply; the code is its answer.
    #[error("refused by the group: code {0}")]
    Group(i16),
}

impl PartitionError {
    /// What Kafka answers.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownTopicOrPartition => ErrorCode::UnknownTopicOrPartition,
            Self::UnknownTopicId => ErrorCode::UnknownTopicId,
            Self::LeaderNotAvailable => ErrorCode::LeaderNotAvailable,
            Self::NotLeaderOrFollower => ErrorCode::NotLeaderOrFollower,
            Self::FencedLeaderEpoch => ErrorCode::FencedLeaderEpoch,
            Self::UnknownLeaderEpoch => ErrorCode::UnknownLeaderEpoch,
            Self::OffsetOutOfRange => ErrorCode::OffsetOutOfRange,
            Self::OffsetNotAvailable => ErrorCode::OffsetNotAvailable,
            Self::Storage => ErrorCode::KafkaStorageError,
            Self::TimedOut => ErrorCode::RequestTimedOut,
            Self::PolicyViolation(_) => ErrorCode::PolicyViolation,
        }
    }
}

impl AppendError {
    /// What Kafka answers.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Partition(error) => error.code(),
            Self::Corrupt(_) => ErrorCode::CorruptMessage,
            Self::MessageTooLarge | Self::EntryTooLarge { .. } => ErrorCode::MessageTooLarge,
            Self::InvalidRecord { .. } => ErrorCode::InvalidRecord,
            Self::InvalidTimestamp { .. } => ErrorCode::InvalidTimestamp,
            Self::UnsupportedForMessageFormat => ErrorCode::UnsupportedForMessageFormat,
            Self::UnsupportedCompressionType => ErrorCode::UnsupportedCompressionType,
            Self::InternalTopic => ErrorCode::InvalidTopic,
            Self::NotEnoughReplicas => ErrorCode::NotEnoughReplicas,
            Self::NotEnoughReplicasAfterAppend => ErrorCode::NotEnoughReplicasAfterAppend,
            // Retriable for every client, and no client looks for another leader because of it.
            Self::Overloaded => ErrorCode::RequestTimedOut,
            Self::DiskFull => ErrorCode::KafkaStorageError,
            Self::OutOfOrderSequence => ErrorCode::OutOfOrderSequenceNumber,
            Self::InvalidProducerEpoch => ErrorCode::InvalidProducerEpoch,
            Self::InvalidTransactionState | Self::TransactionEnded => ErrorCode::InvalidTxnState,
            Self::RefusedByCoordinator(code) => *code,
            Self::TransactionCoordinatorFenced => ErrorCode::TransactionCoordinatorFenced,
            Self::Group(code) => ErrorCode::from_code(*code).unwrap_or(ErrorCode::UnknownServerError),
        }
    }

    /// True if the producer may send the same batch again.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        self.code().is_retriable()
    }

    fn of_code(code: ErrorCode, message: String) -> Self {
        match code {
            ErrorCode::MessageTooLarge => Self::MessageTooLarge,
            ErrorCode::UnsupportedCompressionType => Self::UnsupportedCompressionType,
            ErrorCode::InvalidRecord => Self::InvalidRecord { message, records: Vec::new() },
            _ => Self::Corrupt(message),
        }
    }
}

impl From<BatchError> for AppendError {
    fn from(error: BatchError) -> Self {
        Self::of_code(error.code(), error.to_string())
    }
}

impl From<RecordsError> for AppendError {
    fn from(error: RecordsError) -> Self {
        Self::of_code(error.code(), error.to_string())
    }
}
