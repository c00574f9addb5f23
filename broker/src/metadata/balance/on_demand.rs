//! The shards of on-demand topics: a pure function of the image and of what their partitions had to do lately.
//!
//! A shard has room for `ottla.shard.bytes.per.second`, and is to have room for twice its recent peak:
//!
//! ```text
//!  in a shard of other topics   twice the topic's part is more than a quarter of the room    its partitions are split off
//!  a shard of its own           twice its peak is more than the room                         it is halved by load
//!  two shards of its own        twice their peaks is less than a third of the room           they are merged, if they lie side by side
//!  the same                     twice their peaks is less than a quarter of the room         one is moved beside the other
//!  the last one                 twice its peak is less than a sixteenth of the room          it goes back into the pool
//! ```
//! What a peak was is halved every ten minutes, so that a topic grows within seconds and shrinks over minutes. Halved by load: the
//! busiest partition stays, and the others are spread so that both halves have as much to do; so a hot one ends up alone. May not
//! know: clocks, how a shard is split or merged.

use std::cmp::Reverse;

use ottla_protocol::ids::PartitionId;
use uuid::Uuid;

use super::load::{ClusterLoad, rate};
use crate::metadata::action::{Action, Change};
use crate::metadata::image::{MetadataImage, ShardId, ShardRecord, Topic};
use crate::metadata::merge_record::MergeRecord;
use crate::metadata::{merges, splits, topic_shards};

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

/// The shards of a topic that grows which may have to be split next: its own, and those in which it has half of what gives it one.
pub(super) fn splits_soon(image: &MetadataImage, load: &ClusterLoad, topic: &Topic) -> Vec<ShardId> {
    let shards = topic_shards::shards_at_rest(image, topic);
    let large = topic.config.shard_bytes_per_second / 8;
    let is_large = |indexes: &[i32]| twice_peak(load, topic, indexes) > large;
    let shared = shards.shared.into_iter().filter(|(_, indexes)| is_large(indexes)).map(|(shard, _)| shard);
    shards.own.iter().map(|(record, _)| record.id).chain(shared).collect()
}

/// What a partition had to do at the most lately.
fn peak(load: &ClusterLoad, topic: &Topic, index: i32) -> u64 {
    load.peak(PartitionId { topic: topic.id, index })
}

/// What these partitions are to have room for.
fn twice_peak(load: &ClusterLoad, topic: &Topic, indexes: &[i32]) -> u64 {
    2 * indexes.iter().map(|index| peak(load, topic, *index)).sum::<u64>()
}

fn step(image: &MetadataImage, load: &ClusterLoad, topic: &Topic) -> Option<Action> {
    let shards = topic_shards::shards_at_rest(image, topic);
    let room = topic.config.shard_bytes_per_second;
    let twice = |indexes: &[i32]| twice_peak(load, topic, indexes);
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
        split(image, record.id, topic.id, lighter_half(indexes, |index| peak(load, topic, *index)), reason)
    }) {
        return Some(action);
    }
    if shards.is_changing { None } else { fold(image, topic, &own, &twice, room) }
}

/// Merges two that have little to do, or puts the last one back. Those that lie side by side are merged for nothing. Another two
/// have to be moved first, and for that to have less to do: else they would not fit any more when they are there.
fn fold(
    image: &MetadataImage,
    topic: &Topic,
    own: &[(&ShardRecord, Vec<i32>)],
    twice: &impl Fn(&[i32]) -> u64,
    room: u64,
) -> Option<Action> {
    let own: Vec<(&ShardRecord, u64)> = own.iter().map(|(record, indexes)| (*record, twice(indexes))).collect();
    let (first, least) = *own.first()?;
    let (absorbed, why, into) = if own.len() > 1 {
        let (absorbed, into, both) = beside(image, &own, room / 3).or_else(|| {
            let into: Vec<_> = own[1..].iter().filter(|(_, other)| least + other < room / 4).collect();
            let both = least + into.first()?.1;
            Some((first, into.iter().map(|(record, _)| record.id).collect(), both))
        })?;
        let (both, room) = (rate(both), rate(room));
        (
            absorbed,
            format!("merged into another one of its own: twice their peaks, {both}, is less than a third of {room}"),
            into,
        )
    } else if least < room / 16 {
        let why = format!(
            "put back into the pool: twice its peak, {}, is less than a sixteenth of {}",
            rate(least),
            rate(room)
        );
        (first, why, topic_shards::pool_of(image, first).into_iter().map(|record| record.id).collect())
    } else {
        return None;
    };
    topic_shards::merged(image, absorbed.id, &into)?;
    let reason = format!("shard {} of topic {} is {why}", absorbed.id, topic.name);
    Some(Action { change: Change::Merge { shard: absorbed.id, into }, reason })
}

/// Of the pairs that lie side by side, on nodes that are up, the one that has the least to do, if that is below `most`.
fn beside<'a>(
    image: &MetadataImage,
    own: &[(&'a ShardRecord, u64)],
    most: u64,
) -> Option<(&'a ShardRecord, Vec<ShardId>, u64)> {
    let mut best = None;
    for (at, (absorbed, less)) in own.iter().enumerate() {
        for (survivor, more) in &own[at + 1..] {
            let both = less + more;
            if both >= best.as_ref().map_or(most, |(_, _, least)| *least) {
                break;
            }
            let lie_beside = || merges::pairs(survivor, absorbed).is_some();
            if lie_beside() && topic_shards::merged(image, absorbed.id, &[survivor.id]).is_some() {
                best = Some((*absorbed, vec![survivor.id], both));
            }
        }
    }
    best
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
