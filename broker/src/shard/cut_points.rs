//! Cut points: the end offsets of the partitions that keep groups at each cut for the checkpoint. Below them their log
//! is not needed once that checkpoint is the oldest kept one (design section 11, Groups).
//!
//! Local to the replica, rebuilt by the cuts after a restart. Bounded: many cuts may lie between two generations of the
//! checkpoint, so when there are too many they are thinned out evenly. May not know: the checkpoint.

use ottla_protocol::ids::{Offset, PartitionId};
use ottla_storage::ids::RaftIndex;

/// The end offsets of partitions at a cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CutPoint {
    /// Index of the last entry in the cut.
    pub(crate) applied: RaftIndex,
    /// Next offset of each partition.
    pub(crate) ends: Vec<(PartitionId, Offset)>,
}

/// Cut points that are remembered.
const POINTS_MAX: usize = 64;

/// The last cuts, oldest first.
#[derive(Debug, Default)]
pub(crate) struct CutPoints(Vec<CutPoint>);

impl CutPoints {
    /// Adds the newest cut.
    pub(crate) fn push(&mut self, point: CutPoint) {
        if self.0.len() == POINTS_MAX {
            // Removes the point whose neighbours are nearest to each other: it is needed least.
            let gap = |at: &usize| match self.0.get(at - 1..=at + 1) {
                Some([before, _, after]) => after.applied.0 - before.applied.0,
                _ => u64::MAX,
            };
            if let Some(least) = (1..POINTS_MAX - 1).min_by_key(gap) {
                self.0.remove(least);
            }
        }
        self.0.push(point);
    }

    /// The newest cut that a checkpoint with entries up to `kept` contains; older ones are dropped.
    pub(crate) fn covered_by(&mut self, kept: RaftIndex) -> Option<&CutPoint> {
        let covered = self.0.iter().rposition(|point| point.applied <= kept)?;
        self.0.drain(..covered);
        self.0.first()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(applied: u64) -> CutPoint {
        CutPoint { applied: RaftIndex(applied), ends: Vec::new() }
    }

    #[test]
    fn however_many_cuts_there_are_an_old_checkpoint_finds_one_that_is_not_far_below_it() {
        for kept in [0, 5, 400, 900, 999] {
            let mut points = CutPoints::default();
            (0..1_000).for_each(|applied| points.push(point(applied)));
            assert!(points.0.len() <= POINTS_MAX);
            let found = points.covered_by(RaftIndex(kept)).map(|point| point.applied.0);
            assert!(found.is_some_and(|found| found <= kept && found + 64 > kept), "{kept}: {found:?}");
            assert_eq!(points.0.first().map(|point| point.applied.0), found);
        }
    }

    #[test]
    fn a_checkpoint_older_than_every_cut_covers_nothing() {
        let mut points = CutPoints::default();
        points.push(point(7));
        assert_eq!(points.covered_by(RaftIndex(6)), None);
        assert_eq!(points.covered_by(RaftIndex(7)), Some(&point(7)));
    }
}
