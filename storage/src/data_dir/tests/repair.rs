//! Damaged data is readable again once another replica has returned it: batches in sealed segments, in the one that is
//! written to and in runs, and those whose frames are damaged so that the index knows nothing of them.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use ottla_protocol::ids::{Offset, PartitionId};
use parking_lot::Mutex;

use super::crash::check_runs;
use super::rewrite::{Life, NEVER};
use super::toy::{DIR, Toy, batch, entry, open, options};
use crate::data_dir::{DataDir, DataDirOptions, Exported, Peers};
use crate::ids::{ReplicaId, RunId};
use crate::index::ExtentKey;
use crate::read::{ReadError, ReadRequest, Wanted};
use crate::runs::run_path;
use ottla_env::disk::Disk;
use ottla_env::sim::disk::{Crash, SimDisk, SimDiskOptions};
use ottla_env::{rt, sim};

const ENTRIES: u64 = 60;

/// Another directory with the same replica, and the requests that it received.
struct Twin {
    directory: Arc<DataDir>,
    replica: ReplicaId,
    asked: Mutex<Vec<Range<Offset>>>,
}

impl Peers for Twin {
    fn fetch(
        self: Arc<Self>,
        partition: PartitionId,
        offsets: Range<Offset>,
    ) -> BoxFuture<'static, io::Result<Exported>> {
        Box::pin(async move {
            self.asked.lock().push(offsets.clone());
            let key = ExtentKey::of(self.replica, partition);
            let Range { start: from, end: up_to } = offsets;
            let request = ReadRequest { key, from, up_to, bytes_max: 4_000, at_least_one: true, wanted: Wanted::All };
            self.directory.export(request).await.map_err(io::Error::other)
        })
    }
}

async fn twin(toy: &Toy) -> Arc<Twin> {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(99, SimDiskOptions::default()));
    let (directory, _) = open(&disk, options()).await;
    let other = Toy::create(&directory, toy.log.id().0).await;
    write(&other, 1..=ENTRIES).await;
    Arc::new(Twin { directory, replica: other.log.id(), asked: Mutex::default() })
}

fn register(directory: &DataDir, toy: &Toy, twin: &Arc<Twin>) {
    let peers: Arc<dyn Peers> = twin.clone();
    directory.register_peers(toy.log.id(), Arc::downgrade(&peers));
}

async fn write(toy: &Toy, indexes: std::ops::RangeInclusive<u64>) {
    for index in indexes {
        let batches = (0..3).map(|partition| (partition, batch(index * 10, 1 + index % 3, 900))).collect();
        toy.write(vec![entry(1, index, batches, "")]).await;
    }
}

/// The whole partition, or the first damaged offset.
async fn whole(toy: &Toy, partition: i32) -> Result<Vec<u8>, Offset> {
    let up_to = Offset(toy.model().partitions[&partition].0);
    let (mut from, mut found) = (Offset(0), Vec::new());
    while from < up_to {
        let request = ReadRequest {
            key: toy.key(partition),
            from,
            up_to,
            bytes_max: 1 << 20,
            at_least_one: true,
            wanted: Wanted::All,
        };
        let plan = match toy.directory.plan_read(request).await {
            Ok(plan) => plan,
            Err(ReadError::Damaged { offset, .. }) => return Err(offset),
            Err(error) => panic!("{error}"),
        };
        let end = plan.end_offset();
        match plan.read().await {
            Ok(bytes) => found.extend_from_slice(&bytes),
            Err(ReadError::Damaged { offset, .. }) => return Err(offset),
            Err(error) => panic!("{error}"),
        }
        // The batches before a damaged one are returned.
        from = if found.is_empty() { end } else { end_of(&found) };
    }
    Ok(found)
}

fn end_of(mut batches: &[u8]) -> Offset {
    let mut end = Offset(0);
    while batches.len() > 60 {
        let number = |at: usize| i32::from_be_bytes(batches[at..at + 4].try_into().unwrap());
        let base = i64::from_be_bytes(batches[..8].try_into().unwrap());
        end = Offset(base + i64::from(number(23)) + 1);
        batches = &batches[12 + usize::try_from(number(8)).unwrap()..];
    }
    end
}

fn file_path(file: u64) -> PathBuf {
    match RunId::of_file(file) {
        Some(run) => run_path(Path::new(DIR), run),
        None => Path::new(DIR).join("log").join(format!("{file:016}.log")),
    }
}

struct Scene {
    sim: SimDisk,
    disk: Arc<dyn Disk>,
    toy: Arc<Toy>,
    twin: Arc<Twin>,
}

/// A directory with a replica of three partitions, and another one with the same.
async fn scene(seed: u64) -> Scene {
    let sim = SimDisk::new(seed, SimDiskOptions::default());
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let (directory, _) = open(&disk, options()).await;
    let toy = Toy::create(&directory, 3).await;
    write(&toy, 1..=ENTRIES).await;
    let twin = twin(&toy).await;
    register(&directory, &toy, &twin);
    Scene { sim, disk, toy, twin }
}

/// The same after a checkpoint and a restart: nothing is in the page cache of the process that wrote it.
async fn at_rest(seed: u64) -> Scene {
    let mut scene = scene(seed).await;
    scene.toy.directory.maintain_now().await.unwrap();
    scene.restart().await;
    scene
}

impl Scene {
    /// Flips a bit among the records of the batch at this offset; in which file it lies.
    async fn damage(&self, partition: i32, offset: i64) -> u64 {
        let indexed = self.toy.directory.batch_at(self.toy.key(partition), Offset(offset)).await.unwrap().unwrap();
        let file = indexed.position.segment;
        self.sim.flip_bit(&file_path(file), u64::from(indexed.position.byte) + 70, 1).unwrap();
        file
    }

    async fn restart(&mut self) {
        self.restart_with(options()).await;
    }

    async fn restart_with(&mut self, options: DataDirOptions) {
        let crashed = self.sim.image().crash(Crash::Process, 1);
        (self.sim, self.disk) = (crashed.clone(), Arc::new(crashed));
        let (directory, recovered) = open(&self.disk, options).await;
        self.toy = Toy::recover(&directory, &recovered[0]);
        register(&directory, &self.toy, &self.twin);
    }

    async fn mended(&self) -> u64 {
        self.toy.directory.rewrite_now().await.unwrap();
        self.toy.directory.maintain_now().await.unwrap();
        self.toy.directory.rewrite_now().await.unwrap();
        check_runs(&self.disk, &self.toy.directory).await;
        self.toy.directory.stats().repaired_batches
    }
}

#[test]
fn a_damaged_batch_is_read_again_once_another_replica_has_given_it() {
    sim::run(1, || async {
        let mut scene = at_rest(1).await;
        let before = whole(&scene.toy, 1).await.unwrap();
        let file = scene.damage(1, 5).await;
        scene.damage(1, 8).await;
        let found = whole(&scene.toy, 1).await.unwrap_err();
        assert!(found <= Offset(5), "{found:?}");
        assert_eq!(scene.mended().await, 2, "the second one was met when the file was copied");
        assert_eq!(whole(&scene.toy, 1).await.unwrap(), before);
        let indexed = scene.toy.directory.batch_at(scene.toy.key(1), Offset(5)).await.unwrap().unwrap();
        assert!(indexed.position.segment != file);
        scene.restart().await;
        assert_eq!(whole(&scene.toy, 1).await.unwrap(), before);
        // The same in the run.
        scene.damage(1, 5).await;
        whole(&scene.toy, 1).await.unwrap_err();
        assert_eq!(scene.mended().await, 1);
        assert_eq!(whole(&scene.toy, 1).await.unwrap(), before);
    });
}

/// In segments and in the run that holds what was mended.
#[test]
fn the_scrub_finds_damage_that_nobody_reads() {
    sim::run(9, || async {
        let mut scene = at_rest(9).await;
        let before = whole(&scene.toy, 1).await.unwrap();
        let scrubbed = || DataDirOptions { scrub_bytes_per_second: 1 << 20, ..options() };
        for round in 1..=2 {
            scene.damage(1, 5).await;
            scene.damage(2, 8).await;
            scene.restart_with(scrubbed()).await;
            assert_eq!(scene.toy.directory.stats().damaged_reads, 0);
            rt::sleep(Duration::from_secs(60)).await;
            let stats = scene.toy.directory.stats();
            // What is met first is mended at once, with all else that is damaged in its file.
            assert!(stats.scrubs == 1 && stats.damaged_reads >= 1, "round {round}: {stats:?}");
            assert_eq!(scene.mended().await, 2, "round {round}");
            assert_eq!(whole(&scene.toy, 1).await.unwrap(), before);
        }
        let before = scene.toy.directory.stats().damaged_reads;
        rt::sleep(Duration::from_secs(25 * 3600)).await;
        let stats = scene.toy.directory.stats();
        assert_eq!((stats.scrubs, stats.damaged_reads), (2, before), "a day later, and all is sound");
    });
}

#[test]
fn the_segment_that_is_written_to_ends_so_that_it_can_be_mended() {
    sim::run(2, || async {
        let scene = at_rest(2).await;
        let before = whole(&scene.toy, 0).await.unwrap();
        let last = scene.toy.model().partitions[&0].0 - 1;
        let file = scene.damage(0, last).await;
        let active = |scene: &Scene| scene.toy.directory.log().segments().last().unwrap().sequence;
        assert_eq!(file, active(&scene));
        whole(&scene.toy, 0).await.unwrap_err();
        scene.toy.directory.rewrite_now().await.unwrap();
        assert_eq!(scene.mended().await, 1);
        assert!(active(&scene) > file);
        assert_eq!(whole(&scene.toy, 0).await.unwrap(), before);
        write(&scene.toy, ENTRIES + 1..=ENTRIES + 2).await;
        assert_eq!(whole(&scene.toy, 0).await.unwrap()[..before.len()], before);
    });
}

#[test]
fn batches_whose_frames_are_damaged_are_fetched_into_a_run() {
    sim::run(3, || async {
        let mut scene = scene(3).await;
        scene.toy.directory.maintain_now().await.unwrap();
        let before: Vec<_> = [whole(&scene.toy, 0).await.unwrap(), whole(&scene.toy, 1).await.unwrap()].into();
        let key = scene.toy.key(0);
        let indexed = scene.toy.directory.batch_at(key, Offset(20)).await.unwrap().unwrap();
        let crashed = scene.sim.image().crash(Crash::Process, 1);
        // One wrong byte would be corrected.
        for byte in [5, 6] {
            crashed.flip_bit(&file_path(indexed.position.segment), u64::from(indexed.position.byte) - byte, 2).unwrap();
        }
        crashed.unlink(&file_path(indexed.position.segment).with_extension("idx")).unwrap();
        scene.sim = crashed;
        scene.restart().await;
        assert_eq!(whole(&scene.toy, 0).await.unwrap_err(), indexed.base_offset);
        whole(&scene.toy, 1).await.unwrap_err();
        assert_eq!(scene.mended().await, 2);
        for _ in 0..2 {
            assert_eq!(whole(&scene.toy, 0).await.unwrap(), before[0]);
            assert_eq!(whole(&scene.toy, 1).await.unwrap(), before[1]);
            scene.restart().await;
        }
    });
}

#[test]
fn what_is_damaged_of_a_replica_that_waits_to_be_removed_keeps_no_other_from_being_mended() {
    sim::run(6, || async {
        let mut scene = scene(6).await;
        let other = Toy::create(&scene.toy.directory, 4).await;
        other.write(vec![entry(1, 1, vec![(0, batch(7, 2, 500))], "")]).await;
        let indexed = scene.toy.directory.batch_at(other.key(0), Offset(0)).await.unwrap().unwrap();
        let before = whole(&scene.toy, 0).await.unwrap();
        scene.toy.directory.maintain_now().await.unwrap();
        drop(other);
        scene.restart().await;
        scene.sim.flip_bit(&file_path(indexed.position.segment), u64::from(indexed.position.byte) + 70, 1).unwrap();
        let last = scene.toy.model().partitions[&0].0 - 1;
        assert_eq!(scene.damage(0, last).await, indexed.position.segment);
        whole(&scene.toy, 0).await.unwrap_err();
        assert_eq!(scene.mended().await, 0, "nobody has what the other replica lacks");
        scene.toy.directory.set_aside(ReplicaId(4));
        assert_eq!(scene.mended().await, 1);
        assert_eq!(whole(&scene.toy, 0).await.unwrap(), before);
    });
}

#[test]
fn what_nobody_gives_stays_as_it_is_and_is_asked_for_again_in_the_next_round() {
    sim::run(4, || async {
        let scene = at_rest(4).await;
        scene.damage(1, 5).await;
        // The other one has it no more either.
        let there = scene.twin.directory.index.partition(scene.toy.key(1)).unwrap();
        let kept = std::mem::take(&mut there.write().slices);
        whole(&scene.toy, 1).await.unwrap_err();
        assert_eq!(scene.mended().await, 0);
        let asked = scene.twin.asked.lock().len();
        assert_eq!(asked, 3, "at once, and in each round");
        there.write().slices = kept;
        assert_eq!(scene.mended().await, 1);
        whole(&scene.toy, 1).await.unwrap();
    });
}

#[test]
fn a_job_of_the_rewriter_mends_what_it_meets() {
    sim::run(5, || async {
        let sim = SimDisk::new(5, SimDiskOptions::default());
        let disk: Arc<dyn Disk> = Arc::new(sim.clone());
        let mut life = Life::begin(&disk, 1, options()).await;
        life.fill(6).await;
        life.expire().await;
        life.settle().await;
        let (mine, entries) = (Arc::clone(&life.toys[0]), life.entries(&life.toys[0]));
        let other: Arc<dyn Disk> = Arc::new(SimDisk::new(6, SimDiskOptions::default()));
        let (other, _) = open(&other, options()).await;
        let theirs = Toy::create(&other, 1).await;
        theirs.write(entries).await;
        let twin = Arc::new(Twin { directory: other, replica: theirs.log.id(), asked: Mutex::default() });
        register(&life.directory, &mine, &twin);
        let indexed = life.directory.batch_at(mine.key(NEVER), Offset(0)).await.unwrap().unwrap();
        sim.flip_bit(&file_path(indexed.position.segment), u64::from(indexed.position.byte) + 70, 1).unwrap();
        life.directory.rewrite_now().await.unwrap();
        let stats = life.directory.stats();
        assert_eq!((stats.repaired_batches, stats.damaged_sources), (1, 0));
        life.check().await;
    });
}
