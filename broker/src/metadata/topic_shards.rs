//! Gives topics as many shards of their own as `ottla.shard.count` asks for (design section 8): splits, merges, and moves of
//! shards that are to be merged. A pure function of the image, one step at a time.
//!
//! ```text
//!  partitions share a shard with other topics    they are split off
//!  too few shards                                the one with the most partitions is halved
//!  too many                                      the two with the fewest are merged, on the nodes of one of them
//!  0                                             each is merged into a shard of the pool
//! ```
//! Shards that lie in different directories of one node stay apart, so that a topic may have more shards than it asks for.
//! A topic rests while one of its shards is being split, merged or moved, and merges wait while one of their nodes is fenced: they
//! would be cancelled. May not know: load, how a shard is split or merged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ottla_storage::ids::ReplicaId;
use uuid::Uuid;

use super::command::Command;
use super::image::{MetadataImage, ReplicaRecord, ShardId, ShardKind, ShardRecord, Topic};
use super::merge_record::{MergeRecord, MergeStep};
use super::{merges, splits};
use crate::config::topic_table::{POOL, SHARD_MODE};
use crate::levels::DIRECTORY_MOVES;

/// The most splits and merges that are open at the same time.
const RESIZES_MAX: usize = 2;

/// The setting.
pub(super) const SHARD_COUNT: &str = "ottla.shard.count";

/// How many shards of its own a topic is to have; `None`: its shards stay as they are.
fn wanted(topic: &Topic) -> Option<usize> {
    if topic.config.on_demand {
        return None;
    }
    if topic.overrides.get(SHARD_MODE).is_some_and(|mode| mode == POOL) {
        return Some(0);
    }
    usize::try_from(topic.overrides.get(SHARD_COUNT)?.parse::<i64>().ok()?).ok()
}

/// The shards that carry nothing but partitions of topics that ask for a number of shards, or whose shards follow their load.
pub(super) fn managed(image: &MetadataImage) -> BTreeSet<ShardId> {
    let mut carried: BTreeMap<ShardId, u64> = BTreeMap::new();
    for topic in image.topics.values().filter(|topic| wanted(topic).is_some() || topic.config.on_demand) {
        for route in topic.partitions.iter() {
            *carried.entry(route.shard).or_default() += 1;
        }
    }
    carried.retain(|shard, count| image.partitions_by_shard.get(shard) == Some(count));
    carried.into_keys().collect()
}

/// True if every topic that asks for a number of shards has them, as far as they can be made, and none of these is changing.
pub(super) fn are_settled(image: &MetadataImage) -> bool {
    let asking = image.topics.values().filter_map(|topic| Some((topic, wanted(topic)?)));
    let is_settled = |topic, count| shards_of(image, topic).is_some() && step(image, topic, count).is_none();
    asking.into_iter().all(|(topic, count)| topic.internal || is_settled(topic, count))
}

/// How many more shards may be split or merged now.
pub(super) fn room(image: &MetadataImage) -> usize {
    RESIZES_MAX.saturating_sub(image.open_splits().count() + image.open_merges().count())
}

/// The next step, if one is due; `may_move`: also one that moves a shard.
pub(super) fn due(image: &MetadataImage, may_move: bool) -> Option<Command> {
    if image.level < MergeRecord::LEVEL {
        return None;
    }
    if room(image) == 0 {
        return None;
    }
    let topics = image.topics.values().filter(|topic| !topic.internal);
    topics
        .filter_map(|topic| Some((topic, wanted(topic)?)))
        .filter_map(|(topic, count)| step(image, topic, count))
        .find(|command| {
            let is_move = matches!(command, Command::SetReplicas { .. });
            may_move || !is_move
        })
}

/// The shards of a topic.
pub(super) struct Shards<'a> {
    /// Those that carry nothing else.
    pub(super) own: Vec<(&'a ShardRecord, Vec<i32>)>,
    /// The others, with the topic's partitions in them.
    pub(super) shared: Vec<(ShardId, Vec<i32>)>,
    /// Another one is being split, merged or moved.
    pub(super) is_changing: bool,
}

fn step(image: &MetadataImage, topic: &Topic, count: usize) -> Option<Command> {
    let Shards { mut own, shared, .. } = shards_of(image, topic)?;
    // The ones with the fewest partitions first.
    own.sort_by_key(|(record, indexes)| (indexes.len(), record.id));
    if count == 0 {
        let (record, _) = own.first()?;
        return merge(image, record, pool_of(image, record));
    }
    let split = |shard: ShardId, indexes: Vec<i32>| {
        let partitions: Vec<(Uuid, i32)> = indexes.into_iter().map(|index| (topic.id, index)).collect();
        splits::split(image, shard, &partitions).ok()
    };
    if let Some((shard, indexes)) = shared.into_iter().max_by_key(|(shard, indexes)| (indexes.len(), shard.0)) {
        return split(shard, indexes.into_iter().take(splits::PARTITIONS_MAX).collect());
    }
    let count = count.min(topic.partitions.len());
    if own.len() < count {
        let (record, indexes) = own.last()?;
        return split(record.id, indexes.iter().copied().skip(1).step_by(2).take(splits::PARTITIONS_MAX).collect());
    }
    if own.len() > count {
        let (record, _) = own.first()?;
        return merge(image, record, own.iter().skip(1).map(|(other, _)| *other).collect());
    }
    None
}

/// `None` while one of them is changing.
pub(super) fn shards_of<'a>(image: &'a MetadataImage, topic: &Topic) -> Option<Shards<'a>> {
    Some(shards_at_rest(image, topic)).filter(|shards| !shards.is_changing)
}

/// The shards of a topic that are not changing.
pub(super) fn shards_at_rest<'a>(image: &'a MetadataImage, topic: &Topic) -> Shards<'a> {
    let mut carried: BTreeMap<ShardId, Vec<i32>> = BTreeMap::new();
    for (index, route) in (0..).zip(topic.partitions.iter()) {
        carried.entry(route.shard).or_default().push(index);
    }
    let mut shards = Shards { own: Vec::new(), shared: Vec::new(), is_changing: false };
    for (id, indexes) in carried {
        let at_rest = |record: &&Arc<ShardRecord>| {
            !image.is_resizing(id) && !record.is_moving() && image.first_intent_of(id).is_none()
        };
        let Some(record) = image.shard(id).filter(at_rest) else {
            shards.is_changing = true;
            continue;
        };
        let all = image.partitions_by_shard.get(&id).copied().unwrap_or(0);
        let is_own = matches!(record.kind, ShardKind::Pool { pinned: true, .. }) && all == indexes.len() as u64;
        match is_own {
            true => shards.own.push((record, indexes)),
            false => shards.shared.push((id, indexes)),
        }
    }
    shards
}

/// The shards of the pool of as many replicas, those with the fewest partitions first.
pub(super) fn pool_of<'a>(image: &'a MetadataImage, record: &ShardRecord) -> Vec<&'a ShardRecord> {
    let ShardKind::Pool { factor, .. } = record.kind else { return Vec::new() };
    let kind = ShardKind::Pool { factor, pinned: false };
    let mut pool: Vec<&ShardRecord> =
        image.shards.values().map(AsRef::as_ref).filter(|other| other.kind == kind).collect();
    pool.sort_by_key(|other| (image.partitions_by_shard.get(&other.id).copied().unwrap_or(0), other.id));
    pool
}

/// The command that merges a shard into one of these, or moves it beside the first.
pub(super) fn merged(image: &MetadataImage, absorbed: ShardId, into: &[ShardId]) -> Option<Command> {
    let record = image.shard(absorbed).filter(|record| !record.is_moving() && !image.is_resizing(absorbed))?;
    let others = into.iter().filter_map(|shard| image.shard(*shard)).map(AsRef::as_ref).collect();
    merge(image, record, others)
}

/// Merges a shard into the first of the others that lies beside it; if none does, moves it to the nodes of the first one.
fn merge(image: &MetadataImage, absorbed: &ShardRecord, others: Vec<&ShardRecord>) -> Option<Command> {
    let is_up = |record: &ShardRecord| record.replicas.iter().all(|replica| !image.is_fenced(replica.node));
    let at_rest = |other: &&ShardRecord| !image.is_resizing(other.id) && !other.is_moving() && is_up(other);
    let others: Vec<_> = others.into_iter().filter(at_rest).filter(|_| is_up(absorbed)).collect();
    if let Some(beside) = others.iter().find(|other| merges::pairs(other, absorbed).is_some()) {
        return merges::decide(image, &MergeStep::Begin { survivor: beside.id, absorbed: absorbed.id }).ok()?;
    }
    // Below this level a replica stays in its directory: a second one of a shard counts as the successor of one that was lost.
    let moves_within = image.level >= DIRECTORY_MOVES;
    let is_free = |replica: &ReplicaRecord| {
        let own = absorbed.replicas.iter().find(|own| own.node == replica.node);
        image.takes_replicas(replica.node) && own.is_none_or(|own| moves_within || own.directory == replica.directory)
    };
    let first = others.iter().find(|other| other.replicas.iter().all(is_free))?;
    let mut ids = (image.next_replica_id..).map(ReplicaId);
    let place = |replica: &ReplicaRecord| {
        let here = |own: &&ReplicaRecord| (own.node, own.directory) == (replica.node, replica.directory);
        let own = absorbed.replicas.iter().find(here).copied();
        own.or_else(|| Some(ReplicaRecord { id: ids.next()?, ..*replica }))
    };
    let replicas: Option<Vec<_>> = first.replicas.iter().map(place).collect();
    let before = absorbed.replicas.iter().map(|replica| replica.id).collect();
    Some(Command::SetReplicas { shard: absorbed.id, before, replicas: replicas? })
}
