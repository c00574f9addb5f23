//! Counts the replicas that have synced a batch when it is acknowledged (`min.insync.replicas` above the majority).
//!
//! May not know: which index a batch got. It is above what its leader had applied before the batch was sent, so a replica
//! that has synced no more than that does not have it.

use ottla_broker::metadata::{ReplicaRecord, ShardId};
use ottla_env::sim::SimNode;
use ottla_storage::ids::RaftIndex;

use crate::laws::in_sync;
use crate::registry::node_of;
use crate::world::World;

/// The shard of a partition, and what the node that is asked has applied of it.
pub(crate) struct Before {
    shard: ShardId,
    applied: RaftIndex,
}

/// Where a batch is about to be sent; `None` if a majority is all that its topic asks for.
pub(crate) fn before(world: &World, node: SimNode, index: i32) -> Option<Before> {
    if world.min_in_sync() <= 1 {
        return None;
    }
    let running = world.running_node(node)?;
    let shard =
        running.shards.all().into_iter().find(|shard| shard.read_view().get(world.partition(index)).is_some())?;
    let applied = running.host.group(shard.replica)?.applied()?.index;
    Some(Before { shard: shard.creation.shard, applied })
}

/// Judges an acknowledgement. A shard whose replicas are being changed is left out, and one that has given the partition to
/// another shard meanwhile: the batch may be in that one's log.
pub(crate) fn judge(world: &World, index: i32, before: Option<Before>) {
    let Some(Before { shard, applied }) = before else { return };
    let Some(image) = world.image() else { return };
    let Some(record) = image.shard(shard).cloned() else { return };
    let id = world.partition(index);
    let route = image.topic_by_id(&id.topic).and_then(|topic| topic.route(id.index));
    if image.is_resizing(shard)
        || route.is_none_or(|route| route.shard != shard)
        || record.is_moving()
        || record.replicas.len() != world.min_in_sync()
    {
        return;
    }
    // `None`: it is down, and may have had it.
    let synced_by = |replica: &ReplicaRecord| {
        let log = world.running_node(node_of(replica.node))?.replica_log(replica.id)?;
        Some(log.last_synced().map_or(RaftIndex(0), |id| id.index))
    };
    let synced = record.replicas.iter().map(|replica| (replica.id, synced_by(replica))).collect();
    world.judge(in_sync::acknowledged(index, world.min_in_sync(), applied, synced));
}
