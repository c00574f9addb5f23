//! A topic's configuration as typed values. Made from the table of topic settings (`topic_table`), validated there.
//!
//! May not know: where a value came from (`describe`).

/// `cleanup.policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// Old data is deleted by time and size.
    pub delete: bool,
    /// The last record of each key is kept.
    pub compact: bool,
}

/// `compression.type`: what a batch is stored as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompressionType {
    /// As the producer sent it.
    Producer,
    /// Not compressed.
    Uncompressed,
    /// gzip.
    Gzip,
    /// snappy.
    Snappy,
    /// lz4.
    Lz4,
    /// zstd.
    Zstd,
}

/// `message.timestamp.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's.
    CreateTime,
    /// The broker's, when it appends.
    LogAppendTime,
}

/// A topic's configuration. `-1` (no limit) is `None`.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicConfig {
    /// `cleanup.policy`, default `delete`.
    pub cleanup_policy: CleanupPolicy,
    /// `compression.type`, default `producer`.
    pub compression_type: CompressionType,
    /// `compression.gzip.level`, default -1 (the codec's own).
    pub compression_gzip_level: i32,
    /// `compression.lz4.level`, default 9.
    pub compression_lz4_level: i32,
    /// `compression.zstd.level`, default 3.
    pub compression_zstd_level: i32,
    /// `delete.retention.ms`, default one day.
    pub delete_retention_ms: i64,
    /// `max.compaction.lag.ms`, default without limit.
    pub max_compaction_lag_ms: i64,
    /// `min.compaction.lag.ms`, default 0.
    pub min_compaction_lag_ms: i64,
    /// `min.cleanable.dirty.ratio`, default 0.5.
    pub min_cleanable_dirty_ratio: f64,
    /// `max.message.bytes`, default 1,048,588: the largest record batch.
    pub max_message_bytes: i32,
    /// `message.timestamp.type`, default `CreateTime`.
    pub message_timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`, default without limit.
    pub message_timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`, default one hour.
    pub message_timestamp_after_max_ms: i64,
    /// `min.insync.replicas`, default 1.
    pub min_insync_replicas: i32,
    /// `retention.ms`, default 7 days; `None` keeps for ever.
    pub retention_ms: Option<i64>,
    /// `retention.bytes` of a partition; `None` (the default) is without limit.
    pub retention_bytes: Option<i64>,
    /// `segment.bytes`, default 1 GiB: a hint, since all partitions share segments.
    pub segment_bytes: i32,
    /// `segment.ms`, default 7 days: a hint.
    pub segment_ms: i64,
}
