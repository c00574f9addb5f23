//! How far groups are behind: in records and in seconds, computed where the data is.
//!
//! Seconds are the age of the first record that the group has not committed, from the index: 0 when there is none.
//! May not know: HTTP, text formats.

use std::sync::Arc;

use ottla_protocol::ids::Offset;
use ottla_storage::env::rt;
use serde::Serialize;

use crate::partition::{Partition, TopicRef};
use crate::server::context::Domain;

/// One group and how far it is behind.
#[derive(Debug, Clone, Serialize)]
pub(super) struct GroupLag {
    #[serde(serialize_with = "as_text")]
    pub(super) name: Arc<str>,
    pub(super) protocol_type: String,
    pub(super) generation: i32,
    pub(super) members: usize,
    pub(super) topics: Vec<TopicLag>,
}

/// A group in one topic.
#[derive(Debug, Clone, Serialize)]
pub(super) struct TopicLag {
    #[serde(serialize_with = "as_text")]
    pub(super) name: Arc<str>,
    pub(super) partitions: Vec<PartitionLag>,
}

/// A group in one partition.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct PartitionLag {
    pub(super) index: i32,
    pub(super) committed: i64,
    /// Unknown where another node leads the partition.
    pub(super) lag: Option<i64>,
    pub(super) lag_seconds: Option<f64>,
}

fn as_text<S: serde::Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

/// All groups that this node coordinates, by name.
pub(super) async fn measure(domain: &Domain) -> Vec<GroupLag> {
    let mut groups = committed(domain);
    groups.sort_by(|a, b| a.name.cmp(&b.name));
    let now_ms = rt::wall_clock_ms();
    for topic in groups.iter_mut().flat_map(|group| &mut group.topics) {
        for partition in &mut topic.partitions {
            let found = domain.partitions.find_now(TopicRef::Name(&topic.name), partition.index);
            if let Ok(Some(found)) = found {
                fill(&found, partition, now_ms).await;
            }
        }
    }
    groups
}

/// What the groups have committed; copied, so that no lock is held while logs are asked.
fn committed(domain: &Domain) -> Vec<GroupLag> {
    let mut groups = Vec::new();
    domain.groups.visit_led(|store| {
        for (name, stored) in store.groups() {
            let membership = stored.membership.as_deref();
            let topics = stored.offsets.iter().map(|(topic, partitions)| {
                let partitions = partitions.iter().map(|(index, committed)| PartitionLag {
                    index: *index,
                    committed: committed.offset,
                    lag: None,
                    lag_seconds: None,
                });
                TopicLag { name: topic.clone(), partitions: partitions.collect() }
            });
            groups.push(GroupLag {
                name: name.clone(),
                protocol_type: membership.map(|value| value.protocol_type.clone()).unwrap_or_default(),
                generation: membership.map_or(0, |value| value.generation),
                members: membership.map_or(0, |value| value.members.len()),
                topics: topics.collect(),
            });
        }
    });
    groups
}

async fn fill(found: &Partition, partition: &mut PartitionLag, now_ms: i64) {
    if found.leader_epoch().is_none() {
        return;
    }
    let marks = found.watermarks();
    // What retention has removed cannot be read any more: the group resumes at the log start.
    let position = Offset(partition.committed).max(marks.log_start);
    let lag = (marks.high_watermark.0 - position.0).max(0);
    partition.lag = Some(lag);
    partition.lag_seconds = Some(0.0);
    if lag > 0 {
        let timestamp = found.timestamp_at(position).await;
        let age_ms = timestamp.map(|timestamp_ms| (now_ms - timestamp_ms).max(0));
        #[allow(clippy::cast_precision_loss)]
        let seconds = age_ms.map(|age_ms| age_ms as f64 / 1000.0);
        partition.lag_seconds = seconds;
    }
}
