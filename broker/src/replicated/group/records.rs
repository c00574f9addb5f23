//! The records of `__consumer_offsets`, in Kafka's own formats, so that Kafka's tools can read the topic.
//!
//!     key     | 1 | group | topic | partition |            OffsetCommitKey v1 (v0 is read alike)
//!             | 2 | group |                                GroupMetadataKey v2
//!     value   | 3 | offset | leader epoch | metadata | commit time |                  OffsetCommitValue v3
//!             | 4 | as 3, compact strings, tag 0: topic id |                         written when the id is known
//!             | 3 | type | generation | protocol | leader | state time | members |    GroupMetadataValue v3
//!             | 4 | as 3, compact; tag 8192: awaits its assignment |                 in checkpoints; in the log before level 2
//!     member  | id | instance id | client id | host | rebalance, session timeout | subscription | assignment |
//!
//! The leading number is a 16-bit version; numbers are big-endian; a missing value (tombstone) deletes the key.
//! Read are values v0 to v4. Keys of other kinds (KIP-848 groups) are errors: a replica that passed over what another one keeps
//! would differ from it.
//! Invariant: what is written here reads back equal.

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use super::schema::{self, Malformed, Reader};
use crate::metadata::FeatureLevel;

/// First level at which the guard carries [`GroupValue::awaits_assignment`] and the log's record is a v3.
pub(crate) const GUARD_CARRIES_AWAITS_FROM: FeatureLevel = FeatureLevel(2);

/// Far above any tag that Kafka's schema will use.
const AWAITS_ASSIGNMENT_TAG: u32 = 8192;

/// A group's committed position in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next offset the group will read.
    pub offset: i64,
    /// Leader epoch of the last record read, -1 if the client sent none.
    pub leader_epoch: i32,
    /// The client's metadata for it.
    pub metadata: Box<str>,
    /// When it was committed, on the coordinator's clock.
    pub commit_time_ms: i64,
    /// Explicit expiry time (OffsetCommit v2-v4 only).
    pub expire_time_ms: Option<i64>,
    /// The topic's id when it was committed; zero if it was not known.
    pub topic_id: Uuid,
}

/// A group's membership as last written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupValue {
    /// `consumer`, `connect`, `sr` ...; empty for a group that never had members.
    pub protocol_type: String,
    /// Number of the last rebalance.
    pub generation: i32,
    /// The protocol its members agreed on; none while it is empty.
    pub protocol: Option<String>,
    /// Member id of the leader; none while it is empty.
    pub leader: Option<String>,
    /// When the group entered its state; -1 if unknown.
    pub state_time_ms: i64,
    /// Its members.
    pub members: Vec<MemberValue>,
    /// The generation has begun and its leader has not assigned yet. Kafka writes no record then. Ottla's is a v3 as
    /// Kafka writes it, and the guard beside it carries this flag; a checkpoint, which has no guards, and clusters
    /// below feature level 2 have it in a v4 with a tagged field of Ottla's own, which not every tool can read.
    pub awaits_assignment: bool,
}

/// One member of a [`GroupValue`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberValue {
    /// The id the coordinator gave it.
    pub member_id: String,
    /// Static members: the id the user gave it (KIP-345).
    pub instance_id: Option<String>,
    /// The client's name for itself.
    pub client_id: String,
    /// The host from which it connected.
    pub client_host: String,
    /// How long it may take to rejoin.
    pub rebalance_timeout_ms: i32,
    /// How long it may be silent.
    pub session_timeout_ms: i32,
    /// Its metadata for the protocol that was chosen.
    pub subscription: Bytes,
    /// The assignment from the leader.
    pub assignment: Bytes,
}

/// One record of the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A committed offset, or the removal of one.
    Offset {
        /// The group.
        group: String,
        /// The topic's name.
        topic: String,
        /// The partition's number.
        partition: i32,
        /// None removes it.
        value: Option<CommittedOffset>,
    },
    /// A group's membership, or the removal of the group.
    Group {
        /// The group.
        group: String,
        /// None removes it.
        value: Option<GroupValue>,
    },
}

impl Record {
    /// Reads a record's key and value.
    pub fn decode(key: Bytes, value: Option<Bytes>) -> Result<Self, Malformed> {
        let mut reader = Reader::new(key);
        match reader.i16()? {
            0 | 1 => Ok(Self::Offset {
                group: reader.string(false)?,
                topic: reader.string(false)?,
                partition: reader.i32()?,
                value: value.map(decode_offset).transpose()?,
            }),
            2 => Ok(Self::Group { group: reader.string(false)?, value: value.map(decode_group).transpose()? }),
            _ => Err(Malformed("a kind of record that this release does not know")),
        }
    }

    /// The record's key and value.
    #[must_use]
    pub fn encode(&self) -> (Bytes, Option<Bytes>) {
        match self {
            Self::Offset { group, topic, partition, value } => {
                (offset_key(group, topic, *partition), value.as_ref().map(encode_offset))
            }
            Self::Group { group, value } => (group_key(group), value.as_ref().map(encode_group)),
        }
    }
}

/// Key of a committed offset.
#[must_use]
pub fn offset_key(group: &str, topic: &str, partition: i32) -> Bytes {
    let mut out = BytesMut::with_capacity(10 + group.len() + topic.len());
    out.put_i16(1);
    schema::put_string(&mut out, group);
    schema::put_string(&mut out, topic);
    out.put_i32(partition);
    out.freeze()
}

/// Key of a group's membership.
#[must_use]
pub fn group_key(group: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(4 + group.len());
    out.put_i16(2);
    schema::put_string(&mut out, group);
    out.freeze()
}

pub(crate) fn encode_offset(value: &CommittedOffset) -> Bytes {
    let mut out = BytesMut::with_capacity(40 + value.metadata.len());
    if let Some(expire_time_ms) = value.expire_time_ms {
        // Only v1 has the explicit end; Kafka writes it alike.
        out.put_i16(1);
        out.put_i64(value.offset);
        schema::put_string(&mut out, &value.metadata);
        out.put_i64(value.commit_time_ms);
        out.put_i64(expire_time_ms);
        return out.freeze();
    }
    let flexible = !value.topic_id.is_nil();
    out.put_i16(if flexible { 4 } else { 3 });
    out.put_i64(value.offset);
    out.put_i32(value.leader_epoch);
    if flexible {
        schema::put_uvarint(&mut out, value.metadata.len() as u32 + 1);
        out.put_slice(value.metadata.as_bytes());
        out.put_i64(value.commit_time_ms);
        schema::put_uvarint(&mut out, 1); // one tagged field:
        schema::put_uvarint(&mut out, 0); // tag 0, the topic id,
        schema::put_uvarint(&mut out, 16); // 16 bytes
        out.put_u128(value.topic_id.as_u128());
    } else {
        schema::put_string(&mut out, &value.metadata);
        out.put_i64(value.commit_time_ms);
    }
    out.freeze()
}

fn decode_offset(bytes: Bytes) -> Result<CommittedOffset, Malformed> {
    let mut reader = Reader::new(bytes);
    let version = reader.i16()?;
    if !(0..=4).contains(&version) {
        return Err(Malformed("unknown version of an offset's value"));
    }
    let flexible = version >= 4;
    let offset = reader.i64()?;
    let leader_epoch = if version >= 3 { reader.i32()? } else { -1 };
    let metadata = reader.string(flexible)?.into_boxed_str();
    let commit_time_ms = reader.i64()?;
    let expire_time_ms = if version == 1 { Some(reader.i64()?).filter(|&at| at >= 0) } else { None };
    let mut topic_id = Uuid::nil();
    reader.tags(flexible, |tag, value| {
        if tag == 0 {
            topic_id = Reader::new(value).uuid()?;
        }
        Ok(())
    })?;
    Ok(CommittedOffset { offset, leader_epoch, metadata, commit_time_ms, expire_time_ms, topic_id })
}

pub(crate) fn encode_group(value: &GroupValue) -> Bytes {
    let compact = value.awaits_assignment;
    let mut out = BytesMut::with_capacity(64);
    out.put_i16(if compact { 4 } else { 3 });
    schema::put_text(&mut out, compact, Some(&value.protocol_type));
    out.put_i32(value.generation);
    schema::put_text(&mut out, compact, value.protocol.as_deref());
    schema::put_text(&mut out, compact, value.leader.as_deref());
    out.put_i64(value.state_time_ms);
    schema::put_length(&mut out, compact, value.members.len());
    for member in &value.members {
        schema::put_text(&mut out, compact, Some(&member.member_id));
        schema::put_text(&mut out, compact, member.instance_id.as_deref());
        schema::put_text(&mut out, compact, Some(&member.client_id));
        schema::put_text(&mut out, compact, Some(&member.client_host));
        out.put_i32(member.rebalance_timeout_ms);
        out.put_i32(member.session_timeout_ms);
        for bytes in [&member.subscription, &member.assignment] {
            schema::put_length(&mut out, compact, bytes.len());
            out.put_slice(bytes);
        }
        if compact {
            schema::put_uvarint(&mut out, 0);
        }
    }
    if compact {
        schema::put_uvarint(&mut out, 1);
        schema::put_uvarint(&mut out, AWAITS_ASSIGNMENT_TAG);
        schema::put_uvarint(&mut out, 0);
    }
    out.freeze()
}

fn decode_group(bytes: Bytes) -> Result<GroupValue, Malformed> {
    let mut reader = Reader::new(bytes);
    let version = reader.i16()?;
    if !(0..=4).contains(&version) {
        return Err(Malformed("unknown version of a group's value"));
    }
    let flexible = version >= 4;
    let protocol_type = reader.string(flexible)?;
    let generation = reader.i32()?;
    let protocol = reader.nullable_string(flexible)?;
    let leader = reader.nullable_string(flexible)?;
    let state_time_ms = if version >= 2 { reader.i64()? } else { -1 };
    let count = reader.array(flexible)?;
    let mut members = Vec::new();
    for _ in 0..count {
        members.push(decode_member(&mut reader, version)?);
    }
    let mut awaits_assignment = false;
    reader.tags(flexible, |tag, _| {
        awaits_assignment |= tag == AWAITS_ASSIGNMENT_TAG;
        Ok(())
    })?;
    Ok(GroupValue { protocol_type, generation, protocol, leader, state_time_ms, members, awaits_assignment })
}

fn decode_member(reader: &mut Reader, version: i16) -> Result<MemberValue, Malformed> {
    let flexible = version >= 4;
    let member_id = reader.string(flexible)?;
    let instance_id = if version >= 3 { reader.nullable_string(flexible)? } else { None };
    let client_id = reader.string(flexible)?;
    let client_host = reader.string(flexible)?;
    let rebalance_timeout_ms = if version >= 1 { reader.i32()? } else { -1 };
    let session_timeout_ms = reader.i32()?;
    let subscription = reader.bytes(flexible)?;
    let assignment = reader.bytes(flexible)?;
    reader.tags(flexible, |_, _| Ok(()))?;
    // Before v1 one timeout served both purposes.
    let rebalance_timeout_ms = if rebalance_timeout_ms < 0 { session_timeout_ms } else { rebalance_timeout_ms };
    Ok(MemberValue {
        member_id,
        instance_id,
        client_id,
        client_host,
        rebalance_timeout_ms,
        session_timeout_ms,
        subscription,
        assignment,
    })
}
