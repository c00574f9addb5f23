//! AlterReplicaLogDirs (key 34, v1-v2): moves partitions of this node to other data directories of it (KIP-113).
//!
//! What moves is a replica of a shard: a part of one is split off first. The answer comes when the move is recorded; the partition is
//! served meanwhile, and DescribeLogDirs shows how far the new replica is.
//! - No such directory here: LOG_DIR_NOT_FOUND. One that has failed: KAFKA_STORAGE_ERROR.
//! - No replica here: REPLICA_NOT_AVAILABLE. No such partition: UNKNOWN_TOPIC_OR_PARTITION.
//! - The directory in which the partition is already: nothing, or the move to another one is cancelled.

use std::collections::BTreeMap;

use kafka_protocol::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
};
use kafka_protocol::messages::{AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse, TopicName};
use ottla_protocol::error::ErrorCode;
use uuid::Uuid;

use crate::handlers::context::Context;
use crate::metadata::{DirectoryChange, MetadataImage};

pub(super) async fn handle(ctx: &Context, request: &AlterReplicaLogDirsRequest) -> AlterReplicaLogDirsResponse {
    // What was created just now may not be in this node's image.
    let _ = ctx.metadata.read_index().await;
    let image = ctx.metadata.image();
    let mut outcomes: BTreeMap<(&TopicName, i32), ErrorCode> = BTreeMap::new();
    let (mut changes, mut of_changes) = (Vec::new(), Vec::new());
    for asked in &request.dirs {
        let directory = directory(ctx, &asked.path);
        for (topic, index) in
            asked.topics.iter().flat_map(|topic| topic.partitions.iter().map(|one| (&topic.name, *one)))
        {
            match directory.and_then(|directory| check(ctx, &image, topic, index).map(|()| directory)) {
                Ok(directory) => {
                    changes.push(DirectoryChange { topic: topic.to_string(), index, directory });
                    of_changes.push((topic, index));
                }
                Err(error) => _ = outcomes.insert((topic, index), error),
            }
        }
    }
    let changed = ctx.metadata.change_directories(ctx.config.node_id, &changes).await;
    for (of, outcome) in of_changes.into_iter().zip(changed) {
        let code = outcome.map_or_else(
            |error| {
                tracing::warn!("partition {}-{} stays in its data directory: {error}", of.0.as_str(), of.1);
                error.code()
            },
            |()| ErrorCode::None,
        );
        outcomes.insert(of, code);
    }
    let mut topics: BTreeMap<&TopicName, Vec<AlterReplicaLogDirPartitionResult>> = BTreeMap::new();
    for ((topic, index), code) in outcomes {
        let result = AlterReplicaLogDirPartitionResult::default().with_partition_index(index);
        topics.entry(topic).or_default().push(result.with_error_code(code.code()));
    }
    let result = |(topic, partitions): (&TopicName, _)| {
        AlterReplicaLogDirTopicResult::default().with_topic_name(topic.clone()).with_partitions(partitions)
    };
    AlterReplicaLogDirsResponse::default().with_results(topics.into_iter().map(result).collect())
}

/// The directory of this node that has a path.
fn directory(ctx: &Context, path: &str) -> Result<Uuid, ErrorCode> {
    let wanted = std::path::absolute(path).map_err(|_| ErrorCode::LogDirNotFound)?;
    let found = ctx.directories.iter().find(|directory| wanted == std::path::Path::new(&directory.path));
    let found = found.ok_or(ErrorCode::LogDirNotFound)?;
    if found.data.poisoned().is_some() { Err(ErrorCode::KafkaStorageError) } else { Ok(found.id) }
}

/// Whether this node has a replica of a partition.
fn check(ctx: &Context, image: &MetadataImage, topic: &TopicName, index: i32) -> Result<(), ErrorCode> {
    let route = image.topic(topic).and_then(|topic| topic.route(index));
    let shard = route.and_then(|route| image.shard(route.shard)).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let is_here = shard.replicas.iter().any(|replica| replica.node == ctx.config.node_id);
    if is_here { Ok(()) } else { Err(ErrorCode::ReplicaNotAvailable) }
}
