//! The replicated state of a shard: partitions, their producers and epochs, dropped partitions, the shard clock.
//!
//! Pure: [`ShardState::apply`] is a function of this state and the entry, and returns what it decided. No
//! configuration, no local clock, no randomness, no hash order (design section 3). All of it is keyed by partition
//! (section 8). Invariants: offsets of a partition are dense (I2); log start and next offset never fall (I4); an intent
//! that is not newer than the last one for a partition changes nothing (I7).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ottla_env::mutants::{self, Bug};
use ottla_env::rt;
use ottla_protocol::batch::{BatchHeader, check_crc};
use ottla_protocol::ids::{LeaderEpoch, Offset, PartitionId, ProducerId};
use ottla_storage::entry::{Entry, Verdict};
use ottla_storage::ids::{LogId, RaftIndex, ReplicaId};

use super::changes::{Dirty, Touched};
use super::command::{Absorb, AdoptedPartition, Command, DroppedPartition, LogStartChange, Split};
use super::compaction::CompactionState;
use super::epochs::EpochHistory;
use super::kept::{Keeps, Kept};
use super::merge_state::{LastMerge, Sealed, TakenOver};
use super::producer_state::{
    Claim, PRODUCERS_PER_PARTITION_MAX, ProducerHistory, ProducerTable, SequenceVerdict, advance, precedes,
};
use super::transactions::PartitionTransactions;

/// A constant of the format, not a setting: every replica must evict alike.
pub const PRODUCERS_PER_SHARD_MAX: usize = 100_000;

const _: () = assert!(PRODUCERS_PER_PARTITION_MAX <= PRODUCERS_PER_SHARD_MAX);

/// So many offsets are skipped in each partition where entries are lost, since it is unknown how many offsets those
/// gave: more than any entries between two checkpoints give.
pub const OFFSETS_LOST: i64 = 1 << 24;

/// Why apply rejects a batch. The batch stays in the log as bytes without an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// The shard does not carry the partition (any more).
    NotCarried,
    /// The sequence does not follow the producer's last one.
    OutOfOrder,
    /// A newer epoch of the producer has been seen.
    Fenced,
    /// The batch was to open a transaction, and a marker has ended one since its coordinator was asked; or it was not asked.
    TransactionEnded,
    /// The producer's open transaction is of another epoch, or the batch belongs to none.
    TransactionOpen,
    /// No more transactions may be open.
    TooManyTransactions,
    /// A newer coordinator has written a marker.
    CoordinatorFenced,
    /// The header cannot be read; the leader should have refused the batch.
    Malformed,
    /// The group store refused the batch, with this Kafka code.
    Group(i16),
    /// Another shard is about to carry the partition.
    Sealed,
}

/// What apply decided about one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchOutcome {
    /// The batch has offsets, given now or when it came for the first time.
    Stored {
        /// Offset of its first record.
        base_offset: Offset,
        /// The time stamped into it under LogAppendTime.
        log_append_time_ms: Option<i64>,
        /// The partition's log start.
        log_start: Offset,
    },
    /// The batch has no offsets and will not get any.
    Rejected(Rejection),
}

/// The reply of apply to the proposer of the entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApplyReply {
    /// One outcome per batch.
    Data(Vec<BatchOutcome>),
    /// For each partition its log start afterwards; `None` if it is not carried.
    LogStarts(Vec<(PartitionId, Option<Offset>)>),
    /// The group has other members than a split or merge was decided for, or is changing them: nothing was changed.
    OtherMembers,
    /// How many partitions or producers the command changed.
    Changed(usize),
}

/// The replicated state of one partition.
#[derive(Debug)]
pub(crate) struct PartitionState {
    pub(crate) intent: RaftIndex,
    pub(crate) epoch_base: i32,
    pub(crate) log_start: Offset,
    pub(crate) next_offset: Offset,
    pub(crate) epochs: Arc<EpochHistory>,
    pub(crate) producers: ProducerTable,
    pub(crate) transactions: PartitionTransactions,
    pub(crate) compaction: CompactionState,
    /// Partitions of internal topics only.
    pub(crate) kept: Option<Kept>,
}

impl PartitionState {
    /// The last stable offset: no open transaction begins below; where none is open it is the end.
    pub(crate) fn last_stable(&self) -> Offset {
        self.transactions.first_unstable().unwrap_or(self.next_offset)
    }
}

/// What a split has made on this replica.
#[derive(Debug)]
pub struct SplitOff {
    /// The command, for the ids of the child's shard and replicas.
    pub split: Split,
    /// The child's state; all of it has to be written by its first cut.
    pub child: ShardState,
}

/// The replicated state of one shard.
#[derive(Debug, Default)]
pub struct ShardState {
    /// What its partitions keep beside their records.
    pub(crate) keeps: Keeps,
    pub(crate) clock_ms: i64,
    pub(crate) term: u64,
    /// The last order number given; producers are ordered by last use.
    pub(crate) order: u64,
    pub(crate) checksum: u64,
    /// The last entry applied by this process.
    pub(crate) last: Option<LogId>,
    /// Intents at or below this are done, and refused from now on.
    pub(crate) floor: RaftIndex,
    /// The intent of the last split: it and those before it are not carried out again.
    pub(crate) last_split: RaftIndex,
    /// The last merge by which it took over another one.
    pub(crate) last_merge: LastMerge,
    /// The intent of the last Seal, or of the merge that was cancelled before it: those up to it are refused.
    pub(crate) last_seal: RaftIndex,
    /// What it was when it was sealed, if it is.
    pub(crate) sealed: Option<Sealed>,
    pub(crate) partitions: BTreeMap<PartitionId, PartitionState>,
    pub(crate) dropped: BTreeMap<PartitionId, RaftIndex>,
    /// Producers without an open transaction.
    pub(crate) producers_by_order: BTreeMap<u64, (PartitionId, ProducerId)>,
    /// How many transactions are open.
    pub(crate) transactions_open: usize,
    /// Producers forgotten by this process for lack of room, not for their age; not replicated.
    pub(crate) producers_evicted: u64,
    pub(crate) dirty: Dirty,
    pub(crate) touched: BTreeMap<PartitionId, Touched>,
    /// Partitions of which this replica may not have done the last pass of compaction; not replicated.
    pub(crate) passes_due: BTreeSet<PartitionId>,
    /// What the last entry has split off, until it is taken.
    pub(crate) split_off: Option<Box<SplitOff>>,
    /// The Absorb that the last entry was, until it is carried out.
    pub(super) absorbing: Option<Box<Absorb>>,
    /// By the last merge; not replicated.
    pub(crate) taken_over: TakenOver,
}

impl ShardState {
    /// A shard that carries nothing yet.
    #[must_use]
    pub fn new(keeps: Keeps) -> Self {
        Self { keeps, ..Self::default() }
    }

    /// Applies one entry: returns a verdict per batch, and the reply to the proposer. `members`: those of the group at
    /// the entry, if it is not changing them.
    ///
    /// # Panics
    /// If the entry cannot be read: this replica then stops rather than differ from others (design section 5).
    pub fn apply(&mut self, entry: &Entry, members: Option<&BTreeSet<ReplicaId>>) -> (Vec<Verdict>, ApplyReply) {
        let command = match Command::decode(&entry.payload) {
            Ok(command) => command,
            Err(error) => panic!("entry {} cannot be read: {error}; is it of a newer release?", entry.log_id),
        };
        let clock_ms = if mutants::is_on(Bug::ClockReadAtApply) { rt::wall_clock_ms() } else { entry.clock_ms };
        self.clock_ms = self.clock_ms.max(clock_ms);
        self.term = self.term.max(entry.log_id.term.0);
        self.dirty.shard = true;
        self.last = Some(entry.log_id);
        self.mix(entry.log_id.index.0);
        let (verdicts, reply) = match command {
            Command::Data(decisions) => self.apply_data(entry, &decisions),
            other => {
                assert!(entry.batches.is_empty(), "entry {} has batches but is no data entry", entry.log_id);
                (Vec::new(), self.apply_change(other, members))
            }
        };
        assert_eq!(verdicts.len(), entry.batches.len());
        (verdicts, reply)
    }

    /// Checks the records of internal topics: they must be sound, or this replica would differ from others. For other
    /// partitions the batch headers are enough. The error says what is damaged.
    pub fn check_records(&self, entry: &Entry) -> Result<(), String> {
        if self.keeps == Keeps::Records {
            return Ok(());
        }
        for batch in entry.batches.iter().filter(|batch| self.partitions.contains_key(&batch.partition)) {
            let Some(header) = BatchHeader::parse(&batch.data) else { continue };
            check_crc(&batch.data, &header)
                .map_err(|error| format!("records of {} are damaged on disk: {error}", batch.partition))?;
        }
        Ok(())
    }

    /// The first entry of a new leader was applied.
    pub fn term_started(&mut self, log_id: LogId) {
        self.term = self.term.max(log_id.term.0);
        self.last = Some(log_id);
        self.mix(log_id.index.0);
        self.dirty.shard = true;
        if mutants::is_on(Bug::DedupLostAtFailover) {
            self.forget_producers();
        }
    }

    /// Entries are lost that may have adopted any of the partitions that are `placed` here, appended to each, and
    /// advanced any producer: none of their offsets is given again, and a producer may continue with any sequence. A
    /// partition that was not carried before begins behind the lost offsets.
    pub(crate) fn entries_lost(&mut self, placed: &[AdoptedPartition]) {
        let carried: BTreeSet<_> = self.partitions.keys().copied().collect();
        self.adopt(placed);
        let producers = |(id, partition): (&PartitionId, &PartitionState)| {
            partition.producers.iter().map(|(producer, _)| (*id, producer)).collect::<Vec<_>>()
        };
        let known: Vec<_> = self.partitions.iter().flat_map(producers).collect();
        known.iter().for_each(|(id, producer)| self.forget_producer(*id, *producer));
        self.dirty.producers.extend(known);
        for (id, partition) in &mut self.partitions {
            // An open transaction stays open: its coordinator, or an operator, ends it.
            partition.producers.forget_batches();
            partition.next_offset = partition.next_offset.plus(OFFSETS_LOST);
            let touched = self.touched.entry(*id).or_default();
            if !carried.contains(id) {
                partition.log_start = partition.next_offset;
                touched.log_start_moved = true;
            }
            self.dirty.partitions.insert(*id);
        }
        self.mix(OFFSETS_LOST.cast_unsigned());
        self.dirty.shard = true;
    }

    /// The effect of two of the seeded bugs.
    pub(crate) fn forget_producers(&mut self) {
        for partition in self.partitions.values_mut() {
            partition.producers = ProducerTable::default();
            partition.transactions = PartitionTransactions::default();
        }
        self.producers_by_order.clear();
        self.transactions_open = 0;
    }

    fn apply_change(&mut self, command: Command, members: Option<&BTreeSet<ReplicaId>>) -> ApplyReply {
        match command {
            Command::Unseal { intent } => self.unseal(intent),
            Command::Seal(seal) => self.seal(&seal, members),
            Command::SetLogStart(changes) if self.is_sealed() => {
                ApplyReply::LogStarts(changes.iter().map(|change| (change.id, None)).collect())
            }
            Command::Data(_) => ApplyReply::Data(Vec::new()),
            _ if self.is_sealed() => ApplyReply::Changed(0),
            Command::Split(split) => self.split(split, members),
            Command::Absorb(absorb) => self.accept_absorb(absorb, members),
            Command::Adopt(partitions) => ApplyReply::Changed(self.adopt(&partitions)),
            Command::Drop(partitions) => ApplyReply::Changed(self.drop_partitions(&partitions)),
            Command::SetLogStart(changes) => ApplyReply::LogStarts(self.set_log_starts(&changes)),
            Command::ExpireProducers { cutoff_ms } => ApplyReply::Changed(self.expire_producers(cutoff_ms)),
            Command::ForgetDropped { floor } => ApplyReply::Changed(self.forget_dropped(floor)),
            Command::Compact(changes) => ApplyReply::Changed(self.compact(&changes)),
            Command::SetClock { to_ms } => ApplyReply::Changed(self.set_clock(to_ms)),
        }
    }

    /// The only way in which the clock falls. Every entry stamped by the old clock precedes this one (`leader_clock`).
    fn set_clock(&mut self, to_ms: i64) -> usize {
        self.clock_ms = to_ms;
        self.mix(to_ms.cast_unsigned());
        1
    }

    /// Producers remembered, and those forgotten for lack of room.
    pub(crate) fn producer_counts(&self) -> (usize, u64) {
        (self.producers_known(), self.producers_evicted)
    }

    pub(super) fn producers_known(&self) -> usize {
        self.producers_by_order.len() + self.transactions_open
    }

    pub(super) fn forget_producer(&mut self, id: PartitionId, producer: ProducerId) {
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        if partition.producers.get(producer).is_some_and(ProducerHistory::is_in_transaction) {
            return;
        }
        if let Some(history) = partition.producers.remove(producer) {
            partition.transactions.forgotten(&history);
            self.dirty.partitions.insert(id);
            self.producers_by_order.remove(&history.order);
            self.dirty.producers.insert((id, producer));
            self.mix(producer.0.cast_unsigned());
        }
    }

    fn adopt(&mut self, partitions: &[AdoptedPartition]) -> usize {
        let mut changed = 0;
        for adopted in partitions {
            let intent = adopted.intent;
            if !self.is_newer(adopted.id, intent) {
                continue;
            }
            changed += 1;
            self.mix(u64::from(adopted.id.index.cast_unsigned()) ^ intent.0.rotate_left(32));
            if self.dropped.remove(&adopted.id).is_some() {
                self.dirty.dropped.insert(adopted.id);
            }
            let keeps = self.keeps;
            let partition = self.partitions.entry(adopted.id).or_insert_with(|| PartitionState {
                intent,
                epoch_base: adopted.epoch_base,
                log_start: Offset(0),
                next_offset: Offset(0),
                epochs: Arc::default(),
                producers: ProducerTable::default(),
                transactions: PartitionTransactions::default(),
                compaction: CompactionState::default(),
                kept: Kept::new(keeps),
            });
            partition.intent = intent;
            // A leader epoch never falls (I4), so neither does its base.
            partition.epoch_base = partition.epoch_base.max(adopted.epoch_base);
            self.dirty.partitions.insert(adopted.id);
            self.dirty.epochs.insert(adopted.id);
            self.touched.entry(adopted.id).or_default().log_start_moved = true;
        }
        changed
    }

    fn drop_partitions(&mut self, partitions: &[DroppedPartition]) -> usize {
        let mut changed = 0;
        for DroppedPartition { id, intent } in partitions {
            let intent = *intent;
            if !self.is_newer(*id, intent) {
                continue;
            }
            self.mix(u64::from(id.index.cast_unsigned()) ^ intent.0.rotate_left(16));
            changed += usize::from(self.leave(*id, intent).is_some());
        }
        changed
    }

    /// Another shard carries the partition by `intent` from now on; what was known of it here is returned.
    pub(super) fn give_up(&mut self, id: PartitionId, intent: RaftIndex) -> Option<PartitionState> {
        let partition = self.leave(id, intent)?;
        self.touched.entry(id).or_default().moved = true;
        self.mix(u64::from(id.index.cast_unsigned()) ^ intent.0.rotate_left(24));
        Some(partition)
    }

    /// Refuses intents for the partition up to `intent` from now on; what was known of it here is returned, if it was carried.
    fn leave(&mut self, id: PartitionId, intent: RaftIndex) -> Option<PartitionState> {
        self.dropped.insert(id, intent);
        self.dirty.dropped.insert(id);
        let partition = self.partitions.remove(&id)?;
        self.forget_partition(id, &partition);
        Some(partition)
    }

    pub(super) fn forget_partition(&mut self, id: PartitionId, partition: &PartitionState) {
        for (producer, history) in partition.producers.iter() {
            self.producers_by_order.remove(&history.order);
            self.dirty.producers.insert((id, producer));
        }
        self.transactions_open -= partition.transactions.open_count();
        self.dirty.aborted.extend(partition.transactions.aborted.iter().map(|aborted| (id, aborted.last_offset)));
        if let Some(kept) = &partition.kept {
            let changed = kept.changes().into_iter().map(|(key, _)| key);
            let gone = changed.chain(kept.live_keys());
            self.dirty.groups_gone.extend(gone.map(|key| (id, key)));
        }
        self.dirty.partitions.insert(id);
        self.dirty.epochs.insert(id);
        self.touched.insert(id, Touched { went: true, ..Touched::default() });
    }

    /// True if the sequence of a batch is out of order before it is proposed. No verdict: pending entries are not
    /// applied yet.
    pub(crate) fn looks_out_of_order(&self, id: PartitionId, data: &[u8]) -> bool {
        let claim = BatchHeader::parse(data).and_then(|header| Claim::of(&header));
        let judged = |claim| self.partitions.get(&id).map(|partition| partition.producers.judge(&claim));
        claim.and_then(judged) == Some(SequenceVerdict::OutOfOrder)
    }

    /// True if apply has seen everything of its producer that comes before a batch: the batch is the next one; or it
    /// was applied itself and is retried because the response was lost; or the producer has begun a newer epoch since.
    pub(crate) fn has_seen_all_before(&self, id: PartitionId, producer: ProducerId, epoch: i16, sequence: i32) -> bool {
        let partition = self.partitions.get(&id);
        let Some(known) = partition.and_then(|partition| partition.producers.get(producer)) else { return false };
        let next = advance(known.last_sequence(), 1);
        known.epoch > epoch || (known.epoch == epoch && !precedes(next, sequence))
    }

    /// True if a producer's sequences are checked against what apply remembers of it.
    pub(crate) fn knows_producer(&self, id: PartitionId, producer: ProducerId) -> bool {
        self.partitions.get(&id).is_some_and(|partition| partition.producers.get(producer).is_some())
    }

    /// True if a producer's last batch of a partition was appended in the present leader epoch.
    pub(crate) fn has_appended_in_epoch(&self, id: PartitionId, producer: ProducerId) -> bool {
        let Some(partition) = self.partitions.get(&id) else { return false };
        let last = partition.producers.get(producer).and_then(|history| history.batches.last());
        let epoch = last.and_then(|batch| partition.epochs.epoch_of(batch.base_offset));
        epoch == Some(epoch_of(partition.epoch_base, self.term))
    }

    /// True if a partition may have had another leader before the present one: it has records of earlier epochs, or such as were
    /// deleted, whose epochs are forgotten with them, or it has come by a split or a merge.
    pub(crate) fn had_other_leaders(&self, id: PartitionId) -> bool {
        let Some(partition) = self.partitions.get(&id) else { return false };
        partition.intent <= self.last_split.max(self.last_merge.intent)
            || partition.log_start > Offset(0)
            || partition.epochs.oldest().is_some_and(|oldest| oldest < epoch_of(partition.epoch_base, self.term))
    }

    /// True if an intent with this metadata index may still change the partition.
    pub(crate) fn is_newer(&self, id: PartitionId, intent: RaftIndex) -> bool {
        let carried = self.partitions.get(&id).map(|partition| partition.intent);
        let dropped = self.dropped.get(&id).filter(|_| !mutants::is_on(Bug::AdoptRevivesDropped));
        let last = carried.max(dropped.copied());
        intent > self.floor && last.is_none_or(|last| intent > last)
    }

    pub(crate) fn set_log_starts(&mut self, changes: &[LogStartChange]) -> Vec<(PartitionId, Option<Offset>)> {
        let mut answers = Vec::with_capacity(changes.len());
        for change in changes {
            let Some(partition) = self.partitions.get_mut(&change.id) else {
                answers.push((change.id, None));
                continue;
            };
            // An open transaction keeps its records.
            let wanted = change.offset.min(partition.last_stable());
            if wanted > partition.log_start {
                partition.log_start = wanted;
                if Arc::make_mut(&mut partition.epochs).prune(wanted) {
                    self.dirty.epochs.insert(change.id);
                }
                let pruned = partition.transactions.prune(wanted);
                self.dirty.aborted.extend(pruned.into_iter().map(|marker| (change.id, marker)));
                self.dirty.partitions.insert(change.id);
                self.touched.entry(change.id).or_default().log_start_moved = true;
            }
            let log_start = partition.log_start;
            answers.push((change.id, Some(log_start)));
            self.mix(log_start.0.cast_unsigned());
        }
        answers
    }

    fn expire_producers(&mut self, cutoff_ms: i64) -> usize {
        let expired: Vec<_> = self
            .partitions
            .iter()
            .flat_map(|(id, partition)| {
                partition.producers.expired(cutoff_ms).into_iter().map(|producer| (*id, producer))
            })
            .collect();
        for (id, producer) in &expired {
            self.forget_producer(*id, *producer);
        }
        expired.len()
    }

    fn forget_dropped(&mut self, floor: RaftIndex) -> usize {
        self.floor = self.floor.max(floor);
        let forgotten: Vec<_> = self.dropped.iter().filter(|(_, at)| **at <= self.floor).map(|(id, _)| *id).collect();
        for id in &forgotten {
            self.dropped.remove(id);
            self.dirty.dropped.insert(*id);
        }
        self.mix(self.floor.0);
        forgotten.len()
    }

    /// Folds a decision into the rolling checksum (splitmix64's finaliser).
    pub(super) fn mix(&mut self, value: u64) {
        let mut x = self.checksum ^ value.wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.checksum = x ^ (x >> 31);
    }

    /// The rolling checksum over all decisions, combined with that of the groups.
    #[must_use]
    pub fn checksum(&self) -> u64 {
        // Taken while entries are applied: other shards may carry thousands of partitions. What a sealed one still has depends on
        // how far the survivor's replica beside it is.
        if self.keeps == Keeps::Records || self.sealed.is_some() {
            return self.checksum;
        }
        let kept = self.partitions.values().filter_map(|partition| partition.kept.as_ref());
        kept.fold(self.checksum, |sum, kept| sum.rotate_left(1) ^ kept.checksum())
    }
}

/// A partition's leader epoch: its base + the shard's term.
#[must_use]
pub fn epoch_of(epoch_base: i32, term: u64) -> LeaderEpoch {
    LeaderEpoch(epoch_base.saturating_add(i32::try_from(term).unwrap_or(i32::MAX)))
}
