//! An operator that moves partitions between the data directories of a node.

use ottla_broker::metadata::DirectoryChange;
use ottla_env::sim;

use super::resizer::SHARDS_MAX;
use super::{pause, trace_answer};
use crate::registry::broker;
use crate::world::World;

/// Moves some partitions of a topic, or all of them, until the workload ends.
pub(crate) async fn directory_mover(world: World) {
    while world.workload_runs() {
        pause(2_000).await;
        let Some(image) = world.image() else { continue };
        let (node, topics) = (world.random_node(), image.topics.values().collect::<Vec<_>>());
        let at = sim::random_below(topics.len().max(1) as u64);
        let topic = usize::try_from(at).ok().and_then(|at| topics.get(at));
        let (Some(topic), Some(registered)) = (topic, image.nodes.get(&broker(node))) else { continue };
        let drawn = || {
            let at = sim::random_below(registered.directories.len().max(1) as u64);
            registered.directories.get(usize::try_from(at).unwrap_or(0)).map(|directory| directory.id)
        };
        // All that shares a shard goes one way, or parts of it are split off.
        let one = (image.shards.len() > SHARDS_MAX || sim::random_below(2) == 0).then(drawn);
        let mut changes = Vec::new();
        for index in (0..topic.partition_count()).filter(|_| one.is_some() || sim::random_below(3) == 0) {
            let Some(directory) = one.unwrap_or_else(drawn) else { break };
            changes.push(DirectoryChange { topic: topic.name.to_string(), index, directory });
        }
        let line = format!("{} partitions of topic {} move within node {}", changes.len(), topic.name, node.0);
        let answer = world.request(node, move |running| async move {
            running.metadata.change_directories(broker(node), &changes).await
        });
        trace_answer(&world, &line, answer.await);
    }
}
