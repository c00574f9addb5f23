//! The encoding of controller requests that a node forwards to the leader of the metadata group, and of the responses.
//!
//!  request:  | version u8 | session u64 | number u64 | floor u64 | term u64 | kind u8 | fields |
//!  response: | version u8 | index u64 | outcome u8 | fields |
//!
//! Both versions grow together with the fields. Decoding never panics. May not know: which node sends a request, and
//! how it is carried out.

use bytes::Bytes;
use ottla_storage::ids::RaftIndex;

use super::action::{DatedStep, UndatedStep};
use super::balance::LoadReport;
use super::decide::{ControllerRequest, ControllerResponse};
use super::error::MetadataError;
use super::fields::Registered;
use super::registration::NodeRegistration;
use super::requests::{
    ConfigChange, ConfigOp, ConfigOwner, CreatedTopic, FeatureUpdate, InternalTopic, NewPartitions, NewTopic, Nodes,
    TopicName, UpgradeType,
};
use super::sessions::Heartbeat;
use crate::codec::{
    CodecError, Encoding, Reader, TagOrZero, Value, Varint, Writer, decode_version, encode_version, is_default, record,
};

/// Version of the encoding.
const VERSION: u8 = 1;

/// What the leader is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RequestKind {
    /// Return the index up to which everything is committed.
    ReadIndex,
    /// Return the progress of the group's members.
    Quorum,
    /// Make a change, or (`validate_only`) check whether it would be made.
    Change { request: ControllerRequest, validate_only: bool },
    /// Keep the sender's session alive.
    Heartbeat(Heartbeat),
    /// Take in what the sender's shards have to do.
    Load(LoadReport),
    /// Return what the balancer plans and did; `apply`: carry the plan out, also where that is disabled.
    Balance { apply: bool },
}

/// A request to the leader of one term; it is handled at most once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ForwardedRequest {
    /// Random id of the sender's process: a new one at each start.
    pub(super) session: u64,
    /// Counts the session's requests.
    pub(super) number: u64,
    /// The smallest number in flight: no response to a smaller one is expected, so none of them is handled any more.
    pub(super) floor: u64,
    /// The term of the leader that the request is for.
    pub(super) term: u64,
    pub(super) kind: RequestKind,
}

/// The leader's response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ForwardedResponse {
    /// The node that gets the response applies everything up to here before it returns the response to its caller.
    pub(super) index: RaftIndex,
    pub(super) outcome: Result<ControllerResponse, MetadataError>,
}

impl ForwardedRequest {
    pub(super) fn encode(&self) -> Bytes {
        encode_version(VERSION, self)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        decode_version(VERSION, bytes, "request")
    }
}

impl ForwardedResponse {
    pub(super) fn encode(&self) -> Bytes {
        encode_version(VERSION, self)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        decode_version(VERSION, bytes, "response")
    }
}

record! {
    ForwardedRequest { session, number, floor, term, kind }
    enum RequestKind {
        0 ReadIndex,
        1 Change { validate_only, request },
        2 Quorum,
        3 Heartbeat(heartbeat),
        4 Load(report),
        5 Balance { apply },
    }
    enum ControllerRequest {
        1 CreateTopic { id, topic },
        2 EnsureInternal { id, topic },
        3 DeleteTopic[TopicName::Name](name),
        4 DeleteTopic[TopicName::Id](id),
        5 CreatePartitions(requested),
        6 ChangeConfig(change),
        7 AllocateProducerIds,
        8 EndIntents(intents),
        9 RegisterNode(registration),
        10 ChangeReplicas { shard, nodes },
        11 ForgetReplicas { shard, reached, left },
        12 Drain { drain, nodes },
        13 Unregister(node),
        14 Balance,
        15 UpdateFeatures(features),
        16 SetLiveness(change),
        17 SplitShard { parent, partitions },
        18 EndSplit { child, at },
        19 Merge(step),
        20 Rebalance(step: UndatedStep) if step.at_ms == 0,
        21 Rebalance(step: DatedStep),
        22 ChangeDirectory { shard, node, directory },
    }
    NewTopic { name, partitions, factor, assignments, configs }
    enum InternalTopic { 0 ConsumerOffsets, 1 TransactionState }
    NewPartitions { topic, count, assignments }
    ConfigChange { owner, ops, replace }
    enum ConfigOwner { 0 Topic(name), 1 Node(node), 2 AllNodes, 3 Group(name), 4 ClientMetrics(name) }
    enum ConfigOp { 0 Set(value), 1 Delete, 2 Append(value), 3 Subtract(value) }
    enum Nodes { 0 One(node), 1 Zone(zone) }
    FeatureUpdate { feature, level, kind: TagOrZero }
    enum UpgradeType { 1 Upgrade, 2 SafeDowngrade, 3 UnsafeDowngrade }
    NodeRegistration as RegistrationWithoutLevels { node: Registered, cluster_id, founders, lost }

    ForwardedResponse { index, outcome }
    enum ControllerResponse {
        0 Done,
        1 Topic(topic),
        2 Deleted { name, id },
        3 ProducerIds { first, count: Varint },
        4 Quorum(quorum),
        5 Shard(shard),
        6 Balance(status),
    }
    CreatedTopic { name, id, partitions, factor, overrides }
    enum MetadataError {
        0 UnknownTopic,
        1 UnknownTopicId,
        2 TopicExists(reason),
        3 InvalidTopic(reason),
        4 InvalidPartitions(reason),
        5 InvalidReplicationFactor(reason),
        6 InvalidReplicaAssignment(reason),
        7 InvalidConfig(reason),
        8 PolicyViolation(reason),
        9 InvalidRequest(reason),
        10 DeletionDisabled,
        11 NotController { leader },
        12 TimedOut,
        13 Overloaded,
        14 Stopped(reason),
        15 NoReassignmentInProgress,
        16 NotRegistered(reason),
        17 InvalidUpdateVersion(reason),
        18 UnsupportedVersion(reason),
    }
}

/// By hand: the levels of the node were added later, so that they stand at the end of the request, and are absent where
/// they are those that older builds assume.
impl Value for NodeRegistration {
    fn write(&self, w: &mut Writer) {
        RegistrationWithoutLevels::write(self, w);
        if !is_default(&self.node.levels) {
            self.node.levels.write(w);
        }
    }

    fn read(r: &mut Reader<'_>, what: &'static str) -> Result<Self, CodecError> {
        let mut registration = RegistrationWithoutLevels::read(r, what)?;
        if !r.is_empty() {
            registration.node.levels = Value::read(r, "levels")?;
        }
        Ok(registration)
    }
}
