//! Which shards the balancer moves: those with replicas on nodes that are drained; and which it removes: those that carry nothing
//! any more. A pure function of the image.
//!
//! A few shards are moved at a time, including moves that operators requested; bytes are throttled by their sender. A
//! replica stays where no other node can take it, so that a shard never has fewer replicas than intended. May not know:
//! which nodes are alive, and how a shard is moved.

use std::collections::BTreeSet;
use std::sync::Arc;

use ottla_protocol::ids::NodeId;
use ottla_storage::ids::ReplicaId;

use super::action::{Action, Change};
use super::command::Command;
use super::image::{MetadataImage, NodeState, ReplicaRecord, ShardId, ShardKind, ShardRecord};
use super::merge_record::MergeStep;
use super::merges;
use super::placement;
use super::splits;
use super::topic_shards;

/// The most shards that are moved at the same time.
pub(super) const MOVES_MAX: usize = 2;

fn carrying(image: &MetadataImage) -> impl Iterator<Item = &Arc<ShardRecord>> {
    image.shards.values().filter(|shard| shard.kind != ShardKind::Metadata)
}

/// How many more shards may be moved now.
pub(super) fn room(image: &MetadataImage) -> usize {
    MOVES_MAX.saturating_sub(carrying(image).filter(|shard| shard.is_moving()).count())
}

/// The command of a step of the balancer; `None` if the shard is not as it was when that was planned, or a node takes no replicas.
pub(super) fn balanced(image: &MetadataImage, action: &Action) -> Option<Command> {
    match &action.change {
        Change::Replicas { shard, before, nodes } => replicas_at(image, *shard, before, nodes),
        Change::Split { shard, partitions } => splits::split(image, *shard, partitions).ok(),
        Change::Merge { shard, into } => topic_shards::merged(image, *shard, into),
    }
}

fn replicas_at(image: &MetadataImage, shard: ShardId, before: &[ReplicaId], nodes: &[NodeId]) -> Option<Command> {
    let shard = image.shard(shard).filter(|shard| shard.kind != ShardKind::Metadata)?;
    let is_as_planned = shard.replicas.iter().map(|replica| replica.id).eq(before.iter().copied());
    let distinct = nodes.iter().collect::<BTreeSet<_>>().len();
    let fits = [distinct, nodes.len()] == [shard.replicas.len(); 2];
    let at_rest = !shard.is_moving() && !image.is_resizing(shard.id);
    let takes = nodes.iter().all(|node| image.takes_replicas(*node));
    let replicas = placement::moved(image, shard, nodes);
    let is_due = is_as_planned && fits && at_rest && takes && replicas != shard.replicas;
    is_due.then(|| Command::SetReplicas { shard: shard.id, before: before.to_vec(), replicas })
}

/// The commands that are due now.
pub(super) fn due(image: &MetadataImage) -> Vec<Command> {
    let mut after = image.clone();
    let room = room(image);
    let mut commands = Vec::new();
    for shard in carrying(image).filter(|shard| !shard.is_moving() && !image.is_resizing(shard.id)) {
        if commands.len() == room {
            break;
        }
        let Some(nodes) = placement::drained(&after, shard) else { continue };
        let replicas = placement::moved(&after, shard, &nodes);
        commands.push(set_replicas(&mut after, shard, replicas));
    }
    commands.extend(rebuilds(&mut after, image));
    commands.extend(merges::spent(image));
    // Decided on the image as it is: only where nothing else is due.
    if commands.is_empty() {
        commands.extend(topic_shards::due(image, room > 0));
    }
    for node in image.nodes.values().filter(|node| node.state == NodeState::Leaving) {
        commands.extend(removal_step(&mut after, node.id));
    }
    commands
}

/// Replicas in directories that are gone, in shards that were being split or merged when their nodes registered without these.
fn rebuilds(after: &mut MetadataImage, image: &MetadataImage) -> Vec<Command> {
    let mut commands = Vec::new();
    for node in image.nodes.keys() {
        let stays =
            |shard: &ShardRecord| shard.kind == ShardKind::Metadata || shard.is_moving() || image.is_resizing(shard.id);
        let rebuilt = placement::rebuilt(after, *node, &[]);
        for (shard, replicas) in rebuilt.into_iter().filter(|(shard, _)| !stays(shard)) {
            commands.push(set_replicas(after, &shard, replicas));
        }
    }
    commands
}

/// Sets the replicas, also in the image on which the next commands are decided.
pub(super) fn set_replicas(after: &mut MetadataImage, shard: &ShardRecord, replicas: Vec<ReplicaRecord>) -> Command {
    let last = replicas.iter().map(|replica| replica.id.0.saturating_add(1)).max();
    after.next_replica_id = after.next_replica_id.max(last.unwrap_or(0));
    let before = shard.replicas.iter().map(|replica| replica.id).collect();
    let record = ShardRecord { replicas: replicas.clone(), ..shard.clone() };
    Arc::make_mut(&mut after.shards).insert(shard.id, Arc::new(record));
    Command::SetReplicas { shard: shard.id, before, replicas }
}

/// True for the beginning of a split or merge.
pub(super) fn is_resize_step(command: &Command) -> bool {
    matches!(command, Command::SplitShard { .. } | Command::Merge(MergeStep::Begin { .. }))
}

/// True for a command that ends a node's membership.
pub(super) fn is_removal_step(command: &Command) -> bool {
    matches!(command, Command::RemoveNode { .. } | Command::SetReplicas { shard: ShardId::METADATA, .. })
}

/// The next step of removing a node that holds no shards any more: first its replica of the metadata, then its record.
fn removal_step(after: &mut MetadataImage, node: NodeId) -> Option<Command> {
    let holds = |shard: &Arc<ShardRecord>| shard.members().any(|replica| replica.node == node);
    if after.shards.values().any(|shard| shard.id != ShardId::METADATA && holds(shard)) {
        return None;
    }
    let metadata = after.shard(ShardId::METADATA)?.clone();
    if !holds(&metadata) {
        return Some(Command::RemoveNode { node });
    }
    let others: Vec<_> = metadata.replicas.iter().filter(|replica| replica.node != node).copied().collect();
    let is_due = !metadata.is_moving() && others.len() < metadata.replicas.len() && !others.is_empty();
    is_due.then(|| set_replicas(after, &metadata, others))
}
