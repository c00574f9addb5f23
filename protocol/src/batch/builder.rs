//! Builds batches of format 2: those of coordinators, recompressed ones, and control batches.
//!
//! A record, every number a varint but the attributes (one byte):
//!
//!     | length | attributes | timestamp delta | offset delta | key length | key | value length | value | headers ...
//!
//! May not know: what a record means, except for the two kinds of transaction marker.

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    Attributes, HEADER_BYTES, LAST_DELTA_AT, LENGTH_PREFIX_BYTES, MAGIC, NO_PRODUCER_ID, NO_SEQUENCE, patch_part,
    write_crc,
};
use crate::compression::{Codec, CompressionError, compress};
use crate::ids::{LeaderEpoch, Offset};
use crate::wire::{put_varint, put_varlong, varlong_length};

/// Version of the control record's key.
const CONTROL_KEY_VERSION: i16 = 0;
/// Version of the marker's value.
const MARKER_VERSION: i16 = 0;

/// A record to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NewRecord<'a> {
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// None: no key.
    pub key: Option<&'a [u8]>,
    /// None: a tombstone.
    pub value: Option<&'a [u8]>,
    /// Names and values, in order; names may repeat.
    pub headers: &'a [(&'a [u8], Option<&'a [u8]>)],
}

/// The outcome in a transaction marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlRecord {
    /// Abort: the transaction's records do not count.
    Abort {
        /// Epoch of the coordinator that decided.
        coordinator_epoch: i32,
    },
    /// Commit: the transaction's records count.
    Commit {
        /// Epoch of the coordinator that decided.
        coordinator_epoch: i32,
    },
}

/// Collects records and writes one batch.
#[derive(Debug)]
pub struct BatchBuilder {
    codec: Codec,
    level: Option<i32>,
    attributes: Attributes,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    base_timestamp: i64,
    max_timestamp: i64,
    record_count: i32,
    records: BytesMut,
}

impl BatchBuilder {
    /// An empty batch without producer.
    #[must_use]
    pub fn new(codec: Codec) -> Self {
        Self {
            codec,
            level: None,
            attributes: Attributes::default(),
            producer_id: NO_PRODUCER_ID,
            producer_epoch: -1,
            base_sequence: NO_SEQUENCE,
            base_timestamp: -1,
            max_timestamp: -1,
            record_count: 0,
            records: BytesMut::new(),
        }
    }

    /// Compresses at this level instead of the codec's default.
    #[must_use]
    pub fn with_level(mut self, level: i32) -> Self {
        self.level = Some(level);
        self
    }

    /// Makes the batch idempotent.
    #[must_use]
    pub fn with_producer(mut self, producer_id: i64, producer_epoch: i16, base_sequence: i32) -> Self {
        self.producer_id = producer_id;
        self.producer_epoch = producer_epoch;
        self.base_sequence = base_sequence;
        self
    }

    /// Makes the batch part of a transaction.
    #[must_use]
    pub fn transactional(mut self) -> Self {
        self.attributes = self.attributes.with_transactional(true);
        self
    }

    /// Makes the batch a control batch.
    #[must_use]
    pub fn control(mut self) -> Self {
        self.attributes = self.attributes.with_control(true);
        self
    }

    /// Number of records so far.
    #[must_use]
    pub fn record_count(&self) -> i32 {
        self.record_count
    }

    /// Bytes of the batch so far, before compression.
    #[must_use]
    pub fn bytes(&self) -> usize {
        HEADER_BYTES + self.records.len()
    }

    /// Adds a record.
    pub fn push(&mut self, record: &NewRecord<'_>) {
        if self.record_count == 0 {
            self.base_timestamp = record.timestamp;
            self.max_timestamp = record.timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(record.timestamp);
        let timestamp_delta = record.timestamp.wrapping_sub(self.base_timestamp);
        put_record(&mut self.records, self.record_count, timestamp_delta, record);
        self.record_count += 1;
    }

    /// The batch, with base offset 0 and epoch -1 as a producer would send it.
    pub fn build(self) -> Result<Bytes, CompressionError> {
        let payload = match self.codec {
            Codec::None => self.records.freeze(),
            codec => compress(codec, self.level, &self.records)?,
        };
        let attributes = self.attributes.with_codec(self.codec);
        let mut out = BytesMut::with_capacity(HEADER_BYTES + payload.len());
        out.put_i64(0);
        out.put_i32((HEADER_BYTES - LENGTH_PREFIX_BYTES + payload.len()) as i32);
        out.put_i32(-1);
        out.put_i8(MAGIC);
        out.put_u32(0);
        out.put_i16(attributes.0);
        out.put_i32(self.record_count - 1);
        out.put_i64(self.base_timestamp);
        out.put_i64(self.max_timestamp);
        out.put_i64(self.producer_id);
        out.put_i16(self.producer_epoch);
        out.put_i32(self.base_sequence);
        out.put_i32(self.record_count);
        out.put_slice(&payload);
        write_crc(&mut out);
        Ok(out.freeze())
    }
}

/// A transaction marker: a control batch of one record.
#[must_use]
pub fn encode_control_batch(producer_id: i64, producer_epoch: i16, timestamp: i64, record: ControlRecord) -> Bytes {
    let (kind, coordinator_epoch) = match record {
        ControlRecord::Abort { coordinator_epoch } => (0, coordinator_epoch),
        ControlRecord::Commit { coordinator_epoch } => (1, coordinator_epoch),
    };
    let mut key = BytesMut::with_capacity(4);
    key.put_i16(CONTROL_KEY_VERSION);
    key.put_i16(kind);
    let mut value = BytesMut::with_capacity(6);
    value.put_i16(MARKER_VERSION);
    value.put_i32(coordinator_epoch);
    let mut builder = BatchBuilder::new(Codec::None)
        .with_producer(producer_id, producer_epoch, NO_SEQUENCE)
        .transactional()
        .control();
    builder.push(&NewRecord { timestamp, key: Some(&key), value: Some(&value), headers: &[] });
    // Without a codec there is nothing that can fail.
    builder.build().unwrap_or_default()
}

/// A batch without records that covers `count` offsets, as compaction leaves where nothing is kept. It has no producer and no timestamps.
///
/// # Panics
/// If it covers none, or more than 2^31 - 1.
#[must_use]
pub fn empty_batch(base_offset: Offset, count: u32, epoch: LeaderEpoch) -> Bytes {
    let last_delta = count.checked_sub(1).and_then(|delta| i32::try_from(delta).ok());
    let last_delta = last_delta.unwrap_or_else(|| panic!("an empty batch at {base_offset} of {count} offsets"));
    // As in a marker: without a codec there is nothing that can fail.
    let mut out = BatchBuilder::new(Codec::None).build().unwrap_or_default().to_vec();
    patch_part(&mut out, 0, base_offset, epoch);
    out[LAST_DELTA_AT..LAST_DELTA_AT + 4].copy_from_slice(&last_delta.to_be_bytes());
    write_crc(&mut out);
    Bytes::from(out)
}

impl ControlRecord {
    /// Reads a marker's key and value; None for other control records.
    #[must_use]
    pub fn parse(key: &[u8], value: &[u8]) -> Option<Self> {
        let [_, _, kind_high, kind_low, ..] = *key else { return None };
        let [_, _, epoch @ ..] = value else { return None };
        let coordinator_epoch = i32::from_be_bytes(*epoch.first_chunk()?);
        match i16::from_be_bytes([kind_high, kind_low]) {
            0 => Some(Self::Abort { coordinator_epoch }),
            1 => Some(Self::Commit { coordinator_epoch }),
            _ => None,
        }
    }
}

/// Appends one record.
pub(crate) fn put_record(out: &mut BytesMut, offset_delta: i32, timestamp_delta: i64, record: &NewRecord<'_>) {
    let nullable_length = |bytes: Option<&[u8]>| bytes.map_or(-1, |bytes| bytes.len() as i32);
    let nullable_bytes =
        |bytes: Option<&[u8]>| varlong_length(i64::from(nullable_length(bytes))) + bytes.map_or(0, <[u8]>::len);
    let headers_bytes: usize =
        record.headers.iter().map(|(name, value)| nullable_bytes(Some(name)) + nullable_bytes(*value)).sum();
    let length = 1
        + varlong_length(timestamp_delta)
        + varlong_length(i64::from(offset_delta))
        + nullable_bytes(record.key)
        + nullable_bytes(record.value)
        + varlong_length(record.headers.len() as i64)
        + headers_bytes;
    let put_nullable = |out: &mut BytesMut, bytes: Option<&[u8]>| {
        put_varint(out, nullable_length(bytes));
        out.put_slice(bytes.unwrap_or_default());
    };
    out.reserve(length + 5);
    put_varint(out, length as i32);
    out.put_u8(0);
    put_varlong(out, timestamp_delta);
    put_varint(out, offset_delta);
    put_nullable(out, record.key);
    put_nullable(out, record.value);
    put_varint(out, record.headers.len() as i32);
    for (name, value) in record.headers {
        put_nullable(out, Some(name));
        put_nullable(out, *value);
    }
}
