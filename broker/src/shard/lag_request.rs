//! Requests about consumer lag between nodes, as bytes: a coordinator reads the ends of partitions from their leaders,
//! and any node reads the groups from their coordinators.
//!
//!  request: | 0: ends | list: topic id, list: partition varint, position varint, known varint, needs time u8 |
//!             `known` is 0 or 1 + the high watermark that the requester has for this position
//!           | 1: groups | bytes that `coordinator::lag` reads |
//!           | 2: ends, and the control records before them | as 0 |
//!             `known` is there only if the requester has everything for this position
//!  answer to 0 and 2, one for each partition in order: | 0: nothing new | 1: not led here |
//!             | 2: ends | log start varint | high watermark varint | last stable varint |
//!                         timestamp varint: 0, or 1 + ms since 1970 |
//!             | 3: to 2 only | as 2 | control records below last stable varint, below the high watermark varint |
//!
//! Releases up to 0.5.29 know 0 and 1 alone, and refuse 2. Decoding never panics. May not know: groups, and how the ends are found.

use bytes::Bytes;
use ottla_protocol::ids::Offset;
use uuid::Uuid;

use crate::codec::{CodecError, Encoding, Reader, Value, Varint, VarintOrZero, Writer, decode, record, write_list};

/// A request from one node to another for consumer lag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LagRequest {
    Ends(Vec<TopicPositions>),
    Groups(Bytes),
    EndsAndControl(Vec<TopicPositions>),
}

impl LagRequest {
    /// The request as releases that count no control records understand it.
    pub(super) fn without_control(self) -> Self {
        match self {
            Self::EndsAndControl(topics) => Self::Ends(topics),
            other => other,
        }
    }
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
    /// The last high watermark that the requester has for this position, with all that was answered beside it.
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
    /// requester has it. Control records are passed over where they are counted.
    pub(crate) first_uncommitted_ms: Option<i64>,
    /// The control records from the position on; absent where they are not counted.
    pub(crate) control: Option<ControlCount>,
}

/// The control records from a committed position on: offsets that no client is given a record for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ControlCount {
    pub(crate) below_last_stable: i64,
    pub(crate) below_high_watermark: i64,
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

record! {
    enum LagRequest {
        0 Ends(topics),
        1 Groups(request),
        2 EndsAndControl(topics),
    }
    TopicPositions { topic, partitions }
    CommittedPosition { partition: Varint, position: Varint, known: VarintOrZero, needs_time }

    enum EndsAnswer {
        0 Unchanged,
        1 NotLeader,
        2 Ends(ends: EndsAlone) if ends.control.is_none(),
        3 Ends(ends: EndsWithControl),
    }
    PartitionEnds as EndsAlone {
        log_start: Varint, high_watermark: Varint, last_stable: Varint, first_uncommitted_ms: VarintOrZero;
        without control = None
    }
    PartitionEnds as EndsWithControl = EndsAlone + { control: Present }
    ControlCount { below_last_stable: Varint, below_high_watermark: Varint }
}

/// A count that is there, if only as 0.
struct Present;

impl Encoding<Option<ControlCount>> for Present {
    fn write(value: &Option<ControlCount>, w: &mut Writer) {
        value.unwrap_or_default().write(w);
    }

    fn read(r: &mut Reader<'_>, what: &'static str) -> Result<Option<ControlCount>, CodecError> {
        ControlCount::read(r, what).map(Some)
    }
}

impl EndsAnswer {
    pub(super) fn encode_all(answers: &[Self]) -> Bytes {
        let mut w = Writer::default();
        write_list(&mut w, answers.iter(), |w, answer| answer.write(w));
        w.finish()
    }

    pub(super) fn decode_all(bytes: &[u8]) -> Result<Vec<Self>, CodecError> {
        decode(bytes, "answers")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::codec::encode;

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
        let groups = LagRequest::Groups(Bytes::from_static(b"above"));
        for request in [LagRequest::Ends(topics.clone()), groups, LagRequest::EndsAndControl(topics)] {
            let bytes = encode(&request);
            assert!((0..bytes.len()).all(|cut| decode::<LagRequest>(&bytes[..cut], "request").is_err()));
            assert_eq!(decode(&bytes, "request"), Ok(request));
        }
        assert!(decode::<LagRequest>(&[3], "request").is_err());
    }

    #[test]
    fn answers_come_back_and_cut_bytes_are_refused() {
        let ends = |first_uncommitted_ms, control| {
            let (log_start, high_watermark, last_stable) = (Offset(5), Offset(1_000), Offset(900));
            EndsAnswer::Ends(PartitionEnds { log_start, high_watermark, last_stable, first_uncommitted_ms, control })
        };
        let control = ControlCount { below_last_stable: 3, below_high_watermark: 300 };
        let answers = vec![
            EndsAnswer::Unchanged,
            ends(None, None),
            ends(Some(0), Some(ControlCount::default())),
            EndsAnswer::NotLeader,
            ends(Some(1 << 41), None),
            ends(None, Some(control)),
        ];
        let bytes = EndsAnswer::encode_all(&answers);
        assert!((0..bytes.len()).all(|cut| EndsAnswer::decode_all(&bytes[..cut]).is_err()));
        assert_eq!(EndsAnswer::decode_all(&bytes), Ok(answers));
        assert!(EndsAnswer::decode_all(&[1, 4]).is_err());
    }
}
