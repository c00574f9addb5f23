//! DescribeLogDirs (key 35, v1-v5): the size of each partition in each data directory.
//!
//! v3: top-level error. v4: size and free space of the volume (KIP-827). v5: no directory is cordoned
//! (KIP-1066), as no setting cordons one. A partition's size is the bytes of its batches
//! from its log start: the number that `retention.bytes` uses. A partition lies in the directory of this node's
//! replica of its shard; while that moves to another directory the replica there is the future one (KIP-113), and its lag is what
//! it does not have yet. KAFKA_STORAGE_ERROR for a directory that has failed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kafka_protocol::messages::{DescribeLogDirsRequest, TopicName};
use ottla_protocol::error::ErrorCode;
use ottla_protocol::messages::{
    DescribeLogDirsPartition, DescribeLogDirsResponse, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use uuid::Uuid;

use super::support::text;
use crate::handlers::context::{Context, Directory};
use crate::metadata::{MetadataImage, Topic};
use crate::partition::TopicRef;

/// Partitions and their sizes, by directory and topic.
type Sizes = BTreeMap<Uuid, BTreeMap<Arc<str>, Vec<DescribeLogDirsPartition>>>;

pub(super) fn handle(ctx: &Context, request: &DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    let image = ctx.metadata.image();
    let mut sizes = Sizes::new();
    match &request.topics {
        None => {
            for topic in image.topics.values() {
                measure(ctx, &image, topic, 0..topic.partition_count(), &mut sizes);
            }
        }
        Some(topics) => {
            for asked in topics {
                let Some(topic) = image.topic(&asked.topic) else { continue };
                let indexes: BTreeSet<i32> = asked.partitions.iter().copied().collect();
                measure(ctx, &image, topic, indexes, &mut sizes);
            }
        }
    }
    let results = ctx
        .directories
        .iter()
        .map(|directory| described(directory, sizes.remove(&directory.id).unwrap_or_default()))
        .collect();
    DescribeLogDirsResponse { results, ..DescribeLogDirsResponse::default() }
}

fn measure(
    ctx: &Context,
    image: &MetadataImage,
    topic: &Topic,
    indexes: impl IntoIterator<Item = i32>,
    sizes: &mut Sizes,
) {
    for index in indexes {
        let Some(shard) = topic.route(index).and_then(|route| image.shard(route.shard)) else { continue };
        let here = ctx.partitions.on_replicas_here(TopicRef::Id(topic.id), index);
        let Some((serving, current)) = here.first() else { continue };
        let end = current.watermarks().high_watermark;
        for (replica, partition) in &here {
            let is_future = replica != serving;
            let mut recorded =
                if is_future { shard.replicas.iter().chain(&[]) } else { shard.replicas.iter().chain(&shard.leaving) };
            let Some(directory) = recorded.find(|known| known.id == *replica).map(|known| known.directory) else {
                continue;
            };
            let of_topic = sizes.entry(directory).or_default().entry(topic.name.clone()).or_default();
            of_topic.push(DescribeLogDirsPartition {
                partition_index: index,
                partition_size: i64::try_from(partition.size_bytes()).unwrap_or(i64::MAX),
                offset_lag: if is_future { (end.0 - partition.watermarks().high_watermark.0).max(0) } else { 0 },
                is_future_key: is_future,
            });
        }
    }
}

fn described(
    directory: &Directory,
    topics: BTreeMap<Arc<str>, Vec<DescribeLogDirsPartition>>,
) -> DescribeLogDirsResult {
    let topics =
        topics.into_iter().map(|(name, partitions)| DescribeLogDirsTopic { name: TopicName(text(&name)), partitions });
    let error = if directory.data.poisoned().is_some() { ErrorCode::KafkaStorageError } else { ErrorCode::None };
    let (total, free) = directory.data.disk_bytes();
    DescribeLogDirsResult {
        error_code: error.code(),
        log_dir: text(&directory.path),
        topics: topics.collect(),
        total_bytes: i64::try_from(total).unwrap_or(i64::MAX),
        usable_bytes: i64::try_from(free).unwrap_or(i64::MAX),
        is_cordoned: false,
    }
}
