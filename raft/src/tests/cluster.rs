//! Simulated nodes, each with a disk of its own, that can be crashed and started again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use ottla_env::sim::{self, NodeClock, SimNode};
use ottla_env::{rt, watch};
use ottla_storage::data_dir::RecoveredReplica;
use ottla_storage::ids::{ReplicaId, Term};
use parking_lot::Mutex;

use super::ledger::{Ledger, Oracle};
use super::memory::{MemoryDirectory, MemoryDisk, Shared};
use crate::Failure;
use crate::directory::Directory;
use crate::handle::GroupHandle;
use crate::host::RaftHost;
use crate::membership::Membership;
use crate::net::sim::SimNetwork;
use crate::options::RaftOptions;
use crate::proposal::Proposal;

/// A node's disk, which outlasts its processes.
pub(crate) trait Storage: Send + Sync {
    /// Opens the directory on the current node.
    fn open(&self) -> BoxFuture<'static, (Arc<dyn Directory>, Vec<RecoveredReplica>)>;
    /// The node loses power; its tasks have ended already.
    fn crash(&self);
}

/// Storage in memory.
pub(crate) struct MemoryStorage {
    pub(crate) disk: Arc<MemoryDisk>,
    pub(crate) sync_max: Duration,
    /// Completes writes before they are durable.
    pub(crate) lies: bool,
}

impl Storage for MemoryStorage {
    fn open(&self) -> BoxFuture<'static, (Arc<dyn Directory>, Vec<RecoveredReplica>)> {
        let (disk, sync_max, lies) = (self.disk.clone(), self.sync_max, self.lies);
        Box::pin(async move {
            let (directory, recovered) = MemoryDirectory::open(disk, sync_max, lies);
            (Arc::new(Shared(directory)) as Arc<dyn Directory>, recovered)
        })
    }
    fn crash(&self) {
        self.disk.crash();
    }
}

type Entries = BTreeMap<u64, (Term, Bytes)>;

struct Up {
    host: RaftHost,
    handle: GroupHandle,
    visible: Arc<Mutex<Entries>>,
}

/// One group over several nodes, one replica each; node n has replica n.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) network: SimNetwork,
    pub(crate) oracle: Arc<Mutex<Oracle>>,
    pub(crate) options: RaftOptions,
    /// The first so many nodes initialize the group; the others wait to be added.
    pub(crate) founders: usize,
    nodes: Arc<BTreeMap<SimNode, Box<dyn Storage>>>,
    up: Arc<Mutex<BTreeMap<SimNode, Up>>>,
}

impl Cluster {
    pub(crate) fn new(storages: Vec<Box<dyn Storage>>) -> Self {
        let network = SimNetwork::default();
        let nodes: BTreeMap<SimNode, Box<dyn Storage>> = (1u32..).map(SimNode).zip(storages).collect();
        for &node in nodes.keys() {
            network.set_location(ReplicaId(u64::from(node.0)), node);
        }
        let options = RaftOptions::default();
        Cluster {
            network,
            oracle: Arc::default(),
            options,
            founders: nodes.len(),
            nodes: Arc::new(nodes),
            up: Arc::default(),
        }
    }

    pub(crate) fn in_memory(count: usize, sync_max: Duration) -> Self {
        let storage = |_| Box::new(MemoryStorage { disk: Arc::default(), sync_max, lies: false }) as Box<dyn Storage>;
        Self::new((0..count).map(storage).collect())
    }

    pub(crate) fn nodes(&self) -> Vec<SimNode> {
        self.nodes.keys().copied().collect()
    }

    pub(crate) fn random_node(&self) -> SimNode {
        SimNode(1 + u32::try_from(sim::random_below(self.nodes.len() as u64)).unwrap())
    }

    /// Gives every node clocks of its own, up to 200 ppm and an hour apart.
    pub(crate) fn skew_clocks(&self) {
        for node in self.nodes() {
            let drift_ppm = i64::try_from(sim::random_below(400)).unwrap() - 200;
            let offset_ns = i64::try_from(sim::random_below(1 << 40)).unwrap();
            let wall_offset_ms = i64::try_from(sim::random_below(7_200_000)).unwrap() - 3_600_000;
            sim::set_clock(node, NodeClock { offset_ns, drift_ppm, wall_offset_ms });
        }
    }

    /// A host for a node that can locate every replica.
    pub(crate) fn new_host(&self, node: SimNode) -> RaftHost {
        RaftHost::new(self.network.for_node(node, Arc::new(self.network.clone())), self.options.clone())
    }

    /// Starts a node with the content of its disk.
    pub(crate) async fn start(&self, node: SimNode) {
        let opening = self.nodes[&node].open();
        let cluster = self.clone();
        let started = sim::spawn_on(node, async move {
            let (directory, recovered) = opening.await;
            let host = cluster.new_host(node);
            let replica = ReplicaId(u64::from(node.0));
            let found = recovered.iter().find(|recovered| recovered.id == replica);
            let state = found.map(|recovered| recovered.state.clone()).unwrap_or_default();
            let ledger = Box::new(Ledger::restore(&state, cluster.oracle.clone()));
            let visible = ledger.visible.clone();
            let handle = match found {
                Some(recovered) => host.open(directory, recovered, None, ledger).await.unwrap(),
                None => {
                    let founders = cluster.nodes.keys().take(cluster.founders);
                    let members = Membership::of(founders.map(|node| ReplicaId(u64::from(node.0))));
                    host.create(directory, replica, Bytes::from_static(b"shard"), members, ledger).await.unwrap()
                }
            };
            rt::spawn(cluster.clone().watch_roles(handle.clone()));
            (host.clone(), Up { host, handle, visible })
        });
        let (host, up) = started.await.unwrap();
        self.network.attach(node, host);
        self.up.lock().insert(node, up);
    }

    async fn watch_roles(self, handle: GroupHandle) {
        let mut role = handle.role();
        loop {
            let now = *role.borrow_and_update();
            if now.ready {
                self.oracle.lock().leads(now.term, handle.replica());
            }
            if role.changed().await.is_err() {
                return;
            }
        }
    }

    /// Cuts a node's power.
    pub(crate) fn crash(&self, node: SimNode) {
        self.network.machines.lose_power(node);
        sim::crash(node);
        self.network.detach(node);
        let up = self.up.lock().remove(&node);
        self.nodes[&node].crash();
        drop(up);
    }

    pub(crate) fn is_up(&self, node: SimNode) -> bool {
        self.up.lock().contains_key(&node)
    }

    pub(crate) fn handle(&self, node: SimNode) -> Option<GroupHandle> {
        self.up.lock().get(&node).map(|up| up.handle.clone())
    }

    pub(crate) fn host(&self, node: SimNode) -> RaftHost {
        self.up.lock()[&node].host.clone()
    }

    pub(crate) fn failures(&self, node: SimNode) -> watch::Receiver<BTreeMap<ReplicaId, Failure>> {
        self.up.lock()[&node].host.failures()
    }

    pub(crate) fn entries(&self, node: SimNode) -> Entries {
        self.up.lock()[&node].visible.lock().clone()
    }

    /// A node whose replica is ready to serve.
    pub(crate) fn leader(&self) -> Option<SimNode> {
        let up = self.up.lock();
        up.iter().find(|(_, up)| up.handle.role().borrow().ready).map(|(&node, _)| node)
    }

    /// Waits until a node that runs has applied every entry that has been acknowledged.
    pub(crate) async fn catches_up(&self, node: SimNode) {
        let last = *self.oracle.lock().acked.last_key_value().unwrap().0;
        let mut applied = self.handle(node).unwrap().watch_applied();
        drop(applied.wait_for(|applied| super::ledger::index_of(*applied).0 >= last).await.unwrap());
    }

    /// Proposes on a node; true if it was acknowledged.
    pub(crate) async fn propose(&self, node: SimNode, payload: Bytes) -> bool {
        let Some(handle) = self.handle(node) else { return false };
        let proposal =
            Proposal { payload: payload.clone(), batches: ottla_storage::entry::Batches::default(), clock_ms: 0 };
        let outcome =
            sim::spawn_on(node, async move { rt::timeout(Duration::from_secs(2), handle.propose(proposal)).await });
        let Ok(Ok(Ok(proposed))) = outcome.await else { return false };
        self.oracle.lock().acknowledged(proposed.log_id, payload);
        true
    }

    /// A read index never lies below what was acknowledged before it was requested.
    pub(crate) async fn read_index(&self, node: SimNode) {
        let Some(handle) = self.handle(node) else { return };
        let acknowledged = self.oracle.lock().acked.last_key_value().map(|(&index, _)| index);
        let outcome = sim::spawn_on(node, async move {
            let index = handle.read_index().await?;
            Ok::<_, crate::error::ReadIndexError>((index, handle.applied()))
        });
        if let Ok(Ok((index, applied))) = outcome.await {
            assert!(acknowledged <= Some(index.0), "stale read: {acknowledged:?} > {index:?}");
            assert!(super::ledger::index_of(applied) >= index, "not applied up to the index read");
        }
    }
}
