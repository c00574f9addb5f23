//! A task of the directory that panics: the directory fails, appends are answered, and nothing is lost.

use std::sync::Arc;
use std::time::Duration;

use super::toy::{Model, Toy, batch, entry, open, options};
use crate::ids::RaftIndex;
use crate::log::EntryRange;
use ottla_env::disk::Disk;
use ottla_env::sim::disk::{Crash, SimDisk, SimDiskOptions};
use ottla_env::sim::{self, SimNode};
use ottla_env::{critical, rt};

fn task(name: &str) -> u64 {
    let tasks = sim::critical_tasks(SimNode::default());
    tasks.iter().find(|(_, known)| *known == name).unwrap_or_else(|| panic!("no task {name} among {tasks:?}")).0
}

/// If the task ended silently, no checkpoint would be written again, or appends would wait for ever.
#[test]
fn a_task_that_panics_fails_its_directory_and_everything_acknowledged_is_there_afterwards() {
    for (seed, name) in (1..).zip(["maintenance", "rewriter", "log-writer", "log-prepare"]) {
        sim::run(seed, move || async move {
            let sim_disk = SimDisk::new(seed, SimDiskOptions::default());
            let disk: Arc<dyn Disk> = Arc::new(sim_disk.clone());
            let (directory, _) = open(&disk, options()).await;
            let toy = Toy::create(&directory, 1).await;
            let entries: Vec<_> = (1..40).map(|index| entry(1, index, vec![(0, batch(index, 2, 500))], "")).collect();
            toy.write(entries.clone()).await;
            let counted = critical::panic_counts().get(name).copied().unwrap_or(0);
            sim::make_panic(task(name));
            rt::sleep(Duration::from_secs(1)).await;
            let why = directory.poisoned().unwrap_or_else(|| panic!("{name} panicked, and the directory goes on"));
            assert!(why.contains(name), "{why}");
            assert!(critical::panic_counts()[name] > counted, "it is counted");
            assert!(sim::take_panics().is_empty(), "it was asked for");
            assert!(!directory.accepts_writes());
            let refused = rt::timeout(Duration::from_secs(1), toy.append(vec![entry(1, 40, vec![], "")])).await;
            assert!(refused.unwrap().unwrap().is_err(), "{name}: an append is refused");
            drop((toy, directory));
            let disk: Arc<dyn Disk> = Arc::new(sim_disk.image().crash(Crash::Process, seed));
            let (directory, recovered) = open(&disk, options()).await;
            let toy = Toy::recover(&directory, &recovered[0]);
            let from = toy.applied().map_or(1, |id| id.index.0 + 1);
            let left = EntryRange { first: RaftIndex(from), last: RaftIndex(39) };
            toy.log.read(left, usize::MAX).await.unwrap().iter().for_each(|entry| toy.apply(entry));
            assert_eq!(toy.model().partitions, Model::after(&entries).partitions, "{name}");
        });
    }
}

/// Frames that the writer has in hand when it panics are answered, not forgotten.
#[test]
fn an_append_in_the_writers_hands_is_answered_when_it_panics() {
    sim::run(7, || async {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(7, SimDiskOptions::default()));
        let (directory, _) = open(&disk, options()).await;
        let toy = Toy::create(&directory, 1).await;
        sim::make_panic(task("log-writer"));
        let told = toy.append(vec![entry(1, 1, vec![(0, batch(1, 1, 10))], "")]);
        assert!(rt::timeout(Duration::from_secs(1), told).await.unwrap().unwrap().is_err());
    });
}
