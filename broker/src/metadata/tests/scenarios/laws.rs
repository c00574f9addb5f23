//! The laws of a scenario. That not too much is moved or resized at a time, and that no step takes a shard out of a zone, is
//! asserted while it runs (`world.rs`).

use std::collections::BTreeSet;
use std::time::Duration;

use super::world::{Kind, World};
use super::{hours, minutes};
use crate::metadata::image::ShardKind;
use crate::metadata::tests::moves::zones;

/// Half of what is remembered of a peak is gone after so long.
const PEAK_HALVED_IN: Duration = Duration::from_secs(600);

impl World {
    /// How many steps of a kind there were in this time.
    pub(super) fn count(&self, kind: Kind, from: Duration, to: Duration) -> usize {
        self.steps.iter().filter(|step| step.kind == kind && (from..to).contains(&step.at)).count()
    }

    /// Every shard had room for twice its load, but for so long at a stretch.
    pub(super) fn is_covered_within(&self, longest: Duration) {
        assert!(self.uncovered_longest <= longest, "not enough room for {:?}", self.uncovered_longest);
    }

    /// Nothing is done that is undone soon.
    pub(super) fn does_not_flap(&self) {
        for (at, step) in self.steps.iter().enumerate().filter(|(_, step)| step.other.is_some()) {
            let undone = match step.kind {
                Kind::Split => Kind::Merge,
                Kind::Merge => Kind::Split,
                Kind::Move | Kind::Election => continue,
            };
            let recent = self.steps[..at].iter().filter(|before| step.at - before.at < PEAK_HALVED_IN);
            let pair = |shard, other| BTreeSet::from([Some(shard), other]);
            let same = |shards: BTreeSet<_>| shards.intersection(&pair(step.shard, step.other)).count() > 0;
            let mut undoing = recent.filter(|before| before.kind == undone && before.other.is_some());
            let found = undoing.find(|before| same(pair(before.shard, before.other)));
            assert!(
                found.is_none(),
                "{:?}: {}, after {:?}: {}",
                step.at,
                step.reason,
                found.unwrap().at,
                found.unwrap().reason
            );
        }
        for (moves, away) in [(&self.moved, hours(1)), (&self.led, minutes(10))] {
            for (at, moved) in moves.iter().enumerate().filter(|(_, moved)| moved.by_load) {
                let left = moves[..at].iter().filter(|before| before.by_load && before.shard == moved.shard);
                let back = left.into_iter().find(|before| before.from == moved.to && moved.at - before.at < away);
                assert!(back.is_none(), "{back:?} goes back: {moved:?}");
            }
        }
    }

    /// No node takes in and sends out more than this many hundredths of the mean above another one.
    pub(super) fn is_even(&self, hundredths: u64) {
        let bytes = self.node_bytes();
        let (least, most) = (bytes.values().min().unwrap(), bytes.values().max().unwrap());
        let mean = bytes.values().sum::<u64>() / bytes.len() as u64;
        assert!((most - least) * 100 <= mean * hundredths, "{bytes:?}");
    }

    /// Every shard lies in three zones, but for the one that was assigned by hand.
    pub(super) fn is_in_three_zones(&self) {
        for record in self.image().shards.values().filter(|record| record.id != self.by_hand.0) {
            assert_eq!(zones(self.image(), record), 3, "{record:?}");
        }
    }

    /// What was assigned by hand is where it was.
    pub(super) fn keeps_what_was_assigned(&self) {
        let (shard, nodes) = &self.by_hand;
        let record = self.image().shard(*shard).unwrap();
        assert_eq!(&record.replicas.iter().map(|replica| replica.node).collect::<Vec<_>>(), nodes);
        assert!(self.steps.iter().all(|step| step.shard != *shard));
    }

    /// No topic has a shard of its own, and no shard is left over.
    pub(super) fn is_back_in_the_pool(&self) {
        let left =
            self.image().shards.values().filter(|record| matches!(record.kind, ShardKind::Pool { pinned: true, .. }));
        assert_eq!(left.map(|record| record.id).collect::<Vec<_>>(), [self.by_hand.0]);
    }
}
