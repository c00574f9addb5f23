//! Plans and decides moves of replicas between data directories of a node (KIP-113), as pure functions of the image. The replica there is
//! a new member of the shard's group, which the shard's leader catches up before it replaces the one that has been there.
//!
//! A partition is in the directory of its shard: where a request names a part of a shard, that is split off first, as for a
//! reassignment. May not know: which client sent the request, and how a replica is created.

use std::collections::{BTreeMap, BTreeSet};

use ottla_protocol::ids::NodeId;
use uuid::Uuid;

use super::command::Command;
use super::error::{MetadataError, invalid};
use super::features;
use super::image::{MetadataImage, ShardId, ShardKind};
use super::move_plan::{self, Named, PartitionMove, Parts, by_shard, carried, with_ids};
use super::placement;
use super::splits;
use crate::levels::DIRECTORY_MOVES;

/// A partition whose replica on a node is to be in another data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryChange {
    /// Its topic's name.
    pub topic: String,
    /// Its number.
    pub index: i32,
    /// The directory, of the node that is asked.
    pub directory: Uuid,
}

impl PartitionMove for DirectoryChange {
    type Place = Uuid;

    fn partition(&self) -> Named<'_> {
        (&self.topic, self.index)
    }

    fn place(&self) -> &Uuid {
        &self.directory
    }
}

/// A plan of moves, each to a directory.
pub(super) type Plan = move_plan::Plan<Uuid>;

pub(super) fn check_level(image: &MetadataImage) -> Result<(), MetadataError> {
    features::require(image, DIRECTORY_MOVES, "Replicas can be moved between data directories")
}

pub(super) fn plan(image: &MetadataImage, node: NodeId, requested: &[DirectoryChange]) -> Plan {
    let (mut moves, mut splits, mut refused) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for (shard, parts) in by_shard(image, requested) {
        match plan_shard(image, node, shard, parts) {
            Ok(Step::Nothing) => {}
            Ok(Step::Move(directory)) => _ = moves.insert(shard, directory),
            Ok(Step::Split(part)) => _ = splits.insert(shard, with_ids(image, &part)),
            Err(error) => _ = refused.insert(shard, error),
        }
    }
    let outcomes = move_plan::outcomes(image, requested, |shard, _| refused.get(&shard).cloned());
    Plan { outcomes, moves, splits }
}

/// What a shard does next.
enum Step<'a> {
    Nothing,
    Move(Uuid),
    Split(BTreeSet<Named<'a>>),
}

fn plan_shard<'a>(
    image: &MetadataImage,
    node: NodeId,
    shard: ShardId,
    mut wanted: Parts<'a, Uuid>,
) -> Result<Step<'a>, MetadataError> {
    let record = image.shard(shard).ok_or(MetadataError::UnknownTopic)?;
    let own = record.replicas.iter().find(|replica| replica.node == node);
    let own = own.ok_or_else(|| invalid(format!("Broker {} has no replica of shard {shard}.", node.0)))?;
    wanted.remove(&own.directory);
    let carried = carried(image, shard);
    let mut lists: Vec<_> = wanted.into_iter().collect();
    // The largest part comes last, and stays where nothing else does.
    lists.sort_by_key(|(_, partitions)| partitions.len());
    match lists.as_slice() {
        [] => Ok(Step::Nothing),
        [(directory, partitions)] if partitions.len() == carried.len() => Ok(Step::Move(**directory)),
        [(_, part), ..] => {
            splits::check_level(image)?;
            if record.is_moving() {
                return Err(invalid(format!(
                    "The partition is a part of a shard ({shard}) whose replicas are being moved: it can be moved on its own after that."
                )));
            }
            Ok(Step::Split(part.iter().take(splits::PARTITIONS_MAX).copied().collect()))
        }
    }
}

/// Decides that a shard's replica on a node is to be in this directory of it; nothing where the replica is in the directory already.
///
/// # Errors
/// When the node has no such directory or no replica, or the shard is being split or merged.
pub(super) fn decide(
    image: &MetadataImage,
    shard: ShardId,
    node: NodeId,
    directory: Uuid,
) -> Result<Option<Command>, MetadataError> {
    check_level(image)?;
    let record = image.shard(shard).filter(|record| record.kind != ShardKind::Metadata);
    let record = record.ok_or_else(|| invalid(format!("There is no shard {shard} that carries partitions.")))?;
    let known = image.nodes.get(&node).is_some_and(|node| node.directories.iter().any(|known| known.id == directory));
    if !known {
        return Err(invalid(format!("Broker {} has no data directory {directory}.", node.0)));
    }
    if image.is_resizing(shard) {
        return Err(invalid(format!("Shard {shard} is being split or merged: try again.")));
    }
    let replicas = placement::in_directory(image, record, node, directory);
    let replicas = replicas.ok_or_else(|| invalid(format!("Broker {} has no replica of shard {shard}.", node.0)))?;
    let before = record.replicas.iter().map(|replica| replica.id).collect();
    Ok((replicas != record.replicas).then_some(Command::SetReplicas { shard, before, replicas }))
}
