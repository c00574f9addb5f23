//! Faults: a schedule of them is drawn from the seed before the run, so that it can be read, cut short and shrunk.
//!
//! May not know: clients, laws. Every fault heals itself after its time.

use std::time::Duration;

use ottla_raft::Faults;
use ottla_storage::env::rt;
use ottla_storage::env::sim::disk::Crash;
use ottla_storage::env::sim::{self, SimNode};

use crate::world::World;

/// Which node a fault is for: that of a number, or whoever leads then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whom {
    Node(SimNode),
    Leader,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A process or its machine dies and comes back.
    Crash(Whom, Crash),
    /// The power of all machines fails, and comes back for one after the other.
    Rack,
    /// Nothing to or from the node.
    Isolate(Whom),
    /// Nothing from the node, but everything to it.
    Mute(Whom),
    /// Everything from the node, but nothing to it.
    Deaf(Whom),
    /// Syncs do not return.
    Hang(Whom),
    /// The sync after so many more fails; the process is started again later.
    SyncError(Whom, u64),
    /// The write after so many more fails; the process is started again later.
    WriteError(Whom, u64),
    /// Nothing more fits.
    Full(Whom),
    /// The process stands still, and goes on as if nothing had been.
    Pause(Whom),
    /// The wall clock jumps by so many milliseconds.
    Clock(Whom, i64),
    /// Messages are lost, repeated and late.
    BadNetwork { loss_per_mille: u64, repeat_per_mille: u64, delay_max_ms: u64 },
}

/// A fault and its time.
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

fn whom(nodes: u32) -> Whom {
    match sim::random_below(3) {
        0 => Whom::Leader,
        _ => Whom::Node(SimNode(1 + u32::try_from(sim::random_below(u64::from(nodes))).unwrap_or(0))),
    }
}

fn crash() -> Crash {
    if sim::random_below(2) == 0 { Crash::Power } else { Crash::Process }
}

fn fault(nodes: u32) -> Fault {
    let whom = whom(nodes);
    match sim::random_below(20) {
        0..5 => Fault::Crash(whom, crash()),
        5 => Fault::Rack,
        6..8 => Fault::Isolate(whom),
        8 => Fault::Mute(whom),
        9 => Fault::Deaf(whom),
        10..12 => Fault::Hang(whom),
        12 => Fault::SyncError(whom, sim::random_below(200)),
        13 => Fault::WriteError(whom, sim::random_below(200)),
        14 => Fault::Full(whom),
        15..17 => Fault::Pause(whom),
        17 => {
            // A node that is alone is its own majority: its jump is the truth, and producers expire by it.
            let unit_ms = if nodes > 1 { 31_536_000_000 } else { 60_000 };
            let units = i64::try_from(sim::random_below(20)).unwrap_or(0) - 8;
            Fault::Clock(whom, units * unit_ms)
        }
        _ => Fault::BadNetwork {
            loss_per_mille: sim::random_below(200),
            repeat_per_mille: sim::random_below(100),
            delay_max_ms: 1 + sim::random_below(300),
        },
    }
}

/// The faults of a run, in order.
pub(crate) fn draw(nodes: u32, lasts: Duration) -> Vec<Event> {
    let end_ms = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
    // Some seeds are calm, some are wild.
    let gap_ms = [300, 700, 1_500, 4_000][usize::try_from(sim::random_below(4)).unwrap_or(0)];
    let mut events = Vec::new();
    let mut at_ms = 300;
    while at_ms < end_ms {
        let lasts_ms = if sim::random_below(4) == 0 { sim::random_below(6_000) } else { sim::random_below(900) };
        events.push(Event { at_ms, lasts_ms: lasts_ms.min(end_ms - at_ms), fault: fault(nodes) });
        at_ms += 1 + sim::random_below(2 * gap_ms);
    }
    events
}

/// Runs the schedule; each fault as a task of its own, so that they overlap.
pub(crate) async fn rage(world: World, events: Vec<Event>) {
    let mut running = Vec::new();
    let began = sim::elapsed();
    for event in events {
        let at = began + Duration::from_millis(event.at_ms);
        rt::sleep(at.saturating_sub(sim::elapsed())).await;
        if world.broken().is_some() {
            return;
        }
        world.tell(None, format!("FAULT {event}"));
        running.push(rt::spawn(one(world.clone(), event)));
    }
    for fault in running {
        let _ = fault.await;
    }
}

fn resolve(world: &World, whom: Whom) -> SimNode {
    match whom {
        Whom::Node(node) => node,
        Whom::Leader => {
            let index = i32::try_from(sim::random_below(3)).unwrap_or(0);
            let leader = if index == 2 { world.controller() } else { world.leader(index) };
            leader.unwrap_or_else(|| world.random_node())
        }
    }
}

async fn one(world: World, event: Event) {
    let lasts = Duration::from_millis(event.lasts_ms);
    match event.fault {
        Fault::Crash(whom, crash) => {
            let node = resolve(&world, whom);
            world.crash(node, crash);
            rt::sleep(lasts).await;
            world.start(node).await;
        }
        Fault::Rack => {
            world.nodes().for_each(|node| world.crash(node, Crash::Power));
            for node in world.nodes() {
                rt::sleep(lasts / 4).await;
                let world = world.clone();
                rt::spawn(async move { world.start(node).await });
            }
        }
        Fault::Isolate(whom) => cut(&world, resolve(&world, whom), true, true, lasts).await,
        Fault::Mute(whom) => cut(&world, resolve(&world, whom), true, false, lasts).await,
        Fault::Deaf(whom) => cut(&world, resolve(&world, whom), false, true, lasts).await,
        Fault::Hang(whom) => {
            let node = resolve(&world, whom);
            world.disk(node).hang(true);
            rt::sleep(lasts).await;
            world.disk(node).hang(false);
        }
        Fault::SyncError(whom, count) => {
            let node = resolve(&world, whom);
            world.disk(node).fail_sync_in(count);
            again(&world, node, lasts).await;
        }
        Fault::WriteError(whom, count) => {
            let node = resolve(&world, whom);
            world.disk(node).fail_write_in(count);
            again(&world, node, lasts).await;
        }
        Fault::Full(whom) => {
            let node = resolve(&world, whom);
            world.disk(node).set_capacity(0);
            rt::sleep(lasts).await;
            world.disk(node).set_capacity(1 << 40);
        }
        Fault::Pause(whom) => {
            let node = resolve(&world, whom);
            sim::pause(node, true);
            rt::sleep(lasts).await;
            sim::pause(node, false);
        }
        Fault::Clock(whom, wall_offset_ms) => {
            sim::set_wall_clock(resolve(&world, whom), wall_offset_ms);
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

async fn cut(world: &World, node: SimNode, from: bool, to: bool, lasts: Duration) {
    let others = || world.nodes().filter(move |other| *other != node);
    for other in others() {
        if from {
            world.network().cut(node, other);
        }
        if to {
            world.network().cut(other, node);
        }
    }
    rt::sleep(lasts).await;
    for other in others() {
        world.network().mend(node, other);
        world.network().mend(other, node);
    }
}

/// After an error of its disk a process is started again, as an operator or a supervisor would.
async fn again(world: &World, node: SimNode, lasts: Duration) {
    rt::sleep(lasts).await;
    world.crash(node, Crash::Process);
    rt::sleep(Duration::from_millis(100)).await;
    world.start(node).await;
}

/// Ends every fault and starts whoever is down.
pub(crate) async fn calm(world: &World) {
    world.network().heal();
    world.network().set_faults(Faults::default());
    world.lose_answers(0);
    for node in world.nodes() {
        sim::pause(node, false);
        world.disk(node).hang(false);
        world.disk(node).set_capacity(1 << 40);
        sim::set_wall_clock(node, 0);
        // Whoever has stopped by itself after an error of its disk is started again.
        if world
            .life(node)
            .is_some_and(|life| life.directory.poisoned().is_some() || !life.host.failures().borrow().is_empty())
        {
            world.crash(node, Crash::Process);
        }
        world.start(node).await;
    }
}
