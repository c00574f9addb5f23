//! One bit of an index file or of the newest checkpoint flips while no process runs: the next start finds everything.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::crash::{check, check_partitions};
use super::rewrite::{Life, disk};
use super::toy::{DIR, Toy, open, options};
use crate::data_dir::DataDir;
use crate::data_dir::unlink::Unlinking;
use crate::runs::RUNS_DIR;
use ottla_env::disk::{Disk, OpenMode, PAGE_BYTES, read_exact_at};
use ottla_env::sim::disk::{Crash, SimDisk, Tear};
use ottla_env::{rt, sim};

/// Some segments with batches that live and some that died, some runs, and log starts in the middle of both.
async fn lived(disk: &Arc<dyn Disk>) -> Life {
    let mut life = Life::begin(disk, 1, options()).await;
    life.fill(8).await;
    life.expire().await;
    life.settle().await;
    life.directory.rewrite_now().await.unwrap();
    life.write(0, Vec::new(), "trim 2").await;
    life.fill(5).await;
    for partition in 0..2 {
        life.write(0, Vec::new(), &format!("trim {partition}")).await;
    }
    life.settle().await;
    life
}

pub(super) fn files(sim: &SimDisk, dir: &str, suffix: &str) -> Vec<PathBuf> {
    let dir = Path::new(DIR).join(dir);
    let names = sim.list(&dir).unwrap().into_iter().map(|entry| entry.name);
    names.filter(|name| name.ends_with(suffix)).map(|name| dir.join(name)).collect()
}

fn bytes(sim: &SimDisk, path: &Path) -> u64 {
    sim.open(path, OpenMode::Read).unwrap().bytes().unwrap()
}

#[test]
fn no_damaged_line_of_an_index_keeps_the_directory_from_starting() {
    sim::run(71, || async {
        let (sim, disk) = disk(71, Tear::Pages);
        let life = lived(&disk).await;
        let (segments, runs) = (files(&sim, "log", ".idx"), files(&sim, RUNS_DIR, ".idx"));
        assert!(segments.len() > 1 && !runs.is_empty(), "{segments:?} {runs:?}");
        let entries = life.entries(&life.toys[0]);
        for index in [segments, runs].concat() {
            for byte in (0..bytes(&sim, &index)).step_by(20) {
                let damaged = sim.image().crash(Crash::Process, byte);
                damaged.flip_bit(&index, byte, 3).unwrap();
                let (directory, recovered) = open(&(Arc::new(damaged) as Arc<dyn Disk>), options()).await;
                let toy = Toy::recover(&directory, &recovered[0]);
                check_partitions(&toy, &entries).await;
            }
        }
    });
}

/// Found by the simulation (seed 6621): readers got an error of damage, though the log was sound.
#[test]
fn damaged_indexes_are_read_back_though_the_disk_has_no_room_for_them() {
    sim::run(73, || async {
        let (sim, disk) = disk(73, Tear::Pages);
        let life = lived(&disk).await;
        let indexes = [files(&sim, "log", ".idx"), files(&sim, RUNS_DIR, ".idx")].concat();
        for index in &indexes {
            let bytes = bytes(&sim, index);
            (1..=bytes / 40 - 3).for_each(|entry| sim.flip_bit(index, bytes - entry * 40 + 3, 1).unwrap());
        }
        sim.set_capacity(0);
        life.check().await;
        sim.set_capacity(1 << 40);
        life.settle().await;
        life.check().await;
        let acknowledged = life.moments.lock().0.clone();
        check(Arc::new(sim.image().crash(Crash::Power, 1)), &acknowledged).await;
    });
}

/// A damaged transaction voids those after it, so the state before it is valid: with a run that it lists and a later
/// transaction dropped.
#[test]
fn a_run_that_came_and_went_in_one_generation_stays_as_long_as_that_counts() {
    sim::run(72, || async {
        let (sim, disk) = disk(72, Tear::Pages);
        let mut life = Life::begin(&disk, 1, options()).await;
        life.fill(6).await;
        life.expire().await;
        life.settle().await;
        life.directory.rewrite_now().await.unwrap();
        life.directory.checkpoint_now().await.unwrap();
        let made = files(&sim, RUNS_DIR, ".run").len();
        for _ in 0..40 {
            life.write(0, Vec::new(), "trim 2").await;
        }
        life.directory.checkpoint_now().await.unwrap();
        life.directory.unlink_runs(Unlinking::AtOnce).await.unwrap();
        let acknowledged = life.moments.lock().0.clone();
        let newest = files(&sim, "state", ".ckpt").pop().unwrap();
        for page in (0..bytes(&sim, &newest)).step_by(PAGE_BYTES).take(40) {
            for crash in [Crash::Process, Crash::Power] {
                let damaged = sim.image().crash(crash, 72);
                damaged.flip_bit(&newest, page + 20, 2).unwrap();
                let later = damaged.clone();
                check(Arc::new(damaged), &acknowledged).await;
                assert!(files(&later, RUNS_DIR, ".run").len() <= made);
            }
        }
        life.settle().await;
        assert!(files(&sim, RUNS_DIR, ".run").len() < made, "nothing went");
    });
}

/// Checkpoints, writes index files and makes no new generation; returns a place within the newest transaction of the
/// checkpoint.
pub(super) async fn checkpoint(sim: &SimDisk, directory: &DataDir) -> (PathBuf, u64) {
    let newest = files(sim, "state", ".ckpt").pop().unwrap();
    let content = || {
        let mut content = vec![0; usize::try_from(bytes(sim, &newest)).unwrap()];
        read_exact_at(&*sim.open(&newest, OpenMode::Read).unwrap(), &mut content, 0).unwrap();
        content
    };
    let before = content();
    directory.checkpoint_now().await.unwrap();
    rt::sleep(2 * directory.options.maintenance_interval).await;
    assert_eq!(files(sim, "state", ".ckpt").pop().unwrap(), newest);
    let changed = content().iter().zip(&before).position(|(now, was)| now != was).unwrap();
    (newest, changed as u64)
}

/// The newest delta is damaged, and of the segments before it one has no index file any more: the entries after the
/// delta before that are applied again, in this segment and in those whose index files list them already.
#[test]
fn entries_are_applied_again_whatever_index_files_are_left_of_a_damaged_cut() {
    sim::run(73, || async {
        let (sim, disk) = disk(73, Tear::Pages);
        let mut life = Life::begin(&disk, 2, options()).await;
        life.fill(2).await;
        life.settle().await;
        life.fill(5).await;
        let (newest, at) = checkpoint(&sim, &life.directory).await;
        let acknowledged = life.moments.lock().0.clone();
        let indexes = files(&sim, "log", ".idx");
        assert!(indexes.len() > 4, "{indexes:?}");
        for (number, index) in (1..).zip(&indexes) {
            let damaged = sim.image().crash(Crash::Process, number);
            damaged.flip_bit(&newest, at, 2).unwrap();
            damaged.flip_bit(index, 20, 3).unwrap();
            check(Arc::new(damaged), &acknowledged).await;
        }
    });
}
