//! A small state machine over a data directory: offsets per partition, log starts, and every seventh batch rejected.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use ottla_protocol::batch::{BatchBuilder, NewRecord};
use ottla_protocol::compression::Codec;
use ottla_protocol::ids::{LeaderEpoch, Offset, PartitionId};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::checkpoint::{CheckpointSource, StateDelta};
use crate::data_dir::{DataDir, DataDirOptions, RecoveredReplica};
use crate::entry::{Entry, EntryBatch, EntryKind, Verdict};
use crate::ids::{LogId, RaftIndex, ReplicaId, Term};
use crate::index::ExtentKey;
use crate::log::{EntryRange, GroupCreation, LogOptions, ReplicaLog};
use crate::rewrite::{RetentionClass, RewriteOptions};
use ottla_env::disk::Disk;
use ottla_env::sim;

pub(super) const DIR: &str = "/data";

pub(super) fn options() -> DataDirOptions {
    DataDirOptions {
        node_id: 1,
        log: LogOptions {
            segment_bytes: 64 << 10,
            zero_ahead_bytes_per_second: 0,
            reserve_bytes: 0,
            cache_bytes_max: 16 << 10,
            ..LogOptions::default()
        },
        relocation_bytes: 96 << 10,
        rewrite: RewriteOptions {
            run_bytes: 48 << 10,
            interval: Duration::from_secs(3600),
            patience: Duration::ZERO,
            ..RewriteOptions::default()
        },
        scrub_bytes_per_second: 0,
        ..DataDirOptions::default()
    }
}

/// The same with segments in which the log's writer serves several replicas in turn.
pub(super) fn shared_segments() -> DataDirOptions {
    let options = options();
    DataDirOptions { log: LogOptions { segment_bytes: 128 << 10, ..options.log }, ..options }
}

pub(super) async fn open(disk: &Arc<dyn Disk>, options: DataDirOptions) -> (Arc<DataDir>, Vec<RecoveredReplica>) {
    let opened = DataDir::open(Arc::clone(disk), Path::new(DIR), options).await.unwrap();
    opened.0.set_retention_classes(Arc::new(|partition| RetentionClass(partition.index as u8)));
    opened
}

pub(super) fn partition(index: i32) -> PartitionId {
    PartitionId { topic: Uuid::from_u128(77), index }
}

/// A batch of `records` records that a test can tell from others.
pub(super) fn batch(seed: u64, records: u64, value_bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None);
    for record in 0..records {
        let value = vec![(seed + record) as u8; value_bytes];
        // Some producers send no timestamps.
        let timestamp = if seed.is_multiple_of(9) { -1 } else { (seed * 10 + record) as i64 };
        builder.push(&NewRecord { timestamp, key: Some(&seed.to_be_bytes()), value: Some(&value), headers: &[] });
    }
    builder.build().unwrap()
}

pub(super) fn entry(term: u64, index: u64, batches: Vec<(i32, Bytes)>, payload: &str) -> Entry {
    let batches = batches.into_iter().map(|(index, data)| EntryBatch { partition: partition(index), data }).collect();
    Entry {
        log_id: LogId { term: Term(term), index: RaftIndex(index) },
        kind: EntryKind::Normal,
        clock_ms: i64::try_from(index).unwrap(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        batches,
    }
}

/// The partition that a replica's child takes, if the entry is a split.
pub(super) fn split_of(entry: &Entry) -> Option<i32> {
    std::str::from_utf8(&entry.payload).unwrap().strip_prefix("split ").map(|index| index.parse().unwrap())
}

/// The partition that the entry takes over from another replica, with its next offset and log start, if it is a merge.
pub(super) fn absorb_of(entry: &Entry) -> Option<(i32, (i64, i64))> {
    let words = std::str::from_utf8(&entry.payload).unwrap().strip_prefix("absorb ")?;
    let mut words = words.split(' ').map(|word| word.parse::<i64>().unwrap());
    let mut next = || words.next().unwrap();
    Some((i32::try_from(next()).unwrap(), (next(), next())))
}

/// Batches as they were accepted: base offset, end offset, epoch, bytes.
pub(super) type Accepted = Vec<(i64, i64, i32, Bytes)>;

/// The accepted batches of an entry, each with its partition.
pub(super) fn accepted(entry: &Entry, verdicts: &[Verdict]) -> Vec<(i32, (i64, i64, i32, Bytes))> {
    let mut accepted = Vec::new();
    for (batch, verdict) in entry.batches.iter().zip(verdicts) {
        let Verdict::Accepted { base_offset, epoch } = verdict else { continue };
        let count = i64::from(i32::from_be_bytes(batch.data[23..27].try_into().unwrap())) + 1;
        let line = (base_offset.0, base_offset.0 + count, epoch.0, batch.data.clone());
        accepted.push((batch.partition.index, line));
    }
    accepted
}

/// A few entries with batches for these partitions, of which the first one may lose its oldest.
pub(super) fn random(term: u64, first: u64, partitions: &[i32]) -> Vec<Entry> {
    let below = sim::random_below;
    let one = |index: u64| {
        let payload = if below(8) == 0 { format!("trim {}", partitions[0]) } else { String::new() };
        let batches = (0..below(4)).map(|b| {
            let at = usize::try_from(below(partitions.len() as u64)).unwrap();
            (partitions[at], batch(index * 7 + b, 1 + below(3), usize::try_from(below(2000)).unwrap()))
        });
        entry(term, index, batches.collect(), &payload)
    };
    (first..first + 1 + below(3)).map(one).collect()
}

/// Appends, waits for the sync, applies.
pub(super) async fn write(toy: &Toy, acknowledge: impl FnOnce(Vec<Entry>), entries: Vec<Entry>) {
    toy.append(entries.clone()).await.unwrap().unwrap();
    acknowledge(entries.clone());
    entries.iter().for_each(|entry| toy.apply(entry));
}

/// Entries that the log holds behind these.
pub(super) async fn read_on(toy: &Toy, first: u64, last: Option<LogId>) -> Vec<Entry> {
    let mut all = Vec::new();
    let last = last.map_or(0, |id| id.index.0);
    while first + (all.len() as u64) <= last {
        let range = EntryRange { first: RaftIndex(first + all.len() as u64), last: RaftIndex(last) };
        all.extend(toy.log.read(range, 1 << 20).await.unwrap());
    }
    all
}

/// The replicated state: a pure function of the entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Model {
    /// Next offset and log start.
    pub(super) partitions: BTreeMap<i32, (i64, i64)>,
    dirty: BTreeSet<i32>,
}

impl Model {
    pub(super) fn apply(&mut self, entry: &Entry) -> Vec<Verdict> {
        if let Some(trimmed) = std::str::from_utf8(&entry.payload).unwrap().strip_prefix("trim ") {
            let trimmed: i32 = trimmed.parse().unwrap();
            if let Some((next, log_start)) = self.partitions.get_mut(&trimmed) {
                *log_start += (*next - *log_start) * 3 / 4;
                self.dirty.insert(trimmed);
            }
        }
        if let Some(index) = split_of(entry) {
            self.partitions.remove(&index);
            self.dirty.insert(index);
        }
        if let Some((index, ends)) = absorb_of(entry) {
            self.partitions.insert(index, ends);
            self.dirty.insert(index);
        }
        let mut verdicts = Vec::new();
        for (number, batch) in entry.batches.iter().enumerate() {
            if (entry.log_id.index.0 + number as u64).is_multiple_of(7) {
                verdicts.push(Verdict::Rejected);
                continue;
            }
            let (next, _) = self.partitions.entry(batch.partition.index).or_default();
            let epoch = LeaderEpoch(i32::try_from(entry.log_id.term.0).unwrap());
            verdicts.push(Verdict::Accepted { base_offset: Offset(*next), epoch });
            *next += i64::from(i32::from_be_bytes(batch.data[23..27].try_into().unwrap())) + 1;
            self.dirty.insert(batch.partition.index);
        }
        verdicts
    }

    /// The state of a child that takes one partition.
    pub(super) fn of_child(index: i32, ends: (i64, i64)) -> Self {
        Self { partitions: BTreeMap::from([(index, ends)]), dirty: BTreeSet::from([index]) }
    }

    pub(super) fn restored(state: &[(Bytes, Bytes)]) -> Self {
        let mut model = Self::default();
        for (key, value) in state {
            let number = |at: usize| i64::from_be_bytes(value[at..at + 8].try_into().unwrap());
            model.partitions.insert(i32::from_be_bytes(key[..].try_into().unwrap()), (number(0), number(8)));
        }
        model
    }

    pub(super) fn after(entries: &[Entry]) -> Self {
        let mut model = Self::default();
        entries.iter().for_each(|entry| drop(model.apply(entry)));
        model.dirty.clear();
        model
    }
}

struct State {
    model: Model,
    applied: Option<LogId>,
    cut_at: Option<LogId>,
    /// A split is not durable: its cut alone is taken.
    splits: bool,
}

/// One replica with its state machine.
pub(super) struct Toy {
    pub(super) directory: Arc<DataDir>,
    pub(super) log: ReplicaLog,
    state: Mutex<State>,
}

impl CheckpointSource for Toy {
    /// Some have peers that read their entries, some have none.
    fn releases(&self) -> bool {
        self.log.id().0 % 2 == 1
    }

    fn take_delta(&self) -> Option<StateDelta> {
        let splits = self.state.lock().splits;
        if splits { None } else { self.cut() }
    }
}

impl Toy {
    pub(super) fn cut(&self) -> Option<StateDelta> {
        let mut state = self.state.lock();
        if state.cut_at == state.applied {
            return None;
        }
        state.cut_at = state.applied;
        let dirty = std::mem::take(&mut state.model.dirty);
        let changes = dirty.into_iter().map(|partition| {
            let value = |(next, log_start): &(i64, i64)| [next.to_be_bytes(), log_start.to_be_bytes()].concat();
            let value = state.model.partitions.get(&partition).map(|ends| Bytes::from(value(ends)));
            (Bytes::copy_from_slice(&partition.to_be_bytes()), value)
        });
        let changes = changes.collect();
        Some(StateDelta {
            replica: self.log.id(),
            applied: state.applied?,
            membership: Bytes::from_static(b"me"),
            changes,
            checksum: 5,
        })
    }

    /// The same, also if nothing was applied since the last cut.
    pub(super) fn cut_now(&self) -> Option<StateDelta> {
        self.state.lock().cut_at = None;
        self.cut()
    }

    /// Another replica has taken over all that this one had.
    pub(super) fn give_up(&self) {
        let mut state = self.state.lock();
        let gone = std::mem::take(&mut state.model.partitions);
        state.model.dirty.extend(gone.into_keys());
    }

    /// Whether a split is applied and not durable.
    pub(super) fn set_splits(&self, splits: bool) {
        self.state.lock().splits = splits;
    }

    pub(super) async fn create(directory: &Arc<DataDir>, replica: u64) -> Arc<Self> {
        let creation = GroupCreation {
            replica: ReplicaId(replica),
            payload: Bytes::from_static(b"toy"),
            vote: None,
            purged: None,
        };
        let log = directory.create_replica(creation).await.unwrap();
        Self::start(directory, log, Model::default(), None)
    }

    pub(super) fn recover(directory: &Arc<DataDir>, recovered: &RecoveredReplica) -> Arc<Self> {
        let log = directory.replica_log(recovered.id).unwrap();
        let model = Model::restored(&recovered.state);
        let toy = Self::start(directory, log, model.clone(), recovered.applied);
        for (index, (_, log_start)) in &model.partitions {
            directory.set_log_start(toy.log.id(), partition(*index), Offset(*log_start));
        }
        toy
    }

    /// Begins as the child of a split that it has applied: all of its state is new.
    pub(super) fn of_child(directory: &Arc<DataDir>, log: ReplicaLog, model: Model, split: LogId) -> Arc<Self> {
        let toy = Self::start(directory, log, model, Some(split));
        toy.state.lock().cut_at = None;
        toy.set_splits(true);
        toy
    }

    fn start(directory: &Arc<DataDir>, log: ReplicaLog, model: Model, applied: Option<LogId>) -> Arc<Self> {
        let state = Mutex::new(State { model, applied, cut_at: applied, splits: false });
        let toy = Arc::new(Self { directory: Arc::clone(directory), log, state });
        let weak: Weak<Self> = Arc::downgrade(&toy);
        directory.register(toy.log.id(), weak);
        toy
    }

    pub(super) fn key(&self, index: i32) -> ExtentKey {
        self.directory.extent(self.log.id(), partition(index))
    }

    pub(super) fn drop_partition(&self, index: i32) {
        self.directory.drop_partition(self.log.id(), partition(index));
    }

    pub(super) fn model(&self) -> Model {
        let mut model = self.state.lock().model.clone();
        model.dirty.clear();
        model
    }

    pub(super) fn applied(&self) -> Option<LogId> {
        self.state.lock().applied
    }

    pub(super) fn append(&self, entries: Vec<Entry>) -> oneshot::Receiver<std::io::Result<()>> {
        let (sender, receiver) = oneshot::channel();
        self.log.append(entries, Box::new(move |outcome| drop(sender.send(outcome))));
        receiver
    }

    pub(super) fn apply(&self, entry: &Entry) {
        let mut state = self.state.lock();
        let before = state.model.clone();
        let verdicts = state.model.apply(entry);
        assert_eq!(split_of(entry).map(|_| verdicts.len()), split_of(entry).map(|_| 0), "a split carries no batch");
        self.directory.record_applied(self.log.id(), entry, &verdicts).unwrap();
        state.applied = Some(entry.log_id);
        for (index, (_, log_start)) in &state.model.partitions {
            if before.partitions.get(index).is_some_and(|(_, was)| was != log_start) {
                self.directory.set_log_start(self.log.id(), partition(*index), Offset(*log_start));
            }
        }
    }

    /// Appends, waits for the sync, applies.
    pub(super) async fn write(&self, entries: Vec<Entry>) {
        self.append(entries.clone()).await.unwrap().unwrap();
        entries.iter().for_each(|entry| self.apply(entry));
    }
}
