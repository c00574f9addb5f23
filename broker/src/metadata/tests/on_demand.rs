//! `ottla.shard.mode=on-demand`: shards follow what the partitions have to do, up at once and down later, and it ends.

use std::collections::{BTreeMap, BTreeSet};

use ottla_protocol::ids::PartitionId;
use proptest::prelude::*;
use uuid::Uuid;

use super::balance::Balanced;
use super::topic_shards::{configure, settle, shards, world};
use crate::metadata::balance::{Action, Change};
use crate::metadata::image::ShardId;

const PARTITIONS: usize = 16;
const ROOM: u64 = 1_000_000;
/// A peak is halved in two rounds.
const ROUNDS_TO_FORGET: usize = 2 * ROOM.ilog2() as usize + 4;

fn partition(index: usize) -> PartitionId {
    PartitionId { topic: Uuid::from_u128(1), index: i32::try_from(index).unwrap() }
}

/// An on-demand topic, and another one in the pool.
fn on_demand() -> Balanced {
    on_demand_on(3)
}

fn on_demand_on(nodes: i32) -> Balanced {
    let mut machine = world(nodes, 4, &[PARTITIONS, 8]);
    configure(&mut machine, 0, "ottla.shard.bytes.per.second", &ROOM.to_string()).unwrap();
    configure(&mut machine, 0, "ottla.shard.mode", "on-demand").unwrap();
    settle(&mut machine);
    Balanced::new(machine)
}

fn load(balanced: &mut Balanced, of: impl Fn(usize) -> u64) {
    balanced.partitions = (0..PARTITIONS).map(|index| (partition(index), of(index))).collect();
}

/// Bytes a second of each of the topic's own shards, with its number of partitions.
fn own(balanced: &Balanced) -> BTreeMap<ShardId, (u64, usize)> {
    let topic = balanced.machine.image().topic("t0").unwrap().clone();
    let (own, _) = shards(&balanced.machine, 0);
    let of = |shard: &ShardId| {
        let indexes: Vec<_> = topic.routed_to(*shard).map(|(index, _)| usize::try_from(index).unwrap()).collect();
        (indexes.iter().map(|index| balanced.partitions[&partition(*index)]).sum(), indexes.len())
    };
    own.iter().map(|shard| (*shard, of(shard))).collect()
}

#[test]
fn shards_follow_the_load_up_and_down() {
    let mut balanced = on_demand();
    load(&mut balanced, |_| 1_000);
    assert_eq!(balanced.run(), [], "an idle topic stays in the pool");

    load(&mut balanced, |_| ROOM / 4);
    let steps = balanced.run();
    assert!(steps[0].reason.starts_with("topic t0 gets a shard of its own"), "{}", steps[0].reason);
    let at_first = own(&balanced);
    assert!(at_first.values().all(|(bytes, _)| 2 * bytes <= ROOM), "{at_first:?}");
    assert_eq!(at_first.values().map(|(_, partitions)| partitions).sum::<usize>(), PARTITIONS);

    load(&mut balanced, |_| ROOM);
    balanced.run();
    assert_eq!(own(&balanced).len(), PARTITIONS, "each partition is as busy as a shard may be");

    // A peak is halved every ten minutes, and a round of the test is five.
    load(&mut balanced, |_| ROOM / 100);
    let mut counts = vec![PARTITIONS];
    for _ in 0..24 {
        balanced.run();
        balanced.report();
        counts.push(own(&balanced).len());
    }
    assert!(counts.windows(2).all(|pair| pair[1] <= pair[0]), "{counts:?}");
    assert_eq!(counts.last(), Some(&1), "one that is not idle keeps one: {counts:?}");
    load(&mut balanced, |_| 0);
    for _ in 0..12 {
        balanced.run();
        balanced.report();
    }
    assert_eq!(own(&balanced), BTreeMap::new(), "an idle one goes back into the pool");
}

/// A move of a large shard takes minutes.
#[test]
fn a_topic_grows_while_one_of_its_shards_is_moved() {
    let mut balanced = on_demand_on(4);
    load(&mut balanced, |_| ROOM / 4);
    balanced.run();
    let moved = *own(&balanced).keys().next().unwrap();
    let record = balanced.machine.image().shard(moved).unwrap().clone();
    let mut nodes = record.nodes();
    nodes[2] = *balanced.machine.image().nodes.keys().find(|node| !nodes.contains(node)).unwrap();
    let before = record.replicas.iter().map(|replica| replica.id).collect();
    let change = Change::Replicas { shard: moved, before, nodes };
    balanced.take(&Action { change, reason: "by hand".to_owned() });
    load(&mut balanced, |_| ROOM);
    balanced.report();
    let due = balanced.due_now();
    assert!(matches!(&due[..], [Action { change: Change::Split { shard, .. }, .. }] if *shard != moved), "{due:?}");
}

#[test]
fn a_hot_partition_is_alone() {
    let mut balanced = on_demand();
    load(&mut balanced, |index| if index == 5 { 3 * ROOM } else { ROOM / 50 });
    balanced.run();
    let topic = balanced.machine.image().topic("t0").unwrap().clone();
    let hot = topic.route(5).unwrap().shard;
    let beside: BTreeSet<_> = topic.routed_to(hot).map(|(index, _)| index).collect();
    assert_eq!(beside, BTreeSet::from([5]));
    assert!(own(&balanced).len() <= 4, "the others are not scattered: {:?}", own(&balanced));
}

#[test]
fn it_is_for_topics_of_users_and_from_the_level_on_at_which_shards_are_merged() {
    let mut machine = world(3, 3, &[4]);
    assert!(configure(&mut machine, 0, "ottla.shard.mode", "on-demand").is_err());
    assert!(configure(&mut machine, 0, "ottla.shard.mode", "provisioned").is_ok());
    let mut machine = world(3, 4, &[4]);
    assert!(configure(&mut machine, 0, "ottla.shard.mode", "elastic").is_err());
    assert!(configure(&mut machine, 0, "ottla.shard.mode", "on-demand").is_ok());
}

#[test]
fn the_mode_pool_is_a_count_of_none() {
    let mut machine = world(3, 4, &[8, 4]);
    configure(&mut machine, 0, "ottla.shard.count", "8").unwrap();
    settle(&mut machine);
    assert_eq!(shards(&machine, 0).0.len(), 8);
    configure(&mut machine, 0, "ottla.shard.mode", "pool").unwrap();
    settle(&mut machine);
    assert_eq!(shards(&machine, 0).0.len(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn it_ends_with_room_in_every_shard(first in proptest::collection::vec(0..2 * ROOM, PARTITIONS), then in proptest::collection::vec(0..2 * ROOM, PARTITIONS)) {
        let mut balanced = on_demand();
        for loads in [first, then] {
            load(&mut balanced, |index| loads[index]);
            // Shards are merged as what the peaks were before is forgotten; what is left of it then is less than a byte.
            for _ in 0..ROUNDS_TO_FORGET {
                balanced.run();
                for (shard, (bytes, partitions)) in own(&balanced) {
                    prop_assert!(2 * bytes <= ROOM || partitions == 1, "shard {}: {} in {} partitions", shard, bytes, partitions);
                }
            }
            prop_assert_eq!(balanced.run(), []);
        }
    }
}
