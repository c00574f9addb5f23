//! Nodes that go as their operators have them go: stopped, rolled, forgotten.
//!
//! May not know: clients, laws, schedules.

use std::time::Duration;

use ottla_broker::metadata::{NodeState, Nodes};
use ottla_storage::env::rt;
use ottla_storage::env::sim::SimNode;
use ottla_storage::env::sim::disk::Crash;

use crate::registry::broker;
use crate::world::World;

/// How long a node has to give up everything; then it may stay.
const UNREGISTERED_BY: Duration = Duration::from_secs(6);
/// By then it is one of the others again.
const REJOINED_BY: Duration = Duration::from_secs(30);
/// How often it is looked whether it has.
const POLL_INTERVAL: Duration = Duration::from_millis(25);

/// A node stops; after `fails`, if that is given, its machine loses power.
pub(crate) async fn stop(world: &World, node: SimNode, power_loss_after: Option<Duration>) {
    let Some(power_loss_after) = power_loss_after else { return world.stop(node).await };
    let stopping = world.clone();
    let stopped = rt::spawn(async move { stopping.stop(node).await });
    rt::sleep(power_loss_after).await;
    world.crash(node, Crash::Power);
    let _ = stopped.await;
}

/// Every node stops and is started again, one after the other, whatever else happens to them.
pub(crate) async fn rolling_restart(world: &World, pause: Duration) {
    for node in world.nodes() {
        world.stop(node).await;
        rt::sleep(pause).await;
        world.start(node).await;
        rt::sleep(pause).await;
    }
}

/// A node is to be forgotten, and comes back as a new one; if that takes too long it may stay. Returns when it is one of the
/// others again.
pub(crate) async fn unregister(world: &World, node: SimNode) {
    let id = broker(node);
    let asked =
        world.request(world.random_node(), move |running| async move { running.metadata.unregister(id).await }).await;
    world.trace_fault(format!("node {} is to be forgotten: {asked:?}", node.0));
    let (begun, mut may_stay) = (rt::now(), false);
    while rt::now().since(begun) < REJOINED_BY {
        rt::sleep(POLL_INTERVAL).await;
        let image = world.image();
        let state = image.and_then(|image| image.nodes.get(&id).map(|record| record.state));
        if state == Some(NodeState::Active) {
            return;
        }
        if rt::now().since(begun) >= UNREGISTERED_BY && !may_stay {
            let nodes = Nodes::One(id);
            let stays = world
                .request(world.random_node(), move |running| async move { running.metadata.drain(nodes, false).await });
            let asked = stays.await;
            may_stay = asked.is_some();
            world.trace_fault(format!("node {} may stay: {asked:?}", node.0));
        }
    }
}

/// Starts again whoever has ended because it was forgotten, as a supervisor would; never returns.
pub(crate) async fn restart_unregistered(world: World) {
    loop {
        rt::sleep(POLL_INTERVAL).await;
        for running in world.running_nodes().into_iter().filter(|running| running.is_unregistered()) {
            let node = running.node;
            world.trace_fault(format!("node {} ends, for it was forgotten", node.0));
            world.stop(node).await;
            rt::sleep(POLL_INTERVAL).await;
            world.start(node).await;
        }
    }
}
