//! Identity, lock, formats, full disks, failures, damage.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ottla_protocol::ids::Offset;

use super::crash::check_index_files;
use super::toy::{DIR, Toy, batch, entry, open, options};
use crate::checkpoint::{CheckpointSource, StateDelta};
use crate::data_dir::{DataDir, DataDirError, DataDirOptions};
use crate::ids::{LogId, RaftIndex, ReplicaId, Term};
use crate::log::{EntryRange, LogOptions};
use crate::read::{ReadError, ReadRequest, Wanted};
use ottla_env::disk::{Disk, OpenMode};
use ottla_env::sim::disk::{Crash, SimDisk, SimDiskOptions};
use ottla_env::{rt, sim};

fn disk(seed: u64) -> (SimDisk, Arc<dyn Disk>) {
    let sim = SimDisk::new(seed, SimDiskOptions::default());
    (sim.clone(), Arc::new(sim))
}

async fn refused(disk: &Arc<dyn Disk>, options: DataDirOptions) -> DataDirError {
    DataDir::open(Arc::clone(disk), Path::new(DIR), options).await.unwrap_err()
}

#[test]
fn only_one_process_and_only_the_right_one_may_open_it() {
    sim::run(1, || async {
        let (_, disk) = disk(1);
        let (first, recovered) = open(&disk, options()).await;
        assert!(recovered.is_empty());
        assert!(matches!(refused(&disk, options()).await, DataDirError::InUse(_)));
        first.set_cluster_id("prices").await.unwrap();
        assert!(matches!(first.set_cluster_id("other").await, Err(DataDirError::Foreign { .. })));
        assert!(!first.has_left());
        first.leave().await.unwrap();
        let id = first.directory_id();
        first.close().await.unwrap();
        let other_node = DataDirOptions { node_id: 2, ..options() };
        assert!(matches!(refused(&disk, other_node).await, DataDirError::Foreign { .. }));
        let other_cluster = DataDirOptions { cluster_id: Some("other".to_owned()), ..options() };
        assert!(matches!(refused(&disk, other_cluster).await, DataDirError::Foreign { .. }));
        let wiped = DataDirOptions { directory_id_expected: Some(uuid::Uuid::from_u128(1)), ..options() };
        assert!(matches!(refused(&disk, wiped).await, DataDirError::Foreign { .. }));
        let right =
            DataDirOptions { directory_id_expected: Some(id), cluster_id: Some("prices".to_owned()), ..options() };
        let (again, _) = open(&disk, right).await;
        assert_eq!((again.directory_id(), again.cluster_id().as_deref()), (id, Some("prices")));
        assert!(again.has_left(), "whoever has left does not take itself for new");
    });
}

#[test]
fn a_newer_format_and_a_missing_identity_are_named() {
    sim::run(2, || async {
        let (_, disk) = disk(2);
        let (directory, _) = open(&disk, options()).await;
        Toy::create(&directory, 1).await.write(vec![entry(1, 1, vec![(0, batch(1, 1, 10))], "")]).await;
        directory.close().await.unwrap();
        drop(directory);
        let path = Path::new(DIR).join("node.json");
        let rewrite = |text: &str| {
            disk.unlink(&path).unwrap();
            let file = disk.open(&path, OpenMode::CreateNew).unwrap();
            file.write_at(text.as_bytes(), 0).unwrap();
        };
        rewrite(r#"{"format_version": 99, "something": "new"}"#);
        assert!(matches!(refused(&disk, options()).await, DataDirError::NewerFormat { found: 99, supported: 5, .. }));
        rewrite("{");
        assert!(matches!(refused(&disk, options()).await, DataDirError::Damaged { .. }));
        disk.unlink(&path).unwrap();
        let error = refused(&disk, options()).await;
        assert!(matches!(error, DataDirError::Damaged { .. }), "{error}");
    });
}

/// A replica on a disk of 32 MiB, of which 10 are the reserve.
async fn on_small_disk() -> (Arc<dyn Disk>, Arc<DataDir>, Arc<Toy>) {
    let (sim, disk) = disk(3);
    let log = LogOptions { reserve_bytes: 10 << 20, ..options().log };
    sim.set_capacity(32 << 20);
    let (directory, _) = open(&disk, DataDirOptions { log, ..options() }).await;
    let toy = Toy::create(&directory, 1).await;
    (disk, directory, toy)
}

#[test]
fn a_full_disk_refuses_writes_before_it_is_full_and_recovers_without_a_restart() {
    sim::run(3, || async {
        let (disk, directory, toy) = on_small_disk().await;
        let mut index = 0;
        while directory.accepts_writes() {
            index += 1;
            assert!(index < 2000, "writes are never refused");
            toy.write(vec![entry(1, index, vec![(0, batch(index, 1, 8000))], "")]).await;
            if !directory.accepts_writes() {
                // The next segment may just be on its way.
                rt::sleep(Duration::from_secs(2)).await;
            }
        }
        assert!(disk.space(Path::new(DIR)).unwrap().free_bytes > 4 << 20, "refused too late");
        // Raft and checkpoints still write, reads go on.
        index += 1;
        toy.write(vec![entry(1, index, vec![(0, batch(index, 1, 100))], "")]).await;
        directory.maintain_now().await.unwrap();
        assert!(!directory.accepts_writes());
        let request = ReadRequest {
            key: toy.key(0),
            from: Offset(0),
            up_to: Offset(5),
            bytes_max: 1,
            at_least_one: true,
            wanted: Wanted::All,
        };
        assert!(!directory.plan_read(request).await.unwrap().read().await.unwrap().is_empty());
        let used = directory.bytes_of(toy.key(0));
        index += 1;
        toy.write(vec![entry(1, index, Vec::new(), "trim 0")]).await;
        for _ in 0..3 {
            directory.maintain_now().await.unwrap();
            if let Some(kept) = directory.oldest_kept(toy.log.id()) {
                toy.log.purge(kept).await.unwrap();
            }
        }
        assert!(directory.bytes_of(toy.key(0)) < used / 2);
        assert!(directory.stats().unlinked_segments > 0);
        rt::sleep(Duration::from_secs(2)).await;
        assert!(directory.accepts_writes(), "{:?}", directory.stats());
    });
}

#[test]
fn a_replica_that_was_marked_as_lost_is_found_lost() {
    sim::run(8, || async {
        let (_, disk) = disk(8);
        let (directory, _) = open(&disk, options()).await;
        let toy = Toy::create(&directory, 1).await;
        toy.write(vec![entry(1, 1, vec![(0, batch(1, 1, 10))], "")]).await;
        directory.checkpoint_now().await.unwrap();
        toy.log.mark_lost().await.unwrap();
        directory.close().await.unwrap();
        drop((toy, directory));
        let (_directory, recovered) = open(&disk, options()).await;
        assert!(
            recovered[0].lost.as_deref().is_some_and(|why| why.contains("marked as lost")),
            "{:?}",
            recovered[0].lost
        );
    });
}

/// A leader on another node goes by its own disk. The log must end before the disk is full: a checkpoint needs verdicts in it,
/// and what died is freed only by a checkpoint.
#[test]
fn a_disk_that_others_fill_still_frees_what_has_died() {
    sim::run(3, || async {
        let (_, directory, toy) = on_small_disk().await;
        let minute = Duration::from_secs(60);
        let mut index = 0;
        while directory.accepts_replicated() {
            index += 1;
            assert!(index < 5_000, "records are never refused");
            let writing = toy.write(vec![entry(1, index, vec![(0, batch(index, 1, 8000))], "")]);
            rt::timeout(minute, writing).await.expect("the log is full to its end");
            rt::sleep(Duration::from_millis(10)).await;
        }
        index += 1;
        let trimming = toy.write(vec![entry(1, index, Vec::new(), "trim 0")]);
        rt::timeout(minute, trimming).await.expect("room for a command");
        let freed = async {
            while !directory.accepts_writes() {
                if let Some(kept) = directory.oldest_kept(toy.log.id()) {
                    toy.log.purge(kept).await.unwrap();
                }
                rt::sleep(Duration::from_millis(100)).await;
            }
        };
        rt::timeout(minute, freed).await.expect("space is freed by maintenance alone");
        assert!(directory.stats().unlinked_segments > 0);
    });
}

#[test]
fn a_segment_ends_at_its_most_batches_also_across_a_restart() {
    sim::run(13, || async {
        let (_, disk) = disk(13);
        let options = || DataDirOptions { log: LogOptions { segment_batches_max: 10, ..options().log }, ..options() };
        let mut written = 0;
        let mut write = async |toy: &Toy, count: u64| {
            for _ in 0..count {
                written += 1;
                toy.write(vec![entry(1, written, vec![(0, batch(written, 1, 10))], "")]).await;
            }
        };
        let (directory, _) = open(&disk, options()).await;
        let toy = Toy::create(&directory, 1).await;
        write(&toy, 16).await;
        assert_eq!(directory.log().segments().len(), 2);
        let stats = directory.stats().log;
        assert_eq!(stats.commit_sizes.iter().sum::<u64>(), stats.commits);
        assert!(stats.sync_times.iter().sum::<u64>() >= stats.commits - 1);
        directory.close().await.unwrap();
        let (directory, recovered) = open(&disk, options()).await;
        let toy = Toy::recover(&directory, &recovered[0]);
        write(&toy, 4).await;
        assert_eq!(directory.log().segments().len(), 2);
        // One of the earlier process was rejected and has no index entry.
        write(&toy, 2).await;
        assert_eq!(directory.log().segments().len(), 3, "what an earlier process wrote counts");
        directory.close().await.unwrap();
    });
}

#[test]
fn an_index_with_batches_of_a_replica_that_left_can_be_rebuilt_as_it_was() {
    sim::run(14, || async {
        let (_, disk) = disk(14);
        let (directory, _) = open(&disk, options()).await;
        let (stays, leaves) = (Toy::create(&directory, 1).await, Toy::create(&directory, 2).await);
        for index in 1..=60 {
            if index <= 25 {
                leaves.write(vec![entry(1, index, vec![(0, batch(index, 1, 1000))], "")]).await;
            }
            if index == 10 {
                directory.checkpoint_now().await.unwrap();
            }
            if index == 25 {
                directory.remove_replica(ReplicaId(2)).await.unwrap();
            }
            stays.write(vec![entry(1, index, vec![(0, batch(index, 1, 2000))], "")]).await;
        }
        directory.maintain_now().await.unwrap();
        assert!(directory.stats().index_files > 0);
        assert_eq!(directory.bytes_of(leaves.key(0)), 0);
        check_index_files(&disk, &directory).await;
    });
}

/// Found by the simulation (seed 8227): the power failed between the end of the replica and the checkpoint that forgets
/// it.
/// Replica 1, beside which replica 2 has written most of the log, and was removed.
async fn with_one_that_has_left(directory: &Arc<DataDir>) -> Arc<Toy> {
    let (stays, leaves) = (Toy::create(directory, 1).await, Toy::create(directory, 2).await);
    for index in 1..=60 {
        leaves.write(vec![entry(1, index, vec![(0, batch(index, 1, 2000))], "")]).await;
    }
    stays.write(vec![entry(1, 1, vec![(0, batch(7, 1, 2000))], "")]).await;
    directory.maintain_now().await.unwrap();
    directory.remove_replica(ReplicaId(2)).await.unwrap();
    stays
}

#[test]
fn what_a_removed_replica_held_is_dead_after_a_crash_too() {
    for removed_in_time in [false, true] {
        sim::run(15, move || async move {
            let (sim, disk) = disk(15);
            let (directory, _) = open(&disk, options()).await;
            let _stays = with_one_that_has_left(&directory).await;
            if removed_in_time {
                directory.checkpoint_now().await.unwrap();
            }
            let disk: Arc<dyn Disk> = Arc::new(sim.image().crash(Crash::Power, 1));
            let (directory, recovered) = open(&disk, options()).await;
            assert_eq!(recovered.len(), 1);
            let stays = Toy::recover(&directory, &recovered[0]);
            assert_eq!(directory.stats().live_bytes, directory.bytes_of(stays.key(0)));
            stays.write(vec![entry(1, 2, vec![(0, batch(8, 1, 2000))], "")]).await;
            for _ in 0..4 {
                directory.maintain_now().await.unwrap();
            }
            assert!(directory.stats().segments <= 2, "{:?}", directory.stats());
        });
    }
}

/// Returns no delta the first two times, as while its entries are not synced.
struct Withholding(Arc<Toy>, AtomicU64);

impl CheckpointSource for Withholding {
    fn take_delta(&self) -> Option<StateDelta> {
        if self.1.fetch_add(1, Ordering::Relaxed) < 2 { None } else { self.0.take_delta() }
    }
}

#[test]
fn a_withheld_cut_is_asked_for_again_soon() {
    sim::run(12, || async {
        let (_, disk) = disk(12);
        let (directory, _) = open(&disk, options()).await;
        let toy = Toy::create(&directory, 1).await;
        let source: Arc<dyn CheckpointSource> = Arc::new(Withholding(toy.clone(), AtomicU64::new(0)));
        directory.register(toy.log.id(), Arc::downgrade(&source));
        let begun = rt::now();
        toy.write(vec![entry(1, 1, vec![(0, batch(1, 2, 500))], "")]).await;
        while directory.stats().checkpoints == 0 {
            rt::sleep(Duration::from_millis(100)).await;
        }
        let waited = rt::now().since(begun);
        let due = options().checkpoint_interval..options().checkpoint_interval + Duration::from_secs(3);
        assert!(due.contains(&waited), "{waited:?}");
        assert_eq!(directory.oldest_kept(toy.log.id()), toy.applied(), "no checkpoint for nothing");
    });
}

#[test]
fn much_written_is_checkpointed_long_before_it_is_time_and_what_is_hardly_used_with_it() {
    sim::run(16, || async {
        let (_, disk) = disk(16);
        // One segment: no checkpoint is written to set files free.
        let log = LogOptions { segment_bytes: 4 << 20, ..options().log };
        let options = DataDirOptions { checkpoint_bytes: 100 << 10, log, ..options() };
        let soon = options.maintenance_interval / 2;
        let (directory, _) = open(&disk, options).await;
        let (busy, idle) = (Toy::create(&directory, 1).await, Toy::create(&directory, 2).await);
        idle.write(vec![entry(1, 1, vec![(0, batch(1, 1, 100))], "")]).await;
        for round in 1..=3 {
            for index in 1..=60 {
                busy.write(vec![entry(1, (round - 1) * 60 + index, vec![(0, batch(index, 1, 2000))], "")]).await;
            }
            rt::sleep(soon).await;
            assert_eq!(directory.stats().checkpoints, round);
        }
        assert_eq!(directory.oldest_kept(idle.log.id()), idle.applied());
    });
}

#[test]
fn a_failed_sync_stops_the_directory_for_good() {
    sim::run(4, || async {
        let (sim, disk) = disk(4);
        let (directory, _) = open(&disk, options()).await;
        let toy = Toy::create(&directory, 1).await;
        toy.write(vec![entry(1, 1, vec![(0, batch(1, 1, 10))], "")]).await;
        sim.fail_sync_in(0);
        let failed = toy.append(vec![entry(1, 2, Vec::new(), "")]).await.unwrap();
        assert!(failed.is_err());
        assert!(directory.poisoned().is_some());
        assert!(!directory.accepts_writes());
        let request = ReadRequest {
            key: toy.key(0),
            from: Offset(0),
            up_to: Offset(1),
            bytes_max: 1,
            at_least_one: true,
            wanted: Wanted::All,
        };
        assert!(matches!(directory.plan_read(request).await, Err(ReadError::Poisoned(_))));
    });
}

#[test]
fn a_dead_segment_that_cannot_be_unlinked_stops_the_directory() {
    sim::run(18, || async {
        let (sim, disk) = disk(18);
        let (directory, _) = open(&disk, options()).await;
        let _stays = with_one_that_has_left(&directory).await;
        sim.fail_unlink_of(".log");
        let (mut rounds, mut failed) = (0, false);
        while rounds < 4 && !failed {
            failed = directory.maintain_now().await.is_err();
            rounds += 1;
        }
        assert!(failed && directory.poisoned().is_some(), "{:?}", directory.stats());
    });
}

#[test]
fn a_damaged_batch_is_an_error_at_its_offset_and_the_rest_is_served() {
    sim::run(5, || async {
        let (sim, disk) = disk(5);
        let (directory, _) = open(&disk, options()).await;
        let toy = Toy::create(&directory, 1).await;
        for index in 1..=5 {
            toy.write(vec![entry(1, index, vec![(0, batch(index, 2, 500))], "")]).await;
        }
        let indexed = directory.batch_at(toy.key(0), Offset(4)).await.unwrap().unwrap();
        let segment = Path::new(DIR).join("log").join(format!("{:016}.log", indexed.position.segment));
        sim.flip_bit(&segment, u64::from(indexed.position.byte) + 300, 3).unwrap();
        let read = |from: i64| {
            let request = ReadRequest {
                key: toy.key(0),
                from: Offset(from),
                up_to: Offset(10),
                bytes_max: 1 << 20,
                at_least_one: true,
                wanted: Wanted::All,
            };
            let directory = Arc::clone(&directory);
            async move { directory.plan_read(request).await.unwrap().read().await }
        };
        let before = read(0).await.unwrap();
        assert_eq!(i64::from_be_bytes(before[..8].try_into().unwrap()), 0, "what comes before is served");
        assert!(matches!(read(4).await, Err(ReadError::Damaged { offset: Offset(4), .. })));
        assert!(!read(6).await.unwrap().is_empty());
    });
}

#[test]
fn damaged_records_in_the_tail_do_not_stop_a_replay() {
    replay_over(|disk, segment, byte| disk.flip_bit(segment, byte, 3).unwrap());
}

#[test]
fn a_page_of_records_in_the_tail_that_cannot_be_read_does_not_stop_a_replay() {
    replay_over(|disk, segment, byte| disk.make_unreadable(segment, byte).unwrap());
}

/// Replays entries one of whose batches is damaged before any checkpoint contained it. `damage` is given a byte whose
/// page holds nothing else.
fn replay_over(damage: fn(&SimDisk, &Path, u64)) {
    sim::run(7, move || async move {
        let (sim, disk) = disk(7);
        let (directory, _) = open(&disk, options()).await;
        // One whose entries others may still read.
        let toy = Toy::create(&directory, 2).await;
        for index in 1..=5 {
            if index == 3 {
                directory.checkpoint_now().await.unwrap();
            }
            let batches = (0..2).map(|partition| (partition, batch(index, 2, 8192))).collect();
            toy.write(vec![entry(1, index, batches, "")]).await;
        }
        let indexed = directory.batch_at(toy.key(0), Offset(6)).await.unwrap().unwrap();
        let segment = Path::new(DIR).join("log").join(format!("{:016}.log", indexed.position.segment));
        let disk = sim.image().crash(Crash::Process, 1);
        damage(&disk, &segment, u64::from(indexed.position.byte) + 8192);
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let before = toy.model();
        for life in 0..3 {
            let (directory, recovered) = open(&disk, options()).await;
            let damaged = Some(LogId { term: Term(1), index: RaftIndex(4) });
            assert_eq!(
                (recovered[0].lost.clone(), recovered[0].damaged.first().copied()),
                (None, damaged),
                "life {life}"
            );
            let unproven = if life == 0 { damaged } else { None };
            assert_eq!(recovered[0].damaged_unproven, unproven, "a checkpoint proves it");
            let toy = Toy::recover(&directory, &recovered[0]);
            let from = recovered[0].applied.unwrap().index.0 + 1;
            if from <= 5 {
                let range = EntryRange { first: RaftIndex(from), last: RaftIndex(5) };
                assert!(toy.log.read(range, 1 << 20).await.is_err(), "no peer gets damaged records");
                let entries = toy.log.read_to_apply(range, 1 << 20).await.unwrap();
                entries.iter().for_each(|entry| toy.apply(entry));
            }
            assert_eq!(toy.model(), before);
            let read = async |partition: i32, from: i64| {
                let from = Offset(from);
                let key = toy.key(partition);
                let request = ReadRequest {
                    key,
                    from,
                    up_to: Offset(10),
                    bytes_max: 1 << 20,
                    at_least_one: true,
                    wanted: Wanted::All,
                };
                directory.plan_read(request).await?.read().await
            };
            assert!(!read(0, 0).await.unwrap().is_empty());
            let of_damaged = read(0, 6).await;
            assert!(matches!(of_damaged, Err(ReadError::Damaged { offset: Offset(6), .. })), "{life}: {of_damaged:?}");
            assert!(!read(0, 8).await.unwrap().is_empty());
            assert!(!read(1, 6).await.unwrap().is_empty());
            toy.write(vec![entry(1, 6 + life, Vec::new(), "")]).await;
            directory.close().await.unwrap();
        }
    });
}

/// A shard without a majority cannot apply its last entries, and must not hold back the checkpoints of all other shards.
#[test]
fn after_a_start_without_a_checkpoint_only_what_is_known_to_be_committed_is_waited_for() {
    sim::run(9, || async {
        let (sim, disk) = disk(9);
        let (directory, _) = open(&disk, options()).await;
        let toys = [Toy::create(&directory, 1).await, Toy::create(&directory, 2).await];
        let entries: Vec<_> = (1..=4).map(|index| entry(1, index, vec![(0, batch(index, 2, 100))], "")).collect();
        for toy in &toys {
            toy.write(entries[..3].to_vec()).await;
        }
        // What is applied gets its verdicts.
        directory.checkpoint_now().await.unwrap();
        toys[1].append(entries[3..].to_vec()).await.unwrap().unwrap();
        let sim = sim.image().crash(Crash::Process, 1);
        let state = Path::new(DIR).join("state");
        for generation in Disk::list(&sim, &state).unwrap() {
            sim.flip_bit(&state.join(&generation.name), 20, 1).unwrap();
        }
        let disk: Arc<dyn Disk> = Arc::new(sim);
        let (directory, recovered) = open(&disk, options()).await;
        let committed: Vec<_> = recovered.iter().map(|replica| (replica.applied, replica.committed)).collect();
        assert_eq!(committed, [(None, RaftIndex(3)), (None, RaftIndex(3))]);
        assert_eq!(recovered[1].last_log_id.map(|id| id.index), Some(RaftIndex(4)));
        let toys: Vec<_> = recovered.iter().map(|replica| Toy::recover(&directory, replica)).collect();
        for entry in &entries[..3] {
            assert!(!directory.has_checkpoint(), "entry {} is to be applied first", entry.log_id);
            toys.iter().for_each(|toy| toy.apply(entry));
        }
        assert!(directory.has_checkpoint());
        directory.checkpoint_now().await.unwrap();
        assert_eq!(directory.checkpointed(ReplicaId(2)).map(|id| id.index), Some(RaftIndex(3)));
    });
}

#[test]
fn a_damaged_index_file_is_rebuilt_when_it_is_met() {
    sim::run(6, || async {
        let (sim, disk) = disk(6);
        let (directory, _) = open(&disk, options()).await;
        let toy = Toy::create(&directory, 1).await;
        for index in 1..=60 {
            toy.write(vec![entry(1, index, vec![(0, batch(index, 2, 2000))], "")]).await;
        }
        directory.maintain_now().await.unwrap();
        assert!(directory.stats().index_files > 0);
        let first = directory.batch_at(toy.key(0), Offset(0)).await.unwrap().unwrap();
        let path = super::super::index_files::index_path(Path::new(DIR), first.position.segment);
        let bytes = disk.open(&path, OpenMode::Read).unwrap().bytes().unwrap();
        for entry in 1..=5 {
            sim.flip_bit(&path, bytes - entry * 40 + 3, 1).unwrap();
        }
        for offset in 0..100 {
            let indexed = directory.batch_at(toy.key(0), Offset(offset)).await.unwrap().unwrap();
            assert!(indexed.base_offset <= Offset(offset) && Offset(offset) < indexed.end_offset());
        }
    });
}

#[test]
fn one_read_that_meets_several_damaged_index_files_has_them_all_rebuilt() {
    sim::run(8, || async {
        let (sim, disk) = disk(8);
        let (directory, _) = open(&disk, options()).await;
        let toy = Toy::create(&directory, 1).await;
        for index in 1..=240 {
            toy.write(vec![entry(1, index, vec![(0, batch(index, 2, 2000))], "")]).await;
        }
        directory.maintain_now().await.unwrap();
        let log = Path::new(DIR).join("log");
        let files = disk.list(&log).unwrap().into_iter().filter(|file| file.name.ends_with(".idx"));
        let damaged = files
            .map(|file| {
                (1..=2).for_each(|entry| sim.flip_bit(&log.join(&file.name), file.bytes - entry * 40 + 3, 1).unwrap())
            })
            .count();
        assert!(damaged > 2, "{damaged}");
        let request = ReadRequest {
            key: toy.key(0),
            from: Offset(0),
            // Every seventh batch was rejected.
            up_to: Offset(412),
            bytes_max: 1 << 30,
            at_least_one: true,
            wanted: Wanted::All,
        };
        let mut from = request.from;
        while from < request.up_to {
            let plan = directory.plan_read(ReadRequest { from, ..request }).await.unwrap();
            assert!(!plan.is_empty(), "nothing at {from:?}");
            from = plan.end_offset();
        }
    });
}
