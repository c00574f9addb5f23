//! An operator that splits and merges shards, and gives a topic shards of its own.

use ottla_broker::metadata::{ConfigChange, ConfigOp, ConfigOwner, MergeStep, MetadataImage, ShardId};
use ottla_env::sim;
use uuid::Uuid;

use super::{pause, trace_answer};
use crate::registry::{PARTITIONS, TOPIC};
use crate::world::World;

/// How many shards the topic is to have for itself; -1: as many as there are.
const COUNT: &str = "ottla.shard.count";
/// What a shard of an on-demand topic has room for.
const ROOM: &str = "ottla.shard.bytes.per.second";
/// Most shards that carry partitions; every group costs the run time.
pub(super) const SHARDS_MAX: usize = 24;

/// What the operator does besides splitting shards.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resizes {
    /// Merges them.
    pub(crate) merges: bool,
    /// Sets how many a topic has for itself.
    pub(crate) counts: bool,
    /// Lets the shards of a topic follow its load, and ends that.
    pub(crate) on_demand: bool,
}

/// Splits shards, and the rest, until the workload ends.
pub(crate) async fn resizer(world: World, resizes: Resizes) {
    while world.workload_runs() {
        pause(1_200).await;
        let Some(image) = world.image() else { continue };
        if resizes.on_demand && sim::random_below(4) == 0 {
            let mode = if sim::random_below(8) == 0 { "provisioned" } else { "on-demand" };
            // From much less than a partition has to do to more than all of them have.
            let room = 2_000 << sim::random_below(9);
            configure(&world, &[("ottla.shard.mode", mode.to_owned()), (ROOM, room.to_string())]).await;
            continue;
        }
        if resizes.counts && sim::random_below(3) == 0 {
            let count = i64::try_from(sim::random_below(PARTITIONS.unsigned_abs().into())).unwrap_or(0);
            configure(&world, &[(COUNT, count.to_string())]).await;
            continue;
        }
        if resizes.merges && sim::random_below(2) == 0 {
            merge(&world, &image).await;
            continue;
        }
        let Some((shard, partitions)) = draw_split(&image) else { continue };
        let line = format!("shard {shard} is split: {} partitions move", partitions.len());
        let node = world.random_node();
        let answer = world
            .request(node, move |running| async move { running.metadata.split_shard(shard, partitions).await })
            .await;
        trace_answer(&world, &line, answer);
    }
    // What is under way ends, and no further step begins: else there would be no moment to look at.
    let provisioned = [(COUNT, "-1".to_owned()), ("ottla.shard.mode", "provisioned".to_owned())];
    while resizes.counts && world.image().is_some() && !configure(&world, &provisioned).await {
        pause(200).await;
    }
}

/// Sets configs of the topic; true if they are set.
async fn configure(world: &World, settings: &[(&str, String)]) -> bool {
    let ops = settings.iter().map(|(name, value)| ((*name).to_owned(), ConfigOp::Set(value.clone()))).collect();
    let change = ConfigChange { owner: ConfigOwner::Topic(TOPIC.to_owned()), ops, replace: false };
    let node = world.random_node();
    let answer = world
        .request(node, move |running| async move { running.metadata.alter_configs(vec![change], false).await })
        .await;
    let is_set = answer.as_ref().is_some_and(|answers| answers.iter().all(Result::is_ok));
    trace_answer(world, &format!("{settings:?}"), answer);
    is_set
}

/// Merges two shards, or takes the merge of one back, however far it is.
async fn merge(world: &World, image: &MetadataImage) {
    let merging = image.merges().next().map(|(record, merge)| (record.id, merge.intent));
    let step = match merging.filter(|_| sim::random_below(4) == 0) {
        Some((absorbed, intent)) => MergeStep::Cancel { absorbed, intent },
        None => match draw_merge(image) {
            Some((survivor, absorbed)) => MergeStep::Begin { survivor, absorbed },
            None => return,
        },
    };
    let node = world.random_node();
    let answer = world.request(node, move |running| async move { running.metadata.merge(step).await }).await;
    trace_answer(world, &format!("{step:?}"), answer);
}

/// Two shards whose replicas lie side by side; once in a while any two.
fn draw_merge(image: &MetadataImage) -> Option<(ShardId, ShardId)> {
    let places = |shard: ShardId| {
        let record = image.shard(shard)?;
        let mut places: Vec<_> = record.replicas.iter().map(|replica| (replica.node, replica.directory)).collect();
        places.sort_unstable();
        Some(places)
    };
    let shards: Vec<_> = image.shards.keys().copied().filter(|shard| *shard != ShardId::METADATA).collect();
    let any = sim::random_below(8) == 0;
    let pairs = shards.iter().flat_map(|into| shards.iter().map(move |from| (*into, *from)));
    let fits = |(into, from): &(ShardId, ShardId)| {
        let may_end = image.shard(*from).is_some_and(|record| record.split.is_some());
        into != from && (any || may_end && places(*into) == places(*from))
    };
    let pairs: Vec<_> = pairs.filter(fits).collect();
    let at = sim::random_below(pairs.len().max(1) as u64);
    pairs.get(usize::try_from(at).ok()?).copied()
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
