//! The real disk held against the simulated one: the same random operations, the same answers; and the same history of the
//! log over both.

#![allow(clippy::unwrap_used)]

mod support;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ottla_env::disk::{Disk, File, OpenMode};
use ottla_env::real::RealDisk;
use ottla_env::sim::disk::{SimDisk, SimDiskOptions};
use ottla_storage::ids::ReplicaId;
use ottla_storage::log::Log;
use support::history::{RecoveryPoints, run, small_options};
use support::{ModelState, Oracle, Rng, Seen, check};

/// A directory of the test's own, gone at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ottla-disk-{}-{number}", std::process::id()));
        RealDisk.create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What an operation said, as far as both disks must agree.
#[derive(Debug, PartialEq)]
enum Answer {
    Done,
    Bytes(Vec<u8>),
    Names(Vec<(String, u64, bool)>),
    Refused(io::ErrorKind),
}

fn answer<T>(result: io::Result<T>, done: impl FnOnce(T) -> Answer) -> Answer {
    result.map_or_else(|error| Answer::Refused(error.kind()), done)
}

/// One disk under the model test, with the files that are open.
struct Subject {
    disk: Box<dyn Disk>,
    dir: PathBuf,
    open: Vec<Arc<dyn File>>,
}

impl Subject {
    async fn step(&mut self, rng: &mut Rng) -> Answer {
        let name = self.dir.join(format!("f{}", rng.below(4)));
        let other = self.dir.join(format!("f{}", rng.below(4)));
        let kind = rng.below(12);
        let (offset, length, fill) = (rng.below(20_000), rng.below(9_000) as usize, rng.next());
        if kind < 2 {
            let mode = [OpenMode::CreateNew, OpenMode::Write][kind as usize];
            let opened = self.disk.open(&name, mode);
            return answer(opened, |file| {
                self.open.push(file);
                Answer::Done
            });
        }
        if kind == 2 {
            return answer(self.disk.unlink(&name), |()| Answer::Done);
        }
        if kind == 3 {
            return answer(self.disk.rename(&name, &other), |()| Answer::Done);
        }
        if kind == 4 {
            let entries = self.disk.list(&self.dir);
            return answer(entries, |e| Answer::Names(e.into_iter().map(|e| (e.name, e.bytes, e.is_dir)).collect()));
        }
        if kind == 5 {
            return answer(self.disk.sync_dir(&self.dir), |()| Answer::Done);
        }
        let Some(file) = self.open.get((fill % self.open.len().max(1) as u64) as usize).cloned() else {
            return Answer::Done;
        };
        match kind {
            6..=7 => {
                let mut data_rng = Rng(fill);
                let data: Vec<u8> = (0..length).map(|_| data_rng.next().to_le_bytes()[0]).collect();
                answer(file.write_at(&data, offset), |()| Answer::Done)
            }
            8 => answer(file.preallocate(offset), |()| Answer::Done),
            9 => answer(file.set_len(offset), |()| Answer::Done),
            10 => answer(file.sync_data().await, |()| Answer::Done),
            _ => {
                let mut buf = vec![0; length];
                answer(file.read_at(&mut buf, offset), |read| {
                    buf.truncate(read);
                    Answer::Bytes(buf)
                })
            }
        }
    }
}

#[tokio::test]
async fn the_simulated_disk_answers_as_the_real_one() {
    for seed in 0..30 {
        let scratch = Scratch::new();
        let sim_dir = Path::new("/data");
        let simulated = SimDisk::new(seed, SimDiskOptions::default());
        simulated.create_dir_all(sim_dir).unwrap();
        let mut real = Subject { disk: Box::new(RealDisk), dir: scratch.0.clone(), open: Vec::new() };
        let mut sim = Subject { disk: Box::new(simulated), dir: sim_dir.to_owned(), open: Vec::new() };
        let (mut first, mut second) = (Rng(seed), Rng(seed));
        for step in 0..200 {
            let (a, b) = (real.step(&mut first).await, sim.step(&mut second).await);
            assert!(a == b, "seed {seed}, step {step}: real {a:.200?}, simulated {b:.200?}");
        }
        for (a, b) in real.open.iter().zip(&sim.open) {
            assert_eq!(a.bytes().unwrap(), b.bytes().unwrap());
        }
    }
}

#[tokio::test]
async fn a_locked_directory_is_refused_until_it_is_released() {
    let scratch = Scratch::new();
    let disks: [(Box<dyn Disk>, PathBuf); 2] = [
        (Box::new(RealDisk), scratch.0.join("lock")),
        (Box::new(SimDisk::new(1, SimDiskOptions::default())), PathBuf::from("/data/lock")),
    ];
    for (disk, path) in disks {
        let held = disk.lock(&path).unwrap();
        assert_eq!(disk.lock(&path).err().unwrap().kind(), io::ErrorKind::WouldBlock);
        drop(held);
        disk.lock(&path).unwrap();
    }
}

async fn open(dir: &Path) -> (Log, Vec<ottla_storage::log::RecoveredReplica>) {
    Log::open(Arc::new(RealDisk), dir, small_options(None), Vec::new(), &mut Seen::default()).await.unwrap()
}

/// A copy of the directory as a killed process leaves it: whatever was written, synced or not.
fn copy(from: &Path) -> Scratch {
    let to = Scratch::new();
    for entry in RealDisk.list(from).unwrap() {
        // A segment that was unlinked meanwhile is not copied.
        let _ = std::fs::copy(from.join(&entry.name), to.0.join(&entry.name));
    }
    to
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_on_the_real_disk_survives_kills_and_a_clean_stop() {
    for seed in 0..3 {
        let scratch = Scratch::new();
        let oracle = Oracle::default();
        let (log, _) = open(&scratch.0).await;
        let driver = tokio::task::unconstrained({
            let (log, oracle) = (log.clone(), oracle.clone());
            async move { run(&log, &oracle, &RecoveryPoints::default(), 5, 60, seed).await }
        });
        driver.await;
        // Killed here: no clean end, and writes without a waiting caller.
        let killed = copy(&scratch.0);
        let moment = oracle.moment();
        let (second, recovered) = open(&killed.0).await;
        check(&second, &recovered, &[], &oracle, &moment, &format!("seed {seed}, killed")).await;
        second.close().await.unwrap();
        log.close().await.unwrap();
        let (third, recovered) = open(&scratch.0).await;
        check(&third, &recovered, &[], &oracle, &oracle.moment(), &format!("seed {seed}, stopped")).await;
        for replica in &recovered {
            let ops = oracle.ops(ReplicaId(replica.id.0));
            assert_eq!(replica.last_log_id, ModelState::after(&ops).last());
        }
        third.close().await.unwrap();
    }
}
