//! Fault injection: runs a schedule against the world, and ends every fault.
//!
//! May not know: why a fault was drawn.

use std::sync::Arc;
use std::time::Duration;

use ottla_env::rt;
use ottla_env::sim::disk::Crash;
use ottla_env::sim::net::Conditions;
use ottla_env::sim::{self, SimNode};
use ottla_raft::Faults;
use parking_lot::Mutex;

use super::schedule::random_crash;
use super::{Event, Fault};
use crate::corruption::{self, Corruption, Damaged};
use crate::durability_tracker::CrashPoint;
use crate::graceful_stops::{self, Leaver};
use crate::panics;
use crate::releases;
use crate::scenarios;
use crate::stalled_syncs;
use crate::targeting::{Target, cut_off, poll, resolve};
use crate::world::World;
use crate::{lost_markers, unapplied_markers};

/// No node joins a cluster of so many.
const NODES_MAX: usize = 7;

/// Runs the schedule, each fault as a task of its own, so that faults overlap.
pub(crate) async fn run_faults(world: World, events: Vec<Event>) {
    let mut running = Vec::new();
    let began = sim::elapsed();
    let damaged = Arc::new(Mutex::new(Damaged::default()));
    for event in events {
        let at = began + Duration::from_millis(event.at_ms);
        rt::sleep(at.saturating_sub(sim::elapsed())).await;
        if world.broken().is_some() {
            return;
        }
        world.trace_fault(format!("FAULT {event}"));
        running.push(rt::spawn(run_fault(world.clone(), event, damaged.clone())));
    }
    for fault in running {
        let _ = fault.await;
    }
}

async fn run_fault(world: World, event: Event, damaged: Arc<Mutex<Damaged>>) {
    let (world, lasts) = (&world, Duration::from_millis(event.lasts_ms));
    match event.fault {
        Fault::Crash(target, crash) => restart_after_crash(world, target, crash, lasts).await,
        Fault::CrashTwice(target, after_ms) => crash_twice(world, target, after_ms, lasts).await,
        Fault::Stop(target, fails_ms) => stop(world, target, fails_ms, lasts).await,
        Fault::Panic(target) => panics::panic_a_task(world, resolve(world, target), lasts / 4).await,
        Fault::RollingRestart => graceful_stops::rolling_restart(world, lasts / 8).await,
        Fault::Unregister(node) => graceful_stops::unregister(world, node, Leaver::Any).await,
        Fault::UnregisterWithSlowDisk(node) => graceful_stops::unregister(world, node, Leaver::WithSlowDisk).await,
        Fault::UnregisterAndRestart(node) => graceful_stops::unregister(world, node, Leaver::Restarted).await,
        Fault::UnregisterWithLostDisk(node) => graceful_stops::unregister(world, node, Leaver::WithLostDisk).await,
        Fault::UnregisterJoining => unregister_joining(world).await,
        Fault::CrashAt(point, crash) => crash_at(world, point, crash, lasts).await,
        Fault::CrashDuringTruncation(crash) => scenarios::crash_during_truncation(world, crash, lasts).await,
        Fault::LaggingFollower => scenarios::lagging_follower(world, &damaged).await,
        Fault::PowerLossAtVote => power_loss_at_vote(world).await,
        Fault::Corrupt { node, kind, down } => corrupt(world, node, kind, down, lasts, &damaged).await,
        Fault::PowerLoss => power_loss(world, lasts).await,
        Fault::Isolate(target) => cut_off(world, resolve(world, target), true, true, lasts).await,
        Fault::DropOutgoing(target) => cut_off(world, resolve(world, target), true, false, lasts).await,
        Fault::DropIncoming(target) => cut_off(world, resolve(world, target), false, true, lasts).await,
        Fault::HangSyncs(target) => world.hang_disk(resolve(world, target), lasts).await,
        Fault::StallFollowers => stalled_syncs::stall_followers(world, lasts).await,
        Fault::SyncError(target, count) => sync_error(world, target, count, lasts).await,
        Fault::WriteError(target, count) => write_error(world, target, count, lasts).await,
        Fault::DiskFull(target) => fill_disk(world, target, lasts).await,
        Fault::Pause(target) => pause(world, target, lasts).await,
        Fault::ResetConnections(target) => world.network().machines.reset_connections(resolve(world, target)),
        Fault::Clock(target, wall_offset_ms) => jump_clock(world, target, wall_offset_ms),
        Fault::OutliveLeadership => lost_markers::outlive_leadership(world).await,
        Fault::LeadBehindMarkers => unapplied_markers::lead_behind_markers(world).await,
        Fault::UnknownLeader(node) => {
            if world.nodes().count() + 1 < NODES_MAX {
                scenarios::unknown_leader(world, node).await;
            }
        }
        Fault::LostSeedNode => lose_seed_node(world).await,
        Fault::WipeVoter => {
            if wait_until_whole(world).await {
                scenarios::wipe_voter(world).await;
            }
        }
        Fault::ChangeRelease(node) => releases::change(world, node, lasts).await,
        Fault::RaiseLevel => drop(releases::raise_level(world).await),
        Fault::Wipe(target) => wipe(world, target, lasts).await,
        Fault::IsolateMerging => scenarios::isolate_merging(world, lasts).await,
        Fault::StaleMetadata(node) => scenarios::stale_metadata(world, node).await,
        Fault::Join => drop(join(world).await),
        Fault::BadNetwork { loss_per_mille, repeat_per_mille, delay_max_ms } => {
            let links = Conditions {
                delay_max: Duration::from_millis(delay_max_ms),
                loss_per_mille: loss_per_mille / 4,
                ..Conditions::default()
            };
            bad_network(world, Faults { links, loss_per_mille, repeat_per_mille }, lasts).await;
        }
        Fault::SlowLinks { delay_min_ms, bytes_per_second } => {
            let delay_min = Duration::from_millis(delay_min_ms);
            let bytes_per_second = Some(bytes_per_second);
            let links = Conditions { delay_min, delay_max: delay_min * 5 / 4, bytes_per_second, loss_per_mille: 0 };
            bad_network(world, Faults { links, ..Faults::default() }, lasts).await;
        }
    }
}

async fn restart_after_crash(world: &World, target: Target, crash: Crash, lasts: Duration) {
    let node = resolve(world, target);
    world.crash(node, crash);
    rt::sleep(lasts).await;
    world.start(node).await;
}

async fn crash_twice(world: &World, target: Target, after_ms: u64, lasts: Duration) {
    let node = resolve(world, target);
    world.crash(node, Crash::Process);
    rt::sleep(lasts / 8).await;
    world.start_in_background(node);
    rt::sleep(Duration::from_millis(after_ms)).await;
    world.crash(node, Crash::Power);
    rt::sleep(lasts / 8).await;
    world.start(node).await;
}

async fn stop(world: &World, target: Target, fails_ms: Option<u64>, lasts: Duration) {
    let node = resolve(world, target);
    graceful_stops::stop(world, node, fails_ms.map(Duration::from_millis)).await;
    rt::sleep(lasts).await;
    world.start(node).await;
}

async fn crash_at(world: &World, point: CrashPoint, crash: Crash, lasts: Duration) {
    world.durability().armed = Some((point, crash));
    if let Some(node) = crash_point_reached(world, lasts).await {
        world.trace_fault(format!("node {} went down at {point:?}", node.0));
        rt::sleep(Duration::from_millis(sim::random_below(300))).await;
        world.start(node).await;
    }
}

async fn power_loss_at_vote(world: &World) {
    // A vote needs an election.
    let node = resolve(world, Target::Leader);
    world.durability().armed = Some((CrashPoint::Vote, Crash::Power));
    world.crash(node, Crash::Power);
    if crash_point_reached(world, Duration::from_secs(3)).await.is_some() {
        world.nodes().for_each(|node| world.crash(node, Crash::Power));
    }
    for node in world.nodes() {
        world.start_in_background(node);
    }
}

async fn corrupt(
    world: &World,
    node: SimNode,
    kind: Corruption,
    down: bool,
    lasts: Duration,
    damaged: &Mutex<Damaged>,
) {
    if down {
        world.crash(node, random_crash());
    }
    let done = corruption::corrupt(world, node, kind, &mut damaged.lock());
    world.trace_fault(done.unwrap_or_else(|| format!("node {}: nothing to damage ({kind:?})", node.0)));
    if down {
        rt::sleep(lasts / 4).await;
        world.start(node).await;
    }
}

async fn power_loss(world: &World, lasts: Duration) {
    world.nodes().for_each(|node| world.crash(node, Crash::Power));
    for node in world.nodes() {
        rt::sleep(lasts / 4).await;
        world.start_in_background(node);
    }
}

async fn sync_error(world: &World, target: Target, count: u64, lasts: Duration) {
    let node = resolve(world, target);
    world.disk(node).fail_sync_in(count);
    restart_process(world, node, lasts / 4).await;
    rt::sleep(Duration::from_millis(sim::random_below(400))).await;
    world.crash(node, Crash::Power);
    world.start(node).await;
}

async fn write_error(world: &World, target: Target, count: u64, lasts: Duration) {
    let node = resolve(world, target);
    world.disk(node).fail_write_in(count);
    restart_process(world, node, lasts).await;
}

async fn fill_disk(world: &World, target: Target, lasts: Duration) {
    let node = resolve(world, target);
    world.disk(node).set_capacity(0);
    rt::sleep(lasts).await;
    world.disk(node).set_capacity(1 << 40);
}

async fn pause(world: &World, target: Target, lasts: Duration) {
    let node = resolve(world, target);
    sim::pause(node, true);
    rt::sleep(lasts).await;
    sim::pause(node, false);
}

fn jump_clock(world: &World, target: Target, wall_offset_ms: i64) {
    let node = resolve(world, target);
    // No two clocks are wrong by the same: the cluster trusts the time that most clocks show, and expires producers by
    // it. The clock of node 1, which may be the only one, is wrong by exactly what the fault says: it also goes back,
    // and jumps by less than is noticed.
    let own_ms = if wall_offset_ms == 0 { 0 } else { 3_600_000 * (i64::from(node.0) - 1) };
    sim::set_wall_clock(node, wall_offset_ms + own_ms);
}

async fn wipe(world: &World, target: Target, lasts: Duration) {
    if !wait_until_whole(world).await {
        return world.trace_fault("some shard lacks a replica: no disk is lost".to_owned());
    }
    let node = resolve(world, target);
    world.crash(node, Crash::Power);
    world.wipe(node);
    rt::sleep(lasts / 8).await;
    world.start(node).await;
}

async fn lose_seed_node(world: &World) {
    if let Some(node) = join(world).await
        && wait_until_whole(world).await
    {
        scenarios::lost_seed_node(world, node).await;
    }
}

async fn join(world: &World) -> Option<SimNode> {
    if world.nodes().count() >= NODES_MAX {
        return None;
    }
    let node = world.add_node();
    world.start(node).await;
    Some(node)
}

async fn unregister_joining(world: &World) {
    if world.nodes().count() < NODES_MAX
        && let Some(node) = graceful_stops::join_and_crash(world).await
    {
        graceful_stops::unregister(world, node, Leaver::Joining).await;
    }
}

async fn bad_network(world: &World, faults: Faults, lasts: Duration) {
    let loss_per_mille = faults.loss_per_mille;
    world.network().set_faults(faults);
    world.lose_answers(loss_per_mille);
    rt::sleep(lasts).await;
    world.network().set_faults(Faults::default());
    world.lose_answers(0);
}

/// Waits until every shard has all its replicas: one node may then be lost for good.
async fn wait_until_whole(world: &World) -> bool {
    let is_whole = || world.is_whole().then_some(());
    poll(Duration::from_millis(20), Duration::from_secs(4), is_whole).await.is_some()
}

/// Waits until a node has gone down at the armed crash point.
async fn crash_point_reached(world: &World, lasts: Duration) -> Option<SimNode> {
    let until = rt::now() + lasts;
    loop {
        let crashed = world.durability().crashed.take();
        if crashed.is_some() {
            return crashed;
        }
        if rt::now() >= until {
            world.durability().armed = None;
            return None;
        }
        rt::sleep(Duration::from_millis(1)).await;
    }
}

/// Restarts a process after an error of its disk, as an operator or a supervisor would.
async fn restart_process(world: &World, node: SimNode, lasts: Duration) {
    rt::sleep(lasts).await;
    world.crash(node, Crash::Process);
    rt::sleep(Duration::from_millis(100)).await;
    world.start(node).await;
}

/// Ends every fault and starts every node that is down.
pub(crate) async fn heal(world: &World) {
    world.network().heal();
    world.network().set_faults(Faults::default());
    world.lose_answers(0);
    world.durability().armed = None;
    for node in world.nodes() {
        sim::pause(node, false);
        world.disk(node).hang(false);
        world.disk(node).set_capacity(1 << 40);
        sim::set_wall_clock(node, 0);
        // A node that has stopped by itself after an error of its disk is restarted.
        if let Some(running) = world.running_node(node) {
            let mut failures = running.host.failures().borrow().clone();
            // Damaged shards are rebuilt while the node runs; without its metadata replica the process ends.
            let metadata = running.metadata.group().replica();
            failures.retain(|replica, failure| !failure.is_damage || *replica == metadata);
            let poisoned = running.poisoned().map(|why| why.to_string());
            if poisoned.is_some() || !failures.is_empty() {
                world.trace_fault(format!("node {} had stopped: {poisoned:?} {failures:?}", node.0));
                world.crash(node, Crash::Process);
            }
        }
        world.start_in_background(node);
    }
}
