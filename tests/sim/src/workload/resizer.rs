//! An operator that splits shards.

use ottla_broker::metadata::{MetadataImage, ShardId};
use ottla_env::sim;
use uuid::Uuid;

use super::pause;
use crate::world::World;

/// Most shards that carry partitions; every group costs the run time.
pub(super) const SHARDS_MAX: usize = 24;

/// Splits shards until the workload ends.
pub(crate) async fn resizer(world: World) {
    while world.workload_runs() {
        pause(1_200).await;
        let Some(image) = world.image() else { continue };
        let Some((shard, partitions)) = draw_split(&image) else { continue };
        let line = format!("shard {shard} is split: {} partitions move", partitions.len());
        let node = world.random_node();
        let answer = world
            .request(node, move |running| async move { running.metadata.split_shard(shard, partitions).await })
            .await;
        world.trace_fault(format!("{line}: {}", answer.map_or("no answer".to_owned(), |answer| format!("{answer:?}"))));
    }
}

/// A shard that carries partitions, and some of these, or all.
fn draw_split(image: &MetadataImage) -> Option<(ShardId, Vec<(Uuid, i32)>)> {
    if image.shards.len() > SHARDS_MAX {
        return None;
    }
    let carrying: Vec<_> = image.partitions_by_shard.iter().filter(|(_, count)| **count > 0).collect();
    let at = sim::random_below(carrying.len().max(1) as u64);
    let shard = *carrying.get(usize::try_from(at).ok()?)?.0;
    let mut partitions = Vec::new();
    for topic in image.topics.values() {
        partitions.extend(topic.routed_to(shard).map(|(index, _)| (topic.id, index)));
    }
    let of = 1 + sim::random_below(3);
    let some: Vec<_> = partitions.iter().filter(|_| sim::random_below(of) == 0).copied().collect();
    Some((shard, if some.is_empty() { partitions } else { some }))
}
