//! The merge of two shards' states (design section 8): one is sealed, and the other one takes over all that it has.
//!
//! ```text
//!  Seal in the absorbed shard's log     nothing but Unseal changes it any more; what it was at this entry is kept
//!  Absorb in the survivor's log         partitions, tombstones and floor become the union, the clock the later one
//! ```
//! Pure, as apply is: every replica of the survivor takes the same state over, for nothing in a sealed one changes but its term
//! and its last entry, which the union does not use. May not know: replicas of a node, how a state is read back.

use std::collections::BTreeSet;

use ottla_env::mutants::{self, Bug};
use ottla_protocol::ids::{PartitionId, ProducerId};
use ottla_storage::ids::{RaftIndex, ReplicaId};

use super::changes::Touched;
use super::command::{Absorb, Seal};
use super::merge_state::{LastMerge, Sealed, TakenOver};
use super::producer_state::ProducerTable;
use super::shard_state::{ApplyReply, PRODUCERS_PER_SHARD_MAX, PartitionState, ShardState};
use crate::metadata::merged_epoch_base;

impl ShardState {
    /// True if nothing but an Unseal changes the shard.
    pub(crate) fn is_sealed(&self) -> bool {
        self.sealed.is_some() && !mutants::is_on(Bug::SealedAppends)
    }

    /// Seals the shard for a merge, once for each intent. The reply says how many shards were sealed.
    pub(super) fn seal(&mut self, seal: &Seal, members: Option<&BTreeSet<ReplicaId>>) -> ApplyReply {
        if seal.intent <= self.last_seal {
            return ApplyReply::Changed(0);
        }
        if members != Some(&seal.replicas.iter().copied().collect()) {
            return ApplyReply::OtherMembers;
        }
        let Some(at) = self.last else { return ApplyReply::Changed(0) };
        self.last_seal = seal.intent;
        self.mix(seal.intent.0);
        self.sealed = Some(Sealed {
            intent: seal.intent,
            term: at.term.0,
            index: at.index,
            clock_ms: self.clock_ms,
            order: self.order,
            checksum: self.checksum,
        });
        ApplyReply::Changed(1)
    }

    /// Ends a seal whose merge was cancelled; the Seal, should it come later, is refused.
    pub(super) fn unseal(&mut self, intent: RaftIndex) -> ApplyReply {
        self.last_seal = self.last_seal.max(intent);
        self.mix(!intent.0);
        let ended = self.sealed.take_if(|sealed| sealed.intent == intent);
        ApplyReply::Changed(usize::from(ended.is_some()))
    }

    /// Accepts an Absorb, which [`Self::take_absorb`] then returns: the other shard's state is found by the caller.
    pub(super) fn accept_absorb(&mut self, absorb: Absorb, members: Option<&BTreeSet<ReplicaId>>) -> ApplyReply {
        if absorb.intent <= self.last_merge.intent {
            return ApplyReply::Changed(0);
        }
        let named: BTreeSet<_> = absorb.replicas.iter().map(|replica| replica.survivor).collect();
        if members != Some(&named) {
            return ApplyReply::OtherMembers;
        }
        self.absorbing = Some(Box::new(absorb));
        ApplyReply::Changed(1)
    }

    /// The Absorb that the last entry was, if it is to be carried out.
    pub(crate) fn take_absorb(&mut self) -> Option<Box<Absorb>> {
        self.absorbing.take()
    }

    /// Takes over all that a sealed shard has; returns the partitions.
    ///
    /// # Panics
    /// When the other one is not sealed for this merge, or is not what its leader has sealed.
    pub(crate) fn absorb(&mut self, absorb: &Absorb, other: &mut Self) -> Vec<PartitionId> {
        let intent = absorb.intent;
        let sealed = other.sealed.filter(|sealed| sealed.intent == intent);
        let Some(sealed) = sealed else { panic!("shard {} is not sealed for merge {}", absorb.shard, intent.0) };
        assert_eq!(
            (sealed.index, sealed.checksum),
            (absorb.sealed, absorb.checksum),
            "shard {}: index and checksum at which it was sealed",
            absorb.shard
        );
        let index = self.last.map_or(RaftIndex(0), |last| last.index);
        self.last_merge = LastMerge { intent, index, term: self.term };
        self.clock_ms = self.clock_ms.max(sealed.clock_ms);
        self.floor = self.floor.max(other.floor);
        self.mix(sealed.checksum);
        for (id, dropped) in std::mem::take(&mut other.dropped) {
            other.dirty.dropped.insert(id);
            let known = self.dropped.get(&id).copied();
            if dropped > self.floor && !self.partitions.contains_key(&id) && known < Some(dropped) {
                self.dropped.insert(id, dropped);
                self.dirty.dropped.insert(id);
            }
        }
        let partitions = std::mem::take(&mut other.partitions);
        let ids: Vec<_> = partitions.keys().copied().collect();
        self.taken_over = TakenOver::default();
        for (id, partition) in partitions {
            other.forget_partition(id, &partition);
            other.touched.entry(id).or_default().moved = true;
            self.taken_over.epoch_bases.insert(id, partition.epoch_base);
            self.take_merged(id, partition, intent, sealed.term);
        }
        self.number_producers(sealed.order);
        self.dirty.shard = true;
        other.dirty.shard = true;
        ids
    }

    fn take_merged(&mut self, id: PartitionId, partition: PartitionState, intent: RaftIndex, sealed_term: u64) {
        assert!(self.is_newer(id, intent), "{id}: merge {} is not newer than what is known of it", intent.0);
        if self.dropped.remove(&id).is_some() {
            self.dirty.dropped.insert(id);
        }
        self.mix(u64::from(id.index.cast_unsigned()) ^ intent.0.rotate_left(40));
        let producers = match mutants::is_on(Bug::MergeLosesProducers) {
            true => ProducerTable::default(),
            false => partition.producers,
        };
        if let Some(kept) = &partition.kept {
            kept.all_changed();
        }
        let epoch_base = merged_epoch_base(partition.epoch_base, sealed_term, self.term);
        let compaction = partition.compaction.carried_since(self.last_merge.index);
        self.owe_pass(id, &compaction);
        self.take_transactions(id, &partition.transactions);
        self.dirty.partitions.insert(id);
        self.dirty.epochs.insert(id);
        self.touched.insert(id, Touched { log_start_moved: true, ..Touched::default() });
        self.partitions.insert(id, PartitionState { intent, epoch_base, producers, compaction, ..partition });
    }

    /// Numbers all producers anew by when they were last seen, since the numbers of two shards say nothing about each other, and
    /// forgets those beyond the cap that were idle longest.
    fn number_producers(&mut self, other_order: u64) {
        let seen = |(id, partition): (&PartitionId, &PartitionState)| {
            let producers = partition.producers.iter();
            producers.map(|(producer, history)| (history.seen_ms, *id, producer)).collect::<Vec<_>>()
        };
        let mut all: Vec<(i64, PartitionId, ProducerId)> = self.partitions.iter().flat_map(seen).collect();
        all.sort_unstable();
        self.order = self.order.max(other_order);
        self.producers_by_order.clear();
        for (_, id, producer) in &all {
            self.order += 1;
            self.dirty.producers.insert((*id, *producer));
            if let Some(partition) = self.partitions.get_mut(id)
                && partition.producers.number(*producer, self.order)
            {
                self.producers_by_order.insert(self.order, (*id, *producer));
            }
        }
        for _ in 0..all.len().saturating_sub(PRODUCERS_PER_SHARD_MAX) {
            let Some((_, (id, producer))) = self.producers_by_order.pop_first() else { break };
            self.producers_evicted += 1;
            self.forget_producer(id, producer);
        }
    }
}
