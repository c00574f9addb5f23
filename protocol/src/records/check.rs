//! Validation of each record before a batch is appended: whole records, counted right, numbered
//! from 0, keys where the topic is compacted, timestamps within the topic's bounds.
//!
//! Unlike Kafka, a record whose offset delta is not its position is refused, not renumbered: offsets are
//! dense here, and no client of format 2 sends such a batch.

use bytes::Bytes;

use super::{Records, RecordsError, open};
use crate::batch::BatchHeader;
use crate::error::ErrorCode;

/// The timestamp of a record whose producer set none.
const NO_TIMESTAMP: i64 = -1;
/// Most faults that are reported; the batch is refused in any case.
const FAULTS_MAX: usize = 100;

/// The rules of a topic for each record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecordRules {
    /// The topic is compacted.
    pub key_required: bool,
    /// None where the broker stamps the time itself.
    pub timestamps: Option<TimestampBounds>,
}

/// The timestamps that a topic accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampBounds {
    /// Now, less `message.timestamp.before.max.ms`.
    pub earliest_ms: i64,
    /// Now, plus `message.timestamp.after.max.ms`.
    pub latest_ms: i64,
}

impl TimestampBounds {
    /// The bounds around `now_ms`; `i64::MAX` means none.
    #[must_use]
    pub fn around(now_ms: i64, before_max_ms: i64, after_max_ms: i64) -> Self {
        Self { earliest_ms: now_ms.saturating_sub(before_max_ms), latest_ms: now_ms.saturating_add(after_max_ms) }
    }
}

/// A record that its topic does not accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordFault {
    /// Position in the batch.
    pub index: i32,
    /// INVALID_RECORD or INVALID_TIMESTAMP.
    pub code: ErrorCode,
    /// The error message.
    pub message: String,
}

/// The result of checking each record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The largest timestamp of the records, whatever the header says.
    pub max_timestamp: i64,
    /// The first of the records that the topic does not accept.
    pub faults: Vec<RecordFault>,
}

impl Checked {
    /// The code for the whole batch, as Kafka chooses it: that of the first fault.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        self.faults.first().map_or(ErrorCode::None, |fault| fault.code)
    }
}

/// Reads every record of a batch; at most `limit` bytes may come out of the codec.
/// An error means that the batch is no batch; faults are returned one by one (KIP-467).
pub fn check(header: &BatchHeader, batch: &Bytes, rules: &RecordRules, limit: usize) -> Result<Checked, RecordsError> {
    check_opened(header, &open(header, batch, limit)?, rules)
}

/// As [`check`], of records that are decompressed already: a batch that is recompressed is decompressed once.
pub fn check_opened(header: &BatchHeader, records: &Records, rules: &RecordRules) -> Result<Checked, RecordsError> {
    let mut checked = Checked { max_timestamp: NO_TIMESTAMP, faults: Vec::new() };
    let stamped_by_client = header.attributes.is_log_append_time();
    for (index, record) in (0..).zip(records) {
        let record = record?;
        checked.max_timestamp = checked.max_timestamp.max(record.timestamp);
        let fault = if record.offset_delta != index {
            Some((ErrorCode::InvalidRecord, format!("offset delta is {}, not {index}", record.offset_delta)))
        } else if rules.key_required && record.key.is_none() {
            Some((ErrorCode::InvalidRecord, "a compacted topic demands a key".to_owned()))
        } else if stamped_by_client {
            Some((ErrorCode::InvalidTimestamp, "only a broker may stamp LogAppendTime".to_owned()))
        } else {
            rules.timestamps.and_then(|bounds| out_of_bounds(record.timestamp, bounds))
        };
        if let Some((code, message)) = fault
            && checked.faults.len() < FAULTS_MAX
        {
            checked.faults.push(RecordFault { index, code, message });
        }
    }
    Ok(checked)
}

fn out_of_bounds(timestamp: i64, bounds: TimestampBounds) -> Option<(ErrorCode, String)> {
    let TimestampBounds { earliest_ms, latest_ms } = bounds;
    if timestamp == NO_TIMESTAMP || (earliest_ms..=latest_ms).contains(&timestamp) {
        return None;
    }
    let message = format!("timestamp {timestamp} is not within {earliest_ms} and {latest_ms}");
    Some((ErrorCode::InvalidTimestamp, message))
}
