//! Panics of critical tasks: one is injected on a running node, the task's owner (replica, directory or process) must
//! end, and a supervisor restarts the process. Any other panic of a task is a violation.
//!
//! May not know: clients, schedules, what the tasks do.

use std::sync::Arc;
use std::time::Duration;

use ottla_env::rt;
use ottla_env::sim::disk::Crash;
use ottla_env::sim::{self, SimNode};

use crate::laws::Violation;
use crate::sim_node::RunningNode;
use crate::world::World;

/// The owner of the task has ended by then.
const ENDED_BY: Duration = Duration::from_secs(2);
/// How often it is looked at until then.
const LOOKED_EVERY: Duration = Duration::from_millis(5);
/// This task is restarted instead: its state is replicated, and ending the replica would not help its groups.
const RESTARTED: &str = "group-coordinator";

/// Tasks that may outlive their owner for a moment, when nothing is left to end.
const TRANSIENT: [&str; 6] =
    ["raft-initialize", "raft-leadership-transfer", "raft-failover", "raft-transfer", "snapshot", "suspicion"];

/// The parts of a node that have ended.
#[derive(Default, PartialEq, Eq)]
struct Ended {
    process: bool,
    directory: bool,
    replicas: usize,
    stopped: usize,
}

impl Ended {
    fn of(node: SimNode, running: &RunningNode) -> Self {
        Self {
            process: sim::take_fatal(node).is_some() || running.metadata.group().role().borrow().stopped,
            directory: running.poisoned().is_some(),
            replicas: running.host.failures().borrow().len(),
            stopped: running.host.roles().get("stopped").copied().unwrap_or(0),
        }
    }
}

/// Injects a panic into one critical task of the node, checks that its owner ends, and restarts the process.
pub(crate) async fn panic_a_task(world: &World, node: SimNode, down_for: Duration) {
    let Some(running) = world.running_node(node) else { return };
    let mut tasks = sim::critical_tasks(node);
    tasks.retain(|(_, name)| !TRANSIENT.contains(name));
    let pick = usize::try_from(sim::random_below(tasks.len().max(1) as u64)).unwrap_or(0);
    let Some((task, name)) = tasks.get(pick).copied() else { return };
    let before = Ended::of(node, &running);
    let was_whole = before == Ended::default();
    world.trace_fault(format!("node {}: task {name} is to panic", node.0));
    sim::make_panic(task);
    let is_same = || world.running_node(node).is_some_and(|now| Arc::ptr_eq(&now, &running));
    // Looked at again and again: a replica that has ended is removed if its shard is merged away meanwhile (seed 116148).
    let (until, mut goes_on) = (rt::now() + ENDED_BY, true);
    while goes_on && is_same() && rt::now() < until {
        rt::sleep(LOOKED_EVERY).await;
        goes_on = Ended::of(node, &running) == before;
    }
    rt::sleep(until.since(rt::now())).await;
    let is_same = is_same();
    let goes_on = goes_on && is_same && sim::has_panicked(task);
    if goes_on && was_whole && name != RESTARTED {
        let what = format!("node {}: task {name} panicked, and everything goes on without it", node.0);
        world.judge::<()>(Err(Violation::new("a critical task that panics ends what it belongs to", None, what)));
    }
    drop(running);
    if is_same {
        world.crash(node, Crash::Process);
    }
    rt::sleep(down_for).await;
    world.start(node).await;
}

/// Panics that were not injected are violations.
pub(crate) fn judge(world: &World) {
    for (node, what) in sim::take_panics() {
        world.judge::<()>(Err(Violation::new("no task panics", None, format!("node {}: {what}", node.0))));
    }
}
