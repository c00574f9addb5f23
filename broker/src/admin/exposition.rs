//! The page `/metrics`: the registry, then what is read from images now: partitions and groups under kafka_exporter's
//! names, so that the dashboards people have work as they are; then sizes and disks.
//!
//! A partition is shown by its leader only, and a group by its coordinator: no sample appears on two nodes.

use std::sync::Arc;

use ottla_storage::env::rt;
use prometheus::TextEncoder;

use super::disk;
use super::families::{Family, label};
use super::lag::{self, GroupLag};
use crate::metadata::{MetadataImage, Topic};
use crate::partition::{Leader, TopicRef};
use crate::server::context::Domain;

/// The whole page.
pub(super) async fn render(domain: &Domain) -> String {
    let groups = lag::measure(domain).await;
    let domain = domain.clone();
    // Text for ten thousand partitions is milliseconds of work: not on a thread that serves clients.
    let text = rt::spawn_blocking(move || page(&domain, &groups)).await;
    text.unwrap_or_else(|error| {
        tracing::error!("the metrics page failed: {error}");
        String::new()
    })
}

fn page(domain: &Domain, groups: &[GroupLag]) -> String {
    let image = domain.metadata.image();
    domain.metrics.keep_topics(|name| image.topic(name).is_some());
    let mut page = String::with_capacity(1 << 16);
    if let Err(error) = TextEncoder::new().encode_utf8(&domain.metrics.registry().gather(), &mut page) {
        tracing::error!("the registry cannot be written as text: {error}");
    }
    brokers(domain, &image, &mut page);
    partitions(domain, &image, &mut page);
    consumer_groups(groups, &mut page);
    disk::directories(domain, &mut page);
    page
}

fn brokers(domain: &Domain, image: &MetadataImage, page: &mut String) {
    let mut count = Family::gauge("kafka_brokers", "Number of brokers in the cluster");
    count.add("", image.nodes.len());
    count.finish(page);
    let mut info = Family::gauge("kafka_broker_info", "Information about each broker");
    for node in image.nodes.values() {
        if let Some(listener) = node.endpoint(&domain.config.inter_broker_listener_name) {
            let address = format!("{}:{}", listener.host, listener.port);
            info.add(&format!("{},id=\"{}\"", label("address", &address), node.id.0), 1);
        }
    }
    info.finish(page);
    let mut groups = Family::gauge("ottla_raft_groups", "Raft groups with a replica on this node");
    let replicas = image.shards.values().flat_map(|shard| &shard.replicas);
    groups.add("", replicas.filter(|replica| replica.node == domain.config.node_id).count());
    groups.finish(page);
    let mut replicas = Family::gauge("ottla_raft_replicas", "Replicas that run on this node, by what they are");
    for (role, count) in domain.partitions.replica_roles() {
        replicas.add(&label("role", role), count);
    }
    replicas.finish(page);
    let mut build = Family::gauge("ottla_build_info", "The version that runs");
    build.add(&label("version", env!("CARGO_PKG_VERSION")), 1);
    build.finish(page);
    let mut budget = Family::gauge("ottla_memory_answers_bytes", "Memory of answers under way");
    budget.add("", domain.answers.bytes_used());
    budget.finish(page);
}

/// The families with a sample per partition.
struct PartitionFamilies {
    current: Family,
    oldest: Family,
    stable: Family,
    size: Family,
    leader: Family,
    preferred: Family,
    replicas: Family,
    in_sync: Family,
    under_replicated: Family,
}

fn partitions(domain: &Domain, image: &MetadataImage, page: &mut String) {
    let mut counts = Family::gauge("kafka_topic_partitions", "Number of partitions of a topic");
    let mut families = PartitionFamilies {
        current: Family::gauge("kafka_topic_partition_current_offset", "Current offset (high watermark)"),
        oldest: Family::gauge("kafka_topic_partition_oldest_offset", "Oldest offset (log start)"),
        stable: Family::gauge("ottla_topic_partition_last_stable_offset", "Last stable offset"),
        size: Family::gauge("ottla_topic_partition_bytes", "Bytes of batches from log start"),
        leader: Family::gauge("kafka_topic_partition_leader", "Leader broker id"),
        preferred: Family::gauge("kafka_topic_partition_leader_is_preferred", "1 if the preferred broker leads"),
        replicas: Family::gauge("kafka_topic_partition_replicas", "Number of replicas"),
        in_sync: Family::gauge("kafka_topic_partition_in_sync_replica", "Number of in-sync replicas"),
        under_replicated: Family::gauge(
            "kafka_topic_partition_under_replicated_partition",
            "1 if a replica is not in sync",
        ),
    };
    let mut leaders = domain.partitions.leaders();
    for topic in image.topics.values() {
        let topic_label = label("topic", &topic.name);
        counts.add(&topic_label, topic.partition_count());
        for index in 0..topic.partition_count() {
            let leader = leaders.of(topic, index);
            partition(domain, topic, index, leader, &format!("partition=\"{index}\",{topic_label}"), &mut families);
        }
    }
    counts.finish(page);
    let PartitionFamilies { current, oldest, stable, size, leader, preferred, replicas, in_sync, under_replicated } =
        families;
    for family in [current, oldest, stable, size, leader, preferred, replicas, in_sync, under_replicated] {
        family.finish(page);
    }
}

fn partition(
    domain: &Domain,
    topic: &Arc<Topic>,
    index: i32,
    leader: Leader<'_>,
    labels: &str,
    families: &mut PartitionFamilies,
) {
    if leader.node.is_some_and(|leader| leader != domain.config.node_id) {
        return;
    }
    families.leader.add(labels, leader.node.map_or(-1, |leader| leader.0));
    let preferred = leader.node.is_some() && leader.replicas.first() == leader.node.as_ref();
    families.preferred.add(labels, u8::from(preferred));
    families.replicas.add(labels, leader.replicas.len());
    families.in_sync.add(labels, leader.in_sync.len());
    families.under_replicated.add(labels, u8::from(leader.in_sync.len() < leader.replicas.len()));
    if let Ok(Some(found)) = domain.partitions.find_now(TopicRef::Id(topic.id), index) {
        let marks = found.watermarks();
        families.current.add(labels, marks.high_watermark.0);
        families.oldest.add(labels, marks.log_start.0);
        families.stable.add(labels, marks.last_stable.0);
        families.size.add(labels, found.size_bytes());
    }
}

fn consumer_groups(groups: &[GroupLag], page: &mut String) {
    let mut current = Family::gauge("kafka_consumergroup_current_offset", "Committed offset of a group");
    let mut current_sum =
        Family::gauge("kafka_consumergroup_current_offset_sum", "Sum of committed offsets in a topic");
    let mut lag = Family::gauge("kafka_consumergroup_lag", "Records between the committed offset and the end");
    let mut lag_sum = Family::gauge("kafka_consumergroup_lag_sum", "Sum of the lag in a topic");
    let mut seconds =
        Family::gauge("ottla_consumergroup_lag_seconds", "Age of the first record that the group has not committed");
    let mut members = Family::gauge("kafka_consumergroup_members", "Members of a group");
    for group in groups {
        let group_label = label("consumergroup", &group.name);
        members.add(&group_label, group.members);
        for topic in &group.topics {
            let labels = format!("{group_label},{}", label("topic", &topic.name));
            for partition in &topic.partitions {
                let labels = format!("{group_label},partition=\"{}\",{}", partition.index, label("topic", &topic.name));
                current.add(&labels, partition.committed);
                if let Some(records) = partition.lag {
                    lag.add(&labels, records);
                }
                if let Some(age) = partition.lag_seconds {
                    seconds.add(&labels, age);
                }
            }
            current_sum.add(&labels, topic.partitions.iter().map(|partition| partition.committed).sum::<i64>());
            lag_sum.add(&labels, topic.partitions.iter().filter_map(|partition| partition.lag).sum::<i64>());
        }
    }
    for family in [current, current_sum, lag, lag_sum, seconds, members] {
        family.finish(page);
    }
}
