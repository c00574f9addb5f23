//! Faults of several steps, each of which waits for a state of the cluster.
//!
//! May not know: clients, laws.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ottla_broker::metadata::{Intent, IntentKey, IntentKind, NewTopic, ShardId, ShardKind, ShardRecord, TopicName};
use ottla_env::rt;
use ottla_env::sim::disk::Crash;
use ottla_env::sim::{self, SimNode};
use ottla_storage::ids::ReplicaId;
use ottla_storage::log::LogSummary;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::corruption::{self, Corruption, Damaged};
use crate::registry::{PARTITIONS, node_of};
use crate::sim_node::RunningNode;
use crate::targeting::{Target, cut_off, resolve};
use crate::workload::topics;
use crate::world::World;

/// How long to wait for a log that truncates.
const TRUNCATION_WAIT: Duration = Duration::from_secs(2);
/// Founders have met and elected a leader by then, mostly.
const FOUNDED_BY_MS: u64 = 1_500;
/// How long to wait until a topic is being created.
const TOPIC_STARTED_BY: Duration = Duration::from_secs(2);
/// How long to wait until the topic is deleted.
const TOPIC_DELETED_BY: Duration = Duration::from_secs(4);
/// How many leaders are killed, at the most, until the node with old metadata leads.
const LEADERS_KILLED_MAX: usize = 4;
/// So much is written by then that entries of the metadata are behind the purge horizon, mostly.
const PURGED_BY: Duration = Duration::from_secs(5);
/// How long to wait until a node that joins leads the metadata.
const LEADS_BY: Duration = Duration::from_secs(6);
/// A node has been told its replica of the metadata by then.
const LOCATED_AFTER: Duration = Duration::from_secs(1);
/// A node that gets no metadata has asked the seed nodes whether it was removed by then.
const ASKED_BY: Duration = Duration::from_secs(16);
/// How long to wait for a new leader after the old one was killed; mostly enough.
const ELECTION_WAIT: Duration = Duration::from_millis(800);
/// A merge takes about so long.
const MERGE_TAKES_MS: u64 = 200;
/// An isolated leader has been deposed by then, and does not know it.
const DEPOSED_AFTER: Duration = Duration::from_millis(2_500);

/// A founder is down from the time when the founders have met, often before it is registered, until the others hold a topic.
pub(crate) async fn found_late(world: World, node: SimNode) {
    world.set_founding(true);
    rt::sleep(Duration::from_millis(sim::random_below(FOUNDED_BY_MS))).await;
    world.crash(node, Crash::Process);
    let _ = rt::timeout(TOPIC_STARTED_BY, topics::create_first(&world, node)).await;
    world.start(node).await;
    world.set_founding(false);
}

/// A follower falls behind a leader, on whose disk the records that the follower lacks are corrupted meanwhile.
pub(crate) async fn lagging_follower(world: &World, damaged: &Mutex<Damaged>) {
    let leaders: Vec<_> = (0..PARTITIONS).filter_map(|index| world.leader(index)).collect();
    let corrupted = world.nodes().find(|node| world.is_corrupted(*node));
    let any = leaders.get(usize::try_from(sim::random_below(leaders.len().max(1) as u64)).unwrap_or(0)).copied();
    let Some(leader) = corrupted.or(any).filter(|node| leaders.contains(node)) else {
        return world.trace_fault(format!("{corrupted:?}, whose disk may be damaged, leads nothing"));
    };
    let others: Vec<_> = world.nodes().filter(|node| *node != leader).collect();
    let other = others[usize::try_from(sim::random_below(others.len() as u64)).unwrap_or(0)];
    world.cut(other, true, true);
    for _ in 0..6 {
        rt::sleep(Duration::from_millis(10 + sim::random_below(50))).await;
        let done = corruption::corrupt(world, leader, Corruption::Records, &mut damaged.lock());
        world.trace_fault(done.unwrap_or_else(|| format!("node {}: nothing to damage", leader.0)));
    }
    world.reconnect(other);
}

/// A shard is sealed and not absorbed yet, mostly, when its leader is isolated: another replica of it leads then.
pub(crate) async fn isolate_merging(world: &World, lasts: Duration) {
    let until = rt::now() + lasts;
    while rt::now() < until {
        let merging = world.image().and_then(|image| image.merges().next().map(|(record, _)| record.id));
        if let Some(shard) = merging {
            rt::sleep(Duration::from_millis(sim::random_below(MERGE_TAKES_MS))).await;
            let Some(leader) = world.leader_of(shard) else { continue };
            world.trace_fault(format!("node {} leads shard {shard}, which is being merged, and is isolated", leader.0));
            return cut_off(world, leader, true, true, DEPOSED_AFTER).await;
        }
        rt::sleep(Duration::from_millis(5)).await;
    }
}

/// An isolated leader goes on writing entries that no other node has. When it is reconnected it truncates them; it
/// crashes when the truncation is durable, and the entries that replace them are not.
pub(crate) async fn crash_during_truncation(world: &World, crash: Crash, lasts: Duration) {
    let node = resolve(world, Target::Leader);
    cut_off(world, node, true, true, DEPOSED_AFTER).await;
    let summaries = || -> BTreeMap<ReplicaId, LogSummary> {
        let Some(running) = world.running_node(node) else { return BTreeMap::new() };
        let summary = |id: ReplicaId| Some((id, running.replica_log(id)?.summary()));
        running.directories.iter().flat_map(|directory| directory.log().replicas()).filter_map(summary).collect()
    };
    let end = |log: &LogSummary| log.first_index + log.entries.len() as u64;
    let (mut known, mut truncating, until) = (summaries(), BTreeSet::new(), rt::now() + lasts.max(TRUNCATION_WAIT));
    while rt::now() < until {
        let now = summaries();
        for (id, log) in &now {
            if log.voiding.is_none() && truncating.remove(id) {
                world.crash(node, crash);
                rt::sleep(lasts / 4).await;
                return world.start(node).await;
            }
            if log.voiding.is_some()
                && known.get(id).is_some_and(|known| end(log) < end(known) && log.purged == known.purged)
            {
                truncating.insert(*id);
            }
        }
        let pause = if truncating.is_empty() { Duration::from_micros(200) } else { Duration::from_micros(20) };
        known = now;
        rt::sleep(pause).await;
    }
}

/// A node learns that a topic is being created, and is then cut off from the metadata. When the topic has been deleted,
/// the leaders of a shard of it are killed until the node leads the shard: with old metadata.
pub(crate) async fn stale_metadata(world: &World, node: SimNode) {
    let Some(replica) = world.running_node(node).map(|running| running.metadata.group().replica()) else { return };
    let name = format!("stale-{}", sim::random_below(1 << 40));
    let new = NewTopic {
        name: name.clone(),
        partitions: Some(PARTITIONS),
        factor: None,
        assignments: Vec::new(),
        configs: BTreeMap::new(),
    };
    let (creator, creating) = (world.controller().unwrap_or(node), world.clone());
    rt::spawn(async move {
        let create = move |running: Arc<RunningNode>| async move {
            running.metadata.create_topics(vec![new], false, TOPIC_STARTED_BY).await
        };
        creating.request(creator, create).await
    });
    let Some(key) = intent_to_adopt(world, node, &name).await else { return };
    world.network().isolate(replica);
    let until = rt::now() + TOPIC_DELETED_BY;
    while rt::now() < until && !is_deleted(world, key.topic) {
        let gone = TopicName::Id(key.topic);
        let delete = move |running: Arc<RunningNode>| async move {
            running.metadata.delete_topics(vec![gone], TOPIC_STARTED_BY).await
        };
        let _ = world.request(world.controller().unwrap_or(creator), delete).await;
        rt::sleep(Duration::from_millis(5)).await;
    }
    for _ in 0..LEADERS_KILLED_MAX {
        match world.leader_of(key.shard) {
            Some(leader) if leader == node => break,
            Some(leader) => {
                world.crash(leader, Crash::Process);
                rt::sleep(ELECTION_WAIT).await;
                world.start(leader).await;
            }
            None => rt::sleep(ELECTION_WAIT).await,
        }
    }
    rt::sleep(ELECTION_WAIT).await;
    world.network().rejoin(replica);
}

/// One follower of a shard lags behind, so that the leader and the other follower alone have what is acknowledged. That one
/// loses its disk and comes back while the leader cannot reach it: if it voted, the lagging follower would be elected.
pub(crate) async fn wipe_voter(world: &World) {
    let image = world.image().unwrap_or_default();
    let of_three = |shard: &&Arc<ShardRecord>| shard.kind != ShardKind::Metadata && shard.replicas.len() == 3;
    let shards: Vec<_> = image.shards.values().filter(of_three).collect();
    let Some(shard) = shards.get(usize::try_from(sim::random_below(shards.len().max(1) as u64)).unwrap_or(0)) else {
        return;
    };
    let Some(leading) = world.leader_of(shard.id) else { return };
    let Some(leader) = shard.replicas.iter().find(|replica| node_of(replica.node) == leading) else { return };
    let mut followers = shard.replicas.iter().filter(|replica| replica.id != leader.id);
    let (Some(lagging), Some(wiped)) = (followers.next(), followers.next()) else { return };
    world.network().isolate(lagging.id);
    rt::sleep(Duration::from_millis(200 + sim::random_below(600))).await;
    if world.leader_of(shard.id) == Some(leading) && world.is_whole() {
        let node = node_of(wiped.node);
        world.network().isolate(leader.id);
        world.crash(node, Crash::Power);
        world.wipe(node);
        world.start_in_background(node);
        rt::sleep(ELECTION_WAIT).await;
        world.network().rejoin(lagging.id);
        rt::sleep(DEPOSED_AFTER).await;
        world.network().rejoin(leader.id);
    }
    world.network().rejoin(lagging.id);
}

/// A node gets no metadata while two others join and one of them takes the leadership of its group over; that one has nothing but a
/// snapshot of what the first one lacks, and the first one does not know where it is.
pub(crate) async fn unknown_leader(world: &World, node: SimNode) {
    let metadata_of = |node| world.running_node(node).map(|running| running.metadata.group().replica());
    let Some(stale) = metadata_of(node).filter(|_| world.controller() != Some(node)) else { return };
    world.network().isolate(stale);
    // What it lacks is purged by then, so that the joining nodes get a snapshot and have no entries for it.
    rt::sleep(PURGED_BY).await;
    // Of four nodes only three vote.
    let joining = [world.add_node(), world.add_node()];
    for node in joining {
        world.start_in_background(node);
    }
    let until = rt::now() + LEADS_BY;
    while rt::now() < until && world.controller().is_none_or(|leader| !joining.contains(&leader)) {
        let target = joining[usize::try_from(sim::random_below(2)).unwrap_or(0)];
        if let (Some(target), Some(controller)) = (metadata_of(target), world.controller()) {
            let transfer = move |running: Arc<RunningNode>| async move {
                running.metadata.group().transfer_leadership(target).await
            };
            let _ = world.request(controller, transfer).await;
        }
        rt::sleep(Duration::from_millis(50)).await;
    }
    world.network().rejoin(stale);
}

/// A seed node has lost its disk and gets no metadata when another node, which gets none either, asks it whether that one
/// was removed.
pub(crate) async fn lost_seed_node(world: &World, asking_node: SimNode) {
    let replica_of = |node| {
        let image = world.image()?;
        let replica = image.shard(ShardId::METADATA)?.replicas.iter().find(|replica| node_of(replica.node) == node)?;
        Some(replica.id)
    };
    let Some(asking) = world.running_node(asking_node).map(|running| running.metadata.group().replica()) else {
        return;
    };
    let seed_nodes = world.nodes().filter(|node| *node != asking_node && world.controller() != Some(*node));
    let Some(seed_node) = seed_nodes.last() else { return };
    let (asked_by, lost) = (rt::now() + ASKED_BY, replica_of(seed_node));
    // Its connections are closed with it, so that nothing keeps its node id.
    world.crash(seed_node, Crash::Process);
    world.wipe(seed_node);
    world.start_in_background(seed_node);
    // The others may need the asking node's vote to let the seed node in again, and to tell it its replica.
    let blank = loop {
        match replica_of(seed_node).filter(|replica| Some(*replica) != lost) {
            Some(blank) => break blank,
            None if rt::now() >= asked_by => return,
            None => rt::sleep(Duration::from_micros(50)).await,
        }
    };
    world.network().isolate(blank);
    rt::sleep(LOCATED_AFTER).await;
    world.network().isolate(asking);
    rt::sleep(asked_by.since(rt::now())).await;
    world.network().rejoin(blank);
    world.network().rejoin(asking);
}

/// Waits for the intent by which a shard that the node carries is to adopt partitions of this topic.
async fn intent_to_adopt(world: &World, node: SimNode, name: &str) -> Option<IntentKey> {
    let until = rt::now() + TOPIC_STARTED_BY;
    while rt::now() < until {
        let running = world.running_node(node)?;
        let image = running.metadata.image();
        let topic = image.topic(name).map(|topic| topic.id);
        let adopts = |(key, intent): (&IntentKey, &Arc<Intent>)| {
            let carried = Some(key.topic) == topic
                && running.shards.get(key.shard).is_some()
                && world.leader_of(key.shard).is_some_and(|leader| leader != node);
            (carried && intent.kind == IntentKind::Adopt).then_some(*key)
        };
        if let Some(key) = image.intents.iter().find_map(adopts) {
            return Some(key);
        }
        rt::sleep(Duration::from_micros(200)).await;
    }
    None
}

/// True if the topic is deleted and its shards have dropped it.
fn is_deleted(world: &World, topic: Uuid) -> bool {
    let image = world.image().unwrap_or_default();
    image.topics_by_id.get(&topic).is_none() && image.intents.iter().all(|(open, _)| open.topic != topic)
}
