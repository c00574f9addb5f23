//! The rewriter on the simulated disk: short-lived partitions beside one that never expires. A crash at every write and
//! sync of copying, checkpoint, replacement and unlink leaves every live batch at its offset, and no unneeded file.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::crash::{Moments, check, check_partitions, check_runs};
use super::toy::{Toy, batch, entry, open, options};
use crate::data_dir::unlink::Unlinking;
use crate::data_dir::{DataDir, DataDirOptions};
use crate::entry::Entry;
use crate::rewrite::RewriteOptions;
use ottla_env::disk::Disk;
use ottla_env::sim::disk::{Crash, SimDisk, SimDiskOptions, Tear};
use ottla_env::{rt, sim};

/// The partition that never expires.
pub(super) const NEVER: i32 = 2;

/// A directory with its replicas and what they acknowledged.
pub(super) struct Life {
    pub(super) directory: Arc<DataDir>,
    pub(super) toys: Vec<Arc<Toy>>,
    pub(super) moments: Moments,
    seed: u64,
}

impl Life {
    pub(super) async fn begin(disk: &Arc<dyn Disk>, replicas: u64, options: DataDirOptions) -> Self {
        let (directory, _) = open(disk, options).await;
        let moments: Moments = Arc::default();
        let mut toys = Vec::new();
        for replica in 1..=replicas {
            toys.push(Toy::create(&directory, replica).await);
            moments.lock().0.0.insert(replica, (Vec::new(), None));
        }
        Self { directory, toys, moments, seed: 0 }
    }

    pub(super) fn entries(&self, toy: &Toy) -> Vec<Entry> {
        self.moments.lock().0.0[&toy.log.id().0].0.clone()
    }

    pub(super) async fn write(&mut self, toy: usize, batches: Vec<(i32, u64, usize)>, command: &str) {
        let toy = Arc::clone(&self.toys[toy]);
        let index = self.entries(&toy).len() as u64 + 1;
        self.seed += 10;
        let seed = self.seed;
        let batches = batches
            .into_iter()
            .enumerate()
            .map(|(number, (partition, records, bytes))| (partition, batch(seed + number as u64, records, bytes)));
        let entry = entry(1, index, batches.collect(), command);
        toy.append(vec![entry.clone()]).await.unwrap().unwrap();
        self.moments.lock().0.0.get_mut(&toy.log.id().0).unwrap().0.push(entry.clone());
        toy.apply(&entry);
    }

    /// About `segments` segments of short-lived batches, with a little that never expires.
    pub(super) async fn fill(&mut self, segments: usize) {
        let toys = self.toys.len();
        for step in 0..segments * 11 {
            let toy = usize::try_from(sim::random_below(toys as u64)).unwrap();
            let mut batches = vec![(0, 1, 3000), (1, 2, 1000)];
            if step % 4 == 0 {
                batches.push((NEVER, 1 + sim::random_below(3), 100));
            }
            self.write(toy, batches, "").await;
        }
    }

    /// What is short-lived dies, but for a little.
    pub(super) async fn expire(&mut self) {
        for toy in 0..self.toys.len() {
            for partition in [0, 1, 0, 1] {
                self.write(toy, Vec::new(), &format!("trim {partition}")).await;
            }
        }
    }

    /// Checkpoints, and purges what they allow.
    pub(super) async fn settle(&self) {
        for _ in 0..3 {
            self.directory.maintain_now().await.unwrap();
            for toy in &self.toys {
                if let Some(kept) = self.directory.oldest_kept(toy.log.id()) {
                    toy.log.purge(kept).await.unwrap();
                }
            }
        }
    }

    pub(super) async fn check(&self) {
        for toy in &self.toys {
            check_partitions(toy, &self.entries(toy)).await;
        }
    }
}

pub(super) fn disk(seed: u64, tear: Tear) -> (SimDisk, Arc<dyn Disk>) {
    let sim = SimDisk::new(seed, SimDiskOptions { tear, ..SimDiskOptions::default() });
    (sim.clone(), Arc::new(sim))
}

#[test]
fn a_new_interval_holds_at_once_and_not_after_the_old_one() {
    sim::run(2, || async {
        let (_, disk) = disk(2, Tear::Pages);
        let mut life = Life::begin(&disk, 2, options()).await;
        life.fill(20).await;
        life.expire().await;
        life.settle().await;
        rt::sleep(Duration::from_secs(60)).await;
        assert_eq!(life.directory.stats().runs, 0, "the interval is an hour");
        let interval = Duration::from_secs(1);
        life.directory.set_rewrite_pace(&RewriteOptions { interval, ..options().rewrite });
        rt::sleep(Duration::from_secs(60)).await;
        assert!(life.directory.stats().runs > 0);
    });
}

#[test]
fn one_partition_that_never_expires_does_not_hold_every_segment() {
    sim::run(1, || async {
        let (_, disk) = disk(1, Tear::Pages);
        let mut life = Life::begin(&disk, 2, options()).await;
        life.fill(20).await;
        life.expire().await;
        life.settle().await;
        assert!(life.directory.stats().segments > 15, "every segment holds a batch that lives");
        life.directory.rewrite_now().await.unwrap();
        life.check().await;
        life.settle().await;
        life.check().await;
        check_runs(&disk, &life.directory).await;
        let stats = life.directory.stats();
        assert!(stats.segments <= 4, "{stats:?}");
        assert!(stats.runs > 0 && stats.rewrites > 0 && stats.rewritten_bytes > 0);
        assert!(stats.space_amplification() < 5.0, "{}", stats.space_amplification());
        // Whole runs of a topic that is deleted go without a copy.
        let copied = stats.rewritten_bytes;
        for toy in &life.toys {
            toy.drop_partition(NEVER);
        }
        life.settle().await;
        life.directory.rewrite_now().await.unwrap();
        life.settle().await;
        let stats = life.directory.stats();
        assert_eq!((stats.runs_of_class(&life.directory, 2), stats.rewritten_bytes), (0, copied));
        assert!(stats.unlinked_runs > 0);
    });
}

impl crate::data_dir::DataDirStats {
    fn runs_of_class(&self, directory: &DataDir, class: u8) -> usize {
        directory.runs.listed().iter().filter(|run| run.class.0 == class).count()
    }
}

/// Crash points tried.
fn crash_everywhere(seed: u64) -> usize {
    let tear = [Tear::Pages, Tear::Sectors, Tear::Garbage][usize::try_from(seed % 3).unwrap()];
    let report = sim::run(seed, move || async move {
        let (sim, disk) = disk(seed, tear);
        let mut life = Life::begin(&disk, 1 + seed % 2, options()).await;
        let watching = Arc::new(AtomicBool::new(false));
        let (seen, on) = (Arc::clone(&life.moments), Arc::clone(&watching));
        sim.observe(move |_, image| {
            if on.load(Ordering::Relaxed) {
                let mut seen = seen.lock();
                let acknowledged = seen.0.clone();
                seen.1.push((acknowledged, image));
            }
        });
        for round in 0..2 {
            life.fill(3).await;
            life.expire().await;
            life.settle().await;
            watching.store(true, Ordering::Relaxed);
            if round == 1 {
                // The log goes on meanwhile.
                let directory = Arc::clone(&life.directory);
                let rewriting = rt::spawn(async move { directory.rewrite_now().await });
                life.fill(1).await;
                rewriting.await.unwrap().unwrap();
            } else {
                life.directory.rewrite_now().await.unwrap();
                life.directory.unlink_dead(Unlinking::AtOnce).await.unwrap();
            }
            life.settle().await;
            watching.store(false, Ordering::Relaxed);
            life.check().await;
        }
        sim.stop_observing();
        assert!(life.directory.stats().rewrites >= 1, "{:?}", life.directory.stats());
        let all = std::mem::take(&mut life.moments.lock().1);
        let points = all.len();
        drop(life);
        for (number, (acknowledged, image)) in all.into_iter().enumerate() {
            let crash = if number % 4 == 0 { Crash::Process } else { Crash::Power };
            check(Arc::new(image.crash(crash, seed ^ number as u64)), &acknowledged).await;
        }
        points
    });
    report.output
}

#[test]
fn a_crash_at_every_step_of_a_rewrite_loses_nothing_and_leaves_nothing() {
    let points: usize = (100..103).map(crash_everywhere).sum();
    println!("crash points tested: {points}");
    assert!(points > 100, "{points}");
}
