//! Record batches of format 2: the header, and the two fields that a broker may patch. No other module knows where a
//! field lies: [`BatchHeader`] reads all fields, [`RawHeader`] one at a time.
//!
//!     0             8        12      16      17    21           23                27               35
//!     | base offset | length | epoch | magic | crc | attributes | last off. delta | base timestamp | max timestamp
//!     43            51               53              57      61
//!     | producer id | producer epoch | base sequence | count | records ...
//!
//! `length` counts what follows it. The CRC-32C covers everything from the attributes to the end, so base
//! offset and leader epoch can be patched without it. May not know: topics, or why a batch was sent.

mod builder;
#[cfg(test)]
mod tests;
mod validate;

use bytes::Bytes;

use crate::compression::Codec;
use crate::ids::{LeaderEpoch, Offset};

pub use builder::{BatchBuilder, ControlRecord, NewRecord, empty_batch, encode_control_batch};
pub use validate::{BatchError, BatchLimits, check_crc, split_batches, validate};

/// Length of the header, records excluded.
pub const HEADER_BYTES: usize = 61;
/// Base offset and length: what comes before the part that `length` counts.
pub const LENGTH_PREFIX_BYTES: usize = 12;
/// The head that may be patched: base offset, length, leader epoch.
pub const PATCHED_HEAD_BYTES: usize = 16;
/// First byte that the CRC covers.
pub const CRC_FROM: usize = 21;
/// No producer id: the batch is not idempotent.
pub const NO_PRODUCER_ID: i64 = -1;
/// No sequence.
pub const NO_SEQUENCE: i32 = -1;

const BASE_OFFSET_AT: usize = 0;
const LENGTH_AT: usize = 8;
const EPOCH_AT: usize = 12;
const MAGIC_AT: usize = 16;
const CRC_AT: usize = 17;
const ATTRIBUTES_AT: usize = 21;
const LAST_DELTA_AT: usize = 23;
const BASE_TIMESTAMP_AT: usize = 27;
const MAX_TIMESTAMP_AT: usize = 35;
const PRODUCER_ID_AT: usize = 43;
const PRODUCER_EPOCH_AT: usize = 51;
const SEQUENCE_AT: usize = 53;
const COUNT_AT: usize = 57;

const CODEC_MASK: i16 = 0x07;
const LOG_APPEND_TIME_BIT: i16 = 0x08;
const TRANSACTIONAL_BIT: i16 = 0x10;
const CONTROL_BIT: i16 = 0x20;
const DELETE_HORIZON_BIT: i16 = 0x40;
const KNOWN_BITS: i16 = CODEC_MASK | LOG_APPEND_TIME_BIT | TRANSACTIONAL_BIT | CONTROL_BIT | DELETE_HORIZON_BIT;

/// The one record format that Kafka 4 accepts, and the only one that is served.
pub const MAGIC: i8 = 2;

/// The attributes of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes(pub i16);

/// A header whose fields are read one at a time, where a caller needs few of them. Nothing is checked.
#[derive(Debug, Clone, Copy)]
pub struct RawHeader<'a>(&'a [u8; HEADER_BYTES]);

/// All fields of a batch's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record; meaningless in what a producer sends.
    pub base_offset: Offset,
    /// Bytes that follow the length field.
    pub length: i32,
    /// Epoch of the leader that appended it; meaningless in what a producer sends.
    pub leader_epoch: LeaderEpoch,
    /// Format; 2 is the only one served.
    pub magic: i8,
    /// CRC-32C as stated.
    pub crc: u32,
    /// Codec and flags.
    pub attributes: Attributes,
    /// Offset of the last record relative to the first.
    pub last_offset_delta: i32,
    /// The timestamp that the records' deltas count from.
    pub base_timestamp: i64,
    /// Largest timestamp, or the time of appending.
    pub max_timestamp: i64,
    /// -1: not idempotent.
    pub producer_id: i64,
    /// -1: not idempotent.
    pub producer_epoch: i16,
    /// Sequence of the first record; -1: not idempotent.
    pub base_sequence: i32,
    /// Number of records; 0 only in a batch emptied by compaction.
    pub record_count: i32,
}

impl Attributes {
    /// The codec of the records; None for the three numbers that mean nothing.
    #[must_use]
    pub fn codec(self) -> Option<Codec> {
        Codec::from_id((self.0 & CODEC_MASK) as u8)
    }

    /// True if the timestamps are the broker's.
    #[must_use]
    pub fn is_log_append_time(self) -> bool {
        self.0 & LOG_APPEND_TIME_BIT != 0
    }

    /// True if the batch belongs to a transaction.
    #[must_use]
    pub fn is_transactional(self) -> bool {
        self.0 & TRANSACTIONAL_BIT != 0
    }

    /// True for transaction markers and the like, which only brokers write.
    #[must_use]
    pub fn is_control(self) -> bool {
        self.0 & CONTROL_BIT != 0
    }

    /// True if the base timestamp is the time at which compaction may drop tombstones (KIP-534).
    #[must_use]
    pub fn has_delete_horizon(self) -> bool {
        self.0 & DELETE_HORIZON_BIT != 0
    }

    /// True if a bit is set that has no meaning.
    #[must_use]
    pub fn has_unknown_bits(self) -> bool {
        self.0 & !KNOWN_BITS != 0
    }

    /// The same flags with another codec.
    #[must_use]
    pub fn with_codec(self, codec: Codec) -> Self {
        Self((self.0 & !CODEC_MASK) | i16::from(codec.id()))
    }

    /// The same with or without the flag of LogAppendTime.
    #[must_use]
    pub fn with_log_append_time(self, set: bool) -> Self {
        self.with(LOG_APPEND_TIME_BIT, set)
    }

    /// The same with or without the flag of a transaction.
    #[must_use]
    pub fn with_transactional(self, set: bool) -> Self {
        self.with(TRANSACTIONAL_BIT, set)
    }

    /// The same with or without the flag of a control batch.
    #[must_use]
    pub fn with_control(self, set: bool) -> Self {
        self.with(CONTROL_BIT, set)
    }

    fn with(self, bit: i16, set: bool) -> Self {
        Self(if set { self.0 | bit } else { self.0 & !bit })
    }
}

impl<'a> RawHeader<'a> {
    /// The header at the front of `bytes`; None if there are fewer than [`HEADER_BYTES`].
    #[must_use]
    #[inline]
    pub fn of(bytes: &'a [u8]) -> Option<Self> {
        bytes.first_chunk::<HEADER_BYTES>().map(Self)
    }

    /// The bytes of the header.
    #[must_use]
    #[inline]
    pub fn bytes(self) -> &'a [u8; HEADER_BYTES] {
        self.0
    }

    /// [`BatchHeader::base_offset`].
    #[must_use]
    #[inline]
    pub fn base_offset(self) -> Offset {
        Offset(i64_at(self.0, BASE_OFFSET_AT))
    }

    /// [`BatchHeader::length`].
    #[must_use]
    #[inline]
    pub fn length(self) -> i32 {
        i32_at(self.0, LENGTH_AT)
    }

    /// [`BatchHeader::leader_epoch`].
    #[must_use]
    #[inline]
    pub fn leader_epoch(self) -> LeaderEpoch {
        LeaderEpoch(i32_at(self.0, EPOCH_AT))
    }

    /// [`BatchHeader::magic`].
    #[must_use]
    #[inline]
    pub fn magic(self) -> i8 {
        self.0[MAGIC_AT] as i8
    }

    /// [`BatchHeader::crc`].
    #[must_use]
    #[inline]
    pub fn crc(self) -> u32 {
        i32_at(self.0, CRC_AT) as u32
    }

    /// [`BatchHeader::attributes`].
    #[must_use]
    #[inline]
    pub fn attributes(self) -> Attributes {
        Attributes(i16_at(self.0, ATTRIBUTES_AT))
    }

    /// [`BatchHeader::last_offset_delta`].
    #[must_use]
    #[inline]
    pub fn last_offset_delta(self) -> i32 {
        i32_at(self.0, LAST_DELTA_AT)
    }

    /// [`BatchHeader::max_timestamp`].
    #[must_use]
    #[inline]
    pub fn max_timestamp(self) -> i64 {
        i64_at(self.0, MAX_TIMESTAMP_AT)
    }

    /// [`BatchHeader::record_count`].
    #[must_use]
    #[inline]
    pub fn record_count(self) -> i32 {
        i32_at(self.0, COUNT_AT)
    }

    /// [`BatchHeader::total_bytes`].
    #[must_use]
    #[inline]
    pub fn total_bytes(self) -> usize {
        total_bytes(self.length())
    }

    /// [`BatchHeader::offset_count`]; None if it is not positive.
    #[must_use]
    #[inline]
    pub fn offset_count(self) -> Option<u32> {
        u32::try_from(self.last_offset_delta()).ok()?.checked_add(1)
    }
}

impl BatchHeader {
    /// Reads the header; None if there are fewer than [`HEADER_BYTES`]. Nothing is checked.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let raw = RawHeader::of(bytes)?;
        Some(Self {
            base_offset: raw.base_offset(),
            length: raw.length(),
            leader_epoch: raw.leader_epoch(),
            magic: raw.magic(),
            crc: raw.crc(),
            attributes: raw.attributes(),
            last_offset_delta: raw.last_offset_delta(),
            base_timestamp: i64_at(raw.0, BASE_TIMESTAMP_AT),
            max_timestamp: raw.max_timestamp(),
            producer_id: i64_at(raw.0, PRODUCER_ID_AT),
            producer_epoch: i16_at(raw.0, PRODUCER_EPOCH_AT),
            base_sequence: i32_at(raw.0, SEQUENCE_AT),
            record_count: raw.record_count(),
        })
    }

    /// Bytes of the whole batch, as its length says; 0 if the length is negative.
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        total_bytes(self.length)
    }

    /// How many offsets the batch takes: compaction may have dropped records, never offsets.
    #[must_use]
    pub fn offset_count(&self) -> i64 {
        i64::from(self.last_offset_delta) + 1
    }

    /// Offset of the last record.
    #[must_use]
    pub fn last_offset(&self) -> Offset {
        self.base_offset.plus(i64::from(self.last_offset_delta))
    }

    /// Offset after the last record.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.base_offset.plus(self.offset_count())
    }

    /// True if the batch carries a producer id.
    #[must_use]
    pub fn is_idempotent(&self) -> bool {
        self.producer_id > NO_PRODUCER_ID
    }

    /// Sequence of the last record; sequences wrap from 2^31-1 to 0.
    #[must_use]
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return NO_SEQUENCE;
        }
        sequence_plus(self.base_sequence, self.last_offset_delta)
    }
}

/// The sequence `count` records further on; sequences wrap from 2^31-1 to 0.
#[must_use]
pub fn sequence_plus(sequence: i32, count: i32) -> i32 {
    let sum = i64::from(sequence) + i64::from(count);
    (sum & i64::from(i32::MAX)) as i32
}

/// One batch: its header, and its bytes as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchView {
    /// Its header.
    pub header: BatchHeader,
    /// All of it, header included.
    pub bytes: Bytes,
}

impl BatchView {
    /// What follows the header: the records, compressed as the attributes say.
    #[must_use]
    pub fn payload(&self) -> Bytes {
        self.bytes.slice(HEADER_BYTES..)
    }
}

/// True if the bytes are one batch as long as its length says. Neither format nor checksum is looked at.
#[must_use]
#[inline]
pub fn is_whole(batch: &[u8]) -> bool {
    RawHeader::of(batch).is_some_and(|header| header.total_bytes() == batch.len())
}

/// True if the CRC-32C of a whole batch holds.
#[must_use]
pub fn crc_holds(batch: &[u8]) -> bool {
    RawHeader::of(batch).is_some_and(|header| header.crc() == crc32c(&batch[CRC_FROM..]))
}

/// Writes base offset and leader epoch into the head of a batch; the CRC covers neither.
#[inline]
pub fn patch_head(head: &mut [u8; PATCHED_HEAD_BYTES], base_offset: Offset, epoch: LeaderEpoch) {
    head[BASE_OFFSET_AT..BASE_OFFSET_AT + 8].copy_from_slice(&base_offset.0.to_be_bytes());
    head[EPOCH_AT..EPOCH_AT + 4].copy_from_slice(&epoch.0.to_be_bytes());
}

/// As [`patch_head`], for a part of a batch that begins with the batch's byte `from`: patches what lies in it.
pub fn patch_part(part: &mut [u8], from: usize, base_offset: Offset, epoch: LeaderEpoch) {
    // Nearly always: a batch is cut only where a chunk ends.
    if from == 0
        && let Some(head) = part.first_chunk_mut()
    {
        return patch_head(head, base_offset, epoch);
    }
    let mut head = [0; PATCHED_HEAD_BYTES];
    patch_head(&mut head, base_offset, epoch);
    for (at, byte) in (from..PATCHED_HEAD_BYTES).zip(part) {
        if !(LENGTH_AT..EPOCH_AT).contains(&at) {
            *byte = head[at];
        }
    }
}

/// Stamps a validated batch with the broker's time (message.timestamp.type=LogAppendTime): the flag, the largest
/// timestamp and a new CRC. The base timestamp stays, as in Kafka: readers take the largest for every record.
/// None if there is no whole header.
#[must_use]
pub fn stamp_log_append_time(batch: &[u8], now_ms: i64) -> Option<Bytes> {
    restamp(batch, true, now_ms)
}

/// Corrects the largest timestamp of a batch whose producer stated another one than its records hold
/// (see [`crate::records::check`]), with a new CRC. None if there is no whole header.
#[must_use]
pub fn correct_max_timestamp(batch: &[u8], max_timestamp: i64) -> Option<Bytes> {
    restamp(batch, false, max_timestamp)
}

fn restamp(batch: &[u8], log_append_time: bool, max_timestamp: i64) -> Option<Bytes> {
    let header = BatchHeader::parse(batch)?;
    let mut stamped = batch.to_vec();
    let attributes = header.attributes.with_log_append_time(log_append_time);
    stamped[ATTRIBUTES_AT..ATTRIBUTES_AT + 2].copy_from_slice(&attributes.0.to_be_bytes());
    stamped[MAX_TIMESTAMP_AT..MAX_TIMESTAMP_AT + 8].copy_from_slice(&max_timestamp.to_be_bytes());
    write_crc(&mut stamped);
    Some(Bytes::from(stamped))
}

/// The header of `batch` before other records; what else changes, `edit` writes. Length and CRC are those of the new batch.
fn with_payload(batch: &[u8], records: &[u8], edit: impl FnOnce(&mut [u8])) -> Bytes {
    let mut out = Vec::with_capacity(HEADER_BYTES + records.len());
    out.extend_from_slice(&batch[..HEADER_BYTES]);
    out.extend_from_slice(records);
    let length = (HEADER_BYTES - LENGTH_PREFIX_BYTES + records.len()) as i32;
    out[LENGTH_AT..LENGTH_AT + 4].copy_from_slice(&length.to_be_bytes());
    edit(&mut out);
    write_crc(&mut out);
    Bytes::from(out)
}

/// The header of `batch` with other attributes, before other records.
pub(crate) fn with_records(batch: &[u8], attributes: Attributes, records: &[u8]) -> Bytes {
    with_payload(batch, records, |out| {
        out[ATTRIBUTES_AT..ATTRIBUTES_AT + 2].copy_from_slice(&attributes.0.to_be_bytes());
    })
}

/// The header of `batch` before `count` of its records, which are already in its codec: the greatest timestamp is theirs, but for
/// LogAppendTime, where it is the time of all.
pub(crate) fn with_some_records(batch: &[u8], count: i32, max_timestamp: i64, records: &[u8]) -> Bytes {
    let is_log_append_time = RawHeader::of(batch).is_some_and(|header| header.attributes().is_log_append_time());
    with_payload(batch, records, |out| {
        if !is_log_append_time {
            out[MAX_TIMESTAMP_AT..MAX_TIMESTAMP_AT + 8].copy_from_slice(&max_timestamp.to_be_bytes());
        }
        out[COUNT_AT..COUNT_AT + 4].copy_from_slice(&count.to_be_bytes());
    })
}

/// CRC-32C, the checksum of Kafka's batches.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// Computes and writes the CRC of a whole batch of at least [`HEADER_BYTES`].
pub(crate) fn write_crc(batch: &mut [u8]) {
    let crc = crc32c(&batch[CRC_FROM..]);
    batch[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
}

#[inline]
fn total_bytes(length: i32) -> usize {
    usize::try_from(length).map_or(0, |length| length + LENGTH_PREFIX_BYTES)
}

#[inline]
fn array_at<const N: usize>(head: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&head[at..at + N]);
    array
}

#[inline]
fn i16_at(head: &[u8; HEADER_BYTES], at: usize) -> i16 {
    i16::from_be_bytes(array_at(head, at))
}

#[inline]
fn i32_at(head: &[u8; HEADER_BYTES], at: usize) -> i32 {
    i32::from_be_bytes(array_at(head, at))
}

#[inline]
fn i64_at(head: &[u8; HEADER_BYTES], at: usize) -> i64 {
    i64::from_be_bytes(array_at(head, at))
}
