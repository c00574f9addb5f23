//! DescribeLogDirs (key 35, v1-v4): the size of each partition in each data directory.
//!
//! v3: top-level error. v4: size and free space of the volume (KIP-827). A partition's size is the bytes of its batches
//! from its log start: the number that `retention.bytes` uses. A partition lies in the directory of this node's
//! replica of its shard. KAFKA_STORAGE_ERROR for a directory that has failed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse, TopicName};
use ottla_protocol::error::ErrorCode;
use uuid::Uuid;

use super::support::text;
use crate::handlers::context::{Context, Directory};
use crate::metadata::{MetadataImage, Topic};
use crate::partition::TopicRef;

/// Partitions and their sizes, by directory and topic.
type Sizes = BTreeMap<Uuid, BTreeMap<Arc<str>, Vec<(i32, u64)>>>;

pub(super) fn handle(ctx: &Context, version: i16, request: &DescribeLogDirsRequest) -> DescribeLogDirsResponse {
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
        .map(|directory| described(version, directory, sizes.remove(&directory.id).unwrap_or_default()))
        .collect();
    DescribeLogDirsResponse::default().with_results(results)
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
        let Some(replica) = shard.replicas.iter().find(|replica| replica.node == ctx.config.node_id) else { continue };
        let Ok(Some(partition)) = ctx.partitions.find_now(TopicRef::Id(topic.id), index) else { continue };
        let of_topic = sizes.entry(replica.directory).or_default().entry(topic.name.clone()).or_default();
        of_topic.push((index, partition.size_bytes()));
    }
}

fn described(
    version: i16,
    directory: &Directory,
    topics: BTreeMap<Arc<str>, Vec<(i32, u64)>>,
) -> DescribeLogDirsResult {
    let topics = topics.into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter().map(|(index, bytes)| {
            DescribeLogDirsPartition::default()
                .with_partition_index(index)
                .with_partition_size(i64::try_from(bytes).unwrap_or(i64::MAX))
        });
        DescribeLogDirsTopic::default().with_name(TopicName(text(&name))).with_partitions(partitions.collect())
    });
    let error = if directory.data.poisoned().is_some() { ErrorCode::KafkaStorageError } else { ErrorCode::None };
    let result = DescribeLogDirsResult::default()
        .with_error_code(error.code())
        .with_log_dir(text(&directory.path))
        .with_topics(topics.collect());
    if version < 4 {
        return result;
    }
    let (total, free) = directory.data.disk_bytes();
    result
        .with_total_bytes(i64::try_from(total).unwrap_or(i64::MAX))
        .with_usable_bytes(i64::try_from(free).unwrap_or(i64::MAX))
}
