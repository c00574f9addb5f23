//! The metadata's part of the fuzz targets: commands of entries, records of a checkpoint, requests and responses.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ottla_protocol::ids::NodeId;
use ottla_raft::{Creation, Membership, Seed};
use ottla_storage::ids::{RaftIndex, ReplicaId};
use uuid::Uuid;

use super::action::{Action, ActionRecord, Change, Done, Step};
use super::bootstrap_service::{BootstrapRequest, BootstrapResponse, ReplicaAssignment};
use super::command::{Command, Decision, IntentEnd, NewShard, decode, encode};
use super::decide::{ControllerRequest, ControllerResponse};
use super::error::MetadataError;
use super::forward_codec::{ForwardedRequest, ForwardedResponse, RequestKind};
use super::image::{
    DirectoryRecord, Intent, IntentKey, IntentKind, ListenerEndpoint, NodeRecord, NodeState, ReplicaRecord, ShardId,
    ShardKind, ShardRecord, SplitRecord, SplitReplica,
};
use super::liveness::{FenceReason, Liveness, LivenessChange};
use super::merge_record::{MergePhase, MergeRecord, MergeReplica, MergeStep, SealReport};
use super::records::{ClusterRecord, Record, ShardCreation};
use super::registration::NodeRegistration;
use super::requests::{
    ConfigChange, ConfigOp, ConfigOwner, CreatedTopic, FeatureUpdate, InternalTopic, MetadataQuorum, NewPartitions,
    NewTopic, Nodes, QuorumMember, TopicName, UpgradeType,
};
use super::sessions::Heartbeat;
use super::state_machine::MetadataStateMachine;
use crate::config::Config;
use crate::levels::{FEATURE, FeatureLevel, Levels};

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

/// A node with the fields that later releases added.
fn later_node() -> NodeRecord {
    NodeRecord {
        id: NodeId(2),
        rack: None,
        listeners: Vec::new(),
        directories: Vec::new(),
        version: "0.5.0".into(),
        levels: Levels { oldest: FeatureLevel(1), newest: FeatureLevel(2) },
        epoch: RaftIndex(6),
        state: NodeState::Leaving,
        liveness: Liveness::default(),
    }
}

fn fenced(fenced: Option<FenceReason>) -> Liveness {
    Liveness { fenced, since_ms: 1_700_000_000_000 }
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

fn merge_steps() -> Vec<MergeStep> {
    let (survivor, absorbed, intent) = (ShardId(1), ShardId(301), RaftIndex(600));
    let sealed = SealReport { index: RaftIndex(40), term: 3, checksum: 41 };
    vec![
        MergeStep::Begin { survivor, absorbed },
        MergeStep::Sealed { absorbed, intent, sealed },
        MergeStep::Cancel { absorbed, intent },
        MergeStep::Cancelled { absorbed, intent },
        MergeStep::Absorbed { absorbed, intent, term: 4 },
        MergeStep::TakenOver { absorbed, replica: ReplicaId(1) },
    ]
}

fn split_shard() -> Command {
    let kind = ShardKind::Pool { factor: 1, pinned: true };
    let child = NewShard { id: ShardId(301), kind, replicas: vec![replica(7)] };
    Command::SplitShard { parent: ShardId(1), child, partitions: vec![(Uuid::from_u128(9), vec![0, 2])] }
}

fn action() -> Action {
    let change =
        Change::Replicas { shard: ShardId(300), before: vec![ReplicaId(1)], nodes: vec![NodeId(2), NodeId(3)] };
    Action { change, reason: "why".to_owned() }
}

fn action_record() -> ActionRecord {
    ActionRecord { done: Done { at_ms: 7, action: action() }, left: vec![NodeId(1)], topic: Some(Uuid::from_u128(9)) }
}

fn one_value() -> BTreeMap<String, String> {
    BTreeMap::from([("a".to_owned(), "b".to_owned())])
}

/// Commands of later releases, and the other values of fields.
fn later() -> Vec<Command> {
    let kinds = [ShardKind::Metadata, ShardKind::ConsumerOffsets, ShardKind::TransactionState];
    let shards = (300..).zip(kinds).map(|(id, kind)| NewShard { id: ShardId(id), kind, replicas: Vec::new() });
    let reasons = FenceReason::ALL.into_iter().map(Some).chain([None]);
    let livenesses = reasons.map(|reason| Command::SetNodeLiveness { node: NodeId(1), liveness: fenced(reason) });
    let states = NodeState::ALL.into_iter().map(|state| Command::SetNodeState { node: NodeId(1), state });
    let key = IntentKey { shard: ShardId(1), index: RaftIndex(1), topic: Uuid::from_u128(9) };
    let others = [
        Command::RegisterNode(later_node()),
        Command::EndIntent { key, end: IntentEnd::Abort },
        Command::SetFeatureLevel { level: FeatureLevel(2) },
        Command::EndSplit { child: ShardId(301), at: RaftIndex(500) },
        split_shard(),
        Command::DropShard { shard: ShardId(301) },
    ];
    let merges = merge_steps().into_iter().map(Command::Merge);
    let level_5 = [
        Command::SetGroupConfig { group: "g".into(), values: one_value() },
        Command::SetEpochBases { id: Uuid::from_u128(9), first: 300, bases: vec![-7, 0] },
    ];
    let level_6 = [
        Command::SetClientMetrics { subscription: "m".into(), values: one_value() },
        Command::RecordAction(action_record()),
    ];
    shards
        .map(Command::AddShard)
        .chain(livenesses)
        .chain(states)
        .chain(others)
        .chain(merges)
        .chain(level_5)
        .chain(level_6)
        .collect()
}

pub(crate) fn commands_seeds() -> Vec<Vec<u8>> {
    let single = world().into_iter().chain(further()).chain(later()).map(|command| vec![command]);
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
        ControllerRequest::EndIntents(vec![(key, IntentEnd::Done), (key, IntentEnd::Abort)]),
        ControllerRequest::RegisterNode(Box::new(registration())),
        ControllerRequest::ChangeReplicas { shard: ShardId(1), nodes: vec![NodeId(1), NodeId(2)] },
        ControllerRequest::ForgetReplicas { shard: ShardId(1), reached: vec![ReplicaId(2)], left: vec![ReplicaId(1)] },
        ControllerRequest::Drain { nodes: Nodes::One(NodeId(1)), drain: true },
        ControllerRequest::Drain { nodes: Nodes::Zone("a".into()), drain: false },
        ControllerRequest::Unregister(NodeId(1)),
        ControllerRequest::Balance,
        ControllerRequest::Rebalance(Step { action: action(), at_ms: 0 }),
        ControllerRequest::Rebalance(Step { action: action(), at_ms: 7 }),
        ControllerRequest::SplitShard { parent: ShardId(1), partitions: vec![(Uuid::from_u128(9), 3)] },
        ControllerRequest::EndSplit { child: ShardId(301), at: RaftIndex(500) },
        ControllerRequest::UpdateFeatures(vec![FeatureUpdate {
            feature: FEATURE.to_owned(),
            level: FeatureLevel(2),
            kind: Some(UpgradeType::Upgrade),
        }]),
    ];
    let moved =
        ControllerRequest::ChangeDirectory { shard: ShardId(1), node: NodeId(1), directory: Uuid::from_u128(5) };
    let requests = requests.into_iter().chain(requests_of_clients()).chain(requests_of_nodes()).chain([moved]);
    let change = |(at, request)| RequestKind::Change { request, validate_only: at % 2 == 1 };
    let request = |kind| ForwardedRequest { session: 7, number: 3, floor: 2, term: 5, kind };
    let heartbeat = RequestKind::Heartbeat(Heartbeat { node: NodeId(1), epoch: RaftIndex(6) });
    let others = [RequestKind::ReadIndex, RequestKind::Quorum, heartbeat];
    (0..).zip(requests).map(change).chain(others).map(|kind| request(kind).encode().to_vec()).collect()
}

fn requests_of_clients() -> Vec<ControllerRequest> {
    let id = Uuid::from_u128(9);
    let named = |name: &str| NewTopic { name: name.to_owned(), ..NewTopic::default() };
    let manual = NewTopic {
        partitions: Some(2),
        factor: Some(3),
        assignments: vec![(0, vec![NodeId(1), NodeId(2)]), (1, Vec::new())],
        configs: BTreeMap::from([("retention.ms".to_owned(), "5".to_owned())]),
        ..named("manual")
    };
    let partitions = |assignments| NewPartitions { topic: "t".into(), count: 5, assignments };
    let text = || "v".to_owned();
    let ops = [ConfigOp::Set(text()), ConfigOp::Delete, ConfigOp::Append(text()), ConfigOp::Subtract(text())];
    let ops: Vec<_> = ["a", "b", "c", "d"].map(str::to_owned).into_iter().zip(ops).collect();
    let owners = [ConfigOwner::Topic("t".into()), ConfigOwner::Node(NodeId(1)), ConfigOwner::AllNodes];
    let changes = owners.map(|owner| ConfigChange { replace: owner == ConfigOwner::AllNodes, owner, ops: ops.clone() });
    let topics = [named("t"), manual].map(|topic| ControllerRequest::CreateTopic { topic, id });
    let others = [
        ControllerRequest::EnsureInternal { topic: InternalTopic::ConsumerOffsets, id },
        ControllerRequest::EnsureInternal { topic: InternalTopic::TransactionState, id },
        ControllerRequest::DeleteTopic(TopicName::Name("t".into())),
        ControllerRequest::DeleteTopic(TopicName::Id(id)),
        ControllerRequest::CreatePartitions(partitions(None)),
        ControllerRequest::CreatePartitions(partitions(Some(vec![vec![NodeId(1)], Vec::new()]))),
    ];
    topics.into_iter().chain(changes.map(ControllerRequest::ChangeConfig)).chain(others).collect()
}

fn requests_of_nodes() -> Vec<ControllerRequest> {
    let change = |reason| LivenessChange { node: NodeId(2), epoch: RaftIndex(6), to: fenced(reason) };
    let livenesses = [None, Some(FenceReason::Starting)].map(|reason| ControllerRequest::SetLiveness(change(reason)));
    let later = NodeRegistration {
        node: NodeRecord { state: NodeState::Active, ..later_node() },
        cluster_id: "cluster".into(),
        founders: Vec::new(),
        lost: Vec::new(),
    };
    let kinds = [None, Some(UpgradeType::SafeDowngrade), Some(UpgradeType::UnsafeDowngrade)];
    let update = |kind| FeatureUpdate { feature: FEATURE.to_owned(), level: FeatureLevel(1), kind };
    let others = [
        ControllerRequest::RegisterNode(Box::new(later)),
        ControllerRequest::UpdateFeatures(kinds.map(update).to_vec()),
    ];
    let merges = merge_steps().into_iter().map(ControllerRequest::Merge);
    livenesses.into_iter().chain(others).chain(merges).collect()
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
    let requests = [locate, BootstrapRequest::Register(Box::new(registration())), BootstrapRequest::Members];
    requests.map(|request| request.encode().to_vec()).to_vec()
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
        BootstrapResponse::Members(vec![(replica(1), "h:9092".into())]),
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
        Ok(ControllerResponse::Topic(CreatedTopic {
            name: "t".into(),
            id: Uuid::from_u128(9),
            partitions: 4,
            factor: 3,
            overrides: BTreeMap::from([("retention.ms".to_owned(), "5".to_owned())]),
        })),
        Ok(ControllerResponse::Shard(ShardId(301))),
        Ok(ControllerResponse::Quorum(quorum())),
    ];
    let outcomes = outcomes.into_iter().chain(errors().into_iter().map(Err));
    outcomes.map(|outcome| ForwardedResponse { index: RaftIndex(8), outcome }.encode().to_vec()).collect()
}

fn quorum() -> MetadataQuorum {
    let member = |node| QuorumMember {
        node: NodeId(node),
        directory: Uuid::from_u128(4),
        log_end: 41,
        last_fetch_ms: -1,
        last_caught_up_ms: 1_700_000_000_000,
    };
    let (voters, observers) = (vec![member(1), member(2)], vec![member(3)]);
    MetadataQuorum { leader: NodeId(1), term: 5, high_watermark: 41, voters, observers }
}

fn errors() -> Vec<MetadataError> {
    use MetadataError as E;
    let with_reason = [
        E::TopicExists,
        E::InvalidTopic,
        E::InvalidPartitions,
        E::InvalidReplicationFactor,
        E::InvalidReplicaAssignment,
        E::InvalidConfig,
        E::PolicyViolation,
        E::InvalidRequest,
        E::Stopped,
        E::NotRegistered,
        E::InvalidUpdateVersion,
        E::UnsupportedVersion,
    ];
    let others = [
        E::UnknownTopic,
        E::UnknownTopicId,
        E::DeletionDisabled,
        E::NotController { leader: None },
        E::NotController { leader: Some(NodeId(2)) },
        E::TimedOut,
        E::Overloaded,
        E::NoReassignmentInProgress,
    ];
    with_reason.into_iter().map(|error| error("why".to_owned())).chain(others).collect()
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
        seeds.extend(machine.all_records().iter().map(|(key, value)| record_seed(key, value)));
    }
    let records = later_records().into_iter();
    seeds.extend(records.map(|record| record_seed(&record.key(), &record.value())));
    seeds
}

fn record_seed(key: &[u8], value: &[u8]) -> Vec<u8> {
    [&[u8::try_from(key.len()).unwrap()], key, value].concat()
}

/// Records with the fields that later releases added, in all their combinations.
fn later_records() -> Vec<Record> {
    let first = |node| NodeRecord { levels: Levels::FIRST, ..node };
    let stopped = |node| NodeRecord { liveness: fenced(Some(FenceReason::Stopped)), ..node };
    let nodes = [first(later_node()), later_node(), stopped(first(later_node())), stopped(later_node())];
    let cluster = ClusterRecord { cluster_id: "c".into(), level: FeatureLevel(2), ..ClusterRecord::default() };
    let key = IntentKey { shard: ShardId(1), index: RaftIndex(7), topic: Uuid::from_u128(9) };
    let intents = [IntentKind::Adopt, IntentKind::Drop].map(|kind| Intent { kind, partitions: vec![(0, 1), (7, 2)] });
    let shard = ShardRecord {
        id: ShardId(4),
        kind: ShardKind::TransactionState,
        replicas: vec![replica(3)],
        adding: vec![ReplicaId(3)],
        leaving: vec![replica(2)],
        founders: vec![ReplicaId(1), ReplicaId(2)],
        created: RaftIndex(5),
        split: None,
        merge: None,
    };
    let pair = SplitReplica { parent: ReplicaId(1), child: ReplicaId(3) };
    let split = |done, partitions| {
        let (parent, intent) = (ShardId(1), RaftIndex(300));
        let split = SplitRecord { parent, intent, replicas: vec![pair], done, partitions };
        Record::Shard(ShardRecord { split: Some(split), ..shard.clone() })
    };
    let splits = [split(None, vec![(Uuid::from_u128(9), vec![0, 200])]), split(Some(RaftIndex(500)), Vec::new())];
    let merge = |phase| {
        let sealed = SealReport { index: RaftIndex(40), term: 3, checksum: 41 };
        let replicas = vec![MergeReplica { survivor: ReplicaId(1), absorbed: ReplicaId(3) }];
        let merge = MergeRecord { survivor: ShardId(1), intent: RaftIndex(600), phase, replicas, sealed };
        Record::Shard(ShardRecord { merge: Some(merge), ..shard.clone() })
    };
    let merges = [MergePhase::Seal, MergePhase::Cancel, MergePhase::Absorb, MergePhase::Drain].map(merge);
    let others = [
        Record::Cluster(cluster),
        Record::Shard(shard.clone()),
        Record::BrokerConfig(None, BTreeMap::new()),
        Record::BrokerConfig(Some(NodeId(2)), one_value()),
    ];
    let intents = intents.into_iter().map(|intent| Record::Intent(key, intent));
    let named = [
        Record::GroupConfig("g".into(), one_value()),
        Record::ClientMetrics("m".into(), one_value()),
        Record::Action(300, Arc::new(action_record())),
    ];
    nodes.map(Record::Node).into_iter().chain(intents).chain(others).chain(splits).chain(merges).chain(named).collect()
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
        let shard = ShardCreation { shard: ShardId(9), kind, created: RaftIndex(77), founders, beside: Vec::new() };
        let shard = shard.encode();
        Creation { members: Membership::of([ReplicaId(1), ReplicaId(5)]), shard, seed: None }.encode().to_vec()
    };
    let shard = ShardCreation {
        shard: ShardId(9),
        kind: ShardKind::ConsumerOffsets,
        created: RaftIndex(77),
        founders: Vec::new(),
        beside: Vec::new(),
    };
    let child = Creation {
        members: Membership::of([ReplicaId(7), ReplicaId(8)]),
        shard: shard.encode(),
        seed: Some(Seed { parent: ReplicaId(1), checksum: 0x1234_5678_9abc_def0 }),
    };
    let beside = ShardCreation { beside: vec![ReplicaId(7)], ..shard };
    let beside = Creation { members: Membership::default(), shard: beside.encode(), seed: None };
    kinds.into_iter().map(seed).chain([child, beside].map(|creation| creation.encode().to_vec())).collect()
}
