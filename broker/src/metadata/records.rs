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
//!
//! Key letters are never reused. A field that a later release adds is at the end, and is absent where it has its
//! default.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ottla_protocol::ids::NodeId;
use ottla_storage::ids::RaftIndex;
use uuid::Uuid;

use super::fields::{
    read_ids, read_intent_key, read_levels_at_end, read_node, read_node_state, read_replicas, read_shard_kind,
    read_values, write_ids, write_intent_key, write_levels, write_levels_at_end, write_node, write_node_state,
    write_replicas, write_shard_kind, write_values,
};
use super::image::{
    Intent, IntentKey, IntentKind, NodeRecord, NodeState, PartitionRoute, ReplicaRecord, ShardId, ShardKind,
    ShardRecord,
};
use super::levels::FeatureLevel;
use super::liveness::Liveness;
use crate::codec::{CodecError, Reader, Writer, read_list, write_list};

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
}

pub(super) fn cluster_key() -> Bytes {
    Bytes::from_static(b"c")
}

pub(super) fn node_key(node: NodeId) -> Bytes {
    Writer::default().u8(b'n').i32(node.0).finish()
}

pub(super) fn topic_key(id: &Uuid) -> Bytes {
    Writer::default().u8(b't').uuid(id).finish()
}

pub(super) fn intent_key(key: &IntentKey) -> Bytes {
    let mut w = Writer::default();
    w.u8(b'i');
    write_intent_key(&mut w, key);
    w.finish()
}

pub(super) fn broker_config_key(node: Option<NodeId>) -> Bytes {
    Writer::default().u8(b'b').u8(u8::from(node.is_some())).i32(node.map_or(-1, |node| node.0)).finish()
}

impl Record {
    pub(super) fn key(&self) -> Bytes {
        match self {
            Self::Cluster(_) => cluster_key(),
            Self::Node(node) => node_key(node.id),
            Self::Shard(shard) => Writer::default().u8(b's').u64(shard.id.0).finish(),
            Self::Topic(topic) => topic_key(&topic.id),
            Self::Intent(key, _) => intent_key(key),
            Self::BrokerConfig(node, _) => broker_config_key(*node),
        }
    }

    pub(super) fn value(&self) -> Bytes {
        let mut w = Writer::default();
        w.u8(VERSION);
        match self {
            Self::Cluster(c) => {
                w.string(&c.cluster_id)
                    .i64(c.next_producer_id)
                    .u64(c.next_replica_id)
                    .u64(c.next_shard_id)
                    .u64(c.checksum);
                if c.level != FeatureLevel::FIRST {
                    w.i16(c.level.0);
                }
            }
            Self::Node(node) => {
                write_node(&mut w, node);
                write_node_state(&mut w, node.state);
                if node.liveness == Liveness::default() {
                    write_levels_at_end(&mut w, node.levels);
                } else {
                    write_levels(&mut w, node.levels);
                    node.liveness.write(&mut w);
                }
            }
            Self::Shard(shard) => {
                write_shard_kind(&mut w, shard.kind);
                write_replicas(&mut w, &shard.replicas);
                w.u64(shard.created.0);
                write_ids(&mut w, &shard.founders);
                write_replicas(&mut w, &shard.leaving);
                write_ids(&mut w, &shard.adding);
            }
            Self::Topic(topic) => {
                w.string(&topic.name).u8(u8::from(topic.internal));
                write_values(&mut w, &topic.overrides);
                write_list(&mut w, topic.partitions.iter(), |w, route| {
                    w.varint(route.shard.0).i32(route.epoch_base).varint(route.intent.0);
                });
            }
            Self::Intent(_, intent) => {
                w.u8(match intent.kind {
                    IntentKind::Adopt => 0,
                    IntentKind::Drop => 1,
                });
                write_list(&mut w, intent.partitions.iter(), |w, (index, base)| {
                    w.i32(*index).i32(*base);
                });
            }
            Self::BrokerConfig(_, values) => write_values(&mut w, values),
        }
        w.finish()
    }

    pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<Self, CodecError> {
        let (mut k, mut v) = (Reader::new(key), Reader::of_version(value, VERSION)?);
        let letter = k.u8("record key")?;
        let record = match letter {
            b'c' => Self::Cluster(ClusterRecord {
                cluster_id: v.string("cluster id")?,
                next_producer_id: v.i64("producer id")?,
                next_replica_id: v.u64("replica id")?,
                next_shard_id: v.u64("shard id")?,
                checksum: v.u64("checksum")?,
                level: if v.is_empty() { FeatureLevel::FIRST } else { FeatureLevel(v.i16("feature level")?) },
            }),
            b'n' => {
                k.i32("node id")?;
                let node = read_node(&mut v)?;
                // Up to 0.3.0 nodes had no state.
                let state = if v.is_empty() { NodeState::Active } else { read_node_state(&mut v)? };
                let levels = read_levels_at_end(&mut v)?;
                // Up to 0.4.0 nodes had no liveness.
                let liveness = if v.is_empty() { Liveness::default() } else { Liveness::read(&mut v)? };
                Self::Node(NodeRecord { state, levels, liveness, ..node })
            }
            b's' => {
                let id = ShardId(k.u64("shard id")?);
                Self::Shard(read_shard(id, &mut v)?)
            }
            b't' => Self::Topic(TopicRecord {
                id: k.uuid("topic id")?,
                name: v.string("topic name")?,
                internal: v.u8("internal")? != 0,
                overrides: Arc::new(read_values(&mut v)?),
                partitions: Arc::new(read_list(&mut v, "routes", read_route)?),
            }),
            b'i' => Self::Intent(read_intent_key(&mut k)?, read_intent(&mut v)?),
            b'b' => {
                let named = k.u8("node named")? != 0;
                let node = NodeId(k.i32("node id")?);
                Self::BrokerConfig(named.then_some(node), read_values(&mut v)?)
            }
            tag => return Err(CodecError::Tag("record key", tag)),
        };
        k.end()?;
        v.end()?;
        Ok(record)
    }
}

fn read_shard(id: ShardId, v: &mut Reader<'_>) -> Result<ShardRecord, CodecError> {
    let (kind, replicas) = (read_shard_kind(v)?, read_replicas(v)?);
    let created = RaftIndex(v.u64("index")?);
    // 0.2.0 wrote no more fields, and all its replicas were founders.
    let (founders, leaving) = if v.is_empty() {
        (replicas.iter().map(|replica: &ReplicaRecord| replica.id).collect(), Vec::new())
    } else {
        (read_ids(v)?, read_replicas(v)?)
    };
    // 0.3.0 did not record which replicas are new.
    let adding = if v.is_empty() { Vec::new() } else { read_ids(v)? };
    Ok(ShardRecord { id, kind, replicas, adding, leaving, founders, created })
}

fn read_route(r: &mut Reader<'_>) -> Result<PartitionRoute, CodecError> {
    Ok(PartitionRoute {
        shard: ShardId(r.varint("shard")?),
        epoch_base: r.i32("epoch base")?,
        intent: RaftIndex(r.varint("intent")?),
    })
}

fn read_intent(r: &mut Reader<'_>) -> Result<Intent, CodecError> {
    let kind = match r.u8("intent kind")? {
        0 => IntentKind::Adopt,
        1 => IntentKind::Drop,
        tag => return Err(CodecError::Tag("intent kind", tag)),
    };
    let partitions = read_list(r, "partitions", |r| Ok((r.i32("partition")?, r.i32("epoch base")?)))?;
    Ok(Intent { kind, partitions })
}

/// The shard's part of a replica's group-creation frame: enough to open the replica before the metadata is available.
///
///  | version u8 | shard u64 | kind | created u64 | founders, of the metadata group alone |
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
}

impl ShardCreation {
    /// The record of the metadata group itself.
    #[must_use]
    pub fn metadata(founders: Vec<ReplicaRecord>) -> Self {
        Self { shard: ShardId::METADATA, kind: ShardKind::Metadata, created: RaftIndex(0), founders }
    }

    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::default();
        w.u8(VERSION).u64(self.shard.0);
        write_shard_kind(&mut w, self.kind);
        w.u64(self.created.0);
        if self.kind == ShardKind::Metadata {
            write_replicas(&mut w, &self.founders);
        }
        w.finish()
    }

    /// From bytes.
    ///
    /// # Errors
    /// When the bytes were not written by [`ShardCreation::encode`], or by a newer release's.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::of_version(bytes, VERSION)?;
        let (shard, kind) = (ShardId(r.u64("shard")?), read_shard_kind(&mut r)?);
        let created = RaftIndex(r.u64("index")?);
        // 0.2.0 wrote no founders.
        let has_founders = kind == ShardKind::Metadata && !r.is_empty();
        let founders = if has_founders { read_replicas(&mut r)? } else { Vec::new() };
        let creation = Self { shard, kind, created, founders };
        r.end()?;
        Ok(creation)
    }
}

impl From<&ShardRecord> for ShardCreation {
    fn from(shard: &ShardRecord) -> Self {
        Self { shard: shard.id, kind: shard.kind, created: shard.created, founders: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::levels::Levels;
    use ottla_storage::ids::ReplicaId;

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
        let node = crate::metadata::placement_tests::node(3, None, &[]);
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
            Record::Node(NodeRecord { levels, ..crate::metadata::placement_tests::node(3, None, &[]) })
                .value()
                .to_vec();
        let end = upside_down.len();
        upside_down[end - 2] = 0;
        assert_eq!(Record::decode(&node_key(NodeId(3)), &upside_down), Err(CodecError::Value("feature levels")));
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
        };
        assert!(ShardCreation::decode(&creation.encode()[1..]).is_err());
        let founder = ReplicaRecord { id: ReplicaId(3), node: NodeId(2), directory: key.topic };
        for creation in [creation, ShardCreation::metadata(vec![founder; 2])] {
            assert_eq!(ShardCreation::decode(&creation.encode()), Ok(creation));
        }
    }
}
