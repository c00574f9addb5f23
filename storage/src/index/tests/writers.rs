//! An index that is rebuilt from the frames of several writers.

use std::collections::BTreeSet;

use super::{History, REPLICA, key, one};
use crate::ids::{Lineage, ReplicaId};
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
