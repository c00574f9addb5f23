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
use super::placement;
use super::reassign::{Named, carried, with_ids};
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

/// What is to be done for a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// For each requested partition, in order: the shard that carries it, or why it is not moved.
    pub(super) outcomes: Vec<Result<ShardId, MetadataError>>,
    /// The directory to which each shard's replica is moved.
    pub(super) moves: BTreeMap<ShardId, Uuid>,
    /// What each shard is to split off before.
    pub(super) splits: BTreeMap<ShardId, Vec<(Uuid, i32)>>,
}

pub(super) fn check_level(image: &MetadataImage) -> Result<(), MetadataError> {
    features::require(image, DIRECTORY_MOVES, "Replicas can be moved between data directories")
}

pub(super) fn plan(image: &MetadataImage, node: NodeId, requested: &[DirectoryChange]) -> Plan {
    let shard_of = |one: &DirectoryChange| image.topic(&one.topic)?.route(one.index).map(|route| route.shard);
    let mut by_shard: BTreeMap<ShardId, BTreeMap<Uuid, BTreeSet<Named<'_>>>> = BTreeMap::new();
    for one in requested {
        if let Some(shard) = shard_of(one) {
            let of_shard = by_shard.entry(shard).or_default();
            of_shard.entry(one.directory).or_default().insert((one.topic.as_str(), one.index));
        }
    }
    let (mut planned, mut refused) = (Plan::default(), BTreeMap::new());
    for (shard, wanted) in by_shard {
        if let Err(error) = plan_shard(image, node, shard, wanted, &mut planned) {
            refused.insert(shard, error);
        }
    }
    let outcome = |one: &DirectoryChange| {
        let shard = shard_of(one).ok_or(MetadataError::UnknownTopic)?;
        refused.get(&shard).map_or(Ok(shard), |error| Err(error.clone()))
    };
    Plan { outcomes: requested.iter().map(outcome).collect(), ..planned }
}

fn plan_shard(
    image: &MetadataImage,
    node: NodeId,
    shard: ShardId,
    mut wanted: BTreeMap<Uuid, BTreeSet<Named<'_>>>,
    planned: &mut Plan,
) -> Result<(), MetadataError> {
    let record = image.shard(shard).ok_or(MetadataError::UnknownTopic)?;
    let own = record.replicas.iter().find(|replica| replica.node == node);
    let own = own.ok_or_else(|| invalid(format!("Broker {} has no replica of shard {shard}.", node.0)))?;
    wanted.remove(&own.directory);
    let carried = carried(image, shard);
    let mut lists: Vec<_> = wanted.into_iter().collect();
    // The largest part comes last, and stays where nothing else does.
    lists.sort_by_key(|(_, partitions)| partitions.len());
    match lists.as_slice() {
        [] => {}
        [(directory, partitions)] if partitions.len() == carried.len() => _ = planned.moves.insert(shard, *directory),
        [(_, part), ..] => {
            splits::check_level(image)?;
            if record.is_moving() {
                return Err(invalid(format!(
                    "The partition is a part of a shard ({shard}) whose replicas are being moved: it can be moved on its own after that."
                )));
            }
            let part = part.iter().take(splits::PARTITIONS_MAX).copied().collect();
            planned.splits.insert(shard, with_ids(image, &part));
        }
    }
    Ok(())
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
