//! Produce (key 0): request v3-v13 and response v0-v13, written by hand for the hot path.
//!
//! v3 transactional id · v5 log start offset · v8 record errors (KIP-467) · v9 flexible · v10 leader hints
//! (KIP-951) · v12 transactions version 2 (KIP-890, same bytes) · v13 topic ids instead of names.
//! Records are slices of the frame. May not know: what is in a batch.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::error::ErrorCode;
use crate::ids::Offset;
use crate::leader_hint::{put_current_leader_tag, put_endpoints_as_only_tag};
use crate::wire::{Reader, WireError, put_count, put_no_tags, put_nullable_str_bytes, put_unsigned_varint};

pub use crate::leader_hint::{CurrentLeader, NodeEndpoint};

const FLEXIBLE_FROM: i16 = 9;
const TOPIC_IDS_FROM: i16 = 13;
const LEADER_HINTS_FROM: i16 = 10;
const RECORD_ERRORS_FROM: i16 = 8;
const LOG_START_FROM: i16 = 5;
const LOG_APPEND_TIME_FROM: i16 = 2;
const THROTTLE_FROM: i16 = 1;
/// Smallest partition: index and a null length (compact: and the count of tags).
const PARTITION_BYTES_MIN: usize = 6;
/// Smallest topic: an empty name and an empty array.
const TOPIC_BYTES_MIN: usize = 3;

/// A decoded Produce request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceRequest {
    /// Set if the producer is transactional.
    pub transactional_id: Option<StrBytes>,
    /// 0: no response; 1 or -1: a response at apply; everything else is INVALID_REQUIRED_ACKS.
    pub acks: i16,
    /// How long the client waits.
    pub timeout_ms: i32,
    /// What to append where.
    pub topics: Vec<ProduceTopic>,
}

/// The partitions of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceTopic {
    /// The topic's name, up to v12.
    pub name: Option<StrBytes>,
    /// The topic's id, from v13.
    pub id: Option<Uuid>,
    /// What to append where.
    pub partitions: Vec<ProducePartition>,
}

/// The records of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducePartition {
    /// The partition's number.
    pub index: i32,
    /// One v2 batch, if the client is well-behaved; a slice of the frame.
    pub records: Option<Bytes>,
}

/// The response to a Produce request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProduceResponse {
    /// In the order of the request.
    pub topics: Vec<ProduceTopicResponse>,
    /// How long the client's quota throttles it.
    pub throttle_time_ms: i32,
    /// Addresses of the current leaders.
    pub node_endpoints: Vec<NodeEndpoint>,
}

/// The response of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceTopicResponse {
    /// As in the request.
    pub name: Option<StrBytes>,
    /// As in the request.
    pub id: Option<Uuid>,
    /// In the order of the request.
    pub partitions: Vec<ProducePartitionResponse>,
}

/// The response of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducePartitionResponse {
    /// The partition's number.
    pub index: i32,
    /// Outcome.
    pub error: ErrorCode,
    /// Offset of the first record; -1 on an error.
    pub base_offset: Offset,
    /// The time the broker stamped, -1 unless the topic uses LogAppendTime.
    pub log_append_time_ms: i64,
    /// First offset of the partition; -1 if unknown.
    pub log_start: Offset,
    /// The records that made the batch fail.
    pub record_errors: Vec<RecordError>,
    /// The error message.
    pub error_message: Option<StrBytes>,
    /// The current leader, with NOT_LEADER_OR_FOLLOWER.
    pub current_leader: Option<CurrentLeader>,
}

/// A record that made its batch fail (KIP-467).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordError {
    /// Position of the record in its batch.
    pub batch_index: i32,
    /// What is wrong with it.
    pub message: Option<StrBytes>,
}

impl ProducePartitionResponse {
    /// The response to a batch that was appended.
    #[must_use]
    pub fn appended(index: i32, base_offset: Offset, log_append_time_ms: i64, log_start: Offset) -> Self {
        Self { base_offset, log_append_time_ms, log_start, ..Self::failed(index, ErrorCode::None) }
    }

    /// The response to a batch that was refused.
    #[must_use]
    pub fn failed(index: i32, error: ErrorCode) -> Self {
        Self {
            index,
            error,
            base_offset: Offset(-1),
            log_append_time_ms: -1,
            log_start: Offset(-1),
            record_errors: Vec::new(),
            error_message: None,
            current_leader: None,
        }
    }
}

impl ProduceRequest {
    /// Decodes a body of v3 or later. Like Kafka, ignores bytes that follow it.
    pub fn decode(version: i16, body: &Bytes) -> Result<Self, WireError> {
        let flexible = version >= FLEXIBLE_FROM;
        let mut reader = Reader::new(body);
        let transactional_id = string(body, reader.nullable_string(flexible)?)?;
        let acks = reader.i16()?;
        let timeout_ms = reader.i32()?;
        let count = reader.array_count(flexible, TOPIC_BYTES_MIN)?.ok_or(WireError::NegativeLength)?;
        let mut topics = Vec::with_capacity(count);
        for _ in 0..count {
            topics.push(ProduceTopic::decode(version, body, &mut reader)?);
        }
        if flexible {
            reader.skip_tags()?;
        }
        Ok(Self { transactional_id, acks, timeout_ms, topics })
    }

    /// Appends the body; for tests and clients.
    pub fn encode(&self, version: i16, out: &mut BytesMut) {
        let flexible = version >= FLEXIBLE_FROM;
        put_nullable_str_bytes(out, flexible, self.transactional_id.as_ref());
        out.put_i16(self.acks);
        out.put_i32(self.timeout_ms);
        put_count(out, flexible, self.topics.len());
        for topic in &self.topics {
            put_topic(out, version, topic.name.as_ref(), topic.id);
            put_count(out, flexible, topic.partitions.len());
            for partition in &topic.partitions {
                out.put_i32(partition.index);
                put_records(out, flexible, partition.records.as_ref());
                put_no_tags(out, flexible);
            }
            put_no_tags(out, flexible);
        }
        put_no_tags(out, flexible);
    }
}

impl ProduceTopic {
    fn decode(version: i16, body: &Bytes, reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let flexible = version >= FLEXIBLE_FROM;
        let (name, id) = if version >= TOPIC_IDS_FROM {
            (None, Some(reader.uuid()?))
        } else {
            let name = string(body, reader.nullable_string(flexible)?)?.ok_or(WireError::NegativeLength)?;
            (Some(name), None)
        };
        let count = reader.array_count(flexible, PARTITION_BYTES_MIN)?.ok_or(WireError::NegativeLength)?;
        let mut partitions = Vec::with_capacity(count);
        for _ in 0..count {
            let index = reader.i32()?;
            let records = reader.nullable_bytes(flexible)?.map(|raw| body.slice_ref(raw));
            if flexible {
                reader.skip_tags()?;
            }
            partitions.push(ProducePartition { index, records });
        }
        if flexible {
            reader.skip_tags()?;
        }
        Ok(Self { name, id, partitions })
    }
}

impl ProduceResponse {
    /// Appends the body.
    pub fn encode(&self, version: i16, out: &mut BytesMut) {
        let flexible = version >= FLEXIBLE_FROM;
        put_count(out, flexible, self.topics.len());
        for topic in &self.topics {
            put_topic(out, version, topic.name.as_ref(), topic.id);
            put_count(out, flexible, topic.partitions.len());
            for partition in &topic.partitions {
                partition.encode(version, out);
            }
            put_no_tags(out, flexible);
        }
        if version >= THROTTLE_FROM {
            out.put_i32(self.throttle_time_ms);
        }
        if version >= LEADER_HINTS_FROM {
            put_endpoints_as_only_tag(out, &self.node_endpoints);
        } else {
            put_no_tags(out, flexible);
        }
    }
}

impl ProducePartitionResponse {
    fn encode(&self, version: i16, out: &mut BytesMut) {
        let flexible = version >= FLEXIBLE_FROM;
        out.put_i32(self.index);
        out.put_i16(self.error.code());
        out.put_i64(self.base_offset.0);
        if version >= LOG_APPEND_TIME_FROM {
            out.put_i64(self.log_append_time_ms);
        }
        if version >= LOG_START_FROM {
            out.put_i64(self.log_start.0);
        }
        if version >= RECORD_ERRORS_FROM {
            put_count(out, flexible, self.record_errors.len());
            for error in &self.record_errors {
                out.put_i32(error.batch_index);
                put_nullable_str_bytes(out, flexible, error.message.as_ref());
                put_no_tags(out, flexible);
            }
            put_nullable_str_bytes(out, flexible, self.error_message.as_ref());
        }
        match &self.current_leader {
            Some(hint) if version >= LEADER_HINTS_FROM => {
                put_unsigned_varint(out, 1);
                put_current_leader_tag(out, 0, hint);
            }
            _ => put_no_tags(out, flexible),
        }
    }
}

fn put_topic(out: &mut BytesMut, version: i16, name: Option<&StrBytes>, id: Option<Uuid>) {
    if version >= TOPIC_IDS_FROM {
        out.put_slice(id.unwrap_or_default().as_bytes());
    } else {
        let empty = StrBytes::new();
        put_nullable_str_bytes(out, version >= FLEXIBLE_FROM, Some(name.unwrap_or(&empty)));
    }
}

fn put_records(out: &mut BytesMut, flexible: bool, records: Option<&Bytes>) {
    match records {
        None if flexible => out.put_u8(0),
        None => out.put_i32(-1),
        Some(records) => {
            if flexible {
                put_unsigned_varint(out, records.len() as u32 + 1);
            } else {
                out.put_i32(records.len() as i32);
            }
            out.put_slice(records);
        }
    }
}

/// A string as a slice of the body.
pub(crate) fn string(body: &Bytes, raw: Option<&[u8]>) -> Result<Option<StrBytes>, WireError> {
    raw.map(|raw| StrBytes::from_utf8(body.slice_ref(raw)).map_err(|_| WireError::NotUtf8)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_response_to_a_batch_that_was_appended_has_all_that_was_given_to_it() {
        let answer = ProducePartitionResponse::appended(3, Offset(40), 1_700_000_000_000, Offset(7));
        assert_eq!((answer.index, answer.error), (3, ErrorCode::None));
        let given = (answer.base_offset, answer.log_append_time_ms, answer.log_start);
        assert_eq!(given, (Offset(40), 1_700_000_000_000, Offset(7)));
        let refused = ProducePartitionResponse::failed(3, ErrorCode::NotLeaderOrFollower);
        assert_eq!((refused.base_offset, refused.log_append_time_ms, refused.log_start), (Offset(-1), -1, Offset(-1)));
    }
}
