//! Validation of a batch, before any other code reads it.
//!
//! Structure (length, magic, CRC) is checked in every batch, whatever its source; the other checks are those of
//! Kafka for a producer's batch. May not know: topic settings other than the limits it is given.

use bytes::Bytes;

use super::{BatchHeader, BatchView, CRC_FROM, HEADER_BYTES, LENGTH_PREFIX_BYTES, MAGIC, crc32c};
use crate::error::ErrorCode;

/// The limits of a topic or node for a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// `max.message.bytes`: of the whole batch, as sent.
    pub batch_bytes_max: usize,
    /// Whether zstd is allowed: Produce 7 and later only (KIP-110).
    pub zstd_allowed: bool,
    /// A coordinator wrote it: it may be a control batch, and what it writes for a producer has no sequence.
    pub from_coordinator: bool,
}

/// Why a batch is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than a header, or than its length says.
    #[error("batch of {length} bytes ends before its end")]
    Truncated {
        /// Number of bytes present.
        length: usize,
    },
    /// Bytes after the first batch: a partition takes one batch per request.
    #[error("more than one batch for a partition")]
    MoreThanOne,
    /// No batch at all.
    #[error("no batch for a partition")]
    Empty,
    /// A message format other than 2.
    #[error("record format {magic} is not supported")]
    Magic {
        /// The format as stated.
        magic: i8,
    },
    /// The checksum is wrong.
    #[error("checksum is {actual:#010x}, the batch states {stated:#010x}")]
    Crc {
        /// As stated.
        stated: u32,
        /// As computed.
        actual: u32,
    },
    /// Above `max.message.bytes`.
    #[error("batch of {length} bytes is above the limit of {limit}")]
    TooLarge {
        /// Its size.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// No record, or a negative count.
    #[error("batch states {count} records")]
    Count {
        /// As stated.
        count: i32,
    },
    /// The count contradicts the last offset delta.
    #[error("batch states {count} records but a last offset delta of {last_delta}")]
    CountAndDelta {
        /// As stated.
        count: i32,
        /// As stated.
        last_delta: i32,
    },
    /// A control batch from a client.
    #[error("clients may not write control batches")]
    Control,
    /// A producer id with a negative epoch or sequence, or a transaction without a producer.
    #[error("producer id {producer_id}, epoch {epoch} and sequence {sequence} contradict each other")]
    Producer {
        /// As stated.
        producer_id: i64,
        /// As stated.
        epoch: i16,
        /// As stated.
        sequence: i32,
    },
    /// A codec number without a meaning, or zstd where it is not allowed.
    #[error("compression type {id} is not supported here")]
    Codec {
        /// As stated.
        id: i16,
    },
}

impl BatchError {
    /// Kafka's error code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Truncated { .. } | Self::Crc { .. } => ErrorCode::CorruptMessage,
            Self::TooLarge { .. } => ErrorCode::MessageTooLarge,
            Self::Codec { .. } => ErrorCode::UnsupportedCompressionType,
            Self::MoreThanOne
            | Self::Empty
            | Self::Magic { .. }
            | Self::Count { .. }
            | Self::CountAndDelta { .. }
            | Self::Control
            | Self::Producer { .. } => ErrorCode::InvalidRecord,
        }
    }
}

/// Validates what a producer sent for one partition: exactly one sound batch. Records are not checked.
///
/// The checksum is compared before any field but length and magic is used: a flipped bit must be reported
/// with the retriable CORRUPT_MESSAGE, not with an error that makes the producer drop its records.
pub fn validate(records: &Bytes, limits: &BatchLimits) -> Result<BatchHeader, BatchError> {
    let header = check_structure(records)?;
    let bytes = header.total_bytes();
    if bytes > limits.batch_bytes_max {
        return Err(BatchError::TooLarge { length: bytes, limit: limits.batch_bytes_max });
    }
    check_crc(records, &header)?;
    if records.len() > bytes {
        return Err(BatchError::MoreThanOne);
    }
    check_codec(&header, limits)?;
    check_counts(&header)?;
    check_producer(&header, limits)?;
    Ok(header)
}

/// Checks length and magic, so that the header can be read.
fn check_structure(records: &[u8]) -> Result<BatchHeader, BatchError> {
    if records.is_empty() {
        return Err(BatchError::Empty);
    }
    // Formats 0 and 1 keep the magic at the same place, but are shorter.
    if let Some(&magic) = records.get(super::MAGIC_AT)
        && magic as i8 != MAGIC
    {
        return Err(BatchError::Magic { magic: magic as i8 });
    }
    let truncated = BatchError::Truncated { length: records.len() };
    let header = BatchHeader::parse(records).ok_or(truncated)?;
    let bytes = header.total_bytes();
    if bytes < HEADER_BYTES || bytes > records.len() {
        return Err(truncated);
    }
    Ok(header)
}

fn check_codec(header: &BatchHeader, limits: &BatchLimits) -> Result<(), BatchError> {
    let unsupported = BatchError::Codec { id: header.attributes.0 & super::CODEC_MASK };
    match header.attributes.codec() {
        Some(crate::compression::Codec::Zstd) if !limits.zstd_allowed => Err(unsupported),
        Some(_) => Ok(()),
        None => Err(unsupported),
    }
}

fn check_counts(header: &BatchHeader) -> Result<(), BatchError> {
    let BatchHeader { record_count: count, last_offset_delta: last_delta, .. } = *header;
    if count <= 0 {
        return Err(BatchError::Count { count });
    }
    if last_delta != count - 1 {
        return Err(BatchError::CountAndDelta { count, last_delta });
    }
    Ok(())
}

fn check_producer(header: &BatchHeader, limits: &BatchLimits) -> Result<(), BatchError> {
    if header.attributes.is_control() && !limits.from_coordinator {
        return Err(BatchError::Control);
    }
    let BatchHeader { producer_id, producer_epoch: epoch, base_sequence: sequence, .. } = *header;
    let contradicts = if header.is_idempotent() {
        epoch < 0 || (sequence < 0 && !limits.from_coordinator)
    } else {
        // Epoch and sequence without a producer id mean nothing; some clients send 0.
        producer_id < super::NO_PRODUCER_ID || header.attributes.is_transactional()
    };
    if contradicts {
        return Err(BatchError::Producer { producer_id, epoch, sequence });
    }
    Ok(())
}

/// Compares the stated CRC-32C with the bytes; `batch` must be the whole batch.
pub fn check_crc(batch: &[u8], header: &BatchHeader) -> Result<(), BatchError> {
    let covered = batch.get(CRC_FROM..header.total_bytes()).ok_or(BatchError::Truncated { length: batch.len() })?;
    let actual = crc32c(covered);
    if actual != header.crc {
        return Err(BatchError::Crc { stated: header.crc, actual });
    }
    Ok(())
}

/// Splits bytes into the batches that they consist of. Lengths and magic are checked, CRCs are not; stops at the
/// first error. Bytes after the last whole batch are an error, too: a caller that reads with a size limit truncates first.
pub fn split_batches(bytes: &Bytes) -> impl Iterator<Item = Result<BatchView, BatchError>> {
    let mut rest = bytes.clone();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        match check_structure(&rest) {
            Ok(header) => Some(Ok(BatchView { header, bytes: rest.split_to(header.total_bytes()) })),
            Err(error) => {
                rest.clear();
                Some(Err(error))
            }
        }
    })
}

const _: () = assert!(LENGTH_PREFIX_BYTES < CRC_FROM && CRC_FROM < HEADER_BYTES);
