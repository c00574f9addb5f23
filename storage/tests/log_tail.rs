//! What recovery finds behind the end of the log: prepared segments, the front of a write that a kill cut short, what a loss
//! of power left anywhere. And how little of it recovery reads.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ottla_env::disk::{Disk, OpenMode, PAGE_BYTES};
use ottla_env::sim::disk::{Crash, SimDisk, SimDiskOptions, Tear};
use ottla_env::{rt, sim};
use ottla_storage::ids::ReplicaId;
use ottla_storage::log::{Log, LogOptions, NoSink, RecoveredReplica, RecoveryPoint, ReplicaLog, segment_path};
use support::history::{create, small_options};
use support::{Oracle, Rng, entry, log_id};

const DIR: &str = "/data/log";
const SEGMENT_BYTES: u64 = 4 << 20;

fn options() -> LogOptions {
    LogOptions { segment_bytes: SEGMENT_BYTES as u32, ..small_options(None) }
}

fn segment(sequence: u64) -> PathBuf {
    segment_path(Path::new(DIR), sequence)
}

async fn open(disk: &SimDisk, recovery_points: Vec<RecoveryPoint>) -> (Log, Vec<RecoveredReplica>) {
    let handle: Arc<dyn Disk> = Arc::new(disk.clone());
    Log::open(handle, Path::new(DIR), options(), recovery_points, &mut NoSink).await.unwrap()
}

async fn append(replica: &ReplicaLog, index: u64, rng: &mut Rng) {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    replica.append(vec![entry(5, index, rng)], Box::new(move |result| _ = sender.send(result.is_ok())));
    assert!(receiver.await.unwrap());
}

/// A log with `entries` entries of one replica and a prepared segment.
async fn written(entries: u64) -> (SimDisk, Log) {
    let disk = SimDisk::new(3, SimDiskOptions { tear: Tear::Pages, ..SimDiskOptions::default() });
    let (log, _) = open(&disk, Vec::new()).await;
    let replica = create(&log, &Oracle::default(), 1, false).await.unwrap();
    let mut rng = Rng(3);
    for index in 1..=entries {
        append(&replica, index, &mut rng).await;
    }
    rt::sleep(Duration::from_secs(1)).await;
    (disk, log)
}

fn names(disk: &SimDisk) -> Vec<String> {
    Disk::list(disk, Path::new(DIR)).unwrap().into_iter().map(|entry| entry.name).collect()
}

fn page(disk: &SimDisk, sequence: u64, byte: u64) -> Vec<u8> {
    let mut page = vec![0; PAGE_BYTES];
    disk.open(&segment(sequence), OpenMode::Read).unwrap().read_at(&mut page, byte).unwrap();
    page
}

async fn write(disk: &SimDisk, sequence: u64, byte: u64) {
    let file = disk.open(&segment(sequence), OpenMode::Write).unwrap();
    file.write_at(&[0xa5; PAGE_BYTES], byte).unwrap();
    file.sync_data().await.unwrap();
}

#[test]
fn a_prepared_segment_is_taken_over_after_a_kill_and_not_after_a_loss_of_power() {
    sim::run(1, || async {
        let (disk, log) = written(3).await;
        let (one, two, three) = ("0000000000000001.log", "0000000000000002.log", "0000000000000003.log");
        assert_eq!(names(&disk), [one, two]);
        for (crash, expected) in [(Crash::Process, [one, two]), (Crash::Power, [one, three])] {
            let disk = disk.image().crash(crash, 5);
            let (log, recovered) = open(&disk, Vec::new()).await;
            rt::sleep(Duration::from_secs(1)).await;
            assert_eq!(recovered[0].last_log_id, Some(log_id(5, 3)));
            assert_eq!(names(&disk), expected, "{crash:?}");
            // And it serves.
            let (replica, mut rng) = (log.replica(recovered[0].id).unwrap(), Rng(4));
            let mut index = 3;
            while log.segments().len() < 2 {
                index += 1;
                append(&replica, index, &mut rng).await;
            }
            log.close().await.unwrap();
            let (_log, recovered) = open(&disk, Vec::new()).await;
            assert_eq!(recovered[0].last_log_id, Some(log_id(5, index)));
            assert_eq!(recovered[0].lost, None);
        }
        drop(log);
    });
}

#[test]
fn a_prepared_segment_of_another_length_or_number_is_made_anew() {
    sim::run(2, || async {
        let (disk, log) = written(3).await;
        let disk = disk.image().crash(Crash::Process, 5);
        drop(log);
        disk.rename(&segment(2), &segment(7)).unwrap();
        let (log, _) = open(&disk, Vec::new()).await;
        rt::sleep(Duration::from_secs(1)).await;
        assert_eq!(names(&disk), ["0000000000000001.log", "0000000000000008.log"]);
        log.close().await.unwrap();
        disk.open(&segment(8), OpenMode::Write).unwrap().set_len(SEGMENT_BYTES / 2).unwrap();
        let (_log, _) = open(&disk, Vec::new()).await;
        rt::sleep(Duration::from_secs(1)).await;
        assert_eq!(names(&disk), ["0000000000000001.log", "0000000000000009.log"]);
    });
}

/// Far behind the end, where after a mere kill nothing can be.
#[test]
fn what_a_loss_of_power_left_far_behind_the_end_is_void() {
    sim::run(3, || async {
        let (disk, log) = written(3).await;
        let byte = SEGMENT_BYTES / 2 - 64 * PAGE_BYTES as u64;
        let disk = disk.image().crash(Crash::Power, 5);
        drop(log);
        write(&disk, 1, byte).await;
        let (_log, recovered) = open(&disk, Vec::new()).await;
        assert_eq!(recovered[0].last_log_id, Some(log_id(5, 3)));
        assert_eq!(page(&disk, 1, byte), vec![0; PAGE_BYTES]);
    });
}

/// A kill cut the write short: the header is there and says how long the commit was to be.
#[test]
fn the_front_of_a_write_that_a_kill_cut_short_is_void() {
    sim::run(4, || async {
        let (disk, log) = written(3).await;
        let end = u64::from(log.segments()[0].used_bytes).next_multiple_of(PAGE_BYTES as u64);
        let disk = disk.image().crash(Crash::Process, 5);
        drop(log);
        for byte in [end, end + PAGE_BYTES as u64] {
            write(&disk, 1, byte).await;
        }
        let (_log, _) = open(&disk, Vec::new()).await;
        for byte in [end, end + PAGE_BYTES as u64] {
            assert_eq!(page(&disk, 1, byte), vec![0; PAGE_BYTES]);
        }
    });
}

#[test]
fn after_a_kill_recovery_reads_from_the_recovery_point_to_the_end_and_little_behind_it() {
    sim::run(5, || async {
        let (disk, log) = written(1500).await;
        let used = u64::from(log.segments()[0].used_bytes);
        assert!(used > 1 << 20, "{used}");
        let released = [(log.replicas()[0], log_id(5, 1500))].into();
        let recovery_points = log.recovery_points_without(&released);
        let disk = disk.image().crash(Crash::Process, 5);
        drop(log);
        let before = disk.read_bytes();
        let (log, recovered) = open(&disk, recovery_points.clone()).await;
        let read = disk.read_bytes() - before;
        assert_eq!(recovered[0].last_log_id, Some(log_id(5, 1500)));
        // A window of the reader, the quiet stretch, a few samples; not the segment, and not the prepared one.
        assert!(read < 2 << 20, "{read} bytes read");
        let replica = log.replica(recovered[0].id).unwrap();
        append(&replica, 1501, &mut Rng(9)).await;
        drop(log);
        let disk = disk.image().crash(Crash::Process, 6);
        let (_log, recovered) = open(&disk, recovery_points).await;
        assert_eq!(recovered[0].last_log_id, Some(log_id(5, 1501)));
    });
}

/// Its removal lies before the place where reading begins, and the segment's table, written before it, still lists it.
#[test]
fn a_replica_that_left_before_the_recovery_point_does_not_come_back() {
    sim::run(6, || async {
        let (disk, log) = written(3).await;
        let (replica, mut rng, mut index) = (log.replica(log.replicas()[0]).unwrap(), Rng(6), 3);
        create(&log, &Oracle::default(), 2, false).await.unwrap();
        while log.segments().len() < 2 {
            index += 1;
            append(&replica, index, &mut rng).await;
        }
        log.remove_group(ReplicaId(2)).await.unwrap();
        append(&replica, index + 1, &mut rng).await;
        let recovery_points = log.recovery_points_without(&[(replica.id(), log_id(5, index + 1))].into());
        let disk = disk.image().crash(Crash::Process, 5);
        drop((replica, log));
        let (_log, recovered) = open(&disk, recovery_points).await;
        let found: Vec<_> = recovered.iter().map(|replica| (replica.id, replica.last_log_id)).collect();
        assert_eq!(found, [(ReplicaId(1), Some(log_id(5, index + 1)))]);
    });
}
