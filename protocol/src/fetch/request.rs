//! Decoding of Fetch requests. Names are slices of the body.

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::{
    FLEXIBLE_FROM, FetchPartition, FetchRequest, FetchTopic, ForgottenTopic, LEADER_EPOCH_FROM, LOG_START_FROM,
    RACK_FROM, REPLICA_STATE_FROM, SESSIONS_FROM, TOPIC_IDS_FROM,
};
use crate::ids::{LeaderEpoch, NodeId, Offset};
use crate::produce::string;
use crate::wire::{Reader, WireError};

const REPLICA_STATE_TAG: u32 = 1;
/// Smallest partition: index, offset, maximum.
const PARTITION_BYTES_MIN: usize = 16;
/// Smallest topic: an empty name and an empty array.
const TOPIC_BYTES_MIN: usize = 3;

impl FetchRequest {
    /// Decodes a body of v4 or later. Like Kafka, ignores bytes that follow it.
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

/// Replica id, replica epoch, tags: only that it is a follower's request matters, for Ottla's never use this API.
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
