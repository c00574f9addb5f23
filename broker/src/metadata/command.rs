//! The content of an entry of the metadata group: a list of commands, applied in order.
//!
//!  | version u8 | decided on u64 | count varint | command | command | ...        command: | tag u8 | fields |
//!
//! - The entry contains the index that it was decided on: if another leader's entry came between, all of it is refused.
//!   0.2.0 wrote version 1, without that index; its clusters had one node, so no other leader.
//! - A command contains the complete decision (ids, shards, values): apply checks it against the state and accepts or
//!   refuses it whole.
//!
//! Tags are never reused. Golden: `tests::the_format_does_not_change`.

use std::collections::BTreeMap;

use bytes::Bytes;
use ottla_protocol::ids::NodeId;
use ottla_storage::ids::{RaftIndex, ReplicaId};
use uuid::Uuid;

use super::action::{self, ActionRecord};
use super::fields::{Registered, RegisteredWithLevels};
use super::image::{IntentKey, NodeRecord, NodeState, ReplicaRecord, ShardId, ShardKind, SplitRecord};
use super::liveness::{self, Liveness};
use super::merge_record::{MergeRecord, MergeStep};
use super::requests::{CLIENT_METRICS, GROUP_CONFIGS};
use crate::codec::{CodecError, Each, Padded, Reader, Value, Varint, Writer, record, write_list};
use crate::levels::{FeatureLevel, Levels};

/// Version of the encoding.
const VERSION: u8 = 2;
/// The version that 0.2.0 wrote.
const WITHOUT_INDEX: u8 = 1;

/// The feature level from which on new partitions get epoch bases.
pub(super) const EPOCH_BASES: FeatureLevel = FeatureLevel(5);

/// The content of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Index of the last entry in the image on which this was decided; `None` if 0.2.0 decided.
    pub decided_on: Option<RaftIndex>,
    /// The commands, in the order of their application.
    pub commands: Vec<Command>,
}

/// A shard to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewShard {
    /// Its id, never used before.
    pub id: ShardId,
    /// What it is for.
    pub kind: ShardKind,
    /// Its replicas; their ids were never used before.
    pub replicas: Vec<ReplicaRecord>,
}

/// How an intent ended, as committed in the shard's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntentEnd {
    /// Carried out.
    Done,
    /// Aborted; nothing was changed.
    Abort,
}

/// A change of the metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Sets the cluster's id. Refused when there is one.
    Bootstrap {
        /// 22 characters.
        cluster_id: String,
    },
    /// Registers a node that started. It has another tag where its feature levels differ from those of builds before
    /// levels.
    RegisterNode(NodeRecord),
    /// Records a shard; its nodes create its replicas when they see it in the image.
    AddShard(NewShard),
    /// Records a topic and the intents that its shards adopt its partitions.
    CreateTopic {
        /// Its name, not used by another topic.
        name: String,
        /// Its new id.
        id: Uuid,
        /// True for the broker's own topics.
        internal: bool,
        /// Its config overrides.
        overrides: BTreeMap<String, String>,
        /// The shard of each partition.
        shards: Vec<ShardId>,
    },
    /// Deletes a topic and records the intents that its shards drop its partitions.
    DeleteTopic {
        /// Its id.
        id: Uuid,
    },
    /// Adds partitions to a topic.
    AddPartitions {
        /// Its id.
        id: Uuid,
        /// Its number of partitions before: refused when it has another number.
        count_before: u32,
        /// The shard of each further partition.
        shards: Vec<ShardId>,
    },
    /// Sets the config overrides of a topic.
    SetTopicConfig {
        /// Its id.
        id: Uuid,
        /// All overrides from now on.
        overrides: BTreeMap<String, String>,
    },
    /// Sets dynamic broker settings, of one node or of all (`None`).
    SetBrokerConfig {
        /// The node; `None`: all nodes.
        node: Option<NodeId>,
        /// All dynamic settings from now on.
        values: BTreeMap<String, String>,
    },
    /// Sets the epoch bases of partitions that an earlier command of the same entry creates. From feature level 5 on.
    SetEpochBases {
        /// The topic's id.
        id: Uuid,
        /// The first of the partitions.
        first: u32,
        /// The base of each.
        bases: Vec<i32>,
    },
    /// Sets the configs of a group. From feature level 5 on.
    SetGroupConfig {
        /// Its id.
        group: String,
        /// All of them from now on.
        values: BTreeMap<String, String>,
    },
    /// Sets what a subscription of client metrics says. From feature level 6 on.
    SetClientMetrics {
        /// Its name.
        subscription: String,
        /// All of it from now on.
        values: BTreeMap<String, String>,
    },
    /// Records a step of the balancer that an earlier command of the same entry is. From feature level 6 on.
    RecordAction(ActionRecord),
    /// Allocates a block of producer ids.
    AllocateProducerIds {
        /// Number of ids.
        count: u32,
    },
    /// A shard's leader reports the end of an intent.
    EndIntent {
        /// The intent.
        key: IntentKey,
        /// How it ended.
        end: IntentEnd,
    },
    /// Sets the intended replicas of a shard; its other replicas leave.
    SetReplicas {
        /// The shard.
        shard: ShardId,
        /// Its intended replicas before: refused when it has others.
        before: Vec<ReplicaId>,
        /// All intended replicas from now on; the ids of new ones were never used before.
        replicas: Vec<ReplicaRecord>,
    },
    /// A shard's leader reports that the members are the intended ones and that these replicas are no members any more.
    ForgetReplicas {
        /// The shard.
        shard: ShardId,
        /// Its members: refused when its intended replicas are others.
        reached: Vec<ReplicaId>,
        /// Those that left.
        left: Vec<ReplicaId>,
    },
    /// Sets the intended state of a node.
    SetNodeState {
        /// The node.
        node: NodeId,
        /// Its new state.
        state: NodeState,
    },
    /// Removes a node. Refused while a replica is recorded on it.
    RemoveNode {
        /// The node.
        node: NodeId,
    },
    /// Sets the feature level in force. Refused while a registered node does not understand it.
    SetFeatureLevel {
        /// The new level.
        level: FeatureLevel,
    },
    /// Records a shard that a split of another one makes, on the same nodes. From feature level 3 on.
    SplitShard {
        /// The shard that is split.
        parent: ShardId,
        /// The new shard; its replicas stand in the order of the parent's.
        child: NewShard,
        /// The partitions that it takes, by topic.
        partitions: Vec<(Uuid, Vec<i32>)>,
    },
    /// The parent's leader reports that a split is carried out: its partitions are the child's. From feature level 3 on.
    EndSplit {
        /// The new shard.
        child: ShardId,
        /// An index of the parent's log up to which the split is carried out.
        at: RaftIndex,
    },
    /// A step of a merge of two shards. From feature level 4 on.
    Merge(MergeStep),
    /// Removes a shard that carries nothing. From feature level 4 on.
    DropShard {
        /// The shard.
        shard: ShardId,
    },
    /// Fences or unfences a node. From feature level 2 on.
    SetNodeLiveness {
        /// The node.
        node: NodeId,
        /// Its liveness from now on.
        liveness: Liveness,
    },
}

impl Command {
    /// The feature level from which on it is written: a node that does not understand this level could not decode it.
    pub(super) fn level(&self) -> FeatureLevel {
        match self {
            Self::SetNodeLiveness { .. } => liveness::LEVEL,
            Self::SplitShard { .. } | Self::EndSplit { .. } => SplitRecord::LEVEL,
            Self::Merge(_) | Self::DropShard { .. } => MergeRecord::LEVEL,
            Self::SetGroupConfig { .. } => GROUP_CONFIGS,
            Self::SetEpochBases { .. } => EPOCH_BASES,
            Self::SetClientMetrics { .. } => CLIENT_METRICS,
            Self::RecordAction(_) => action::KEPT_FROM,
            _ => FeatureLevel::FIRST,
        }
    }
}

/// Encodes the commands of one entry that were decided on the image at this index.
#[must_use]
pub fn encode(decided_on: RaftIndex, commands: &[Command]) -> Bytes {
    let mut w = Writer::default();
    w.u8(VERSION).u64(decided_on.0);
    write_list(&mut w, commands.iter(), |w, command| command.write(w));
    w.finish()
}

/// Bytes that `command` takes in an entry.
#[must_use]
pub fn encoded_size(command: &Command) -> usize {
    let mut w = Writer::default();
    command.write(&mut w);
    w.len()
}

/// Decodes the commands of one entry.
///
/// # Errors
/// When the bytes were not written by [`encode`], or by a newer release's.
pub fn decode(bytes: &[u8]) -> Result<Decision, CodecError> {
    let old = bytes.first() == Some(&WITHOUT_INDEX);
    let mut r = Reader::of_version(bytes, if old { WITHOUT_INDEX } else { VERSION })?;
    let decided_on = if old { None } else { Some(RaftIndex(r.u64("index")?)) };
    let commands = Vec::read(&mut r, "command")?;
    r.end()?;
    Ok(Decision { decided_on, commands })
}

record! {
    enum Command {
        1 Bootstrap { cluster_id },
        2 RegisterNode(node: Registered) if node.levels == Levels::FIRST,
        15 RegisterNode(node: RegisteredWithLevels),
        3 AddShard(shard),
        4 CreateTopic { name, id, internal, overrides, shards: Each<Varint> },
        5 DeleteTopic { id },
        6 AddPartitions { id, count_before: Varint, shards: Each<Varint> },
        7 SetTopicConfig { id, overrides },
        8 SetBrokerConfig { node: Padded<-1>, values },
        9 AllocateProducerIds { count: Varint },
        10 EndIntent { key, end },
        11 SetReplicas { shard: Varint, before, replicas },
        12 ForgetReplicas { shard: Varint, reached, left },
        13 SetNodeState { node, state },
        14 RemoveNode { node },
        16 SetFeatureLevel { level },
        17 SetNodeLiveness { node, liveness },
        18 SplitShard { parent: Varint, child, partitions },
        19 EndSplit { child: Varint, at: Varint },
        20 Merge(step),
        21 DropShard { shard: Varint },
        22 SetGroupConfig { group, values },
        23 SetEpochBases { id, first: Varint, bases },
        24 SetClientMetrics { subscription, values },
        25 RecordAction(action),
    }
    NewShard { id: Varint, kind, replicas }
    enum IntentEnd { 0 Done, 1 Abort }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;
    use crate::metadata::action::{Action, Change, Done};
    use crate::metadata::image::{DirectoryRecord, ListenerEndpoint};
    use crate::metadata::liveness::FenceReason;

    fn any_uuid() -> impl Strategy<Value = Uuid> {
        any::<u128>().prop_map(Uuid::from_u128)
    }

    fn any_values() -> impl Strategy<Value = BTreeMap<String, String>> {
        btree_map("[a-z.]{1,20}", "\\PC{0,20}", 0..5)
    }

    fn any_levels() -> impl Strategy<Value = Levels> {
        (1_i16..3, 0_i16..3)
            .prop_map(|(oldest, more)| Levels { oldest: FeatureLevel(oldest), newest: FeatureLevel(oldest + more) })
    }

    fn any_node() -> impl Strategy<Value = NodeRecord> {
        let listener = ("[A-Z]{1,8}", "[a-z.]{0,12}", any::<u16>()).prop_map(|(name, host, port)| ListenerEndpoint {
            name,
            host,
            port,
        });
        let directory = (any_uuid(), "[a-z/]{1,12}", any::<u64>()).prop_map(|(id, path, free_bytes)| DirectoryRecord {
            id,
            path,
            free_bytes,
        });
        let listed = (vec(listener, 0..3), vec(directory, 0..3));
        (any::<i32>(), proptest::option::of("[a-z]{0,5}"), listed, any::<u64>(), any_levels()).prop_map(
            |(id, rack, (listeners, directories), epoch, levels)| NodeRecord {
                id: NodeId(id),
                rack,
                listeners,
                directories,
                version: "0.1.0".into(),
                levels,
                epoch: RaftIndex(epoch),
                state: NodeState::Active,
                liveness: Liveness::default(),
            },
        )
    }

    fn any_kind() -> impl Strategy<Value = ShardKind> {
        prop_oneof![
            Just(ShardKind::Metadata),
            (any::<i16>(), any::<bool>()).prop_map(|(factor, pinned)| ShardKind::Pool { factor, pinned }),
            Just(ShardKind::ConsumerOffsets),
            Just(ShardKind::TransactionState),
        ]
    }

    fn any_reason() -> impl Strategy<Value = FenceReason> {
        use FenceReason::{SessionExpired, Starting, Stopped};
        prop_oneof![Just(SessionExpired), Just(Stopped), Just(Starting)]
    }

    fn any_key() -> impl Strategy<Value = IntentKey> {
        (any::<u64>(), any::<u64>(), any_uuid()).prop_map(|(shard, index, topic)| IntentKey {
            shard: ShardId(shard),
            index: RaftIndex(index),
            topic,
        })
    }

    fn any_action() -> impl Strategy<Value = ActionRecord> {
        (any::<i64>(), any::<u64>(), vec(any::<i32>(), 0..4), "\\PC{0,20}").prop_map(|(at_ms, shard, nodes, reason)| {
            let nodes: Vec<_> = nodes.into_iter().map(NodeId).collect();
            let change = Change::Replicas { shard: ShardId(shard), before: Vec::new(), nodes: nodes.clone() };
            let done = Done { at_ms, action: Action { change, reason } };
            ActionRecord { done, left: nodes, topic: None }
        })
    }

    fn any_command() -> impl Strategy<Value = Command> {
        let shards = || vec(any::<u64>().prop_map(ShardId), 0..20);
        let replica = || {
            (any::<u64>(), any::<i32>(), any_uuid()).prop_map(|(id, node, directory)| ReplicaRecord {
                id: ReplicaId(id),
                node: NodeId(node),
                directory,
            })
        };
        let ids = || vec(any::<u64>().prop_map(ReplicaId), 0..4);
        prop_oneof![
            "[a-zA-Z0-9_-]{22}".prop_map(|cluster_id| Command::Bootstrap { cluster_id }),
            any_node().prop_map(Command::RegisterNode),
            (any::<u64>(), any_kind(), vec(replica(), 0..4))
                .prop_map(|(id, kind, replicas)| Command::AddShard(NewShard { id: ShardId(id), kind, replicas })),
            ("[a-z]{1,9}", any_uuid(), any::<bool>(), any_values(), shards()).prop_map(
                |(name, id, internal, overrides, shards)| Command::CreateTopic {
                    name,
                    id,
                    internal,
                    overrides,
                    shards
                }
            ),
            any_uuid().prop_map(|id| Command::DeleteTopic { id }),
            (any_uuid(), any::<u32>(), shards()).prop_map(|(id, count_before, shards)| Command::AddPartitions {
                id,
                count_before,
                shards
            }),
            (any_uuid(), any_values()).prop_map(|(id, overrides)| Command::SetTopicConfig { id, overrides }),
            (proptest::option::of(any::<i32>().prop_map(NodeId)), any_values())
                .prop_map(|(node, values)| Command::SetBrokerConfig { node, values }),
            ("\\PC{0,20}", any_values()).prop_map(|(group, values)| Command::SetGroupConfig { group, values }),
            ("\\PC{0,20}", any_values())
                .prop_map(|(subscription, values)| Command::SetClientMetrics { subscription, values }),
            any_action().prop_map(Command::RecordAction),
            (any_uuid(), any::<u32>(), vec(any::<i32>(), 0..5)).prop_map(|(id, first, bases)| Command::SetEpochBases {
                id,
                first,
                bases
            }),
            any::<u32>().prop_map(|count| Command::AllocateProducerIds { count }),
            (any_key(), any::<bool>()).prop_map(|(key, done)| Command::EndIntent {
                key,
                end: if done { IntentEnd::Done } else { IntentEnd::Abort }
            }),
            (any::<u64>(), ids(), vec(replica(), 0..4)).prop_map(|(shard, before, replicas)| Command::SetReplicas {
                shard: ShardId(shard),
                before,
                replicas
            }),
            (any::<u64>(), ids(), ids()).prop_map(|(shard, reached, left)| Command::ForgetReplicas {
                shard: ShardId(shard),
                reached,
                left
            }),
            (any::<i32>(), prop_oneof![Just(NodeState::Active), Just(NodeState::Draining), Just(NodeState::Leaving)])
                .prop_map(|(node, state)| Command::SetNodeState { node: NodeId(node), state }),
            any::<i32>().prop_map(|node| Command::RemoveNode { node: NodeId(node) }),
            any::<i16>().prop_map(|level| Command::SetFeatureLevel { level: FeatureLevel(level) }),
            (any::<i32>(), proptest::option::of(any_reason()), any::<i64>()).prop_map(|(node, fenced, since_ms)| {
                Command::SetNodeLiveness { node: NodeId(node), liveness: Liveness { fenced, since_ms } }
            }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(commands in vec(any_command(), 0..10)) {
            let decided_on = Some(RaftIndex(9));
            prop_assert_eq!(decode(&encode(RaftIndex(9), &commands)), Ok(Decision { decided_on, commands }));
        }

        #[test]
        fn cut_or_foreign_bytes_are_an_error_and_never_a_panic(commands in vec(any_command(), 1..5), keep in any::<prop::sample::Index>(), noise in vec(any::<u8>(), 0..200)) {
            let whole = encode(RaftIndex(9), &commands);
            let cut = keep.index(whole.len());
            prop_assert!(decode(&whole[..cut]).is_err());
            let _ = decode(&noise);
        }
    }

    #[test]
    fn the_format_does_not_change() {
        let overrides = BTreeMap::from([("retention.ms".to_owned(), "1000".to_owned())]);
        let command = Command::CreateTopic {
            name: "ab".into(),
            id: Uuid::from_u128(7),
            internal: false,
            overrides,
            shards: vec![ShardId(1), ShardId(300)],
        };
        let expected: Vec<u8> = [
            &[2, 2, 1, 0, 0, 0, 0, 0, 0, 1, 4, 2][..],
            b"ab",
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 1, 12],
            b"retention.ms",
            &[4],
            b"1000",
            &[2, 1, 0xac, 2],
        ]
        .concat();
        assert_eq!(encode(RaftIndex(258), std::slice::from_ref(&command)).as_ref(), expected.as_slice());
        let of_0_2_0 = [&[1][..], &expected[9..]].concat();
        assert_eq!(decode(&of_0_2_0), Ok(Decision { decided_on: None, commands: vec![command] }));
    }
}
