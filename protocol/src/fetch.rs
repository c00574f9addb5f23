//! Fetch (key 1), v4-v18: request and response, written by hand for the hot path.
//!
//! v4 isolation and aborted transactions · v5 log start · v7 sessions (KIP-227) · v9 leader epoch · v11 rack and
//! preferred replica (KIP-392) · v12 flexible, diverging epoch, leader hint · v13 topic ids · v15 replica state in a
//! tag · v16 node endpoints (KIP-951) · v17 directory id, v18 high watermark (both tags of followers, skipped).
//! Records in an answer are chunks whose batch heads are patched already. May not know: batches.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::error::ErrorCode;
use crate::ids::{LeaderEpoch, NodeId, Offset};
use crate::leader_hint::{put_current_leader_tag, put_endpoints_as_only_tag};
use crate::produce::string;
use crate::response::put_head;
use crate::versions::ApiKey;
use crate::wire::{Reader, WireError, put_count, put_no_tags, put_nullable_str_bytes, put_unsigned_varint};

pub use crate::leader_hint::{CurrentLeader, NodeEndpoint};

const LOG_START_FROM: i16 = 5;
const SESSIONS_FROM: i16 = 7;
const LEADER_EPOCH_FROM: i16 = 9;
const RACK_FROM: i16 = 11;
const FLEXIBLE_FROM: i16 = 12;
const TOPIC_IDS_FROM: i16 = 13;
const REPLICA_STATE_FROM: i16 = 15;
const ENDPOINTS_FROM: i16 = 16;
const REPLICA_STATE_TAG: u32 = 1;
const DIVERGING_EPOCH_TAG: u32 = 0;
const CURRENT_LEADER_TAG: u32 = 1;
/// Epoch in four bytes, offset in eight, and the count of their own tags.
const DIVERGING_EPOCH_BYTES: u32 = 13;
/// Smallest partition: index, offset, maximum.
const PARTITION_BYTES_MIN: usize = 16;
/// Smallest topic: an empty name and an empty array.
const TOPIC_BYTES_MIN: usize = 3;

/// A decoded Fetch request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchRequest {
    /// -1 for a consumer.
    pub replica_id: NodeId,
    /// How long to wait for `min_bytes`.
    pub max_wait_ms: i32,
    /// When to answer early.
    pub min_bytes: i32,
    /// Most bytes of the whole answer; a first batch may exceed it.
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
    /// The leader's epoch as the client knows it; -1 if it does not.
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

/// Partitions that leave a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForgottenTopic {
    /// The topic's name, up to v12.
    pub name: Option<StrBytes>,
    /// The topic's id, from v13.
    pub id: Option<Uuid>,
    /// Their numbers.
    pub partitions: Vec<i32>,
}

/// The answer to a Fetch request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchResponse {
    /// How long the client's quota holds it back.
    pub throttle_time_ms: i32,
    /// Of the session, not of a partition.
    pub error: ErrorCode,
    /// 0 if there is no session.
    pub session_id: i32,
    /// What was found.
    pub topics: Vec<FetchTopicResponse>,
    /// Addresses of the leaders that are hinted at.
    pub node_endpoints: Vec<NodeEndpoint>,
}

/// The answers of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchTopicResponse {
    /// As in the request.
    pub name: Option<StrBytes>,
    /// As in the request.
    pub id: Option<Uuid>,
    /// What was found.
    pub partitions: Vec<FetchPartitionResponse>,
}

/// The answer of one partition.
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
    /// Where the client's log leaves ours.
    pub diverging_epoch: Option<DivergingEpoch>,
    /// Who leads, with NOT_LEADER_OR_FOLLOWER or FENCED_LEADER_EPOCH.
    pub current_leader: Option<CurrentLeader>,
    /// None under read uncommitted.
    pub aborted_transactions: Option<Vec<AbortedTransaction>>,
    /// -1 unless the client should read elsewhere.
    pub preferred_read_replica: NodeId,
    /// Whole batches with patched heads, in order.
    pub records: Vec<Bytes>,
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
    /// The answer of a partition that cannot be read.
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
        }
    }

    /// Bytes of its records.
    #[must_use]
    pub fn records_bytes(&self) -> usize {
        self.records.iter().map(Bytes::len).sum()
    }
}

impl FetchResponse {
    /// The answer to a request whose session is refused.
    #[must_use]
    pub fn failed(error: ErrorCode) -> Self {
        Self { throttle_time_ms: 0, error, session_id: 0, topics: Vec::new(), node_endpoints: Vec::new() }
    }
}

impl FetchRequest {
    /// Decodes a body of v4 or later. Like Kafka, takes no offence at bytes that follow it.
    pub fn decode(version: i16, body: &Bytes) -> Result<Self, WireError> {
        let flexible = version >= FLEXIBLE_FROM;
        let mut reader = Reader::new(body);
        let mut replica_id = NodeId(if version < REPLICA_STATE_FROM { reader.i32()? } else { -1 });
        let max_wait_ms = reader.i32()?;
        let min_bytes = reader.i32()?;
        let max_bytes = reader.i32()?;
        let isolation_level = reader.i8()?;
        let (session_id, session_epoch) =
            if version >= SESSIONS_FROM { (reader.i32()?, reader.i32()?) } else { (0, -1) };
        let count = reader.array_count(flexible, TOPIC_BYTES_MIN)?.ok_or(WireError::NegativeLength)?;
        let mut topics = Vec::with_capacity(count);
        for _ in 0..count {
            topics.push(FetchTopic::decode(version, body, &mut reader)?);
        }
        let forgotten =
            if version >= SESSIONS_FROM { ForgottenTopic::decode_all(version, body, &mut reader)? } else { Vec::new() };
        let rack_id = if version >= RACK_FROM {
            string(body, reader.nullable_string(flexible)?)?.ok_or(WireError::NegativeLength)?
        } else {
            StrBytes::new()
        };
        if flexible {
            reader.each_tag(|tag, content| {
                if tag == REPLICA_STATE_TAG && version >= REPLICA_STATE_FROM {
                    replica_id = replica_state(content)?;
                }
                Ok(())
            })?;
        }
        Ok(Self {
            replica_id,
            max_wait_ms,
            min_bytes,
            max_bytes,
            isolation_level,
            session_id,
            session_epoch,
            topics,
            forgotten,
            rack_id,
        })
    }
}

/// Replica id, replica epoch, tags: of interest is only that a follower asks, for ours never use this API.
fn replica_state(content: &[u8]) -> Result<NodeId, WireError> {
    let mut reader = Reader::new(content);
    let id = reader.i32()?;
    reader.i64()?;
    reader.skip_tags()?;
    reader.finish()?;
    Ok(NodeId(id))
}

fn topic_key(
    version: i16,
    body: &Bytes,
    reader: &mut Reader<'_>,
) -> Result<(Option<StrBytes>, Option<Uuid>), WireError> {
    if version >= TOPIC_IDS_FROM {
        return Ok((None, Some(reader.uuid()?)));
    }
    let name = string(body, reader.nullable_string(version >= FLEXIBLE_FROM)?)?;
    Ok((Some(name.ok_or(WireError::NegativeLength)?), None))
}

impl FetchTopic {
    fn decode(version: i16, body: &Bytes, reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let flexible = version >= FLEXIBLE_FROM;
        let (name, id) = topic_key(version, body, reader)?;
        let count = reader.array_count(flexible, PARTITION_BYTES_MIN)?.ok_or(WireError::NegativeLength)?;
        let mut partitions = Vec::with_capacity(count);
        for _ in 0..count {
            partitions.push(FetchPartition::decode(version, reader)?);
        }
        if flexible {
            reader.skip_tags()?;
        }
        Ok(Self { name, id, partitions })
    }
}

impl FetchPartition {
    fn decode(version: i16, reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let partition = Self {
            index: reader.i32()?,
            current_leader_epoch: LeaderEpoch(if version >= LEADER_EPOCH_FROM { reader.i32()? } else { -1 }),
            fetch_offset: Offset(reader.i64()?),
            last_fetched_epoch: LeaderEpoch(if version >= FLEXIBLE_FROM { reader.i32()? } else { -1 }),
            log_start: Offset(if version >= LOG_START_FROM { reader.i64()? } else { -1 }),
            max_bytes: reader.i32()?,
        };
        if version >= FLEXIBLE_FROM {
            reader.skip_tags()?;
        }
        Ok(partition)
    }
}

impl ForgottenTopic {
    fn decode_all(version: i16, body: &Bytes, reader: &mut Reader<'_>) -> Result<Vec<Self>, WireError> {
        let flexible = version >= FLEXIBLE_FROM;
        let count = reader.array_count(flexible, TOPIC_BYTES_MIN)?.ok_or(WireError::NegativeLength)?;
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            let (name, id) = topic_key(version, body, reader)?;
            let count = reader.array_count(flexible, size_of::<i32>())?.ok_or(WireError::NegativeLength)?;
            let partitions = (0..count).map(|_| reader.i32()).collect::<Result<Vec<_>, _>>()?;
            if flexible {
                reader.skip_tags()?;
            }
            all.push(Self { name, id, partitions });
        }
        Ok(all)
    }
}

/// Where the pieces of an answer go: one buffer, or chunks for a vectored write.
trait Sink {
    fn prefix(&mut self) -> &mut BytesMut;
    fn records(&mut self, chunks: &[Bytes]);
}

impl Sink for &mut BytesMut {
    fn prefix(&mut self) -> &mut BytesMut {
        self
    }

    fn records(&mut self, chunks: &[Bytes]) {
        for chunk in chunks {
            self.extend_from_slice(chunk);
        }
    }
}

/// Prefixes in buffers of their own, records as they are.
struct Chunks<'a> {
    prefix: BytesMut,
    done: &'a mut Vec<Bytes>,
    done_bytes: usize,
}

impl Sink for Chunks<'_> {
    fn prefix(&mut self) -> &mut BytesMut {
        &mut self.prefix
    }

    fn records(&mut self, chunks: &[Bytes]) {
        if chunks.is_empty() {
            return;
        }
        let prefix = self.prefix.split().freeze();
        for chunk in std::iter::once(&prefix).chain(chunks) {
            self.done_bytes += chunk.len();
            self.done.push(chunk.clone());
        }
    }
}

impl FetchResponse {
    /// Appends the body; records are copied once.
    pub fn encode(&self, version: i16, mut out: &mut BytesMut) {
        out.reserve(self.encoded_bytes_about());
        self.put(version, &mut out);
    }

    /// Appends the whole frame (length, header, body) as chunks for one vectored write; records are not copied.
    pub fn encode_chunks(&self, version: i16, correlation_id: i32, out: &mut Vec<Bytes>) {
        let first = out.len();
        let mut prefix = BytesMut::with_capacity(256);
        put_head(ApiKey::Fetch, version, correlation_id, &mut prefix);
        // The length is known at the end only: it gets a chunk of its own.
        let head = prefix.split_off(4);
        let mut sink = Chunks { prefix: head, done: out, done_bytes: 0 };
        self.put(version, &mut sink);
        let tail = sink.prefix.freeze();
        let length = sink.done_bytes + tail.len();
        out.push(tail);
        out.insert(first, Bytes::copy_from_slice(&(length as i32).to_be_bytes()));
    }

    /// Upper estimate of the body's size, for reserving.
    fn encoded_bytes_about(&self) -> usize {
        let topic_bytes = |topic: &FetchTopicResponse| -> usize {
            topic.partitions.iter().map(|partition| 64 + partition.records_bytes()).sum::<usize>() + 64
        };
        64 + self.topics.iter().map(topic_bytes).sum::<usize>()
    }

    fn put(&self, version: i16, sink: &mut impl Sink) {
        let flexible = version >= FLEXIBLE_FROM;
        let out = sink.prefix();
        out.put_i32(self.throttle_time_ms);
        if version >= SESSIONS_FROM {
            out.put_i16(self.error.code());
            out.put_i32(self.session_id);
        }
        put_count(out, flexible, self.topics.len());
        for topic in &self.topics {
            let out = sink.prefix();
            if version >= TOPIC_IDS_FROM {
                out.put_slice(topic.id.unwrap_or_default().as_bytes());
            } else {
                put_nullable_str_bytes(out, flexible, Some(topic.name.as_ref().unwrap_or(&StrBytes::new())));
            }
            put_count(out, flexible, topic.partitions.len());
            for partition in &topic.partitions {
                partition.put(version, sink);
            }
            put_no_tags(sink.prefix(), flexible);
        }
        if version >= ENDPOINTS_FROM {
            put_endpoints_as_only_tag(sink.prefix(), &self.node_endpoints);
        } else {
            put_no_tags(sink.prefix(), flexible);
        }
    }
}

impl FetchPartitionResponse {
    fn put(&self, version: i16, sink: &mut impl Sink) {
        let flexible = version >= FLEXIBLE_FROM;
        let out = sink.prefix();
        out.put_i32(self.index);
        out.put_i16(self.error.code());
        out.put_i64(self.high_watermark.0);
        out.put_i64(self.last_stable_offset.0);
        if version >= LOG_START_FROM {
            out.put_i64(self.log_start.0);
        }
        self.put_aborted(flexible, out);
        if version >= RACK_FROM {
            out.put_i32(self.preferred_read_replica.0);
        }
        let bytes = self.records_bytes();
        if flexible {
            put_unsigned_varint(out, bytes as u32 + 1);
        } else {
            out.put_i32(bytes as i32);
        }
        sink.records(&self.records);
        if flexible {
            self.put_tags(sink.prefix());
        }
    }

    fn put_aborted(&self, flexible: bool, out: &mut BytesMut) {
        match &self.aborted_transactions {
            None if flexible => out.put_u8(0),
            None => out.put_i32(-1),
            Some(aborted) => {
                put_count(out, flexible, aborted.len());
                for transaction in aborted {
                    out.put_i64(transaction.producer_id);
                    out.put_i64(transaction.first_offset.0);
                    put_no_tags(out, flexible);
                }
            }
        }
    }

    fn put_tags(&self, out: &mut BytesMut) {
        let count = u32::from(self.diverging_epoch.is_some()) + u32::from(self.current_leader.is_some());
        put_unsigned_varint(out, count);
        if let Some(diverging) = &self.diverging_epoch {
            put_unsigned_varint(out, DIVERGING_EPOCH_TAG);
            put_unsigned_varint(out, DIVERGING_EPOCH_BYTES);
            out.put_i32(diverging.epoch.0);
            out.put_i64(diverging.end_offset.0);
            put_no_tags(out, true);
        }
        if let Some(hint) = &self.current_leader {
            put_current_leader_tag(out, CURRENT_LEADER_TAG, hint);
        }
    }
}
