//! Batches of one partition that several replicas wrote: an index that is rebuilt from their frames, and what gets its place when.

use std::collections::BTreeSet;

use ottla_protocol::ids::{LeaderEpoch, Offset};

use super::{Access, Bounds, History, REPLICA, key, one};
use crate::entry::Verdict;
use crate::ids::{Lineage, RaftIndex, ReplicaId};
use crate::index::place::Awaited;
use crate::log::FrameBody;

#[test]
fn batches_of_two_writers_are_listed_in_the_order_of_their_offsets() {
    let child = ReplicaId(REPLICA.0 + 1);
    let mut history = History::new();
    for records in [3, 2] {
        history.apply(&[one(records)], true);
        history.decide();
    }
    // The second entry is the child's, whose verdict frame comes first.
    for (frame, _) in &mut history.frames[2..] {
        frame.replica = child;
        if let FrameBody::Verdicts(decided) = &mut frame.body {
            decided[0].lineages = vec![Some(Lineage::of(REPLICA))];
        }
    }
    let decided = history.frames.remove(1);
    history.frames.push(decided);
    let rebuilt = history.rebuilt(BTreeSet::from([1]));
    let listed = rebuilt[&1].entries();
    let offsets: Vec<_> = listed[&key(0)].iter().map(|run| run.iter().map(|one| one.base_offset.0).collect()).collect();
    assert_eq!((listed.len(), offsets), (1, vec![vec![0, 3]]));
    let writers: Vec<_> = rebuilt[&1].ranges.entries.keys().copied().collect();
    assert_eq!(writers, [REPLICA, child]);
}

#[test]
fn what_the_survivor_of_a_merge_wrote_has_its_place_after_what_came_from_the_absorbed_replica() {
    let survivor = ReplicaId(REPLICA.0 - 1);
    let mut history = History::new();
    history.apply(&[one(2)], false);
    history.index.move_to(survivor, REPLICA, key(0).partition);
    let (entry, _) = history.append(&[one(3)]);
    let verdicts = [Verdict::Accepted { base_offset: Offset(2), epoch: LeaderEpoch(1) }];
    let of_survivor =
        |writer, index: RaftIndex| (writer == survivor).then(|| history.places.get(&index.0).copied()).flatten();
    history.index.record(survivor, of_survivor, &entry, &verdicts).unwrap();

    let waiting = entry.log_id.index;
    let awaited = Awaited { waiting, writer: REPLICA, index: RaftIndex(waiting.0 - 1) };
    assert_eq!(history.index.place_durable(survivor, of_survivor).unwrap(), Some(awaited));
    assert!(!history.index.is_placed(survivor, waiting) && !history.index.is_placed(REPLICA, awaited.index));

    let of_all = |_, index: RaftIndex| history.places.get(&index.0).copied();
    assert_eq!(history.index.place_durable(survivor, of_all).unwrap(), None);
    assert!(history.index.is_placed(survivor, waiting) && history.index.is_placed(REPLICA, awaited.index));
    let bounds = Bounds { from: Offset(0), up_to: Offset(5), bytes_max: 1000, at_least_one: true };
    let planned = history.index.plan(key(0), bounds, Access::Resident).unwrap().batches;
    let listed: Vec<_> = planned.iter().map(|one| (one.indexed.base_offset.0, one.data.is_none())).collect();
    assert_eq!(listed, [(0, true), (2, true)]);
}
