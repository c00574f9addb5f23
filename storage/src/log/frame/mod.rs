//! A frame: one entry, vote, truncation, purge, creation, removal, loss or set of verdicts of one replica. Little-endian,
//! 8-byte aligned, padded with zeros.
//!
//! ```text
//!  0          4         8               16      17       18      20       24            32         40
//!  | length   | crc32   | incarnation   | kind  | detail | flags | count  | replica id  | sequence | term ...
//!  40         48        56              64              72                76            80
//!  | term     | index   | clock_ms      | durable_upto  | payload length  | 0           |
//!  80: `count` descriptors of 32 bytes
//!  | topic id (16)      | partition (4) | length (4)    | CRC-32C (4)     | key id (4)  |
//!  then the payload, then the raw batches without a gap
//! ```
//! `length` is without the padding. `crc32` (crc32fast) covers everything from byte 8 to the end of the payload and the
//! 61-byte header of each batch; records are guarded by the batch's own CRC-32C alone, which the descriptor repeats. So
//! where only records are damaged, offsets, timestamps and the producer are still known.
//! `key id` is 0: batches are plain. `flags` has room for what follows (nonce, tag); an unknown flag is damage.
//!
//! Invariant: a frame counts only if its CRC holds and its incarnation is its segment's; its order is its replica's
//! sequence number, never its position.

use std::ops::Range;

use bytes::Bytes;
use ottla_protocol::batch::{self, RawHeader};
use ottla_protocol::ids::PartitionId;
use uuid::Uuid;

use super::types::EntryPlace;
use crate::entry::{Batches, Entry, EntryBatch};
use crate::ids::{LogPosition, ReplicaId};
use ottla_env::mutants::{self, Bug};

/// Upper bound of sequence numbers, which no log reaches: a greater number is damage, and counting on cannot overflow.
pub(crate) const NUMBER_MAX: u64 = u64::MAX / 2;

/// Length of the fixed part.
pub(crate) const HEAD_BYTES: usize = 80;
/// Length of a batch's descriptor.
pub(crate) const DESCRIPTOR_BYTES: usize = 32;
/// No frame is longer.
pub(crate) const FRAME_BYTES_MAX: usize = 1 << 30;

/// What a frame is. Numbers are never used for anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Entry = 1,
    Vote = 2,
    Truncate = 3,
    Purge = 4,
    Create = 5,
    Verdicts = 6,
    Remove = 7,
    Lost = 8,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Entry,
            2 => Self::Vote,
            3 => Self::Truncate,
            4 => Self::Purge,
            5 => Self::Create,
            6 => Self::Verdicts,
            7 => Self::Remove,
            8 => Self::Lost,
            _ => return None,
        })
    }
}

/// A frame's content as bytes; [`super::frame_body`] decodes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RawFrame {
    pub(crate) kind: Kind,
    pub(crate) detail: u8,
    pub(crate) term: u64,
    pub(crate) index: u64,
    pub(crate) clock_ms: i64,
    pub(crate) payload: Bytes,
    pub(crate) batches: Batches,
}

impl RawFrame {
    /// A frame without content.
    pub(crate) fn empty(kind: Kind) -> Self {
        Self { kind, detail: 0, term: 0, index: 0, clock_ms: 0, payload: Bytes::new(), batches: Batches::default() }
    }

    /// Length without padding.
    pub(crate) fn frame_bytes(&self) -> usize {
        let batches: usize = self.batches.iter().map(|b| DESCRIPTOR_BYTES + b.data.len()).sum();
        HEAD_BYTES + self.payload.len() + batches
    }
}

/// Where the batches of an entry lie in its frame. It follows from the entry alone: the index needs no read of the frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EntryLayout {
    /// First byte of each batch, counted from the frame's first byte.
    pub(crate) batches_at: Vec<u32>,
    /// Length without padding.
    pub(crate) frame_bytes: u32,
}

impl EntryLayout {
    pub(crate) fn of(entry: &Entry) -> Self {
        let mut at = HEAD_BYTES + DESCRIPTOR_BYTES * entry.batches.len() + entry.payload.len();
        let mut batches_at = Vec::with_capacity(entry.batches.len());
        for batch in &entry.batches {
            batches_at.push(at as u32);
            at += batch.data.len();
        }
        assert!(at <= FRAME_BYTES_MAX, "entry {}: {at} bytes, at most {FRAME_BYTES_MAX}", entry.log_id);
        Self { batches_at, frame_bytes: at as u32 }
    }

    /// First byte of a batch's own header, where the frame lies here.
    pub(crate) fn batch_at(&self, number: usize, place: EntryPlace) -> LogPosition {
        LogPosition { byte: place.position.byte + self.batches_at[number], ..place.position }
    }
}

/// The fields that the writer adds to a frame's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) incarnation: u64,
    pub(crate) replica: ReplicaId,
    pub(crate) sequence: u64,
    /// Packed position up to which the log was durable when the frame was written.
    pub(crate) durable_upto: u64,
}

/// Length with padding.
pub(crate) fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(8)
}

/// The header of a batch that is to be written: no append is accepted with less.
fn header_of(stamp: Stamp, batch: &EntryBatch) -> RawHeader<'_> {
    RawHeader::of(&batch.data).unwrap_or_else(|| {
        let Stamp { replica, sequence, .. } = stamp;
        let bytes = batch.data.len();
        panic!("replica {replica}, frame {sequence}: a batch of {} has {bytes} bytes", batch.partition)
    })
}

/// Appends a frame with its padding. Each payload byte is copied once.
pub(crate) fn encode(out: &mut Vec<u8>, stamp: Stamp, frame: &RawFrame) {
    let start = out.len();
    let length = frame.frame_bytes();
    let Stamp { replica, sequence, .. } = stamp;
    assert!(
        length <= FRAME_BYTES_MAX,
        "replica {replica}, frame {sequence}: {length} bytes, at most {FRAME_BYTES_MAX}"
    );
    assert!(
        sequence.max(frame.term).max(frame.index) <= NUMBER_MAX,
        "replica {replica}, frame {sequence}: term {} or index {} would be read as damage",
        frame.term,
        frame.index
    );
    out.extend_from_slice(&(length as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&stamp.incarnation.to_le_bytes());
    out.extend_from_slice(&[frame.kind as u8, frame.detail, 0, 0]);
    out.extend_from_slice(&(frame.batches.len() as u32).to_le_bytes());
    out.extend_from_slice(&stamp.replica.0.to_le_bytes());
    out.extend_from_slice(&stamp.sequence.to_le_bytes());
    out.extend_from_slice(&frame.term.to_le_bytes());
    out.extend_from_slice(&frame.index.to_le_bytes());
    out.extend_from_slice(&frame.clock_ms.to_le_bytes());
    out.extend_from_slice(&stamp.durable_upto.to_le_bytes());
    out.extend_from_slice(&(frame.payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    for batch in &frame.batches {
        out.extend_from_slice(batch.partition.topic.as_bytes());
        out.extend_from_slice(&batch.partition.index.to_le_bytes());
        out.extend_from_slice(&(batch.data.len() as u32).to_le_bytes());
        out.extend_from_slice(&header_of(stamp, batch).crc().to_le_bytes());
        out.extend_from_slice(&[0; 4]);
    }
    out.extend_from_slice(&frame.payload);
    let mut crc = crc32fast::Hasher::new();
    crc.update(&out[start + 8..]);
    for batch in &frame.batches {
        crc.update(header_of(stamp, batch).bytes());
        out.extend_from_slice(&batch.data);
    }
    out[start + 4..start + 8].copy_from_slice(&crc.finalize().to_le_bytes());
    assert_eq!(out.len(), start + length, "replica {replica}, frame {sequence}: not as long as its head says");
    out.resize(start + padded(length), 0);
}

/// A frame as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decoded {
    pub(crate) stamp: Stamp,
    pub(crate) frame: RawFrame,
    /// Length without padding.
    pub(crate) frame_bytes: usize,
    /// Where the batches lie, relative to the frame.
    pub(crate) batch_ranges: Vec<Range<usize>>,
    /// Batches whose own CRC-32C fails; the frame's head is sound.
    pub(crate) damaged_batches: Vec<usize>,
}

/// The parts of a frame, by its lengths.
pub(crate) struct FrameLayout {
    length: usize,
    described: usize,
    summed: usize,
    ranges: Vec<Range<usize>>,
}

impl FrameLayout {
    /// The ranges that the frame's CRC covers, in order.
    pub(crate) fn guarded(&self) -> Vec<Range<usize>> {
        let headers = self.ranges.iter().map(|range| range.start..range.start + batch::HEADER_BYTES);
        std::iter::once(8..self.summed).chain(headers).collect()
    }
}

/// The layout of the frame at the front of `bytes`; `None` if its lengths contradict each other.
pub(crate) fn layout(bytes: &[u8]) -> Option<FrameLayout> {
    let head = bytes.get(..HEAD_BYTES)?;
    let length = u32_le(head, 0) as usize;
    let count = u32_le(head, 20) as usize;
    let payload_bytes = u32_le(head, 72) as usize;
    let described = HEAD_BYTES.checked_add(count.checked_mul(DESCRIPTOR_BYTES)?)?;
    let summed = described.checked_add(payload_bytes)?;
    if length > FRAME_BYTES_MAX || summed > length || length > bytes.len() {
        return None;
    }
    let ranges = batch_ranges(bytes.get(HEAD_BYTES..described)?, summed, length)?;
    Some(FrameLayout { length, described, summed, ranges })
}

/// The CRC of those ranges.
pub(crate) fn sum_of(bytes: &[u8], layout: &FrameLayout) -> Option<u32> {
    let mut crc = crc32fast::Hasher::new();
    for range in layout.guarded() {
        crc.update(bytes.get(range)?);
    }
    Some(crc.finalize())
}

/// True if a frame with this incarnation begins here, and its CRC holds.
pub(crate) fn is_sound(bytes: &[u8], incarnation: u64) -> bool {
    let begins = bytes.get(..HEAD_BYTES).is_some_and(|head| u64_le(head, 8) == incarnation);
    let holds = |layout: FrameLayout| sum_of(bytes, &layout) == Some(u32_le(bytes, 4));
    begins && layout(bytes).is_some_and(holds)
}

/// Reads the frame at `at`; `None` if there is no sound one. Untrusted bytes: nothing is used before the CRC is verified.
pub(crate) fn decode(buf: &Bytes, at: usize, incarnation: u64) -> Option<Decoded> {
    let rest = buf.get(at..)?;
    let head = rest.get(..HEAD_BYTES)?;
    if u64_le(head, 8) != incarnation {
        return None;
    }
    let layout = layout(rest)?;
    let holds = sum_of(rest, &layout)? == u32_le(head, 4) || mutants::is_on(Bug::FrameCrcNotChecked);
    let FrameLayout { length, described, summed, ranges } = layout;
    if !holds || u16_le(head, 18) != 0 {
        return None;
    }
    let (sequence, term, index) = (u64_le(head, 32), u64_le(head, 40), u64_le(head, 48));
    if sequence.max(term).max(index) > NUMBER_MAX {
        return None;
    }
    let kind = Kind::from_byte(head[16])?;
    let mut batches = Vec::with_capacity(ranges.len());
    let mut damaged_batches = Vec::new();
    for (number, range) in ranges.iter().enumerate() {
        let descriptor = rest.get(HEAD_BYTES + number * DESCRIPTOR_BYTES..)?.get(..DESCRIPTOR_BYTES)?;
        let topic = Uuid::from_slice(&descriptor[..16]).ok()?;
        let index = u32_le(descriptor, 16).cast_signed();
        let data = buf.slice(at + range.start..at + range.end);
        if batch::crc32c(&data[batch::CRC_FROM..]) != u32_le(descriptor, 24) && !mutants::is_on(Bug::CrcFailureSkipped)
        {
            damaged_batches.push(number);
        }
        batches.push(EntryBatch { partition: PartitionId { topic, index }, data });
    }
    Some(Decoded {
        stamp: Stamp { incarnation, replica: ReplicaId(u64_le(head, 24)), sequence, durable_upto: u64_le(head, 64) },
        frame: RawFrame {
            kind,
            detail: head[17],
            term,
            index,
            clock_ms: u64_le(head, 56).cast_signed(),
            payload: buf.slice(at + described..at + summed),
            batches: batches.into(),
        },
        frame_bytes: length,
        batch_ranges: ranges,
        damaged_batches,
    })
}

fn batch_ranges(descriptors: &[u8], first: usize, length: usize) -> Option<Vec<Range<usize>>> {
    let mut ranges = Vec::with_capacity(descriptors.len() / DESCRIPTOR_BYTES);
    let mut start = first;
    for descriptor in descriptors.chunks_exact(DESCRIPTOR_BYTES) {
        let bytes = u32_le(descriptor, 20) as usize;
        let end = start.checked_add(bytes)?;
        if bytes < batch::HEADER_BYTES || end > length {
            return None;
        }
        ranges.push(start..end);
        start = end;
    }
    (start == length).then_some(ranges)
}

pub(crate) fn u16_le(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn u32_le(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(crate) fn u64_le(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_le(bytes, at)) | u64::from(u32_le(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests;
