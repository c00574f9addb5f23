//! The records of the metadata group's checkpoint, and the record that a shard's replica gets about itself when it is
//! created.
//!
//!  key                          value (each begins with a version byte)
//!  'c'                          cluster id, counters, checksum
//!  'n' node i32                 node
//!  's' shard u64                shard
//!  't' topic id                 topic: name, internal, overrides, routes
//!  'i' shard u64 index u64 id   intent
//!  'b' named u8 node i32        dynamic broker settings
//!  'g' group                    configs of a group
//!  'm' subscription             what a subscription of client metrics says
//!  'a' number u64               a step of the balancer
//!
//! Key letters are never reused. A field that a later release adds is at the end, and is absent where it has its
//! default.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ottla_protocol::ids::NodeId;
use ottla_storage::ids::{RaftIndex, ReplicaId};
use uuid::Uuid;

use super::action::ActionRecord;
use super::fields::Registered;
use super::image::{
    Intent, IntentKey, IntentKind, NodeRecord, NodeState, PartitionRoute, ReplicaRecord, ShardId, ShardKind,
    ShardRecord, SplitRecord, SplitReplica,
};
use super::merge_record::{MergePhase, MergeRecord, MergeReplica, MergeStep, SealReport};
use crate::codec::{CodecError, Encoding, Padded, Reader, Value, Varint, Writer, decode, encode, record};
use crate::levels::FeatureLevel;

const VERSION: u8 = 1;

/// The cluster's id and the counters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ClusterRecord {
    pub(super) cluster_id: String,
    pub(super) next_producer_id: i64,
    pub(super) next_replica_id: u64,
    pub(super) next_shard_id: u64,
    pub(super) checksum: u64,
    pub(super) level: FeatureLevel,
}

/// A topic without the values that are local to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TopicRecord {
    pub(super) name: String,
    pub(super) id: Uuid,
    pub(super) internal: bool,
    pub(super) overrides: Arc<BTreeMap<String, String>>,
    pub(super) partitions: Arc<Vec<PartitionRoute>>,
}

/// One record of the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    Cluster(ClusterRecord),
    Node(NodeRecord),
    Shard(ShardRecord),
    Topic(TopicRecord),
    Intent(IntentKey, Intent),
    BrokerConfig(Option<NodeId>, BTreeMap<String, String>),
    GroupConfig(String, BTreeMap<String, String>),
    ClientMetrics(String, BTreeMap<String, String>),
    Action(u64, Arc<ActionRecord>),
}

/// The key of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RecordKey {
    Cluster,
    Node(NodeId),
    Shard(ShardId),
    Topic(Uuid),
    Intent(IntentKey),
    BrokerConfig(Option<NodeId>),
    GroupConfig(String),
    ClientMetrics(String),
    Action(u64),
}

record! {
    enum RecordKey {
        b'c' Cluster,
        b'n' Node(node),
        b's' Shard(shard),
        b't' Topic(topic),
        b'i' Intent(key),
        b'b' BrokerConfig(node: Padded<-1>),
        b'g' GroupConfig(group),
        b'm' ClientMetrics(subscription),
        b'a' Action(number),
    }

    ClusterRecord { cluster_id, next_producer_id, next_replica_id, next_shard_id, checksum; later level }
    // Up to 0.3.0 nodes had no state, up to 0.4.0 no liveness.
    NodeRecord as RecordedNode = Registered + { state = NodeState::Active; later levels, liveness }
    // 0.2.0 wrote the first three fields, and all its replicas were founders; 0.3.0 did not record which are new.
    ShardRecord as RecordedShard {
        kind, replicas, created, founders = all_ids(&replicas), leaving = Vec::new(), adding = Vec::new();
        later split, merge;
        without id = ShardId::default()
    }
    TopicRecord as RecordedTopic {
        name, internal, overrides, partitions;
        without id = Uuid::nil()
    }
    SplitReplica { parent: Varint, child: Varint }
    SplitRecord { parent: Varint, intent: Varint, replicas, done, partitions }
    MergeReplica { survivor, absorbed }
    MergeRecord { survivor: Varint, intent: Varint, phase, replicas, sealed }
    SealReport { index, term, checksum }
    enum MergePhase { 0 Seal, 1 Cancel, 2 Absorb, 3 Drain }
    enum MergeStep {
        0 Begin { survivor: Varint, absorbed: Varint },
        1 Sealed { absorbed: Varint, intent: Varint, sealed },
        2 Cancel { absorbed: Varint, intent: Varint },
        3 Cancelled { absorbed: Varint, intent: Varint },
        4 Absorbed { absorbed: Varint, intent: Varint, term },
        5 TakenOver { absorbed: Varint, replica },
    }
    PartitionRoute { shard: Varint, epoch_base, intent: Varint }
    Intent { kind, partitions }
    enum IntentKind { 0 Adopt, 1 Drop }
}

#[allow(clippy::ptr_arg)]
fn all_ids(replicas: &Vec<ReplicaRecord>) -> Vec<ReplicaId> {
    replicas.iter().map(|replica| replica.id).collect()
}

impl RecordKey {
    pub(super) fn encode(self) -> Bytes {
        encode(&self)
    }
}

impl Record {
    pub(super) fn key(&self) -> Bytes {
        match self {
            Self::Cluster(_) => RecordKey::Cluster,
            Self::Node(node) => RecordKey::Node(node.id),
            Self::Shard(shard) => RecordKey::Shard(shard.id),
            Self::Topic(topic) => RecordKey::Topic(topic.id),
            Self::Intent(key, _) => RecordKey::Intent(*key),
            Self::BrokerConfig(node, _) => RecordKey::BrokerConfig(*node),
            Self::GroupConfig(group, _) => RecordKey::GroupConfig(group.clone()),
            Self::ClientMetrics(subscription, _) => RecordKey::ClientMetrics(subscription.clone()),
            Self::Action(number, _) => RecordKey::Action(*number),
        }
        .encode()
    }

    pub(super) fn value(&self) -> Bytes {
        let mut w = Writer::default();
        w.u8(VERSION);
        match self {
            Self::Cluster(cluster) => cluster.write(&mut w),
            Self::Node(node) => RecordedNode::write(node, &mut w),
            Self::Shard(shard) => RecordedShard::write(shard, &mut w),
            Self::Topic(topic) => RecordedTopic::write(topic, &mut w),
            Self::Intent(_, intent) => intent.write(&mut w),
            Self::BrokerConfig(_, values) | Self::GroupConfig(_, values) | Self::ClientMetrics(_, values) => {
                values.write(&mut w);
            }
            Self::Action(_, action) => action.write(&mut w),
        }
        w.finish()
    }

    pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::of_version(value, VERSION)?;
        let record = match decode(key, "record key")? {
            RecordKey::Cluster => Self::Cluster(Value::read(&mut r, "cluster")?),
            RecordKey::Node(_) => Self::Node(RecordedNode::read(&mut r, "node")?),
            RecordKey::Shard(id) => Self::Shard(ShardRecord { id, ..RecordedShard::read(&mut r, "shard")? }),
            RecordKey::Topic(id) => Self::Topic(TopicRecord { id, ..RecordedTopic::read(&mut r, "topic")? }),
            RecordKey::Intent(key) => Self::Intent(key, Value::read(&mut r, "intent")?),
            RecordKey::BrokerConfig(node) => Self::BrokerConfig(node, Value::read(&mut r, "config values")?),
            RecordKey::GroupConfig(group) => Self::GroupConfig(group, Value::read(&mut r, "config values")?),
            RecordKey::ClientMetrics(subscription) => {
                Self::ClientMetrics(subscription, Value::read(&mut r, "config values")?)
            }
            RecordKey::Action(number) => Self::Action(number, Arc::new(Value::read(&mut r, "action")?)),
        };
        r.end()?;
        Ok(record)
    }
}

/// The shard's part of a replica's group-creation frame: enough to open the replica before the metadata is available.
///
///  | version u8 | shard u64 | kind | created u64 | founders, of the metadata group alone, or else those beside it, if any |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardCreation {
    /// The shard.
    pub shard: ShardId,
    /// What it is for.
    pub kind: ShardKind,
    /// Metadata index at which it was recorded.
    pub created: RaftIndex,
    /// For the metadata group only, which is not recorded in any metadata before it exists: its first members.
    pub founders: Vec<ReplicaRecord>,
    /// The older replicas of the shard on this node that took part when it was created: it takes the place of one of them in another data
    /// directory. One that is not named was lost before. From feature level 9 on.
    pub beside: Vec<ReplicaId>,
}

impl ShardCreation {
    /// The record of the metadata group itself.
    #[must_use]
    pub fn metadata(founders: Vec<ReplicaRecord>) -> Self {
        Self {
            shard: ShardId::METADATA,
            kind: ShardKind::Metadata,
            created: RaftIndex(0),
            founders,
            beside: Vec::new(),
        }
    }

    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::default();
        CreationWithoutFounders::write(self, w.u8(VERSION));
        if self.kind == ShardKind::Metadata {
            self.founders.write(&mut w);
        } else if !self.beside.is_empty() {
            self.beside.write(&mut w);
        }
        w.finish()
    }

    /// From bytes.
    ///
    /// # Errors
    /// When the bytes were not written by [`ShardCreation::encode`], or by a newer release's.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::of_version(bytes, VERSION)?;
        let mut creation = CreationWithoutFounders::read(&mut r, "shard")?;
        // 0.2.0 wrote no founders.
        match (creation.kind, r.is_empty()) {
            (_, true) => {}
            (ShardKind::Metadata, false) => creation.founders = Value::read(&mut r, "founders")?,
            (_, false) => creation.beside = Value::read(&mut r, "replicas beside it")?,
        }
        r.end()?;
        Ok(creation)
    }
}

record! {
    ShardCreation as CreationWithoutFounders { shard, kind, created; without founders = Vec::new(), beside = Vec::new() }
}

impl From<&ShardRecord> for ShardCreation {
    fn from(shard: &ShardRecord) -> Self {
        Self { shard: shard.id, kind: shard.kind, created: shard.created, founders: Vec::new(), beside: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::levels::Levels;
    use crate::metadata::liveness::Liveness;

    #[test]
    fn what_0_2_0_and_0_3_0_wrote_of_a_shard_is_read() {
        let replica = ReplicaRecord { id: ReplicaId(9), node: NodeId(1), directory: Uuid::from_u128(5) };
        let record = ShardRecord {
            id: ShardId(4),
            kind: ShardKind::ConsumerOffsets,
            replicas: vec![replica],
            adding: Vec::new(),
            leaving: Vec::new(),
            founders: vec![replica.id],
            created: RaftIndex(5),
            split: None,
            merge: None,
        };
        let value = Record::Shard(record.clone()).value();
        let key = Record::Shard(record.clone()).key();
        // 0.3.0 wrote founders and leaving replicas, 0.2.0 neither.
        for less in [1, 11] {
            assert_eq!(Record::decode(&key, &value[..value.len() - less]), Ok(Record::Shard(record.clone())));
        }
        let creation = ShardCreation::metadata(Vec::new());
        let bytes = creation.encode();
        assert_eq!(ShardCreation::decode(&bytes[..bytes.len() - 1]), Ok(creation));
    }

    #[test]
    fn what_0_3_0_wrote_of_a_node_is_read() {
        let node = NodeRecord {
            id: NodeId(3),
            rack: Some("a".into()),
            listeners: Vec::new(),
            directories: Vec::new(),
            version: "0.3.0".into(),
            levels: Levels::FIRST,
            epoch: RaftIndex(9),
            state: NodeState::Active,
            liveness: Liveness::default(),
        };
        let record = Record::Node(node.clone());
        let (key, value) = (record.key(), record.value());
        assert_eq!(Record::decode(&key, &value[..value.len() - 1]), Ok(record));
        for state in [NodeState::Draining, NodeState::Leaving] {
            let record = Record::Node(NodeRecord { state, ..node.clone() });
            assert_eq!(Record::decode(&record.key(), &record.value()), Ok(record));
        }
    }

    #[test]
    fn a_build_before_feature_levels_reads_the_first_and_this_one_reads_what_that_wrote() {
        let node = crate::metadata::tests::placement::node(3, None, &[]);
        let cluster = ClusterRecord { cluster_id: "c".into(), next_shard_id: 2, ..ClusterRecord::default() };
        // As 5dc1475 wrote them, before there were levels.
        let old_node = [&[1, 3, 0, 0, 0, 0, 1][..], b"0", &[0; 8], &[0, 0, 0]].concat();
        let old_cluster = [&[1, 1][..], b"c", &[0; 16], &[2], &[0; 15]].concat();
        for (record, old) in [(Record::Node(node.clone()), old_node), (Record::Cluster(cluster.clone()), old_cluster)] {
            assert_eq!(record.value(), old);
            assert_eq!(Record::decode(&record.key(), &old), Ok(record));
        }
        let levels = Levels { oldest: FeatureLevel::FIRST, newest: FeatureLevel(2) };
        for record in [
            Record::Node(NodeRecord { levels, ..node }),
            Record::Cluster(ClusterRecord { level: FeatureLevel(2), ..cluster }),
        ] {
            let (key, value) = (record.key(), record.value());
            assert!(Record::decode(&key, &value[..value.len() - 1]).is_err());
            assert_eq!(Record::decode(&key, &value), Ok(record));
        }
        let mut upside_down =
            Record::Node(NodeRecord { levels, ..crate::metadata::tests::placement::node(3, None, &[]) })
                .value()
                .to_vec();
        let end = upside_down.len();
        upside_down[end - 2] = 0;
        assert_eq!(
            Record::decode(&RecordKey::Node(NodeId(3)).encode(), &upside_down),
            Err(CodecError::Value("feature levels"))
        );
    }

    #[test]
    fn records_come_back_and_cut_ones_are_refused() {
        let key = IntentKey { shard: ShardId(3), index: RaftIndex(9), topic: Uuid::from_u128(5) };
        let route = PartitionRoute { shard: ShardId(3), epoch_base: 2, intent: RaftIndex(9) };
        let values = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let records = [
            Record::Cluster(ClusterRecord { cluster_id: "id".into(), checksum: 4, ..ClusterRecord::default() }),
            Record::Topic(TopicRecord {
                name: "t".into(),
                id: key.topic,
                internal: true,
                overrides: Arc::new(values.clone()),
                partitions: Arc::new(vec![route; 3]),
            }),
            Record::Intent(key, Intent { kind: IntentKind::Drop, partitions: vec![(0, 1), (7, 2)] }),
            Record::Shard(ShardRecord {
                id: ShardId(4),
                kind: ShardKind::ConsumerOffsets,
                replicas: vec![ReplicaRecord { id: ReplicaId(9), node: NodeId(1), directory: key.topic }],
                adding: vec![ReplicaId(9)],
                leaving: vec![ReplicaRecord { id: ReplicaId(2), node: NodeId(3), directory: key.topic }],
                founders: vec![ReplicaId(2), ReplicaId(3)],
                created: RaftIndex(5),
                split: None,
                merge: None,
            }),
            Record::BrokerConfig(None, values.clone()),
            Record::BrokerConfig(Some(NodeId(4)), values),
        ];
        for record in records {
            let (k, v) = (record.key(), record.value());
            assert_eq!(Record::decode(&k, &v), Ok(record));
            assert!(Record::decode(&k, &v[..v.len() - 1]).is_err());
            assert!(Record::decode(&k[..k.len() - 1], &v).is_err() || k.len() == 1);
        }
        let creation = ShardCreation {
            shard: ShardId(9),
            kind: ShardKind::Pool { factor: 3, pinned: true },
            created: RaftIndex(77),
            founders: Vec::new(),
            beside: Vec::new(),
        };
        let beside = ShardCreation { beside: vec![ReplicaId(3), ReplicaId(300)], ..creation.clone() };
        assert!(beside.encode().starts_with(&creation.encode()), "nothing else changes");
        assert!(ShardCreation::decode(&creation.encode()[1..]).is_err());
        let founder = ReplicaRecord { id: ReplicaId(3), node: NodeId(2), directory: key.topic };
        for creation in [creation, beside, ShardCreation::metadata(vec![founder; 2])] {
            assert_eq!(ShardCreation::decode(&creation.encode()), Ok(creation));
        }
    }
}
