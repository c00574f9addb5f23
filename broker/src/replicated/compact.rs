//! The command by which the leader of a shard has partitions compacted further (design section 12.1).
//!
//! Pure, as apply is. May not know: when a pass is due, what it keeps, which replicas have done it.

use ottla_protocol::ids::PartitionId;
use ottla_storage::ids::RaftIndex;

use super::command::CompactionChange;
use super::compaction::CompactionState;
use super::shard_state::{PartitionState, ShardState};

impl PartitionState {
    fn compact(&mut self, change: &CompactionChange, decided_at: RaftIndex, clock_ms: i64) -> bool {
        let follows = self.compaction.is_followed_by(change, self.last_stable());
        if follows {
            self.compaction = self.compaction.followed_by(change, decided_at, clock_ms);
        }
        follows
    }
}

impl ShardState {
    /// Notes that the replica may have to do the last pass over a partition, if there was one.
    pub(crate) fn owe_pass(&mut self, id: PartitionId, last: &CompactionState) {
        self.passes_due.extend((last.number > 0).then_some(id));
    }

    /// Carries out the passes that follow; returns how many.
    pub(super) fn compact(&mut self, changes: &[CompactionChange]) -> usize {
        let (clock_ms, mut changed) = (self.clock_ms, 0);
        let decided_at = self.last.map_or(RaftIndex(0), |last| last.index);
        for change in changes {
            let partition = self.partitions.get_mut(&change.id);
            if !partition.is_some_and(|partition| partition.compact(change, decided_at, clock_ms)) {
                self.mix(!change.number);
                continue;
            }
            changed += 1;
            for part in [change.number, change.horizon.0.cast_unsigned(), change.cutoff.0.cast_unsigned()] {
                self.mix(part);
            }
            self.dirty.partitions.insert(change.id);
            self.passes_due.insert(change.id);
        }
        changed
    }
}
