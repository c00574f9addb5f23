//! Which shards the balancer moves: those with replicas on nodes that are drained. A pure function of the image.
//!
//! A few shards are moved at a time, including moves that operators requested; bytes are throttled by their sender. A
//! replica stays where no other node can take it, so that a shard never has fewer replicas than intended. May not know:
//! which nodes are alive, and how a shard is moved.

use std::sync::Arc;

use ottla_protocol::ids::NodeId;

use super::command::Command;
use super::image::{MetadataImage, NodeState, ReplicaRecord, ShardId, ShardKind, ShardRecord};
use super::placement;

/// The most shards that are moved at the same time.
pub(super) const MOVES_MAX: usize = 2;

/// The commands that are due now.
pub(super) fn due(image: &MetadataImage) -> Vec<Command> {
    let mut after = image.clone();
    let carrying = || image.shards.values().filter(|shard| shard.kind != ShardKind::Metadata);
    let room = MOVES_MAX.saturating_sub(carrying().filter(|shard| shard.is_moving()).count());
    let mut commands = Vec::new();
    for shard in carrying().filter(|shard| !shard.is_moving() && !image.is_splitting(shard.id)) {
        if commands.len() == room {
            break;
        }
        let Some(nodes) = placement::drained(&after, shard) else { continue };
        let replicas = placement::moved(&after, shard, &nodes);
        commands.push(set_replicas(&mut after, shard, replicas));
    }
    for node in image.nodes.values().filter(|node| node.state == NodeState::Leaving) {
        commands.extend(removal_step(&mut after, node.id));
    }
    commands
}

/// Sets the replicas, also in the image on which the next commands are decided.
fn set_replicas(after: &mut MetadataImage, shard: &ShardRecord, replicas: Vec<ReplicaRecord>) -> Command {
    let last = replicas.iter().map(|replica| replica.id.0.saturating_add(1)).max();
    after.next_replica_id = after.next_replica_id.max(last.unwrap_or(0));
    let before = shard.replicas.iter().map(|replica| replica.id).collect();
    let record = ShardRecord { replicas: replicas.clone(), ..shard.clone() };
    Arc::make_mut(&mut after.shards).insert(shard.id, Arc::new(record));
    Command::SetReplicas { shard: shard.id, before, replicas }
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
