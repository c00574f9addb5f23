//! Reassignments: of whole shards, of parts that are split off first, and their cancellation.

use std::collections::BTreeMap;

use ottla_protocol::error::ErrorCode;
use ottla_protocol::ids::NodeId;
use ottla_storage::ids::{RaftIndex, ReplicaId};
use uuid::Uuid;

use crate::levels::{FeatureLevel, Levels};
use crate::metadata::command::Command;
use crate::metadata::decide::{ControllerRequest, decide};
use crate::metadata::image::{NodeRecord, ShardId, ShardKind, SplitRecord};
use crate::metadata::placement::{missing_pool_shards, place_in_pool};
use crate::metadata::reassign::{Plan, plan};
use crate::metadata::requests::Reassignment;
use crate::metadata::state_machine::{MetadataStateMachine, Outcome, Refusal};
use crate::metadata::tests::placement::{apply, cluster, node};

/// Four nodes, shards of three replicas, and two topics of as many partitions as there are shards.
fn two_topics() -> MetadataStateMachine {
    let nodes = (1..=4).map(|id| NodeRecord { levels: Levels::OWN, ..node(id, None, &[100]) });
    let mut machine = cluster(nodes.collect());
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

pub(super) fn change(machine: &mut MetadataStateMachine, request: &ControllerRequest) -> usize {
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
    // A refusal for one shard does not affect another shard.
    let unknown = [both.to_vec(), vec![reassignment("a", 99, None), reassignment("c", 0, None)]].concat();
    let unknown = plan(machine.image(), &unknown, true);
    use ErrorCode::{None as Done, UnknownTopicOrPartition as Unknown};
    assert_eq!((codes(&unknown), unknown.moves.len()), (vec![Done, Done, Unknown, Unknown], 1));
}

/// The cluster, the shard that carries partition 0 of topic a, and which partition of topic b it carries.
fn shared(level: i16) -> (MetadataStateMachine, ShardId, i32) {
    let mut machine = two_topics();
    apply(&mut machine, &[Command::SetFeatureLevel { level: FeatureLevel(level) }]);
    let shard = shard_of(&machine, "a", 0);
    let other = (0..8).find(|index| shard_of(&machine, "b", *index) == shard).unwrap();
    (machine, shard, other)
}

fn id_of(machine: &MetadataStateMachine, topic: &str) -> Uuid {
    machine.image().topic(topic).unwrap().id
}

#[test]
fn a_part_of_a_shard_is_split_off_before_it_is_moved() {
    let (mut machine, shard, _) = shared(SplitRecord::LEVEL.0);
    let part = [reassignment("a", 0, nodes(&[4, 1, 2]))];
    let planned = plan(machine.image(), &part, true);
    assert_eq!(planned.outcomes, [Ok(shard)]);
    let split = vec![(id_of(&machine, "a"), 0)];
    assert_eq!((planned.moves, planned.splits), (BTreeMap::new(), [(shard, split.clone())].into()));
    // Once it is done, the part is a whole.
    change(&mut machine, &ControllerRequest::SplitShard { parent: shard, partitions: split });
    let child = machine.image().open_split_of(shard).unwrap().0.id;
    change(&mut machine, &ControllerRequest::EndSplit { child, at: RaftIndex(1) });
    let planned = plan(machine.image(), &part, true);
    assert_eq!(planned.outcomes, [Ok(child)]);
    assert_eq!((planned.moves, planned.splits), ([(child, nodes(&[4, 1, 2]).unwrap())].into(), BTreeMap::new()));
}

#[test]
fn each_list_of_nodes_gets_a_shard_and_the_last_one_keeps_the_old() {
    let (mut machine, shard, other) = shared(SplitRecord::LEVEL.0);
    let on = machine.image().shard(shard).unwrap().nodes_before();
    let turned: Vec<_> = on.iter().rev().copied().collect();
    let both = [reassignment("a", 0, nodes(&[4, 1, 2])), reassignment("b", other, Some(turned.clone()))];
    let splits = plan(machine.image(), &both, true).splits;
    assert_eq!(splits.len(), 1);
    change(&mut machine, &ControllerRequest::SplitShard { parent: shard, partitions: splits[&shard].clone() });
    let child = machine.image().open_split_of(shard).unwrap().0.id;
    change(&mut machine, &ControllerRequest::EndSplit { child, at: RaftIndex(1) });
    let planned = plan(machine.image(), &both, true);
    let all: Vec<_> = planned.moves.values().cloned().collect();
    assert_eq!((planned.moves.len(), planned.splits.len()), (2, 0));
    assert!(all.contains(&turned) && all.contains(&nodes(&[4, 1, 2]).unwrap()), "{all:?}");
    // Nothing is split off for what is there already.
    let stays = [both[0].clone(), reassignment("b", other, Some(on.clone()))];
    let (machine, shard, _) = shared(SplitRecord::LEVEL.0);
    let planned = plan(machine.image(), &stays, true);
    assert_eq!(planned.splits, [(shard, vec![(id_of(&machine, "a"), 0)])].into());
    let planned = plan(machine.image(), &stays[1..], true);
    assert_eq!((planned.outcomes, planned.splits, planned.moves), (vec![Ok(shard)], BTreeMap::new(), BTreeMap::new()));
}

#[test]
fn a_part_of_a_shard_is_refused_where_it_cannot_be_split_off() {
    use ErrorCode::{InvalidReplicaAssignment as Refused, None as Done};
    let (mut machine, shard, other) = shared(SplitRecord::LEVEL.0);
    // It is named twice; a cancellation is of the whole move.
    let twice = [reassignment("a", 0, nodes(&[4, 1, 2])), reassignment("a", 0, nodes(&[4, 2, 1]))];
    assert_eq!(codes(&plan(machine.image(), &twice, true)), [Refused; 2]);
    // A list that is wrong costs the others nothing.
    let wrong = [reassignment("a", 0, nodes(&[4, 1, 2])), reassignment("b", other, nodes(&[1, 2, 9]))];
    let planned = plan(machine.image(), &wrong, true);
    assert_eq!((codes(&planned), planned.splits.len()), (vec![Done, Refused], 1));
    change(&mut machine, &ControllerRequest::ChangeReplicas { shard, nodes: nodes(&[4, 1, 2]).unwrap() });
    let part = [reassignment("a", 0, nodes(&[4, 2, 3]))];
    let planned = plan(machine.image(), &part, true);
    assert_eq!((codes(&planned), planned.splits.len()), (vec![Refused], 0), "its shard is being moved");
    let cancel = plan(machine.image(), &[reassignment("a", 0, None)], true);
    assert_eq!((codes(&cancel), cancel.moves.len()), (vec![Refused], 0));
    // Below the level that knows splits.
    let (machine, _, other) = shared(SplitRecord::LEVEL.0 - 1);
    let planned = plan(machine.image(), &part, true);
    assert!(planned.moves.is_empty() && planned.splits.is_empty());
    let why = planned.outcomes[0].as_ref().unwrap_err();
    assert_eq!(why.code(), Refused);
    assert!(why.to_string().contains(&format!("b-{other}")) && !why.to_string().contains("a-0"), "{why}");
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
