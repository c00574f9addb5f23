//! Replicas that are moved between data directories of a node: the plan of a request, and what is recorded.

use std::collections::BTreeMap;

use ottla_protocol::error::ErrorCode;
use ottla_protocol::ids::NodeId;
use ottla_storage::ids::ReplicaId;
use uuid::Uuid;

use crate::levels::{DIRECTORY_MOVES, FeatureLevel, Levels};
use crate::metadata::command::Command;
use crate::metadata::decide::ControllerRequest;
use crate::metadata::image::{NodeRecord, ReplicaRecord, ShardId};
use crate::metadata::log_dirs::{DirectoryChange, decide, plan};
use crate::metadata::placement::{missing_pool_shards, place_in_pool};
use crate::metadata::state_machine::MetadataStateMachine;
use crate::metadata::tests::placement::{apply, cluster, node};
use crate::metadata::tests::reassign::change;

const NODE: NodeId = NodeId(1);

/// Three nodes with two directories each, and a topic with two partitions for each shard.
fn with_topic() -> MetadataStateMachine {
    let nodes = (1..=3).map(|id| NodeRecord { levels: Levels::OWN, ..node(id, None, &[100, 100]) });
    let mut machine = cluster(nodes.collect());
    apply(&mut machine, &[Command::SetFeatureLevel { level: DIRECTORY_MOVES }]);
    let shards = missing_pool_shards(machine.image(), 3);
    apply(&mut machine, &shards.into_iter().map(Command::AddShard).collect::<Vec<_>>());
    let shards = place_in_pool(machine.image(), 3, 12).shards;
    let create = Command::CreateTopic {
        name: "t".to_owned(),
        id: Uuid::from_u128(1),
        internal: false,
        overrides: BTreeMap::new(),
        shards,
    };
    apply(&mut machine, &[create]);
    machine
}

fn own(machine: &MetadataStateMachine, shard: ShardId) -> ReplicaRecord {
    let record = machine.image().shard(shard).unwrap();
    *record.replicas.iter().find(|replica| replica.node == NODE).unwrap()
}

/// The directory of the node that the replica is not in.
fn other(machine: &MetadataStateMachine, shard: ShardId) -> Uuid {
    let known = &machine.image().nodes[&NODE].directories;
    known.iter().map(|directory| directory.id).find(|id| *id != own(machine, shard).directory).unwrap()
}

/// A shard, and the partitions that it carries.
fn carried(machine: &MetadataStateMachine) -> (ShardId, Vec<i32>) {
    let topic = machine.image().topic("t").unwrap();
    let shard = topic.route(0).unwrap().shard;
    (shard, (0..12).filter(|index| topic.route(*index).unwrap().shard == shard).collect())
}

fn changes(indexes: &[i32], directory: Uuid) -> Vec<DirectoryChange> {
    indexes.iter().map(|index| DirectoryChange { topic: "t".to_owned(), index: *index, directory }).collect()
}

#[test]
fn a_whole_shard_moves_and_a_part_of_one_is_split_off_first() {
    let machine = with_topic();
    let (shard, indexes) = carried(&machine);
    let to = other(&machine, shard);
    assert_eq!(indexes.len(), 2);
    let whole = plan(machine.image(), NODE, &changes(&indexes, to));
    assert_eq!((whole.moves, whole.splits), ([(shard, to)].into(), BTreeMap::new()));
    let part = plan(machine.image(), NODE, &changes(&indexes[..1], to));
    assert_eq!((part.outcomes, part.moves), (vec![Ok(shard)], BTreeMap::new()));
    assert_eq!(part.splits, [(shard, vec![(Uuid::from_u128(1), indexes[0])])].into());
    // What is there already stays where it is, and keeps the other one from nothing.
    let stays = changes(&indexes[1..], own(&machine, shard).directory);
    let both = plan(machine.image(), NODE, &[changes(&indexes[..1], to), stays.clone()].concat());
    assert_eq!(both.splits.len(), 1);
    assert_eq!(plan(machine.image(), NODE, &stays).moves.len() + plan(machine.image(), NODE, &stays).splits.len(), 0);
    let unknown = plan(machine.image(), NODE, &changes(&[99], to));
    assert_eq!(unknown.outcomes[0].as_ref().unwrap_err().code(), ErrorCode::UnknownTopicOrPartition);
    let nowhere = plan(machine.image(), NodeId(9), &changes(&indexes, to));
    assert!(nowhere.outcomes.iter().all(Result::is_err));
}

#[test]
fn the_replica_there_is_a_new_one_and_the_former_one_is_taken_back() {
    let mut machine = with_topic();
    let (shard, _) = carried(&machine);
    let (before, to) = (own(&machine, shard), other(&machine, shard));
    let next = ReplicaId(machine.image().next_replica_id);
    let request = |directory| ControllerRequest::ChangeDirectory { shard, node: NODE, directory };
    assert_eq!(change(&mut machine, &request(to)), 1);
    let record = machine.image().shard(shard).unwrap().clone();
    assert_eq!(own(&machine, shard), ReplicaRecord { id: next, node: NODE, directory: to });
    assert_eq!((record.leaving.clone(), record.adding.clone()), (vec![before], vec![next]));
    assert!(record.adding_nodes().is_empty() && record.removing_nodes().is_empty(), "for Kafka no reassignment");
    let sorted = |mut nodes: Vec<NodeId>| {
        nodes.sort();
        nodes
    };
    assert_eq!(sorted(record.nodes()), sorted(record.in_sync_nodes()));
    assert_eq!(change(&mut machine, &request(to)), 0, "it is there");
    assert_eq!(change(&mut machine, &request(before.directory)), 1);
    assert_eq!(own(&machine, shard), before);
    // A part of a shard whose replicas are moved waits.
    let (_, indexes) = carried(&machine);
    let part = plan(machine.image(), NODE, &changes(&indexes[..1], to));
    assert_eq!((part.outcomes[0].is_err(), part.splits.len()), (true, 0));
}

#[test]
fn what_is_not_there_is_refused() {
    let mut machine = with_topic();
    let (shard, _) = carried(&machine);
    let to = other(&machine, shard);
    assert!(decide(machine.image(), shard, NODE, Uuid::from_u128(77)).is_err());
    assert!(decide(machine.image(), shard, NodeId(9), to).is_err());
    assert!(decide(machine.image(), ShardId(999), NODE, to).is_err());
    assert!(decide(machine.image(), ShardId::METADATA, NODE, to).is_err());
    let split = ControllerRequest::SplitShard { parent: shard, partitions: vec![(Uuid::from_u128(1), 0)] };
    change(&mut machine, &split);
    assert!(decide(machine.image(), shard, NODE, to).is_err(), "it is being split");
    let mut older = with_topic().image().clone();
    older.level = FeatureLevel(DIRECTORY_MOVES.0 - 1);
    let refused = decide(&older, shard, NODE, to).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::UnsupportedVersion);
}
