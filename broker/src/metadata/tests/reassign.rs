//! Reassignments: whole shards only, all or nothing, and their cancellation.

use std::collections::BTreeMap;

use ottla_protocol::error::ErrorCode;
use ottla_protocol::ids::NodeId;
use ottla_storage::ids::{RaftIndex, ReplicaId};
use uuid::Uuid;

use crate::metadata::command::Command;
use crate::metadata::decide::{ControllerRequest, decide};
use crate::metadata::image::{ShardId, ShardKind};
use crate::metadata::placement::{missing_pool_shards, place_in_pool};
use crate::metadata::reassign::{Plan, plan};
use crate::metadata::requests::Reassignment;
use crate::metadata::state_machine::{MetadataStateMachine, Outcome, Refusal};
use crate::metadata::tests::placement::{apply, cluster, node};

/// Four nodes, shards of three replicas, and two topics of as many partitions as there are shards.
fn two_topics() -> MetadataStateMachine {
    let mut machine = cluster((1..=4).map(|id| node(id, None, &[100])).collect());
    let shards = missing_pool_shards(machine.image(), 3);
    apply(&mut machine, &shards.into_iter().map(Command::AddShard).collect::<Vec<_>>());
    for (number, name) in [(1, "a"), (2, "b")] {
        let shards = place_in_pool(machine.image(), 3, 8).shards;
        let id = Uuid::from_u128(number);
        let name = name.to_owned();
        apply(&mut machine, &[Command::CreateTopic { name, id, internal: false, overrides: BTreeMap::new(), shards }]);
    }
    machine
}

fn nodes(nodes: &[i32]) -> Option<Vec<NodeId>> {
    Some(nodes.iter().copied().map(NodeId).collect())
}

fn reassignment(topic: &str, index: i32, nodes: Option<Vec<NodeId>>) -> Reassignment {
    Reassignment { topic: topic.to_owned(), index, nodes }
}

/// The shard of a partition, and the other topic's partition that it carries too.
fn shard_of(machine: &MetadataStateMachine, topic: &str, index: i32) -> ShardId {
    machine.image().topic(topic).unwrap().route(index).unwrap().shard
}

fn codes(plan: &Plan) -> Vec<ErrorCode> {
    plan.outcomes
        .iter()
        .map(|outcome| outcome.as_ref().map_or_else(|error| error.code(), |_| ErrorCode::None))
        .collect()
}

fn change(machine: &mut MetadataStateMachine, request: &ControllerRequest) -> usize {
    let decided = decide(machine.image(), request).unwrap();
    let index = RaftIndex(machine.image().index.0 + 1);
    machine.advance(index);
    for command in &decided.commands {
        assert_eq!(machine.apply_command(index, command.clone()), Outcome::Done, "{command:?}");
    }
    decided.commands.len()
}

#[test]
fn a_shard_moves_when_all_its_partitions_are_named_with_the_same_nodes() {
    let machine = two_topics();
    let shard = shard_of(&machine, "a", 0);
    let other = (0..8).find(|index| shard_of(&machine, "b", *index) == shard).unwrap();
    let both = [reassignment("a", 0, nodes(&[4, 1, 2])), reassignment("b", other, nodes(&[4, 1, 2]))];
    let planned = plan(machine.image(), &both, true);
    assert_eq!(planned.outcomes, [Ok(shard), Ok(shard)]);
    assert_eq!(planned.moves, BTreeMap::from([(shard, nodes(&[4, 1, 2]).unwrap())]));
    // A part of the shard: the error names the missing partitions.
    let part = plan(machine.image(), &both[..1], true);
    assert!(part.moves.is_empty());
    let why = part.outcomes[0].as_ref().unwrap_err();
    assert_eq!(why.code(), ErrorCode::InvalidReplicaAssignment);
    assert!(why.to_string().contains(&format!("b-{other}")) && !why.to_string().contains("a-0"), "{why}");
    // Two lists for one shard.
    let differing = [both[0].clone(), reassignment("b", other, nodes(&[1, 4, 2]))];
    assert_eq!(codes(&plan(machine.image(), &differing, true)), [ErrorCode::InvalidReplicaAssignment; 2]);
    // A refusal for one shard does not affect another shard.
    let unknown = [both.to_vec(), vec![reassignment("a", 99, None), reassignment("c", 0, None)]].concat();
    let unknown = plan(machine.image(), &unknown, true);
    use ErrorCode::{None as Done, UnknownTopicOrPartition as Unknown};
    assert_eq!((codes(&unknown), unknown.moves.len()), (vec![Done, Done, Unknown, Unknown], 1));
}

#[test]
fn nodes_must_be_registered_once_and_as_many_unless_that_may_change() {
    let machine = two_topics();
    let shard = shard_of(&machine, "a", 0);
    let other = (0..8).find(|index| shard_of(&machine, "b", *index) == shard).unwrap();
    let both = |wanted: &[i32], may: bool| {
        let requested = [reassignment("a", 0, nodes(wanted)), reassignment("b", other, nodes(wanted))];
        codes(&plan(machine.image(), &requested, may))[0]
    };
    assert_eq!(both(&[], true), ErrorCode::InvalidReplicaAssignment);
    assert_eq!(both(&[1, 1, 2], true), ErrorCode::InvalidReplicaAssignment);
    assert_eq!(both(&[1, 2, 9], true), ErrorCode::InvalidReplicaAssignment);
    assert_eq!(both(&[1, 2], false), ErrorCode::InvalidReplicationFactor);
    assert_eq!(both(&[1, 2], true), ErrorCode::None);
    assert_eq!(both(&[2, 3, 4], false), ErrorCode::None);
}

#[test]
fn a_move_that_is_under_way_can_be_seen_and_taken_back() {
    let mut machine = two_topics();
    let shard = shard_of(&machine, "a", 0);
    let other = (0..8).find(|index| shard_of(&machine, "b", *index) == shard).unwrap();
    let cancel = [reassignment("a", 0, None), reassignment("b", other, None)];
    assert_eq!(codes(&plan(machine.image(), &cancel, true)), [ErrorCode::NoReassignmentInProgress; 2]);
    let before = machine.image().shard(shard).unwrap().as_ref().clone();
    let on: Vec<NodeId> = before.replicas.iter().map(|replica| replica.node).collect();
    let new = (1..=4).map(NodeId).find(|node| !on.contains(node)).unwrap();
    let target = vec![on[0], new, on[2]];
    assert_eq!(change(&mut machine, &ControllerRequest::ChangeReplicas { shard, nodes: target }), 1);
    let record = machine.image().shard(shard).unwrap().clone();
    assert_eq!((record.adding_nodes(), record.removing_nodes()), (vec![new], vec![on[1]]));
    assert_eq!(record.nodes(), [on[0], new, on[2], on[1]], "old and new");
    assert_eq!(record.in_sync_nodes(), [on[0], on[2], on[1]], "who is being added is not in sync");
    assert_eq!(record.nodes_before(), on);
    let planned = plan(machine.image(), &cancel, true);
    assert_eq!(planned.moves, BTreeMap::from([(shard, on.clone())]));
    assert_eq!(change(&mut machine, &ControllerRequest::ChangeReplicas { shard, nodes: on.clone() }), 1);
    let record = machine.image().shard(shard).unwrap().clone();
    assert_eq!(record.replicas, before.replicas);
    assert_eq!((record.adding_nodes(), record.removing_nodes()), (vec![], vec![new]));
    // Its leader reports that the intended members are reached.
    let reached = record.replicas.iter().map(|replica| replica.id).collect();
    let left = record.leaving.iter().map(|replica| replica.id).collect();
    assert_eq!(change(&mut machine, &ControllerRequest::ForgetReplicas { shard, reached, left }), 1);
    assert!(!machine.image().shard(shard).unwrap().is_moving());
}

#[test]
fn replicas_that_are_only_added_are_being_added_until_the_leader_says_otherwise() {
    let mut machine = two_topics();
    let shard = shard_of(&machine, "a", 0);
    let all: Vec<NodeId> = (1..=4).map(NodeId).collect();
    change(&mut machine, &ControllerRequest::ChangeReplicas { shard, nodes: all });
    let record = machine.image().shard(shard).unwrap().clone();
    assert_eq!((record.adding.len(), record.leaving.len(), record.is_moving()), (1, 0, true));
    // Such a shard takes no partitions of topics with three replicas any more.
    assert_eq!(record.kind, ShardKind::Pool { factor: 4, pinned: true });
    let forget = |reached: Vec<ReplicaId>| Command::ForgetReplicas { shard, reached, left: Vec::new() };
    let index = RaftIndex(machine.image().index.0 + 1);
    machine.advance(index);
    let early = machine.apply_command(index, forget(vec![ReplicaId(1)]));
    assert_eq!(early, Outcome::Refused(Refusal::Replicas));
    let reached: Vec<_> = record.wanted().into_iter().collect();
    let report = ControllerRequest::ForgetReplicas { shard, reached: reached.clone(), left: Vec::new() };
    assert_eq!(change(&mut machine, &report), 1);
    assert!(!machine.image().shard(shard).unwrap().is_moving());
    assert_eq!(change(&mut machine, &report), 0, "reported twice");
}
