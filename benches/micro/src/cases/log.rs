//! The one log and its index: an entry becomes a frame and is written; its batches get lines; offsets are looked up.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ottla_env::disk::Disk;
use ottla_env::sim;
use ottla_protocol::ids::{LeaderEpoch, Offset, PartitionId};
use ottla_storage::data_dir::{DataDir, DataDirOptions};
use ottla_storage::entry::{Entry, EntryBatch, EntryKind, Verdict};
use ottla_storage::ids::{LogId, RaftIndex, ReplicaId, Term};
use ottla_storage::index::ExtentKey;
use ottla_storage::log::{GroupCreation, LogOptions, ReplicaLog};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::disk::MemoryDisk;
use super::{Case, Numbers};

const REPLICA: ReplicaId = ReplicaId(7);
const MANY: u64 = 40;
/// Batches of an entry, where there are to be many.
const BATCHES: u64 = 500;

pub(super) fn cases() -> Vec<Case> {
    let case = |name, what, run| Case { name, what, few: MANY / 4, many: MANY, run };
    vec![
        case("log_append_1m", "appends an entry of 64 batches of 16 KiB and waits for its sync", append_large),
        Case {
            name: "log_append_1k",
            what: "appends an entry of one batch of 1 KiB and waits for its sync",
            few: 100,
            many: 500,
            run: append_small,
        },
        case("index_insert_500", "adds the lines of an entry of 500 batches to the index", insert),
        Case {
            name: "index_lookup",
            what: "finds the batch that holds an offset, among 20,000",
            few: 1000,
            many: 11_000,
            run: look_up,
        },
    ]
}

/// A data directory with one replica.
pub(super) struct Log {
    pub(super) directory: Arc<DataDir>,
    replica: ReplicaLog,
    next_index: u64,
    next_offset: i64,
}

impl Log {
    pub(super) async fn open(disk: Arc<dyn Disk>, path: &Path, segment_bytes: u32) -> Self {
        let log = LogOptions {
            segment_bytes,
            reserve_bytes: 0,
            zero_ahead_bytes_per_second: 0,
            // Asked of the device otherwise, and devices differ.
            fresh_page_per_commit: Some(true),
            ..LogOptions::default()
        };
        let options = DataDirOptions { node_id: 1, log, scrub_bytes_per_second: 0, ..DataDirOptions::default() };
        let (directory, _) = DataDir::open(disk, path, options).await.unwrap();
        let creation = GroupCreation { replica: REPLICA, payload: Bytes::new(), vote: None, purged: None };
        let replica = directory.create_replica(creation).await.unwrap();
        Self { directory, replica, next_index: 1, next_offset: 0 }
    }

    /// The next entry, with `count` times the same batch for one partition.
    pub(super) fn entry(&mut self, batch: &Bytes, count: u64) -> Entry {
        let index = RaftIndex(self.next_index);
        self.next_index += 1;
        let batches = (0..count).map(|_| EntryBatch { partition: partition(), data: batch.clone() });
        Entry {
            log_id: LogId { term: Term(1), index },
            kind: EntryKind::Normal,
            clock_ms: 0,
            payload: Bytes::from_static(b"command"),
            batches: batches.collect(),
        }
    }

    /// Appends, waits for the sync.
    pub(super) async fn append(&self, entry: Entry) {
        let (sender, synced) = oneshot::channel();
        self.replica.append(vec![entry], Box::new(move |outcome| drop(sender.send(outcome))));
        synced.await.unwrap().unwrap();
    }

    /// Gives its batches their offsets.
    pub(super) fn apply(&mut self, entry: &Entry, records_per_batch: i64) {
        let first = self.next_offset;
        let accepted = |number: i64| Verdict::Accepted {
            base_offset: Offset(first + number * records_per_batch),
            epoch: LeaderEpoch(1),
        };
        let verdicts: Vec<Verdict> = (0..entry.batches.len() as i64).map(accepted).collect();
        self.next_offset += entry.batches.len() as i64 * records_per_batch;
        self.directory.record_applied(REPLICA, entry, &verdicts).unwrap();
    }

    pub(super) fn key(&self) -> ExtentKey {
        self.directory.extent(REPLICA, partition())
    }

    pub(super) fn next_offset(&self) -> Offset {
        Offset(self.next_offset)
    }
}

fn partition() -> PartitionId {
    PartitionId { topic: Uuid::from_u128(77), index: 3 }
}

async fn log_in_memory() -> Log {
    Log::open(Arc::new(MemoryDisk::default()), Path::new("/data"), 128 << 20).await
}

/// Ends the process: taking down what a case has built is not to be counted.
pub(super) fn leave() {
    std::process::exit(0);
}

fn append_large(iterations: u64) {
    append(iterations, super::batch(16, 1000, 0, None), 64);
}

fn append_small(iterations: u64) {
    append(iterations, super::batch(1, 1000, 0, None), 1);
}

fn append(iterations: u64, batch: Bytes, count: u64) {
    sim::run(1, move || async move {
        let mut log = log_in_memory().await;
        for _ in 0..iterations {
            let entry = log.entry(&batch, count);
            log.append(entry.clone()).await;
            black_box(entry);
        }
        leave();
    });
}

fn insert(iterations: u64) {
    sim::run(1, move || async move {
        let mut log = log_in_memory().await;
        let batch = super::batch(1, 20, 0, None);
        let mut entries = Vec::new();
        for _ in 0..MANY {
            let entry = log.entry(&batch, BATCHES);
            log.append(entry.clone()).await;
            entries.push(entry);
        }
        for entry in entries.iter().take(usize::try_from(iterations).unwrap()) {
            log.apply(black_box(entry), 1);
        }
        leave();
    });
}

fn look_up(iterations: u64) {
    sim::run(1, move || async move {
        let mut log = log_in_memory().await;
        let batch = super::batch(3, 20, 0, None);
        for _ in 0..MANY {
            let entry = log.entry(&batch, BATCHES);
            log.append(entry.clone()).await;
            log.apply(&entry, 3);
        }
        let mut numbers = Numbers(1);
        let end = log.next_offset().0.unsigned_abs();
        for _ in 0..iterations {
            let offset = Offset(numbers.below(end).cast_signed());
            let line = log.directory.batch_at(log.key(), black_box(offset)).await.unwrap().unwrap();
            assert!(line.base_offset <= offset && offset < line.end_offset());
        }
        leave();
    });
}
