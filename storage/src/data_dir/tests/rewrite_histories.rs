//! Random histories over many lives: appends, retention, deleted partitions, rewrites that run beside them, checkpoints,
//! purges, a crash between any two of them, damage of the newest checkpoint, against what the entries themselves say.

use std::path::Path;
use std::sync::Arc;

use ottla_model::{is_one_life, lives_from};

use super::crash::{Acknowledged, check_life};
use super::rewrite::disk;
use super::toy::{DIR, Toy, batch, entry, options};
use crate::data_dir::unlink::Unlinking;
use crate::entry::Entry;
use ottla_env::disk::Disk;
use ottla_env::sim::disk::{Crash, Tear};
use ottla_env::{rt, sim};

/// One random step of a life.
async fn step(toy: &Arc<Toy>, entries: &mut Vec<Entry>, seed: u64) {
    let below = sim::random_below;
    let next = entries.len() as u64 + 1;
    let directory = &toy.directory;
    match below(30) {
        0 => directory.checkpoint_now().await.unwrap(),
        1 | 2 => directory.maintain_now().await.unwrap(),
        3 => {
            let directory = Arc::clone(directory);
            drop(rt::spawn(async move { directory.rewrite_now().await }));
        }
        4 => {
            directory.rewrite_now().await.unwrap();
            directory.unlink_dead(Unlinking::AtOnce).await.unwrap();
            directory.unlink_runs(Unlinking::AtOnce).await.unwrap();
        }
        5 | 6 => {
            if let Some(kept) = directory.oldest_kept(toy.log.id()) {
                toy.log.purge(kept).await.unwrap();
            }
        }
        _ => {
            let command = match below(12) {
                0..3 => format!("trim {}", below(3)),
                3 => format!("trim {}", below(5)),
                _ => String::new(),
            };
            let one = |number: u64| {
                let bytes = usize::try_from(below(6000)).unwrap();
                let partition = if below(8) == 0 { 3 + i32::try_from(below(2)).unwrap() } else { number as i32 };
                (partition, batch(seed * 1000 + next * 5 + number, 1 + below(3), bytes))
            };
            let batches = (0..1 + below(3)).map(one).collect();
            let entry = entry(1, next, batches, &command);
            toy.write(vec![entry.clone()]).await;
            entries.push(entry);
        }
    }
}

/// How often a directory crashes.
const LIVES: u64 = 4;
const STEPS_PER_LIFE: u64 = 80;

/// Jobs done and files unlinked over all lives of a directory.
fn lives_of(seed: u64) -> (u64, u64) {
    let report = sim::run(seed, move || async move {
        let tear = [Tear::Pages, Tear::Sectors, Tear::Garbage][usize::try_from(seed % 3).unwrap()];
        let (mut sim, _) = disk(seed, tear);
        let mut acknowledged = Acknowledged::default();
        let (mut jobs, mut unlinked) = (0, 0);
        for life in 0..LIVES {
            let disk: Arc<dyn Disk> = Arc::new(sim.clone());
            let (directory, toys) = check_life(&disk, options(), &mut acknowledged).await;
            let toys = if toys.is_empty() {
                let mut created = Vec::new();
                for replica in 1..=2 {
                    created.push(Toy::create(&directory, replica).await);
                    acknowledged.0.insert(replica, (Vec::new(), None));
                }
                created
            } else {
                toys
            };
            for _ in 0..STEPS_PER_LIFE {
                let toy = &toys[usize::try_from(sim::random_below(2)).unwrap()];
                let (entries, _) = acknowledged.0.get_mut(&toy.log.id().0).unwrap();
                step(toy, entries, seed).await;
            }
            let stats = directory.stats();
            jobs += stats.rewrites;
            unlinked += stats.unlinked_segments + stats.unlinked_runs;
            let crash = if life % 2 == 0 { Crash::Power } else { Crash::Process };
            sim = sim.image().crash(crash, seed + life);
            let state = Path::new(DIR).join("state");
            let generations = Disk::list(&sim, &state).unwrap();
            if let ([_, newest], true) = (generations.as_slice(), seed.is_multiple_of(2)) {
                sim.flip_bit(&state.join(&newest.name), 20, 1).unwrap();
            }
        }
        let disk: Arc<dyn Disk> = Arc::new(sim.clone());
        check_life(&disk, options(), &mut acknowledged).await;
        (jobs, unlinked)
    });
    report.output
}

#[test]
fn random_lives_lose_nothing_and_bring_nothing_back() {
    let (mut jobs, mut unlinked) = (0, 0);
    let steps = LIVES * STEPS_PER_LIFE;
    lives_from(200, 12 * steps, steps, |random, _| {
        let (done, gone) = lives_of(random.seed());
        jobs += done;
        unlinked += gone;
    });
    println!("jobs: {jobs}, files unlinked: {unlinked}");
    assert!(is_one_life() || (jobs > 10 && unlinked > 20), "{jobs} jobs, {unlinked} files unlinked");
}
