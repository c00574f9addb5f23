//! Metrics of single partitions: families under kafka_exporter's names, and a few of Ottla's.
//!
//! A partition is exported by its leader's node, and by every node while no leader is known: no sample of a partition
//! with a leader appears on two nodes. May not know: on which page they are, and for which topics (`topics`).

use super::table::Column;
use crate::handlers::context::Domain;
use crate::metadata::Topic;
use crate::partition::{Leader, TopicRef, Watermarks};

/// A partition as this node exports it.
pub(super) struct ShownPartition {
    /// Its leader, which is this node if there is one.
    pub(super) leader: Option<i32>,
    pub(super) is_led_by_preferred: bool,
    pub(super) replicas: usize,
    pub(super) in_sync: usize,
    /// The log of this node's replica, if it has one.
    pub(super) log: Option<ShownLog>,
}

/// The log of a partition.
pub(super) struct ShownLog {
    pub(super) marks: Watermarks,
    pub(super) bytes: u64,
}

/// The families with a sample per partition.
pub(super) const COLUMNS: &[Column<ShownPartition>] = &[
    Column {
        name: "kafka_topic_partition_current_offset",
        help: "Current offset (high watermark)",
        value: |partition| partition.log.as_ref().map(|log| log.marks.high_watermark.0),
    },
    Column {
        name: "kafka_topic_partition_oldest_offset",
        help: "Oldest offset (log start)",
        value: |partition| partition.log.as_ref().map(|log| log.marks.log_start.0),
    },
    Column {
        name: "ottla_topic_partition_last_stable_offset",
        help: "Last stable offset",
        value: |partition| partition.log.as_ref().map(|log| log.marks.last_stable.0),
    },
    Column {
        name: "ottla_topic_partition_bytes",
        help: "Bytes of batches from log start",
        value: |partition| partition.log.as_ref().map(|log| whole(log.bytes)),
    },
    Column {
        name: "kafka_topic_partition_leader",
        help: "Leader broker id, -1 if there is none",
        value: |partition| Some(partition.leader.map_or(-1, i64::from)),
    },
    Column {
        name: "kafka_topic_partition_leader_is_preferred",
        help: "1 if the preferred broker leads",
        value: |partition| Some(partition.is_led_by_preferred.into()),
    },
    Column {
        name: "kafka_topic_partition_replicas",
        help: "Number of replicas",
        value: |partition| Some(count(partition.replicas)),
    },
    Column {
        name: "kafka_topic_partition_in_sync_replica",
        help: "Number of in-sync replicas",
        value: |partition| Some(count(partition.in_sync)),
    },
    Column {
        name: "kafka_topic_partition_under_replicated_partition",
        help: "1 if a replica is not in sync",
        value: |partition| Some(partition.is_under_replicated().into()),
    },
];

impl ShownPartition {
    /// The partition, if this node exports it.
    pub(super) fn of(domain: &Domain, topic: &Topic, index: i32, leader: Leader<'_>) -> Option<Self> {
        if leader.node.is_some_and(|node| node != domain.config.node_id) {
            return None;
        }
        let found = domain.partitions.find_now(TopicRef::Id(topic.id), index).ok().flatten();
        Some(Self {
            leader: leader.node.map(|node| node.0),
            is_led_by_preferred: leader.node.is_some() && leader.replicas.first() == leader.node.as_ref(),
            replicas: leader.replicas.len(),
            in_sync: leader.in_sync.len(),
            log: found.map(|found| ShownLog { marks: found.watermarks(), bytes: found.size_bytes() }),
        })
    }

    /// True if a replica is not in sync.
    pub(super) fn is_under_replicated(&self) -> bool {
        self.in_sync < self.replicas
    }
}

/// A number of things as a sample's value.
pub(super) fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// An amount as a sample's value.
pub(super) fn whole(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}
