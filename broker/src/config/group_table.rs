//! The table of group configs: all of Kafka 4.4, with its defaults and the node's settings that supply them.
//!
//! May not know: any group.

use super::setting::{INT_MAX, Kind, Range, Setting, at_least, boolean, int, list, long, text, unset};
use super::topic_table::{ResourceSetting, find, of};

const LATER_GROUPS: &str = "groups of the newer protocols are not served yet";

const fn later(setting: Setting, node_settings: &'static [(&'static str, i64)]) -> ResourceSetting {
    of(setting.idle(LATER_GROUPS), node_settings)
}

/// All configs of groups, by name. The bounds that a node sets for some of them hold for who joins, not for what is set.
pub const GROUP_SETTINGS: &[ResourceSetting] = &[
    later(
        int(
            "consumer.assignment.interval.ms",
            "1000",
            at_least(0),
            "Time between two assignments of a consumer group.",
        ),
        &[("group.consumer.assignment.interval.ms", 1)],
    ),
    later(
        boolean("consumer.assignor.offload.enable", "true", "Assigns a consumer group's partitions in the background."),
        &[("group.consumer.assignor.offload.enable", 1)],
    ),
    later(
        int(
            "consumer.heartbeat.interval.ms",
            "5000",
            at_least(1),
            "Time between two heartbeats of a consumer group's member.",
        ),
        &[("group.consumer.heartbeat.interval.ms", 1)],
    ),
    later(
        int(
            "consumer.session.timeout.ms",
            "45000",
            at_least(1),
            "Time without a heartbeat after which a consumer group's member is removed.",
        ),
        &[("group.consumer.session.timeout.ms", 1)],
    ),
    later(
        boolean(
            "errors.deadletterqueue.copy.record.enable",
            "false",
            "Writes a record that a share group could not deliver whole to the dead-letter topic, instead of its headers alone.",
        ),
        &[],
    ),
    later(
        text(
            "errors.deadletterqueue.topic.name",
            "",
            Range::Any,
            "The dead-letter topic of a share group; none if it is empty.",
        ),
        &[],
    ),
    later(
        int("share.assignment.interval.ms", "1000", at_least(0), "Time between two assignments of a share group."),
        &[],
    ),
    later(
        boolean("share.assignor.offload.enable", "true", "Assigns a share group's partitions in the background."),
        &[],
    ),
    later(
        text(
            "share.auto.offset.reset",
            "latest",
            Range::Any,
            "Where a share group begins: `earliest`, `latest`, or `by_duration:` and a duration of ISO 8601.",
        ),
        &[],
    ),
    later(
        int(
            "share.delivery.count.limit",
            "5",
            at_least(2),
            "How often a record is delivered to a share group at most.",
        ),
        &[],
    ),
    later(
        int(
            "share.heartbeat.interval.ms",
            "5000",
            at_least(1),
            "Time between two heartbeats of a share group's member.",
        ),
        &[],
    ),
    later(
        text(
            "share.isolation.level",
            "read_uncommitted",
            Range::OneOf(&["read_committed", "read_uncommitted"]),
            "Whether a share group is given records of open and aborted transactions.",
        ),
        &[],
    ),
    later(
        int(
            "share.partition.max.record.locks",
            "2000",
            Range::Between(100, INT_MAX),
            "How many records of a partition a share group may hold at once.",
        ),
        &[],
    ),
    later(
        int(
            "share.record.lock.duration.ms",
            "30000",
            at_least(1_000),
            "For how long a record is held for a share group's member.",
        ),
        &[],
    ),
    later(
        boolean("share.renew.acknowledge.enable", "true", "Lets a share group's member hold a record for longer."),
        &[],
    ),
    later(
        int(
            "share.session.timeout.ms",
            "45000",
            at_least(1),
            "Time without a heartbeat after which a share group's member is removed.",
        ),
        &[],
    ),
    later(
        long(
            "streams.acceptable.recovery.lag",
            "10000",
            at_least(0),
            "How many records a streams group's member may lack to be given an active task.",
        ),
        &[],
    ),
    later(
        int("streams.assignment.interval.ms", "1000", at_least(0), "Time between two assignments of a streams group."),
        &[],
    ),
    later(
        unset(
            "streams.assignor.name",
            Kind::String,
            Range::Any,
            "The task assignor of a streams group; the broker's first one if it is not set.",
        ),
        &[],
    ),
    later(
        boolean("streams.assignor.offload.enable", "true", "Assigns a streams group's tasks in the background."),
        &[],
    ),
    later(
        int(
            "streams.heartbeat.interval.ms",
            "5000",
            at_least(1),
            "Time between two heartbeats of a streams group's member.",
        ),
        &[],
    ),
    later(
        int(
            "streams.initial.rebalance.delay.ms",
            "3000",
            at_least(0),
            "How long a new streams group waits for further members before its first assignment.",
        ),
        &[],
    ),
    later(
        int("streams.num.standby.replicas", "0", at_least(0), "Standby replicas of each task of a streams group."),
        &[],
    ),
    later(int("streams.num.warmup.replicas", "2", at_least(0), "Warm-up replicas of a streams group at most."), &[]),
    later(
        list(
            "streams.rack.aware.assignment.tags",
            "",
            Range::Any,
            "Tags of clients over which a streams group's standby replicas are spread.",
        ),
        &[],
    ),
    later(
        int(
            "streams.session.timeout.ms",
            "45000",
            at_least(1),
            "Time without a heartbeat after which a streams group's member is removed.",
        ),
        &[],
    ),
    later(
        int(
            "streams.task.offset.interval.ms",
            "60000",
            at_least(1),
            "Time between two reports of a streams group's member of how far its tasks are.",
        ),
        &[],
    ),
];

/// The config called `name`.
#[must_use]
pub fn group_setting(name: &str) -> Option<&'static ResourceSetting> {
    find(GROUP_SETTINGS, name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::table::setting;
    use crate::config::topic_table::assert_sound;

    #[test]
    fn every_config_is_found_and_its_default_is_allowed() {
        assert_sound(GROUP_SETTINGS);
        for entry in GROUP_SETTINGS {
            for (name, _) in entry.node_settings {
                assert_eq!(setting(name).and_then(|setting| setting.default), entry.setting.default, "{name}");
            }
        }
        assert!(group_setting("retention.ms").is_none());
    }
}
