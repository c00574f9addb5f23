//! The processes of the simulated nodes: start, restart by a supervisor, graceful stop, crash.
//!
//! May not know: why a node is started or stopped.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ottla_env::rt;
use ottla_env::sim::disk::Crash;
use ottla_env::sim::{self, SimNode};
use ottla_storage::ids::RaftIndex;
use ottla_storage::log::EntryRange;

use super::World;
use crate::laws::{Violation, i8_recovery, levels};
use crate::profile::Tuning;
use crate::sim_node::{Opened, RunningNode, seeds};

const STARTS_ANEW: &str = "a node that was unregistered and has stopped starts as a new one";
/// What a node that was unregistered says at its end.
const UNREGISTERED: &str = "was unregistered";
/// What a node that has left says if it has no seeds.
const NEEDS_SEEDS: &str = "name nodes of the cluster in ottla.cluster.seeds";
/// What a node says at its end if it meets what only a later release understands.
const NEWER_FORMAT: &str = "is newer than this release understands";
/// Between the end of a process and its restart by its supervisor.
const RESTART_DELAY: Duration = Duration::from_millis(25);

impl World {
    /// Starts a node unless it runs or is starting; returns when it serves, has refused to start, or has crashed.
    pub(crate) async fn start(&self, node: SimNode) {
        if self.0.running.lock().contains_key(&node) || !self.0.starting.lock().insert(node) {
            return;
        }
        let incarnation = self.0.starts.fetch_add(1, Ordering::Relaxed) + 1;
        let is_reseeded = self.0.reseeded.lock().contains(&node);
        let seeds = seeds(node, self.0.founders, is_reseeded.then(|| self.node_count()));
        let (disk, network) = (self.disk(node), self.0.network.clone());
        let world = self.clone();
        let tuning = Tuning { levels: self.releases().levels_of(node, self.levels()), ..self.0.tuning };
        let on_open = move |opened: &[Opened]| world.judge_recovery(node, opened);
        let start = async move { RunningNode::start(node, incarnation, seeds, disk, network, tuning, on_open).await };
        let (downs, corruptions) = (self.downs(node), self.corruptions(node));
        let begun = sim::spawn_on(node, start).await;
        // The node may go down after it has started and before this task resumes: then the started node is dead, and
        // the next one may be starting.
        let crashed = self.downs(node) != downs;
        if !crashed {
            self.0.starting.lock().remove(&node);
        }
        match begun {
            Ok(_) if crashed => self.trace_fault(format!("node {} crashed while it started", node.0)),
            Ok(Ok(running)) => {
                for replica in &running.recovered {
                    if let Some(why) = &replica.lost
                        && running.host.group(replica.id).is_some()
                    {
                        self.judge::<()>(Err(i8_recovery::takes_part(replica.id.0, why)));
                    }
                }
                self.0.left.lock().remove(&node);
                let running = Arc::new(running);
                self.0.running.lock().insert(node, running.clone());
                self.trace_fault(format!("node {} runs, incarnation {incarnation}", node.0));
                self.supervise(running.clone());
                self.compare_entries(&running, corruptions).await;
            }
            Ok(Err(why)) => {
                self.trace_fault(format!("node {} refuses to start: {why}", node.0));
                // The first founder of a cluster of one knows nobody that it could join.
                let may_join = why.contains(UNREGISTERED) && !why.contains(NEEDS_SEEDS);
                if self.0.left.lock().remove(&node) && may_join {
                    let what =
                        format!("node {} stopped as one that was unregistered, and does so again: {why}", node.0);
                    self.judge::<()>(Err(Violation::new(STARTS_ANEW, None, what)));
                }
                // Its process ends: Raft groups that it had opened already must not go on without it.
                self.crash(node, Crash::Process);
                let is_reseeded = why.contains(NEEDS_SEEDS) && self.0.reseeded.lock().insert(node);
                // It learned that it was unregistered before it served: started again it joins as a new one.
                if is_reseeded || may_join {
                    self.restart(node);
                }
            }
            Err(_crashed) => self.trace_fault(format!("node {} crashed while it started", node.0)),
        }
    }

    /// Starts a node without waiting for it: it may need the others to start.
    pub(crate) fn start_in_background(&self, node: SimNode) {
        let world = self.clone();
        rt::spawn(async move { world.start(node).await });
    }

    /// What a node finds on its disk is what it had there.
    fn judge_recovery(&self, node: SimNode, opened: &[Opened]) {
        self.0.directories.lock().extend(opened.iter().map(|(directory, _)| Arc::downgrade(directory)));
        let corrupted = self.is_corrupted(node);
        if corrupted {
            let found = opened.iter().flat_map(|(_, recovered)| recovered).map(|found| {
                let unproven = found.damaged_unproven.map(|id| id.index.0);
                (found.id.0, found.lost.as_deref(), found.damaged.len(), unproven)
            });
            let found: Vec<_> = found.collect();
            self.trace_fault(format!("node {} finds (lost, damaged, unproven) {found:?}", node.0));
        }
        let verdict = self.durability().node_started(node, opened, corrupted);
        self.judge(verdict);
    }

    /// Names all nodes to the founders if none of them serves: nodes that were unregistered one after the other join as new
    /// ones through the founders, and so may wait for nobody but each other. An operator would name nodes that serve.
    pub(crate) fn reseed_founders(&self) {
        let founders = || (1..=self.0.founders).map(SimNode);
        if founders().any(|node| self.running_node(node).is_some()) {
            return;
        }
        for node in founders().filter(|node| self.0.reseeded.lock().insert(*node)) {
            if self.0.starting.lock().contains(&node) {
                self.crash(node, Crash::Process);
            }
        }
    }

    /// Starts a node without waiting for it.
    fn restart(&self, node: SimNode) {
        let world = self.clone();
        sim::spawn_on(SimNode(0), async move {
            rt::sleep(RESTART_DELAY).await;
            world.start(node).await;
        });
    }

    /// Restarts a node whose process ends by itself, as a supervisor would.
    fn supervise(&self, running: Arc<RunningNode>) {
        let world = self.clone();
        sim::spawn_on(SimNode(0), async move {
            let node = running.node;
            let ending = running.clone();
            let Ok(why) = sim::spawn_on(node, async move { ending.process.failed().await }).await else { return };
            let is_same = |world: &Self| world.running_node(node).is_some_and(|now| Arc::ptr_eq(&now, &running));
            if !is_same(&world) {
                return;
            }
            world.trace_fault(format!("node {} ends: {why}", node.0));
            if why.contains(NEWER_FORMAT) {
                world.judge::<()>(Err(levels::newer_format(node.0, &why)));
            }
            let has_left = running.directories.iter().any(|directory| directory.has_left())
                || running.metadata.removed_from_cluster().borrow().is_some();
            let is_stopped = world.stop(node).await;
            if has_left && is_stopped {
                world.0.left.lock().insert(node);
            }
            world.restart(node);
        });
    }

    /// The entries that a node's replicas still have to apply are those that leaders sent. `corruptions`: how often its
    /// disk was corrupted when it started; it cannot have found later damage.
    async fn compare_entries(&self, running: &RunningNode, corruptions: u64) {
        for found in running.recovered.iter().filter(|found| found.lost.is_none()) {
            let (Some(log), Some(shard)) = (running.replica_log(found.id), self.shard_of(found.id)) else {
                continue;
            };
            let first = RaftIndex(found.applied.max(found.purged).map_or(1, |id| id.index.0 + 1));
            let Some(last) = found.last_log_id.map(|id| id.index).filter(|last| *last >= first) else { continue };
            // Raft may have truncated entries since.
            let Ok(entries) = log.read_to_apply(EntryRange { first, last }, usize::MAX).await else { continue };
            if self.corruptions(running.node) != corruptions {
                return;
            }
            for entry in entries.iter().filter(|entry| !found.damaged.contains(&entry.log_id)) {
                let verdict = self.durability().contents.holds(shard, found.id, entry);
                self.judge(verdict);
            }
        }
    }

    /// Stops a process gracefully; returns when it has stopped, or false when something else took it down meanwhile.
    pub(crate) async fn stop(&self, node: SimNode) -> bool {
        let Some(running) = self.running_node(node) else { return false };
        let downs = self.downs(node);
        self.trace_fault(format!("node {} is stopping", node.0));
        let stopping = running.clone();
        let _ = sim::spawn_on(node, async move { stopping.process.hand_over().await }).await;
        if self.downs(node) != downs {
            return false;
        }
        // Clients cannot reach the node any more, and its directory cannot be opened again yet.
        self.0.running.lock().remove(&node);
        self.0.starting.lock().insert(node);
        let closed = async move {
            let unclosed = running.process.close().await;
            unclosed.into_iter().map(|(_, error)| error.to_string()).collect::<Vec<_>>()
        };
        let unclosed = sim::spawn_on(node, closed).await;
        let is_stopped = self.downs(node) == downs;
        if is_stopped {
            self.0.starting.lock().remove(&node);
            self.trace_fault(format!("node {} has stopped: {unclosed:?}", node.0));
            self.crash(node, Crash::Process);
        }
        is_stopped
    }

    /// Takes a node down at once.
    pub(crate) fn crash(&self, node: SimNode, crash: Crash) {
        self.durability().node_down(node);
        if let Some(running) = self.running_node(node).filter(|_| crash == Crash::Power) {
            running.port.lose_power();
        }
        if crash == Crash::Power {
            self.0.network.machines.lose_power(node);
        }
        sim::crash(node);
        *self.0.downs.lock().entry(node).or_default() += 1;
        self.0.starting.lock().remove(&node);
        let running = self.0.running.lock().remove(&node);
        self.disk(node).crash(crash);
        drop(running);
        self.trace_fault(format!("node {} is down ({crash:?})", node.0));
    }

    fn downs(&self, node: SimNode) -> u64 {
        self.0.downs.lock().get(&node).copied().unwrap_or(0)
    }
}
