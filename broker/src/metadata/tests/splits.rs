//! Splits of shards: what is recorded, what stays as it is until the parent's log has the split, and where partitions are
//! then.

use std::collections::BTreeMap;

use ottla_protocol::error::ErrorCode;
use ottla_protocol::ids::NodeId;
use ottla_storage::ids::RaftIndex;
use uuid::Uuid;

use crate::levels::{FeatureLevel, Levels};
use crate::metadata::command::Command;
use crate::metadata::decide::{ControllerRequest, decide};
use crate::metadata::error::MetadataError;
use crate::metadata::image::{IntentKind, NodeRecord, ShardId, ShardKind, ShardRecord, SplitRecord};
use crate::metadata::placement::missing_pool_shards;
use crate::metadata::requests::NewPartitions;
use crate::metadata::splits;
use crate::metadata::state_machine::{MetadataStateMachine, Outcome, Refusal};
use crate::metadata::tests::placement::{apply, cluster, node};

pub(super) const TOPIC: Uuid = Uuid::from_u128(7);

/// Three nodes at this level, and a topic of four partitions on one shard of three replicas.
pub(super) fn at_level(level: i16) -> (MetadataStateMachine, ShardId) {
    let nodes = (1..=3).map(|id| NodeRecord { levels: Levels::OWN, ..node(id, None, &[100]) });
    let mut machine = cluster(nodes.collect());
    apply(&mut machine, &[Command::SetFeatureLevel { level: FeatureLevel(level) }]);
    let shards = missing_pool_shards(machine.image(), 3);
    let shard = shards[0].id;
    apply(&mut machine, &shards.into_iter().map(Command::AddShard).collect::<Vec<_>>());
    let (name, shards) = ("t".to_owned(), vec![shard; 4]);
    let topic = Command::CreateTopic { name, id: TOPIC, internal: false, overrides: BTreeMap::new(), shards };
    apply(&mut machine, &[topic]);
    (machine, shard)
}

fn request(parent: ShardId, indexes: &[i32]) -> ControllerRequest {
    ControllerRequest::SplitShard { parent, partitions: indexes.iter().map(|index| (TOPIC, *index)).collect() }
}

pub(super) fn split(
    machine: &mut MetadataStateMachine,
    parent: ShardId,
    indexes: &[i32],
) -> Result<ShardId, MetadataError> {
    let commands = decide(machine.image(), &request(parent, indexes))?.commands;
    let child = ShardId(machine.image().next_shard_id);
    apply(machine, &commands);
    Ok(child)
}

pub(super) fn end(machine: &mut MetadataStateMachine, child: ShardId, at: u64) {
    let command = splits::end(machine.image(), child, RaftIndex(at)).unwrap();
    apply(machine, &[command]);
}

fn record(machine: &MetadataStateMachine, shard: ShardId) -> (ShardRecord, SplitRecord) {
    let record = machine.image().shard(shard).unwrap().as_ref().clone();
    let split = record.split.clone().unwrap();
    (record, split)
}

pub(super) fn routes(machine: &MetadataStateMachine) -> Vec<ShardId> {
    machine.image().topic("t").unwrap().partitions.iter().map(|route| route.shard).collect()
}

#[test]
fn the_child_has_a_replica_beside_each_of_the_parents_and_gets_its_partitions_at_the_end() {
    let (mut machine, parent) = at_level(3);
    let before = machine.image().clone();
    let child = split(&mut machine, parent, &[3, 1, 3]).unwrap();
    let (made, first) = record(&machine, child);
    let places = |record: &ShardRecord| {
        record.replicas.iter().map(|replica| (replica.node, replica.directory)).collect::<Vec<_>>()
    };
    let of_parent = before.shard(parent).unwrap();
    assert_eq!((places(&made), made.founders.len()), (places(of_parent), 0));
    let pairs = first.replicas.iter().map(|pair| (pair.parent, pair.child));
    assert!(pairs.eq(of_parent.replicas.iter().zip(&made.replicas).map(|(parent, child)| (parent.id, child.id))));
    assert!(made.replicas.iter().all(|replica| replica.id.0 >= before.next_replica_id));
    assert_eq!((first.done, first.partitions.clone()), (None, vec![(TOPIC, vec![1, 3])]));
    assert_eq!(routes(&machine), vec![parent; 4]);

    end(&mut machine, child, 55);
    assert_eq!(routes(&machine), [parent, child, parent, child]);
    let (_, ended) = record(&machine, child);
    assert_eq!((ended.done, ended.partitions.len(), ended.intent), (Some(RaftIndex(55)), 0, first.intent));
    let topic = machine.image().topic("t").unwrap().clone();
    assert_eq!(topic.route(1).unwrap().intent, first.intent);
    let counts = &machine.image().partitions_by_shard;
    assert_eq!((counts[&parent], counts[&child]), (2, 2));
    assert_eq!(splits::end(machine.image(), child, RaftIndex(56)), None);

    // What a checkpoint holds is the same.
    let records = machine.all_records();
    let base = machine.image().config.clone();
    let restored = MetadataStateMachine::restore(base, machine.image().index, &records).unwrap();
    assert_eq!(restored.image().shard(child), machine.image().shard(child));
    assert_eq!(restored.image().partitions_by_shard, machine.image().partitions_by_shard);
}

/// It has been made for what it carries: for a partition that is busy, say.
#[test]
fn a_shard_that_was_split_off_takes_no_other_partitions() {
    let (mut machine, parent) = at_level(3);
    let child = split(&mut machine, parent, &[0]).unwrap();
    end(&mut machine, child, 9);
    let grow = |machine: &MetadataStateMachine, count, assignments| {
        let topic = "t".to_owned();
        let grow = ControllerRequest::CreatePartitions(NewPartitions { topic, count, assignments });
        decide(machine.image(), &grow).unwrap().commands
    };
    let commands = grow(&machine, 6, None);
    apply(&mut machine, &commands);
    let placed = &routes(&machine)[4..];
    let in_pool =
        |shard: &ShardId| matches!(machine.image().shard(*shard).unwrap().kind, ShardKind::Pool { pinned: false, .. });
    assert!(placed.iter().all(in_pool), "the first partition lies alone, and nobody has assigned nodes: {placed:?}");
    let nodes = machine.image().replica_nodes(machine.image().topic("t").unwrap(), 0);
    let commands = grow(&machine, 8, Some(vec![nodes; 2]));
    apply(&mut machine, &commands);
    assert!(!routes(&machine)[6..].contains(&child));
}

#[test]
fn while_a_split_is_open_nothing_else_changes_either_shard() {
    let (mut machine, parent) = at_level(3);
    let child = split(&mut machine, parent, &[0]).unwrap();
    for shard in [parent, child] {
        let moved = ControllerRequest::ChangeReplicas { shard, nodes: vec![NodeId(1), NodeId(2), NodeId(3)] };
        assert_eq!(decide(machine.image(), &moved).unwrap_err().code(), ErrorCode::InvalidRequest);
        let record = machine.image().shard(shard).unwrap().clone();
        let before = record.replicas.iter().map(|replica| replica.id).collect();
        let set = Command::SetReplicas { shard, before, replicas: record.replicas[1..].to_vec() };
        let index = RaftIndex(machine.image().index.0 + 1);
        assert_eq!(machine.apply_command(index, set), Outcome::Refused(Refusal::Split));
        assert_eq!(split(&mut machine, shard, &[1]).unwrap_err().code(), ErrorCode::InvalidRequest);
    }
    end(&mut machine, child, 9);
    assert!(split(&mut machine, child, &[0]).is_ok() && split(&mut machine, parent, &[1]).is_ok());
}

#[test]
fn a_split_needs_partitions_of_its_parent_and_the_level() {
    let (mut machine, parent) = at_level(3);
    let other = ShardId(parent.0 + 1);
    let code = |machine: &mut MetadataStateMachine, parent, indexes: &[i32]| {
        split(machine, parent, indexes).map_or_else(|error| error.code(), |_| ErrorCode::None)
    };
    for (parent, indexes) in [(parent, &[][..]), (parent, &[4]), (other, &[0]), (ShardId::METADATA, &[0])] {
        assert_eq!(code(&mut machine, parent, indexes), ErrorCode::InvalidRequest);
    }
    let (mut machine, parent) = at_level(2);
    assert_eq!(code(&mut machine, parent, &[0]), ErrorCode::UnsupportedVersion);
}

/// The child may have it, if the parent's log had the split before the drop.
#[test]
fn a_topic_that_is_deleted_during_the_split_is_dropped_by_both() {
    let (mut machine, parent) = at_level(3);
    let child = split(&mut machine, parent, &[2]).unwrap();
    apply(&mut machine, &[Command::DeleteTopic { id: TOPIC }]);
    end(&mut machine, child, 9);
    let index = machine.image().index;
    let dropped: Vec<_> = machine.image().intents_of(child).map(|(key, intent)| (*key, intent.clone())).collect();
    assert_eq!(dropped.len(), 1);
    assert_eq!((dropped[0].0.index, dropped[0].0.topic, dropped[0].1.kind), (index, TOPIC, IntentKind::Drop));
    assert_eq!(dropped[0].1.partitions, [(2, 0)]);
    assert!(machine.image().intents_of(parent).any(|(_, intent)| intent.kind == IntentKind::Drop));
}

/// A refusal of the state machine, for a decision on another image.
#[test]
fn a_split_that_does_not_fit_is_refused_whole() {
    let (mut machine, parent) = at_level(3);
    let commands = decide(machine.image(), &request(parent, &[0])).unwrap().commands;
    let Some(Command::SplitShard { child, partitions, .. }) = commands.first().cloned() else { unreachable!() };
    let mut elsewhere = child.clone();
    elsewhere.replicas.rotate_left(1);
    let index = RaftIndex(machine.image().index.0 + 1);
    let checksum = machine.checksum();
    let mut refused = |parent, child, partitions, why| {
        let outcome = machine.apply_command(index, Command::SplitShard { parent, child, partitions });
        assert_eq!((outcome, machine.checksum()), (Outcome::Refused(why), checksum));
    };
    refused(ShardId(99), child.clone(), partitions.clone(), Refusal::Shard);
    refused(parent, elsewhere, partitions.clone(), Refusal::Replicas);
    refused(parent, child.clone(), vec![(TOPIC, vec![9])], Refusal::NoSuchTopic);
    refused(parent, child, vec![(Uuid::from_u128(8), vec![0])], Refusal::NoSuchTopic);
    let outcome = machine.apply_command(index, Command::EndSplit { child: parent, at: RaftIndex(1) });
    assert_eq!(outcome, Outcome::Refused(Refusal::Split));
}
