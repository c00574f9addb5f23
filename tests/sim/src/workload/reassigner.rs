//! An operator that reassigns shards to other nodes, or drains a node.

use std::collections::BTreeSet;

use ottla_broker::metadata::{Nodes, ShardId};
use ottla_env::sim;

use super::pause;
use crate::registry::broker;
use crate::world::World;

/// Reassigns shards, one replica or more at a time, until the workload ends.
pub(crate) async fn reassigner(world: World) {
    while world.workload_runs() {
        pause(2_500).await;
        if sim::random_below(4) == 0 {
            drain(&world).await;
            continue;
        }
        let Some(image) = world.image() else { continue };
        let shards: Vec<_> = image.shards.values().filter(|shard| shard.id != ShardId::METADATA).collect();
        let Some(shard) = shards.get(usize::try_from(sim::random_below(shards.len() as u64)).unwrap_or(0)) else {
            continue;
        };
        let registered = image.nodes.len();
        let mut nodes = BTreeSet::new();
        while nodes.len() < shard.replicas.len().min(registered) {
            nodes.insert(broker(world.random_node()));
        }
        let (id, nodes) = (shard.id, nodes.into_iter().collect::<Vec<_>>());
        let line = format!("shard {id} is reassigned to {nodes:?}");
        let node = world.random_node();
        let answer =
            world.request(node, move |running| async move { running.metadata.change_replicas(id, nodes).await }).await;
        world.trace_fault(format!("{line}: {}", answer.map_or("no answer".to_owned(), |answer| format!("{answer:?}"))));
    }
}

/// Drains a node, or ends the drain of one.
async fn drain(world: &World) {
    let (drained, drains) = (broker(world.random_node()), sim::random_below(2) == 0);
    let line = format!("node {} is {}", drained.0, if drains { "drained" } else { "in use again" });
    let nodes = Nodes::One(drained);
    let answer = world
        .request(world.random_node(), move |running| async move { running.metadata.drain(nodes, drains).await })
        .await;
    world.trace_fault(format!("{line}: {}", answer.map_or("no answer".to_owned(), |answer| format!("{answer:?}"))));
}
