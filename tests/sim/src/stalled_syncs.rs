//! The disks of a leader's followers stall for seconds, and nothing else happens: judges whether the leader goes on serving.
//!
//! May not know: clients, other faults.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use ottla_broker::metadata::{ShardKind, ShardRecord};
use ottla_env::rt;
use ottla_env::sim::SimNode;

use crate::laws::leaders;
use crate::registry::node_of;
use crate::world::World;

/// How often the leader is looked at.
const PAUSE: Duration = Duration::from_millis(20);

/// A shard that is led by the replica that is to lead it: no other one is asked to meanwhile.
fn shard_at_rest(world: &World) -> Option<(SimNode, Arc<ShardRecord>)> {
    let image = world.image()?;
    let at_rest = |shard: &Arc<ShardRecord>| {
        let leading = world.leader_of(shard.id)?;
        let is_preferred = shard.replicas.first().is_some_and(|replica| node_of(replica.node) == leading);
        (shard.kind != ShardKind::Metadata && shard.replicas.len() == 3 && is_preferred && !shard.is_moving())
            .then(|| (leading, shard.clone()))
    };
    image.shards.values().find_map(at_rest)
}

/// Stalls the disks of all nodes but one that leads a shard.
pub(crate) async fn stall_followers(world: &World, lasts: Duration) {
    let Some((leading, shard)) = shard_at_rest(world) else {
        return world.trace_fault("no shard of three replicas is at rest".to_owned());
    };
    let group = world.running_node(leading).and_then(|running| {
        let replica = shard.replicas.iter().find(|replica| node_of(replica.node) == leading)?;
        running.host.group(replica.id)
    });
    let Some(role) = group.map(|group| group.role()) else { return };
    let before = *role.borrow();
    if !before.ready {
        return;
    }
    world.trace_fault(format!("node {} leads shard {}, whose followers' disks stall", leading.0, shard.id));
    let others: Vec<_> = world.nodes().filter(|node| *node != leading).collect();
    let stalled = rt::spawn({
        let world = world.clone();
        async move { join_all(others.into_iter().map(|node| world.hang_disk(node, lasts))).await }
    });
    let until = rt::now() + lasts;
    while rt::now() < until && world.broken().is_none() {
        let now = *role.borrow();
        if now.stopped {
            break;
        }
        world.judge(leaders::serves(shard.id.0, before.term, now.term, now.ready));
        rt::sleep(PAUSE).await;
    }
    let _ = stalled.await;
}
