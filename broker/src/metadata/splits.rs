//! Decides splits of shards: which partitions of a shard become a shard of their own (design section 8).
//!
//! The parent's log carries the split out; until its leader has reported that, the replicas of both stay as they are. Pure
//! functions of the image. May not know: how a state is split, and why.

use std::collections::BTreeMap;
use std::sync::Arc;

use ottla_storage::ids::{RaftIndex, ReplicaId};
use uuid::Uuid;

use super::command::{Command, NewShard};
use super::error::{MetadataError, invalid};
use super::features;
use super::image::{MetadataImage, ReplicaRecord, ShardId, ShardKind, ShardRecord, SplitRecord};

/// So many partitions may one split move: as many as one entry names.
pub(super) const PARTITIONS_MAX: usize = 20_000;

/// Partitions by their topics.
fn by_topic(partitions: &[(Uuid, i32)]) -> Vec<(Uuid, Vec<i32>)> {
    let mut topics: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
    for (topic, index) in partitions {
        topics.entry(*topic).or_default().push(*index);
    }
    for indexes in topics.values_mut() {
        indexes.sort_unstable();
        indexes.dedup();
    }
    topics.into_iter().collect()
}

/// Fails below the feature level from which on shards are split.
pub(super) fn check_level(image: &MetadataImage) -> Result<(), MetadataError> {
    features::require(image, SplitRecord::LEVEL, "Shards can be split")
}

/// A shard that may be split or merged: it carries partitions, and is not being changed otherwise.
pub(super) fn at_rest(image: &MetadataImage, id: ShardId) -> Result<&Arc<ShardRecord>, MetadataError> {
    let record = image.shard(id).filter(|record| record.kind != ShardKind::Metadata);
    let record = record.ok_or_else(|| invalid(format!("There is no shard {id} that carries partitions.")))?;
    if image.is_resizing(id) {
        return Err(invalid(format!("Shard {id} is being split or merged.")));
    }
    if record.is_moving() {
        return Err(invalid(format!("The replicas of shard {id} are being moved.")));
    }
    Ok(record)
}

/// Makes these partitions of a shard a shard of their own, on the same nodes.
pub(super) fn split(
    image: &MetadataImage,
    parent: ShardId,
    partitions: &[(Uuid, i32)],
) -> Result<Command, MetadataError> {
    check_level(image)?;
    let record = at_rest(image, parent)?;
    let partitions = by_topic(partitions);
    let count: usize = partitions.iter().map(|(_, indexes)| indexes.len()).sum();
    if count == 0 || count > PARTITIONS_MAX {
        return Err(invalid(format!("A split moves 1 to {PARTITIONS_MAX} partitions, not {count}.")));
    }
    for (topic, indexes) in &partitions {
        let topic = image.topic_by_id(topic).ok_or(MetadataError::UnknownTopicId)?;
        if let Some(index) = indexes.iter().find(|index| topic.route(**index).is_none_or(|at| at.shard != parent)) {
            return Err(invalid(format!("Shard {parent} does not carry partition {index} of topic '{}'.", topic.name)));
        }
    }
    let ids = (image.next_replica_id..).map(ReplicaId);
    let replicas = record.replicas.iter().zip(ids).map(|(replica, id)| ReplicaRecord { id, ..*replica }).collect();
    // It gets no partitions but those that it takes.
    let kind = match record.kind {
        ShardKind::Pool { factor, .. } => ShardKind::Pool { factor, pinned: true },
        kind => kind,
    };
    let child = NewShard { id: ShardId(image.next_shard_id), kind, replicas };
    Ok(Command::SplitShard { parent, child, partitions })
}

/// The end of a split, unless it is recorded.
pub(super) fn end(image: &MetadataImage, child: ShardId, at: RaftIndex) -> Option<Command> {
    let split = image.shard(child)?.split.as_ref()?;
    split.done.is_none().then_some(Command::EndSplit { child, at })
}
