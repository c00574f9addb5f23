//! The records inside a batch: reading, checking and recompressing them.
//!
//! Every length is checked before it is used, sums cannot overflow, and what a codec may yield is limited.
//! May not know: topics, except for the rules it is given.

mod check;
mod retain;
mod rewrite;
#[cfg(test)]
mod tests;

use bytes::Bytes;

use crate::batch::{BatchError, BatchHeader, HEADER_BYTES};
use crate::compression::{CompressionError, decompress};
use crate::error::ErrorCode;
use crate::wire::{Reader, WireError};

pub use check::{Checked, RecordFault, RecordRules, TimestampBounds, check, check_opened};
pub use retain::{Retained, retain};
pub use rewrite::{recompress, rewrite};

/// Smallest record: length, attributes, two deltas, two null lengths, no headers, a byte each.
const RECORD_BYTES_MIN: usize = 7;

/// Why the records of a batch cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordsError {
    /// The codec refused.
    #[error(transparent)]
    Compression(#[from] CompressionError),
    /// The codec's number is not known.
    #[error("unknown compression type")]
    UnknownCodec,
    /// The batch is shorter than its header says.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A record contradicts itself.
    #[error("record {index}: {cause}")]
    Record {
        /// Position in the batch.
        index: i32,
        /// What is wrong.
        cause: WireError,
    },
    /// The batch holds more or fewer records than its header says.
    #[error("the batch states {stated} records but holds other bytes")]
    Count {
        /// As stated.
        stated: i32,
    },
}

impl RecordsError {
    /// Kafka's error code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Compression(error) => error.code(),
            Self::UnknownCodec => ErrorCode::UnsupportedCompressionType,
            Self::Batch(error) => error.code(),
            Self::Record { .. } | Self::Count { .. } => ErrorCode::InvalidRecord,
        }
    }
}

/// The records of one batch, decompressed.
#[derive(Debug, Clone)]
pub struct Records {
    bytes: Bytes,
    count: i32,
    base_timestamp: i64,
    log_append_time: Option<i64>,
}

/// One record; its bytes are borrowed from [`Records`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Offset relative to the batch's first.
    pub offset_delta: i32,
    /// Milliseconds since 1970; the time of appending where the topic says so.
    pub timestamp: i64,
    /// None: no key.
    pub key: Option<&'a [u8]>,
    /// None: a tombstone.
    pub value: Option<&'a [u8]>,
    /// Name and value of each header, in order.
    pub headers: Headers<'a>,
}

/// The headers of a record, checked when the record was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Headers<'a> {
    bytes: &'a [u8],
    count: usize,
}

/// Decompresses the records of a batch, to at most `limit` bytes.
/// `batch` is the whole batch; its CRC is not checked.
pub fn open(header: &BatchHeader, batch: &Bytes, limit: usize) -> Result<Records, RecordsError> {
    let bytes = payload(header, batch, limit)?;
    // A count that the bytes cannot hold must not mislead an offset lookup.
    let holds = usize::try_from(header.record_count).is_ok_and(|count| count <= bytes.len() / RECORD_BYTES_MIN);
    if !holds {
        return Err(RecordsError::Count { stated: header.record_count });
    }
    Ok(Records {
        bytes,
        count: header.record_count,
        base_timestamp: header.base_timestamp,
        log_append_time: header.attributes.is_log_append_time().then_some(header.max_timestamp),
    })
}

/// What follows the header, decompressed.
fn payload(header: &BatchHeader, batch: &Bytes, limit: usize) -> Result<Bytes, RecordsError> {
    let end = header.total_bytes();
    if end < HEADER_BYTES || end > batch.len() {
        return Err(BatchError::Truncated { length: batch.len() }.into());
    }
    let codec = header.attributes.codec().ok_or(RecordsError::UnknownCodec)?;
    Ok(decompress(codec, &batch.slice(HEADER_BYTES..end), limit)?)
}

impl Records {
    /// Number of records.
    #[must_use]
    pub fn count(&self) -> i32 {
        self.count
    }

    /// The records in order. The iteration ends after the first error, or with one if bytes are left over.
    #[must_use]
    pub fn iter(&self) -> RecordIter<'_> {
        RecordIter { records: self, reader: Reader::new(&self.bytes), index: 0 }
    }

    /// The decompressed bytes, that slices may be cut from with [`Bytes::slice_ref`].
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl<'a> IntoIterator for &'a Records {
    type Item = Result<Record<'a>, RecordsError>;
    type IntoIter = RecordIter<'a>;

    fn into_iter(self) -> RecordIter<'a> {
        self.iter()
    }
}

/// See [`Records::iter`].
#[derive(Debug, Clone)]
pub struct RecordIter<'a> {
    records: &'a Records,
    reader: Reader<'a>,
    index: i32,
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<Record<'a>, RecordsError>;

    fn next(&mut self) -> Option<Self::Item> {
        let stated = self.records.count;
        if self.index == stated {
            // Poison the position, so that the error is returned once.
            self.index = stated.saturating_add(1);
            return (self.reader.remaining() > 0).then_some(Err(RecordsError::Count { stated }));
        }
        if self.index > stated {
            return None;
        }
        let index = self.index;
        match self.read_record() {
            Ok(record) => {
                self.index += 1;
                Some(Ok(record))
            }
            Err(cause) => {
                self.index = stated.saturating_add(1);
                Some(Err(RecordsError::Record { index, cause }))
            }
        }
    }
}

impl<'a> RecordIter<'a> {
    /// Where in [`Records::bytes`] the next record begins.
    fn position(&self) -> usize {
        self.reader.position()
    }

    #[inline]
    fn read_record(&mut self) -> Result<Record<'a>, WireError> {
        let length = usize::try_from(self.reader.varint()?).map_err(|_| WireError::NegativeLength)?;
        let mut reader = Reader::new(self.reader.take(length)?);
        // Record attributes have no meaning yet; Kafka ignores them.
        reader.u8()?;
        let timestamp_delta = reader.varlong()?;
        let offset_delta = reader.varint()?;
        let key = nullable(&mut reader)?;
        let value = nullable(&mut reader)?;
        let headers = Headers::read(&mut reader)?;
        reader.finish()?;
        let timestamp =
            self.records.log_append_time.unwrap_or_else(|| self.records.base_timestamp.saturating_add(timestamp_delta));
        Ok(Record { offset_delta, timestamp, key, value, headers })
    }
}

impl<'a> Headers<'a> {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Name and value of each, in order; names may repeat.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        let mut reader = Reader::new(self.bytes);
        (0..self.count).map_while(move |_| one_header(&mut reader).ok())
    }

    #[inline]
    fn read(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let count = usize::try_from(reader.varint()?).map_err(|_| WireError::NegativeLength)?;
        if count == 0 {
            return Ok(Self::default());
        }
        // The smallest header is two lengths.
        if count > reader.remaining() / 2 {
            return Err(WireError::TooManyElements);
        }
        let mut ahead = *reader;
        for _ in 0..count {
            one_header(&mut ahead)?;
        }
        let bytes = reader.take(ahead.position() - reader.position())?;
        Ok(Self { bytes, count })
    }
}

fn one_header<'a>(reader: &mut Reader<'a>) -> Result<(&'a [u8], Option<&'a [u8]>), WireError> {
    let name = nullable(reader)?.ok_or(WireError::NegativeLength)?;
    Ok((name, nullable(reader)?))
}

/// Bytes with a varint length; -1 is null, less is an error.
#[inline]
fn nullable<'a>(reader: &mut Reader<'a>) -> Result<Option<&'a [u8]>, WireError> {
    match reader.varint()? {
        -1 => Ok(None),
        length => reader.take(usize::try_from(length).map_err(|_| WireError::NegativeLength)?).map(Some),
    }
}
