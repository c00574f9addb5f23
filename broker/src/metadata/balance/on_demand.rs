//! The shards of on-demand topics: a pure function of the image and of what their partitions had to do lately.
//!
//! A shard has room for `ottla.shard.bytes.per.second`, and is to have room for twice its recent peak:
//!
//! ```text
//!  in a shard of other topics   twice the topic's part is more than a quarter of the room    its partitions are split off
//!  a shard of its own           twice its peak is more than the room                         it is halved by load
//!  two shards of its own        twice their peaks is less than half of the room              they are merged
//!  the last one                 twice its peak is less than a sixteenth of the room          it goes back into the pool
//! ```
//! What a peak was is halved every ten minutes, so that a topic grows within seconds and shrinks over minutes. Halved by load: the
//! busiest partition stays, and the others are spread so that both halves have as much to do; so a hot one ends up alone. May not
//! know: clocks, how a shard is split or merged.

use std::cmp::Reverse;

use ottla_protocol::ids::PartitionId;
use uuid::Uuid;

use super::action::{Action, Change, rate};
use super::load::ClusterLoad;
use crate::metadata::image::{MetadataImage, ShardId, ShardRecord, Topic};
use crate::metadata::merge_record::MergeRecord;
use crate::metadata::{splits, topic_shards};

/// On a node with more replicas nothing is split any more.
const REPLICAS_PER_NODE_MAX: usize = 128;

/// The next step of each on-demand topic that has one.
pub(super) fn steps(image: &MetadataImage, load: &ClusterLoad) -> Vec<Action> {
    if image.level < MergeRecord::LEVEL {
        return Vec::new();
    }
    let topics = image.topics.values().filter(|topic| topic.config.on_demand && !topic.internal);
    topics.filter_map(|topic| step(image, load, topic)).collect()
}

/// True if the shards of every on-demand topic are at rest.
pub(super) fn are_at_rest(image: &MetadataImage) -> bool {
    let mut topics = image.topics.values().filter(|topic| topic.config.on_demand);
    topics.all(|topic| topic_shards::shards_of(image, topic).is_some())
}

fn step(image: &MetadataImage, load: &ClusterLoad, topic: &Topic) -> Option<Action> {
    let shards = topic_shards::shards_of(image, topic)?;
    let room = topic.config.shard_bytes_per_second;
    let peak = |index: &i32| load.peak(PartitionId { topic: topic.id, index: *index });
    let twice = |indexes: &[i32]| 2 * indexes.iter().map(peak).sum::<u64>();
    let name = &topic.name;

    let busiest = shards.shared.iter().max_by_key(|(shard, indexes)| (twice(indexes), Reverse(shard.0)));
    if let Some((shard, indexes)) = busiest.filter(|(_, indexes)| twice(indexes) > room / 4) {
        let reason = format!(
            "topic {name} gets a shard of its own: twice its peak in shard {shard}, {}, is more than a quarter of {}",
            rate(twice(indexes)),
            rate(room)
        );
        return split(image, *shard, topic.id, indexes.clone(), reason);
    }
    let mut own = shards.own;
    own.sort_by_key(|(record, indexes)| (twice(indexes), record.id));
    let hot = own.iter().rev().filter(|(_, indexes)| indexes.len() > 1 && twice(indexes) > room);
    if let Some(action) = hot.into_iter().find_map(|(record, indexes)| {
        let reason = format!(
            "shard {} of topic {name} is halved: twice its peak, {}, is more than {}",
            record.id,
            rate(twice(indexes)),
            rate(room)
        );
        split(image, record.id, topic.id, lighter_half(indexes, peak), reason)
    }) {
        return Some(action);
    }
    fold(image, topic, &own, &twice, room)
}

/// Merges the two that have the least to do, or puts the last one back.
fn fold(
    image: &MetadataImage,
    topic: &Topic,
    own: &[(&ShardRecord, Vec<i32>)],
    twice: &impl Fn(&[i32]) -> u64,
    room: u64,
) -> Option<Action> {
    let (first, indexes) = own.first()?;
    let (why, into): (String, Vec<ShardId>) = match own.get(1) {
        Some((_, others)) if twice(indexes) + twice(others) < room / 2 => {
            let both = rate(twice(indexes) + twice(others));
            let into = own[1..].iter().filter(|(_, others)| twice(indexes) + twice(others) < room / 2);
            let why = format!(
                "merged into another one of its own: twice their peaks, {both}, is less than half of {}",
                rate(room)
            );
            (why, into.map(|(record, _)| record.id).collect())
        }
        None if twice(indexes) < room / 16 => {
            let why = format!(
                "put back into the pool: twice its peak, {}, is less than a sixteenth of {}",
                rate(twice(indexes)),
                rate(room)
            );
            (why, topic_shards::pool_of(image, first).into_iter().map(|record| record.id).collect())
        }
        _ => return None,
    };
    topic_shards::merged(image, first.id, &into)?;
    let reason = format!("shard {} of topic {} is {why}", first.id, topic.name);
    Some(Action { change: Change::Merge { shard: first.id, into }, reason })
}

fn split(image: &MetadataImage, shard: ShardId, topic: Uuid, mut indexes: Vec<i32>, reason: String) -> Option<Action> {
    let replicas = &image.shard(shard)?.replicas;
    let held = |node| image.shards.values().filter(|shard| shard.members().any(|replica| replica.node == node)).count();
    if replicas.iter().any(|replica| held(replica.node) >= REPLICAS_PER_NODE_MAX) {
        return None;
    }
    indexes.truncate(splits::PARTITIONS_MAX);
    let partitions: Vec<_> = indexes.into_iter().map(|index| (topic, index)).collect();
    splits::split(image, shard, &partitions).ok()?;
    Some(Action { change: Change::Split { shard, partitions }, reason })
}

/// The partitions that leave, so that what stays, the busiest one among it, has about as much to do.
fn lighter_half(indexes: &[i32], peak: impl Fn(&i32) -> u64) -> Vec<i32> {
    let mut by_load = indexes.to_vec();
    by_load.sort_by_key(|index| (Reverse(peak(index)), *index));
    let (mut stays, mut leaves, mut leaving) = ((0_u64, 0_usize), (0_u64, 0_usize), Vec::new());
    for index in by_load {
        let (half, is_leaving) = if stays <= leaves { (&mut stays, false) } else { (&mut leaves, true) };
        *half = (half.0 + peak(&index), half.1 + 1);
        if is_leaving {
            leaving.push(index);
        }
    }
    leaving
}
