//! One run: a seed's cluster, its workload, its nemesis, and the laws checked during the run and after it.
//!
//! May not know: the command line.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use ottla_broker::metadata::{MetadataImage, ShardId, ShardRecord, Topic};
use ottla_broker::shard::Shard;
use ottla_broker::shard::read_view::LogOffsetSnapshot;
use ottla_env::rt;
use ottla_env::sim::{self, NodeClock};
use ottla_protocol::ids::{Offset, PartitionId};
use ottla_storage::ids::ReplicaId;
use ottla_storage::read::{ReadRequest, Wanted};
use parking_lot::Mutex;

use crate::history;
use crate::laws::i4_monotone::{Shown, Watch};
use crate::laws::i6_equal::Sums;
use crate::laws::{
    Violation, apply, directories, factors, i1_durable, i2_dense, i5_once, i7_owned, levels, memory, progress, reads,
};
use crate::liveness_check;
use crate::nemesis::{self, Event};
use crate::panics;
use crate::profile::{
    COMPACTION_FROM, MERGES_FROM, ON_DEMAND_FROM, PARTS_FROM, Profile, SHARD_COUNTS_FROM, SPLITS_FROM, Tuning,
    UNKNOWN_LEVEL_FROM, damages_heads, has_late_founder, has_late_markers, has_transactions, interrupts_merges,
    leads_behind_markers, loses_leavers, loses_seed_node, loses_voters, mixes_releases, moves_directories,
    outlives_leadership, stalls_followers, unregisters_early,
};
use crate::registry::{PARTITIONS, TOPIC, broker, node_of};
use crate::releases;
use crate::scenarios;
use crate::sim_node::RunningNode;
use crate::workload::{
    BURST_FROM, PLAIN_FROM, burst, committer, compacted, consumer, deleter, directory_mover, extra_clients, pipeline,
    prober, producer, reassigner, resizer, topics, transfers, trimmer,
};
use crate::world::World;

/// How long a cluster without faults may take until every replica has caught up.
const SETTLE_MAX: Duration = Duration::from_secs(60);
/// How long a cluster without faults may take until records damaged on one disk are repaired from the other replicas.
const REPAIR_MAX: Duration = Duration::from_secs(60);
/// Prefix of the message of a failed read.
const UNREADABLE: &str = "it cannot be read:";
/// Prefix of the message if a read returned nothing, and no error.
const NOTHING: &str = "there is nothing at";
/// The replica no longer carries the partition.
const LEFT: &str = "it has left";
/// How often the laws are checked on all replicas.
const CHECK_INTERVAL: Duration = Duration::from_millis(25);

/// The input of a run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) nodes: u32,
    /// How long the nemesis injects faults, in simulated time.
    pub(crate) fault_time: Duration,
    /// Only these faults of the seed's schedule, by number.
    pub(crate) only: Option<Vec<usize>>,
    /// A seeded bug by its name.
    pub(crate) mutant: Option<String>,
}

/// The outcome of a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    pub(crate) trace_hash: u64,
    pub(crate) elapsed: Duration,
    pub(crate) acknowledged: usize,
    pub(crate) reads: u64,
    pub(crate) faults: usize,
    /// The law that was broken, and the trace.
    pub(crate) broken: Option<(Violation, String)>,
}

/// Runs a plan on a thread of its own.
pub(crate) fn run(plan: &Plan) -> Outcome {
    let plan = plan.clone();
    let (seed, shared_world) = (plan.seed, Arc::new(Mutex::new(None::<World>)));
    let world = shared_world.clone();
    let report = catch_unwind(AssertUnwindSafe(|| {
        sim::run(seed, move || async move {
            switch_on(plan.mutant.as_deref());
            simulate(&plan, &world).await
        })
    }));
    match report {
        Ok(report) => {
            let mut outcome = Outcome { trace_hash: report.trace_hash, elapsed: report.elapsed, ..report.output };
            let processes = shared_world.lock().as_ref().map(World::processes);
            if let Some((all, kept @ 1..)) = processes.filter(|_| outcome.broken.is_none()) {
                outcome.broken = Some((memory::kept(kept, all), String::new()));
            }
            outcome
        }
        Err(payload) => {
            let what = rt::panic_message(&*payload);
            let trace = shared_world.lock().as_ref().map_or(String::new(), |world| world.trace_of(None));
            Outcome {
                broken: Some((Violation::new("nothing panics or hangs", None, what), trace)),
                ..Outcome::default()
            }
        }
    }
}

#[cfg(feature = "mutants")]
fn switch_on(mutant: Option<&str>) {
    use ottla_env::mutants::{Bug, switch_on};
    switch_on(mutant.and_then(Bug::named));
}

#[cfg(not(feature = "mutants"))]
fn switch_on(_: Option<&str>) {}

async fn simulate(plan: &Plan, shared_world: &Mutex<Option<World>>) -> Outcome {
    let profile = Profile::of(plan.seed, plan.nodes);
    let trims = profile.trims(plan.seed);
    let world = start_world(plan, profile, trims);
    *shared_world.lock() = Some(world.clone());
    start_nodes(plan, &world);
    let began = rt::timeout(SETTLE_MAX, topics::create_shared(&world)).await;
    if began.is_err() {
        world.judge::<()>(Err(stuck(&world)));
    }
    let events = draw_events(plan, profile);
    let faults = events.len();
    start_clients(plan, &world, profile, trims);
    let checker = rt::spawn(check_invariants(world.clone()));
    let faults_end = async {
        nemesis::run_faults(world.clone(), events).await;
        if world.broken().is_none() {
            nemesis::heal(&world).await;
            if mixes_releases(plan.seed, plan.nodes) {
                releases::finish(&world, plan.seed >= UNKNOWN_LEVEL_FROM).await;
            }
        }
    };
    // Every fault ends by itself; a node that neither starts nor fails to start must not block the seed for ever.
    if rt::timeout(2 * plan.fault_time + SETTLE_MAX, faults_end).await.is_err() {
        world.judge::<()>(Err(stuck(&world)));
    }
    if world.broken().is_none() {
        judge_settled(&world).await;
    }
    panics::judge(&world);
    checker.abort();
    let (acknowledged, reads) = {
        let oracle = world.oracle();
        (oracle.acknowledged(), oracle.reads)
    };
    let broken = world.broken().map(|violation| {
        let trace = world.trace_of(violation.partition);
        (violation, trace)
    });
    for running in world.running_nodes() {
        // After a broken law a replica may fail to shut down.
        let _ = rt::timeout(SETTLE_MAX, running.host.shutdown()).await;
    }
    world.end();
    Outcome { acknowledged, reads, faults, broken, ..Outcome::default() }
}

/// The faults of the seed's profile, and those that only some seeds have.
fn draw_events(plan: &Plan, profile: Profile) -> Vec<Event> {
    let (seed, nodes, lasts) = (plan.seed, plan.nodes, plan.fault_time);
    let mut events = nemesis::draw_schedule(profile, nodes, lasts, damages_heads(seed, nodes));
    events = nemesis::with_task_panics(seed, nodes, lasts, events);
    if interrupts_merges(seed, nodes) {
        events = nemesis::with_interrupted_merges(lasts, events);
    }
    if unregisters_early(seed, nodes) {
        events = nemesis::with_early_unregistrations(nodes, lasts, events);
    }
    if loses_voters(seed, nodes) {
        events = nemesis::with_lost_voters(nodes, lasts, events);
    }
    if loses_seed_node(seed, nodes) {
        events = nemesis::with_lost_seed_node(lasts, events);
    }
    if loses_leavers(seed, nodes) {
        events = nemesis::with_lost_leavers(nodes, lasts, events);
    }
    if stalls_followers(seed, nodes) {
        events = nemesis::with_stalled_followers(events);
    }
    if mixes_releases(seed, nodes) {
        events = nemesis::with_changed_releases(nodes, lasts, events);
    }
    if outlives_leadership(seed, nodes) {
        events = nemesis::with_outlived_leadership(lasts, events);
    }
    if leads_behind_markers(seed, nodes) {
        events = nemesis::with_unapplied_markers(lasts, events);
    }
    chosen(events, plan.only.as_deref())
}

fn start_world(plan: &Plan, profile: Profile, trims: bool) -> World {
    // Disks differ: a slow one has not synced yet what the other nodes have committed.
    let slowest = [0, 2, 3, 4, 5][usize::try_from(sim::random_below(5)).unwrap_or(0)];
    let sync_delay_max = || Duration::from_millis([1, 1, 5, 15, 40][sim::random_below(slowest + 1) as usize % 5]);
    World::new(plan.nodes, Tuning::draw(profile, trims, plan.seed, plan.nodes), sync_delay_max)
}

/// Starts all nodes at the same time, each with a clock of its own; in some seeds one of them is down until there is a topic.
fn start_nodes(plan: &Plan, world: &World) {
    if mixes_releases(plan.seed, plan.nodes) {
        releases::draw(world);
    }
    let late = has_late_founder(plan.seed, plan.nodes).then(|| world.random_node());
    for node in world.nodes() {
        let drift_ppm = i64::try_from(sim::random_below(400)).unwrap_or(0) - 200;
        let offset_ns = i64::try_from(sim::random_below(1 << 40)).unwrap_or(0);
        let wall_offset_ms = i64::try_from(sim::random_below(2_000)).unwrap_or(0) - 1_000;
        sim::set_clock(node, NodeClock { offset_ns, drift_ppm, wall_offset_ms });
        world.start_in_background(node);
        if late == Some(node) {
            rt::spawn(scenarios::found_late(world.clone(), node));
        }
    }
    if let Some((node, wrong_ms)) = nemesis::wrong_clock_at_start(plan.seed, plan.nodes) {
        sim::set_wall_clock(node, wrong_ms);
        world.trace_fault(format!("node {}: its clock is wrong by {wrong_ms} ms from the beginning", node.0));
    }
}

fn start_clients(plan: &Plan, world: &World, profile: Profile, trims: bool) {
    for index in 0..PARTITIONS {
        world.run_client(
            "producer",
            Some(index),
            producer::idempotent(world.clone(), 1 + index.unsigned_abs() as u64, index),
        );
    }
    for id in 0..2 {
        world.run_client("plain", None, pipeline::plain(world.clone(), PLAIN_FROM + id));
        world.run_client("reader", None, consumer::reader(world.clone()));
        world.run_client("committer", None, committer::committer(world.clone(), id));
        let index = i32::try_from(id).unwrap_or(0) * 3;
        world.run_client("burst", Some(index), burst::burst(world.clone(), BURST_FROM + id, index));
        world.run_client("prober", None, prober::prober(world.clone()));
    }
    if trims {
        world.run_client("trimmer", None, trimmer::trimmer(world.clone(), profile == Profile::Generations));
    }
    if profile == Profile::Members {
        world.run_client("reassigner", None, reassigner::reassigner(world.clone(), plan.seed >= PARTS_FROM));
    }
    if plan.seed >= SPLITS_FROM {
        world.run_client(
            "resizer",
            None,
            resizer::resizer(
                world.clone(),
                resizer::Resizes {
                    merges: plan.seed >= MERGES_FROM,
                    counts: plan.seed >= SHARD_COUNTS_FROM,
                    on_demand: plan.seed >= ON_DEMAND_FROM,
                },
            ),
        );
    }
    if moves_directories(plan.seed, plan.nodes) {
        world.run_client("directory mover", None, directory_mover::directory_mover(world.clone()));
    }
    world.run_client("deleter", None, deleter::deleter(world.clone()));
    for id in 0..2 {
        world.run_client("owner", None, topics::owner(world.clone(), id));
    }
    world.run_client("watcher", None, topics::watcher(world.clone()));
    world.run_client("producer ids", None, topics::producer_ids(world.clone()));
    extra_clients::start(world, profile.extra_clients(plan.seed));
    if has_transactions(plan.seed) {
        for number in 0..4 {
            world.run_client("transfers", None, transfers::transfers(world.clone(), number));
        }
        for number in 0..2 {
            world.run_client("committed reader", None, transfers::reader(world.clone(), number));
        }
    }
    if plan.seed >= COMPACTION_FROM {
        for number in 0..2 {
            world.run_client("keys", None, compacted::writer(world.clone(), number));
            world.run_client("reader of keys", None, compacted::reader(world.clone()));
        }
    }
    if has_late_markers(plan.seed) {
        world.run_client("late markers", None, transfers::late_markers(world.clone()));
    }
}

/// Waits until the cluster has settled after the last fault, and judges what it holds then.
async fn judge_settled(world: &World) {
    match rt::timeout(SETTLE_MAX, settle(world)).await {
        Ok(()) => {
            let verdict = audit(world).await.and_then(|()| {
                let history = std::mem::take(&mut *world.history());
                history::judge(history)
            });
            transfers::judge(world).await;
            compacted::judge(world).await;
            if world.judge(verdict).is_some() {
                liveness_check::check(world).await;
            }
        }
        Err(_) => {
            let ended = world.image().is_some_and(|image| has_ended(&image));
            let why = if ended { owned(world) } else { Ok(()) };
            world.judge::<()>(why.and_then(|()| Err(stuck(world))));
        }
    }
}

fn stuck(world: &World) -> Violation {
    progress::stuck(SETTLE_MAX.as_secs(), &world.clients(), describe(world))
}

fn chosen(events: Vec<Event>, only: Option<&[usize]>) -> Vec<Event> {
    match only {
        None => events,
        Some(only) => {
            events.into_iter().enumerate().filter(|(at, _)| only.contains(at)).map(|(_, event)| event).collect()
        }
    }
}

/// The workload goes on for a while without faults, then ends; every replica catches up.
async fn settle(world: &World) {
    rt::sleep(Duration::from_secs(2)).await;
    world.stop_clients();
    while !world.clients().is_empty() {
        rt::sleep(Duration::from_millis(20)).await;
    }
    while world.broken().is_none() && !caught_up(world) {
        world.reseed_founders();
        for node in world.nodes().filter(|node| !world.is_corrupted(*node)) {
            world.start_in_background(node);
        }
        rt::sleep(Duration::from_millis(50)).await;
    }
}

/// True if all nodes run and have the same metadata, and all replicas of every partition show the same watermarks.
/// Nodes with corrupted disks do not count: their replicas may not have been replaced yet.
fn caught_up(world: &World) -> bool {
    let running_nodes: Vec<_> =
        world.running_nodes().into_iter().filter(|running| !world.is_corrupted(running.node)).collect();
    let Some(image) = world.image() else { return false };
    let same = |topic: &Topic, index: i32| {
        let holders = image.replica_nodes(topic, index);
        let sound = holders.iter().filter(|node| !world.is_corrupted(node_of(**node)));
        let shown = sound.map(|node| {
            let running = running_nodes.iter().find(|running| running.node == node_of(*node))?;
            running.marks(topic.partition(index))
        });
        let shown: Vec<_> = shown.collect();
        !shown.is_empty() && shown.iter().all(|marks| marks.is_some() && *marks == shown[0])
    };
    let led = (0..PARTITIONS).all(|index| world.leader(index).is_some());
    let moves = image.shards.values().any(|shard| !shard.leaving.is_empty());
    led && has_ended(&image)
        && owned(world).is_ok()
        && (!moves || world.nodes().any(|node| world.is_corrupted(node)))
        && running_nodes.len() == world.nodes().filter(|node| !world.is_corrupted(*node)).count()
        && running_nodes.iter().all(|running| running.metadata.image().index == image.index)
        && image.topics.values().all(|topic| (0..topic.partition_count()).all(|index| same(topic, index)))
}

/// True if shards have carried out all that the metadata has decided.
fn has_ended(image: &MetadataImage) -> bool {
    let merges = image.open_merges().next().is_some();
    image.intents.is_empty() && image.open_splits().next().is_none() && !merges
}

/// Every replica on a sound disk carries partitions that the metadata assigns to its shard, and no others.
fn owned(world: &World) -> Result<(), Violation> {
    let image = world.image().unwrap_or_default();
    for running in world.running_nodes().into_iter().filter(|running| !world.is_corrupted(running.node)) {
        for shard in running.shards.all() {
            for cell in shard.read_view().all() {
                let topic = image.topic_by_id(&cell.id.topic);
                let route = topic.and_then(|topic| topic.route(cell.id.index)).map(|route| route.shard.0);
                i7_owned::carried(shard.creation.shard.0, &format!("{:?}", cell.id), route)?;
            }
        }
    }
    Ok(())
}

fn describe(world: &World) -> String {
    let running_nodes = world.running_nodes();
    if running_nodes.len() < world.nodes().count() {
        world.trace(None, format!("{} nodes run, {:?} are starting", running_nodes.len(), world.starting()));
    }
    let node = |running: &Arc<RunningNode>| {
        let failures = running.host.failures().borrow().clone();
        let roles: Vec<_> = running.shards.all().iter().map(|shard| (shard.creation.shard.0, shard.role())).collect();
        let image = running.metadata.image();
        let shown = |(name, topic): (&Arc<str>, &Arc<Topic>)| {
            let marks: Vec<_> = (0..topic.partition_count()).map(|at| running.marks(topic.partition(at))).collect();
            format!("{name} {marks:?}")
        };
        let shown: Vec<_> = image.topics.iter().map(shown).collect();
        let (index, role) = (image.index, *running.metadata.group().role().borrow());
        let nodes = image.nodes.len();
        let of_node = |record: &&Arc<ShardRecord>| {
            record.replicas.iter().any(|replica| node_of(replica.node) == running.node)
                && record.id != ShardId::METADATA
                && running.shards.get(record.id).is_none()
        };
        let lacking: Vec<_> = image.shards.values().filter(of_node).collect();
        let members = (image.shard(ShardId::METADATA), running.metadata.group().membership());
        format!(
            "node {}: metadata {index:?} {role:?} of {nodes} nodes, {members:?}, open intents {:?}, open splits {:?}, merges {:?}, lacking {lacking:?}, {}, roles {roles:?}, failures {failures:?}",
            running.node.0,
            image.intents,
            image.open_splits().collect::<Vec<_>>(),
            image.merges().map(|(record, merge)| (record.id, merge)).collect::<Vec<_>>(),
            shown.join(" ")
        )
    };
    running_nodes.iter().map(node).collect::<Vec<_>>().join("; ")
}

/// All records of a partition on a replica, and its watermarks; records that a corrupted disk lost are waited for,
/// since the other replicas repair them.
async fn repaired_contents(
    world: &World,
    running: &RunningNode,
    shard: &Shard,
    id: PartitionId,
) -> Result<(LogOffsetSnapshot, BTreeMap<i64, u64>), String> {
    let deadline = rt::now() + REPAIR_MAX;
    loop {
        let Some(cell) = shard.read_view().get(id) else { return Err(LEFT.to_owned()) };
        let shown = cell.offsets();
        let held = held(running, shard, id, shown.log_start, shown.high_watermark).await;
        let lacks = |what: &String| what.starts_with(UNREADABLE) || what.starts_with(NOTHING);
        let may_come = held.as_ref().is_err_and(lacks) && world.is_corrupted(running.node) && rt::now() < deadline;
        if !may_come || running.host.failures().borrow().contains_key(&shard.replica) {
            return held.map(|held| (shown, held));
        }
        rt::sleep(Duration::from_millis(500)).await;
    }
}

/// The audit after the faults: every replica against what the clients were answered.
async fn audit(world: &World) -> Result<(), Violation> {
    world.image().map_or(Ok(()), |image| levels::newest_of_all(&image))?;
    if let (Some(factor), Some(image)) = (world.factor(), world.image()) {
        image.topic(TOPIC).map_or(Ok(()), |topic| factors::kept(&image, topic, factor))?;
    }
    for running in world.running_nodes() {
        let held = running.directories.iter().map(|directory| (directory.directory_id(), directory.log().replicas()));
        let image = running.metadata.image();
        directories::holds(&image, broker(running.node), &held.collect(), world.moves_directories())?;
    }
    let mut read = BTreeSet::new();
    for running in world.running_nodes() {
        for shard in running.shards.all() {
            for index in 0..PARTITIONS {
                if shard.read_view().get(world.partition(index)).is_none() {
                    continue;
                }
                let who = format!("node {} (replica {})", running.node.0, shard.replica);
                let held = repaired_contents(world, &running, &shard, world.partition(index)).await;
                if held.is_err() && is_over(world, &running, shard.replica) {
                    continue;
                }
                let (shown, mut held) =
                    held.map_err(|what| Violation::new("what is there can be read", index, format!("{who}: {what}")))?;
                // The batch in which the log starts is read whole, from its first record on.
                held.retain(|offset, _| *offset >= shown.log_start.0);
                i2_dense::dense(index, &who, &held, shown.log_start.0, shown.high_watermark.0)?;
                i5_once::in_order(index, &who, &held)?;
                if world.is_corrupted(running.node) {
                    // The replica may lag, since it may not have been replaced yet. The records that it has must be
                    // right.
                    i1_durable::only_true(index, &who, world.oracle().partition(index), &held)?;
                    continue;
                }
                i1_durable::holds_all(index, &who, world.oracle().partition(index), &held, shown.log_start.0)?;
                if read.insert(index) {
                    world.history().read(index, &held, (shown.log_start.0, shown.high_watermark.0));
                }
            }
        }
    }
    Ok(())
}

/// True of a replica on a corrupted disk that has failed or has been replaced.
fn is_over(world: &World, running: &RunningNode, replica: ReplicaId) -> bool {
    let is_member = || world.shard_of(replica).is_some();
    world.is_corrupted(running.node) && (running.host.failures().borrow().contains_key(&replica) || !is_member())
}

/// All records of a partition that a replica has on its disk.
async fn held(
    running: &RunningNode,
    shard: &Shard,
    id: PartitionId,
    from: Offset,
    up_to: Offset,
) -> Result<BTreeMap<i64, u64>, String> {
    let mut found = BTreeMap::new();
    let mut from = from;
    while from < up_to {
        let directory = running.directory_of(shard.replica).ok_or_else(|| format!("{UNREADABLE} it is gone"))?;
        let key = directory.extent(shard.replica, id);
        let request = ReadRequest { key, from, up_to, bytes_max: 1 << 20, at_least_one: true, wanted: Wanted::All };
        let plan = directory.plan_read(request).await.map_err(|error| format!("{UNREADABLE} {error}"))?;
        if plan.is_empty() {
            return Err(format!("{NOTHING} {from}, below the high watermark, and no error"));
        }
        let bytes = plan.read().await.map_err(|error| format!("{UNREADABLE} {error}"))?.freeze();
        found.extend(consumer::values_in(&bytes)?);
        // Records before a damaged batch are returned without an error.
        from = found.last_key_value().map_or(up_to, |(last, _)| Offset(last + 1));
    }
    Ok(found)
}

/// Checks the laws that hold at any time, on all replicas.
async fn check_invariants(world: World) {
    let (mut watch, mut sums, mut states) = (Watch::default(), Sums::default(), Sums::default());
    loop {
        panics::judge(&world);
        for running in world.running_nodes() {
            let repaired = running.directories.iter().map(|directory| directory.repaired_batches()).sum::<u64>();
            if repaired > 0 && !world.is_corrupted(running.node) {
                world.judge::<()>(Err(reads::repaired(running.node.0, repaired)));
            }
            if !world.is_corrupted(running.node) {
                for (replica, failure) in running.host.failures().borrow().iter() {
                    world.judge(apply::stopped(running.node.0, replica.0, &failure.why));
                }
            }
            let image = running.metadata.image();
            world.judge(sums.see(ShardId::METADATA.0, running.node.0.into(), image.index.0, 0, image.checksum));
            for shard in running.shards.all() {
                if let Some((applied, checksum)) = shard.applied_checksum() {
                    let id = shard.creation.shard.0;
                    world.judge(sums.see(id, shard.replica.0, applied.index.0, applied.term.0, checksum));
                }
                if let Some((applied, digest)) = shard.state_digest() {
                    let id = shard.creation.shard.0;
                    world.judge(states.see(id, shard.replica.0, applied.index.0, applied.term.0, digest));
                }
                let epoch = i32::try_from(shard.role().term.0).unwrap_or(i32::MAX);
                for index in 0..PARTITIONS {
                    let Some(cell) = shard.read_view().get(world.partition(index)) else { continue };
                    let marks = cell.offsets();
                    let (high_watermark, log_start) = (marks.high_watermark.0, marks.log_start.0);
                    let deleted = world.oracle().partition(index).deleted;
                    let shown = Shown { high_watermark, log_start, epoch };
                    world.judge(watch.see((running.incarnation, shard.replica.0), index, shown, deleted));
                }
            }
        }
        if world.broken().is_some() {
            return;
        }
        rt::sleep(CHECK_INTERVAL).await;
    }
}
