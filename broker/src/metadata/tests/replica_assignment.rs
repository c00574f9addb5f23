//! The intended replicas of shards: after nodes register, lose their disks, and after shards are moved.

use ottla_protocol::error::ErrorCode;
use ottla_protocol::ids::NodeId;
use ottla_storage::ids::{RaftIndex, ReplicaId};
use uuid::Uuid;

use crate::config::Config;
use crate::metadata::decide::{ControllerRequest, decide};
use crate::metadata::image::{NodeRecord, ReplicaRecord, ShardId, ShardRecord};
use crate::metadata::registration::NodeRegistration;
use crate::metadata::state_machine::{MetadataStateMachine, Outcome};
use crate::metadata::tests::placement::node;

fn submit(machine: &mut MetadataStateMachine, request: &ControllerRequest) -> Result<usize, ErrorCode> {
    let decided = decide(machine.image(), request).map_err(|error| error.code())?;
    let index = RaftIndex(machine.image().index.0 + 1);
    machine.advance(index);
    for command in &decided.commands {
        assert_eq!(machine.apply_command(index, command.clone()), Outcome::Done, "{command:?}");
    }
    Ok(decided.commands.len())
}

fn register(machine: &mut MetadataStateMachine, node: NodeRecord, lost: &[u64]) -> Result<usize, ErrorCode> {
    let founder = |id: i32| ReplicaRecord {
        id: ReplicaId(u64::from(id.unsigned_abs())),
        node: NodeId(id),
        directory: Uuid::from_u128(u128::from(id.unsigned_abs()) * 100 + 1),
    };
    let founders = if node.id.0 <= 3 { (1..=3).map(founder).collect() } else { Vec::new() };
    let lost = lost.iter().copied().map(ReplicaId).collect();
    submit(
        machine,
        &ControllerRequest::RegisterNode(Box::new(NodeRegistration { node, cluster_id: "abc".into(), founders, lost })),
    )
}

/// A cluster founded by three nodes: six shards of three replicas each, beside the metadata group.
fn cluster() -> MetadataStateMachine {
    let mut machine = MetadataStateMachine::new(std::sync::Arc::new(Config::default()));
    assert_eq!(
        register(&mut machine, node(4, None, &[100]), &[]),
        Err(ErrorCode::NotController),
        "a node that knows no founder waits"
    );
    for id in 1..=3 {
        register(&mut machine, node(id, None, &[100]), &[]).unwrap();
    }
    assert_eq!(machine.image().shards.len(), 7);
    machine
}

fn shard(machine: &MetadataStateMachine, id: u64) -> ShardRecord {
    machine.image().shard(ShardId(id)).unwrap().as_ref().clone()
}

fn ids(replicas: &[ReplicaRecord]) -> Vec<u64> {
    replicas.iter().map(|replica| replica.id.0).collect()
}

#[test]
fn a_node_with_an_empty_disk_has_everything_rebuilt_under_new_ids() {
    let mut machine = cluster();
    let before = machine.image().clone();
    let mut wiped = node(2, None, &[100]);
    wiped.directories[0].id = Uuid::from_u128(999);
    register(&mut machine, wiped.clone(), &[]).unwrap();
    for (id, record) in machine.image().shards.iter() {
        let own = record.replicas.iter().find(|replica| replica.node == NodeId(2)).unwrap();
        assert!(own.id.0 >= before.next_replica_id && own.directory == Uuid::from_u128(999));
        let old: Vec<_> =
            before.shards[id].replicas.iter().filter(|replica| replica.node == NodeId(2)).copied().collect();
        assert_eq!(record.leaving, old);
        assert_eq!(record.founders, before.shards[id].founders, "who founds it does not change");
    }
    // The same node registers again: nothing is rebuilt twice.
    let shards = machine.image().shards.clone();
    register(&mut machine, wiped, &[]).unwrap();
    assert_eq!(machine.image().shards, shards);
}

#[test]
fn what_is_lost_is_rebuilt_where_there_are_enough_to_rebuild_it_from() {
    let mut machine = cluster();
    let own = shard(&machine, 3).replicas.into_iter().find(|replica| replica.node == NodeId(1)).unwrap();
    register(&mut machine, node(1, None, &[100]), &[own.id.0]).unwrap();
    let record = shard(&machine, 3);
    assert_eq!(record.leaving, [own]);
    assert_eq!(machine.image().shards.values().filter(|shard| !shard.leaving.is_empty()).count(), 1);
    assert!(record.replicas.iter().any(|replica| replica.node == NodeId(1) && replica.directory == own.directory));
    // A shard of two replicas: one of two is no majority.
    submit(&mut machine, &ControllerRequest::ChangeReplicas { shard: ShardId(4), nodes: vec![NodeId(1), NodeId(2)] })
        .unwrap();
    let own = shard(&machine, 4).replicas[0];
    register(&mut machine, node(1, None, &[100]), &[own.id.0]).unwrap();
    assert!(shard(&machine, 4).replicas.contains(&own));
}

#[test]
fn a_further_node_gets_a_replica_of_the_metadata_and_shards_can_be_moved_to_it() {
    let mut machine = cluster();
    register(&mut machine, node(4, None, &[100]), &[]).unwrap();
    assert_eq!(shard(&machine, 0).replicas.len(), 4);
    let before = shard(&machine, 2);
    let on = |nodes: &[i32]| ControllerRequest::ChangeReplicas {
        shard: ShardId(2),
        nodes: nodes.iter().copied().map(NodeId).collect(),
    };
    assert_eq!(submit(&mut machine, &on(&[1, 2, 4])), Ok(1));
    let moved = shard(&machine, 2);
    assert_eq!(moved.replicas.iter().map(|replica| replica.node.0).collect::<Vec<_>>(), [1, 2, 4]);
    assert_eq!(moved.leaving.iter().map(|replica| replica.node.0).collect::<Vec<_>>(), [3]);
    assert_eq!(submit(&mut machine, &on(&[1, 2, 4])), Ok(0), "it is so already");
    // Moved back before any replica has left: the one that was about to leave stays.
    assert_eq!(submit(&mut machine, &on(&[1, 2, 3])), Ok(1));
    let back = shard(&machine, 2);
    let sorted = |replicas: &[ReplicaRecord]| {
        let mut ids = ids(replicas);
        ids.sort_unstable();
        ids
    };
    assert_eq!(sorted(&back.replicas), sorted(&before.replicas));
    assert_eq!(back.leaving.iter().map(|replica| replica.node.0).collect::<Vec<_>>(), [4]);
    for refused in [&[1, 1][..], &[], &[9]] {
        assert_eq!(submit(&mut machine, &on(refused)), Err(ErrorCode::InvalidReplicaAssignment));
    }
}

#[test]
fn a_replica_that_left_is_forgotten_only_when_the_members_are_the_intended_ones() {
    let mut machine = cluster();
    register(&mut machine, node(4, None, &[100]), &[]).unwrap();
    let nodes = vec![NodeId(1), NodeId(2), NodeId(4)];
    submit(&mut machine, &ControllerRequest::ChangeReplicas { shard: ShardId(2), nodes }).unwrap();
    let moved = shard(&machine, 2);
    let left: Vec<_> = moved.leaving.iter().map(|replica| replica.id).collect();
    let report =
        |reached: Vec<ReplicaId>| ControllerRequest::ForgetReplicas { shard: ShardId(2), reached, left: left.clone() };
    assert_eq!(submit(&mut machine, &report(vec![ReplicaId(1)])), Ok(0));
    let reached: Vec<_> = moved.replicas.iter().map(|replica| replica.id).collect();
    assert_eq!(submit(&mut machine, &report(reached.clone())), Ok(1));
    assert!(shard(&machine, 2).leaving.is_empty());
    assert_eq!(submit(&mut machine, &report(reached)), Ok(0), "reported twice");
}
