//! The body of a frame: encodes and decodes its content, kind by kind.
//!
//! ```text
//! Entry     term, index, clock, detail = entry kind, payload = command, batches
//! Vote      term, index = voted for, detail = committed
//! Truncate  term, index = last entry that stays, detail = 1; detail = 0: none stays
//! Purge     term, index = last entry purged
//! Create    term, index, detail = 1: the log begins after; payload = | has vote 1 | committed 1 | 0 x 6 | term 8 | voted for 8 | opaque |
//! Verdicts  term, index = first entry's; payload = entries: varint(index - previous index) varint(term - previous term)
//!           varint(count), in a frame of detail 3 varint(0 | 1 + segment of the relocated copy), per verdict a tag byte 0 rejected | 1 accepted, varint zigzag(base offset - previous), same epoch | 2 the same, then varint zigzag(epoch)
//!           | 5, 6 as 1, 2, then varint(0 | 1 + lineage), of this batch and those behind it; 0, as at first: the replica's own id
//! Remove, Lost  nothing
//! ```

use bytes::Bytes;
use ottla_protocol::ids::{LeaderEpoch, Offset};

use super::frame::{Kind, RawFrame, u64_le};
use super::types::{FrameBody, GroupCreation};
use crate::entry::{Entry, EntryKind, EntryVerdicts, Verdict, Vote};
use crate::ids::{Lineage, LogId, RaftIndex, ReplicaId, Term};

const CREATE_HEAD_BYTES: usize = 24;
/// In the detail of verdicts: each entry names the segment of its relocated copy, if it was relocated.
const RELOCATED: u8 = 2;
/// In the tag of a verdict: the lineage of its batch is another one than that of the accepted batch before it.
const LINEAGE: u8 = 4;

/// A body as bytes.
pub(crate) fn to_raw(body: FrameBody) -> RawFrame {
    let with_id = |kind, id: Option<LogId>| RawFrame {
        detail: u8::from(id.is_some()),
        term: id.map_or(0, |id| id.term.0),
        index: id.map_or(0, |id| id.index.0),
        ..RawFrame::empty(kind)
    };
    match body {
        FrameBody::Entry(entry) => RawFrame {
            kind: Kind::Entry,
            detail: entry.kind as u8,
            term: entry.log_id.term.0,
            index: entry.log_id.index.0,
            clock_ms: entry.clock_ms,
            payload: entry.payload,
            batches: entry.batches,
        },
        FrameBody::Vote(vote) => RawFrame {
            detail: u8::from(vote.committed),
            term: vote.term.0,
            index: vote.voted_for.0,
            ..RawFrame::empty(Kind::Vote)
        },
        FrameBody::Truncate(last) => with_id(Kind::Truncate, last),
        FrameBody::Purge(upto) => with_id(Kind::Purge, Some(upto)),
        FrameBody::Create(creation) => {
            let mut payload = Vec::with_capacity(CREATE_HEAD_BYTES + creation.payload.len());
            let vote = creation.vote;
            payload.extend_from_slice(&[u8::from(vote.is_some()), u8::from(vote.is_some_and(|v| v.committed))]);
            payload.extend_from_slice(&[0; 6]);
            payload.extend_from_slice(&vote.map_or(0, |v| v.term.0).to_le_bytes());
            payload.extend_from_slice(&vote.map_or(0, |v| v.voted_for.0).to_le_bytes());
            payload.extend_from_slice(&creation.payload);
            RawFrame { payload: Bytes::from(payload), ..with_id(Kind::Create, creation.purged) }
        }
        FrameBody::Verdicts(entries) => {
            let raw = with_id(Kind::Verdicts, entries.first().map(|entry| entry.log_id));
            let relocated = entries.iter().any(|entry| entry.relocated_to.is_some());
            let detail = if relocated { raw.detail | RELOCATED } else { raw.detail };
            RawFrame { payload: encode_verdicts(&entries, relocated), detail, ..raw }
        }
        FrameBody::Remove => RawFrame::empty(Kind::Remove),
        FrameBody::Lost => RawFrame::empty(Kind::Lost),
    }
}

/// The body of a frame; `None` if its content makes no sense although its CRC holds.
pub(crate) fn from_raw(raw: RawFrame, replica: ReplicaId) -> Option<FrameBody> {
    let id = LogId { term: Term(raw.term), index: RaftIndex(raw.index) };
    Some(match raw.kind {
        Kind::Entry => FrameBody::Entry(Entry {
            log_id: id,
            kind: match raw.detail {
                0 => EntryKind::Blank,
                1 => EntryKind::Normal,
                2 => EntryKind::Membership,
                _ => return None,
            },
            clock_ms: raw.clock_ms,
            payload: raw.payload,
            batches: raw.batches,
        }),
        Kind::Vote => {
            FrameBody::Vote(Vote { term: id.term, voted_for: ReplicaId(raw.index), committed: raw.detail != 0 })
        }
        Kind::Truncate => FrameBody::Truncate((raw.detail != 0).then_some(id)),
        Kind::Purge => FrameBody::Purge(id),
        Kind::Create => {
            let head = raw.payload.get(..CREATE_HEAD_BYTES)?;
            let vote =
                Vote { term: Term(u64_le(head, 8)), voted_for: ReplicaId(u64_le(head, 16)), committed: head[1] != 0 };
            FrameBody::Create(GroupCreation {
                replica,
                vote: (head[0] != 0).then_some(vote),
                payload: raw.payload.slice(CREATE_HEAD_BYTES..),
                purged: (raw.detail != 0).then_some(id),
            })
        }
        Kind::Verdicts => FrameBody::Verdicts(decode_verdicts(&raw.payload, raw.detail & RELOCATED != 0)?),
        Kind::Remove => FrameBody::Remove,
        Kind::Lost => FrameBody::Lost,
    })
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn encode_verdicts(entries: &[EntryVerdicts], relocated: bool) -> Bytes {
    let mut out = Vec::new();
    let (mut index, mut term, mut offset, mut epoch) = (0_u64, 0_u64, 0_i64, 0_i32);
    let mut lineage = None;
    for entry in entries {
        put_varint(&mut out, entry.log_id.index.0.wrapping_sub(index));
        put_varint(&mut out, entry.log_id.term.0.wrapping_sub(term));
        put_varint(&mut out, entry.verdicts.len() as u64);
        if relocated {
            put_varint(&mut out, entry.relocated_to.map_or(0, |segment| segment.saturating_add(1)));
        }
        (index, term) = (entry.log_id.index.0, entry.log_id.term.0);
        for (number, verdict) in entry.verdicts.iter().enumerate() {
            let Verdict::Accepted { base_offset, epoch: accepted } = verdict else {
                out.push(0);
                continue;
            };
            let own = entry.lineages.get(number).copied().flatten();
            let moved = if own == lineage { 0 } else { LINEAGE };
            out.push(if accepted.0 == epoch { 1 } else { 2 } | moved);
            put_varint(&mut out, zigzag(base_offset.0.wrapping_sub(offset)));
            offset = base_offset.0;
            if accepted.0 != epoch {
                put_varint(&mut out, zigzag(i64::from(accepted.0)));
                epoch = accepted.0;
            }
            if own != lineage {
                put_varint(&mut out, own.map_or(0, |lineage| lineage.0.saturating_add(1)));
                lineage = own;
            }
        }
    }
    Bytes::from(out)
}

fn decode_verdicts(mut bytes: &[u8], relocated: bool) -> Option<Vec<EntryVerdicts>> {
    let mut entries = Vec::new();
    let (mut index, mut term, mut offset, mut epoch) = (0_u64, 0_u64, 0_i64, 0_i32);
    let mut lineage = None;
    while !bytes.is_empty() {
        index = index.wrapping_add(take_varint(&mut bytes)?);
        term = term.wrapping_add(take_varint(&mut bytes)?);
        let count = usize::try_from(take_varint(&mut bytes)?).ok()?;
        let relocated_to = if relocated { take_varint(&mut bytes)?.checked_sub(1) } else { None };
        // Each verdict takes a byte at least: a count from damaged bytes allocates nothing.
        if count > bytes.len() {
            return None;
        }
        let (mut verdicts, mut lineages) = (Vec::with_capacity(count), Vec::new());
        for number in 0..count {
            let (&tag, rest) = bytes.split_first()?;
            bytes = rest;
            verdicts.push(match tag {
                0 => Verdict::Rejected,
                1 | 2 | 5 | 6 => {
                    offset = offset.wrapping_add(unzigzag(take_varint(&mut bytes)?));
                    if tag & !LINEAGE == 2 {
                        epoch = i32::try_from(unzigzag(take_varint(&mut bytes)?)).ok()?;
                    }
                    if tag & LINEAGE != 0 {
                        lineage = take_varint(&mut bytes)?.checked_sub(1).map(Lineage);
                    }
                    if lineage.is_some() {
                        lineages.resize(count, None);
                        lineages[number] = lineage;
                    }
                    Verdict::Accepted { base_offset: Offset(offset), epoch: LeaderEpoch(epoch) }
                }
                _ => return None,
            });
        }
        let log_id = LogId { term: Term(term), index: RaftIndex(index) };
        entries.push(EntryVerdicts { log_id, verdicts, lineages, relocated_to });
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn verdicts() -> impl Strategy<Value = Vec<EntryVerdicts>> {
        let verdict = prop_oneof![
            Just(Verdict::Rejected),
            (any::<i64>(), any::<i32>())
                .prop_map(|(o, e)| Verdict::Accepted { base_offset: Offset(o), epoch: LeaderEpoch(e) }),
            (0..1000_i64, 0..2_i32)
                .prop_map(|(o, e)| Verdict::Accepted { base_offset: Offset(o), epoch: LeaderEpoch(e) }),
        ];
        let log_id = (any::<u64>(), any::<u64>()).prop_map(|(t, i)| LogId { term: Term(t), index: RaftIndex(i) });
        let relocated_to = proptest::option::of(0..u64::MAX);
        let lineage = proptest::option::of(prop_oneof![0..3_u64, 1_u64 << 63..(1 << 63) + 2].prop_map(Lineage));
        let decided = proptest::collection::vec((verdict, lineage), 0..8);
        let entry = (log_id, decided, relocated_to).prop_map(|(log_id, decided, relocated_to)| {
            let of = |(verdict, lineage): &(Verdict, _)| if *verdict == Verdict::Rejected { None } else { *lineage };
            let mut lineages: Vec<Option<Lineage>> = decided.iter().map(of).collect();
            if lineages.iter().all(Option::is_none) {
                lineages.clear();
            }
            let verdicts = decided.into_iter().map(|(verdict, _)| verdict).collect();
            EntryVerdicts { log_id, verdicts, lineages, relocated_to }
        });
        proptest::collection::vec(entry, 0..8)
    }

    fn bodies() -> impl Strategy<Value = FrameBody> {
        let id = (any::<u64>(), any::<u64>()).prop_map(|(t, i)| LogId { term: Term(t), index: RaftIndex(i) });
        let vote = (any::<u64>(), any::<u64>(), any::<bool>()).prop_map(|(t, v, committed)| Vote {
            term: Term(t),
            voted_for: ReplicaId(v),
            committed,
        });
        let opaque = proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        let maybe_id = proptest::option::of(id.clone());
        prop_oneof![
            vote.clone().prop_map(FrameBody::Vote),
            maybe_id.clone().prop_map(FrameBody::Truncate),
            id.prop_map(FrameBody::Purge),
            (opaque, proptest::option::of(vote), maybe_id).prop_map(|(payload, vote, purged)| FrameBody::Create(
                GroupCreation { replica: ReplicaId(3), payload, vote, purged }
            )),
            verdicts().prop_map(FrameBody::Verdicts),
            Just(FrameBody::Remove),
            Just(FrameBody::Lost),
        ]
    }

    proptest! {
        #[test]
        fn a_body_comes_back_as_it_was(body in bodies()) {
            prop_assert_eq!(from_raw(to_raw(body.clone()), ReplicaId(3)), Some(body));
        }

        #[test]
        fn arbitrary_verdict_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = (decode_verdicts(&bytes, false), decode_verdicts(&bytes, true));
        }
    }
}
