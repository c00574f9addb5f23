//! The encoding of controller requests that a node forwards to the leader of the metadata group, and of the responses.
//!
//!  request:  | version u8 | session u64 | number u64 | floor u64 | term u64 | kind u8 | fields |
//!  response: | version u8 | index u64 | outcome u8 | fields |
//!
//! Both versions grow together with the fields. Decoding never panics. May not know: which node sends a request, and
//! how it is carried out.

use bytes::Bytes;
use ottla_protocol::ids::NodeId;
use ottla_storage::ids::RaftIndex;

use super::command::IntentEnd;
use super::decide::{ControllerRequest, ControllerResponse};
use super::error::MetadataError;
use super::fields::{
    read_ids, read_intent_key, read_levels_at_end, read_node, read_replicas, read_values, write_ids, write_intent_key,
    write_levels_at_end, write_node, write_replicas, write_values,
};
use super::image::{NodeRecord, ShardId};
use super::levels::FeatureLevel;
use super::liveness::LivenessChange;
use super::quorum::{read_quorum, write_quorum};
use super::registration::NodeRegistration;
use super::requests::{
    ConfigChange, ConfigOp, ConfigOwner, CreatedTopic, FeatureUpdate, InternalTopic, NewPartitions, NewTopic, Nodes,
    TopicName, UpgradeType,
};
use super::sessions::Heartbeat;
use crate::codec::{CodecError, Reader, Writer, read_list, write_list};

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
        let mut w = Writer::default();
        w.u8(VERSION).u64(self.session).u64(self.number).u64(self.floor).u64(self.term);
        match &self.kind {
            RequestKind::ReadIndex => {
                w.u8(0);
            }
            RequestKind::Quorum => {
                w.u8(2);
            }
            RequestKind::Change { request, validate_only } => {
                w.u8(1).u8(u8::from(*validate_only));
                write_request(&mut w, request);
            }
            RequestKind::Heartbeat(heartbeat) => heartbeat.write(w.u8(3)),
        }
        w.finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::of_version(bytes, VERSION)?;
        let (session, number) = (r.u64("session")?, r.u64("number")?);
        let (floor, term) = (r.u64("floor")?, r.u64("term")?);
        let kind = match r.u8("question")? {
            0 => RequestKind::ReadIndex,
            1 => {
                let validate_only = read_bool(&mut r, "validate only")?;
                RequestKind::Change { request: read_request(&mut r)?, validate_only }
            }
            2 => RequestKind::Quorum,
            3 => RequestKind::Heartbeat(Heartbeat::read(&mut r)?),
            tag => return Err(CodecError::Tag("question", tag)),
        };
        r.end()?;
        Ok(Self { session, number, floor, term, kind })
    }
}

impl ForwardedResponse {
    pub(super) fn encode(&self) -> Bytes {
        let mut w = Writer::default();
        w.u8(VERSION).u64(self.index.0);
        match &self.outcome {
            Ok(response) => write_response(w.u8(0), response),
            Err(error) => write_error(w.u8(1), error),
        }
        w.finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::of_version(bytes, VERSION)?;
        let index = RaftIndex(r.u64("index")?);
        let outcome = match r.u8("outcome")? {
            0 => Ok(read_response(&mut r)?),
            1 => Err(read_error(&mut r)?),
            tag => return Err(CodecError::Tag("outcome", tag)),
        };
        r.end()?;
        Ok(Self { index, outcome })
    }
}

fn read_bool(r: &mut Reader<'_>, what: &'static str) -> Result<bool, CodecError> {
    match r.u8(what)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(CodecError::Value(what)),
    }
}

fn write_some<T>(w: &mut Writer, value: Option<T>, write: impl FnOnce(&mut Writer, T)) {
    w.u8(u8::from(value.is_some()));
    if let Some(value) = value {
        write(w, value);
    }
}

fn read_some<T>(
    r: &mut Reader<'_>,
    what: &'static str,
    read: impl FnOnce(&mut Reader<'_>) -> Result<T, CodecError>,
) -> Result<Option<T>, CodecError> {
    if read_bool(r, what)? { read(r).map(Some) } else { Ok(None) }
}

fn write_nodes(w: &mut Writer, nodes: &[NodeId]) {
    write_list(w, nodes.iter(), |w, node| {
        w.i32(node.0);
    });
}

fn read_nodes(r: &mut Reader<'_>) -> Result<Vec<NodeId>, CodecError> {
    read_list(r, "nodes", |r| r.i32("node id").map(NodeId))
}

fn write_request(w: &mut Writer, request: &ControllerRequest) {
    match request {
        ControllerRequest::CreateTopic { topic, id } => write_new_topic(w.u8(1).uuid(id), topic),
        ControllerRequest::EnsureInternal { topic, id } => {
            w.u8(2).uuid(id).u8(match topic {
                InternalTopic::ConsumerOffsets => 0,
                InternalTopic::TransactionState => 1,
            });
        }
        ControllerRequest::DeleteTopic(TopicName::Name(name)) => {
            w.u8(3).string(name);
        }
        ControllerRequest::DeleteTopic(TopicName::Id(id)) => {
            w.u8(4).uuid(id);
        }
        ControllerRequest::CreatePartitions(requested) => {
            w.u8(5).string(&requested.topic).i32(requested.count);
            write_some(w, requested.assignments.as_ref(), |w, assignments| {
                write_list(w, assignments.iter(), |w, nodes| write_nodes(w, nodes));
            });
        }
        ControllerRequest::ChangeConfig(change) => write_change(w.u8(6), change),
        ControllerRequest::AllocateProducerIds => {
            w.u8(7);
        }
        ControllerRequest::EndIntents(ends) => {
            w.u8(8);
            write_list(w, ends.iter(), |w, (key, end)| {
                write_intent_key(w, key);
                w.u8(match end {
                    IntentEnd::Done => 0,
                    IntentEnd::Abort => 1,
                });
            });
        }
        ControllerRequest::RegisterNode(registration) => {
            w.u8(9);
            write_registration(w, registration);
        }
        ControllerRequest::ChangeReplicas { shard, nodes } => write_nodes(w.u8(10).u64(shard.0), nodes),
        ControllerRequest::ForgetReplicas { shard, reached, left } => {
            w.u8(11).u64(shard.0);
            write_ids(w, reached);
            write_ids(w, left);
        }
        ControllerRequest::Drain { nodes, drain } => {
            w.u8(12).u8(u8::from(*drain));
            match nodes {
                Nodes::One(node) => w.u8(0).i32(node.0),
                Nodes::Zone(zone) => w.u8(1).string(zone),
            };
        }
        ControllerRequest::Unregister(node) => {
            w.u8(13).i32(node.0);
        }
        ControllerRequest::Balance => {
            w.u8(14);
        }
        ControllerRequest::SetLiveness(change) => change.write(w.u8(16)),
        ControllerRequest::UpdateFeatures(requested) => write_list(w.u8(15), requested.iter(), write_feature),
    }
}

fn write_new_topic(w: &mut Writer, topic: &NewTopic) {
    w.string(&topic.name);
    write_some(w, topic.partitions, |w, count| {
        w.i32(count);
    });
    write_some(w, topic.factor, |w, factor| {
        w.i16(factor);
    });
    write_list(w, topic.assignments.iter(), |w, (number, nodes)| {
        write_nodes(w.i32(*number), nodes);
    });
    write_values(w, &topic.configs);
}

fn read_new_topic(r: &mut Reader<'_>) -> Result<NewTopic, CodecError> {
    Ok(NewTopic {
        name: r.string("topic name")?,
        partitions: read_some(r, "partitions", |r| r.i32("partitions"))?,
        factor: read_some(r, "factor", |r| r.i16("factor"))?,
        assignments: read_list(r, "assignments", |r| Ok((r.i32("partition")?, read_nodes(r)?)))?,
        configs: read_values(r)?,
    })
}

fn write_feature(w: &mut Writer, update: &FeatureUpdate) {
    w.string(&update.feature).i16(update.level.0).u8(match update.kind {
        None => 0,
        Some(UpgradeType::Upgrade) => 1,
        Some(UpgradeType::SafeDowngrade) => 2,
        Some(UpgradeType::UnsafeDowngrade) => 3,
    });
}

fn read_feature(r: &mut Reader<'_>) -> Result<FeatureUpdate, CodecError> {
    let (feature, level) = (r.string("feature")?, FeatureLevel(r.i16("feature level")?));
    let kind = match r.u8("upgrade type")? {
        0 => None,
        1 => Some(UpgradeType::Upgrade),
        2 => Some(UpgradeType::SafeDowngrade),
        3 => Some(UpgradeType::UnsafeDowngrade),
        tag => return Err(CodecError::Tag("upgrade type", tag)),
    };
    Ok(FeatureUpdate { feature, level, kind })
}

fn read_request(r: &mut Reader<'_>) -> Result<ControllerRequest, CodecError> {
    Ok(match r.u8("what is asked")? {
        1 => {
            let id = r.uuid("topic id")?;
            ControllerRequest::CreateTopic { topic: read_new_topic(r)?, id }
        }
        2 => {
            let id = r.uuid("topic id")?;
            let topic = match r.u8("internal topic")? {
                0 => InternalTopic::ConsumerOffsets,
                1 => InternalTopic::TransactionState,
                tag => return Err(CodecError::Tag("internal topic", tag)),
            };
            ControllerRequest::EnsureInternal { topic, id }
        }
        3 => ControllerRequest::DeleteTopic(TopicName::Name(r.string("topic name")?)),
        4 => ControllerRequest::DeleteTopic(TopicName::Id(r.uuid("topic id")?)),
        5 => {
            let (topic, count) = (r.string("topic name")?, r.i32("partitions")?);
            let assignments = read_some(r, "assignments", |r| read_list(r, "assignments", read_nodes))?;
            ControllerRequest::CreatePartitions(NewPartitions { topic, count, assignments })
        }
        6 => ControllerRequest::ChangeConfig(read_change(r)?),
        7 => ControllerRequest::AllocateProducerIds,
        8 => ControllerRequest::EndIntents(read_list(r, "intents", |r| {
            let key = read_intent_key(r)?;
            let end = match r.u8("intent end")? {
                0 => IntentEnd::Done,
                1 => IntentEnd::Abort,
                tag => return Err(CodecError::Tag("intent end", tag)),
            };
            Ok((key, end))
        })?),
        9 => ControllerRequest::RegisterNode(Box::new(read_registration(r)?)),
        10 => ControllerRequest::ChangeReplicas { shard: ShardId(r.u64("shard")?), nodes: read_nodes(r)? },
        11 => {
            let (shard, reached) = (ShardId(r.u64("shard")?), read_ids(r)?);
            ControllerRequest::ForgetReplicas { shard, reached, left: read_ids(r)? }
        }
        12 => {
            let drain = read_bool(r, "drain")?;
            let nodes = match r.u8("nodes")? {
                0 => Nodes::One(NodeId(r.i32("node id")?)),
                1 => Nodes::Zone(r.string("zone")?),
                tag => return Err(CodecError::Tag("nodes", tag)),
            };
            ControllerRequest::Drain { nodes, drain }
        }
        13 => ControllerRequest::Unregister(NodeId(r.i32("node id")?)),
        14 => ControllerRequest::Balance,
        15 => ControllerRequest::UpdateFeatures(read_list(r, "features", read_feature)?),
        16 => ControllerRequest::SetLiveness(LivenessChange::read(r)?),
        tag => return Err(CodecError::Tag("what is asked", tag)),
    })
}

/// Stands at the end of a request, since the levels may be absent.
pub(super) fn write_registration(w: &mut Writer, registration: &NodeRegistration) {
    write_node(w, &registration.node);
    w.string(&registration.cluster_id);
    write_replicas(w, &registration.founders);
    write_ids(w, &registration.lost);
    write_levels_at_end(w, registration.node.levels);
}

pub(super) fn read_registration(r: &mut Reader<'_>) -> Result<NodeRegistration, CodecError> {
    let (node, cluster_id) = (read_node(r)?, r.string("cluster id")?);
    let (founders, lost) = (read_replicas(r)?, read_ids(r)?);
    Ok(NodeRegistration { node: NodeRecord { levels: read_levels_at_end(r)?, ..node }, cluster_id, founders, lost })
}

fn write_change(w: &mut Writer, change: &ConfigChange) {
    match &change.owner {
        ConfigOwner::Topic(name) => w.u8(0).string(name),
        ConfigOwner::Node(node) => w.u8(1).i32(node.0),
        ConfigOwner::AllNodes => w.u8(2),
    };
    write_list(w, change.ops.iter(), |w, (name, op)| {
        w.string(name);
        match op {
            ConfigOp::Set(value) => w.u8(0).string(value),
            ConfigOp::Delete => w.u8(1),
            ConfigOp::Append(value) => w.u8(2).string(value),
            ConfigOp::Subtract(value) => w.u8(3).string(value),
        };
    });
    w.u8(u8::from(change.replace));
}

fn read_change(r: &mut Reader<'_>) -> Result<ConfigChange, CodecError> {
    let owner = match r.u8("config owner")? {
        0 => ConfigOwner::Topic(r.string("topic name")?),
        1 => ConfigOwner::Node(NodeId(r.i32("node id")?)),
        2 => ConfigOwner::AllNodes,
        tag => return Err(CodecError::Tag("config owner", tag)),
    };
    let ops = read_list(r, "config changes", |r| {
        let name = r.string("config name")?;
        let op = match r.u8("config change")? {
            0 => ConfigOp::Set(r.string("config value")?),
            1 => ConfigOp::Delete,
            2 => ConfigOp::Append(r.string("config value")?),
            3 => ConfigOp::Subtract(r.string("config value")?),
            tag => return Err(CodecError::Tag("config change", tag)),
        };
        Ok((name, op))
    })?;
    Ok(ConfigChange { owner, ops, replace: read_bool(r, "replace")? })
}

fn write_response(w: &mut Writer, response: &ControllerResponse) {
    match response {
        ControllerResponse::Done => {
            w.u8(0);
        }
        ControllerResponse::Topic(topic) => {
            w.u8(1).string(&topic.name).uuid(&topic.id).i32(topic.partitions).i16(topic.factor);
            write_values(w, &topic.overrides);
        }
        ControllerResponse::Deleted { name, id } => {
            w.u8(2).string(name).uuid(id);
        }
        ControllerResponse::ProducerIds { first, count } => {
            w.u8(3).i64(*first).varint(u64::from(*count));
        }
        ControllerResponse::Quorum(quorum) => write_quorum(w.u8(4), quorum),
    }
}

fn read_response(r: &mut Reader<'_>) -> Result<ControllerResponse, CodecError> {
    Ok(match r.u8("answer")? {
        0 => ControllerResponse::Done,
        1 => ControllerResponse::Topic(CreatedTopic {
            name: r.string("topic name")?,
            id: r.uuid("topic id")?,
            partitions: r.i32("partitions")?,
            factor: r.i16("factor")?,
            overrides: read_values(r)?,
        }),
        2 => ControllerResponse::Deleted { name: r.string("topic name")?, id: r.uuid("topic id")? },
        3 => ControllerResponse::ProducerIds {
            first: r.i64("producer id")?,
            count: u32::try_from(r.varint("count")?).map_err(|_| CodecError::Value("count"))?,
        },
        4 => ControllerResponse::Quorum(read_quorum(r)?),
        tag => return Err(CodecError::Tag("answer", tag)),
    })
}

fn write_error(w: &mut Writer, error: &MetadataError) {
    use MetadataError as E;
    match error {
        E::UnknownTopic => w.u8(0),
        E::UnknownTopicId => w.u8(1),
        E::TopicExists(what) => w.u8(2).string(what),
        E::InvalidTopic(what) => w.u8(3).string(what),
        E::InvalidPartitions(what) => w.u8(4).string(what),
        E::InvalidReplicationFactor(what) => w.u8(5).string(what),
        E::InvalidReplicaAssignment(what) => w.u8(6).string(what),
        E::InvalidConfig(what) => w.u8(7).string(what),
        E::PolicyViolation(what) => w.u8(8).string(what),
        E::InvalidRequest(what) => w.u8(9).string(what),
        E::DeletionDisabled => w.u8(10),
        E::NotController { leader } => {
            w.u8(11);
            write_some(w, *leader, |w, leader| {
                w.i32(leader.0);
            });
            w
        }
        E::TimedOut => w.u8(12),
        E::Overloaded => w.u8(13),
        E::Stopped(what) => w.u8(14).string(what),
        E::NoReassignmentInProgress => w.u8(15),
        E::NotRegistered(what) => w.u8(16).string(what),
        E::InvalidUpdateVersion(what) => w.u8(17).string(what),
        E::UnsupportedVersion(what) => w.u8(18).string(what),
    };
}

fn read_error(r: &mut Reader<'_>) -> Result<MetadataError, CodecError> {
    use MetadataError as E;
    const WHY: &str = "reason";
    Ok(match r.u8("error")? {
        0 => E::UnknownTopic,
        1 => E::UnknownTopicId,
        2 => E::TopicExists(r.string(WHY)?),
        3 => E::InvalidTopic(r.string(WHY)?),
        4 => E::InvalidPartitions(r.string(WHY)?),
        5 => E::InvalidReplicationFactor(r.string(WHY)?),
        6 => E::InvalidReplicaAssignment(r.string(WHY)?),
        7 => E::InvalidConfig(r.string(WHY)?),
        8 => E::PolicyViolation(r.string(WHY)?),
        9 => E::InvalidRequest(r.string(WHY)?),
        10 => E::DeletionDisabled,
        11 => E::NotController { leader: read_some(r, "leader", |r| r.i32("node id").map(NodeId))? },
        12 => E::TimedOut,
        13 => E::Overloaded,
        14 => E::Stopped(r.string(WHY)?),
        15 => E::NoReassignmentInProgress,
        16 => E::NotRegistered(r.string(WHY)?),
        17 => E::InvalidUpdateVersion(r.string(WHY)?),
        18 => E::UnsupportedVersion(r.string(WHY)?),
        tag => return Err(CodecError::Tag("error", tag)),
    })
}
