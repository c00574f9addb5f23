//! Which shards are moved by themselves: those with replicas on nodes that are to be emptied. A pure function of the image.
//!
//! A few shards at a time, whoever has them moved: bytes are throttled where they are sent. A replica stays where nobody else
//! can take it, so that a shard never has fewer than it is to have. May not know: who lives, and how a shard is moved.

use std::sync::Arc;

use ottla_protocol::ids::NodeId;

use super::command::Command;
use super::image::{MetadataImage, NodeState, ReplicaRecord, ShardId, ShardKind, ShardRecord};
use super::placement;

/// Shards that are moved at the same time.
pub(super) const MOVES_MAX: usize = 2;

/// The changes that are due now.
pub(super) fn due(image: &MetadataImage) -> Vec<Command> {
    let mut after = image.clone();
    let carrying = || image.shards.values().filter(|shard| shard.kind != ShardKind::Metadata);
    let room = MOVES_MAX.saturating_sub(carrying().filter(|shard| shard.is_moving()).count());
    let mut commands = Vec::new();
    for shard in carrying().filter(|shard| !shard.is_moving()) {
        if commands.len() == room {
            break;
        }
        let Some(nodes) = placement::emptied(&after, shard) else { continue };
        let replicas = placement::moved(&after, shard, &nodes);
        commands.push(set_replicas(&mut after, shard, replicas));
    }
    for node in image.nodes.values().filter(|node| node.state == NodeState::Leaving) {
        commands.extend(farewell(&mut after, node.id));
    }
    commands
}

/// Sets the replicas, also for what is decided next.
fn set_replicas(after: &mut MetadataImage, shard: &ShardRecord, replicas: Vec<ReplicaRecord>) -> Command {
    let last = replicas.iter().map(|replica| replica.id.0.saturating_add(1)).max();
    after.next_replica_id = after.next_replica_id.max(last.unwrap_or(0));
    let before = shard.replicas.iter().map(|replica| replica.id).collect();
    let record = ShardRecord { replicas: replicas.clone(), ..shard.clone() };
    Arc::make_mut(&mut after.shards).insert(shard.id, Arc::new(record));
    Command::SetReplicas { shard: shard.id, before, replicas }
}

/// True for what ends a node's membership.
pub(super) fn is_farewell(command: &Command) -> bool {
    matches!(command, Command::RemoveNode { .. } | Command::SetReplicas { shard: ShardId::METADATA, .. })
}

/// A node that holds nothing else gives up its replica of the metadata, and then its record.
fn farewell(after: &mut MetadataImage, node: NodeId) -> Option<Command> {
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
