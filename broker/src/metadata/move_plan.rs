//! What a request that moves partitions comes to: each shard of which all is moved to the same place is moved, and of any other a part is
//! split off first, after which the request is planned anew.
//!
//! May not know: whether partitions move between nodes (`reassign`) or between directories of a node (`log_dirs`), and how a plan
//! is carried out (`move_executor`).

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::error::MetadataError;
use super::image::{MetadataImage, ShardId};

/// A partition: the name of its topic, and its number.
pub(super) type Named<'a> = (&'a str, i32);

/// A request's partitions of one shard by where they are to go.
pub(super) type Parts<'a, P> = BTreeMap<&'a P, BTreeSet<Named<'a>>>;

/// A partition of a request, and where it is to go.
pub(super) trait PartitionMove {
    /// Where it is to go, as it was requested.
    type Place: Ord;

    fn partition(&self) -> Named<'_>;

    fn place(&self) -> &Self::Place;
}

/// What is to be done for a request. `T`: where a shard's replicas are moved to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan<T> {
    /// For each requested partition, in order: the shard that carries it, or why it is not moved.
    pub(super) outcomes: Vec<Result<ShardId, MetadataError>>,
    pub(super) moves: BTreeMap<ShardId, T>,
    /// What each shard is to split off before the rest of it, and what is split off, can be moved.
    pub(super) splits: BTreeMap<ShardId, Vec<(Uuid, i32)>>,
}

fn shard_of(image: &MetadataImage, (topic, index): Named<'_>) -> Option<ShardId> {
    image.topic(topic)?.route(index).map(|route| route.shard)
}

/// The partitions of a request by the shards that carry them; a partition that there is not is left out.
pub(super) fn by_shard<'a, M: PartitionMove>(
    image: &MetadataImage,
    requested: &'a [M],
) -> BTreeMap<ShardId, Parts<'a, M::Place>> {
    let mut shards: BTreeMap<ShardId, Parts<'a, M::Place>> = BTreeMap::new();
    for one in requested {
        if let Some(shard) = shard_of(image, one.partition()) {
            shards.entry(shard).or_default().entry(one.place()).or_default().insert(one.partition());
        }
    }
    shards
}

/// For each requested partition, in order: the shard that carries it, or why it is not moved.
pub(super) fn outcomes<M: PartitionMove>(
    image: &MetadataImage,
    requested: &[M],
    refused: impl Fn(ShardId, &M::Place) -> Option<MetadataError>,
) -> Vec<Result<ShardId, MetadataError>> {
    let outcome = |one: &M| {
        let shard = shard_of(image, one.partition()).ok_or(MetadataError::UnknownTopic)?;
        refused(shard, one.place()).map_or(Ok(shard), Err)
    };
    requested.iter().map(outcome).collect()
}

/// The partitions that a shard carries.
pub(super) fn carried(image: &MetadataImage, shard: ShardId) -> BTreeSet<Named<'_>> {
    let topics =
        image.topics.values().flat_map(|topic| topic.routed_to(shard).map(|(index, _)| (topic.name.as_ref(), index)));
    topics.collect()
}

pub(super) fn with_ids(image: &MetadataImage, partitions: &BTreeSet<Named<'_>>) -> Vec<(Uuid, i32)> {
    partitions.iter().filter_map(|(topic, index)| Some((image.topic(topic)?.id, *index))).collect()
}
