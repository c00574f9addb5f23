//! Validation of a batch before it is proposed: checks, timestamps, recompression. Nothing here reads state, so nothing
//! here decides about sequences or epochs: those verdicts come from apply alone (design section 3).
//!
//! Order follows Kafka's LogValidator: structure, size and CRC first, then each record, then the topic's codec.
//! May not know: shards, which node leads. The clock is an argument.

use bytes::Bytes;
use ottla_env::mutants::{self, Bug};
use ottla_protocol::batch::{self, BatchHeader, BatchLimits};
use ottla_protocol::compression::Codec;
use ottla_protocol::error::ErrorCode;
use ottla_protocol::records::{self, Checked, RecordRules, Records, TimestampBounds};

use crate::config::{TimestampType, TopicConfig};
use crate::replicated::error::{AppendError, RecordError};

/// No batch may grow beyond this when decompressed, whatever `max.message.bytes` says.
pub(crate) const DECOMPRESSED_BYTES_MAX: usize = 256 * 1024 * 1024;

/// How many bytes a batch may unpack to for each byte that the topic allows; more is refused as a compression bomb.
const DECOMPRESSED_PER_BYTE_MAX: usize = 64;

/// This much is always allowed, so that a topic with a small `max.message.bytes` still takes what compresses well.
const DECOMPRESSED_BYTES_FLOOR: usize = 16 * 1024 * 1024;

const _: () = assert!(DECOMPRESSED_BYTES_FLOOR <= DECOMPRESSED_BYTES_MAX);

/// Compressed batches of this size or more are unpacked where that blocks no other connection; recompressing costs far
/// more.
const HEAVY_BYTES: usize = 64 * 1024;
const HEAVY_RECODED_BYTES: usize = 8 * 1024;

/// Whether [`prepare`] takes so long that other connections should not wait for it.
pub(crate) fn is_heavy(data: &[u8], topic: &TopicConfig) -> bool {
    let Some(codec) = BatchHeader::parse(data).and_then(|header| header.attributes.codec()) else { return false };
    let recoded = topic_codec(topic).is_some_and(|(wanted, _)| codec != wanted);
    (codec != Codec::None && data.len() >= HEAVY_BYTES) || (recoded && data.len() >= HEAVY_RECODED_BYTES)
}

/// Checks a client's batch against its topic, and converts it to the form that the topic stores. `transactional`: it may belong to
/// a transaction.
pub(crate) fn prepare(
    data: Bytes,
    topic: &TopicConfig,
    now_ms: i64,
    transactional: bool,
) -> Result<Bytes, AppendError> {
    let batch_bytes_max = usize::try_from(topic.max_message_bytes).unwrap_or(0);
    let limits = BatchLimits { batch_bytes_max, zstd_allowed: true, from_coordinator: false };
    let header = batch::validate(&data, &limits)?;
    if header.attributes.is_transactional() && !transactional {
        return Err(AppendError::InvalidTransactionState);
    }
    let append_time = topic.message_timestamp_type == TimestampType::LogAppendTime;
    let rules = RecordRules {
        key_required: topic.cleanup_policy.compact,
        timestamps: (!append_time).then(|| {
            TimestampBounds::around(now_ms, topic.message_timestamp_before_max_ms, topic.message_timestamp_after_max_ms)
        }),
    };
    let limit = batch_bytes_max
        .saturating_mul(DECOMPRESSED_PER_BYTE_MAX)
        .clamp(DECOMPRESSED_BYTES_FLOOR, DECOMPRESSED_BYTES_MAX);
    // Unpacked once, for the check and for recompression.
    let opened = records::open(&header, &data, limit)?;
    let checked = records::check_opened(&header, &opened, &rules)?;
    if let Some(error) = fault(&checked) {
        return Err(error);
    }
    // The time index and retention use the header; as in Kafka a wrong greatest timestamp in it is corrected.
    let data = if !append_time && checked.max_timestamp != header.max_timestamp {
        batch::correct_max_timestamp(&data, checked.max_timestamp).ok_or_else(no_header)?
    } else {
        data
    };
    let recoded = recode(data, &header, topic, &opened)?;
    let stamped = if append_time { stamp(&recoded, now_ms)? } else { recoded };
    if stamped.len() > batch_bytes_max {
        return Err(AppendError::MessageTooLarge);
    }
    Ok(stamped)
}

/// A coordinator's batch: only its structure is checked.
pub(crate) fn prepare_internal(data: Bytes) -> Result<Bytes, AppendError> {
    let limits = BatchLimits { batch_bytes_max: usize::MAX, zstd_allowed: true, from_coordinator: true };
    batch::validate(&data, &limits)?;
    Ok(data)
}

fn fault(checked: &Checked) -> Option<AppendError> {
    let first = checked.faults.first()?;
    let message = first.message.clone();
    let faults = checked.faults.iter().filter(|fault| fault.code == first.code);
    let records =
        faults.map(|fault| RecordError { batch_index: fault.index, message: Some(fault.message.clone()) }).collect();
    Some(match first.code {
        ErrorCode::InvalidTimestamp => AppendError::InvalidTimestamp { message, records },
        _ => AppendError::InvalidRecord { message, records },
    })
}

/// The codec and level of `compression.type`; `None` leaves the producer's.
fn topic_codec(topic: &TopicConfig) -> Option<(Codec, Option<i32>)> {
    let level = |level: i32| (level >= 0).then_some(level);
    let codec = topic.compression_type.codec()?;
    let level = match codec {
        Codec::None | Codec::Snappy => None,
        Codec::Gzip => level(topic.compression_gzip_level),
        Codec::Lz4 => level(topic.compression_lz4_level),
        Codec::Zstd => Some(topic.compression_zstd_level),
    };
    Some((codec, level))
}

/// Recompresses if `compression.type` differs from the producer's codec.
fn recode(data: Bytes, header: &BatchHeader, topic: &TopicConfig, opened: &Records) -> Result<Bytes, AppendError> {
    let Some((codec, level)) = topic_codec(topic) else { return Ok(data) };
    let is_kept = mutants::is_on(Bug::CompressedStaysCompressed) && header.attributes.codec() != Some(Codec::None);
    if header.attributes.codec() == Some(codec) || is_kept {
        return Ok(data);
    }
    let recoded = records::rewrite(header, &data, opened.bytes(), codec, level)?;
    if mutants::is_on(Bug::RecompressedCrcKept) {
        let (before, after) = (batch::CRC_FROM - size_of::<u32>(), batch::CRC_FROM);
        return Ok([&recoded[..before], &data[before..after], &recoded[after..]].concat().into());
    }
    Ok(recoded)
}

fn stamp(data: &Bytes, now_ms: i64) -> Result<Bytes, AppendError> {
    batch::stamp_log_append_time(data, now_ms).ok_or_else(no_header)
}

fn no_header() -> AppendError {
    AppendError::Corrupt("no header".to_owned())
}
