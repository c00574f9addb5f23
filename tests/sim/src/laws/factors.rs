//! A topic has the replicas that it was created with.

use ottla_broker::metadata::{MetadataImage, Topic};

use super::Violation;

/// Judges every shard of a topic that was created with this replication factor.
pub(crate) fn kept(image: &MetadataImage, topic: &Topic, factor: i16) -> Result<(), Violation> {
    for (index, route) in topic.partitions.iter().enumerate() {
        let replicas = image.shard(route.shard).map_or(0, |shard| shard.replicas.len());
        if replicas != usize::try_from(factor).unwrap_or(0) {
            let what = format!("shard {} has {replicas} replicas, the topic was created with {factor}", route.shard);
            let index = i32::try_from(index).unwrap_or(i32::MAX);
            return Err(Violation::new("a topic has the replicas that it was created with", index, what));
        }
    }
    Ok(())
}
