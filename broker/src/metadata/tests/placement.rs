//! Placement: even, in different zones, never above 16 groups on a node.

use std::collections::BTreeMap;
use std::sync::Arc;

use ottla_protocol::ids::NodeId;
use ottla_storage::ids::{RaftIndex, ReplicaId};
use proptest::prelude::*;
use uuid::Uuid;

use crate::config::Config;
use crate::levels::Levels;
use crate::metadata::command::{Command, NewShard, encode};
use crate::metadata::image::{
    DirectoryRecord, MetadataImage, NodeRecord, NodeState, ReplicaRecord, ShardId, ShardKind,
};
use crate::metadata::liveness::Liveness;
use crate::metadata::placement::*;
use crate::metadata::state_machine::{MetadataStateMachine, Outcome};

pub(crate) fn node(id: i32, rack: Option<&str>, free: &[u64]) -> NodeRecord {
    NodeRecord {
        id: NodeId(id),
        rack: rack.map(str::to_owned),
        listeners: Vec::new(),
        directories: free
            .iter()
            .enumerate()
            .map(|(place, free_bytes)| DirectoryRecord {
                id: Uuid::from_u128(u128::from(id.unsigned_abs()) * 100 + place as u128 + 1),
                path: format!("/data{place}"),
                free_bytes: *free_bytes,
            })
            .collect(),
        version: "0".into(),
        levels: Levels::FIRST,
        epoch: RaftIndex(0),
        state: NodeState::Active,
        liveness: Liveness::default(),
    }
}

/// A state machine with these nodes registered.
pub(crate) fn cluster(nodes: Vec<NodeRecord>) -> MetadataStateMachine {
    let mut machine = MetadataStateMachine::new(Arc::new(Config::default()));
    let commands: Vec<_> = nodes.into_iter().map(Command::RegisterNode).collect();
    machine.apply(RaftIndex(1), &encode(RaftIndex(0), &commands)).unwrap();
    machine
}

pub(crate) fn apply(machine: &mut MetadataStateMachine, commands: &[Command]) {
    let index = RaftIndex(machine.image().index.0 + 1);
    let outcomes = machine.apply(index, &encode(machine.image().index, commands)).unwrap();
    assert!(!outcomes.iter().any(|outcome| matches!(outcome, Outcome::Refused(_))), "{outcomes:?} for {commands:?}");
}

fn add(machine: &mut MetadataStateMachine, placement: &Placement) {
    let commands: Vec<_> = placement.new_shards.iter().cloned().map(Command::AddShard).collect();
    apply(machine, &commands);
}

fn groups_by_node(image: &MetadataImage) -> BTreeMap<NodeId, usize> {
    let mut groups: BTreeMap<NodeId, usize> = image.nodes.keys().map(|node| (*node, 0)).collect();
    for replica in image.shards.values().flat_map(|shard| &shard.replicas) {
        *groups.entry(replica.node).or_default() += 1;
    }
    groups
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_node_holds_at_most_16_groups_and_replicas_lie_on_distinct_nodes(count in 1_i32..40, zones in 1_i32..5, zoned: bool) {
        let zone = |id: i32| format!("z{}", id % zones);
        let nodes = (0..count).map(|id| node(id, zoned.then(|| zone(id)).as_deref(), &[100])).collect();
        let mut machine = cluster(nodes);
        let nodes = usize::try_from(count).unwrap();
        let factor = default_factor(nodes);
        let pool = place_in_pool(machine.image(), factor, 1_000);
        // Only zones of different sizes can make the pool smaller.
        let full = pool.new_shards.len() == nodes * 2;
        prop_assert!(full || (zoned && count % zones != 0), "{} shards", pool.new_shards.len());
        add(&mut machine, &pool);
        for kind in [ShardKind::ConsumerOffsets, ShardKind::TransactionState] {
            let internal = place_internal(machine.image(), kind, factor, 50);
            prop_assert_eq!(internal.new_shards.len(), nodes.min(3));
            prop_assert_eq!(internal.shards.len(), 50);
            add(&mut machine, &internal);
        }
        let image = machine.image();
        for (node, groups) in groups_by_node(image) {
            // One more for the metadata group, of which every node holds a replica.
            prop_assert!(groups < 16, "{node:?} holds {groups}");
        }
        for shard in image.shards.values() {
            let mut on: Vec<_> = shard.replicas.iter().map(|replica| replica.node).collect();
            on.sort_unstable();
            on.dedup();
            prop_assert_eq!(on.len(), usize::try_from(factor).unwrap());
            if zoned {
                let mut racks: Vec<_> = on.iter().map(|node| image.nodes[node].rack.clone()).collect();
                racks.sort();
                racks.dedup();
                let possible = usize::try_from(zones.min(count)).unwrap();
                prop_assert_eq!(racks.len(), possible.min(on.len()), "zones of {:?}", shard.replicas);
            }
        }
        let mut leaders: BTreeMap<NodeId, usize> = image.nodes.keys().map(|node| (*node, 0)).collect();
        for shard in image.shards.values().filter(|shard| matches!(shard.kind, ShardKind::Pool { .. })) {
            *leaders.entry(shard.replicas[0].node).or_default() += 1;
        }
        prop_assert!(!full || leaders.values().all(|led| *led == 2), "{leaders:?}");
    }

    #[test]
    fn partitions_are_spread_evenly(sizes in proptest::collection::vec(1_usize..200, 1..20)) {
        let mut machine = cluster(vec![node(1, None, &[100])]);
        for (number, size) in sizes.into_iter().enumerate() {
            let placement = place_in_pool(machine.image(), 1, size);
            prop_assert_eq!(placement.shards.len(), size);
            add(&mut machine, &placement);
            apply(&mut machine, &[Command::CreateTopic {
                name: format!("t{number}"),
                id: Uuid::from_u128(number as u128 + 1),
                internal: false,
                overrides: BTreeMap::new(),
                shards: placement.shards,
            }]);
        }
        let counts: Vec<_> = machine.image().partitions_by_shard.values().copied().collect();
        // A shard that carries nothing yet is not counted.
        let least = if counts.len() < 2 { 0 } else { *counts.iter().min().unwrap() };
        prop_assert!(counts.len() <= 2);
        prop_assert!(counts.iter().max().unwrap() - least <= 1);
    }
}

#[test]
fn ten_thousand_partitions_on_one_node_are_two_pool_shards() {
    let mut machine = cluster(vec![node(1, None, &[100])]);
    let placement = place_in_pool(machine.image(), 1, 10_000);
    add(&mut machine, &placement);
    assert_eq!(groups_by_node(machine.image())[&NodeId(1)], 2);
}

#[test]
fn directories_share_by_free_bytes() {
    let machine = cluster(vec![node(1, None, &[300, 100])]);
    let shards = missing_pool_shards(machine.image(), 1);
    let on: Vec<_> = shards.iter().map(|shard| shard.replicas[0].directory).collect();
    assert_eq!(on, [Uuid::from_u128(101), Uuid::from_u128(101)]);
    let machine = cluster(vec![node(1, None, &[100, 100])]);
    let shards = missing_pool_shards(machine.image(), 1);
    assert_ne!(shards[0].replicas[0].directory, shards[1].replicas[0].directory);
}

/// A node that joins looks for its replica of the metadata in its first directory. In seeds 100001 and 100003 of the simulation
/// the replica was in the directory with the most free bytes, and the node waited for ever.
#[test]
fn the_metadata_is_in_the_first_directory_that_a_node_registers() {
    let mut machine = cluster(vec![node(1, None, &[100]), node(2, None, &[100, 300])]);
    let (id, kind) = (ShardId::METADATA, ShardKind::Metadata);
    let founder = ReplicaRecord { id: ReplicaId(1), node: NodeId(1), directory: Uuid::from_u128(101) };
    apply(&mut machine, &[Command::AddShard(NewShard { id, kind, replicas: vec![founder] })]);
    let added = rebuilt(machine.image(), NodeId(2), &[]);
    let directories: Vec<_> =
        added.iter().flat_map(|(_, replicas)| replicas).map(|replica| replica.directory).collect();
    assert_eq!(directories, [101, 201].map(Uuid::from_u128));
}

#[test]
fn a_shard_whose_directory_is_gone_takes_nothing_new() {
    let mut machine = cluster(vec![node(1, None, &[100])]);
    let before = place_in_pool(machine.image(), 1, 4);
    add(&mut machine, &before);
    let mut wiped = node(1, None, &[100]);
    wiped.directories[0].id = Uuid::from_u128(9_999);
    apply(&mut machine, &[Command::RegisterNode(wiped)]);
    let after = place_in_pool(machine.image(), 1, 4);
    assert_eq!(after.new_shards.len(), 2);
    assert!(after.shards.iter().all(|shard| !before.shards.contains(shard)));
}

/// One that a client created with fewer replicas and deleted may have left shards.
#[test]
fn an_internal_topic_is_made_again_where_there_are_enough_replicas() {
    let kind = ShardKind::ConsumerOffsets;
    let mut machine = cluster((0..3).map(|id| node(id, None, &[100])).collect());
    let few = place_internal(machine.image(), kind, 1, 7);
    add(&mut machine, &few);
    let enough = place_internal(machine.image(), kind, 3, 50);
    assert_eq!((enough.new_shards.len(), enough.shards.len()), (3, 50));
    assert!(enough.shards.iter().all(|shard| !few.shards.contains(shard)));
    add(&mut machine, &enough);
    let again = place_internal(machine.image(), kind, 3, 50);
    assert!(again.new_shards.is_empty() && again.shards == enough.shards);
}

#[test]
fn few_leaders_are_spread_over_zones_too() {
    let zone = |id: i32| ["a", "a", "b", "b", "c", "c"][usize::try_from(id).unwrap()];
    let mut machine = cluster((0..6).map(|id| node(id, Some(zone(id)), &[100])).collect());
    for kind in [ShardKind::ConsumerOffsets, ShardKind::TransactionState] {
        let internal = place_internal(machine.image(), kind, 3, 50);
        let mut leading: Vec<_> = internal.new_shards.iter().map(|shard| zone(shard.replicas[0].node.0)).collect();
        leading.sort_unstable();
        assert_eq!(leading, ["a", "b", "c"]);
        add(&mut machine, &internal);
    }
    let leaders: Vec<_> = machine.image().shards.values().map(|shard| shard.replicas[0].node).collect();
    assert_eq!(leaders.iter().collect::<std::collections::BTreeSet<_>>().len(), 6, "{leaders:?}");
}

#[test]
fn factors_follow_the_nodes() {
    assert_eq!([0, 1, 2, 3, 9].map(default_factor), [1, 1, 2, 3, 3]);
    assert_eq!(factor_in_force(2, 2), Some(2));
    assert_eq!(factor_in_force(2, 3), Some(3));
    assert_eq!(factor_in_force(1, 3), Some(1));
    assert_eq!(factor_in_force(5, 5), Some(5));
    assert_eq!(factor_in_force(2, 1), None);
    assert_eq!(factor_in_force(0, 1), None);
}

#[test]
fn an_assignment_by_hand_finds_or_makes_the_shard_of_its_nodes() {
    let mut machine = cluster((1..=4).map(|id| node(id, None, &[100])).collect());
    let named = vec![vec![NodeId(4), NodeId(2)], vec![NodeId(2), NodeId(4)], vec![NodeId(1)]];
    let placement = place_assigned(machine.image(), &named);
    // The first node is the preferred leader.
    let firsts: Vec<_> = placement.new_shards.iter().map(|shard| shard.replicas[0].node.0).collect();
    assert_eq!(firsts, [4, 2, 1]);
    assert_eq!(placement.new_shards[0].kind, ShardKind::Pool { factor: 2, pinned: true });
    add(&mut machine, &placement);
    let again = place_assigned(machine.image(), &named);
    assert!(again.new_shards.is_empty());
    assert_eq!(again.shards, placement.shards);
    // The default pool does not count a pinned shard as its own.
    assert_eq!(missing_pool_shards(machine.image(), 3).len(), 8);
}

#[test]
fn a_zone_with_one_node_makes_the_pool_smaller_and_keeps_every_shard_in_three_zones() {
    let zone = |id: i32| ["a", "a", "b", "b", "c"][usize::try_from(id).unwrap()];
    let machine = cluster((0..5).map(|id| node(id, Some(zone(id)), &[100])).collect());
    let shards = missing_pool_shards(machine.image(), 3);
    assert_eq!(shards.len(), 9);
    for shard in shards {
        let mut zones: Vec<_> = shard.replicas.iter().map(|replica| zone(replica.node.0)).collect();
        zones.sort_unstable();
        assert_eq!(zones, ["a", "b", "c"]);
    }
}
