//! The table of topic settings: all of Kafka 4.x, with its defaults and the node's settings that supply them.
//!
//! May not know: any topic.

use super::setting::{INT_MAX, Kind, Range, Setting, at_least, boolean, double, int, list, long, text, unset};

/// A setting of topics or groups, and the node settings that supply its default.
#[derive(Debug, Clone, Copy)]
pub struct ResourceSetting {
    /// The setting.
    pub setting: Setting,
    /// Settings of the node that supply the default, first one first, with the factor from their unit to this one's.
    pub node_settings: &'static [(&'static str, i64)],
}

pub(super) const fn of(setting: Setting, node_settings: &'static [(&'static str, i64)]) -> ResourceSetting {
    ResourceSetting { setting, node_settings }
}

const SHARED_LOG: &str =
    "all partitions of a disk share segment files, which have a size of their own (ottla.log.segment.bytes)";
const ALWAYS_SYNCED: &str = "every acknowledged record is synced already";
const RAFT: &str = "replicas are kept by Raft, which never elects a replica that lacks committed records";
const NO_TIERING: &str = "there is no remote storage";
const HOUR_MS: i64 = 3_600_000;
const MINUTE_MS: i64 = 60_000;

/// How a topic gets its shards.
pub const SHARD_MODE: &str = "ottla.shard.mode";
/// As `ottla.shard.count` says: the default.
pub const PROVISIONED: &str = "provisioned";
/// In the shards that all topics share.
pub const POOL: &str = "pool";
/// As its load asks for.
pub const ON_DEMAND: &str = "on-demand";

/// All topic settings, by name.
pub const TOPIC_SETTINGS: &[ResourceSetting] = &[
    of(
        list("cleanup.policy", "delete", Range::SomeOf(&["compact", "delete"]), "What becomes of old data: `delete` removes it by time and size, `compact` keeps the last record of each key.").acts("retention and compaction"),
        &[("log.cleanup.policy", 1)],
    ),
    of(int("compression.gzip.level", "-1", Range::Between(-1, 9), "Level used when the broker compresses with gzip; -1 is the codec's own default.").acts("produce"), &[("compression.gzip.level", 1)]),
    of(int("compression.lz4.level", "9", Range::Between(1, 17), "Level used when the broker compresses with lz4.").acts("produce"), &[("compression.lz4.level", 1)]),
    of(
        text("compression.type", "producer", Range::OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]), "How batches are stored. `producer` keeps what the producer chose; any other value makes the broker recompress what differs.").acts("produce"),
        &[("compression.type", 1)],
    ),
    of(int("compression.zstd.level", "3", Range::Between(-131_072, 22), "Level used when the broker compresses with zstd.").acts("produce"), &[("compression.zstd.level", 1)]),
    of(long("delete.retention.ms", "86400000", at_least(0), "How long a compacted topic keeps the marker of a deleted key.").acts("compaction"), &[("log.cleaner.delete.retention.ms", 1)]),
    of(boolean("errors.deadletterqueue.group.enable", "false", "Allows share groups to use this topic for records they could not deliver.").idle("there are no share groups yet"), &[]),
    of(long("file.delete.delay.ms", "60000", at_least(0), "How long a file stays after its data is gone.").idle(SHARED_LOG), &[("log.segment.delete.delay.ms", 1)]),
    of(long("flush.messages", "9223372036854775807", at_least(1), "Records after which a sync is forced.").idle(ALWAYS_SYNCED), &[("log.flush.interval.messages", 1)]),
    of(long("flush.ms", "9223372036854775807", at_least(0), "Time after which a sync is forced.").idle(ALWAYS_SYNCED), &[("log.flush.interval.ms", 1)]),
    of(list("follower.replication.throttled.replicas", "", Range::ThrottledReplicas, "Replicas whose incoming replication is throttled.").idle("the limit of a node (follower.replication.throttled.rate) holds for all that it takes"), &[]),
    of(int("index.interval.bytes", "4096", at_least(0), "Bytes between two entries of the offset index.").idle("the index has a line for every batch"), &[("log.index.interval.bytes", 1)]),
    of(unset("internal.segment.bytes", Kind::Int, at_least(1), "Size at which a new segment is begun, for tests of Kafka's: a hint.").idle(SHARED_LOG), &[]),
    of(list("leader.replication.throttled.replicas", "", Range::ThrottledReplicas, "Replicas whose outgoing replication is throttled.").idle("the limit of a node (follower.replication.throttled.rate) holds for all that it takes"), &[]),
    of(long("local.retention.bytes", "-2", at_least(-2), "Bytes of a partition kept on local disks beside remote storage; -2 follows `retention.bytes`.").idle(NO_TIERING), &[("log.local.retention.bytes", 1)]),
    of(long("local.retention.ms", "-2", at_least(-2), "Time for which data is kept on local disks beside remote storage; -2 follows `retention.ms`.").idle(NO_TIERING), &[("log.local.retention.ms", 1)]),
    of(long("max.compaction.lag.ms", "9223372036854775807", at_least(1), "A record is compacted at the latest this long after it was written.").acts("compaction"), &[("log.cleaner.max.compaction.lag.ms", 1)]),
    of(int("max.message.bytes", "1048588", at_least(0), "The largest record batch a producer may send, as stored, in bytes.").acts("produce"), &[("message.max.bytes", 1)]),
    of(long("message.timestamp.after.max.ms", "3600000", at_least(0), "How far a record's timestamp may lie in the future.").acts("produce"), &[("log.message.timestamp.after.max.ms", 1)]),
    of(long("message.timestamp.before.max.ms", "9223372036854775807", at_least(0), "How far a record's timestamp may lie in the past.").acts("produce"), &[("log.message.timestamp.before.max.ms", 1)]),
    of(text("message.timestamp.type", "CreateTime", Range::OneOf(&["CreateTime", "LogAppendTime"]), "Whose clock stamps records: the producer's or the broker's at append.").acts("produce"), &[("log.message.timestamp.type", 1)]),
    of(double("min.cleanable.dirty.ratio", "0.5", Range::Fraction(0.0, 1.0), "Share of uncompacted bytes from which a partition is compacted.").acts("compaction"), &[("log.cleaner.min.cleanable.ratio", 1)]),
    of(long("min.compaction.lag.ms", "0", at_least(0), "A record is not compacted earlier than this after it was written.").acts("compaction"), &[("log.cleaner.min.compaction.lag.ms", 1)]),
    of(int("min.insync.replicas", "1", at_least(1), "Voters that must have synced a batch before a producer with acks=all is answered; a majority always must.").acts("produce"), &[("min.insync.replicas", 1)]),
    of(long("ottla.shard.bytes.per.second", "67108864", at_least(1024), "What one shard of an on-demand topic has room for, bytes from producers and to consumers together: a shard is split when twice its recent peak is more.").acts("balancer"), &[]),
    of(int("ottla.shard.count", "-1", Range::Between(-1, 100_000), "How many shards the topic's partitions are to have for themselves, at most one for each: shards are split, merged and moved until it is so, while clients go on. 0 puts them into the shards that all topics share; -1 leaves them where they are.").acts("balancer"), &[]),
    of(text(SHARD_MODE, PROVISIONED, Range::OneOf(&[PROVISIONED, POOL, ON_DEMAND]), "How the topic gets its shards. `provisioned`: as `ottla.shard.count` says; `pool`: its partitions lie in the shards that all topics share; `on-demand`: shards of its own are split, merged and put back as its load asks for (`ottla.shard.bytes.per.second`), and `ottla.shard.count` does not count.").acts("balancer"), &[]),
    of(boolean("preallocate", "false", "Whether files are given their full size when they are made.").idle("segment files are always prepared beforehand"), &[("log.preallocate", 1)]),
    of(boolean("remote.log.copy.disable", "false", "Stops copying to remote storage.").idle(NO_TIERING), &[]),
    of(boolean("remote.log.delete.on.disable", "false", "Deletes remote data when remote storage is switched off.").idle(NO_TIERING), &[]),
    of(boolean("remote.storage.enable", "false", "Keeps older data in remote storage.").idle(NO_TIERING), &[]),
    of(long("retention.bytes", "-1", at_least(-1), "Bytes of a partition beyond which the oldest data is removed; -1 is without limit.").acts("retention"), &[("log.retention.bytes", 1)]),
    of(
        long("retention.ms", "604800000", at_least(-1), "Age at which data is removed; -1 keeps it for ever.").acts("retention"),
        &[("log.retention.ms", 1), ("log.retention.minutes", MINUTE_MS), ("log.retention.hours", HOUR_MS)],
    ),
    of(int("segment.bytes", "1073741824", Range::Between(14, INT_MAX), "The last so many bytes of a partition are not compacted as long as they are younger than `segment.ms`.").acts("compaction"), &[("log.segment.bytes", 1)]),
    of(int("segment.index.bytes", "10485760", at_least(4), "Largest size of a segment's index: a hint.").idle(SHARED_LOG), &[("log.index.size.max.bytes", 1)]),
    of(long("segment.jitter.ms", "0", at_least(0), "Spread of the times at which segments are begun: a hint.").idle(SHARED_LOG), &[("log.roll.jitter.ms", 1), ("log.roll.jitter.hours", HOUR_MS)]),
    of(long("segment.ms", "604800000", at_least(1), "Age, by its timestamp, from which a record may be compacted though it is among the last `segment.bytes` of its partition.").acts("compaction"), &[("log.roll.ms", 1), ("log.roll.hours", HOUR_MS)]),
    of(boolean("unclean.leader.election.enable", "false", "Whether a replica that lacks records may become leader.").idle(RAFT), &[("unclean.leader.election.enable", 1)]),
];

/// The topic setting called `name`.
#[must_use]
pub fn topic_setting(name: &str) -> Option<&'static ResourceSetting> {
    find(TOPIC_SETTINGS, name)
}

/// The setting called `name` of a table that is sorted by name.
pub(super) fn find(table: &'static [ResourceSetting], name: &str) -> Option<&'static ResourceSetting> {
    table.binary_search_by(|candidate| candidate.setting.name.cmp(name)).ok().and_then(|at| table.get(at))
}

/// Every setting is found by its name, so the table is sorted, and its default is allowed as it stands.
#[cfg(test)]
pub(super) fn assert_sound(table: &'static [ResourceSetting]) {
    for entry in table {
        let of = &entry.setting;
        assert_eq!(find(table, of.name).map(|found| found.setting.name), Some(of.name), "out of order");
        if let Some(default) = of.default {
            assert_eq!(of.check(default), Ok(default.to_owned()), "{}", of.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::table::setting;

    #[test]
    fn the_table_is_sorted_and_its_defaults_are_allowed() {
        assert!(TOPIC_SETTINGS.is_sorted_by(|a, b| a.setting.name < b.setting.name));
        assert_sound(TOPIC_SETTINGS);
        for entry in TOPIC_SETTINGS {
            for (name, _) in entry.node_settings {
                assert!(setting(name).is_some(), "{name}");
            }
        }
    }

    #[test]
    fn the_node_supplies_the_same_defaults() {
        for entry in TOPIC_SETTINGS {
            let supplied = entry.node_settings.iter().find_map(|(name, factor)| {
                let value = setting(name)?.default?;
                Some(if *factor == 1 { value.to_owned() } else { (value.parse::<i64>().ok()? * factor).to_string() })
            });
            if let Some(supplied) = supplied {
                assert_eq!(Some(supplied.as_str()), entry.setting.default, "{}", entry.setting.name);
            }
        }
    }
}
