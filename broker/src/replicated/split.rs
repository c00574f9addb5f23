//! The split of a shard's state (design section 8): a cut by partition. What the child takes leaves the parent, and both
//! go on from the same entry.
//!
//! Pure, as apply is: every replica of the parent makes the same child of the same entry. May not know: groups of
//! replicas, directories, how a child becomes a shard.

use ottla_protocol::ids::PartitionId;
use ottla_storage::ids::LogId;

use super::changes::{Dirty, Touched};
use super::command::Split;
use super::shard_state::{PartitionState, ShardState, SplitOff};

impl ShardState {
    /// Moves the partitions that are carried and not changed by a newer intent into a state of their own. `None`, and
    /// nothing is changed, if there is no such partition: the split was applied before, or all of them were dropped.
    pub(super) fn split(&mut self, split: Split, at: LogId) -> Option<SplitOff> {
        let intent = split.intent;
        let mut child = ShardState {
            clock_ms: self.clock_ms,
            term: self.term,
            // Producers keep their order, so that both evict the one that was idle longest.
            order: self.order,
            checksum: self.checksum,
            last: Some(at),
            floor: self.floor,
            dirty: Dirty { shard: true, ..Dirty::default() },
            ..ShardState::new(self.keeps_groups)
        };
        child.mix(split.child);
        for id in &split.partitions {
            if self.partitions.contains_key(id)
                && self.is_newer(*id, intent)
                && let Some(partition) = self.give_up(*id, intent)
            {
                child.take(*id, PartitionState { intent, ..partition });
            }
        }
        (!child.partitions.is_empty()).then_some(SplitOff { split, at, child })
    }

    /// A partition that another shard carries from now on.
    fn take(&mut self, id: PartitionId, partition: PartitionState) {
        for (producer, history) in partition.producers.iter() {
            self.producers_by_order.insert(history.order, (id, producer));
            self.dirty.producers.insert((id, producer));
        }
        if let Some(groups) = &partition.groups {
            groups.lock().all_changed();
        }
        self.dirty.partitions.insert(id);
        self.dirty.epochs.insert(id);
        self.touched.insert(id, Touched { log_start_moved: true, ..Touched::default() });
        self.partitions.insert(id, partition);
    }
}
