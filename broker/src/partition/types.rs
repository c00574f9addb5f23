//! The types of requests to a partition and of its answers. No behaviour, no I/O.

use std::time::Duration;

use bytes::Bytes;
use ottla_protocol::ids::{LeaderEpoch, NodeId, Offset, ProducerId};
use ottla_storage::read::ReadStream;
use uuid::Uuid;

pub use crate::replicated::command::TransactionDecision;
pub use crate::replicated::transactions::AbortedTransaction;
use crate::shard::ConnectionId;
pub use crate::shard::data_waiters::Isolation;

/// How a request names its topic: by name, or by id in newer versions (KIP-516).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicRef<'a> {
    /// The topic's name.
    Name(&'a str),
    /// The topic's id.
    Id(Uuid),
}

/// The origin of an append. A retriable refusal fences per connection, producer and partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A client's Produce request.
    Client(ConnectionId),
    /// A coordinator of this node that began in this leader epoch; may write to internal topics.
    Coordinator(LeaderEpoch),
    /// The coordinator of a transaction, here or on another node: markers, to any topic. Apply fences it.
    Transaction,
}

/// The acknowledgement for which the producer waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acks {
    /// `acks=0`: no response is sent (the outcome still decides whether the connection must close).
    None,
    /// `acks=1`: answered at apply, without regard to `min.insync.replicas`.
    Leader,
    /// `acks=-1`: answered at apply, `min.insync.replicas` enforced.
    All,
}

/// What a batch has to do with its producer's transaction, as the leader of the partition found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionPart {
    /// It goes on with the one that is open.
    Continues,
    /// It opens or ends one.
    Decides(TransactionDecision),
}

/// A producer's transaction in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProducerTransaction {
    /// It is open: its coordinator needs not be asked about another batch.
    Open,
    /// None is open. What a batch carries that opens one: the number of the producer's last marker here, read before its
    /// coordinator is asked (design section 7.2).
    None {
        /// That number.
        marker_number: u64,
    },
}

/// Everything about an append beside its bytes.
#[derive(Debug, Clone)]
pub struct AppendOptions {
    /// The acknowledgement for which the producer waits.
    pub acks: Acks,
    /// How long the producer waits; afterwards REQUEST_TIMED_OUT.
    pub timeout: Duration,
    /// The origin.
    pub origin: Origin,
    /// Coordinators only: the guard that the group store judges again at apply (design section 11, Groups). Opaque
    /// here.
    pub guard: Option<Bytes>,
    /// What a batch of a transaction may do: without it such a batch is refused.
    pub transaction: Option<TransactionPart>,
}

impl AppendOptions {
    /// An append with `acks=-1` and nothing else.
    #[must_use]
    pub fn new(origin: Origin, timeout: Duration) -> Self {
        Self { acks: Acks::All, timeout, origin, guard: None, transaction: None }
    }
}

/// An append that was accepted, or a duplicate of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the batch's first record.
    pub base_offset: Offset,
    /// The time stamped under LogAppendTime, else `None` (-1 on the wire).
    pub log_append_time_ms: Option<i64>,
    /// The partition's log start offset.
    pub log_start: Offset,
}

/// Which replica may serve a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The leader alone.
    Leader,
    /// Also a follower, up to what it has applied.
    AnyReplica,
}

/// One partition of a Fetch request.
#[derive(Debug, Clone, Copy)]
pub struct FetchSpec {
    /// First offset wanted.
    pub offset: Offset,
    /// At most this many bytes, but always at least one whole batch if `at_least_one` is set.
    pub max_bytes: usize,
    /// Return one batch even if it is larger than `max_bytes` (first non-empty partition of a request).
    pub at_least_one: bool,
    /// More bytes than this are returned as a stream.
    pub copy_bytes_max: usize,
    /// Which records the reader may see.
    pub isolation: Isolation,
    /// Any replica may serve it (KIP-392), not only the leader.
    pub access: Access,
    /// The leader epoch that the client has, if it sent one.
    pub current_leader_epoch: Option<LeaderEpoch>,
    /// Epoch of the last record that the client has (KIP-595), if it sent one.
    pub last_fetched_epoch: Option<LeaderEpoch>,
}

/// End of an epoch: the offset after the last record of `epoch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEnd {
    /// The greatest known epoch that is not above the requested one.
    pub epoch: LeaderEpoch,
    /// Its end offset.
    pub end_offset: Offset,
}

/// The result of a read.
#[derive(Debug)]
pub struct Fetched {
    /// Watermarks as they were when the read was planned.
    pub watermarks: Watermarks,
    /// Set if the client's log diverges; then there are no records.
    pub diverging_epoch: Option<EpochEnd>,
    /// Under read_committed: the aborted transactions with records among these, by first offset; else `None`.
    pub aborted: Option<Vec<AbortedTransaction>>,
    /// Whole batches, heads patched.
    pub records: FetchedRecords,
}

/// Batches on their way to a reader.
#[derive(Debug, Default)]
pub enum FetchedRecords {
    /// None.
    #[default]
    None,
    /// Few: copied.
    Copied(Bytes),
    /// Many: copied when they are sent.
    Streamed(Box<ReadStream>),
}

impl FetchedRecords {
    /// Their bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Copied(bytes) => bytes.len(),
            Self::Streamed(stream) => stream.left(),
        }
    }
}

/// The offsets between which a partition can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Watermarks {
    /// First offset that can be read.
    pub log_start: Offset,
    /// Last applied offset + 1.
    pub high_watermark: Offset,
    /// Last stable offset: no open transaction begins below.
    pub last_stable: Offset,
}

/// The query of ListOffsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetQuery {
    /// -1: HW, or LSO under read_committed.
    Latest,
    /// -2: log start.
    Earliest,
    /// -3: the record with the greatest timestamp (KIP-734).
    MaxTimestamp,
    /// -4: earliest offset on local storage (KIP-405): log start.
    EarliestLocal,
    /// -5: latest offset in tiered storage (KIP-1005); -6: earliest one that is to go there (KIP-1023): none.
    Tiered,
    /// The first record whose timestamp is at or after this.
    Timestamp(i64),
}

/// Answer to ListOffsets; `None` in its place means -1/-1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedOffset {
    /// The offset.
    pub offset: Offset,
    /// Timestamp of that record; -1 where the query was not by time.
    pub timestamp_ms: i64,
    /// Epoch under which that offset was or will be written.
    pub leader_epoch: Option<LeaderEpoch>,
}

/// One producer as DescribeProducers shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActiveProducer {
    /// The producer.
    pub producer_id: ProducerId,
    /// Its epoch.
    pub producer_epoch: i16,
    /// Sequence of its last record, -1 if none.
    pub last_sequence: i32,
    /// Timestamp of its last batch.
    pub last_timestamp_ms: i64,
    /// Epoch of the transaction coordinator that wrote its last marker, -1 if none.
    pub coordinator_epoch: i32,
    /// First offset of its open transaction, -1 if none.
    pub current_txn_start_offset: i64,
}

/// The leadership of a partition, as far as this node knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leadership {
    /// The leader's node, if known.
    pub leader: Option<NodeId>,
    /// The partition's leader epoch, -1 (`LeaderEpoch(-1)`) if unknown.
    pub leader_epoch: LeaderEpoch,
    /// Nodes that hold a replica, in the shard's order.
    pub replicas: Vec<NodeId>,
    /// Voters that have caught up.
    pub in_sync: Vec<NodeId>,
}
