//! Frames that a segment of the configured size does not hold: none may stop its replica, and none may make the log go
//! from one empty segment to the next.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ottla_env::disk::Disk;
use ottla_env::sim::disk::{Crash, SimDisk, SimDiskOptions};
use ottla_env::{rt, sim};
use ottla_protocol::ids::PartitionId;
use ottla_storage::entry::{Entry, EntryBatch, EntryKind};
use ottla_storage::ids::{RaftIndex, ReplicaId};
use ottla_storage::log::{EntryRange, GroupCreation, Log, LogOptions, NoSink, ReplicaLog};
use support::history::small_options;
use support::{batch, log_id};
use uuid::Uuid;

const DIR: &str = "/data/log";
const SEGMENT_BYTES: usize = 64 << 10;

fn options() -> LogOptions {
    LogOptions { segment_bytes: SEGMENT_BYTES as u32, commit_bytes_max: 1 << 20, ..small_options(None) }
}

async fn open(disk: &SimDisk) -> Log {
    let handle: Arc<dyn Disk> = Arc::new(disk.clone());
    Log::open(handle, Path::new(DIR), options(), Vec::new(), &mut NoSink).await.unwrap().0
}

async fn create(log: &Log, id: u64) -> ReplicaLog {
    let creation =
        GroupCreation { replica: ReplicaId(id), payload: Bytes::from_static(&[7; 40]), vote: None, purged: None };
    log.create_group(creation).await.unwrap()
}

fn entry(index: u64, batch_bytes: usize) -> Entry {
    let partition = PartitionId { topic: Uuid::from_u128(1), index: 0 };
    let data = batch(index, batch_bytes - 61);
    Entry {
        log_id: log_id(1, index),
        kind: EntryKind::Normal,
        clock_ms: 1,
        payload: Bytes::new(),
        batches: [EntryBatch { partition, data }].into_iter().collect(),
    }
}

/// Appends and waits; the disk is small, so that a log which only makes segments runs out of it.
async fn append(replica: &ReplicaLog, entry: Entry) -> Result<(), String> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    replica.append(vec![entry], Box::new(move |result| _ = sender.send(result.map_err(|error| error.to_string()))));
    rt::timeout(Duration::from_secs(60), receiver).await.map_err(|_| "never written".to_owned())?.unwrap()
}

fn small_disk() -> SimDisk {
    SimDisk::new(3, SimDiskOptions { capacity_bytes: 8 << 20, ..SimDiskOptions::default() })
}

#[test]
fn an_entry_that_is_larger_than_a_segment_gets_one_of_its_size_and_is_there_after_a_crash() {
    sim::run(1, || async {
        let disk = small_disk();
        let log = open(&disk).await;
        let replica = create(&log, 1).await;
        // Around the size of a segment, and far above it; small ones between them.
        let sizes =
            [100, SEGMENT_BYTES - 8_300, SEGMENT_BYTES - 4_096, SEGMENT_BYTES, 5 * SEGMENT_BYTES, 200, 1 << 20, 61];
        for (number, bytes) in sizes.iter().enumerate() {
            let index = number as u64 + 1;
            assert_eq!(append(&replica, entry(index, *bytes)).await, Ok(()), "{bytes} bytes");
        }
        assert_eq!(log.failure(), None);
        let segments = log.segments();
        assert!(segments.len() <= sizes.len() + 1, "{} segments for {} entries", segments.len(), sizes.len());
        let disk = disk.image().crash(Crash::Power, 5);
        let log = open(&disk).await;
        let replica = log.replica(ReplicaId(1)).unwrap();
        let range = EntryRange { first: RaftIndex(1), last: RaftIndex(sizes.len() as u64) };
        let read = replica.read(range, usize::MAX).await.unwrap();
        let lengths: Vec<usize> = read.iter().map(|entry| entry.batches.iter().map(|b| b.data.len()).sum()).collect();
        assert_eq!(lengths, sizes);
        assert_eq!(append(&replica, entry(sizes.len() as u64 + 1, 2 * SEGMENT_BYTES)).await, Ok(()));
    });
}

/// With so many replicas the table at a segment's beginning takes several pages: what fits into a segment without it
/// does not fit into one with it.
#[test]
fn frames_beside_a_table_of_many_replicas_do_not_roll_the_log_for_ever() {
    sim::run(1, || async {
        let log = open(&small_disk()).await;
        let mut replicas = Vec::new();
        for id in 1..=200 {
            replicas.push(create(&log, id).await);
        }
        let before = log.segments().len();
        for (number, replica) in replicas.iter().take(60).enumerate() {
            let bytes = SEGMENT_BYTES - (8 << 10) - 200 - 100 * (number % 80);
            assert_eq!(append(replica, entry(1, bytes)).await, Ok(()), "{bytes} bytes");
        }
        assert_eq!(log.failure(), None);
        let made = log.segments().len() - before;
        assert!(made <= 60, "{made} segments for 60 entries");
    });
}
