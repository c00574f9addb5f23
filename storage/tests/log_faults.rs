//! The log and a disk that fails: errors of writes and syncs, a full disk, flipped bits, unreadable pages, syncs switched
//! off, a newer format.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ottla_env::disk::{Disk, OpenMode, PAGE_BYTES, read_exact_at};
use ottla_env::sim::disk::{Crash, SimDisk, SimDiskOptions, Tear};
use ottla_env::{rt, sim};
use ottla_storage::entry::Vote;
use ottla_storage::ids::{RaftIndex, ReplicaId, Term};
use ottla_storage::log::{EntryRange, Log, LogError, LogOptions, NoSink, RecoveredReplica, ReplicaLog, segment_path};
use support::history::{RecoveryPoints, create, run, small_options};
use support::{ModelState, Oracle, Rng, entry, log_id, state_of, verdicts};

const DIR: &str = "/data/log";

fn disk(seed: u64) -> SimDisk {
    SimDisk::new(seed, SimDiskOptions { tear: Tear::Sectors, ..SimDiskOptions::default() })
}

async fn open_with(disk: &SimDisk, options: LogOptions) -> Result<(Log, Vec<RecoveredReplica>), LogError> {
    let handle: Arc<dyn Disk> = Arc::new(disk.clone());
    Log::open(handle, Path::new(DIR), options, Vec::new(), &mut NoSink).await
}

async fn open(disk: &SimDisk) -> (Log, Vec<RecoveredReplica>) {
    open_with(disk, small_options(None)).await.unwrap()
}

/// Appends one entry and waits; true if it became durable.
async fn append(replica: &ReplicaLog, index: u64, rng: &mut Rng) -> bool {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    replica.append(vec![entry(5, index, rng)], Box::new(move |result| _ = sender.send(result.is_ok())));
    receiver.await.unwrap()
}

fn segment(sequence: u64) -> PathBuf {
    segment_path(Path::new(DIR), sequence)
}

#[test]
fn a_failed_sync_stops_the_log_for_good_and_its_bytes_do_not_count() {
    sim::run(1, || async {
        let disk = disk(1);
        let told = Arc::new(AtomicU64::new(0));
        let counter = told.clone();
        let options = LogOptions {
            on_failure: Some(Arc::new(move |failure| {
                assert_eq!(failure.operation, "sync");
                counter.fetch_add(1, Ordering::Relaxed);
            })),
            ..small_options(None)
        };
        let (log, _) = open_with(&disk, options).await.unwrap();
        let oracle = Oracle::default();
        let replica = create(&log, &oracle, 1, false).await.unwrap();
        let mut rng = Rng(1);
        assert!(append(&replica, 1, &mut rng).await);
        disk.fail_sync_in(0);
        assert!(!append(&replica, 2, &mut rng).await);
        // A retry of the sync would succeed and prove nothing.
        assert!(!append(&replica, 2, &mut rng).await);
        assert!(replica.save_vote(Vote { term: Term(9), voted_for: ReplicaId(1), committed: false }).await.is_err());
        assert!(log.failure().is_some());
        assert_eq!(told.load(Ordering::Relaxed), 1);
        assert!(log.close().await.is_err());
        let disk = disk.image().crash(Crash::Process, 7);
        let (_log, recovered) = open(&disk).await;
        assert_eq!(recovered[0].last_log_id, Some(log_id(5, 1)), "the cache held what the disk never got");
    });
}

#[test]
fn a_failed_write_stops_the_log_for_good() {
    sim::run(1, || async {
        let disk = disk(1);
        let (log, _) = open(&disk).await;
        let replica = create(&log, &Oracle::default(), 1, false).await.unwrap();
        let mut rng = Rng(1);
        assert!(append(&replica, 1, &mut rng).await);
        // The preparation of the next segment is done, so the next write is a commit's.
        rt::sleep(Duration::from_millis(50)).await;
        disk.fail_write_in(0);
        assert!(!append(&replica, 2, &mut rng).await);
        assert!(log.failure().is_some());
        assert!(
            log.create_group(ottla_storage::log::GroupCreation {
                replica: ReplicaId(2),
                payload: bytes::Bytes::new(),
                vote: None,
                purged: None
            })
            .await
            .is_err()
        );
        assert_eq!(log.replicas(), vec![ReplicaId(1)]);
    });
}

#[test]
fn a_full_disk_delays_writes_until_space_is_freed() {
    sim::run(3, || async {
        let disk = disk(3);
        disk.set_capacity(4 * (64 << 10));
        let (log, _) = open(&disk).await;
        let replica = create(&log, &Oracle::default(), 1, false).await.unwrap();
        let mut rng = Rng(3);
        let mut index = 1;
        let stuck = loop {
            let (sender, receiver) = tokio::sync::oneshot::channel();
            replica.append(vec![entry(5, index, &mut rng)], Box::new(move |result| _ = sender.send(result.is_ok())));
            let mut receiver = receiver;
            match rt::timeout(Duration::from_secs(2), &mut receiver).await {
                Ok(durable) => assert!(durable.unwrap()),
                Err(_) => break receiver,
            }
            index += 1;
        };
        assert!(log.failure().is_none(), "a full disk is no failure");
        assert!(log.headroom_bytes() < 64 << 10);
        let read = replica.read(EntryRange { first: RaftIndex(1), last: RaftIndex(index) }, 1 << 20).await.unwrap();
        assert_eq!(read.len() as u64, index, "reads go on");
        // The purge itself waits for space too: capacity comes back first, as when another directory is emptied.
        disk.set_capacity(6 * (64 << 10));
        log.space_freed();
        assert!(stuck.await.unwrap(), "the entry that waited");
        replica.purge(log_id(5, index - 1)).await.unwrap();
        let oldest = log.segments()[0].sequence;
        log.unlink(oldest).await.unwrap();
        assert!(append(&replica, index + 1, &mut rng).await);
        assert!(log.unlink(log.segments().last().unwrap().sequence).await.is_err(), "the active segment stays");
    });
}

#[test]
fn a_newer_format_is_refused_by_name() {
    sim::run(4, || async {
        let disk = disk(4);
        let (log, _) = open(&disk).await;
        create(&log, &Oracle::default(), 1, false).await.unwrap();
        log.close().await.unwrap();
        let file = disk.open(&segment(1), OpenMode::Write).unwrap();
        let mut head = vec![0; 4096];
        read_exact_at(&*file, &mut head, 0).unwrap();
        let length = u32::from_le_bytes(head[12..16].try_into().unwrap()) as usize;
        head[16] += 1;
        let crc = crc32fast::hash(&head[12..length]);
        head[8..12].copy_from_slice(&crc.to_le_bytes());
        file.write_at(&head, 0).unwrap();
        let error = open_with(&disk, small_options(None)).await.err().unwrap();
        assert!(matches!(error, LogError::NewerFormat { found: 2, supported: 1, .. }), "{error}");
        assert!(error.to_string().contains("newer"), "{error}");
    });
}

/// Finds the only place of `needle` in a file.
fn find(disk: &SimDisk, path: &Path, needle: &[u8]) -> u64 {
    let file = disk.open(path, OpenMode::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.bytes().unwrap()).unwrap()];
    read_exact_at(&*file, &mut bytes, 0).unwrap();
    let places: Vec<usize> = (0..bytes.len() - needle.len()).filter(|at| bytes[*at..].starts_with(needle)).collect();
    assert_eq!(places.len(), 1);
    places[0] as u64
}

/// Two replicas with three entries each, one entry a commit, closed cleanly. Entry 1 of each has verdicts.
async fn two_replicas(disk: &SimDisk) -> Vec<ottla_storage::entry::Entry> {
    let (log, _) = open(disk).await;
    let mut rng = Rng(8);
    let mut entries = Vec::new();
    for id in [1, 2] {
        let replica = create(&log, &Oracle::default(), id, false).await.unwrap();
        for index in 1..=3 {
            let mut entry = entry(5, index, &mut rng);
            entry.batches = vec![ottla_storage::entry::EntryBatch {
                partition: ottla_protocol::ids::PartitionId { topic: uuid::Uuid::from_u128(7), index: 0 },
                data: support::batch(rng.next(), 500),
            }]
            .into();
            let (sender, receiver) = tokio::sync::oneshot::channel();
            entries.push(entry.clone());
            replica.append(vec![entry], Box::new(move |result| _ = sender.send(result.is_ok())));
            assert!(receiver.await.unwrap());
        }
        replica.write_verdicts(vec![verdicts(1, &mut rng)]).await.unwrap();
    }
    log.close().await.unwrap();
    entries
}

fn content(disk: &SimDisk) -> Vec<u8> {
    let file = disk.open(&segment(1), OpenMode::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.bytes().unwrap()).unwrap()];
    read_exact_at(&*file, &mut bytes, 0).unwrap();
    bytes
}

#[test]
fn damaged_records_of_a_committed_entry_fail_to_read_and_cost_nothing_else() {
    sim::run(5, || async {
        let disk = disk(5);
        let entries = two_replicas(&disk).await;
        let records = &entries[0].batches[0].data[100..130];
        disk.flip_bit(&segment(1), find(&disk, &segment(1), records), 3).unwrap();
        let (log, recovered) = open(&disk).await;
        assert_eq!(recovered[0].lost, None);
        assert_eq!(recovered[0].damaged, vec![log_id(5, 1)]);
        assert_eq!(recovered[0].last_log_id, Some(log_id(5, 3)));
        assert_eq!((recovered[1].lost.clone(), recovered[1].damaged.len()), (None, 0));
        let replica = log.replica(ReplicaId(1)).unwrap();
        let first = EntryRange { first: RaftIndex(1), last: RaftIndex(1) };
        assert_eq!(replica.read(first, 1).await.unwrap_err().kind(), std::io::ErrorKind::InvalidData);
        let rest = EntryRange { first: RaftIndex(2), last: RaftIndex(3) };
        assert_eq!(replica.read(rest, 1 << 20).await.unwrap(), entries[1..3]);
    });
}

#[test]
fn damage_above_the_known_commit_marks_its_replica_for_good_and_no_other() {
    sim::run(6, || async {
        let disk = disk(6);
        let entries = two_replicas(&disk).await;
        // The command of entry 2 of replica 1: covered by the frame's own sum, which would correct one byte.
        let place = find(&disk, &segment(1), &entries[1].payload);
        let flip = || (place..place + 2).for_each(|byte| disk.flip_bit(&segment(1), byte, 0).unwrap());
        flip();
        for life in 0..3 {
            let (log, recovered) = open(&disk).await;
            assert!(recovered[0].lost.is_some(), "life {life}");
            assert!(log.replica(ReplicaId(1)).unwrap().is_lost());
            assert_eq!(recovered[1].lost, None, "life {life}");
            assert_eq!(recovered[1].last_log_id, Some(log_id(5, 3)));
            if life == 1 {
                // The mark is in the log, not only in the damage: heal the bytes.
                flip();
            }
            log.close().await.unwrap();
        }
    });
}

/// The commit behind it lists the frames that were lost with the header.
#[test]
fn a_header_that_is_lost_with_one_commit_costs_the_replicas_that_had_frames_in_it() {
    sim::run(7, || async {
        let disk = disk(7);
        let (log, _) = open(&disk).await;
        let mut rng = Rng(7);
        let quiet = create(&log, &Oracle::default(), 1, false).await.unwrap();
        let busy = create(&log, &Oracle::default(), 2, false).await.unwrap();
        assert!(append(&quiet, 1, &mut rng).await);
        let mut index = 0;
        let mut commits_left = 3;
        while commits_left > 0 {
            index += 1;
            assert!(append(&busy, index, &mut rng).await);
            commits_left -= usize::from(log.segments().len() == 2);
        }
        log.close().await.unwrap();
        for page in [0, PAGE_BYTES as u64] {
            (page..page + 8).for_each(|byte| disk.flip_bit(&segment(2), byte, 0).unwrap());
        }
        let (_log, recovered) = open(&disk).await;
        assert_eq!((recovered[0].lost.clone(), recovered[0].last_log_id), (None, Some(log_id(5, 1))));
        assert!(recovered[1].lost.is_some());
    });
}

/// One wrong byte, wherever the CRC of an entry's frame is checked: nothing is lost, and the disk has it right again.
#[test]
fn one_wrong_byte_of_a_frame_is_corrected_on_the_disk() {
    sim::run(6, || async {
        let disk = disk(6);
        let entries = two_replicas(&disk).await;
        let whole = |recovered: &[RecoveredReplica]| {
            recovered.iter().all(|found| found.lost.is_none() && found.damaged.is_empty())
        };
        for entry in &entries[1..3] {
            let image = disk.image().crash(Crash::Process, 1);
            let payload = find(&image, &segment(1), &entry.payload);
            let before = content(&image);
            // Its payload, its partition, its clock, its index, its replica and its length.
            let head = payload - 80 - 32 * entry.batches.len() as u64;
            for at in
                [payload, payload - 10, head + 57, head + 48, head + 24, head].into_iter().filter(|at| *at >= head)
            {
                let damaged = image.image().crash(Crash::Process, 1);
                damaged.flip_bit(&segment(1), at, 3).unwrap();
                let (log, recovered) = open(&damaged).await;
                assert!(whole(&recovered), "byte {at}: {recovered:?}");
                let ends = recovered.iter().map(|found| found.last_log_id.unwrap().index.0).collect::<Vec<_>>();
                assert_eq!(ends, [3, 3], "byte {at}");
                let replica = log.replica(ReplicaId(1)).unwrap();
                let all = EntryRange { first: RaftIndex(1), last: RaftIndex(3) };
                assert_eq!(replica.read(all, 1 << 20).await.unwrap(), entries[..3], "byte {at}");
                assert_eq!(content(&damaged)[at as usize], before[at as usize], "byte {at}");
            }
        }
    });
}

/// [`two_replicas`] on a device that may leave anything in a page that is being written, and a byte that a frame's CRC covers.
async fn on_torn_pages() -> (SimDisk, Vec<ottla_storage::entry::Entry>, u64) {
    let disk = SimDisk::new(6, SimDiskOptions { tear: Tear::Garbage, ..SimDiskOptions::default() });
    let entries = two_replicas(&disk).await;
    let at = find(&disk, &segment(1), &entries[1].payload);
    (disk, entries, at)
}

/// Power is lost at each write and sync of the recovery that corrects a byte, on a device that may leave anything in a page
/// that is being written: the page holds the other entries of its commit too.
#[test]
fn power_lost_during_a_correction_costs_nothing() {
    sim::run(6, || async {
        let (disk, entries, at) = on_torn_pages().await;
        disk.flip_bit(&segment(1), at, 3).unwrap();
        let images = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let kept = images.clone();
        let damaged = disk.image().crash(Crash::Process, 1);
        damaged.observe(move |_, image| kept.lock().push(image));
        let (log, _) = open(&damaged).await;
        damaged.stop_observing();
        drop(log);
        let images = std::mem::take(&mut *images.lock());
        for (number, image) in images.iter().enumerate() {
            for seed in 0..60 {
                let (log, recovered) = open(&image.crash(Crash::Power, seed)).await;
                let what = format!("operation {number}, seed {seed}");
                assert!(recovered.iter().all(|found| found.lost.is_none() && found.damaged.is_empty()), "{what}");
                let replica = log.replica(ReplicaId(1)).unwrap();
                let all = EntryRange { first: RaftIndex(1), last: RaftIndex(3) };
                assert_eq!(replica.read(all, 1 << 20).await.unwrap(), entries[..3], "{what}");
            }
        }
    });
}

/// No space is left for a second copy of the page: the log opens nevertheless, with the byte corrected.
#[test]
fn a_full_disk_does_not_keep_a_byte_from_being_corrected() {
    sim::run(6, || async {
        let (disk, _, at) = on_torn_pages().await;
        let before = content(&disk);
        disk.flip_bit(&segment(1), at, 3).unwrap();
        disk.set_capacity(1);
        let (_log, recovered) = open(&disk).await;
        assert!(recovered.iter().all(|found| found.lost.is_none()), "{recovered:?}");
        assert_eq!(content(&disk)[at as usize], before[at as usize]);
    });
}

#[test]
fn an_unreadable_page_is_damage() {
    sim::run(7, || async {
        let disk = disk(7);
        let entries = two_replicas(&disk).await;
        let place = find(&disk, &segment(1), &entries[1].payload);
        disk.make_unreadable(&segment(1), place).unwrap();
        let (_log, recovered) = open(&disk).await;
        // A replica whose creation is gone is not opened: it takes part in nothing either.
        assert!(recovered.iter().all(|replica| replica.lost.is_some()) || recovered.len() < 2);
    });
}

/// One process with syncs switched off, then a crash: which replicas count as lost?
fn unsynced(crash: Option<Crash>) -> Option<String> {
    sim::run(9, move || async move {
        let disk = disk(9);
        let (log, _) = open(&disk).await;
        let replica = create(&log, &Oracle::default(), 1, false).await.unwrap();
        let mut rng = Rng(9);
        assert!(append(&replica, 1, &mut rng).await);
        log.close().await.unwrap();
        let (log, _) = open_with(&disk, LogOptions { sync: false, ..small_options(None) }).await.unwrap();
        let replica = log.replica(ReplicaId(1)).unwrap();
        for index in 2..40 {
            assert!(append(&replica, index, &mut rng).await);
        }
        if crash.is_none() {
            log.close().await.unwrap();
        }
        let disk = disk.image().crash(crash.unwrap_or(Crash::Process), 10);
        let (log, recovered) = open(&disk).await;
        let lost = recovered[0].lost.clone();
        // With syncs on again a loss of power costs nothing more.
        let replica = log.replica(ReplicaId(1)).unwrap();
        let next = replica.last_log_id().unwrap().index.0 + 1;
        assert!(append(&replica, next, &mut rng).await);
        let disk = disk.image().crash(Crash::Power, 11);
        let (_log, again) = open(&disk).await;
        assert_eq!(again[0].lost.is_some(), lost.is_some());
        assert_eq!(again[0].last_log_id, Some(log_id(5, next)));
        lost
    })
    .output
}

#[test]
fn without_syncs_a_restart_of_the_machine_costs_membership_and_a_clean_stop_does_not() {
    assert!(unsynced(Some(Crash::Power)).is_some());
    assert_eq!(unsynced(Some(Crash::Process)), None);
    assert_eq!(unsynced(None), None);
}

/// Commits that were never synced lie whole behind a torn one, each at the place where the next commit would be looked for.
#[test]
fn nothing_behind_a_torn_tail_comes_back() {
    sim::run(12, || async {
        let disk = disk(12);
        let options = || LogOptions { sync: false, ..small_options(Some(true)) };
        let (log, _) = open_with(&disk, options()).await.unwrap();
        let replica = create(&log, &Oracle::default(), 1, false).await.unwrap();
        let mut rng = Rng(12);
        let mut entries = Vec::new();
        for index in 1..=9 {
            let entry = entry(5, index, &mut rng);
            let (sender, receiver) = tokio::sync::oneshot::channel();
            entries.push(entry.clone());
            replica.append(vec![entry], Box::new(move |result| _ = sender.send(result.is_ok())));
            assert!(receiver.await.unwrap());
        }
        let disk = disk.image().crash(Crash::Process, 1);
        disk.open(&segment(1), OpenMode::Write).unwrap().sync_data().await.unwrap();
        let place = find(&disk, &segment(1), &entries[2].payload);
        (place..place + 2).for_each(|byte| disk.flip_bit(&segment(1), byte, 5).unwrap());
        for life in 0..3 {
            let (log, recovered) = open_with(&disk, small_options(Some(true))).await.unwrap();
            assert_eq!(recovered[0].last_log_id, Some(log_id(5, 2)), "life {life}");
            assert_eq!(recovered[0].lost, None, "life {life}");
            log.close().await.unwrap();
        }
    });
}

/// Any flipped bit anywhere: a replica that lost data is marked so, and all others are whole.
#[test]
fn no_flipped_bit_loses_anything_in_silence() {
    for seed in 0..24 {
        let oracle = Oracle::default();
        let noted = oracle.clone();
        sim::run(seed, move || async move {
            let disk = disk(seed);
            let (log, _) = open(&disk).await;
            run(&log, &noted, &RecoveryPoints::default(), 4, 40, seed).await;
            log.close().await.unwrap();
            let segments = log.segments();
            let image = disk.image();
            let mut rng = Rng(seed);
            for round in 0..120 {
                let disk = image.crash(Crash::Process, 1);
                let hit = segments[rng.below(segments.len() as u64) as usize];
                let (byte, bit) = (rng.below(u64::from(hit.used_bytes)), rng.below(8) as u8);
                disk.flip_bit(&segment(hit.sequence), byte, bit).unwrap();
                // One wrong byte is mostly corrected; what is not must not pass in silence.
                if round % 2 == 1 {
                    let _ = disk.flip_bit(&segment(hit.sequence), byte + 1, bit);
                }
                let what = format!("seed {seed}, round {round}: bit {bit} of byte {byte} of segment {}", hit.sequence);
                let (log, recovered) = open(&disk).await;
                whole_or_marked(&log, &recovered, &noted, &what).await;
            }
        });
    }
}

async fn whole_or_marked(log: &Log, recovered: &[RecoveredReplica], oracle: &Oracle, what: &str) {
    for (id, (_, asked)) in oracle.moment() {
        let ops = oracle.ops(id);
        let removed = ops.contains(&support::Op::Remove);
        let Some(found) = recovered.iter().find(|replica| replica.id == id) else { continue };
        if found.lost.is_some() || !found.damaged.is_empty() {
            continue;
        }
        assert!(!removed, "{what}: replica {id} is back");
        assert_eq!(found.sequence, asked as u64, "{what}: replica {id}");
        let (actual, expected) = (state_of(log, id).await, ModelState::after(&ops));
        assert!(actual == expected, "{what}: replica {id}:\n{}\nexpected\n{}", actual.brief(), expected.brief());
    }
}
