//! Requests about consumer lag between nodes, as bytes: a coordinator reads the ends of partitions from their leaders,
//! and any node reads the groups from their coordinators.
//!
//!  request: | 0: ends | list: topic id, list: partition varint, position varint, known varint, needs time u8 |
//!             `known` is 0 or 1 + the high watermark that the requester has for this position
//!           | 1: groups | bytes that `coordinator::lag` reads |
//!  answer to 0, one for each partition in order: | 0: nothing new | 1: not led here |
//!             | 2: ends | log start varint | high watermark varint | last stable varint |
//!                         timestamp varint: 0, or 1 + ms since 1970 |
//!
//! Decoding never panics. May not know: groups, and how the ends are found.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use ottla_protocol::ids::Offset;
use uuid::Uuid;

use crate::codec::{CodecError, Reader, Writer, read_list, write_list};

/// Answers another node's request about the groups that are coordinated here.
pub(crate) type GroupsService = Arc<dyn Fn(Bytes) -> BoxFuture<'static, Option<Bytes>> + Send + Sync>;

/// A request from one node to another for consumer lag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LagRequest {
    Ends(Vec<TopicPositions>),
    Groups(Bytes),
}

/// Committed positions in one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicPositions {
    pub(crate) topic: Uuid,
    pub(crate) partitions: Vec<CommittedPosition>,
}

/// A position that a group has committed in a partition, and what the requester has of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CommittedPosition {
    pub(crate) partition: i32,
    pub(crate) position: Offset,
    /// The last high watermark that the requester has for this position.
    pub(crate) known: Option<Offset>,
    /// The requester lacks the timestamp of the first record from the position on.
    pub(crate) needs_time: bool,
}

/// The ends of a partition as its leader has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartitionEnds {
    pub(crate) log_start: Offset,
    pub(crate) high_watermark: Offset,
    pub(crate) last_stable: Offset,
    /// Timestamp, by the time index, of the first record that is not committed; absent if there is none or the
    /// requester has it.
    pub(crate) first_uncommitted_ms: Option<i64>,
}

/// The answer for one position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndsAnswer {
    /// The high watermark is the one that the requester has.
    Unchanged,
    /// The node does not lead the partition.
    NotLeader,
    Ends(PartitionEnds),
}

/// Offsets and times are not negative; one that is counts as 0.
fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn signed(value: u64, what: &'static str) -> Result<i64, CodecError> {
    i64::try_from(value).map_err(|_| CodecError::Value(what))
}

/// 0 for none, else the value + 1.
fn write_optional(w: &mut Writer, value: Option<i64>) {
    w.varint(value.map_or(0, |value| unsigned(value) + 1));
}

fn read_optional(r: &mut Reader<'_>, what: &'static str) -> Result<Option<i64>, CodecError> {
    r.varint(what)?.checked_sub(1).map(|value| signed(value, what)).transpose()
}

impl LagRequest {
    pub(super) fn write(&self, w: &mut Writer) {
        match self {
            Self::Ends(topics) => {
                write_list(w.u8(0), topics.iter(), |w, topic| {
                    write_list(w.uuid(&topic.topic), topic.partitions.iter(), |w, at| {
                        w.varint(u64::from(at.partition.unsigned_abs())).varint(unsigned(at.position.0));
                        write_optional(w, at.known.map(|known| known.0));
                        w.u8(u8::from(at.needs_time));
                    });
                });
            }
            Self::Groups(request) => drop(w.u8(1).blob(request)),
        }
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        match r.u8("request about lag")? {
            0 => Ok(Self::Ends(read_list(r, "topics", |r| {
                let topic = r.uuid("topic id")?;
                let partitions = read_list(r, "positions", |r| {
                    let partition =
                        i32::try_from(r.varint("partition")?).map_err(|_| CodecError::Value("partition"))?;
                    let position = Offset(signed(r.varint("position")?, "position")?);
                    let known = read_optional(r, "known high watermark")?.map(Offset);
                    Ok(CommittedPosition { partition, position, known, needs_time: r.u8("needs time")? != 0 })
                })?;
                Ok(TopicPositions { topic, partitions })
            })?)),
            1 => Ok(Self::Groups(r.blob("request for groups")?)),
            tag => Err(CodecError::Tag("request about lag", tag)),
        }
    }
}

impl EndsAnswer {
    pub(super) fn encode_all(answers: &[Self]) -> Bytes {
        let mut w = Writer::default();
        write_list(&mut w, answers.iter(), |w, answer| match answer {
            Self::Unchanged => drop(w.u8(0)),
            Self::NotLeader => drop(w.u8(1)),
            Self::Ends(ends) => {
                w.u8(2).varint(unsigned(ends.log_start.0)).varint(unsigned(ends.high_watermark.0));
                w.varint(unsigned(ends.last_stable.0));
                write_optional(w, ends.first_uncommitted_ms);
            }
        });
        w.finish()
    }

    pub(super) fn decode_all(bytes: &[u8]) -> Result<Vec<Self>, CodecError> {
        let mut r = Reader::new(bytes);
        let answers = read_list(&mut r, "answers", |r| match r.u8("answer")? {
            0 => Ok(Self::Unchanged),
            1 => Ok(Self::NotLeader),
            2 => {
                let mut offset = |what| r.varint(what).and_then(|value| signed(value, what)).map(Offset);
                let (log_start, high_watermark) = (offset("log start")?, offset("high watermark")?);
                let last_stable = offset("last stable offset")?;
                let first_uncommitted_ms = read_optional(r, "timestamp")?;
                Ok(Self::Ends(PartitionEnds { log_start, high_watermark, last_stable, first_uncommitted_ms }))
            }
            tag => Err(CodecError::Tag("answer about ends", tag)),
        })?;
        r.end()?;
        Ok(answers)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(partition: i32, known: Option<i64>) -> CommittedPosition {
        CommittedPosition { partition, position: Offset(300), known: known.map(Offset), needs_time: known.is_none() }
    }

    #[test]
    fn requests_come_back_and_cut_bytes_are_refused() {
        let topics = vec![
            TopicPositions {
                topic: Uuid::from_u128(7),
                partitions: vec![at(0, None), at(9, Some(0)), at(3, Some(1 << 40))],
            },
            TopicPositions { topic: Uuid::from_u128(8), partitions: Vec::new() },
        ];
        for request in [LagRequest::Ends(topics), LagRequest::Groups(Bytes::from_static(b"above"))] {
            let mut w = Writer::default();
            request.write(&mut w);
            let bytes = w.finish();
            assert!((0..bytes.len()).all(|cut| LagRequest::read(&mut Reader::new(&bytes[..cut])).is_err()));
            assert_eq!(LagRequest::read(&mut Reader::new(&bytes)), Ok(request));
        }
        assert!(LagRequest::read(&mut Reader::new(&[2])).is_err());
    }

    #[test]
    fn answers_come_back_and_cut_bytes_are_refused() {
        let ends = |first_uncommitted_ms| {
            let (log_start, high_watermark, last_stable) = (Offset(5), Offset(1_000), Offset(900));
            EndsAnswer::Ends(PartitionEnds { log_start, high_watermark, last_stable, first_uncommitted_ms })
        };
        let answers =
            vec![EndsAnswer::Unchanged, ends(None), ends(Some(0)), EndsAnswer::NotLeader, ends(Some(1 << 41))];
        let bytes = EndsAnswer::encode_all(&answers);
        assert!((0..bytes.len()).all(|cut| EndsAnswer::decode_all(&bytes[..cut]).is_err()));
        assert_eq!(EndsAnswer::decode_all(&bytes), Ok(answers));
        assert!(EndsAnswer::decode_all(&[1, 3]).is_err());
    }
}
