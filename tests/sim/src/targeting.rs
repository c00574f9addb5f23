//! Chooses the node that a fault hits, isolates nodes, and waits for the state that a fault needs.
//!
//! May not know: schedules, clients, laws.

use std::time::Duration;

use ottla_env::rt;
use ottla_env::sim::{self, SimNode};

use crate::world::World;

/// The node that a fault is for: a fixed one, or the leader at that time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Node(SimNode),
    Leader,
}

/// The node that this target means now.
pub(crate) fn resolve(world: &World, target: Target) -> SimNode {
    match target {
        Target::Node(node) => node,
        Target::Leader => {
            let index = i32::try_from(sim::random_below(3)).unwrap_or(0);
            let leader = if index == 2 { world.controller() } else { world.leader(index) };
            leader.unwrap_or_else(|| world.random_node())
        }
    }
}

/// Isolates a node for some time, in one direction or both.
pub(crate) async fn cut_off(world: &World, node: SimNode, from: bool, to: bool, lasts: Duration) {
    world.cut(node, from, to);
    rt::sleep(lasts).await;
    world.reconnect(node);
}

/// What `found` returns, once it does, looked at every so often; `None` after so long.
pub(crate) async fn poll<T>(every: Duration, at_most: Duration, found: impl Fn() -> Option<T>) -> Option<T> {
    let until = rt::now() + at_most;
    while rt::now() < until {
        if let Some(found) = found() {
            return Some(found);
        }
        rt::sleep(every).await;
    }
    None
}
