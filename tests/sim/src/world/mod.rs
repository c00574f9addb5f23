//! The simulated cluster: nodes, disks, network, the transport of clients' requests, and what the checks have recorded.
//!
//! May not know: which faults are injected, what clients do.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use ottla_broker::metadata::{Levels, MetadataImage, ShardId, ShardRecord};
use ottla_env::rt;
use ottla_env::sim::disk::{SimDisk, SimDiskOptions};
use ottla_env::sim::{self, SimNode};
use ottla_protocol::compression::Codec;
use ottla_protocol::ids::PartitionId;
use ottla_raft::{GroupHandle, SimNetwork};
use ottla_storage::data_dir::DataDir;
use ottla_storage::ids::ReplicaId;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::durability_tracker::DurabilityTracker;
use crate::history::History;
use crate::laws::Violation;
use crate::oracle::{Learned, Oracle};
use crate::profile::Tuning;
use crate::registry::node_of;
use crate::releases::Releases;
use crate::sim_node::RunningNode;
use crate::trace::Trace;

mod processes;

/// How long a client waits for an answer.
const ANSWER_WAIT: Duration = Duration::from_secs(3);

/// The kind of a client, and the partition if it uses only one.
pub(crate) type Kind = (&'static str, Option<i32>);

struct Inner {
    /// The nodes that the cluster was started with.
    founders: u32,
    /// All nodes by now.
    nodes: AtomicU32,
    network: SimNetwork,
    disks: Mutex<BTreeMap<SimNode, SimDisk>>,
    sync_delay_max: Duration,
    running: Mutex<BTreeMap<SimNode, Arc<RunningNode>>>,
    starting: Mutex<BTreeSet<SimNode>>,
    /// Nodes to which an operator has given all nodes as seeds: they have left, and had founded their cluster alone or with
    /// one other.
    reseeded: Mutex<BTreeSet<SimNode>>,
    /// Nodes that were unregistered and have stopped in order since.
    left: Mutex<BTreeSet<SimNode>>,
    releases: Mutex<Releases>,
    /// How often each node went down.
    downs: Mutex<BTreeMap<SimNode, u64>>,
    starts: AtomicU64,
    /// The data directories of all processes, ended or not.
    directories: Mutex<Vec<Weak<DataDir>>>,
    connections: AtomicU64,
    /// The id of the topic that most clients use.
    topic: OnceLock<Uuid>,
    answers_lost_per_mille: AtomicU64,
    tuning: Tuning,
    durability: Mutex<DurabilityTracker>,
    /// How often each node's disk was corrupted such that a replica may be lost by it.
    corrupted: Mutex<BTreeMap<SimNode, u64>>,
    oracle: Mutex<Oracle>,
    history: Mutex<History>,
    trace: Mutex<Trace>,
    broken: Mutex<Option<Violation>>,
    /// The workload is to end.
    stop: AtomicBool,
    is_founding: AtomicBool,
    /// Clients that have not ended, by a number, with their kind.
    clients: Mutex<BTreeMap<u64, Kind>>,
}

fn empty_disk(sync_delay_max: Duration) -> SimDisk {
    SimDisk::new(rt::random_u64(), SimDiskOptions { sync_delay_max, ..SimDiskOptions::default() })
}

/// The handle of the world; cheap to clone.
#[derive(Clone)]
pub(crate) struct World(Arc<Inner>);

impl World {
    /// A cluster with empty disks and no node started.
    pub(crate) fn new(nodes: u32, tuning: Tuning, sync_delay_max: impl Fn() -> Duration) -> Self {
        let network = SimNetwork::default();
        let mut disks = BTreeMap::new();
        for node in (1..=nodes).map(SimNode) {
            disks.insert(node, empty_disk(sync_delay_max()));
        }
        let world = Self(Arc::new(Inner {
            founders: nodes,
            nodes: AtomicU32::new(nodes),
            sync_delay_max: sync_delay_max(),
            tuning,
            durability: Mutex::default(),
            corrupted: Mutex::default(),
            network,
            disks: Mutex::new(disks),
            running: Mutex::default(),
            starting: Mutex::default(),
            reseeded: Mutex::default(),
            left: Mutex::default(),
            releases: Mutex::default(),
            downs: Mutex::default(),
            starts: AtomicU64::new(0),
            directories: Mutex::default(),
            connections: AtomicU64::new(0),
            topic: OnceLock::new(),
            answers_lost_per_mille: AtomicU64::new(0),
            oracle: Mutex::default(),
            history: Mutex::default(),
            trace: Mutex::default(),
            broken: Mutex::default(),
            stop: AtomicBool::new(false),
            is_founding: AtomicBool::new(false),
            clients: Mutex::default(),
        }));
        let weak = Arc::downgrade(&world.0);
        world.0.network.observe(Arc::new(move |from, to, message| {
            let Some(world) = weak.upgrade().map(World) else { return };
            let Some(home) = world.0.network.location_of(from) else { return };
            let shard = world.shard_of(from);
            let receiver = world.0.network.location_of(to);
            let (verdict, crashes) = world.0.durability.lock().observe((from, to), (home, receiver), shard, message);
            world.judge(verdict);
            if let Some((node, crash)) = crashes {
                world.crash(node, crash);
            }
        }));
        world
    }

    /// The shard of a replica, if any node's metadata has it.
    pub(crate) fn shard_of(&self, replica: ReplicaId) -> Option<u64> {
        let image = self.image()?;
        let shard = image.shards.values().find(|shard| shard.members().any(|other| other.id == replica))?;
        Some(shard.id.0)
    }

    pub(crate) fn durability(&self) -> parking_lot::MutexGuard<'_, DurabilityTracker> {
        self.0.durability.lock()
    }

    /// Notes that a disk was corrupted: its replicas may lag or be lost from now on, but must not show anything false.
    pub(crate) fn mark_corrupted(&self, node: SimNode) {
        *self.0.corrupted.lock().entry(node).or_default() += 1;
    }

    pub(crate) fn is_corrupted(&self, node: SimNode) -> bool {
        self.0.corrupted.lock().contains_key(&node)
    }

    /// How often the node's disk was corrupted.
    fn corruptions(&self, node: SimNode) -> u64 {
        self.0.corrupted.lock().get(&node).copied().unwrap_or(0)
    }

    /// True if nodes are in racks.
    pub(crate) fn has_racks(&self) -> bool {
        self.0.tuning.is_widened
    }

    /// True if a group has static members.
    pub(crate) fn has_static_members(&self) -> bool {
        self.0.tuning.has_static_members
    }

    /// True if producers send on to a new leader while the former one still owes them answers.
    pub(crate) fn sends_on(&self) -> bool {
        self.0.tuning.sends_on
    }

    /// The feature levels of the newer release.
    pub(crate) fn levels(&self) -> Levels {
        self.0.tuning.levels
    }

    /// Replicas of the topic that all clients share, if not the default.
    pub(crate) fn factor(&self) -> Option<i16> {
        self.0.tuning.factor
    }

    /// True if the topic of transactions is compacted.
    pub(crate) fn compacts_transfers(&self) -> bool {
        self.0.tuning.compacts_transfers
    }

    /// True if operators move replicas between the data directories of a node.
    pub(crate) fn moves_directories(&self) -> bool {
        self.0.tuning.moves_directories
    }

    /// True if transactional producers abort at once what they have not sent.
    pub(crate) fn aborts_at_once(&self) -> bool {
        self.0.tuning.aborts_at_once
    }

    /// Which nodes run which release.
    pub(crate) fn releases(&self) -> parking_lot::MutexGuard<'_, Releases> {
        self.0.releases.lock()
    }

    /// `min.insync.replicas` of the topics.
    pub(crate) fn min_in_sync(&self) -> usize {
        usize::try_from(self.0.tuning.min_in_sync).unwrap_or(1)
    }

    /// The codec of a producer's next batch.
    pub(crate) fn codec(&self) -> Codec {
        if !self.0.tuning.is_widened {
            return Codec::None;
        }
        Codec::ALL[usize::try_from(sim::random_below(Codec::ALL.len() as u64)).unwrap_or(0)]
    }

    /// The codec with which topics store batches; `None`: the producer's.
    pub(crate) fn topic_codec(&self) -> Option<Codec> {
        self.0.tuning.compression_type.codec()
    }

    /// The number of nodes that the cluster was started with.
    pub(crate) fn founders(&self) -> u32 {
        self.0.founders
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = SimNode> + use<> {
        (1..=self.node_count()).map(SimNode)
    }

    pub(crate) fn random_node(&self) -> SimNode {
        SimNode(1 + u32::try_from(sim::random_below(u64::from(self.node_count()))).unwrap_or(0))
    }

    pub(crate) fn network(&self) -> &SimNetwork {
        &self.0.network
    }

    /// Drops all messages from a node, or to it, or both.
    pub(crate) fn cut(&self, node: SimNode, from: bool, to: bool) {
        for other in self.nodes().filter(|other| *other != node) {
            if from {
                self.0.network.cut(node, other);
            }
            if to {
                self.0.network.cut(other, node);
            }
        }
    }

    /// Ends [`Self::cut`] in both directions.
    pub(crate) fn reconnect(&self, node: SimNode) {
        for other in self.nodes().filter(|other| *other != node) {
            self.0.network.restore(node, other);
            self.0.network.restore(other, node);
        }
    }

    fn node_count(&self) -> u32 {
        self.0.nodes.load(Ordering::Relaxed)
    }

    pub(crate) fn disk(&self, node: SimNode) -> SimDisk {
        self.0.disks.lock().entry(node).or_insert_with(|| empty_disk(self.0.sync_delay_max)).clone()
    }

    /// The syncs of a node's disk do not return for so long.
    pub(crate) async fn hang_disk(&self, node: SimNode, lasts: Duration) {
        self.disk(node).hang(true);
        rt::sleep(lasts).await;
        self.disk(node).hang(false);
    }

    /// Adds a node with an empty disk to the cluster; it is not started.
    pub(crate) fn add_node(&self) -> SimNode {
        SimNode(self.0.nodes.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Replaces the disk of a node that is down by an empty one.
    pub(crate) fn wipe(&self, node: SimNode) {
        self.0.disks.lock().insert(node, empty_disk(self.0.sync_delay_max));
        self.durability().disk_lost(node);
        self.trace_fault(format!("node {} has an empty disk", node.0));
    }

    /// True while a topic of one replica is about to be created: it may be placed on any node that is not fenced yet, so
    /// no disk may be lost meanwhile (seed 128748).
    pub(crate) fn set_founding(&self, is_founding: bool) {
        self.0.is_founding.store(is_founding, Ordering::Relaxed);
    }

    /// True if every shard has all the members that it is to have, no disk is corrupted and no founder is late: one node
    /// may then be lost for good.
    pub(crate) fn is_whole(&self) -> bool {
        let running_nodes = self.running_nodes();
        let Some(image) = self.image() else { return false };
        let has = |record: &ShardRecord| {
            let groups = record.replicas.iter().map(|replica| {
                running_nodes
                    .iter()
                    .find(|running| running.node == node_of(replica.node))
                    .and_then(|running| running.host.group(replica.id))
            });
            let Some(groups) = groups.collect::<Option<Vec<_>>>() else { return false };
            let wanted = record.wanted();
            let settled = |group: &GroupHandle| {
                let members = group.membership();
                members.voters.len() == 1 && members.voters[0] == wanted && members.learners.is_empty()
            };
            record.leaving.is_empty()
                && groups.iter().all(settled)
                && groups.iter().any(|group| group.role().borrow().ready)
        };
        let whole = self.0.corrupted.lock().is_empty()
            && running_nodes.len() == self.nodes().count()
            && !self.0.is_founding.load(Ordering::Relaxed);
        whole && image.shards.values().all(|record| has(record))
    }

    /// True if this node's disk may be lost for good: each shard of which it has a replica has three and is whole.
    pub(crate) fn may_lose(&self, node: SimNode) -> bool {
        let image = self.image().unwrap_or_default();
        let is_here = |record: &ShardRecord| record.members().any(|replica| node_of(replica.node) == node);
        self.is_whole() && image.shards.values().all(|record| !is_here(record) || record.replicas.len() >= 3)
    }

    /// Loses so many of a thousand answers to clients.
    pub(crate) fn lose_answers(&self, per_mille: u64) {
        self.0.answers_lost_per_mille.store(per_mille, Ordering::Relaxed);
    }

    pub(crate) fn oracle(&self) -> parking_lot::MutexGuard<'_, Oracle> {
        self.0.oracle.lock()
    }

    /// Records that a producer sends these values as one batch, for the first time.
    pub(crate) fn sends(&self, index: i32, values: &[u64]) {
        self.oracle().partition(index).sent.extend(values);
        self.history().sends(index, values);
    }

    /// Records that its producer got the acknowledgement.
    pub(crate) fn acknowledged(&self, index: i32, values: &[u64], base_offset: i64) {
        self.history().was_sent(index, values, base_offset);
        for (offset, value) in (base_offset..).zip(values) {
            let verdict = self.oracle().learn(index, offset, *value, Learned::Acknowledged);
            self.judge(verdict);
        }
    }

    /// The history of client operations for the checker.
    pub(crate) fn history(&self) -> parking_lot::MutexGuard<'_, History> {
        self.0.history.lock()
    }

    /// Adds an event to the trace; `partition` if it concerns only one.
    pub(crate) fn trace(&self, partition: Option<i32>, line: String) {
        sim::trace(line.as_bytes());
        self.0.trace.lock().add(sim::elapsed(), partition, line);
    }

    /// Adds a fault, start or stop of a node to the trace, and to the log (`RUST_LOG=sim=info`).
    pub(crate) fn trace_fault(&self, line: String) {
        tracing::info!(at_s = sim::elapsed().as_secs_f64(), "{line}");
        sim::trace(line.as_bytes());
        self.0.trace.lock().add_fault(sim::elapsed(), line);
    }

    pub(crate) fn trace_of(&self, partition: Option<i32>) -> String {
        self.0.trace.lock().of(partition)
    }

    /// Stores the first law that was broken.
    pub(crate) fn judge<T>(&self, verdict: Result<T, Violation>) -> Option<T> {
        match verdict {
            Ok(value) => Some(value),
            Err(violation) => {
                self.trace(violation.partition, format!("BROKEN {violation}"));
                self.0.broken.lock().get_or_insert(violation);
                None
            }
        }
    }

    pub(crate) fn broken(&self) -> Option<Violation> {
        self.0.broken.lock().clone()
    }

    /// Starts a client of a kind; it ends by itself some time after [`Self::stop_clients`].
    pub(crate) fn run_client(
        &self,
        kind: &'static str,
        partition: Option<i32>,
        client: impl Future<Output = ()> + Send + 'static,
    ) {
        let number = self.next_connection();
        self.0.clients.lock().insert(number, (kind, partition));
        let world = self.clone();
        rt::spawn(async move {
            client.await;
            world.0.clients.lock().remove(&number);
        });
    }

    /// The kinds of the clients that have not ended.
    pub(crate) fn clients(&self) -> Vec<Kind> {
        self.0.clients.lock().values().copied().collect()
    }

    pub(crate) fn stop_clients(&self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }

    /// True while clients are to continue.
    pub(crate) fn workload_runs(&self) -> bool {
        !self.0.stop.load(Ordering::Relaxed) && self.0.broken.lock().is_none()
    }

    /// The newest metadata image of any running node.
    pub(crate) fn image(&self) -> Option<Arc<MetadataImage>> {
        self.running_nodes().iter().map(|running| running.metadata.image()).max_by_key(|image| image.index)
    }

    /// Stores the id of the topic that most clients use.
    pub(crate) fn set_topic(&self, id: Uuid) {
        self.0.topic.get_or_init(|| id);
    }

    /// A partition of the topic that most clients use.
    pub(crate) fn partition(&self, index: i32) -> PartitionId {
        PartitionId { topic: self.0.topic.get().copied().unwrap_or_default(), index }
    }

    /// A number that no other connection has.
    pub(crate) fn next_connection(&self) -> u64 {
        self.0.connections.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn running_nodes(&self) -> Vec<Arc<RunningNode>> {
        self.0.running.lock().values().cloned().collect()
    }

    pub(crate) fn running_node(&self, node: SimNode) -> Option<Arc<RunningNode>> {
        self.0.running.lock().get(&node).cloned()
    }

    /// Nodes that are still starting.
    pub(crate) fn starting(&self) -> Vec<u32> {
        self.0.starting.lock().iter().map(|node| node.0).collect()
    }

    /// Ends all processes: one process of the simulation runs many worlds.
    pub(crate) fn end(&self) {
        self.0.running.lock().clear();
    }

    /// After the end: how many processes there were, and how many of them still have their directory in memory.
    pub(crate) fn processes(&self) -> (usize, usize) {
        let directories = self.0.directories.lock();
        (directories.len(), directories.iter().filter(|directory| directory.strong_count() > 0).count())
    }

    /// The node that leads the metadata group; that of the newest term if several believe so.
    pub(crate) fn controller(&self) -> Option<SimNode> {
        let running_nodes = self.running_nodes();
        let roles = running_nodes.iter().map(|running| (*running.metadata.group().role().borrow(), running.node));
        roles.filter(|(role, _)| role.ready).max_by_key(|(role, _)| role.term).map(|(_, node)| node)
    }

    /// The node that leads a partition's shard and serves it; that of the newest epoch if several believe so.
    pub(crate) fn leader(&self, index: i32) -> Option<SimNode> {
        let running_nodes = self.running_nodes();
        let led = running_nodes.iter().filter_map(|running| {
            let partition = running.partitions.find_now(crate::workload::NAME, index).ok().flatten()?;
            Some((partition.leader_epoch()?, running.node))
        });
        led.max().map(|(_, node)| node)
    }

    /// The node that leads a shard.
    pub(crate) fn leader_of(&self, shard: ShardId) -> Option<SimNode> {
        let led = |running: &Arc<RunningNode>| Some((running.shards.get(shard)?.leading()?, running.node));
        self.running_nodes().iter().filter_map(led).max().map(|(_, node)| node)
    }

    /// True if the answer that arrives now is to be lost.
    pub(crate) fn loses_answer(&self) -> bool {
        sim::random_below(1_000) < self.0.answers_lost_per_mille.load(Ordering::Relaxed)
    }

    /// A call of a node's service by a client without a connection: it travels, is handled on the node, and the answer travels back. `None`: no answer came, so
    /// that the outcome is unknown.
    pub(crate) async fn request<T, F, Work>(&self, node: SimNode, work: Work) -> Option<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
        Work: FnOnce(Arc<RunningNode>) -> F + Send + 'static,
    {
        let exchange = async {
            travel().await;
            let running = self.running_node(node)?;
            let answer = sim::spawn_on(node, async move { work(running).await }).await.ok()?;
            travel().await;
            (!self.loses_answer()).then_some(answer)
        };
        self.answered(exchange).await
    }

    /// The answer to a client's exchange with a node; `None`: none came in time.
    pub(crate) async fn answered<T>(&self, exchange: impl Future<Output = Option<T>>) -> Option<T> {
        let answer = rt::timeout(ANSWER_WAIT, exchange).await.ok().flatten();
        if answer.is_none() {
            // A client without an answer notices it late, and not always.
            rt::sleep(Duration::from_millis(sim::random_below(200))).await;
        }
        answer
    }
}

async fn travel() {
    rt::sleep(Duration::from_micros(50 + sim::random_below(1_500))).await;
}
