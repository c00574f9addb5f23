//! The metadata image: nodes, topics, shards, intents at one index of the metadata group. Immutable, swapped whole.
//!
//! Changing an image copies only what changed (`SharedMap`, `Arc`): readers keep theirs as long as they like.
//! May not know: how it is computed (`state_machine`) and how it is changed (`controller`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ottla_protocol::ids::{NodeId, PartitionId};
use ottla_storage::ids::{RaftIndex, ReplicaId};
use uuid::Uuid;

use super::action::ActionRecord;
use super::liveness::{FenceReason, Liveness};
use super::merge_record::{MergePhase, MergeRecord};
pub use super::shard_id::ShardId;
use crate::config::{Config, Endpoint, TopicConfig};
use crate::levels::{FeatureLevel, Levels};
use crate::shared_map::SharedMap;

/// Name of the topic that holds group offsets.
pub const CONSUMER_OFFSETS: &str = "__consumer_offsets";
/// Name of the topic that holds the state of transactions.
pub const TRANSACTION_STATE: &str = "__transaction_state";

/// The metadata group keeps at least this many voters, on drained nodes if necessary.
const METADATA_VOTERS_MIN: usize = 3;

/// So many steps of the balancer are kept.
pub const ACTIONS_KEPT: usize = 200;

/// What a shard is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ShardKind {
    /// The metadata group.
    Metadata,
    /// Carries partitions of several topics.
    Pool {
        /// Number of replicas.
        factor: i16,
        /// True when it was created for a manual assignment: a client named its set of nodes.
        pinned: bool,
    },
    /// Carries partitions of `__consumer_offsets` alone.
    ConsumerOffsets,
    /// Carries partitions of `__transaction_state` alone.
    TransactionState,
}

/// One copy of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaRecord {
    /// The id of the Raft member; never reused.
    pub id: ReplicaId,
    /// Its node.
    pub node: NodeId,
    /// The data directory it is bound to (its random id in `node.json`).
    pub directory: Uuid,
}

/// A shard as recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardRecord {
    /// Its id.
    pub id: ShardId,
    /// What it is for.
    pub kind: ShardKind,
    /// The intended replicas, preferred leader first.
    pub replicas: Vec<ReplicaRecord>,
    /// Those of them that may not be caught up yet: until its leader reports that all are members.
    pub adding: Vec<ReplicaId>,
    /// Replicas that are to be removed: members until its leader reports that they are not.
    pub leaving: Vec<ReplicaRecord>,
    /// The replicas with which the group was created, whether they still exist or not; all others begin as empty
    /// members.
    pub founders: Vec<ReplicaId>,
    /// Metadata index at which it was recorded.
    pub created: RaftIndex,
    /// The split that makes it, or has made it.
    pub split: Option<SplitRecord>,
    /// The merge by which another shard takes it over.
    pub merge: Option<MergeRecord>,
}

/// The replica of a child on the node that has this replica of its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SplitReplica {
    /// The parent's replica.
    pub parent: ReplicaId,
    /// The child's, in the same data directory.
    pub child: ReplicaId,
}

/// How a shard comes from another one, whose log decides it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitRecord {
    /// The shard that is split.
    pub parent: ShardId,
    /// Metadata index of the command: the intent that the parent's entry names.
    pub intent: RaftIndex,
    /// For each of the parent's replicas that of the child.
    pub replicas: Vec<SplitReplica>,
    /// An index of the parent's log up to which the split is carried out; `None`: it is not, as far as is known.
    pub done: Option<RaftIndex>,
    /// The partitions that it moves, by topic; none any more once it is done.
    pub partitions: Vec<(Uuid, Vec<i32>)>,
}

impl SplitRecord {
    /// The level from which on shards may be split.
    pub const LEVEL: FeatureLevel = FeatureLevel(3);
}

impl ShardRecord {
    /// All replicas that are members, or are to become members.
    pub fn members(&self) -> impl Iterator<Item = &ReplicaRecord> {
        self.replicas.iter().chain(&self.leaving)
    }

    /// True until its leader has reported that the members are the intended ones.
    #[must_use]
    pub fn is_moving(&self) -> bool {
        !self.adding.is_empty() || !self.leaving.is_empty()
    }

    /// True while its parent's log has not split it off, as far as is known.
    #[must_use]
    pub fn is_being_split_off(&self) -> bool {
        self.split.as_ref().is_some_and(|split| split.done.is_none())
    }

    fn is_adding(&self, replica: &ReplicaRecord) -> bool {
        self.adding.contains(&replica.id)
    }

    /// The nodes of its members and future members: those of intended replicas first.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeId> {
        distinct(self.members().map(|replica| replica.node))
    }

    /// The nodes of members that have the committed entries, as far as the metadata records it.
    #[must_use]
    pub fn in_sync_nodes(&self) -> Vec<NodeId> {
        distinct(self.members().filter(|replica| !self.is_adding(replica)).map(|replica| replica.node))
    }

    /// Nodes that are getting a replica; not those where a replica is rebuilt on the node of its predecessor.
    #[must_use]
    pub fn adding_nodes(&self) -> Vec<NodeId> {
        let adding = self.replicas.iter().filter(|replica| self.is_adding(replica)).map(|replica| replica.node);
        adding.filter(|node| self.leaving.iter().all(|replica| replica.node != *node)).collect()
    }

    /// Nodes that are losing their replica.
    #[must_use]
    pub fn removing_nodes(&self) -> Vec<NodeId> {
        let leaving = self.leaving.iter().map(|replica| replica.node);
        distinct(leaving.filter(|node| self.replicas.iter().all(|replica| replica.node != *node)))
    }

    /// The nodes before the move in progress, each node that is losing its replica in the position of one that is
    /// getting a replica.
    #[must_use]
    pub fn nodes_before(&self) -> Vec<NodeId> {
        let adding = self.adding_nodes();
        let mut leaving = self.removing_nodes().into_iter();
        let mut before = Vec::new();
        for replica in &self.replicas {
            match adding.contains(&replica.node) {
                true => before.extend(leaving.next()),
                false => before.push(replica.node),
            }
        }
        before.extend(leaving);
        before
    }

    /// The ids of the intended replicas.
    #[must_use]
    pub fn wanted(&self) -> BTreeSet<ReplicaId> {
        self.replicas.iter().map(|replica| replica.id).collect()
    }
}

fn distinct(nodes: impl Iterator<Item = NodeId>) -> Vec<NodeId> {
    let mut seen = BTreeSet::new();
    nodes.filter(|node| seen.insert(*node)).collect()
}

/// An address at which clients or nodes reach a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerEndpoint {
    /// Listener name, as in `listeners`.
    pub name: String,
    /// Advertised host.
    pub host: String,
    /// Advertised port.
    pub port: u16,
}

/// One data directory of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryRecord {
    /// Its random id.
    pub id: Uuid,
    /// Its path on the node.
    pub path: String,
    /// Bytes free when the node registered.
    pub free_bytes: u64,
}

/// The intended state of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum NodeState {
    /// It holds replicas and leads.
    #[default]
    Active,
    /// It is to hold no replicas and to lead nothing, until an operator ends the drain.
    Draining,
    /// The same; and it is removed once it holds nothing.
    Leaving,
}

impl NodeState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Active, Self::Draining, Self::Leaving];

    /// The name that operators see.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Leaving => "leaving",
        }
    }
}

/// A node as registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    /// Broker id.
    pub id: NodeId,
    /// Its zone: `broker.rack`.
    pub rack: Option<String>,
    /// The advertised addresses, by listener.
    pub listeners: Vec<ListenerEndpoint>,
    /// Its data directories.
    pub directories: Vec<DirectoryRecord>,
    /// Software version it registered with.
    pub version: String,
    /// The feature levels that it understands.
    pub levels: Levels,
    /// Metadata index of the registration: grows with every start.
    pub epoch: RaftIndex,
    /// Its intended state. A node does not register that itself: a start does not change it.
    pub state: NodeState,
    /// Whether it is fenced. A node does not register that itself either; it only announces its stop.
    pub liveness: Liveness,
}

/// The name of the listener for other nodes in a node's record. Listeners for clients cannot have it: their names are
/// upper case.
pub const CLUSTER_LISTENER: &str = "ottla.cluster";

impl NodeRecord {
    /// True if it may get replicas, and lead.
    #[must_use]
    pub fn takes_replicas(&self) -> bool {
        self.state == NodeState::Active
    }

    /// True if it has no session, or is stopping: it is listed to clients only as long as it still leads something.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.liveness.fenced.is_some()
    }

    /// Its state as operators see it: why it is fenced, or else its intended state.
    #[must_use]
    pub fn state_name(&self) -> &'static str {
        self.liveness.fenced.map_or(self.state.name(), FenceReason::name)
    }

    /// The address for other nodes, if it has one.
    #[must_use]
    pub fn cluster_endpoint(&self) -> Option<&ListenerEndpoint> {
        self.endpoint(CLUSTER_LISTENER)
    }

    /// The same as `host:port`.
    #[must_use]
    pub fn cluster_address(&self) -> Option<String> {
        let endpoint = self.cluster_endpoint()?;
        Some(Endpoint { host: endpoint.host.clone(), port: endpoint.port }.to_string())
    }

    /// The advertised address of the listener `name`.
    #[must_use]
    pub fn endpoint(&self, name: &str) -> Option<&ListenerEndpoint> {
        self.listeners.iter().find(|listener| listener.name == name)
    }
}

/// The shard of a partition: a cache of what the shards' logs decide (design section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionRoute {
    /// The shard that carries it.
    pub shard: ShardId,
    /// Leader epoch = this + the shard's term.
    pub epoch_base: i32,
    /// Metadata index of the intent that assigned it to the shard.
    pub intent: RaftIndex,
}

/// One topic.
#[derive(Debug, Clone)]
pub struct Topic {
    /// Its name.
    pub name: Arc<str>,
    /// Its id: never zero, a new one when a topic is created again under the same name.
    pub id: Uuid,
    /// True for the broker's own topics.
    pub internal: bool,
    /// The configuration in force: overrides over this node's defaults. Not replicated state.
    pub config: Arc<TopicConfig>,
    /// The values set for this topic, by Kafka's names.
    pub overrides: Arc<BTreeMap<String, String>>,
    /// By partition number.
    pub partitions: Arc<Vec<PartitionRoute>>,
}

impl Topic {
    /// The route of partition `index`.
    #[must_use]
    pub fn route(&self, index: i32) -> Option<&PartitionRoute> {
        self.partitions.get(usize::try_from(index).ok()?)
    }

    /// The numbers and routes of the partitions that a shard carries.
    pub fn routed_to(&self, shard: ShardId) -> impl Iterator<Item = (i32, &PartitionRoute)> {
        (0..).zip(self.partitions.iter()).filter(move |(_, route)| route.shard == shard)
    }

    /// The id of partition `index`, which need not exist.
    #[must_use]
    pub fn partition(&self, index: i32) -> PartitionId {
        PartitionId { topic: self.id, index }
    }

    /// Number of partitions.
    #[must_use]
    pub fn partition_count(&self) -> i32 {
        i32::try_from(self.partitions.len()).unwrap_or(i32::MAX)
    }
}

/// What a shard is to do with partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IntentKind {
    /// Carry them from now on.
    Adopt,
    /// Remove them; their topic was deleted.
    Drop,
}

/// The key of an intent; ordered so that the intents of one shard are adjacent, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IntentKey {
    /// The shard that is to act.
    pub shard: ShardId,
    /// Metadata index of the command that created it; every entry that carries it out names this index.
    pub index: RaftIndex,
    /// The topic of the partitions.
    pub topic: Uuid,
}

/// A change of ownership that a shard has not reported as ended. It ends only by Done or Abort in the shard's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// What to do.
    pub kind: IntentKind,
    /// The partitions' numbers and, for an adoption, their epoch bases.
    pub partitions: Vec<(i32, i32)>,
}

/// The metadata at one index of the metadata group.
#[derive(Debug, Clone, Default)]
pub struct MetadataImage {
    /// Index of the last entry that is in it.
    pub index: RaftIndex,
    /// The cluster's id: 22 characters, minted once. Empty before bootstrap.
    pub cluster_id: Arc<str>,
    /// The feature level in force, which every registered node understands: code that writes a format of a new release
    /// checks this level first.
    pub level: FeatureLevel,
    /// Nodes by id.
    pub nodes: Arc<BTreeMap<NodeId, NodeRecord>>,
    /// Topics by name.
    pub topics: SharedMap<Arc<str>, Arc<Topic>>,
    /// Topics by id.
    pub topics_by_id: SharedMap<Uuid, Arc<Topic>>,
    /// Shards by id, the metadata group included.
    pub shards: Arc<BTreeMap<ShardId, Arc<ShardRecord>>>,
    /// The intents that shards have not reported as ended.
    pub intents: SharedMap<IntentKey, Arc<Intent>>,
    /// Dynamic broker settings: for all nodes (`None`) and for one.
    pub broker_configs: Arc<BTreeMap<Option<NodeId>, BTreeMap<String, String>>>,
    /// The configs of groups, by their ids.
    pub group_configs: Arc<BTreeMap<String, BTreeMap<String, String>>>,
    /// What subscriptions of client metrics say, by their names.
    pub client_metrics: Arc<BTreeMap<String, BTreeMap<String, String>>>,
    /// The newest steps of the balancer, [`ACTIONS_KEPT`] at the most, by number.
    pub actions: Arc<BTreeMap<u64, Arc<ActionRecord>>>,
    /// The configuration of this node, dynamic settings included. Not replicated state.
    pub config: Arc<Config>,
    /// Partitions carried by each shard.
    pub partitions_by_shard: Arc<BTreeMap<ShardId, u64>>,
    /// The first producer id that no block contains.
    pub next_producer_id: i64,
    /// The first replica id that was never used.
    pub next_replica_id: u64,
    /// The first shard id that was never used.
    pub next_shard_id: u64,
    /// Rolling checksum over all changes up to `index`: equal on all nodes (I6).
    pub checksum: u64,
}

impl MetadataImage {
    /// True if there is a topic of this name with this partition.
    #[must_use]
    pub fn has_partition(&self, topic: &str, index: i32) -> bool {
        self.topic(topic).is_some_and(|topic| topic.route(index).is_some())
    }

    /// The topic called `name`.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(name)
    }

    /// The topic with the id `id`.
    #[must_use]
    pub fn topic_by_id(&self, id: &Uuid) -> Option<&Arc<Topic>> {
        self.topics_by_id.get(id)
    }

    /// The shard `id`.
    #[must_use]
    pub fn shard(&self, id: ShardId) -> Option<&Arc<ShardRecord>> {
        self.shards.get(&id)
    }

    /// Number of nodes that the cluster has, or will have once all founders are registered.
    #[must_use]
    pub fn expected_nodes(&self) -> usize {
        let founders = self.shards.get(&ShardId::METADATA).map_or(0, |shard| shard.replicas.len());
        self.nodes.len().max(founders)
    }

    /// The open intents of `shard`, oldest first.
    pub fn intents_of(&self, shard: ShardId) -> impl Iterator<Item = (&IntentKey, &Arc<Intent>)> {
        let index = self.intents.position(&IntentKey { shard, index: RaftIndex(0), topic: Uuid::nil() });
        self.intents.iter_at(index).take_while(move |(key, _)| key.shard == shard)
    }

    /// Metadata index of the oldest open intent of `shard`.
    #[must_use]
    pub fn first_intent_of(&self, shard: ShardId) -> Option<RaftIndex> {
        self.intents_of(shard).map(|(key, _)| key.index).next()
    }

    /// The split of `parent` that was not reported as done, with the shard that it makes; there is one at most.
    #[must_use]
    pub fn open_split_of(&self, parent: ShardId) -> Option<(&Arc<ShardRecord>, &SplitRecord)> {
        self.open_splits().find(|(_, split)| split.parent == parent)
    }

    /// The splits that were not reported as done, oldest first, with the shards that they make.
    pub fn open_splits(&self) -> impl Iterator<Item = (&Arc<ShardRecord>, &SplitRecord)> {
        let open = |record: &&Arc<ShardRecord>| record.is_being_split_off();
        self.shards.values().filter(open).filter_map(|record| Some((record, record.split.as_ref()?)))
    }

    /// True if a split of the shard, or the one that makes it, was not reported as done: its replicas stay as they are.
    #[must_use]
    fn is_splitting(&self, shard: ShardId) -> bool {
        self.open_splits().any(|(child, split)| child.id == shard || split.parent == shard)
    }

    /// The merges under way, with the shards that are absorbed.
    pub fn merges(&self) -> impl Iterator<Item = (&Arc<ShardRecord>, &MergeRecord)> {
        self.shards.values().filter_map(|record| Some((record, record.merge.as_ref()?)))
    }

    /// The merges that the log of the survivor has not carried out, with the shards that are absorbed.
    pub fn open_merges(&self) -> impl Iterator<Item = (&Arc<ShardRecord>, &MergeRecord)> {
        self.merges().filter(|(_, merge)| merge.phase != MergePhase::Drain)
    }

    /// The merge by which a shard takes over another one, until its log has done so.
    #[must_use]
    pub fn open_merge_into(&self, survivor: ShardId) -> Option<(&Arc<ShardRecord>, &MergeRecord)> {
        self.open_merges().find(|(_, merge)| merge.survivor == survivor)
    }

    /// True if the shard is being split or merged: its replicas stay as they are.
    #[must_use]
    pub fn is_resizing(&self, shard: ShardId) -> bool {
        let is_absorbed = self.shard(shard).is_some_and(|record| record.merge.is_some());
        is_absorbed || self.open_merge_into(shard).is_some() || self.is_splitting(shard)
    }

    /// True if a node is registered and fenced.
    #[must_use]
    pub fn is_fenced(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(NodeRecord::is_fenced)
    }

    /// True if a node may get replicas, and lead.
    #[must_use]
    pub fn takes_replicas(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(NodeRecord::takes_replicas)
    }

    /// The preferred leader of a shard: the first replica that is not on a drained node.
    #[must_use]
    pub fn preferred_leader<'a>(&self, shard: &'a ShardRecord) -> Option<&'a ReplicaRecord> {
        let emptied = |node: &NodeRecord| !node.takes_replicas();
        let stays = |replica: &&ReplicaRecord| !self.nodes.get(&replica.node).is_some_and(emptied);
        shard.replicas.iter().find(stays).or(shard.replicas.first())
    }

    /// Replicas of the metadata group that are learners: those on nodes that are drained. As with other shards, a
    /// drained node keeps what no other node could take over: with fewer than three voters none could fail.
    #[must_use]
    pub fn observers(&self) -> BTreeSet<ReplicaId> {
        let Some(record) = self.shard(ShardId::METADATA) else { return BTreeSet::new() };
        let on = |state: NodeState| {
            let is_on =
                move |replica: &&ReplicaRecord| self.nodes.get(&replica.node).is_some_and(|node| node.state == state);
            record.replicas.iter().filter(is_on).map(|replica| replica.id)
        };
        let mut observers: BTreeSet<_> = on(NodeState::Leaving).collect();
        let voters = record.replicas.len() - observers.len();
        observers.extend(on(NodeState::Draining).take(voters.saturating_sub(METADATA_VOTERS_MIN)));
        if observers.len() < record.replicas.len() { observers } else { BTreeSet::new() }
    }

    /// The node's replica of the metadata, if the node is to be removed and holds no other replica.
    #[must_use]
    pub fn decommissioned_replica(&self, node: NodeId) -> Option<ReplicaId> {
        let metadata = self.shard(ShardId::METADATA).filter(|_| self.is_decommissioned(node))?;
        metadata.members().filter(|replica| replica.node == node).map(|replica| replica.id).max()
    }

    /// True if the node is to be removed and holds no replicas of other shards any more. That is final: its replica of
    /// the metadata may be gone, and a replica id that is gone must never vote again.
    #[must_use]
    pub fn is_decommissioned(&self, node: NodeId) -> bool {
        let leaves = self.nodes.get(&node).is_some_and(|record| record.state == NodeState::Leaving);
        let others = self.shards.values().filter(|shard| shard.id != ShardId::METADATA);
        leaves && others.flat_map(|shard| shard.members()).all(|replica| replica.node != node)
    }

    /// The nodes that hold replicas of partition `index` of `topic`, preferred leader first.
    #[must_use]
    pub fn replica_nodes(&self, topic: &Topic, index: i32) -> Vec<NodeId> {
        topic
            .route(index)
            .and_then(|route| self.shards.get(&route.shard))
            .map(|shard| shard.replicas.iter().map(|replica| replica.node).collect())
            .unwrap_or_default()
    }

    /// Number of replicas of `topic`'s first partition: what Kafka calls its replication factor.
    #[must_use]
    pub fn replication_factor(&self, topic: &Topic) -> i16 {
        i16::try_from(self.replica_nodes(topic, 0).len()).unwrap_or(i16::MAX)
    }

    /// Number of partitions of all topics.
    #[must_use]
    pub fn partition_count(&self) -> u64 {
        self.partitions_by_shard.values().sum()
    }
}
