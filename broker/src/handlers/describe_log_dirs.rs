//! DescribeLogDirs (key 35, v1-v5): the size of each partition in each data directory.
//!
//! v3: top-level error. v4: size and free space of the volume (KIP-827). v5: no directory is cordoned
//! (KIP-1066), as no setting cordons one. A partition's size is the bytes of its batches
//! from its log start: the number that `retention.bytes` uses. A partition lies in the directory of this node's
//! replica of its shard. KAFKA_STORAGE_ERROR for a directory that has failed.

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
type Sizes = BTreeMap<Uuid, BTreeMap<Arc<str>, Vec<(i32, u64)>>>;

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
        let Some(replica) = shard.replicas.iter().find(|replica| replica.node == ctx.config.node_id) else { continue };
        let Ok(Some(partition)) = ctx.partitions.find_now(TopicRef::Id(topic.id), index) else { continue };
        let of_topic = sizes.entry(replica.directory).or_default().entry(topic.name.clone()).or_default();
        of_topic.push((index, partition.size_bytes()));
    }
}

fn described(directory: &Directory, topics: BTreeMap<Arc<str>, Vec<(i32, u64)>>) -> DescribeLogDirsResult {
    let topics = topics.into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter().map(|(partition_index, bytes)| DescribeLogDirsPartition {
            partition_index,
            partition_size: i64::try_from(bytes).unwrap_or(i64::MAX),
            ..DescribeLogDirsPartition::default()
        });
        DescribeLogDirsTopic { name: TopicName(text(&name)), partitions: partitions.collect() }
    });
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
