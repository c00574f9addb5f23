//! The metadata's part of the fuzz targets: commands of entries, records of a checkpoint, requests and responses.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ottla_protocol::ids::NodeId;
use ottla_raft::{Creation, Membership};
use ottla_storage::ids::{RaftIndex, ReplicaId};
use uuid::Uuid;

use super::bootstrap_service::{BootstrapRequest, BootstrapResponse, ReplicaAssignment};
use super::command::{Command, Decision, IntentEnd, NewShard, decode, encode};
use super::decide::{ControllerRequest, ControllerResponse};
use super::error::MetadataError;
use super::forward_codec::{ForwardedRequest, ForwardedResponse, RequestKind};
use super::image::{
    DirectoryRecord, IntentKey, ListenerEndpoint, NodeRecord, NodeState, ReplicaRecord, ShardId, ShardKind,
};
use super::levels::{FEATURE, FeatureLevel, Levels};
use super::liveness::Liveness;
use super::records::{Record, ShardCreation};
use super::registration::NodeRegistration;
use super::requests::{FeatureUpdate, Nodes, UpgradeType};
use super::state_machine::MetadataStateMachine;
use crate::config::Config;

/// An entry's commands: they are encoded again to the same bytes and applied, and the result survives a checkpoint.
pub(crate) fn commands(data: &[u8]) {
    let Ok(Decision { decided_on, commands }) = decode(data) else { return };
    let again = decode(&encode(decided_on.unwrap_or_default(), &commands));
    assert_eq!(again, Ok(Decision { decided_on: decided_on.or(Some(RaftIndex(0))), commands: commands.clone() }));
    let base = Arc::new(Config::default());
    let mut machine = MetadataStateMachine::new(Arc::clone(&base));
    let _ = machine.apply(RaftIndex(1), &encode(RaftIndex(0), &world())).unwrap();
    // On time, whatever it was decided on. A level that this build does not understand stops the replica.
    if machine.apply(RaftIndex(2), &encode(RaftIndex(1), &commands)).is_err() {
        return;
    }
    let restored = MetadataStateMachine::restore(base, RaftIndex(2), &machine.all_records()).unwrap();
    assert_eq!(restored.checksum(), machine.checksum());
    assert_eq!(restored.all_records(), machine.all_records());
}

fn replica(id: u64) -> ReplicaRecord {
    ReplicaRecord { id: ReplicaId(id), node: NodeId(1), directory: Uuid::from_u128(4) }
}

/// A node with a shard and a topic.
fn world() -> Vec<Command> {
    let node = NodeRecord {
        id: NodeId(1),
        rack: Some("a".into()),
        listeners: vec![ListenerEndpoint { name: "PLAINTEXT".into(), host: "h".into(), port: 9092 }],
        directories: vec![DirectoryRecord { id: Uuid::from_u128(4), path: "/d".into(), free_bytes: 100 }],
        version: "0.1.0".into(),
        levels: Levels::FIRST,
        epoch: RaftIndex(0),
        state: NodeState::Active,
        liveness: Liveness::default(),
    };
    let replicas = vec![replica(1)];
    let kind = ShardKind::Pool { factor: 1, pinned: false };
    let shards = vec![ShardId(1); 3];
    let overrides = BTreeMap::from([("retention.ms".to_owned(), "5".to_owned())]);
    let id = Uuid::from_u128(9);
    vec![
        Command::Bootstrap { cluster_id: "cluster".into() },
        Command::RegisterNode(node),
        Command::AddShard(NewShard { id: ShardId(1), kind, replicas }),
        Command::CreateTopic { name: "t".into(), id, internal: false, overrides, shards },
    ]
}

fn further() -> Vec<Command> {
    let id = Uuid::from_u128(9);
    let key = IntentKey { shard: ShardId(1), index: RaftIndex(1), topic: id };
    let values = BTreeMap::from([("log.retention.ms".to_owned(), "7".to_owned())]);
    vec![
        Command::AddPartitions { id, count_before: 3, shards: vec![ShardId(1)] },
        Command::SetTopicConfig { id, overrides: BTreeMap::new() },
        Command::SetBrokerConfig { node: None, values: values.clone() },
        Command::SetBrokerConfig { node: Some(NodeId(1)), values },
        Command::AllocateProducerIds { count: 1_000 },
        Command::EndIntent { key, end: IntentEnd::Done },
        Command::SetReplicas { shard: ShardId(1), before: vec![ReplicaId(1)], replicas: vec![replica(2)] },
        Command::ForgetReplicas { shard: ShardId(1), reached: vec![ReplicaId(2)], left: vec![ReplicaId(1)] },
        Command::SetNodeState { node: NodeId(1), state: NodeState::Draining },
        Command::RemoveNode { node: NodeId(1) },
        Command::DeleteTopic { id },
    ]
}

pub(crate) fn commands_seeds() -> Vec<Vec<u8>> {
    let single = world().into_iter().chain(further()).map(|command| vec![command]);
    single.chain([world(), further()]).map(|commands| encode(RaftIndex(1), &commands).to_vec()).collect()
}

/// A request that a node forwards to the leader.
pub(crate) fn request(data: &[u8]) {
    if let Ok(request) = ForwardedRequest::decode(data) {
        assert_eq!(ForwardedRequest::decode(&request.encode()).as_ref(), Ok(&request));
    }
}

pub(crate) fn request_seeds() -> Vec<Vec<u8>> {
    let key = IntentKey { shard: ShardId(1), index: RaftIndex(1), topic: Uuid::from_u128(9) };
    let requests = [
        ControllerRequest::AllocateProducerIds,
        ControllerRequest::EndIntents(vec![(key, IntentEnd::Done)]),
        ControllerRequest::RegisterNode(Box::new(registration())),
        ControllerRequest::ChangeReplicas { shard: ShardId(1), nodes: vec![NodeId(1), NodeId(2)] },
        ControllerRequest::ForgetReplicas { shard: ShardId(1), reached: vec![ReplicaId(2)], left: vec![ReplicaId(1)] },
        ControllerRequest::Drain { nodes: Nodes::One(NodeId(1)), drain: true },
        ControllerRequest::Drain { nodes: Nodes::Zone("a".into()), drain: false },
        ControllerRequest::Unregister(NodeId(1)),
        ControllerRequest::Balance,
        ControllerRequest::UpdateFeatures(vec![FeatureUpdate {
            feature: FEATURE.to_owned(),
            level: FeatureLevel(2),
            kind: Some(UpgradeType::Upgrade),
        }]),
    ];
    let changes = requests.into_iter().map(|request| RequestKind::Change { request, validate_only: false });
    let request = |kind| ForwardedRequest { session: 7, number: 3, floor: 2, term: 5, kind };
    changes.chain([RequestKind::ReadIndex, RequestKind::Quorum]).map(|kind| request(kind).encode().to_vec()).collect()
}

fn registration() -> NodeRegistration {
    let node = world().into_iter().find_map(|command| match command {
        Command::RegisterNode(node) => Some(node),
        _ => None,
    });
    let founders = vec![replica(1), replica(2)];
    NodeRegistration { node: node.unwrap(), cluster_id: "cluster".into(), founders, lost: vec![ReplicaId(7)] }
}

/// A request to another node's bootstrap service.
pub(crate) fn bootstrap_request(data: &[u8]) {
    if let Ok(request) = BootstrapRequest::decode(data) {
        assert_eq!(BootstrapRequest::decode(&request.encode()).as_ref(), Ok(&request));
    }
}

pub(crate) fn bootstrap_request_seeds() -> Vec<Vec<u8>> {
    let locate = BootstrapRequest::Locate { node: NodeId(2), directory: Uuid::from_u128(4), lost: vec![ReplicaId(7)] };
    [locate, BootstrapRequest::Register(Box::new(registration()))].map(|request| request.encode().to_vec()).to_vec()
}

/// Its response.
pub(crate) fn bootstrap_response(data: &[u8]) {
    if let Ok(response) = BootstrapResponse::decode(data) {
        assert_eq!(BootstrapResponse::decode(&response.encode()).as_ref(), Ok(&response));
    }
}

pub(crate) fn bootstrap_response_seeds() -> Vec<Vec<u8>> {
    let founders = || vec![replica(1), replica(2)];
    let assignment = Some(ReplicaAssignment { replica: replica(2), is_founder: true });
    let responses = [
        BootstrapResponse::Uninitialized { directory: Uuid::from_u128(4) },
        BootstrapResponse::Located { founders: founders(), assignment: None },
        BootstrapResponse::Located { founders: founders(), assignment },
        BootstrapResponse::Registered,
        BootstrapResponse::Retry,
        BootstrapResponse::Rejected("why".into()),
    ];
    responses.map(|response| response.encode().to_vec()).to_vec()
}

/// The leader's response.
pub(crate) fn response(data: &[u8]) {
    if let Ok(response) = ForwardedResponse::decode(data) {
        assert_eq!(ForwardedResponse::decode(&response.encode()).as_ref(), Ok(&response));
    }
}

pub(crate) fn response_seeds() -> Vec<Vec<u8>> {
    let outcomes = [
        Ok(ControllerResponse::Done),
        Ok(ControllerResponse::Deleted { name: "t".into(), id: Uuid::from_u128(9) }),
        Ok(ControllerResponse::ProducerIds { first: 1_000, count: 500 }),
        Err(MetadataError::UnknownTopic),
        Err(MetadataError::TopicExists("t".into())),
    ];
    outcomes.map(|outcome| ForwardedResponse { index: RaftIndex(8), outcome }.encode().to_vec()).to_vec()
}

/// One record of the checkpoint; the first byte is the length of its key. A node starts from it or refuses it.
pub(crate) fn record(data: &[u8]) {
    let Some((&key_bytes, rest)) = data.split_first() else { return };
    let Some((key, value)) = rest.split_at_checked(usize::from(key_bytes)) else { return };
    if let Ok(record) = Record::decode(key, value) {
        assert_eq!(Record::decode(&record.key(), &record.value()), Ok(record));
    }
    let state = [(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value))];
    if let Ok(machine) = MetadataStateMachine::restore(Arc::new(Config::default()), RaftIndex(5), &state) {
        let _ = machine.all_records();
    }
}

pub(crate) fn record_seeds() -> Vec<Vec<u8>> {
    let mut machine = MetadataStateMachine::new(Arc::new(Config::default()));
    let mut seeds = Vec::new();
    for (index, commands) in [world(), further()].into_iter().enumerate() {
        let index = index as u64;
        let _ = machine.apply(RaftIndex(index + 1), &encode(RaftIndex(index), &commands)).unwrap();
        for (key, value) in machine.all_records() {
            seeds.push([&[u8::try_from(key.len()).unwrap()], &key[..], &value[..]].concat());
        }
    }
    seeds
}

/// What a replica's group is created with: its first members, and its shard.
pub(crate) fn creation(data: &[u8]) {
    let Some(creation) = Creation::decode(Bytes::copy_from_slice(data)) else { return };
    assert_eq!(Creation::decode(creation.encode()), Some(creation.clone()));
    if let Ok(shard) = ShardCreation::decode(&creation.shard) {
        assert_eq!(ShardCreation::decode(&shard.encode()), Ok(shard));
    }
}

pub(crate) fn creation_seeds() -> Vec<Vec<u8>> {
    let kinds = [ShardKind::Metadata, ShardKind::Pool { factor: 3, pinned: true }, ShardKind::ConsumerOffsets];
    let seed = |kind| {
        let founders = if kind == ShardKind::Metadata { vec![replica(1), replica(5)] } else { Vec::new() };
        let shard = ShardCreation { shard: ShardId(9), kind, created: RaftIndex(77), founders }.encode();
        Creation { members: Membership::of([ReplicaId(1), ReplicaId(5)]), shard }.encode().to_vec()
    };
    kinds.into_iter().map(seed).collect()
}
