//! What apply does with batches: epoch, sequence, transaction and group are judged, offsets are given, producers are
//! remembered.
//!
//! Pure, as all of apply is. A batch that is refused stays in the log as bytes without an offset. May not know: who
//! proposed a batch, what its records say, except those of groups.

use std::sync::Arc;

use bytes::Bytes;
use ottla_env::mutants::{self, Bug};
use ottla_protocol::batch::BatchHeader;
use ottla_protocol::ids::{LeaderEpoch, Offset, PartitionId, ProducerId};
use ottla_storage::entry::{Entry, Verdict};

use super::command::{BatchDecision, TransactionDecision};
use super::group::GroupChange;
use super::group::store::refusal;
use super::kept::Kept;
use super::producer_state::{Claim, PRODUCERS_PER_PARTITION_MAX, Placed, SequenceVerdict};
use super::shard_state::{
    ApplyReply, BatchOutcome, PRODUCERS_PER_SHARD_MAX, PartitionState, Rejection, ShardState, epoch_of,
};
use super::transaction::TransactionStore;
use super::transactions::{Marker, MarkerVerdict, PartitionTransactions, judge_marker};

impl PartitionState {
    /// True if a new batch opens its producer's transaction; or why it is refused. `is_full`: no other producer of the shard can be
    /// forgotten for it.
    fn opens_transaction(
        &self,
        claim: Option<&Claim>,
        is_transactional: bool,
        decision: Option<TransactionDecision>,
        is_full: bool,
    ) -> Result<bool, Rejection> {
        // Most partitions have no transactions: their producers are not looked up once more.
        if !is_transactional && self.transactions.open_count() == 0 {
            return Ok(false);
        }
        let Some(claim) = claim else {
            return if is_transactional { Err(Rejection::Malformed) } else { Ok(false) };
        };
        let history = self.producers.get(claim.producer_id);
        match (history.filter(|history| history.is_in_transaction()), is_transactional) {
            (None, false) => Ok(false),
            (Some(open), true) if open.epoch == claim.epoch => Ok(false),
            (Some(_), _) => Err(Rejection::TransactionOpen),
            (None, true) => {
                let marker_number = self.transactions.marker_number(history);
                let is_late = decision != Some(TransactionDecision::Opens { marker_number });
                if is_late && !mutants::is_on(Bug::LateBatchOpens) {
                    return Err(Rejection::TransactionEnded);
                }
                let is_full = is_full
                    || self.producers.len() >= PRODUCERS_PER_PARTITION_MAX
                        && self.producers.eviction_candidate().is_none();
                if is_full && history.is_none() { Err(Rejection::TooManyTransactions) } else { Ok(true) }
            }
        }
    }

    /// What the records of an internal topic change. `transaction`: the claim of a batch that belongs to one.
    ///
    /// # Panics
    /// When they cannot be read: a replica that passed over them would differ from others.
    fn apply_records(
        &self,
        id: PartitionId,
        data: &Bytes,
        decision: &BatchDecision,
        transaction: Option<Claim>,
    ) -> Result<(), Rejection> {
        let unreadable = |error| -> ! { panic!("a batch of {id} cannot be read: {error}; is it of a newer release?") };
        match &self.kept {
            None => {}
            Some(Kept::Groups(groups)) => {
                let change =
                    GroupChange::decode(decision.guard.as_ref(), data).unwrap_or_else(|error| unreadable(error));
                let mut groups = groups.lock();
                if transaction.is_some() && !change.only_commits() {
                    return Err(Rejection::Group(refusal::INVALID_RECORD));
                }
                if transaction.is_none() || !change.claims_no_member() {
                    groups.judge(&change).map_err(Rejection::Group)?;
                }
                match transaction {
                    Some(claim) => groups.apply_transactional(claim.producer_id, self.next_offset, change),
                    None => groups.apply(change),
                }
            }
            Some(Kept::Transactions(transactions)) => {
                let records = TransactionStore::decode(data).unwrap_or_else(|error| unreadable(error));
                transactions.lock().apply(records);
            }
        }
        Ok(())
    }

    /// Gives `count` offsets: the first one, its epoch, and whether the history of epochs has grown.
    fn give_offsets(&mut self, term: u64, count: i64) -> (Offset, LeaderEpoch, bool) {
        let (base_offset, epoch) = (self.next_offset, epoch_of(self.epoch_base, term));
        // Readers share the history: it is copied when it grows, not for every batch.
        let grows =
            self.epochs.newest() != Some(epoch) && Arc::make_mut(&mut self.epochs).note_append(epoch, base_offset);
        self.next_offset = base_offset.plus(count);
        (base_offset, epoch, grows)
    }
}

fn rejected(why: Rejection) -> (Verdict, BatchOutcome) {
    (Verdict::Rejected, BatchOutcome::Rejected(why))
}

impl ShardState {
    pub(super) fn apply_data(&mut self, entry: &Entry, decisions: &[BatchDecision]) -> (Vec<Verdict>, ApplyReply) {
        assert_eq!(decisions.len(), entry.batches.len(), "entry {}: one decision per batch", entry.log_id);
        let mut verdicts = Vec::with_capacity(decisions.len());
        let mut outcomes = Vec::with_capacity(decisions.len());
        for (batch, decision) in entry.batches.iter().zip(decisions) {
            let (verdict, outcome) = self.apply_batch(batch.partition, &batch.data, decision);
            if let Verdict::Accepted { base_offset, epoch } = verdict {
                self.mix(base_offset.0.cast_unsigned());
                self.mix(u64::from(epoch.0.cast_unsigned()));
            } else {
                self.mix(1);
            }
            verdicts.push(verdict);
            outcomes.push(outcome);
        }
        (verdicts, ApplyReply::Data(outcomes))
    }

    fn apply_batch(&mut self, id: PartitionId, data: &Bytes, decision: &BatchDecision) -> (Verdict, BatchOutcome) {
        let Some(header) = BatchHeader::parse(data).filter(|header| header.last_offset_delta >= 0) else {
            return rejected(Rejection::Malformed);
        };
        if self.is_sealed() {
            return rejected(Rejection::Sealed);
        }
        if let Some(TransactionDecision::Ends(marker)) = &decision.transaction {
            return self.apply_marker(id, data, &header, marker);
        }
        let (term, clock_ms) = (self.term, self.clock_ms);
        let is_full = self.producers_known() >= PRODUCERS_PER_SHARD_MAX && self.producers_by_order.is_empty();
        let Some(partition) = self.partitions.get_mut(&id) else {
            return rejected(Rejection::NotCarried);
        };
        let log_start = partition.log_start;
        let stored = |base_offset, time_ms: Option<i64>| BatchOutcome::Stored {
            base_offset,
            log_append_time_ms: time_ms,
            log_start,
        };
        let claim = Claim::of(&header);
        match claim.map_or(SequenceVerdict::Append, |claim| partition.producers.judge(&claim)) {
            SequenceVerdict::Append => {}
            SequenceVerdict::Duplicate(first) => {
                let time_ms = first.log_append_time.then_some(first.timestamp_ms);
                let wrong = mutants::is_on(Bug::DuplicateWrongOffset);
                let base_offset = if wrong { partition.next_offset } else { first.base_offset };
                if mutants::is_on(Bug::DuplicateTakesOffsets) {
                    partition.next_offset = partition.next_offset.plus(header.offset_count());
                }
                return (Verdict::Rejected, stored(base_offset, time_ms));
            }
            SequenceVerdict::OutOfOrder => return rejected(Rejection::OutOfOrder),
            SequenceVerdict::Fenced => return rejected(Rejection::Fenced),
        }
        let is_transactional = header.attributes.is_transactional();
        let opens = match partition.opens_transaction(claim.as_ref(), is_transactional, decision.transaction, is_full) {
            Ok(opens) => opens,
            Err(why) => return rejected(why),
        };
        if let Err(why) = partition.apply_records(id, data, decision, claim.filter(|_| is_transactional)) {
            return rejected(why);
        }
        let (base_offset, epoch, epochs_grow) = partition.give_offsets(term, header.offset_count());
        self.note_appended(id, data, epochs_grow);
        if let Some(claim) = claim {
            self.remember(id, &claim, base_offset, clock_ms, opens);
        }
        let time_ms = header.attributes.is_log_append_time().then_some(header.max_timestamp);
        (Verdict::Accepted { base_offset, epoch }, stored(base_offset, time_ms))
    }

    /// A marker of a transaction's coordinator (KIP-98, KIP-890). Where none is open nothing is appended.
    fn apply_marker(
        &mut self,
        id: PartitionId,
        data: &Bytes,
        header: &BatchHeader,
        marker: &Marker,
    ) -> (Verdict, BatchOutcome) {
        let (term, producer, epoch) = (self.term, ProducerId(header.producer_id), header.producer_epoch);
        let is_marker = header.attributes.is_control() && header.is_idempotent() && header.last_offset_delta == 0;
        let Some(partition) = self.partitions.get_mut(&id) else {
            return rejected(Rejection::NotCarried);
        };
        if !is_marker {
            return rejected(Rejection::Malformed);
        }
        let first = match judge_marker(partition.producers.get(producer), epoch, marker) {
            MarkerVerdict::Ends(first) => Some(first),
            MarkerVerdict::NoneOpen => None,
            MarkerVerdict::CoordinatorFenced => return rejected(Rejection::CoordinatorFenced),
            MarkerVerdict::ProducerFenced => return rejected(Rejection::Fenced),
        };
        let (at, log_start) = (partition.next_offset, partition.log_start);
        let number = match first {
            Some(first) => {
                if let Some(groups) = partition.kept.as_ref().and_then(Kept::groups) {
                    groups.lock().end_transaction(producer, marker.commits);
                }
                partition.transactions.ended(producer, first, marker, at)
            }
            None => partition.transactions.next_marker(),
        };
        let given = first.map(|_| partition.give_offsets(term, 1));
        self.order += 1;
        let claims = (epoch, marker.coordinator_epoch);
        let placed = partition.producers.mark(producer, claims, number, self.clock_ms, self.order);
        let excess = partition.producers.excess();
        if first.is_some() {
            self.transactions_open -= 1;
            self.dirty.aborted.extend((!marker.commits).then_some((id, at)));
        }
        self.reorder(id, producer, placed, excess);
        self.mix(number);
        self.dirty.partitions.insert(id);
        let outcome = BatchOutcome::Stored { base_offset: at, log_append_time_ms: None, log_start };
        match given {
            Some((base_offset, epoch, epochs_grow)) => {
                self.note_appended(id, data, epochs_grow);
                (Verdict::Accepted { base_offset, epoch }, outcome)
            }
            None => (Verdict::Rejected, outcome),
        }
    }

    fn note_appended(&mut self, id: PartitionId, data: &Bytes, epochs_grow: bool) {
        if epochs_grow {
            self.dirty.epochs.insert(id);
        }
        self.dirty.partitions.insert(id);
        self.touched.entry(id).or_default().appended_bytes += data.len() as u64;
    }

    /// Remembers a producer's batch, and evicts the producers idle longest beyond the caps.
    fn remember(&mut self, id: PartitionId, claim: &Claim, base_offset: Offset, clock_ms: i64, opens: bool) {
        self.order += 1;
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        let producer = claim.producer_id;
        let placed = partition.producers.record(claim, base_offset, clock_ms, self.order, opens);
        let excess = partition.producers.excess();
        if opens {
            partition.transactions.opened(producer, base_offset);
            self.transactions_open += 1;
        }
        self.reorder(id, producer, placed, excess);
    }

    /// A producer has the last place in the order of last use, unless its transaction is open; those idle longest are evicted
    /// beyond the caps. `excess`: the one that is too many in the partition.
    fn reorder(&mut self, id: PartitionId, producer: ProducerId, placed: Placed, excess: Option<ProducerId>) {
        self.dirty.producer_placed(id, producer, placed.replaced);
        if let Some(replaced) = placed.replaced {
            self.producers_by_order.remove(&replaced);
        }
        if !placed.is_in_transaction {
            self.producers_by_order.insert(self.order, (id, producer));
        }
        if let Some(idle) = excess {
            self.producers_evicted += 1;
            self.forget_producer(id, idle);
        }
        if self.producers_known() > PRODUCERS_PER_SHARD_MAX
            && let Some((id, idle)) = self.producers_by_order.first_key_value().map(|(_, idle)| *idle)
        {
            self.producers_evicted += 1;
            self.forget_producer(id, idle);
        }
    }

    /// A partition that is carried from now on has brought its transactions.
    pub(super) fn take_transactions(&mut self, id: PartitionId, transactions: &PartitionTransactions) {
        self.transactions_open += transactions.open_count();
        self.dirty.aborted.extend(transactions.aborted.iter().map(|aborted| (id, aborted.last_offset)));
    }
}
