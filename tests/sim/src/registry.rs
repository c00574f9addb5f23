//! The land registry of the simulated cluster: one topic over two pool shards, group offsets in a shard of their own, each
//! with a replica on every node.
//!
//! It never changes: until nodes can join, a metadata group of several nodes cannot be founded. May not know: who runs.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ottla_broker::config::TopicConfig;
use ottla_broker::metadata::{
    CONSUMER_OFFSETS, Intent, IntentKey, IntentKind, InternalTopic, MetadataImage, NodeRecord, PartitionRoute,
    ReplicaRecord, ShardId, ShardKind, ShardRecord, Topic,
};
use ottla_broker::shard::Registry;
use ottla_protocol::ids::{NodeId, PartitionId};
use ottla_storage::env::sim::SimNode;
use ottla_storage::env::watch;
use ottla_storage::ids::{RaftIndex, ReplicaId};
use uuid::Uuid;

/// The topic that clients use.
pub(crate) const TOPIC: &str = "t";
const TOPIC_ID: Uuid = Uuid::from_u128(0x7701);
const OFFSETS_ID: Uuid = Uuid::from_u128(0x7702);
/// Partitions of the topic.
pub(crate) const PARTITIONS: i32 = 6;
/// Partitions of `__consumer_offsets`.
pub(crate) const OFFSETS_PARTITIONS: i32 = 2;
const INTENT: RaftIndex = RaftIndex(10);
const OFFSETS_SHARD: ShardId = ShardId(3);
/// The shards, and what they are for.
const POOL: [ShardId; 2] = [ShardId(1), ShardId(2)];

/// All shards.
pub(crate) fn shards() -> [ShardId; 3] {
    [POOL[0], POOL[1], OFFSETS_SHARD]
}

/// The replica of a shard on a node.
pub(crate) fn replica(shard: ShardId, node: SimNode) -> ReplicaId {
    ReplicaId(shard.0 * 100 + u64::from(node.0))
}

/// The broker id of a node.
pub(crate) fn broker(node: SimNode) -> NodeId {
    NodeId(i32::try_from(node.0).unwrap_or(i32::MAX))
}

pub(crate) fn partition(index: i32) -> PartitionId {
    PartitionId { topic: TOPIC_ID, index }
}

/// The registry as one node sees it.
pub(crate) struct StaticRegistry(watch::Sender<Arc<MetadataImage>>);

impl StaticRegistry {
    /// `directory`: the id of the node's own data directory. Other nodes' are not looked at.
    pub(crate) fn new(nodes: u32, directory: Uuid) -> Self {
        Self(watch::Sender::new(Arc::new(image(nodes, directory))))
    }
}

impl Registry for StaticRegistry {
    fn image(&self) -> Arc<MetadataImage> {
        self.0.borrow().clone()
    }

    fn changes(&self) -> watch::Receiver<Arc<MetadataImage>> {
        self.0.subscribe()
    }

    fn read_index(&self) -> BoxFuture<'static, bool> {
        futures_util::future::ready(true).boxed()
    }

    fn end_intents(&self, _done: Vec<IntentKey>) -> BoxFuture<'static, bool> {
        futures_util::future::ready(true).boxed()
    }

    fn ensure_internal(&self, _topic: InternalTopic) -> BoxFuture<'static, bool> {
        futures_util::future::ready(true).boxed()
    }
}

fn image(nodes: u32, directory: Uuid) -> MetadataImage {
    let mut image = MetadataImage { index: INTENT, ..MetadataImage::default() };
    let record = |id: ShardId| {
        let kind = if id == OFFSETS_SHARD {
            ShardKind::ConsumerOffsets
        } else {
            ShardKind::Pool { factor: i16::try_from(nodes).unwrap_or(i16::MAX), pinned: false }
        };
        let place = |node| ReplicaRecord { id: replica(id, node), node: broker(node), directory };
        let replicas = (1..=nodes).map(SimNode).map(place).collect();
        (id, Arc::new(ShardRecord { id, kind, replicas, created: RaftIndex(1) }))
    };
    let known = |node: SimNode| {
        let record = NodeRecord {
            id: broker(node),
            rack: None,
            listeners: Vec::new(),
            directories: Vec::new(),
            version: String::new(),
            epoch: RaftIndex(1),
        };
        (broker(node), record)
    };
    image.nodes = Arc::new((1..=nodes).map(SimNode).map(known).collect());
    image.shards = Arc::new(shards().into_iter().map(record).collect());
    let spread = |index: i32| POOL[usize::try_from(index).unwrap_or(0) % POOL.len()];
    add_topic(&mut image, TOPIC, TOPIC_ID, (0..PARTITIONS).map(spread).collect());
    add_topic(&mut image, CONSUMER_OFFSETS, OFFSETS_ID, (0..OFFSETS_PARTITIONS).map(|_| OFFSETS_SHARD).collect());
    image
}

fn add_topic(image: &mut MetadataImage, name: &str, id: Uuid, places: Vec<ShardId>) {
    let route = |shard: &ShardId| PartitionRoute { shard: *shard, epoch_base: 0, intent: INTENT };
    let topic = Arc::new(Topic {
        name: Arc::from(name),
        id,
        internal: name == CONSUMER_OFFSETS,
        config: Arc::new(TopicConfig {
            // Records go only when somebody asks; and clients' clocks may be years from a node's.
            retention_ms: None,
            message_timestamp_after_max_ms: i64::MAX,
            ..TopicConfig::default()
        }),
        overrides: Arc::default(),
        partitions: Arc::new(places.iter().map(route).collect()),
    });
    image.topics.insert(topic.name.clone(), topic.clone());
    image.topics_by_id.insert(id, topic);
    for shard in shards() {
        let carried = (0..).zip(&places).filter(|(_, place)| **place == shard).map(|(index, _)| (index, 0));
        let intent = Intent { kind: IntentKind::Adopt, partitions: carried.collect() };
        if !intent.partitions.is_empty() {
            image.intents.insert(IntentKey { shard, index: INTENT, topic: id }, Arc::new(intent));
        }
    }
}
