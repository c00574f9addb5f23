//! Fetch (key 1), v4-v18: request and response, written by hand for the hot path.
//!
//! v4 isolation and aborted transactions · v5 log start · v7 sessions (KIP-227) · v9 leader epoch · v11 rack and
//! preferred replica (KIP-392) · v12 flexible, diverging epoch, leader hint · v13 topic ids · v15 replica state in a
//! tag · v16 node endpoints (KIP-951) · v17 directory id, v18 high watermark (both tags of followers, skipped).
//! Records in a response are chunks whose batch headers are patched already, or a number of bytes that the server sends
//! in their place. May not know: batches.

mod request;
mod response;

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::error::ErrorCode;
use crate::ids::{LeaderEpoch, NodeId, Offset};

pub use crate::leader_hint::{CurrentLeader, NodeEndpoint};

const LOG_START_FROM: i16 = 5;
const SESSIONS_FROM: i16 = 7;
const LEADER_EPOCH_FROM: i16 = 9;
const RACK_FROM: i16 = 11;
const FLEXIBLE_FROM: i16 = 12;
const TOPIC_IDS_FROM: i16 = 13;
const REPLICA_STATE_FROM: i16 = 15;
const ENDPOINTS_FROM: i16 = 16;

/// A decoded Fetch request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchRequest {
    /// -1 for a consumer.
    pub replica_id: NodeId,
    /// How long to wait for `min_bytes`.
    pub max_wait_ms: i32,
    /// Bytes from which the response is sent early.
    pub min_bytes: i32,
    /// Most bytes of the whole response; a first batch may exceed it.
    pub max_bytes: i32,
    /// 0: read uncommitted, 1: read committed.
    pub isolation_level: i8,
    /// 0: no session yet.
    pub session_id: i32,
    /// -1: no session; 0: open one; else the next of this session.
    pub session_epoch: i32,
    /// What to fetch.
    pub topics: Vec<FetchTopic>,
    /// What to drop from the session.
    pub forgotten: Vec<ForgottenTopic>,
    /// The consumer's zone, empty if unknown.
    pub rack_id: StrBytes,
}

/// The partitions of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchTopic {
    /// The topic's name, up to v12.
    pub name: Option<StrBytes>,
    /// The topic's id, from v13.
    pub id: Option<Uuid>,
    /// What to fetch.
    pub partitions: Vec<FetchPartition>,
}

/// One partition to fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchPartition {
    /// The partition's number.
    pub index: i32,
    /// The leader's epoch known to the client; -1 if none is.
    pub current_leader_epoch: LeaderEpoch,
    /// Where to start.
    pub fetch_offset: Offset,
    /// Epoch of the last record the client has; -1 if it has none.
    pub last_fetched_epoch: LeaderEpoch,
    /// The follower's first offset; -1 from consumers.
    pub log_start: Offset,
    /// Most bytes of this partition; a first batch may exceed it.
    pub max_bytes: i32,
}

/// Partitions that are removed from a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForgottenTopic {
    /// The topic's name, up to v12.
    pub name: Option<StrBytes>,
    /// The topic's id, from v13.
    pub id: Option<Uuid>,
    /// Their numbers.
    pub partitions: Vec<i32>,
}

/// The response to a Fetch request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchResponse {
    /// How long the client's quota throttles it.
    pub throttle_time_ms: i32,
    /// Of the session, not of a partition.
    pub error: ErrorCode,
    /// 0 if there is no session.
    pub session_id: i32,
    /// What was found.
    pub topics: Vec<FetchTopicResponse>,
    /// Addresses of the current leaders.
    pub node_endpoints: Vec<NodeEndpoint>,
}

/// The response of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchTopicResponse {
    /// As in the request.
    pub name: Option<StrBytes>,
    /// As in the request.
    pub id: Option<Uuid>,
    /// What was found.
    pub partitions: Vec<FetchPartitionResponse>,
}

/// The response of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchPartitionResponse {
    /// The partition's number.
    pub index: i32,
    /// Outcome.
    pub error: ErrorCode,
    /// -1 on an error.
    pub high_watermark: Offset,
    /// -1 on an error.
    pub last_stable_offset: Offset,
    /// -1 if unknown.
    pub log_start: Offset,
    /// Where the client's log diverges from the leader's.
    pub diverging_epoch: Option<DivergingEpoch>,
    /// The current leader, with NOT_LEADER_OR_FOLLOWER or FENCED_LEADER_EPOCH.
    pub current_leader: Option<CurrentLeader>,
    /// None under read uncommitted.
    pub aborted_transactions: Option<Vec<AbortedTransaction>>,
    /// -1 unless the client should read elsewhere.
    pub preferred_read_replica: NodeId,
    /// Whole batches with patched headers, in order.
    pub records: Vec<Bytes>,
    /// Bytes of further batches that the server sends after `records` by itself.
    pub later_bytes: usize,
}

/// A chunk of an encoded response, in the order of sending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchChunk {
    /// Bytes as they are sent.
    Bytes(Bytes),
    /// So many bytes of batches that the server sends by itself.
    Later(usize),
}

/// The largest epoch not above the client's and where it ends (KIP-595).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DivergingEpoch {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// Where it ends.
    pub end_offset: Offset,
}

/// An aborted transaction that overlaps the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Its producer.
    pub producer_id: i64,
    /// Its first offset.
    pub first_offset: Offset,
}

impl FetchPartitionResponse {
    /// The response of a partition that cannot be read.
    #[must_use]
    pub fn failed(index: i32, error: ErrorCode) -> Self {
        Self {
            index,
            error,
            high_watermark: Offset(-1),
            last_stable_offset: Offset(-1),
            log_start: Offset(-1),
            diverging_epoch: None,
            current_leader: None,
            aborted_transactions: None,
            preferred_read_replica: NodeId(-1),
            records: Vec::new(),
            later_bytes: 0,
        }
    }

    /// Bytes of its records, including those that the server sends by itself.
    #[must_use]
    pub fn records_bytes(&self) -> usize {
        self.records.iter().map(Bytes::len).sum::<usize>() + self.later_bytes
    }
}

impl FetchResponse {
    /// Bytes of the records of all partitions.
    #[must_use]
    pub fn records_bytes(&self) -> usize {
        self.topics.iter().flat_map(|topic| &topic.partitions).map(FetchPartitionResponse::records_bytes).sum()
    }

    /// The response to a request whose session is refused.
    #[must_use]
    pub fn failed(error: ErrorCode) -> Self {
        Self { throttle_time_ms: 0, error, session_id: 0, topics: Vec::new(), node_endpoints: Vec::new() }
    }
}
