//! A topic's configuration as typed values. Made from the table of topic settings (`topic_table`), validated there.
//!
//! May not know: where a value came from (`describe`).

use std::collections::BTreeMap;
use std::str::FromStr;

use ottla_protocol::compression::Codec;

use super::ConfigError;
use super::setting::split_list;
use super::table::nearest;
use super::topic_table::{ON_DEMAND, SHARD_MODE, TOPIC_SETTINGS, topic_setting};

/// `cleanup.policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// Old data is deleted by time and size.
    pub delete: bool,
    /// The last record of each key is kept.
    pub compact: bool,
}

/// `compression.type`: the codec of stored batches.
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

impl CompressionType {
    /// The codec of every stored batch; `None`: each keeps its producer's.
    #[must_use]
    pub const fn codec(self) -> Option<Codec> {
        match self {
            Self::Producer => None,
            Self::Uncompressed => Some(Codec::None),
            Self::Gzip => Some(Codec::Gzip),
            Self::Snappy => Some(Codec::Snappy),
            Self::Lz4 => Some(Codec::Lz4),
            Self::Zstd => Some(Codec::Zstd),
        }
    }
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
    /// `segment.bytes`, default 1 GiB: of the end of a compacted partition that much is spared.
    pub segment_bytes: i32,
    /// `segment.ms`, default 7 days: for how long it is.
    pub segment_ms: i64,
    /// `ottla.shard.mode` is `on-demand`: the topic's shards follow its load.
    pub on_demand: bool,
    /// `ottla.shard.bytes.per.second`, default 64 MiB: what a shard of an on-demand topic has room for.
    pub shard_bytes_per_second: u64,
}

/// Reads one topic setting by name.
type Lookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

fn number<T: FromStr>(lookup: &Lookup<'_>, name: &str, otherwise: T) -> T {
    lookup(name).and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

fn limit(lookup: &Lookup<'_>, name: &str, otherwise: Option<i64>) -> Option<i64> {
    match lookup(name).and_then(|value| value.parse::<i64>().ok()) {
        Some(value) => Some(value).filter(|value| *value >= 0),
        None => otherwise,
    }
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            cleanup_policy: CleanupPolicy { delete: true, compact: false },
            compression_type: CompressionType::Producer,
            compression_gzip_level: -1,
            compression_lz4_level: 9,
            compression_zstd_level: 3,
            delete_retention_ms: 86_400_000,
            max_compaction_lag_ms: i64::MAX,
            min_compaction_lag_ms: 0,
            min_cleanable_dirty_ratio: 0.5,
            max_message_bytes: 1_048_588,
            message_timestamp_type: TimestampType::CreateTime,
            message_timestamp_before_max_ms: i64::MAX,
            message_timestamp_after_max_ms: 3_600_000,
            min_insync_replicas: 1,
            retention_ms: Some(604_800_000),
            retention_bytes: None,
            segment_bytes: 1_073_741_824,
            segment_ms: 604_800_000,
            on_demand: false,
            shard_bytes_per_second: 67_108_864,
        }
    }
}

impl TopicConfig {
    /// `defaults` with `overrides`. Overrides were checked when they were set; one that cannot be parsed any more (a
    /// value that an older release accepted) leaves the default in effect.
    #[must_use]
    pub fn with_overrides(defaults: &Self, overrides: &BTreeMap<String, String>) -> Self {
        Self::read(defaults, &|name| overrides.get(name).cloned())
    }

    /// The settings that `lookup` has, the others from `otherwise`.
    pub(super) fn read(otherwise: &Self, lookup: &Lookup<'_>) -> Self {
        let o = otherwise;
        Self {
            cleanup_policy: lookup("cleanup.policy").map_or(o.cleanup_policy, |value| CleanupPolicy {
                delete: split_list(&value).any(|word| word == "delete"),
                compact: split_list(&value).any(|word| word == "compact"),
            }),
            compression_type: match lookup("compression.type").as_deref() {
                Some("producer") => CompressionType::Producer,
                Some("uncompressed") => CompressionType::Uncompressed,
                Some("gzip") => CompressionType::Gzip,
                Some("snappy") => CompressionType::Snappy,
                Some("lz4") => CompressionType::Lz4,
                Some("zstd") => CompressionType::Zstd,
                _ => o.compression_type,
            },
            compression_gzip_level: number(lookup, "compression.gzip.level", o.compression_gzip_level),
            compression_lz4_level: number(lookup, "compression.lz4.level", o.compression_lz4_level),
            compression_zstd_level: number(lookup, "compression.zstd.level", o.compression_zstd_level),
            delete_retention_ms: number(lookup, "delete.retention.ms", o.delete_retention_ms),
            max_compaction_lag_ms: number(lookup, "max.compaction.lag.ms", o.max_compaction_lag_ms),
            min_compaction_lag_ms: number(lookup, "min.compaction.lag.ms", o.min_compaction_lag_ms),
            min_cleanable_dirty_ratio: number(lookup, "min.cleanable.dirty.ratio", o.min_cleanable_dirty_ratio),
            max_message_bytes: number(lookup, "max.message.bytes", o.max_message_bytes),
            message_timestamp_type: match lookup("message.timestamp.type").as_deref() {
                Some("CreateTime") => TimestampType::CreateTime,
                Some("LogAppendTime") => TimestampType::LogAppendTime,
                _ => o.message_timestamp_type,
            },
            message_timestamp_before_max_ms: number(
                lookup,
                "message.timestamp.before.max.ms",
                o.message_timestamp_before_max_ms,
            ),
            message_timestamp_after_max_ms: number(
                lookup,
                "message.timestamp.after.max.ms",
                o.message_timestamp_after_max_ms,
            ),
            min_insync_replicas: number(lookup, "min.insync.replicas", o.min_insync_replicas),
            retention_ms: limit(lookup, "retention.ms", o.retention_ms),
            retention_bytes: limit(lookup, "retention.bytes", o.retention_bytes),
            segment_bytes: number(lookup, "segment.bytes", o.segment_bytes),
            segment_ms: number(lookup, "segment.ms", o.segment_ms),
            on_demand: lookup(SHARD_MODE).map_or(o.on_demand, |mode| mode == ON_DEMAND),
            shard_bytes_per_second: number(lookup, "ottla.shard.bytes.per.second", o.shard_bytes_per_second),
        }
    }
}

/// Checks the settings to be set for a topic; returns the values in normal form.
///
/// # Errors
/// INVALID_CONFIG: an unknown name (with the nearest known one), a value outside its range, values that contradict.
pub fn check_overrides(overrides: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut plain = BTreeMap::new();
    for (name, value) in overrides {
        let Some(entry) = topic_setting(name) else {
            let nearest = nearest(name, TOPIC_SETTINGS.iter().map(|entry| entry.setting.name));
            return Err(ConfigError::UnknownTopicConfig { name: name.clone(), nearest });
        };
        plain.insert(name.clone(), entry.setting.check(value)?);
    }
    let number = |name: &str| plain.get(name).and_then(|value| value.parse::<i64>().ok());
    if let (Some(min), Some(max)) = (number("min.compaction.lag.ms"), number("max.compaction.lag.ms"))
        && min > max
    {
        let why = format!("must not be above max.compaction.lag.ms, which is {max}");
        return Err(ConfigError::Invalid { name: "min.compaction.lag.ms".into(), value: min.to_string(), why });
    }
    if plain.get("remote.storage.enable").is_some_and(|value| value == "true") {
        let why = "this release has no remote storage".to_owned();
        return Err(ConfigError::Invalid { name: "remote.storage.enable".into(), value: "true".into(), why });
    }
    if plain.get("compression.gzip.level").is_some_and(|value| value == "0") {
        let why = "must be -1 or between 1 and 9".to_owned();
        return Err(ConfigError::Invalid { name: "compression.gzip.level".into(), value: "0".into(), why });
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_typed_defaults_are_those_of_the_table() {
        let from_table = TopicConfig::read(
            &TopicConfig { retention_ms: None, max_message_bytes: 0, ..TopicConfig::default() },
            &|name| topic_setting(name).and_then(|entry| entry.setting.default).map(str::to_owned),
        );
        assert_eq!(from_table, TopicConfig::default());
    }

    #[test]
    fn overrides_act() {
        let overrides = set(&[
            ("cleanup.policy", "compact,delete"),
            ("retention.ms", "-1"),
            ("retention.bytes", "5"),
            ("compression.type", "zstd"),
        ]);
        let config = TopicConfig::with_overrides(&TopicConfig::default(), &overrides);
        assert_eq!(config.cleanup_policy, CleanupPolicy { delete: true, compact: true });
        assert_eq!((config.retention_ms, config.retention_bytes), (None, Some(5)));
        assert_eq!(config.compression_type, CompressionType::Zstd);
    }

    #[test]
    fn the_whole_set_of_mirror_maker_is_accepted() {
        let all = TOPIC_SETTINGS
            .iter()
            .filter_map(|entry| Some((entry.setting.name.to_owned(), entry.setting.default?.to_owned())));
        assert!(check_overrides(&all.collect()).is_ok());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (pair, why) in [
            (("retention.m", "1"), "retention.ms"),
            (("retention.ms", "soon"), "not a number"),
            (("retention.ms", "-2"), "at least -1"),
            (("cleanup.policy", "forget"), "some of"),
            (("message.timestamp.type", "createtime"), "one of"),
            (("remote.storage.enable", "true"), "remote"),
            (("compression.gzip.level", "0"), "between 1 and 9"),
        ] {
            let error = check_overrides(&set(&[pair])).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        assert!(check_overrides(&set(&[("min.compaction.lag.ms", "2"), ("max.compaction.lag.ms", "1")])).is_err());
    }
}
