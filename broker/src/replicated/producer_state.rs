//! Producer state of one partition (KIP-98, KIP-360): each producer's recent batches, and what apply decides about a
//! sequence and an epoch.
//!
//! Pure: a verdict says what apply does, `record` does it. Both are run by the shard's state machine on every replica,
//! so they see nothing but the entry and this state. Follows Kafka's ProducerStateManager / ProducerAppendInfo: an
//! unknown producer may begin with any sequence (its state may have expired), a new epoch begins with 0, an old epoch
//! is fenced, and the last five batches are remembered so that a retry is answered with its first offset.

use std::collections::BTreeMap;

use ottla_env::mutants::{self, Bug};
use ottla_protocol::batch::BatchHeader;
use ottla_protocol::ids::{Offset, ProducerId};

/// How many batches per producer are remembered; clients keep at most five in flight.
pub const BATCHES_REMEMBERED_MAX: usize = 5;

/// A constant of the format, not a setting: every replica must evict alike.
pub const PRODUCERS_PER_PARTITION_MAX: usize = 10_000;

/// The producer, epoch and sequence in a batch's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The producer.
    pub producer_id: ProducerId,
    /// Its epoch.
    pub epoch: i16,
    /// Sequence of the first record; below 0 for what a coordinator writes for a producer, which has none.
    pub first_sequence: i32,
    /// Records in the batch - 1.
    pub last_offset_delta: i32,
    /// Greatest timestamp of the batch.
    pub timestamp_ms: i64,
    /// The batch was stamped with LogAppendTime.
    pub log_append_time: bool,
}

impl Claim {
    /// What a batch claims; `None` if it has no producer, or is a marker.
    #[must_use]
    pub fn of(header: &BatchHeader) -> Option<Self> {
        (header.is_idempotent() && !header.attributes.is_control()).then_some(Self {
            producer_id: ProducerId(header.producer_id),
            epoch: header.producer_epoch,
            first_sequence: header.base_sequence,
            last_offset_delta: header.last_offset_delta,
            timestamp_ms: header.max_timestamp,
            log_append_time: header.attributes.is_log_append_time(),
        })
    }

    /// False for what a coordinator writes for a producer: its epoch counts alone.
    fn has_sequence(&self) -> bool {
        self.first_sequence >= 0
    }

    /// Sequence of the last record; sequences wrap from 2^31 - 1 to 0.
    #[must_use]
    pub fn last_sequence(&self) -> i32 {
        advance(self.first_sequence, self.last_offset_delta)
    }
}

/// True if sequence `a` comes before `b`; sequences wrap.
#[must_use]
pub fn precedes(a: i32, b: i32) -> bool {
    let ahead = b.wrapping_sub(a) & i32::MAX;
    ahead != 0 && ahead < 1 << 30
}

/// `sequence` + `count`, wrapping from 2^31 - 1 to 0.
#[must_use]
pub fn advance(sequence: i32, count: i32) -> i32 {
    let sum = i64::from(sequence) + i64::from(count);
    i32::try_from(sum & i64::from(i32::MAX)).unwrap_or(0)
}

/// A batch that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RememberedBatch {
    /// Sequence of its first record.
    pub first_sequence: i32,
    /// Sequence of its last record.
    pub last_sequence: i32,
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Its greatest timestamp.
    pub timestamp_ms: i64,
    /// It was stamped with LogAppendTime.
    pub log_append_time: bool,
}

/// What apply does with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SequenceVerdict {
    /// Give it offsets.
    Append,
    /// It is a retry: answer as the first time.
    Duplicate(RememberedBatch),
    /// A gap, or older than what is remembered.
    OutOfOrder,
    /// A newer epoch has been seen.
    Fenced,
}

/// The history of one producer on one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerHistory {
    /// Its current epoch.
    pub epoch: i16,
    /// Its last batches under that epoch, oldest first; at most [`BATCHES_REMEMBERED_MAX`].
    pub batches: Vec<RememberedBatch>,
    /// Greatest timestamp of its last batch.
    pub timestamp_ms: i64,
    /// Shard clock when it was last seen; expiry goes by this.
    pub seen_ms: i64,
    /// Place in the shard's order of last use; eviction goes by this.
    pub order: u64,
    /// Epoch of the transaction coordinator that wrote its last marker, -1 if none.
    pub coordinator_epoch: i32,
    /// First offset of its open transaction.
    pub transaction_start: Option<Offset>,
    /// The partition's number of its last marker, 0 if none.
    pub last_marker: u64,
}

impl ProducerHistory {
    /// Of a producer that has sent nothing yet.
    #[must_use]
    pub fn new(epoch: i16) -> Self {
        Self {
            epoch,
            batches: Vec::new(),
            timestamp_ms: -1,
            seen_ms: 0,
            order: 0,
            coordinator_epoch: -1,
            transaction_start: None,
            last_marker: 0,
        }
    }

    /// True while its transaction is open.
    #[must_use]
    pub fn is_in_transaction(&self) -> bool {
        self.transaction_start.is_some()
    }

    fn remember(&mut self, batch: RememberedBatch) {
        if self.batches.len() == BATCHES_REMEMBERED_MAX {
            self.batches.remove(0);
        }
        self.batches.push(batch);
    }

    fn begin_epoch(&mut self, epoch: i16) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.batches.clear();
        }
    }

    /// Sequence of its last record, -1 if no batch is remembered.
    #[must_use]
    pub fn last_sequence(&self) -> i32 {
        self.batches.last().map_or(-1, |batch| batch.last_sequence)
    }

    fn judge(&self, claim: &Claim) -> SequenceVerdict {
        if claim.epoch < self.epoch {
            let accepts = mutants::is_on(Bug::OldEpochAccepted);
            return if accepts { SequenceVerdict::Append } else { SequenceVerdict::Fenced };
        }
        if !claim.has_sequence() {
            return SequenceVerdict::Append;
        }
        if claim.epoch > self.epoch {
            let starts = claim.first_sequence == 0;
            return if starts { SequenceVerdict::Append } else { SequenceVerdict::OutOfOrder };
        }
        let last_sequence = claim.last_sequence();
        let same = |b: &&RememberedBatch| b.first_sequence == claim.first_sequence && b.last_sequence == last_sequence;
        if let Some(batch) = self.batches.iter().find(same) {
            return SequenceVerdict::Duplicate(*batch);
        }
        match self.batches.last() {
            Some(last) if advance(last.last_sequence, 1) != claim.first_sequence => SequenceVerdict::OutOfOrder,
            // A marker is all that is known of this epoch.
            None if claim.first_sequence != 0 => SequenceVerdict::OutOfOrder,
            _ => SequenceVerdict::Append,
        }
    }
}

/// The place that a producer has been given in the order of last use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// The order that is replaced.
    pub replaced: Option<u64>,
    /// It takes the place only once its transaction has ended.
    pub is_in_transaction: bool,
}

/// All producers of one partition, and their order of last use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProducerTable {
    histories: BTreeMap<ProducerId, ProducerHistory>,
    /// Those without an open transaction.
    by_order: BTreeMap<u64, ProducerId>,
}

impl ProducerTable {
    /// What apply does with a batch that makes this claim.
    #[must_use]
    pub fn judge(&self, claim: &Claim) -> SequenceVerdict {
        self.histories.get(&claim.producer_id).map_or(SequenceVerdict::Append, |history| history.judge(claim))
    }

    /// Remembers an accepted batch. `order` is greater than any before. `opens`: a transaction begins with it.
    pub fn record(&mut self, claim: &Claim, base_offset: Offset, seen_ms: i64, order: u64, opens: bool) -> Placed {
        let history = self.histories.entry(claim.producer_id).or_insert_with(|| ProducerHistory::new(claim.epoch));
        history.begin_epoch(claim.epoch);
        if claim.has_sequence() {
            history.remember(RememberedBatch {
                first_sequence: claim.first_sequence,
                last_sequence: claim.last_sequence(),
                base_offset,
                timestamp_ms: claim.timestamp_ms,
                log_append_time: claim.log_append_time,
            });
        }
        history.timestamp_ms = claim.timestamp_ms;
        if opens {
            history.transaction_start = Some(base_offset);
        }
        place(&mut self.by_order, claim.producer_id, history, seen_ms, order)
    }

    /// Remembers a marker: its epoch is the producer's, and no transaction is open. `number`: the marker's in its partition.
    pub fn mark(
        &mut self,
        id: ProducerId,
        (epoch, coordinator_epoch): (i16, i32),
        number: u64,
        seen_ms: i64,
        order: u64,
    ) -> Placed {
        let history = self.histories.entry(id).or_insert_with(|| ProducerHistory::new(epoch));
        history.begin_epoch(epoch);
        history.coordinator_epoch = coordinator_epoch;
        history.last_marker = number;
        history.transaction_start = None;
        place(&mut self.by_order, id, history, seen_ms, order)
    }

    /// Forgets what producers have sent, and neither their epochs nor their open transactions.
    pub fn forget_batches(&mut self) {
        self.histories.values_mut().for_each(|history| history.batches.clear());
    }

    /// Restores a history from the checkpoint.
    pub fn restore(&mut self, id: ProducerId, history: ProducerHistory) {
        if !history.is_in_transaction() {
            self.by_order.insert(history.order, id);
        }
        self.histories.insert(id, history);
    }

    /// Gives a producer another place in the order of last use, which it takes once its transaction has ended; true if none is open.
    /// The numbers of one table are given in their order.
    pub fn number(&mut self, id: ProducerId, order: u64) -> bool {
        self.histories.get_mut(&id).is_some_and(|history| {
            let seen_ms = history.seen_ms;
            !place(&mut self.by_order, id, history, seen_ms, order).is_in_transaction
        })
    }

    /// Removes a producer.
    pub fn remove(&mut self, id: ProducerId) -> Option<ProducerHistory> {
        let history = self.histories.remove(&id)?;
        self.by_order.remove(&history.order);
        Some(history)
    }

    /// The producer that has been idle longest and has no open transaction.
    #[must_use]
    pub fn eviction_candidate(&self) -> Option<ProducerId> {
        self.by_order.first_key_value().map(|(_, id)| *id)
    }

    /// The producer that is to be evicted, if there are more than the partition remembers.
    #[must_use]
    pub fn excess(&self) -> Option<ProducerId> {
        if self.len() > PRODUCERS_PER_PARTITION_MAX { self.eviction_candidate() } else { None }
    }

    /// Producers last seen before the cutoff that have no open transaction.
    #[must_use]
    pub fn expired(&self, cutoff_ms: i64) -> Vec<ProducerId> {
        let is_expired = |h: &ProducerHistory| h.seen_ms < cutoff_ms && !h.is_in_transaction();
        self.histories.iter().filter(|(_, h)| is_expired(h)).map(|(id, _)| *id).collect()
    }

    /// A producer's history.
    #[must_use]
    pub fn get(&self, id: ProducerId) -> Option<&ProducerHistory> {
        self.histories.get(&id)
    }

    /// Every producer, by id.
    pub fn iter(&self) -> impl Iterator<Item = (ProducerId, &ProducerHistory)> {
        self.histories.iter().map(|(id, history)| (*id, history))
    }

    /// The number of producers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.histories.len()
    }

    /// True if there are no producers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.histories.is_empty()
    }
}

/// Gives a history its place in the order of last use, in which those with an open transaction have none.
fn place(
    by_order: &mut BTreeMap<u64, ProducerId>,
    id: ProducerId,
    history: &mut ProducerHistory,
    seen_ms: i64,
    order: u64,
) -> Placed {
    debug_assert!(by_order.last_key_value().is_none_or(|(last, _)| *last < order) || order == history.order);
    history.seen_ms = seen_ms;
    let replaced = std::mem::replace(&mut history.order, order);
    by_order.remove(&replaced);
    let is_in_transaction = history.is_in_transaction();
    if !is_in_transaction {
        by_order.insert(order, id);
    }
    Placed { replaced: (replaced != 0).then_some(replaced), is_in_transaction }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn claim(epoch: i16, first_sequence: i32, count: i32) -> Claim {
        Claim {
            producer_id: ProducerId(7),
            epoch,
            first_sequence,
            last_offset_delta: count - 1,
            timestamp_ms: 1,
            log_append_time: false,
        }
    }

    fn base_of(verdict: SequenceVerdict) -> Option<i64> {
        match verdict {
            SequenceVerdict::Duplicate(batch) => Some(batch.base_offset.0),
            _ => None,
        }
    }

    #[test]
    fn an_unknown_producer_may_begin_anywhere() {
        assert_eq!(ProducerTable::default().judge(&claim(3, 99, 2)), SequenceVerdict::Append);
    }

    #[test]
    fn a_retry_of_any_of_the_last_five_batches_gets_its_first_offset() {
        let mut table = ProducerTable::default();
        for n in 0..7 {
            let _ = table.record(
                &claim(0, n * 2, 2),
                Offset(100 + i64::from(n) * 2),
                0,
                u64::try_from(n).unwrap() + 1,
                false,
            );
        }
        for n in 2..7 {
            assert_eq!(base_of(table.judge(&claim(0, n * 2, 2))), Some(100 + i64::from(n) * 2));
        }
        assert_eq!(table.judge(&claim(0, 2, 2)), SequenceVerdict::OutOfOrder);
        // Same first sequence, other length: not the batch that was accepted.
        assert_eq!(table.judge(&claim(0, 12, 1)), SequenceVerdict::OutOfOrder);
    }

    #[test]
    fn a_sequence_wraps_to_zero() {
        let mut table = ProducerTable::default();
        let _ = table.record(&claim(0, i32::MAX - 1, 2), Offset(5), 0, 1, false);
        assert_eq!(table.get(ProducerId(7)).unwrap().last_sequence(), i32::MAX);
        assert_eq!(table.judge(&claim(0, 0, 1)), SequenceVerdict::Append);
        assert_eq!(claim(0, i32::MAX, 3).last_sequence(), 1);
    }

    #[test]
    fn a_new_epoch_begins_with_zero_and_fences_the_old_one() {
        let mut table = ProducerTable::default();
        let _ = table.record(&claim(4, 10, 1), Offset(0), 0, 1, false);
        assert_eq!(table.judge(&claim(5, 11, 1)), SequenceVerdict::OutOfOrder);
        assert_eq!(table.judge(&claim(5, 0, 1)), SequenceVerdict::Append);
        let _ = table.record(&claim(5, 0, 1), Offset(1), 0, 2, false);
        assert_eq!(table.judge(&claim(4, 11, 1)), SequenceVerdict::Fenced);
        // A batch of the old epoch is fenced even if its sequences equal a remembered one.
        assert_eq!(table.judge(&claim(4, 0, 1)), SequenceVerdict::Fenced);
    }

    #[test]
    fn eviction_passes_over_an_open_transaction() {
        let mut table = ProducerTable::default();
        let _ = table.record(&claim(0, 0, 1), Offset(0), 0, 1, false);
        let _ = table.record(&Claim { producer_id: ProducerId(8), ..claim(0, 0, 1) }, Offset(1), 0, 2, false);
        let mut first = table.remove(ProducerId(7)).unwrap();
        first.transaction_start = Some(Offset(0));
        table.restore(ProducerId(7), first);
        assert_eq!(table.eviction_candidate(), Some(ProducerId(8)));
        assert_eq!(table.expired(1), vec![ProducerId(8)]);
    }

    proptest! {
        /// Model: a producer that numbers its records 0, 1, 2 ... and retries at random; each number gets one offset.
        #[test]
        fn a_producer_that_retries_at_random_gets_each_record_once(
            lengths in proptest::collection::vec(1i32..5, 1..40),
            retries in proptest::collection::vec(0usize..5, 1..40),
            start in prop_oneof![Just(0i32), (i32::MAX - 20)..=i32::MAX],
        ) {
            let mut table = ProducerTable::default();
            let mut sent: Vec<(Claim, i64)> = Vec::new();
            let (mut sequence, mut next_offset, mut order) = (start, 0i64, 0u64);
            for (n, length) in lengths.iter().enumerate() {
                let batch = claim(0, sequence, *length);
                prop_assert_eq!(table.judge(&batch), SequenceVerdict::Append);
                order += 1;
                let _ = table.record(&batch, Offset(next_offset), 0, order, false);
                sent.push((batch, next_offset));
                next_offset += i64::from(*length);
                sequence = advance(sequence, *length);
                let back = retries.get(n).copied().unwrap_or(0).min(sent.len() - 1);
                let (old, offset) = sent[sent.len() - 1 - back];
                prop_assert_eq!(base_of(table.judge(&old)), Some(offset));
                prop_assert_eq!(table.judge(&claim(0, advance(sequence, 1), 1)), SequenceVerdict::OutOfOrder);
            }
        }
    }
}
