//! Draining and unregistering nodes, step by step until nothing is due: invariants of each step, and the final state.

use std::collections::{BTreeMap, BTreeSet};

use ottla_protocol::error::ErrorCode;
use ottla_protocol::ids::NodeId;
use ottla_storage::ids::{RaftIndex, ReplicaId};
use proptest::prelude::*;
use uuid::Uuid;

use crate::metadata::command::{Command, NewShard};
use crate::metadata::decide::{ControllerRequest, decide};
use crate::metadata::image::{MetadataImage, NodeState, ReplicaRecord, ShardId, ShardKind, ShardRecord};
use crate::metadata::moves::{MOVES_MAX, due};
use crate::metadata::placement::{default_factor, missing_pool_shards, place_in_pool, place_internal};
use crate::metadata::registration::NodeRegistration;
use crate::metadata::requests::Nodes;
use crate::metadata::state_machine::{MetadataStateMachine, Outcome, Refusal};
use crate::metadata::tests::placement::{apply, cluster, node};

/// A cluster of this many nodes in this many zones, with the metadata group, the pool and group offsets.
pub(super) fn founded(count: i32, zones: i32) -> MetadataStateMachine {
    let zone = |id: i32| format!("z{}", id % zones);
    let mut machine = cluster((1..=count).map(|id| node(id, Some(&zone(id)), &[100])).collect());
    let replica = |id: i32| ReplicaRecord {
        id: ReplicaId(u64::from(id.unsigned_abs())),
        node: NodeId(id),
        directory: Uuid::from_u128(u128::from(id.unsigned_abs()) * 100 + 1),
    };
    let replicas = (1..=count).map(replica).collect();
    apply(&mut machine, &[Command::AddShard(NewShard { id: ShardId::METADATA, kind: ShardKind::Metadata, replicas })]);
    let factor = default_factor(usize::try_from(count).unwrap());
    let pool = missing_pool_shards(machine.image(), factor);
    apply(&mut machine, &pool.into_iter().map(Command::AddShard).collect::<Vec<_>>());
    let internal = place_internal(machine.image(), ShardKind::ConsumerOffsets, factor, 50).new_shards;
    apply(&mut machine, &internal.into_iter().map(Command::AddShard).collect::<Vec<_>>());
    machine
}

pub(super) fn submit(machine: &mut MetadataStateMachine, request: &ControllerRequest) -> Result<usize, ErrorCode> {
    let decided = decide(machine.image(), request).map_err(|error| error.code())?;
    let index = RaftIndex(machine.image().index.0 + 1);
    machine.advance(index);
    for command in &decided.commands {
        assert_eq!(machine.apply_command(index, command.clone()), Outcome::Done, "{command:?}");
    }
    Ok(decided.commands.len())
}

pub(super) fn drain(machine: &mut MetadataStateMachine, node: i32) {
    submit(machine, &ControllerRequest::Drain { nodes: Nodes::One(NodeId(node)), drain: true }).unwrap();
}

/// A shard's leader reports that the intended members are reached.
pub(super) fn settle(machine: &mut MetadataStateMachine, shard: &ShardRecord) {
    let reached = shard.replicas.iter().map(|replica| replica.id).collect();
    let left = shard.leaving.iter().map(|replica| replica.id).collect();
    submit(machine, &ControllerRequest::ForgetReplicas { shard: shard.id, reached, left }).unwrap();
}

pub(super) fn moving(image: &MetadataImage) -> Vec<ShardRecord> {
    image.shards.values().filter(|shard| shard.is_moving()).map(|shard| shard.as_ref().clone()).collect()
}

pub(super) fn zones(image: &MetadataImage, shard: &ShardRecord) -> usize {
    let racks = shard.replicas.iter().map(|replica| image.nodes[&replica.node].rack.clone());
    racks.collect::<BTreeSet<_>>().len()
}

fn held(image: &MetadataImage, node: NodeId) -> usize {
    let carrying = image.shards.values().filter(|shard| shard.kind != ShardKind::Metadata);
    carrying.filter(|shard| shard.members().any(|replica| replica.node == node)).count()
}

/// Carries out everything that is due, one moved shard after the other; returns the number of moves.
fn run(machine: &mut MetadataStateMachine) -> usize {
    let mut moves = 0;
    for _ in 0..500 {
        let before = machine.image().clone();
        moves += submit(machine, &ControllerRequest::Balance).unwrap();
        let image = machine.image().clone();
        let under_way = moving(&image);
        assert!(under_way.iter().filter(|shard| shard.id != ShardId::METADATA).count() <= MOVES_MAX);
        for shard in &under_way {
            let nodes: BTreeSet<NodeId> = shard.replicas.iter().map(|replica| replica.node).collect();
            assert_eq!(nodes.len(), shard.replicas.len(), "two replicas on one node");
            if shard.id != ShardId::METADATA {
                assert_eq!(shard.replicas.len(), before.shards[&shard.id].replicas.len(), "as many as before");
            }
            assert!(shard.adding_nodes().iter().all(|node| image.takes_replicas(*node)));
        }
        match under_way.first() {
            Some(shard) => settle(machine, shard),
            None if due(machine.image()).is_empty() => return moves,
            None => {}
        }
    }
    panic!("it never ends");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn drained_nodes_are_emptied_wherever_others_can_take_what_they_hold(
        count in 3_i32..9, zone_count in 1_i32..5, gone in proptest::collection::btree_set(1_i32..9, 1..3),
    ) {
        let mut machine = founded(count, zone_count);
        let gone: Vec<i32> = gone.into_iter().filter(|node| *node <= count).collect();
        prop_assume!(gone.len() < usize::try_from(count).unwrap() && !gone.is_empty());
        gone.iter().for_each(|node| drain(&mut machine, *node));
        run(&mut machine);
        let image = machine.image();
        let staying: Vec<_> = image.nodes.values().filter(|node| node.takes_replicas()).collect();
        let zones_left = staying.iter().map(|node| node.rack.clone()).collect::<BTreeSet<_>>().len();
        for node in gone {
            let enough = staying.len() >= 3;
            prop_assert!(!enough || held(image, NodeId(node)) == 0, "node {} holds {}", node, held(image, NodeId(node)));
        }
        for shard in image.shards.values().filter(|shard| shard.kind != ShardKind::Metadata) {
            if shard.replicas.iter().all(|replica| image.takes_replicas(replica.node)) && zone_count <= 2 {
                prop_assert!(zones(image, shard) >= zones_left.min(2), "zones of {:?}", shard.replicas);
            }
        }
        // Nothing is due twice.
        prop_assert_eq!(run(&mut machine), 0);
    }
}

#[test]
fn a_node_of_four_in_as_many_zones_is_emptied_and_zones_stay_distinct() {
    let mut machine = founded(4, 4);
    let before = held(machine.image(), NodeId(2));
    assert!(before > 3);
    drain(&mut machine, 2);
    assert_eq!(run(&mut machine), before);
    let image = machine.image();
    assert_eq!(held(image, NodeId(2)), 0);
    let mut leaders: BTreeMap<NodeId, usize> = BTreeMap::new();
    for shard in image.shards.values().filter(|shard| shard.kind != ShardKind::Metadata) {
        assert_eq!(zones(image, shard), 3);
        *leaders.entry(image.preferred_leader(shard).unwrap().node).or_default() += 1;
    }
    assert!(leaders.values().max().unwrap() - leaders.values().min().unwrap() <= 1, "{leaders:?}");
    // Its replica of the metadata loses its vote and stays as a learner.
    let own =
        image.shard(ShardId::METADATA).unwrap().replicas.iter().find(|replica| replica.node == NodeId(2)).unwrap();
    assert_eq!(image.observers(), BTreeSet::from([own.id]));
    // New replicas go to other nodes.
    let placed = place_in_pool(image, 2, 20);
    assert!(placed.new_shards.iter().flat_map(|shard| &shard.replicas).all(|replica| replica.node != NodeId(2)));
    submit(&mut machine, &ControllerRequest::Drain { nodes: Nodes::Zone("z2".to_owned()), drain: false }).unwrap();
    assert!(machine.image().observers().is_empty() && machine.image().takes_replicas(NodeId(2)));
}

#[test]
fn of_three_nodes_one_that_is_drained_keeps_its_replicas_and_leads_nothing() {
    let mut machine = founded(3, 3);
    drain(&mut machine, 1);
    assert_eq!(run(&mut machine), 0);
    let image = machine.image();
    assert!(held(image, NodeId(1)) > 0);
    assert!(image.observers().is_empty(), "two voters would be too few");
    let leaders = image.shards.values().map(|shard| image.preferred_leader(shard).unwrap().node);
    assert!(leaders.collect::<BTreeSet<_>>().iter().all(|node| *node != NodeId(1)));
    // As soon as there is another node, the replicas move there.
    apply(&mut machine, &[Command::RegisterNode(node(4, Some("z1"), &[100]))]);
    run(&mut machine);
    assert_eq!(held(machine.image(), NodeId(1)), 0);
}

#[test]
fn no_node_is_drained_or_unregistered_whose_replicas_no_other_node_can_take() {
    let mut machine = founded(3, 3);
    let all = ControllerRequest::Drain { nodes: Nodes::Zone("z9".to_owned()), drain: true };
    assert_eq!(submit(&mut machine, &all), Err(ErrorCode::BrokerIdNotRegistered));
    assert_eq!(submit(&mut machine, &ControllerRequest::Unregister(NodeId(9))), Err(ErrorCode::BrokerIdNotRegistered));
    assert_eq!(submit(&mut machine, &ControllerRequest::Unregister(NodeId(1))), Err(ErrorCode::PolicyViolation));
    drain(&mut machine, 1);
    drain(&mut machine, 2);
    let last = ControllerRequest::Drain { nodes: Nodes::One(NodeId(3)), drain: true };
    assert_eq!(submit(&mut machine, &last), Err(ErrorCode::InvalidRequest));
    // A start does not end the drain.
    apply(&mut machine, &[Command::RegisterNode(node(1, Some("z1"), &[100]))]);
    assert_eq!(machine.image().nodes[&NodeId(1)].state, NodeState::Draining);
}

#[test]
fn a_node_that_is_unregistered_is_emptied_then_it_gives_up_the_metadata_then_it_is_forgotten() {
    let mut machine = founded(4, 1);
    drain(&mut machine, 1);
    drain(&mut machine, 2);
    assert_eq!(machine.image().observers().len(), 1, "three of four vote");
    let undrain = ControllerRequest::Drain { nodes: Nodes::Zone("z0".to_owned()), drain: false };
    submit(&mut machine, &undrain).unwrap();
    let values = BTreeMap::from([("log.retention.ms".to_owned(), "7".to_owned())]);
    apply(&mut machine, &[Command::SetBrokerConfig { node: Some(NodeId(4)), values }]);
    assert_eq!(submit(&mut machine, &ControllerRequest::Unregister(NodeId(4))), Ok(1));
    assert_eq!(machine.image().decommissioned_replica(NodeId(4)), None);
    let index = RaftIndex(machine.image().index.0 + 1);
    let early = machine.apply_command(index, Command::RemoveNode { node: NodeId(4) });
    assert_eq!(early, Outcome::Refused(Refusal::Replicas));
    let record = node(4, Some("z0"), &[100]);
    let back = NodeRegistration { node: record, cluster_id: String::new(), founders: Vec::new(), lost: Vec::new() };
    let registration = ControllerRequest::RegisterNode(Box::new(back));
    let mut dismissed = false;
    for _ in 0..100 {
        submit(&mut machine, &ControllerRequest::Balance).unwrap();
        let Some(shard) = moving(machine.image()).first().cloned() else { break };
        if let Some(own) = machine.image().decommissioned_replica(NodeId(4)) {
            assert_eq!((shard.id, shard.leaving[0].id), (ShardId::METADATA, own));
            assert_eq!(held(machine.image(), NodeId(4)), 0);
            let stays = ControllerRequest::Drain { nodes: Nodes::One(NodeId(4)), drain: false };
            assert_eq!(submit(&mut machine, &stays), Err(ErrorCode::InvalidRequest), "its replica may be gone");
            let back = submit(&mut machine, &registration);
            assert_eq!(back, Err(ErrorCode::InvalidRequest), "it would be given a place for as long as it asks");
            dismissed = true;
        }
        settle(&mut machine, &shard);
    }
    assert!(dismissed && !machine.image().nodes.contains_key(&NodeId(4)));
    assert!(machine.image().broker_configs.is_empty());
    assert!(due(machine.image()).is_empty());
    assert!(submit(&mut machine, &registration).is_ok());
}
