//! Record batches of format 2: a view of the header, and the two fields that a broker may patch.
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

pub use builder::{BatchBuilder, ControlRecord, NewRecord, encode_control_batch};
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

pub(crate) const BASE_OFFSET_AT: usize = 0;
pub(crate) const LENGTH_AT: usize = 8;
pub(crate) const EPOCH_AT: usize = 12;
pub(crate) const MAGIC_AT: usize = 16;
pub(crate) const CRC_AT: usize = 17;
pub(crate) const ATTRIBUTES_AT: usize = 21;
pub(crate) const LAST_DELTA_AT: usize = 23;
pub(crate) const BASE_TIMESTAMP_AT: usize = 27;
pub(crate) const MAX_TIMESTAMP_AT: usize = 35;
pub(crate) const PRODUCER_ID_AT: usize = 43;
pub(crate) const PRODUCER_EPOCH_AT: usize = 51;
pub(crate) const SEQUENCE_AT: usize = 53;
pub(crate) const COUNT_AT: usize = 57;

const CODEC_MASK: i16 = 0x07;
const LOG_APPEND_TIME_BIT: i16 = 0x08;
const TRANSACTIONAL_BIT: i16 = 0x10;
const CONTROL_BIT: i16 = 0x20;
const DELETE_HORIZON_BIT: i16 = 0x40;
const KNOWN_BITS: i16 = CODEC_MASK | LOG_APPEND_TIME_BIT | TRANSACTIONAL_BIT | CONTROL_BIT | DELETE_HORIZON_BIT;

/// The attributes of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes(pub i16);

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

impl BatchHeader {
    /// Reads the header; None if there are fewer than [`HEADER_BYTES`]. Nothing is checked.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let head = bytes.first_chunk::<HEADER_BYTES>()?;
        Some(Self {
            base_offset: Offset(i64_at(head, BASE_OFFSET_AT)),
            length: i32_at(head, LENGTH_AT),
            leader_epoch: LeaderEpoch(i32_at(head, EPOCH_AT)),
            magic: head[MAGIC_AT] as i8,
            crc: i32_at(head, CRC_AT) as u32,
            attributes: Attributes(i16_at(head, ATTRIBUTES_AT)),
            last_offset_delta: i32_at(head, LAST_DELTA_AT),
            base_timestamp: i64_at(head, BASE_TIMESTAMP_AT),
            max_timestamp: i64_at(head, MAX_TIMESTAMP_AT),
            producer_id: i64_at(head, PRODUCER_ID_AT),
            producer_epoch: i16_at(head, PRODUCER_EPOCH_AT),
            base_sequence: i32_at(head, SEQUENCE_AT),
            record_count: i32_at(head, COUNT_AT),
        })
    }

    /// Bytes of the whole batch, as its length says; 0 if the length is negative.
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        usize::try_from(self.length).map_or(0, |length| length + LENGTH_PREFIX_BYTES)
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

/// Writes base offset and leader epoch into the head of a batch; the CRC covers neither.
/// False, and nothing is written, if the head is shorter than [`PATCHED_HEAD_BYTES`].
pub fn patch_head(head: &mut [u8], base_offset: Offset, epoch: LeaderEpoch) -> bool {
    let Some(head) = head.first_chunk_mut::<PATCHED_HEAD_BYTES>() else {
        return false;
    };
    head[BASE_OFFSET_AT..BASE_OFFSET_AT + 8].copy_from_slice(&base_offset.0.to_be_bytes());
    head[EPOCH_AT..EPOCH_AT + 4].copy_from_slice(&epoch.0.to_be_bytes());
    true
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

fn array_at<const N: usize>(head: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&head[at..at + N]);
    array
}

fn i16_at(head: &[u8; HEADER_BYTES], at: usize) -> i16 {
    i16::from_be_bytes(array_at(head, at))
}

fn i32_at(head: &[u8; HEADER_BYTES], at: usize) -> i32 {
    i32::from_be_bytes(array_at(head, at))
}

fn i64_at(head: &[u8; HEADER_BYTES], at: usize) -> i64 {
    i64::from_be_bytes(array_at(head, at))
}
