//! Faults around the rewriter: a full disk, a disk that fails, damaged batches, indexes and checkpoints,
//! readers that began before a replacement.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ottla_protocol::ids::Offset;

use super::crash::{check, check_runs};
use super::rewrite::{Life, NEVER, disk};
use super::toy::{DIR, Toy, batch, entry, open, options};
use crate::data_dir::unlink::Unlinking;
use crate::data_dir::{DataDir, DataDirError, DataDirOptions};
use crate::index::{Access, Bounds, ExtentKey};
use crate::log::LogOptions;
use crate::read::{ReadError, ReadPlan, ReadRequest, Wanted};
use crate::rewrite::RetentionClass;
use crate::runs::{RUNS_DIR, run_index_path, run_path};
use ottla_env::disk::{Disk, OpenMode, read_exact_at};
use ottla_env::sim::disk::{Crash, SimDisk, Tear};
use ottla_env::{rt, sim};

fn request(key: ExtentKey, from: i64) -> ReadRequest {
    ReadRequest {
        key,
        from: Offset(from),
        up_to: Offset(i64::MAX),
        bytes_max: 1 << 20,
        at_least_one: true,
        wanted: Wanted::All,
    }
}

async fn plan(life: &Life, from: i64) -> Result<ReadPlan, ReadError> {
    life.directory.plan_read(request(life.toys[0].key(NEVER), from)).await
}

/// A directory with mostly dead segments, which the rewriter has not seen yet.
async fn ready(disk: &Arc<dyn Disk>) -> Life {
    let mut life = Life::begin(disk, 1, options()).await;
    life.fill(6).await;
    life.expire().await;
    life.settle().await;
    life
}

fn files_in(disk: &Arc<dyn Disk>, name: &str) -> Vec<String> {
    disk.list(&Path::new(DIR).join(name)).unwrap().into_iter().map(|entry| entry.name).collect()
}

fn segment_path(sequence: u64) -> PathBuf {
    Path::new(DIR).join("log").join(format!("{sequence:016}.log"))
}

#[test]
fn a_full_disk_stops_a_rewrite_and_changes_nothing() {
    sim::run(31, || async {
        let (sim, disk) = disk(31, Tear::Pages);
        let life = ready(&disk).await;
        let space = disk.space(Path::new(DIR)).unwrap();
        let taken = space.total_bytes - space.free_bytes;
        let segments = life.directory.stats().segments;
        for more in (0..40).map(|step| step * 300) {
            sim.set_capacity(taken + more);
            life.directory.rewrite_now().await.unwrap();
            assert_eq!(life.directory.poisoned(), None, "{more} bytes free");
            life.check().await;
            check_runs(&disk, &life.directory).await;
        }
        sim.set_capacity(1 << 30);
        life.directory.rewrite_now().await.unwrap();
        life.settle().await;
        life.check().await;
        assert!(life.directory.stats().segments < segments);
    });
}

#[test]
fn a_nearly_full_disk_gets_its_space_back() {
    sim::run(32, || async {
        let (sim, disk) = disk(32, Tear::Pages);
        let log = LogOptions { reserve_bytes: 10 << 20, ..options().log };
        let mut life = Life::begin(&disk, 1, DataDirOptions { log, ..options() }).await;
        life.fill(20).await;
        life.settle().await;
        let space = disk.space(Path::new(DIR)).unwrap();
        // Nothing is left but the reserve.
        sim.set_capacity(space.total_bytes - space.free_bytes + (10 << 20));
        life.expire().await;
        life.settle().await;
        life.directory.rewrite_now().await.unwrap();
        life.settle().await;
        life.check().await;
        check_runs(&disk, &life.directory).await;
        let after = disk.space(Path::new(DIR)).unwrap();
        assert!(after.free_bytes > 11 << 20, "{} of {} bytes are free", after.free_bytes, after.total_bytes);
        rt::sleep(Duration::from_secs(2)).await;
        assert!(life.directory.accepts_writes());
    });
}

/// Fails every write and every sync of a rewrite in turn.
#[test]
fn a_disk_that_fails_during_a_rewrite_stops_the_directory_and_a_restart_finds_everything() {
    for fails_sync in [false, true] {
        for number in 0..12 {
            sim::run(33 + number, move || async move {
                let (sim, disk) = disk(33, Tear::Pages);
                let life = ready(&disk).await;
                if fails_sync {
                    sim.fail_sync_in(number)
                } else {
                    sim.fail_write_in(number)
                }
                let outcome = life.directory.rewrite_now().await;
                assert_eq!(outcome.is_err(), life.directory.poisoned().is_some(), "{outcome:?}");
                let acknowledged = life.moments.lock().0.clone();
                check(Arc::new(sim.image().crash(Crash::Power, number)), &acknowledged).await;
            });
        }
    }
}

#[test]
fn a_damaged_batch_keeps_its_segment_and_is_never_dropped() {
    sim::run(60, || async {
        let (sim, disk) = disk(60, Tear::Pages);
        let life = ready(&disk).await;
        let indexed = life.directory.batch_at(life.toys[0].key(NEVER), Offset(0)).await.unwrap().unwrap();
        let path = segment_path(indexed.position.segment);
        sim.flip_bit(&path, u64::from(indexed.position.byte) + 70, 1).unwrap();
        life.directory.rewrite_now().await.unwrap();
        life.settle().await;
        let stats = life.directory.stats();
        assert_eq!(stats.damaged_sources, 1);
        assert!(stats.runs > 0, "the others are rewritten");
        assert!(files_in(&disk, "log").contains(&path.file_name().unwrap().to_string_lossy().into_owned()));
        let damaged = plan(&life, 0).await.unwrap().read().await;
        assert!(matches!(damaged, Err(ReadError::Damaged { offset: Offset(0), .. })), "{damaged:?}");
        assert!(!plan(&life, indexed.end_offset().0).await.unwrap().read().await.unwrap().is_empty());
        check_runs(&disk, &life.directory).await;
    });
}

#[test]
fn a_page_that_cannot_be_read_between_the_batches_does_no_harm_and_under_one_keeps_the_file() {
    sim::run(61, || async {
        let (sim, disk) = disk(61, Tear::Pages);
        let life = ready(&disk).await;
        let indexed = life.directory.batch_at(life.toys[0].key(NEVER), Offset(3)).await.unwrap().unwrap();
        sim.make_unreadable(&segment_path(indexed.position.segment), u64::from(indexed.position.byte)).unwrap();
        life.directory.rewrite_now().await.unwrap();
        assert_eq!((life.directory.stats().damaged_sources, life.directory.poisoned()), (1, None));
    });
}

async fn bytes_of(disk: &Arc<dyn Disk>, path: &Path) -> Vec<u8> {
    let file = disk.open(path, OpenMode::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.bytes().unwrap()).unwrap()];
    read_exact_at(&*file, &mut bytes, 0).unwrap();
    bytes
}

#[test]
fn a_missing_or_damaged_index_of_a_run_is_rebuilt_from_the_run() {
    sim::run(62, || async {
        let (sim, disk) = disk(62, Tear::Pages);
        let life = ready(&disk).await;
        life.directory.rewrite_now().await.unwrap();
        let run = life.directory.runs.listed().iter().find(|run| run.class.0 == 2).unwrap().id;
        let index = run_index_path(Path::new(DIR), run);
        let before = bytes_of(&disk, &index).await;
        // Met by a reader.
        sim.flip_bit(&index, before.len() as u64 - 30, 1).unwrap();
        life.check().await;
        assert!(bytes_of(&disk, &index).await == before);
        // Missing at the start.
        let acknowledged = life.moments.lock().0.clone();
        let next = sim.image().crash(Crash::Process, 1);
        next.unlink(&index).unwrap();
        check(Arc::new(next), &acknowledged).await;
    });
}

#[test]
fn an_index_of_a_run_of_which_a_page_cannot_be_read_is_rebuilt_from_the_run() {
    sim::run(65, || async {
        let (sim, disk) = disk(65, Tear::Pages);
        let life = ready(&disk).await;
        life.directory.rewrite_now().await.unwrap();
        let run = life.directory.runs.listed().iter().find(|run| run.class.0 == 2).unwrap().id;
        let index = run_index_path(Path::new(DIR), run);
        let acknowledged = life.moments.lock().0.clone();
        let at_start = sim.image().crash(Crash::Process, 1);
        at_start.make_unreadable(&index, 0).unwrap();
        check(Arc::new(at_start), &acknowledged).await;
        // Met by a reader.
        let last = disk.open(&index, OpenMode::Read).unwrap().bytes().unwrap() - 1;
        sim.make_unreadable(&index, last).unwrap();
        life.check().await;
    });
}

async fn reopened(sim: &SimDisk) -> Result<Arc<DataDir>, DataDirError> {
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    DataDir::open(disk, Path::new(DIR), options()).await.map(|(directory, _)| directory)
}

#[test]
fn a_run_that_is_gone_or_cut_off_is_named_at_the_start_and_not_passed_over() {
    sim::run(63, || async {
        let (sim, disk) = disk(63, Tear::Pages);
        let life = ready(&disk).await;
        life.directory.rewrite_now().await.unwrap();
        let run = run_path(Path::new(DIR), life.directory.runs.listed()[0].id);
        let gone = sim.image().crash(Crash::Process, 1);
        gone.unlink(&run).unwrap();
        assert!(matches!(reopened(&gone).await, Err(DataDirError::Damaged { path, .. }) if path.ends_with(".run")));
        let short = sim.image().crash(Crash::Process, 1);
        short.open(&run, OpenMode::Write).unwrap().set_len(5000).unwrap();
        assert!(matches!(reopened(&short).await, Err(DataDirError::Damaged { .. })));
        // A damaged header costs nothing: batches are found by the index and checked by themselves.
        let header = sim.image().crash(Crash::Process, 1);
        header.flip_bit(&run, 20, 1).unwrap();
        let acknowledged = life.moments.lock().0.clone();
        check(Arc::new(header), &acknowledged).await;
    });
}

#[test]
fn a_damaged_newest_checkpoint_after_a_rewrite_finds_the_old_files_still_there() {
    for settled in 0..3 {
        sim::run(64, move || async move {
            let (sim, _) = disk(64, Tear::Pages);
            let disk: Arc<dyn Disk> = Arc::new(sim.clone());
            let mut life = ready(&disk).await;
            for _ in 0..2 {
                life.directory.rewrite_now().await.unwrap();
                // The maintenance may come by before there is a new generation.
                life.directory.unlink_dead(Unlinking::AtOnce).await.unwrap();
                life.directory.unlink_runs(Unlinking::AtOnce).await.unwrap();
                for _ in 0..settled {
                    life.directory.maintain_now().await.unwrap();
                }
                let acknowledged = life.moments.lock().0.clone();
                let newest = files_in(&disk, "state").pop().unwrap();
                for byte in [20, 4096 + 40] {
                    let damaged = sim.image().crash(Crash::Process, 64);
                    damaged.flip_bit(&Path::new(DIR).join("state").join(&newest), byte, 2).unwrap();
                    check(Arc::new(damaged), &acknowledged).await;
                }
                life.fill(4).await;
                life.expire().await;
                life.settle().await;
            }
        });
    }
}

#[test]
fn a_run_that_died_stays_while_the_older_checkpoint_lists_it() {
    sim::run(69, || async {
        let (sim, disk) = disk(69, Tear::Pages);
        let mut life = ready(&disk).await;
        life.directory.rewrite_now().await.unwrap();
        life.settle().await;
        let runs = life.directory.stats().runs;
        for _ in 0..40 {
            life.write(0, Vec::new(), "trim 2").await;
        }
        life.directory.checkpoint_now().await.unwrap();
        life.directory.unlink_runs(Unlinking::AtOnce).await.unwrap();
        assert!(!life.directory.runs.leaving().is_empty(), "nothing died");
        assert_eq!(life.directory.stats().runs, runs);
        let acknowledged = life.moments.lock().0.clone();
        let newest = files_in(&disk, "state").pop().unwrap();
        let damaged = sim.image().crash(Crash::Process, 69);
        damaged.flip_bit(&Path::new(DIR).join("state").join(&newest), 20, 2).unwrap();
        check(Arc::new(damaged), &acknowledged).await;
        life.settle().await;
        assert!(life.directory.stats().runs < runs);
    });
}

#[test]
fn a_dropped_partition_is_not_forgotten_while_a_run_lists_it() {
    sim::run(70, || async {
        let (_, disk) = disk(70, Tear::Pages);
        let mut life = Life::begin(&disk, 1, options()).await;
        life.directory.set_retention_classes(Arc::new(|_| RetentionClass::UNKNOWN));
        life.fill(6).await;
        // Nothing but runs will list it.
        for _ in 0..30 {
            life.write(0, vec![(0, 1, 3000)], "").await;
        }
        life.expire().await;
        life.settle().await;
        life.directory.rewrite_now().await.unwrap();
        let dropped = life.toys[0].key(1);
        life.toys[0].drop_partition(1);
        // The segments that list it go; the run stays for the others.
        for _ in 0..60 {
            life.write(0, vec![(0, 1, 3000)], "trim 0").await;
        }
        life.settle().await;
        life.settle().await;
        assert!(life.directory.stats().unlinked_segments > 6 && life.directory.stats().runs > 0);
        life.directory.close().await.unwrap();
        drop(life);
        let (directory, _) = open(&disk, options()).await;
        assert_eq!(directory.bytes_of(dropped), 0, "it has come back");
    });
}

#[test]
fn a_read_that_began_before_the_swap_finishes_although_its_segment_is_gone() {
    sim::run(65, || async {
        let (_, disk) = disk(65, Tear::Pages);
        let life = ready(&disk).await;
        let before = plan(&life, 0).await.unwrap();
        let expected = plan(&life, 0).await.unwrap().read().await.unwrap();
        life.directory.rewrite_now().await.unwrap();
        let in_runs = plan(&life, 0).await.unwrap();
        life.settle().await;
        let segments = life.directory.stats().unlinked_segments;
        assert!(segments > 0);
        assert!(before.read().await.unwrap() == expected);
        life.toys[0].drop_partition(NEVER);
        life.settle().await;
        assert!(life.directory.stats().unlinked_runs > 0);
        assert!(in_runs.read().await.unwrap() == expected);
    });
}

#[test]
fn a_read_that_was_planned_before_the_swap_and_opened_after_the_unlink_is_planned_again() {
    sim::run(68, || async {
        let (_, disk) = disk(68, Tear::Pages);
        let life = ready(&disk).await;
        let bounds = Bounds { from: Offset(0), up_to: Offset(i64::MAX), bytes_max: 1 << 20, at_least_one: true };
        let planned = life.directory.index.plan(life.toys[0].key(NEVER), bounds, Access::MayBlock).unwrap().batches;
        let expected = plan(&life, 0).await.unwrap().read().await.unwrap();
        life.directory.rewrite_now().await.unwrap();
        life.settle().await;
        let opened = life.directory.open_plan(life.toys[0].key(NEVER), Offset(0), planned);
        assert!(matches!(opened, Err(ReadError::Moved(_))), "told from damage");
        assert!(plan(&life, 0).await.unwrap().read().await.unwrap() == expected);
        assert_eq!(life.directory.stats().damaged_reads, 0);
    });
}

#[test]
fn from_the_first_run_on_an_older_release_refuses_the_directory() {
    sim::run(66, || async {
        let (_, disk) = disk(66, Tear::Pages);
        let life = ready(&disk).await;
        let format = async || {
            let text = bytes_of(&disk, &Path::new(DIR).join("node.json")).await;
            serde_json::from_slice::<serde_json::Value>(&text).unwrap()["format_version"].as_u64()
        };
        assert_eq!(format().await, Some(1), "0.1.0 opens a directory without runs");
        life.directory.rewrite_now().await.unwrap();
        assert_eq!(format().await, Some(2));
    });
}

#[test]
fn without_any_checkpoint_runs_are_kept_aside() {
    sim::run(67, || async {
        let (sim, disk) = disk(67, Tear::Pages);
        let life = ready(&disk).await;
        life.directory.rewrite_now().await.unwrap();
        life.directory.close().await.unwrap();
        let runs = files_in(&disk, RUNS_DIR);
        for file in files_in(&disk, "state") {
            disk.unlink(&Path::new(DIR).join("state").join(file)).unwrap();
        }
        let next: Arc<dyn Disk> = Arc::new(sim.image().crash(Crash::Process, 1));
        let (directory, _) = open(&next, options()).await;
        let kept: Vec<String> = runs.iter().map(|name| format!("{name}.lost")).collect();
        assert_eq!(files_in(&next, RUNS_DIR), kept);
        assert!(directory.runs.next_id().0 > 0, "ids are never used again");
        Toy::create(&directory, 9).await.write(vec![entry(1, 1, vec![(0, batch(1, 1, 10))], "")]).await;
        directory.maintain_now().await.unwrap();
        directory.close().await.unwrap();
        open(&next, options()).await;
        assert_eq!(files_in(&next, RUNS_DIR), kept, "a later checkpoint does not know them either");
    });
}
