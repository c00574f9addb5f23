//! The split of a shard's state (design section 8): a cut by partition. What the child takes leaves the parent, and both
//! go on from the same entry.
//!
//! Pure, as apply is: every replica of the parent makes the same child of the same entry. May not know: directories, how a
//! child becomes a shard.

use std::collections::BTreeSet;

use ottla_env::mutants::{self, Bug};
use ottla_protocol::ids::PartitionId;
use ottla_storage::ids::ReplicaId;

use super::changes::{Dirty, Touched};
use super::command::Split;
use super::producer_state::ProducerTable;
use super::shard_state::{ApplyReply, PartitionState, ShardState, SplitOff};

impl ShardState {
    /// Moves the partitions that are carried and not changed by a newer intent into a state of their own. Every split is
    /// carried out once, and makes a child though nothing is left to move: the metadata counts on its group. The reply says
    /// how many partitions have moved.
    pub(super) fn split(&mut self, split: Split, members: Option<&BTreeSet<ReplicaId>>) -> ApplyReply {
        let intent = split.intent;
        if intent <= self.last_split && !mutants::is_on(Bug::SplitTwice) {
            return ApplyReply::Changed(0);
        }
        let named: BTreeSet<_> = split.replicas.iter().map(|replica| replica.parent).collect();
        if members != Some(&named) {
            return ApplyReply::OtherMembers;
        }
        self.last_split = intent;
        self.mix(split.child);
        let mut child = ShardState {
            clock_ms: self.clock_ms,
            term: self.term,
            // Producers keep their order, so that both evict the one that was idle longest.
            order: self.order,
            checksum: self.checksum,
            last: self.last,
            floor: self.floor,
            last_split: intent,
            dirty: Dirty { shard: true, ..Dirty::default() },
            ..ShardState::new(self.keeps)
        };
        child.mix(!split.child);
        for id in &split.partitions {
            if self.partitions.contains_key(id)
                && self.is_newer(*id, intent)
                && let Some(partition) = self.give_up(*id, intent)
            {
                child.take(*id, PartitionState { intent, ..partition });
            }
        }
        let moved = child.partitions.len();
        self.split_off = Some(Box::new(SplitOff { split, child }));
        ApplyReply::Changed(moved)
    }

    /// What the last entry has split off. `None`, too, where no replica of the child is to be on the node of this one: what
    /// would have moved is dropped there.
    pub(crate) fn take_split_off(&mut self, replica: ReplicaId) -> Option<(ReplicaId, Box<SplitOff>)> {
        let split_off = self.split_off.take()?;
        let here = split_off.split.replicas.iter().find(|of| of.parent == replica).map(|of| of.child);
        if here.is_none() {
            self.touched.values_mut().for_each(|touched| touched.moved = false);
        }
        here.map(|child| (child, split_off))
    }

    /// A partition that another shard carries from now on.
    fn take(&mut self, id: PartitionId, mut partition: PartitionState) {
        if mutants::is_on(Bug::SplitLosesProducers) {
            partition.producers = ProducerTable::default();
        }
        for (producer, history) in partition.producers.iter() {
            if !history.is_in_transaction() {
                self.producers_by_order.insert(history.order, (id, producer));
            }
            self.dirty.producers.insert((id, producer));
        }
        self.take_transactions(id, &partition.transactions);
        if let Some(kept) = &partition.kept {
            kept.all_changed();
        }
        self.dirty.partitions.insert(id);
        self.dirty.epochs.insert(id);
        self.touched.insert(id, Touched { log_start_moved: true, ..Touched::default() });
        self.owe_pass(id, &partition.compaction);
        self.partitions.insert(id, partition);
    }
}
