//! The shard's state machine for Raft: applies entries to [`ShardState`], publishes what readers may see, and gives the
//! checkpoint its changes (`cut`).
//!
//! May not know: topics, configuration, which replica leads. Invariant: the cuts since the start, laid over what was
//! restored, restore to the same state.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use ottla_env::mutants::{self, Bug};
use ottla_protocol::ids::{Offset, PartitionId};
use ottla_raft::{Absorbed, Applied, Extent, Membership, Reply, StateMachine};
use ottla_storage::data_dir::DataDir;
use ottla_storage::entry::Entry;
use ottla_storage::ids::{LogId, RaftIndex, ReplicaId};
use parking_lot::Mutex;

use super::cut_points::{CutPoint, CutPoints};
use super::data_waiters::ANY_BYTES;
use super::merge_partners::Partner;
use super::read_view::{LogOffsetSnapshot, ReadView};
use super::seeded_children::SeededShard;
use super::siblings::Siblings;
use super::state_machine_view::StateMachineView;
use crate::checksum::{OFFSET_BASIS, fnv1a};
use crate::codec::CodecError;
use crate::replicated::changes::Touched;
use crate::replicated::checkpoint_keys::{self, AbortedValue, Key, PartitionValue, ShardValue};
use crate::replicated::command::{Absorb, AdoptedPartition};
use crate::replicated::kept::{Keeps, Kept};
use crate::replicated::producer_state::ProducerTable;
use crate::replicated::shard_state::{PartitionState, ShardState, SplitOff};
use crate::replicated::transactions::{AbortedTransaction, PartitionTransactions};

/// The storage of this replica alone, which frees what apply has decided to be dead: log starts and dropped partitions.
pub trait LocalStorage: Send + Sync + 'static {
    /// The data below is dead from now on.
    fn set_log_start(&self, id: PartitionId, log_start: Offset);
    /// All data of the partition is dead.
    fn drop_partition(&self, id: PartitionId);
    /// The same for another replica of the directory.
    fn of_replica(&self, replica: ReplicaId) -> Arc<dyn LocalStorage>;
}

/// A replica's data directory.
#[derive(Debug)]
pub struct DirectoryStorage {
    /// Where the replica's frames are.
    pub directory: Arc<DataDir>,
    /// The replica.
    pub replica: ReplicaId,
}

impl LocalStorage for DirectoryStorage {
    fn set_log_start(&self, id: PartitionId, log_start: Offset) {
        self.directory.set_log_start(self.replica, id, log_start);
    }

    fn drop_partition(&self, id: PartitionId) {
        self.directory.drop_partition(self.replica, id);
    }

    fn of_replica(&self, replica: ReplicaId) -> Arc<dyn LocalStorage> {
        Arc::new(Self { directory: self.directory.clone(), replica })
    }
}

/// One replica's state machine.
pub struct ShardStateMachine {
    state: Arc<Mutex<ShardState>>,
    read_view: Arc<ReadView>,
    storage: Arc<dyn LocalStorage>,
    cut_points: Arc<Mutex<CutPoints>>,
    applied: RaftIndex,
    replica: ReplicaId,
    siblings: Arc<Siblings>,
    /// The partitions that the metadata places in the shard; only for recovery of lost entries.
    placed: Vec<AdoptedPartition>,
}

impl ShardStateMachine {
    /// A state machine that can recover from lost entries, given the partitions that the metadata places in its shard.
    #[must_use]
    pub fn with_placed(self, placed: Vec<AdoptedPartition>) -> Self {
        Self { placed, ..self }
    }

    /// A state machine over `state`, which is published to readers at once. What splits and merges of the shard concern
    /// here is kept in `siblings`.
    #[must_use]
    pub fn new(
        mut state: ShardState,
        replica: ReplicaId,
        storage: Arc<dyn LocalStorage>,
        siblings: Arc<Siblings>,
    ) -> Self {
        let ids: Vec<_> = state.partitions.keys().copied().collect();
        state.touched.extend(ids.into_iter().map(|id| (id, Touched { log_start_moved: true, ..Touched::default() })));
        let mut machine = Self::unpublished(state, replica, storage, siblings);
        machine.publish();
        machine
    }

    fn unpublished(
        state: ShardState,
        replica: ReplicaId,
        storage: Arc<dyn LocalStorage>,
        siblings: Arc<Siblings>,
    ) -> Self {
        Self {
            state: Arc::new(Mutex::new(state)),
            read_view: Arc::default(),
            storage,
            cut_points: Arc::default(),
            applied: RaftIndex(0),
            replica,
            siblings,
            placed: Vec::new(),
        }
    }

    /// The group that this replica has split off, whose child on this node is `child`.
    fn seed(&self, child: ReplicaId, SplitOff { split, child: state }: SplitOff) -> ottla_raft::SplitOff {
        let partitions = state.partitions.keys().copied().collect();
        let storage = self.storage.of_replica(child);
        let machine = Self::unpublished(state, child, storage, self.siblings.clone());
        let seeded = SeededShard { parent: self.replica, creation: split.creation.clone(), view: machine.view() };
        self.siblings.children.insert(child, seeded);
        ottla_raft::SplitOff {
            child,
            members: Membership::of(split.replicas.iter().map(|replica| replica.child)),
            shard: split.creation,
            partitions,
            state_machine: Box::new(machine),
        }
    }

    /// Takes over the replica beside this one; apply was held back until it was sealed.
    ///
    /// # Panics
    /// When it is not here any more: this replica stops, and applies the entry again when it is started again.
    fn absorb(&self, state: &mut ShardState, absorb: &Absorb) -> Absorbed {
        let pair = absorb.replicas.iter().find(|pair| pair.survivor == self.replica);
        let Some(pair) = pair else { panic!("replica {}: merge {} names it not", self.replica, absorb.intent.0) };
        let partner = self.siblings.partners.begin(*pair);
        let Some(Partner { state: other, group }) = partner else {
            panic!("replica {}: replica {}, which it takes over, is not here", self.replica, pair.absorbed)
        };
        let partitions = state.absorb(absorb, &mut other.lock());
        tracing::debug!(
            replica = self.replica.0,
            partitions = partitions.len(),
            checksum = state.checksum(),
            "it takes over replica {}",
            pair.absorbed
        );
        Absorbed { from: group, partitions }
    }

    /// What its shard reads.
    #[must_use]
    pub fn view(&self) -> StateMachineView {
        let (state, read_view, cut_points) = (self.state.clone(), self.read_view.clone(), self.cut_points.clone());
        StateMachineView { state, read_view, cut_points }
    }
}

impl StateMachine for ShardStateMachine {
    fn apply(&mut self, entry: &Entry, members: &Membership) -> Applied {
        self.applied = entry.log_id.index;
        let (verdicts, reply, split_off, absorbed) = {
            let mut state = self.state.lock();
            let settled = members.voters.first().filter(|_| members.voters.len() == 1 && members.learners.is_empty());
            let (verdicts, reply) = state.apply(entry, settled);
            let absorbed = state.take_absorb().map(|absorb| self.absorb(&mut state, &absorb));
            (verdicts, reply, state.take_split_off(self.replica), absorbed)
        };
        let split_off = split_off.map(|(child, split_off)| Box::new(self.seed(child, *split_off)));
        Applied { verdicts, reply: Reply::new(reply), split_off, absorbed }
    }

    /// An Absorb waits until the replica beside this one is sealed.
    fn prerequisite(&self, entry: &Entry) -> Option<BoxFuture<'static, Result<(), String>>> {
        let absorb = Absorb::of(&entry.payload)?;
        if absorb.intent <= self.state.lock().last_merge.intent {
            return None;
        }
        let pair = absorb.replicas.iter().find(|pair| pair.survivor == self.replica);
        // A member that came later should have begun with a snapshot.
        let unnamed = || Err(format!("merge {} does not name this replica", absorb.intent.0));
        Some(match pair {
            Some(pair) => self.siblings.partners().sealed(pair.absorbed, absorb.intent).boxed(),
            None => ready(unnamed()).boxed(),
        })
    }

    /// True for a shard of internal topics: what they keep is in the records.
    fn needs_records(&self) -> bool {
        self.state.lock().keeps != Keeps::Records
    }

    /// True for a sealed shard: once another one has taken it over here a snapshot of it is empty. All its members have the
    /// Seal, so what they may lack is little.
    fn needs_entries(&self) -> bool {
        self.state.lock().sealed.is_some() && !mutants::is_on(Bug::SealedLogPurged)
    }

    fn check(&self, entry: &Entry) -> Result<(), String> {
        self.state.lock().check_records(entry)
    }

    fn term_started(&mut self, log_id: LogId) {
        self.applied = log_id.index;
        self.state.lock().term_started(log_id);
    }

    fn entries_lost(&mut self, log_id: LogId) {
        self.applied = log_id.index;
        self.state.lock().entries_lost(&self.placed);
    }

    fn publish(&mut self) {
        let (mut updates, mut gone, mut dropped, mut log_starts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        {
            let mut state = self.state.lock();
            let touched = std::mem::take(&mut state.touched);
            for (id, touched) in touched {
                if touched.went {
                    gone.push(id);
                }
                if touched.went && !touched.moved {
                    dropped.push(id);
                }
                if let Some(partition) = state.partitions.get(&id) {
                    if touched.log_start_moved {
                        log_starts.push((id, partition.log_start));
                    }
                    updates.push((id, offsets_of(partition), touched.appended_bytes, partition.kept.clone()));
                }
            }
        }
        dropped.iter().for_each(|id| self.storage.drop_partition(*id));
        log_starts.iter().for_each(|(id, log_start)| self.storage.set_log_start(*id, *log_start));
        self.read_view.publish(updates, &gone);
    }

    fn cut(&mut self) -> Vec<(Bytes, Option<Bytes>)> {
        let mut state = self.state.lock();
        let ends = state.partitions.iter().filter(|(_, partition)| partition.kept.is_some());
        let ends: Vec<_> = ends.map(|(id, partition)| (*id, partition.next_offset)).collect();
        if !ends.is_empty() {
            self.cut_points.lock().push(CutPoint { applied: self.applied, ends });
        }
        cut(&mut state)
    }

    fn checksum(&self) -> u64 {
        self.state.lock().checksum()
    }

    fn extents(&self, stored: &[(Bytes, Bytes)]) -> io::Result<Vec<Extent>> {
        let (keeps, has_applied, last_merge, own_shell) = {
            let own = self.state.lock();
            (own.keeps, own.last.is_some() || own.term > 0, own.last_merge, shell_of(&own))
        };
        let state = restore(keeps, stored).map_err(io::Error::other)?;
        let is_refused = |intent: &RaftIndex| has_applied && own_shell != Some(*intent);
        if let Some(intent) = shell_of(&state).filter(is_refused).filter(|_| !mutants::is_on(Bug::SealedLogPurged)) {
            // The survivor's replica beside this one would take over nothing.
            let what = format!("the snapshot has nothing of what merge {} has taken over elsewhere", intent.0);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        if has_applied && state.last_merge.intent > last_merge.intent {
            // The bytes that it would import are here, and another replica's.
            let what = format!("the snapshot is behind merge {}, which it has not come to", state.last_merge.intent.0);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let extent = |(id, partition): (&PartitionId, &PartitionState)| Extent {
            partition: *id,
            log_start: partition.log_start,
            end: partition.next_offset,
        };
        Ok(state.partitions.iter().map(extent).collect())
    }

    fn install(&mut self, applied: LogId, stored: &[(Bytes, Bytes)]) -> io::Result<()> {
        {
            let mut own = self.state.lock();
            let mut state = restore(own.keeps, stored).map_err(io::Error::other)?;
            if mutants::is_on(Bug::SnapshotWithoutProducers) {
                state.forget_producers();
            }
            state.last = Some(applied);
            state.touched = std::mem::take(&mut own.touched);
            for id in own.partitions.keys().filter(|id| !state.partitions.contains_key(id)) {
                state.touched.entry(*id).or_default().went = true;
            }
            for (id, partition) in &mut state.partitions {
                let touched = state.touched.entry(*id).or_default();
                touched.log_start_moved = true;
                // Requests that wait for bytes read again.
                touched.appended_bytes = ANY_BYTES;
                // Readers hold the old store: its content is replaced, not the store.
                let known = own.partitions.get(id).and_then(|known| known.kept.clone());
                if let (Some(known), Some(new)) = (known, &mut partition.kept) {
                    known.swap(new);
                    *new = known;
                }
            }
            *own = state;
        }
        self.applied = applied.index;
        self.publish();
        Ok(())
    }
}

fn offsets_of(partition: &PartitionState) -> LogOffsetSnapshot {
    let mut offsets = LogOffsetSnapshot {
        log_start: partition.log_start,
        high_watermark: partition.next_offset,
        last_stable: partition.last_stable(),
        aborted: partition.transactions.aborted.clone(),
        has_markers: partition.transactions.last_marker > 0,
        epoch_base: partition.epoch_base,
        epochs: partition.epochs.clone(),
    };
    if mutants::is_on(Bug::HwOneTooHigh) {
        (offsets.high_watermark, offsets.last_stable) = (offsets.high_watermark.plus(1), offsets.last_stable.plus(1));
    } else if mutants::is_on(Bug::LsoOneTooLow) {
        offsets.last_stable = offsets.last_stable.plus(-1).max(offsets.log_start);
    }
    offsets
}

/// Takes what changed since the last cut.
fn cut(state: &mut ShardState) -> Vec<(Bytes, Option<Bytes>)> {
    let dirty = state.dirty.cut(state.order);
    let mut changes = Vec::new();
    if dirty.shard {
        changes.push((Key::Shard.encode(), Some(shard_value(state).encode())));
    }
    // Removed first: a partition that was adopted again has its keys set again below.
    for (id, key) in dirty.groups_gone {
        changes.push((Key::Group(id, key).encode(), None));
    }
    for id in dirty.partitions {
        let value = state.partitions.get(&id).map(|partition| partition_value(partition).encode());
        changes.push((Key::Partition(id).encode(), value));
    }
    for id in dirty.epochs {
        let value = state.partitions.get(&id).map(|partition| checkpoint_keys::encode_epochs(&partition.epochs));
        changes.push((Key::Epochs(id).encode(), value));
    }
    for (id, producer) in dirty.producers {
        let history = state.partitions.get(&id).and_then(|partition| partition.producers.get(producer));
        changes.push((Key::Producer(id, producer).encode(), history.map(checkpoint_keys::encode_producer)));
    }
    for (id, marker) in dirty.aborted {
        let aborted = state.partitions.get(&id).and_then(|partition| partition.transactions.aborted.get(marker));
        let value = aborted.map(|aborted| AbortedValue::from(aborted).encode());
        changes.push((Key::Aborted(id, marker).encode(), value));
    }
    for id in dirty.dropped {
        let value = state.dropped.get(&id).map(|intent| checkpoint_keys::encode_dropped(*intent));
        changes.push((Key::Dropped(id).encode(), value));
    }
    for (id, partition) in &state.partitions {
        if let Some(kept) = &partition.kept {
            let mut changed = kept.changes();
            if mutants::is_on(Bug::GroupOffsetsLostAtCheckpoint) {
                changed.clear();
            }
            changes.extend(changed.into_iter().map(|(key, value)| (Key::Group(*id, key).encode(), value)));
        }
    }
    changes
}

/// A digest of the whole state except the groups, from its form in a checkpoint. Equal states have equal digests.
pub(crate) fn digest(state: &ShardState) -> u64 {
    let mut sum = OFFSET_BASIS;
    let mut add = |bytes: &[u8]| sum = fnv1a(sum, bytes.iter().copied());
    add(&shard_value(state).encode());
    // What it still has depends on how far the survivor's replica beside it is.
    if state.sealed.is_some() {
        return sum;
    }
    for (id, partition) in &state.partitions {
        add(&Key::Partition(*id).encode());
        add(&partition_value(partition).encode());
        add(&checkpoint_keys::encode_epochs(&partition.epochs));
        for (producer, history) in partition.producers.iter() {
            add(&producer.0.to_le_bytes());
            add(&checkpoint_keys::encode_producer(history));
        }
        for aborted in partition.transactions.aborted.iter() {
            add(&aborted.last_offset.0.to_le_bytes());
            add(&AbortedValue::from(aborted).encode());
        }
    }
    for (id, intent) in &state.dropped {
        add(&Key::Dropped(*id).encode());
        add(&checkpoint_keys::encode_dropped(*intent));
    }
    sum
}

/// The merge for which a shard is sealed that has nothing: once it was taken over, or since all that it carried was deleted.
fn shell_of(state: &ShardState) -> Option<RaftIndex> {
    state.sealed.filter(|_| state.partitions.is_empty()).map(|sealed| sealed.intent)
}

fn shard_value(state: &ShardState) -> ShardValue {
    ShardValue {
        clock_ms: state.clock_ms,
        term: state.term,
        order: state.order,
        checksum: state.checksum,
        floor: state.floor,
        split: state.last_split,
        merge: state.last_merge,
        seal: state.last_seal,
        sealed: state.sealed,
    }
}

fn partition_value(partition: &PartitionState) -> PartitionValue {
    PartitionValue {
        intent: partition.intent,
        epoch_base: partition.epoch_base,
        log_start: partition.log_start,
        next_offset: partition.next_offset,
        last_stable: partition.last_stable(),
        last_marker: partition.transactions.last_marker,
        forgotten_marker: partition.transactions.forgotten_marker,
        compaction: partition.compaction,
    }
}

/// Restores a state from a checkpoint, whose keys come in order.
pub fn restore(keeps: Keeps, stored: &[(Bytes, Bytes)]) -> Result<ShardState, CodecError> {
    let mut state = ShardState::new(keeps);
    for (key, value) in stored {
        restore_one(&mut state, Key::decode(key)?, value)?;
    }
    state.dirty.cut_at = state.order;
    Ok(state)
}

fn restore_one(state: &mut ShardState, key: Key, value: &Bytes) -> Result<(), CodecError> {
    match key {
        Key::Shard => {
            let shard = ShardValue::decode(value)?;
            (state.clock_ms, state.term, state.order) = (shard.clock_ms, shard.term, shard.order);
            (state.checksum, state.floor, state.last_split) = (shard.checksum, shard.floor, shard.split);
            (state.last_merge, state.last_seal, state.sealed) = (shard.merge, shard.seal, shard.sealed);
        }
        Key::Partition(id) => {
            let stored = PartitionValue::decode(value)?;
            let kept = Kept::new(state.keeps);
            let partition = PartitionState {
                intent: stored.intent,
                epoch_base: stored.epoch_base,
                log_start: if mutants::is_on(Bug::LogStartLostAtRestart) { Offset(0) } else { stored.log_start },
                next_offset: stored.next_offset,
                epochs: Arc::default(),
                producers: ProducerTable::default(),
                transactions: PartitionTransactions::restored(stored.last_marker, stored.forgotten_marker),
                compaction: stored.compaction,
                kept,
            };
            state.owe_pass(id, &stored.compaction);
            state.partitions.insert(id, partition);
        }
        Key::Epochs(_) if mutants::is_on(Bug::EpochHistoryLost) => {}
        Key::Producer(..) if mutants::is_on(Bug::DedupLostAtRestart) => {}
        Key::Epochs(id) => {
            let partition = state.partitions.get_mut(&id).ok_or(CodecError::Value("partition id"))?;
            partition.epochs = Arc::new(checkpoint_keys::decode_epochs(value)?);
        }
        Key::Producer(id, producer) => {
            let history = checkpoint_keys::decode_producer(value)?;
            let partition = state.partitions.get_mut(&id).ok_or(CodecError::Value("partition id"))?;
            if let Some(first) = history.transaction_start {
                partition.transactions.opened(producer, first);
                state.transactions_open += 1;
            } else {
                state.producers_by_order.insert(history.order, (id, producer));
            }
            partition.producers.restore(producer, history);
        }
        Key::Aborted(id, last_offset) => {
            let partition = state.partitions.get_mut(&id).ok_or(CodecError::Value("partition id"))?;
            let AbortedValue { producer_id, first_offset, last_stable } = AbortedValue::decode(value)?;
            let aborted = AbortedTransaction { producer_id, first_offset, last_offset, last_stable };
            partition.transactions.restore_aborted(aborted);
        }
        Key::Dropped(id) => {
            state.dropped.insert(id, checkpoint_keys::decode_dropped(value)?);
        }
        Key::Group(id, key) => {
            let partition = state.partitions.get(&id).ok_or(CodecError::Value("partition id"))?;
            let kept = partition.kept.as_ref().ok_or(CodecError::Tag("key", 6))?;
            kept.restore(key, value.clone()).map_err(|_| CodecError::Value("record of an internal topic"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
