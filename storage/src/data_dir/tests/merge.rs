//! A merge of two shards, on disk: one replica takes over all that another one serves, with a crash at every write and sync.
//! What was acknowledged under either is there under the survivor, and the index is what the log says.

use std::sync::Arc;

use super::crash::{Moments, check_index_files, check_partition, check_runs, observe};
use super::toy::{
    self, Accepted, Model, Toy, absorb_of, accepted, batch, entry, open, partition, random, read_on, write,
};
use crate::data_dir::{DataDir, MergeCut, RecoveredReplica};
use crate::entry::{Entry, Verdict};
use crate::ids::ReplicaId;
use crate::index::ExtentKey;
use ottla_env::disk::Disk;
use ottla_env::sim;
use ottla_env::sim::disk::{Crash, SimDisk, SimDiskOptions, Tear};

const SURVIVOR: u64 = 2;
const ABSORBED: u64 = 4;
/// The partition that the survivor takes over.
const MOVED: i32 = 1;

/// The entries that are committed.
#[derive(Debug, Clone, Default)]
struct Committed {
    survivor: Vec<Entry>,
    /// How many of them have to be here; of the others some may be.
    durable: usize,
    absorbed: Vec<Entry>,
    /// It was removed, or is being removed.
    removed: bool,
}

#[derive(Default)]
struct Expected {
    survivor: Model,
    absorbed: Model,
    kept: Accepted,
    moved: Accepted,
    is_merged: bool,
}

impl Expected {
    fn after(committed: &Committed) -> Self {
        let mut expected = Self::default();
        for entry in &committed.absorbed {
            let verdicts = expected.absorbed.apply(entry);
            expected.note(entry, &verdicts);
        }
        for entry in &committed.survivor {
            let verdicts = expected.survivor.apply(entry);
            expected.note(entry, &verdicts);
            expected.is_merged |= absorb_of(entry).is_some();
        }
        expected
    }

    fn note(&mut self, entry: &Entry, verdicts: &[Verdict]) {
        for (index, line) in accepted(entry, verdicts) {
            if index == MOVED { self.moved.push(line) } else { self.kept.push(line) }
        }
    }
}

/// Both replicas in one directory.
struct Pair {
    directory: Arc<DataDir>,
    survivor: Arc<Toy>,
    /// Until it is removed.
    absorbed: Option<Arc<Toy>>,
}

impl Pair {
    /// Applies the survivor's Absorb, and makes it real.
    async fn merge(&self, entry: &Entry) {
        let absorbed = self.absorbed.as_ref().expect("it is kept until the merge is real");
        let taken = absorb_of(entry).map(|(_, ends)| ends);
        assert_eq!(absorbed.model().partitions.get(&MOVED).copied(), taken, "what is taken over is there");
        self.survivor.apply(entry);
        [&self.survivor, absorbed].into_iter().for_each(|toy| toy.set_splits(true));
        let (from, to) = (absorbed.log.id(), self.survivor.log.id());
        let key = absorbed.key(MOVED);
        let moved = self.directory.move_partitions(from, to, &[partition(MOVED)]);
        assert_eq!((moved.as_slice(), self.survivor.key(MOVED)), (&[key][..], key), "they are served at once");
        absorbed.give_up();
        // Nothing of the two is taken by a checkpoint meanwhile.
        self.directory.checkpoint_now().await.unwrap();
        let (absorbed_cut, survivor) = (absorbed.cut_now().unwrap(), self.survivor.cut().unwrap());
        self.directory.commit_merge(MergeCut { absorbed: absorbed_cut, survivor, moved }).await.unwrap();
        [&self.survivor, absorbed].into_iter().for_each(|toy| toy.set_splits(false));
    }

    /// Reads everything through its owner.
    async fn check(&self, expected: &Expected) {
        assert_eq!(self.survivor.model().partitions, expected.survivor.partitions);
        let (next, log_start) = expected.survivor.partitions[&0];
        check_partition(&self.survivor, 0, &expected.kept, next, log_start).await;
        let owner = match (&self.absorbed, expected.is_merged) {
            (_, true) => &self.survivor,
            (Some(absorbed), false) => absorbed,
            (None, false) => panic!("it is gone before it was taken over"),
        };
        let model = if expected.is_merged { &expected.survivor } else { &expected.absorbed };
        let (next, log_start) = model.partitions[&MOVED];
        check_partition(owner, MOVED, &expected.moved, next, log_start).await;
    }
}

/// Two replicas, of which one takes over the other in the middle of their lives; every moment is kept.
async fn history(sim: &SimDisk, steps: u64, moments: &Moments<Committed>) {
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let (directory, _) = open(&disk, toy::shared_segments()).await;
    let survivor = Toy::create(&directory, SURVIVOR).await;
    let absorbed = Toy::create(&directory, ABSORBED).await;
    let acknowledge = |entries: Vec<Entry>| {
        let committed = &mut moments.lock().0;
        committed.survivor.extend(entries);
        committed.durable = committed.survivor.len();
    };
    write(&survivor, acknowledge, vec![entry(1, 1, vec![(0, batch(1, 1, 9))], "")]).await;
    let first = entry(1, 1, vec![(MOVED, batch(2, 2, 9))], "");
    write(&absorbed, |entries| moments.lock().0.absorbed.extend(entries), vec![first]).await;
    let mut pair = Pair { directory, survivor, absorbed: Some(absorbed) };
    let mut is_merged = false;
    for step in 0..steps {
        let next = moments.lock().0.survivor.len() as u64 + 1;
        if step == steps / 3 {
            // Committed by other replicas: applied here before it is durable.
            let (end, log_start) = pair.absorbed.as_ref().unwrap().model().partitions[&MOVED];
            let large = |index| entry(1, index, vec![(0, batch(index, 1, 9_000))], "");
            let mut entries: Vec<Entry> = (next..next + 12).map(large).collect();
            let absorb =
                entry(1, next + entries.len() as u64, Vec::new(), &format!("absorb {MOVED} {end} {log_start}"));
            entries.push(absorb.clone());
            moments.lock().0.survivor.extend(entries.clone());
            let durable = pair.survivor.append(entries.clone());
            entries.pop();
            entries.iter().for_each(|entry| pair.survivor.apply(entry));
            pair.merge(&absorb).await;
            durable.await.unwrap().unwrap();
            let committed = &mut moments.lock().0;
            committed.durable = committed.survivor.len();
            is_merged = true;
            continue;
        }
        if step == steps * 2 / 3 {
            moments.lock().0.removed = true;
            pair.directory.remove_replica(ReplicaId(ABSORBED)).await.unwrap();
            pair.absorbed = None;
        }
        match (sim::random_below(12), &pair.absorbed) {
            (0, _) => pair.directory.checkpoint_now().await.unwrap(),
            (1, _) => pair.directory.maintain_now().await.unwrap(),
            (2, _) => pair.directory.rewrite_now().await.unwrap(),
            (3..8, Some(absorbed)) => {
                let next = moments.lock().0.absorbed.len() as u64 + 1;
                let entries = match is_merged {
                    true => vec![entry(2, next, Vec::new(), "")],
                    false => random(1, next, &[MOVED]),
                };
                write(absorbed, |entries| moments.lock().0.absorbed.extend(entries), entries).await;
            }
            _ => {
                let partitions: &[i32] = if is_merged { &[MOVED, 0] } else { &[0] };
                write(&pair.survivor, acknowledge, random(3, next, partitions)).await;
            }
        }
    }
}

/// What the log holds behind the checkpoint; what was not acknowledged counts from now on.
async fn replayed(toy: &Toy, found: &RecoveredReplica, known: &mut Vec<Entry>) -> Vec<Entry> {
    let last = usize::try_from(found.last_log_id.map_or(0, |id| id.index.0)).unwrap();
    known.truncate(last);
    let applied = found.applied.map_or(0, |id| id.index.0);
    let entries = read_on(toy, applied + 1, found.last_log_id).await;
    for entry in &entries {
        match known.get(usize::try_from(entry.log_id.index.0 - 1).unwrap()) {
            Some(known) => assert!(entry == known),
            None => known.push(entry.clone()),
        }
    }
    entries
}

/// Opens the directory after a crash.
async fn recovered(disk: &Arc<dyn Disk>, committed: &mut Committed) -> Pair {
    let (directory, found) = open(disk, toy::shared_segments()).await;
    assert!(found.iter().all(|replica| replica.lost.is_none()), "{found:?}");
    let replica = |id: u64| found.iter().find(|replica| replica.id == ReplicaId(id));
    let survivor = replica(SURVIVOR).unwrap();
    let toy = Toy::recover(&directory, survivor);
    let mut pair = Pair { directory, survivor: toy, absorbed: None };
    match replica(ABSORBED) {
        Some(absorbed) => {
            let toy = Toy::recover(&pair.directory, absorbed);
            let acknowledged = committed.absorbed.len();
            for entry in replayed(&toy, absorbed, &mut committed.absorbed).await {
                toy.apply(&entry);
            }
            assert!(committed.absorbed.len() >= acknowledged);
            pair.absorbed = Some(toy);
        }
        None => assert!(committed.removed || committed.absorbed.is_empty(), "it is gone"),
    }
    for entry in replayed(&pair.survivor, survivor, &mut committed.survivor).await {
        match absorb_of(&entry) {
            Some(_) => pair.merge(&entry).await,
            None => pair.survivor.apply(&entry),
        }
    }
    assert!(committed.survivor.len() >= committed.durable);
    pair
}

/// A directory after a crash has everything, and goes on: also without the absorbed replica. True if it is merged.
async fn check(sim: SimDisk, mut committed: Committed) -> bool {
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let pair = recovered(&disk, &mut committed).await;
    let expected = Expected::after(&committed);
    if expected.survivor.partitions.is_empty() || expected.moved.is_empty() && expected.absorbed.partitions.is_empty() {
        return false;
    }
    pair.check(&expected).await;
    check_index_files(&disk, &pair.directory).await;
    pair.directory.maintain_now().await.unwrap();
    pair.directory.rewrite_now().await.unwrap();
    pair.check(&expected).await;
    check_index_files(&disk, &pair.directory).await;
    check_runs(&disk, &pair.directory).await;
    if expected.is_merged {
        if pair.absorbed.is_some() {
            pair.directory.remove_replica(ReplicaId(ABSORBED)).await.unwrap();
        }
        for _ in 0..3 {
            pair.directory.maintain_now().await.unwrap();
        }
        let key = ExtentKey::of(ReplicaId(ABSORBED), partition(MOVED));
        assert_eq!(pair.survivor.key(MOVED), key, "the bytes keep their name");
        let without = Pair { absorbed: None, ..pair };
        without.check(&expected).await;
        check_index_files(&disk, &without.directory).await;
        assert_eq!(without.directory.poisoned(), None);
    }
    expected.is_merged
}

#[test]
fn a_crash_at_every_write_and_sync_of_a_merge_loses_nothing_acknowledged() {
    let (mut points, mut merged) = (0, 0);
    for seed in 0..6_u64 {
        let tear = [Tear::Pages, Tear::Sectors, Tear::Garbage][usize::try_from(seed % 3).unwrap()];
        let report = sim::run(seed, move || async move {
            let sim = SimDisk::new(seed, SimDiskOptions { tear, ..SimDiskOptions::default() });
            let moments: Moments<Committed> = Arc::default();
            observe(&sim, &moments);
            history(&sim, 60, &moments).await;
            sim.stop_observing();
            let mut all = std::mem::take(&mut moments.lock().1);
            all.retain(|(committed, _)| !committed.survivor.is_empty() && !committed.absorbed.is_empty());
            let (points, mut merged) = (all.len(), 0);
            for (number, (committed, image)) in all.into_iter().enumerate() {
                let crash = if number % 4 == 0 { Crash::Process } else { Crash::Power };
                let image = image.crash(crash, seed ^ number as u64);
                merged += usize::from(check(image, committed).await);
            }
            (points, merged)
        });
        (points, merged) = (points + report.output.0, merged + report.output.1);
    }
    println!("{points} crash points, {merged} of them merged");
    assert!(points - merged > 100 && merged > 300, "{points} crash points, {merged} merged");
}
