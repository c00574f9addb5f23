//! Planned stops, as an operator does them: stop, rolling restart, unregistration.
//!
//! May not know: clients, laws, schedules.

use std::ops::Range;
use std::time::Duration;

use ottla_broker::metadata::{NodeState, Nodes};
use ottla_env::rt;
use ottla_env::sim::disk::Crash;
use ottla_env::sim::{self, SimNode};

use crate::registry::broker;
use crate::targeting::poll;
use crate::world::World;

/// How long a node has to give up its replicas; then the unregistration is cancelled.
const UNREGISTERED_BY: Duration = Duration::from_secs(6);
/// The same for a node that is down: the others wait twice for what it might say, before it is forgotten.
pub(crate) const JOINER_FORGOTTEN_BY: Duration = Duration::from_secs(12);
/// The node is active again by then.
const REJOINED_BY: Duration = Duration::from_secs(30);
/// How often its state is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(25);

/// Stops a node; if a time is given, its machine loses power so long after that.
pub(crate) async fn stop(world: &World, node: SimNode, power_loss_after: Option<Duration>) {
    let Some(power_loss_after) = power_loss_after else {
        world.stop(node).await;
        return;
    };
    let stopping = world.clone();
    let stopped = rt::spawn(async move { stopping.stop(node).await });
    rt::sleep(power_loss_after).await;
    world.crash(node, Crash::Power);
    let _ = stopped.await;
}

/// Stops and starts every node, one after the other, whatever other faults hit them.
pub(crate) async fn rolling_restart(world: &World, pause: Duration) {
    for node in world.nodes() {
        world.stop(node).await;
        rt::sleep(pause).await;
        world.start(node).await;
        rt::sleep(pause).await;
    }
}

/// One of so many nodes that are unregistered is down, and started again when it has been forgotten.
const DOWN_ONE_IN: u64 = 3;

/// How the node is when it is unregistered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaver {
    /// It runs, or it is down and started again when it has been forgotten.
    Any,
    /// Its disk hangs while its replicas are removed.
    WithSlowDisk,
    /// It has just been registered, and is down.
    Joining,
    /// It is killed and started again as soon as it is forgotten, often before its replicas are removed.
    Restarted,
    /// It loses its disk as soon as it is being unregistered, and is started again.
    WithLostDisk,
}

/// How long a disk hangs.
const HANGS: Duration = Duration::from_millis(400);
/// A node that joins is registered by then.
const REGISTERED_BY: Duration = Duration::from_secs(4);

/// A node that joins gets its replica of the metadata by then, and has not applied much: it asks for it every 100 ms.
const JOINER_HAS_REPLICA_MS: Range<u64> = 100..160;

/// A node joins and is killed as soon as the others know it, or a little later.
pub(crate) async fn join_and_crash(world: &World) -> Option<SimNode> {
    let node = world.add_node();
    world.start_in_background(node);
    let until = rt::now() + REGISTERED_BY;
    while rt::now() < until {
        let others: Vec<_> = world.running_nodes().into_iter().filter(|running| running.node != node).collect();
        if others.iter().any(|running| running.metadata.image().nodes.contains_key(&broker(node))) {
            if sim::random_below(2) == 0 {
                let Range { start, end } = JOINER_HAS_REPLICA_MS;
                rt::sleep(Duration::from_millis(start + sim::random_below(end - start))).await;
            }
            world.crash(node, Crash::Power);
            return Some(node);
        }
        rt::sleep(Duration::from_millis(1)).await;
    }
    None
}

/// Waits until the node is forgotten; false if that takes too long.
async fn is_forgotten(world: &World, node: SimNode) -> bool {
    let is_gone = || world.image().is_some_and(|image| !image.nodes.contains_key(&broker(node)));
    poll(Duration::from_millis(1), UNREGISTERED_BY, || is_gone().then_some(())).await.is_some()
}

/// The disk hangs from the moment when the node is forgotten, so that the node stops before its replicas are removed.
async fn hang_when_forgotten(world: World, node: SimNode) {
    if is_forgotten(&world, node).await {
        world.hang_disk(node, HANGS).await;
    }
}

/// Kills the node when it is forgotten, and starts it again.
async fn restart_when_forgotten(world: World, node: SimNode) {
    if is_forgotten(&world, node).await {
        world.crash(node, Crash::Process);
        world.start(node).await;
    }
}

/// Unregisters a node, which comes back as a new one; the unregistration is cancelled if it takes too long. Returns
/// when the node is active again.
pub(crate) async fn unregister(world: &World, node: SimNode, how: Leaver) {
    let id = broker(node);
    let mut is_down = match how {
        Leaver::Any => sim::random_below(DOWN_ONE_IN) == 0,
        Leaver::WithSlowDisk | Leaver::WithLostDisk | Leaver::Restarted => false,
        Leaver::Joining => true,
    };
    if is_down {
        world.crash(node, Crash::Process);
    }
    if how == Leaver::WithSlowDisk {
        rt::spawn(hang_when_forgotten(world.clone(), node));
    }
    if how == Leaver::Restarted {
        rt::spawn(restart_when_forgotten(world.clone(), node));
    }
    let ask =
        || world.request(world.random_node(), move |running| async move { running.metadata.unregister(id).await });
    let mut asked = ask().await;
    let asked_until = rt::now() + REGISTERED_BY;
    // A node that joins is forgotten only once, at this moment.
    while how == Leaver::Joining && !matches!(asked, Some(Ok(_))) && rt::now() < asked_until {
        rt::sleep(POLL_INTERVAL).await;
        asked = ask().await;
    }
    world.trace_fault(format!("node {} is being unregistered: {asked:?}", node.0));
    // Judged at the moment of the loss: while the request was on its way another node may have lost its disk (seed 116079).
    if how == Leaver::WithLostDisk && world.may_lose(node) {
        world.crash(node, Crash::Power);
        world.wipe(node);
        world.start_in_background(node);
    } else if how == Leaver::WithLostDisk {
        world.trace_fault(format!("node {} keeps its disk: some shard lacks a replica or has too few", node.0));
    }
    let cancelled_after = if how == Leaver::Joining { JOINER_FORGOTTEN_BY } else { UNREGISTERED_BY };
    let (begun, mut is_cancelled) = (rt::now(), false);
    while rt::now().since(begun) < REJOINED_BY {
        rt::sleep(POLL_INTERVAL).await;
        let image = world.image();
        let state = image.as_ref().and_then(|image| image.nodes.get(&id).map(|record| record.state));
        if is_down && (is_cancelled || image.is_some() && state.is_none()) {
            is_down = false;
            world.start_in_background(node);
        }
        if state == Some(NodeState::Active) && !is_down {
            return;
        }
        if rt::now().since(begun) >= cancelled_after && !is_cancelled {
            let nodes = Nodes::One(id);
            let stays = world
                .request(world.random_node(), move |running| async move { running.metadata.drain(nodes, false).await });
            let asked = stays.await;
            is_cancelled = asked.is_some();
            world.trace_fault(format!("node {}: its unregistration is cancelled: {asked:?}", node.0));
        }
    }
    // Without it the others may have no quorum, and a start that waits for one would never end.
    if is_down {
        world.start_in_background(node);
    }
}
