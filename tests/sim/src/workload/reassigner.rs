//! An operator that reassigns shards and partitions to other nodes, or drains a node.

use std::collections::BTreeSet;
use std::time::Duration;

use ottla_broker::metadata::{MetadataImage, Nodes, Reassignment, ShardId};
use ottla_env::sim;

use super::resizer::SHARDS_MAX;
use super::{pause, trace_answer};
use crate::registry::broker;
use crate::world::World;

/// Reassigns shards, and single partitions too if `moves_parts`, one replica or more at a time, until the workload ends.
pub(crate) async fn reassigner(world: World, moves_parts: bool) {
    while world.workload_runs() {
        pause(2_500).await;
        if sim::random_below(4) == 0 {
            drain(&world).await;
            continue;
        }
        let Some(image) = world.image() else { continue };
        if moves_parts && image.shards.len() <= SHARDS_MAX && sim::random_below(2) == 0 {
            reassign_partitions(&world, &image).await;
            continue;
        }
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
            world.request(node, move |running| async move { running.metadata.move_shard(id, Some(nodes)).await }).await;
        trace_answer(&world, &line, answer);
    }
}

/// Sends a few partitions of a topic elsewhere, whatever shares their shards.
async fn reassign_partitions(world: &World, image: &MetadataImage) {
    let topics: Vec<_> = image.topics.values().filter(|topic| !topic.internal).collect();
    let at = sim::random_below(topics.len().max(1) as u64);
    let Some(topic) = usize::try_from(at).ok().and_then(|at| topics.get(at)) else { return };
    let mut requested = Vec::new();
    for index in (0..topic.partition_count()).filter(|_| sim::random_below(3) == 0) {
        let shard = topic.route(index).and_then(|route| image.shard(route.shard));
        let Some(replicas) = shard.map(|shard| shard.replicas.len()) else { continue };
        let mut nodes = Vec::new();
        while nodes.len() < replicas.min(image.nodes.len()) {
            let node = broker(world.random_node());
            if !nodes.contains(&node) {
                nodes.push(node);
            }
        }
        requested.push(Reassignment { topic: topic.name.to_string(), index, nodes: Some(nodes) });
    }
    let line = format!("{} partitions of topic {} are reassigned", requested.len(), topic.name);
    let timeout = Duration::from_secs(10);
    let answer = world
        .request(world.random_node(), move |running| async move {
            running.metadata.reassign(requested, true, timeout).await
        })
        .await;
    trace_answer(world, &line, answer);
}

/// Drains a node, or ends the drain of one.
async fn drain(world: &World) {
    let (drained, drains) = (broker(world.random_node()), sim::random_below(2) == 0);
    let line = format!("node {} is {}", drained.0, if drains { "drained" } else { "in use again" });
    let nodes = Nodes::One(drained);
    let answer = world
        .request(world.random_node(), move |running| async move { running.metadata.drain(nodes, drains).await })
        .await;
    trace_answer(world, &line, answer);
}
