//! The nemesis: draws a schedule of faults from the seed and runs it.
//!
//! The schedule is drawn before the run, so that it can be read, cut short and shrunk. Every fault ends by itself after
//! its time.
//!
//! May not know: clients, laws.

use std::sync::Arc;
use std::time::Duration;

use ottla_raft::Faults;
use ottla_storage::env::rt;
use ottla_storage::env::sim::disk::Crash;
use ottla_storage::env::sim::{self, SimNode};
use parking_lot::Mutex;

use crate::corruption::{self, Corruption, Damaged};
use crate::durability_tracker::CrashPoint;
use crate::graceful_stops;
use crate::panics;
use crate::profile::Profile;
use crate::scenarios;
use crate::targeting::{Target, cut_off, resolve};
use crate::world::World;

/// Tasks panic in one of so many seeds.
const PANICS_EVERY: u64 = 5;

/// No node joins a cluster of so many.
const NODES_MAX: usize = 7;

/// The kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A process is killed or its machine loses power; it is started again.
    Crash(Target, Crash),
    /// A process is killed and started again, and so many milliseconds later its machine loses power.
    CrashTwice(Target, u64),
    /// The first node to reach this point goes down there.
    CrashAt(CrashPoint, Crash),
    /// A leader is isolated and deposed; it goes down once the truncation of its conflicting entries is durable, and
    /// before any entry replaces them.
    CrashDuringTruncation(Crash),
    /// A process is stopped gracefully; if a time is given, its machine loses power so many milliseconds later.
    Stop(Target, Option<u64>),
    /// A rolling restart: one process after the other is stopped and started again.
    RollingRestart,
    /// A node is unregistered, and comes back as a new one.
    Unregister(SimNode),
    /// As [`Fault::CrashAt`] for a vote, and all machines lose power with it.
    PowerLossAtVote,
    /// A disk is corrupted; `down`: after a crash, so that the next start finds it.
    Corrupt { node: SimNode, kind: Corruption, down: bool },
    /// A follower is cut off, and the records that it lacks meanwhile are corrupted on the leader's disk. It is always
    /// the same disk that is corrupted.
    LaggingFollower,
    /// All machines lose power, and are started one after the other.
    PowerLoss,
    /// The network drops all messages to and from the node.
    Isolate(Target),
    /// The network drops all messages from the node.
    DropOutgoing(Target),
    /// The network drops all messages to the node.
    DropIncoming(Target),
    /// Syncs do not return.
    HangSyncs(Target),
    /// The sync after so many more fails; the process is restarted later, and some time after that its machine loses
    /// power.
    SyncError(Target, u64),
    /// The write after so many more fails; the process is restarted later.
    WriteError(Target, u64),
    /// The disk is full.
    DiskFull(Target),
    /// The process is paused and resumed (SIGSTOP, SIGCONT).
    Pause(Target),
    /// All other nodes suspect the process wrongly.
    FalseSuspicion(Target),
    /// The wall clock jumps by so many milliseconds.
    Clock(Target, i64),
    /// A disk is lost for good, and the node comes back with an empty one; not before every shard has all its replicas.
    Wipe(Target),
    /// A critical task panics; the process is restarted later.
    Panic(Target),
    /// A further node joins.
    Join,
    /// A node receives no metadata while its shards go on, and late in that time their leaders fail.
    StaleMetadata(SimNode),
    /// The network loses, repeats and delays messages.
    BadNetwork { loss_per_mille: u64, repeat_per_mille: u64, delay_max_ms: u64 },
}

/// A fault, when it begins, and how long it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event {
    /// Milliseconds after the start.
    pub(crate) at_ms: u64,
    pub(crate) lasts_ms: u64,
    pub(crate) fault: Fault,
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>6} ms, for {} ms: {:?}", self.at_ms, self.lasts_ms, self.fault)
    }
}

/// What the node with the corrupted disk loses for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loses {
    /// Nothing: only files that can be rebuilt are corrupted.
    Nothing,
    /// Records of entries that others lack, while it leads.
    Records,
    /// Anything in its log.
    Anything,
}

fn random_target(nodes: u32) -> Target {
    match sim::random_below(3) {
        0 => Target::Leader,
        _ => Target::Node(any_node(nodes)),
    }
}

fn any_node(nodes: u32) -> SimNode {
    SimNode(1 + u32::try_from(sim::random_below(u64::from(nodes))).unwrap_or(0))
}

fn crash() -> Crash {
    if sim::random_below(2) == 0 { Crash::Power } else { Crash::Process }
}

/// A fault of the seed's profile, or any.
fn fault(profile: Profile, nodes: u32, victim: SimNode, loses: Loses) -> Fault {
    let target = random_target(nodes);
    if sim::random_below(3) == 0 {
        return any_fault(nodes);
    }
    let pick = sim::random_below(8);
    match profile {
        Profile::Mixed => any_fault(nodes),
        Profile::Crashes | Profile::Churn => match pick {
            0..2 => Fault::Crash(target, Crash::Power),
            2..5 => Fault::CrashTwice(target, sim::random_below(40)),
            5 => Fault::SyncError(target, sim::random_below(60)),
            6 => Fault::CrashAt(CrashPoint::Vote, crash()),
            _ => Fault::PowerLoss,
        },
        Profile::Generations => match pick {
            0..2 => Fault::Crash(target, Crash::Power),
            2..5 => Fault::Corrupt { node: any_node(nodes), kind: Corruption::Checkpoint, down: true },
            5..7 => Fault::Corrupt { node: any_node(nodes), kind: Corruption::IndexesGone, down: true },
            _ => Fault::Corrupt { node: any_node(nodes), kind: Corruption::Index, down: false },
        },
        Profile::Elections => match pick {
            0..2 => Fault::Isolate(Target::Leader),
            2 if sim::random_below(2) == 0 => Fault::Pause(Target::Leader),
            2 => Fault::CrashAt(CrashPoint::Conflict, crash()),
            3 => Fault::CrashDuringTruncation(Crash::Power),
            4 => Fault::CrashAt(CrashPoint::Vote, crash()),
            5 => Fault::PowerLossAtVote,
            6 => Fault::Crash(Target::Leader, crash()),
            _ if sim::random_below(2) == 0 => Fault::StaleMetadata(victim),
            _ => clock(Target::Leader),
        },
        Profile::Members => match pick {
            0..3 => Fault::Wipe(target),
            3 => Fault::Join,
            4 => Fault::CrashAt(CrashPoint::Answered, crash()),
            5 => Fault::StaleMetadata(victim),
            _ => Fault::Crash(target, crash()),
        },
        Profile::GracefulStops => match pick {
            0..3 => Fault::Stop(target, None),
            3..5 => Fault::Stop(target, Some(sim::random_below(60))),
            5 => Fault::RollingRestart,
            6 => Fault::Unregister(any_node(nodes)),
            _ if sim::random_below(2) == 0 => Fault::Join,
            _ => Fault::Crash(target, crash()),
        },
        Profile::Corruption if pick < 5 => {
            let down = sim::random_below(2) == 0;
            let kind = match sim::random_below(5) {
                0 => Corruption::Index,
                _ if loses == Loses::Records => return Fault::LaggingFollower,
                1 if down => Corruption::IndexGone,
                1 => Corruption::Index,
                _ if loses == Loses::Nothing => Corruption::Checkpoint,
                2 => Corruption::Checkpoint,
                _ => match sim::random_below(8) {
                    0..2 => Corruption::Log,
                    2 => Corruption::LogPage,
                    3 => Corruption::Run,
                    _ => Corruption::Head,
                },
            };
            Fault::Corrupt {
                node: victim,
                kind,
                down: down || matches!(kind, Corruption::Checkpoint | Corruption::Head),
            }
        }
        Profile::Corruption => Fault::Crash(target, crash()),
    }
}

fn clock(target: Target) -> Fault {
    let unit_ms = 31_536_000_000;
    let units = i64::try_from(sim::random_below(20)).unwrap_or(0) - 8;
    Fault::Clock(target, units * unit_ms)
}

fn any_fault(nodes: u32) -> Fault {
    let target = random_target(nodes);
    match sim::random_below(23) {
        0..5 => Fault::Crash(target, crash()),
        5 => Fault::PowerLoss,
        6..8 => Fault::Isolate(target),
        8 => Fault::DropOutgoing(target),
        9 => Fault::DropIncoming(target),
        10..12 => Fault::HangSyncs(target),
        12 => Fault::SyncError(target, sim::random_below(200)),
        13 => Fault::WriteError(target, sim::random_below(200)),
        14 => Fault::DiskFull(target),
        15..17 => Fault::Pause(target),
        17 => clock(target),
        18 => Fault::CrashTwice(target, sim::random_below(40)),
        19 => Fault::CrashAt(CrashPoint::Vote, crash()),
        20 => Fault::FalseSuspicion(target),
        _ => Fault::BadNetwork {
            loss_per_mille: sim::random_below(200),
            repeat_per_mille: sim::random_below(100),
            delay_max_ms: 1 + sim::random_below(300),
        },
    }
}

/// Half of the clusters start with one clock that is wrong by days or years, more often ahead; [`heal`] sets it right
/// with all others, if no fault does before. Drawn from the seed alone: the draws of the world stay as they were.
pub(crate) fn wrong_clock_at_start(seed: u64, nodes: u32) -> Option<(SimNode, i64)> {
    let mut draws = seed ^ 0xc10c_c10c_c10c_c10c;
    let mut draw = |bound: u64| {
        draws = draws.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (draws >> 33) % bound
    };
    // A cluster of one node has no other clock to compare its own with.
    if nodes < 3 || draw(2) == 0 {
        return None;
    }
    let node = SimNode(1 + u32::try_from(draw(u64::from(nodes))).unwrap_or(0));
    let wrong_ms = 86_400_000 * i64::try_from(8 + draw(3_000)).unwrap_or(0);
    Some((node, if draw(4) == 0 { -wrong_ms } else { wrong_ms }))
}

/// The faults of a run, in order of their times. `heads`: crashes damage the head of a frame.
pub(crate) fn draw_schedule(profile: Profile, nodes: u32, lasts: Duration, heads: bool) -> Vec<Event> {
    let end_ms = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
    // Seeds differ in how often faults come.
    let gaps_ms = if profile == Profile::Mixed { [300, 700, 1_500, 4_000] } else { [200, 300, 500, 900] };
    let gap_ms = gaps_ms[usize::try_from(sim::random_below(4)).unwrap_or(0)];
    let victim = any_node(nodes);
    let loses = match sim::random_below(5) {
        0 => Loses::Nothing,
        1..3 => Loses::Records,
        _ => Loses::Anything,
    };
    let mut events = Vec::new();
    let mut at_ms = 300;
    while at_ms < end_ms {
        let lasts_ms = if sim::random_below(4) == 0 { sim::random_below(6_000) } else { sim::random_below(900) };
        let fault = match fault(profile, nodes, victim, loses) {
            Fault::Crash(..) if heads => Fault::Corrupt { node: victim, kind: Corruption::Head, down: true },
            fault => fault,
        };
        // Long enough for the other nodes to elect a leader, while the old one does not know it yet.
        let isolates = profile == Profile::Elections && matches!(fault, Fault::Isolate(_));
        let lasts_ms = if isolates { 1_500 + sim::random_below(2_500) } else { lasts_ms };
        events.push(Event { at_ms, lasts_ms: lasts_ms.min(end_ms - at_ms), fault });
        at_ms += 1 + sim::random_below(2 * gap_ms);
    }
    events
}

/// Adds panics of tasks to a schedule, in some seeds: drawn last, so that the other faults stay what they were.
pub(crate) fn with_task_panics(seed: u64, nodes: u32, lasts: Duration, mut events: Vec<Event>) -> Vec<Event> {
    let end_ms = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
    if seed % PANICS_EVERY == 3 && end_ms > 0 {
        for _ in 0..2 {
            let at_ms = 300 + sim::random_below(end_ms);
            let fault = Fault::Panic(random_target(nodes));
            events.push(Event { at_ms, lasts_ms: sim::random_below(2_000), fault });
        }
        events.sort_by_key(|event| event.at_ms);
    }
    events
}

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
    let lasts = Duration::from_millis(event.lasts_ms);
    match event.fault {
        Fault::Crash(target, crash) => {
            let node = resolve(&world, target);
            world.crash(node, crash);
            rt::sleep(lasts).await;
            world.start(node).await;
        }
        Fault::CrashTwice(target, after_ms) => {
            let node = resolve(&world, target);
            world.crash(node, Crash::Process);
            rt::sleep(lasts / 8).await;
            let starting = world.clone();
            rt::spawn(async move { starting.start(node).await });
            rt::sleep(Duration::from_millis(after_ms)).await;
            world.crash(node, Crash::Power);
            rt::sleep(lasts / 8).await;
            world.start(node).await;
        }
        Fault::Stop(target, fails_ms) => {
            let node = resolve(&world, target);
            graceful_stops::stop(&world, node, fails_ms.map(Duration::from_millis)).await;
            rt::sleep(lasts).await;
            world.start(node).await;
        }
        Fault::Panic(target) => panics::panic_a_task(&world, resolve(&world, target), lasts / 4).await,
        Fault::RollingRestart => graceful_stops::rolling_restart(&world, lasts / 8).await,
        Fault::Unregister(node) => graceful_stops::unregister(&world, node).await,
        Fault::CrashAt(point, crash) => {
            world.durability().armed = Some((point, crash));
            if let Some(node) = crash_point_reached(&world, lasts).await {
                rt::sleep(Duration::from_millis(sim::random_below(300))).await;
                world.start(node).await;
            }
        }
        Fault::CrashDuringTruncation(crash) => scenarios::crash_during_truncation(&world, crash, lasts).await,
        Fault::LaggingFollower => scenarios::lagging_follower(&world, &damaged).await,
        Fault::PowerLossAtVote => {
            // A vote needs an election.
            let node = resolve(&world, Target::Leader);
            world.durability().armed = Some((CrashPoint::Vote, Crash::Power));
            world.crash(node, Crash::Power);
            if crash_point_reached(&world, Duration::from_secs(3)).await.is_some() {
                world.nodes().for_each(|node| world.crash(node, Crash::Power));
            }
            for node in world.nodes() {
                let world = world.clone();
                rt::spawn(async move { world.start(node).await });
            }
        }
        Fault::Corrupt { node, kind, down } => {
            if down {
                world.crash(node, crash());
            }
            let done = corruption::corrupt(&world, node, kind, &mut damaged.lock());
            world.trace_fault(done.unwrap_or_else(|| format!("node {}: nothing to damage ({kind:?})", node.0)));
            if down {
                rt::sleep(lasts / 4).await;
                world.start(node).await;
            }
        }
        Fault::PowerLoss => {
            world.nodes().for_each(|node| world.crash(node, Crash::Power));
            for node in world.nodes() {
                rt::sleep(lasts / 4).await;
                let world = world.clone();
                rt::spawn(async move { world.start(node).await });
            }
        }
        Fault::Isolate(target) => cut_off(&world, resolve(&world, target), true, true, lasts).await,
        Fault::DropOutgoing(target) => cut_off(&world, resolve(&world, target), true, false, lasts).await,
        Fault::DropIncoming(target) => cut_off(&world, resolve(&world, target), false, true, lasts).await,
        Fault::HangSyncs(target) => {
            let node = resolve(&world, target);
            world.disk(node).hang(true);
            rt::sleep(lasts).await;
            world.disk(node).hang(false);
        }
        Fault::SyncError(target, count) => {
            let node = resolve(&world, target);
            world.disk(node).fail_sync_in(count);
            restart_process(&world, node, lasts / 4).await;
            rt::sleep(Duration::from_millis(sim::random_below(400))).await;
            world.crash(node, Crash::Power);
            world.start(node).await;
        }
        Fault::WriteError(target, count) => {
            let node = resolve(&world, target);
            world.disk(node).fail_write_in(count);
            restart_process(&world, node, lasts).await;
        }
        Fault::DiskFull(target) => {
            let node = resolve(&world, target);
            world.disk(node).set_capacity(0);
            rt::sleep(lasts).await;
            world.disk(node).set_capacity(1 << 40);
        }
        Fault::Pause(target) => {
            let node = resolve(&world, target);
            sim::pause(node, true);
            rt::sleep(lasts).await;
            sim::pause(node, false);
        }
        Fault::FalseSuspicion(target) => world.suspect(resolve(&world, target)),
        Fault::Clock(target, wall_offset_ms) => {
            let node = resolve(&world, target);
            // No two clocks are wrong by the same: the cluster trusts the time that most clocks show, and expires
            // producers by it. The clock of node 1, which may be the only one, is wrong by exactly what the fault says:
            // it also goes back, and jumps by less than is noticed.
            let own_ms = if wall_offset_ms == 0 { 0 } else { 3_600_000 * (i64::from(node.0) - 1) };
            sim::set_wall_clock(node, wall_offset_ms + own_ms);
        }
        Fault::Wipe(target) => {
            if !wait_until_whole(&world).await {
                return world.trace_fault("some shard lacks a replica: no disk is lost".to_owned());
            }
            let node = resolve(&world, target);
            world.crash(node, Crash::Power);
            world.wipe(node);
            rt::sleep(lasts / 8).await;
            world.start(node).await;
        }
        Fault::StaleMetadata(node) => scenarios::stale_metadata(&world, node).await,
        Fault::Join => {
            if world.nodes().count() < NODES_MAX {
                let node = world.add_node();
                world.start(node).await;
            }
        }
        Fault::BadNetwork { loss_per_mille, repeat_per_mille, delay_max_ms } => {
            let delay_max = Duration::from_millis(delay_max_ms);
            world.network().set_faults(Faults { delay_max, loss_per_mille, repeat_per_mille, ..Faults::default() });
            world.lose_answers(loss_per_mille);
            rt::sleep(lasts).await;
            world.network().set_faults(Faults::default());
            world.lose_answers(0);
        }
    }
}

/// Waits until every shard has all its replicas: one node may then be lost for good.
async fn wait_until_whole(world: &World) -> bool {
    let until = rt::now() + Duration::from_secs(4);
    while rt::now() < until {
        if world.is_whole() {
            return true;
        }
        rt::sleep(Duration::from_millis(20)).await;
    }
    false
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
            let poisoned = running.directory.poisoned().map(|why| why.to_string());
            if poisoned.is_some() || !failures.is_empty() {
                world.trace_fault(format!("node {} had stopped: {poisoned:?} {failures:?}", node.0));
                world.crash(node, Crash::Process);
            }
        }
        // A node may need the others to start: all are started at the same time.
        let world = world.clone();
        rt::spawn(async move { world.start(node).await });
    }
}
