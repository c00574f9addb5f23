//! The header of a segment: the state of every replica when the segment was begun. With it recovery can start at any
//! segment, even if the older ones are lost.
//!
//! ```text
//!  0               8        12              16               20      24         32            40
//!  | "OTTLASEG"    | crc32  | header length | format version | flags | segment  | incarnation | first commit ...
//!  40             48             56              60  64
//!  | first commit | previous end | count         | 0 | rows of replicas
//!  row: | replica id 8 | last sequence 8 | vote term 8 | voted for 8 | purged term 8 | purged index 8 | flags 4 | creation length 4 |
//!       the group's creation, padded to 8
//! ```
//! Padded with zeros to a page; the first commit follows. `crc32` covers everything from byte 12 to the header's length.
//! This rule, the magic and the version's place are the same in every version. Row flags: 1 has a vote, 2 the vote is
//! committed, 4 has purged, 8 lost acknowledged bytes.
//!
//! Invariant: a segment file whose header does not name its own number was never begun.

use bytes::Bytes;

use super::commit::{pack, unpack};
use super::frame::{NUMBER_MAX, u32_le, u64_le};
use crate::entry::Vote;
use crate::ids::{LogId, LogPosition, RaftIndex, ReplicaId, Term};

const MAGIC: [u8; 8] = *b"OTTLASEG";
const HEAD_BYTES: usize = 64;
const ROW_BYTES: usize = 56;
/// The version written; older ones are read, newer ones refused.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// No header is longer.
pub(crate) const HEADER_BYTES_MAX: usize = 64 << 20;

/// The state of a replica before a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReplicaRow {
    pub(crate) replica: ReplicaId,
    pub(crate) sequence: u64,
    pub(crate) vote: Option<Vote>,
    pub(crate) purged: Option<LogId>,
    pub(crate) lost: bool,
    pub(crate) creation: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) segment: u64,
    pub(crate) incarnation: u64,
    pub(crate) first_commit: u64,
    /// End of the log in the segment before; segment 0 if there is none.
    pub(crate) previous_end: LogPosition,
    pub(crate) rows: Vec<ReplicaRow>,
}

/// Result of decoding the beginning of a segment file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderFound {
    Sound(SegmentHeader, usize),
    /// A sound header of a newer release.
    Newer(u32),
    /// Nothing, or nothing sound.
    None,
}

impl SegmentHeader {
    pub(crate) fn encoded_bytes(&self) -> usize {
        Self::bytes_for(self.rows.iter())
    }

    /// Length of the header with these rows.
    pub(crate) fn bytes_for<'a>(rows: impl Iterator<Item = &'a ReplicaRow>) -> usize {
        HEAD_BYTES + rows.map(|row| ROW_BYTES + row.creation.len().next_multiple_of(8)).sum::<usize>()
    }

    /// Appends the header without the padding to a page.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let length = self.encoded_bytes();
        assert!(length <= HEADER_BYTES_MAX, "a segment header of {length} bytes");
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(length as u32).to_le_bytes());
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.segment.to_le_bytes());
        out.extend_from_slice(&self.incarnation.to_le_bytes());
        out.extend_from_slice(&self.first_commit.to_le_bytes());
        out.extend_from_slice(&pack(self.previous_end).to_le_bytes());
        out.extend_from_slice(&(self.rows.len() as u32).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        for row in &self.rows {
            encode_row(out, row);
        }
        let crc = crc32fast::hash(&out[start + 12..]);
        out[start + 8..start + 12].copy_from_slice(&crc.to_le_bytes());
    }

    /// Length of the header that seems to begin here, before it is verified.
    pub(crate) fn announced_bytes(bytes: &[u8]) -> Option<usize> {
        let head = bytes.get(..16)?;
        let length = u32_le(head, 12) as usize;
        (head[..8] == MAGIC && (20..=HEADER_BYTES_MAX).contains(&length)).then_some(length)
    }

    /// The header at the beginning of `bytes`, with its length.
    pub(crate) fn decode(bytes: &[u8]) -> HeaderFound {
        let Some(head) = Self::announced_bytes(bytes).and_then(|length| bytes.get(..length)) else {
            return HeaderFound::None;
        };
        if crc32fast::hash(&head[12..]) != u32_le(head, 8) {
            return HeaderFound::None;
        }
        let version = u32_le(head, 16);
        if version > FORMAT_VERSION {
            return HeaderFound::Newer(version);
        }
        Self::decode_rows(head).map_or(HeaderFound::None, |header| HeaderFound::Sound(header, head.len()))
    }

    fn decode_rows(head: &[u8]) -> Option<Self> {
        let mut rest = head.get(HEAD_BYTES..)?;
        let first_commit = u64_le(head, 40);
        if !(1..=NUMBER_MAX).contains(&first_commit) {
            return None;
        }
        let mut rows = Vec::new();
        for _ in 0..u32_le(head, 56) {
            rows.push(decode_row(&mut rest)?);
        }
        rest.is_empty().then(|| Self {
            segment: u64_le(head, 24),
            incarnation: u64_le(head, 32),
            first_commit,
            previous_end: unpack(u64_le(head, 48)),
            rows,
        })
    }
}

fn encode_row(out: &mut Vec<u8>, row: &ReplicaRow) {
    let flag = |set: bool, bit: u32| if set { bit } else { 0 };
    let flags = flag(row.vote.is_some(), 1)
        | flag(row.vote.is_some_and(|v| v.committed), 2)
        | flag(row.purged.is_some(), 4)
        | flag(row.lost, 8);
    let numbers = [
        row.replica.0,
        row.sequence,
        row.vote.map_or(0, |v| v.term.0),
        row.vote.map_or(0, |v| v.voted_for.0),
        row.purged.map_or(0, |id| id.term.0),
        row.purged.map_or(0, |id| id.index.0),
    ];
    numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
    out.extend_from_slice(&flags.to_le_bytes());
    out.extend_from_slice(&(row.creation.len() as u32).to_le_bytes());
    out.extend_from_slice(&row.creation);
    out.resize(out.len() + row.creation.len().next_multiple_of(8) - row.creation.len(), 0);
}

fn decode_row(rest: &mut &[u8]) -> Option<ReplicaRow> {
    let row = rest.get(..ROW_BYTES)?;
    let (flags, length) = (u32_le(row, 48), u32_le(row, 52) as usize);
    let end = ROW_BYTES.checked_add(length.checked_next_multiple_of(8)?)?;
    let creation = rest.get(..end)?.get(ROW_BYTES..ROW_BYTES + length)?;
    let vote = Vote { term: Term(u64_le(row, 16)), voted_for: ReplicaId(u64_le(row, 24)), committed: flags & 2 != 0 };
    let purged = LogId { term: Term(u64_le(row, 32)), index: RaftIndex(u64_le(row, 40)) };
    let decoded = ReplicaRow {
        replica: ReplicaId(u64_le(row, 0)),
        sequence: u64_le(row, 8),
        vote: (flags & 1 != 0).then_some(vote),
        purged: (flags & 4 != 0).then_some(purged),
        lost: flags & 8 != 0,
        creation: Bytes::copy_from_slice(creation),
    };
    *rest = rest.get(end..)?;
    let counted = [decoded.sequence, vote.term.0, purged.term.0, purged.index.0];
    counted.iter().all(|number| *number <= NUMBER_MAX).then_some(decoded)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn header(rows: &[(u64, Vec<u8>, u8)]) -> SegmentHeader {
        let row = |(id, creation, flags): &(u64, Vec<u8>, u8)| ReplicaRow {
            replica: ReplicaId(*id),
            sequence: id / 3,
            vote: (flags & 1 != 0).then_some(Vote {
                term: Term(4),
                voted_for: ReplicaId(*id),
                committed: flags & 2 != 0,
            }),
            purged: (flags & 4 != 0).then_some(LogId { term: Term(3), index: RaftIndex(77) }),
            lost: flags & 8 != 0,
            creation: Bytes::from(creation.clone()),
        };
        SegmentHeader {
            segment: 12,
            incarnation: 0xfeed,
            first_commit: 4711,
            previous_end: LogPosition { segment: 11, byte: 8192 },
            rows: rows.iter().map(row).collect(),
        }
    }

    fn rows() -> impl Strategy<Value = Vec<(u64, Vec<u8>, u8)>> {
        proptest::collection::vec((any::<u64>(), proptest::collection::vec(any::<u8>(), 0..30), any::<u8>()), 0..6)
    }

    proptest! {
        #[test]
        fn a_segment_header_comes_back_as_it_was(rows in rows()) {
            let header = header(&rows);
            let mut out = Vec::new();
            header.encode(&mut out);
            let length = out.len();
            prop_assert_eq!(length, header.encoded_bytes());
            out.resize(length.next_multiple_of(4096), 0);
            prop_assert_eq!(SegmentHeader::decode(&out), HeaderFound::Sound(header, length));
        }

        #[test]
        fn a_damaged_segment_header_is_none(rows in rows(), at in any::<proptest::sample::Index>(), bit in 0..8_u8) {
            let mut out = Vec::new();
            header(&rows).encode(&mut out);
            let at = at.index(out.len());
            out[at] ^= 1 << bit;
            prop_assert_eq!(SegmentHeader::decode(&out), HeaderFound::None);
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut out = Vec::new();
        header(&[]).encode(&mut out);
        out[16..20].copy_from_slice(&(FORMAT_VERSION + 1).to_le_bytes());
        assert_eq!(SegmentHeader::decode(&out), HeaderFound::None);
        let crc = crc32fast::hash(&out[12..]);
        out[8..12].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&out), HeaderFound::Newer(FORMAT_VERSION + 1));
    }
}
