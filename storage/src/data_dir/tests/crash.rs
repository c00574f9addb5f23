//! A crash at every write and sync of a history of appends, truncations, votes, rolls, checkpoints, `.idx` files, unlinks
//! and new replicas: what was acknowledged is there, at its offset, and the index is what the log says (I8).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use ottla_model::lives;
use ottla_protocol::ids::Offset;
use parking_lot::Mutex;

use super::toy::{DIR, Model, Toy, batch, entry, open, options};
use crate::checkpoint::CheckpointSource;
use crate::data_dir::index_files::index_path;
use crate::data_dir::{DataDir, DataDirOptions, RecoveredReplica};
use crate::entry::{Entry, Verdict, Vote};
use crate::ids::{RaftIndex, ReplicaId, Term};
use crate::log::EntryRange;
use crate::read::{ReadRequest, Wanted};
use crate::runs::files::rebuilt_index;
use crate::runs::{RUNS_DIR, run_index_path, run_path};
use ottla_env::disk::{Disk, OpenMode, read_exact_at};
use ottla_env::sim::disk::{Crash, DiskImage, SimDisk, SimDiskOptions, Tear};
use ottla_env::{rt, sim};

/// What is acknowledged, by replica: the entries from the first on, and the vote.
#[derive(Debug, Clone, Default)]
pub(super) struct Acknowledged(pub(super) BTreeMap<u64, (Vec<Entry>, Option<Vote>)>);

/// What is acknowledged, and the disk at each write and sync with what was acknowledged by then.
pub(super) type Moments<T = Acknowledged> = Arc<Mutex<(T, Vec<(T, DiskImage)>)>>;

/// Keeps every moment of the disk from now on.
pub(super) fn observe<T: Clone + Send + 'static>(sim: &SimDisk, moments: &Moments<T>) {
    let seen = Arc::clone(moments);
    sim.observe(move |_, image| {
        let mut seen = seen.lock();
        let acknowledged = seen.0.clone();
        seen.1.push((acknowledged, image));
    });
}

/// Reads the batches of a partition from its log start and compares them with what was accepted.
pub(super) async fn check_partition(
    toy: &Toy,
    index: i32,
    accepted: &[(i64, i64, i32, Bytes)],
    next: i64,
    log_start: i64,
) {
    let live: Vec<_> = accepted.iter().filter(|(_, end, _, _)| *end > log_start).collect();
    let mut expected = BytesMut::new();
    for (base, _, epoch, data) in &live {
        let at = expected.len();
        expected.extend_from_slice(data);
        expected[at..at + 8].copy_from_slice(&base.to_be_bytes());
        expected[at + 12..at + 16].copy_from_slice(&epoch.to_be_bytes());
    }
    let request = ReadRequest {
        key: toy.key(index),
        from: Offset(log_start),
        up_to: Offset(next),
        bytes_max: usize::MAX / 2,
        at_least_one: true,
        wanted: Wanted::All,
    };
    let plan = toy.directory.plan_read(request).await.unwrap();
    assert_eq!(plan.end_offset(), Offset(next), "partition {index}");
    let read = plan.read().await.unwrap();
    assert!(read == expected, "partition {index}: {} bytes read, {} expected", read.len(), expected.len());
    toy.directory.index.settle_all().unwrap();
    assert_eq!(toy.directory.bytes_of(toy.key(index)), expected.len() as u64, "partition {index}");
}

/// Batches accepted by partition: base offset, end offset, epoch, bytes.
fn accepted(entries: &[Entry]) -> BTreeMap<i32, Vec<(i64, i64, i32, Bytes)>> {
    let mut model = Model::default();
    let mut accepted: BTreeMap<i32, Vec<_>> = BTreeMap::new();
    for entry in entries {
        let verdicts = model.apply(entry);
        for (batch, verdict) in entry.batches.iter().zip(verdicts) {
            if let Verdict::Accepted { base_offset, epoch } = verdict {
                let count = i64::from(i32::from_be_bytes(batch.data[23..27].try_into().unwrap())) + 1;
                let line = (base_offset.0, base_offset.0 + count, epoch.0, batch.data.clone());
                accepted.entry(batch.partition.index).or_default().push(line);
            }
        }
    }
    accepted
}

/// Every `.idx` file is what its segment's frames and verdicts say, byte for byte. The one exception: a segment without a
/// live batch, kept because it decides on live batches elsewhere. Verdicts on its own batches, all dead, may be unlinked;
/// to keep them would chain every later segment to the oldest live record.
pub(super) async fn check_index_files(disk: &Arc<dyn Disk>, directory: &DataDir) {
    for segment in directory.log().segments() {
        let Ok(file) = disk.open(&index_path(Path::new(DIR), segment.sequence), OpenMode::Read) else { continue };
        let table = &directory.index.table;
        let kept_for_its_verdicts = table.live_bytes(segment.sequence) == 0;
        if !table.is_indexed(segment.sequence) || kept_for_its_verdicts {
            continue;
        }
        let mut bytes = vec![0; usize::try_from(file.bytes().unwrap()).unwrap()];
        read_exact_at(&*file, &mut bytes, 0).unwrap();
        let rebuilt = directory.rebuilt_image(segment).await.unwrap();
        assert!(bytes == rebuilt, "the index of segment {} is not what its frames say", segment.sequence);
    }
}

/// Every run's index is what the run says, byte for byte, and no file lies there that no kept checkpoint lists.
pub(super) async fn check_runs(disk: &Arc<dyn Disk>, directory: &DataDir) {
    let mut expected = BTreeSet::new();
    for (run, bytes) in directory.runs.all() {
        expected.extend([format!("{:016}.run", run.0), format!("{:016}.idx", run.0)]);
        let listing = directory.runs.get(run).unwrap().listing;
        let file = disk.open(&run_index_path(Path::new(DIR), run), OpenMode::Read).unwrap();
        let mut index = vec![0; usize::try_from(file.bytes().unwrap()).unwrap()];
        read_exact_at(&*file, &mut index, 0).unwrap();
        assert!(index == rebuilt_index(disk, Path::new(DIR), &listing).unwrap(), "the index of run {run}");
        assert_eq!(disk.open(&run_path(Path::new(DIR), run), OpenMode::Read).unwrap().bytes().unwrap(), bytes);
    }
    let found = disk.list(&Path::new(DIR).join(RUNS_DIR)).unwrap();
    let found: BTreeSet<String> = found.into_iter().map(|entry| entry.name).collect();
    assert_eq!(found, expected);
}

/// What was rewritten goes, and no run stays that nothing lists.
pub(super) async fn check_nothing_stays(disk: &Arc<dyn Disk>, directory: &DataDir) {
    directory.maintain_now().await.unwrap();
    directory.maintain_now().await.unwrap();
    directory.maintain_now().await.unwrap();
    check_runs(disk, directory).await;
    assert_eq!(directory.runs.leaving(), []);
    assert_eq!(directory.dead_runs(), []);
    let checkpoint = directory.checkpoint.lock().await;
    assert_eq!(checkpoint.newest().rewritten, BTreeSet::new(), "rewritten segments stay");
}

async fn check_replica(
    directory: &Arc<DataDir>,
    recovered: &RecoveredReplica,
    entries: &[Entry],
    vote: Option<Vote>,
) -> (Arc<Toy>, Vec<Entry>) {
    assert_eq!(recovered.lost, None);
    assert!(recovered.vote.map(|vote| vote.term) >= vote.map(|vote| vote.term), "a vote is never forgotten");
    let applied = recovered.applied.map_or(0, |id| id.index.0);
    assert!(applied <= entries.len() as u64, "a checkpoint passes what is acknowledged");
    let known = usize::try_from(applied).unwrap();
    assert_eq!(Model::restored(&recovered.state), Model::after(&entries[..known]));
    let last = recovered.last_log_id.map_or(0, |id| id.index.0);
    assert!(last >= entries.len() as u64, "entries up to {} were acknowledged, {last} are there", entries.len());
    let toy = Toy::recover(directory, recovered);
    let mut all = entries[..known].to_vec();
    while (all.len() as u64) < last {
        let range = EntryRange { first: RaftIndex(all.len() as u64 + 1), last: RaftIndex(last) };
        let read = toy.log.read(range, 1 << 20).await.unwrap();
        assert!(!read.is_empty());
        for entry in read {
            assert_eq!(entry.log_id.index.0, all.len() as u64 + 1);
            if let Some(known) = entries.get(all.len()) {
                assert!(entry == *known, "entry {} is not the one acknowledged", entry.log_id);
            }
            toy.apply(&entry);
            all.push(entry);
        }
    }
    check_partitions(&toy, &all).await;
    (toy, all)
}

/// Every partition reads as its entries say.
pub(super) async fn check_partitions(toy: &Toy, entries: &[Entry]) {
    let accepted = accepted(entries);
    for (index, (next, log_start)) in toy.model().partitions {
        check_partition(toy, index, &accepted[&index], next, log_start).await;
    }
}

pub(super) async fn check(disk: Arc<dyn Disk>, acknowledged: &Acknowledged) {
    let (directory, recovered) = open(&disk, options()).await;
    let mut toys = Vec::new();
    for (replica, (entries, vote)) in &acknowledged.0 {
        let found = recovered.iter().find(|found| found.id == ReplicaId(*replica));
        let found = found.unwrap_or_else(|| panic!("replica {replica} was acknowledged and is gone"));
        toys.push(check_replica(&directory, found, entries, *vote).await);
    }
    check_index_files(&disk, &directory).await;
    check_runs(&disk, &directory).await;
    // The next life goes on: a checkpoint, and what it makes possible.
    directory.maintain_now().await.unwrap();
    check_index_files(&disk, &directory).await;
    check_nothing_stays(&disk, &directory).await;
    directory.rewrite_now().await.unwrap();
    for (toy, entries) in &toys {
        check_partitions(toy, entries).await;
    }
    assert_eq!(directory.poisoned(), None);
}

/// Opens a directory after a crash and compares it with what was acknowledged; what was there besides counts from now on.
pub(super) async fn check_life(
    disk: &Arc<dyn Disk>,
    options: DataDirOptions,
    acknowledged: &mut Acknowledged,
) -> (Arc<DataDir>, Vec<Arc<Toy>>) {
    let (directory, recovered) = open(disk, options).await;
    let mut toys = Vec::new();
    for (replica, (entries, vote)) in &mut acknowledged.0 {
        let found = recovered.iter().find(|found| found.id == ReplicaId(*replica)).unwrap();
        let (toy, all) = check_replica(&directory, found, entries, *vote).await;
        *entries = all;
        toys.push(toy);
    }
    check_index_files(disk, &directory).await;
    check_runs(disk, &directory).await;
    (directory, toys)
}

fn random_entries(term: u64, step: u64, count: u64, first: u64) -> Vec<Entry> {
    let below = sim::random_below;
    let one = |index: u64| {
        let payload = if below(6) == 0 { format!("trim {}", below(3)) } else { String::new() };
        let batches = (0..below(4)).map(|b| {
            let size = usize::try_from(below(2000)).unwrap();
            (i32::try_from(below(3)).unwrap(), batch(step * 100 + index * 7 + b, 1 + below(3), size))
        });
        entry(term, index, batches.collect(), &payload)
    };
    (first..first + count).map(one).collect()
}

/// A random history; every moment of it is kept.
async fn history(sim: &SimDisk, steps: u64, moments: &Moments) -> Arc<DataDir> {
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let (directory, _) = open(&disk, options()).await;
    let mut toys: Vec<Arc<Toy>> = Vec::new();
    let acknowledge = |change: &dyn Fn(&mut Acknowledged)| change(&mut moments.lock().0);
    let below = sim::random_below;
    let mut term = 1;
    let mut rewriting = Vec::new();
    for step in 0..steps {
        if toys.is_empty() || (toys.len() < 3 && below(25) == 0) {
            let toy = Toy::create(&directory, toys.len() as u64 + 1).await;
            let id = toy.log.id().0;
            acknowledge(&|all| drop(all.0.insert(id, (Vec::new(), None))));
            toys.push(toy);
        }
        let toy = &toys[usize::try_from(below(toys.len() as u64)).unwrap()];
        let id = toy.log.id().0;
        let next = moments.lock().0.0[&id].0.len() as u64 + 1;
        match below(20) {
            0 => directory.checkpoint_now().await.unwrap(),
            1 => directory.maintain_now().await.unwrap(),
            4 => {
                let directory = Arc::clone(&directory);
                rewriting.push(rt::spawn(async move { directory.rewrite_now().await }));
            }
            2 => {
                term += 1;
                let vote = Vote { term: Term(term), voted_for: ReplicaId(id), committed: false };
                toy.log.save_vote(vote).await.unwrap();
                acknowledge(&|all| all.0.get_mut(&id).unwrap().1 = Some(vote));
            }
            3 => {
                // Entries that are never acknowledged give way to those of the next term.
                let waiting = toy.append(random_entries(term, step, 1 + below(3), next));
                if below(2) == 0 {
                    waiting.await.unwrap().unwrap();
                }
                toy.log.truncate_after(toy.applied()).await.unwrap();
                term += 1;
            }
            _ => {
                let entries = random_entries(term, step, 1 + below(3), next);
                toy.append(entries.clone()).await.unwrap().unwrap();
                acknowledge(&|all| all.0.get_mut(&id).unwrap().0.extend(entries.clone()));
                entries.iter().for_each(|entry| toy.apply(entry));
                let (id, releases) = (toy.log.id(), CheckpointSource::releases(&**toy));
                let contained = if releases { directory.checkpointed(id) } else { directory.oldest_kept(id) };
                if let Some(last) = contained
                    && below(4) == 0
                {
                    toy.log.purge(last).await.unwrap();
                }
            }
        }
    }
    for job in rewriting {
        job.await.unwrap().unwrap();
    }
    directory
}

/// Crash points checked and writes and syncs of the history.
fn crash_everywhere(seed: u64, steps: u64) -> (usize, u64) {
    let tear = [Tear::Pages, Tear::Sectors, Tear::Garbage][usize::try_from(seed % 3).unwrap()];
    let report = sim::run(seed, move || async move {
        let sim = SimDisk::new(seed, SimDiskOptions { tear, ..SimDiskOptions::default() });
        let moments: Moments = Arc::default();
        observe(&sim, &moments);
        drop(history(&sim, steps, &moments).await);
        sim.stop_observing();
        let (writes, syncs) = sim.operations();
        let all = std::mem::take(&mut moments.lock().1);
        let points = all.len();
        for (number, (acknowledged, image)) in all.into_iter().enumerate() {
            let crash = if number % 4 == 0 { Crash::Process } else { Crash::Power };
            check(Arc::new(image.crash(crash, seed ^ number as u64)), &acknowledged).await;
        }
        (points, writes + syncs)
    });
    report.output
}

#[test]
fn a_crash_at_every_write_and_sync_loses_nothing_acknowledged() {
    let (mut points, mut operations) = (0, 0);
    lives(360, 60, |random, steps| {
        let (tested, done) = crash_everywhere(random.seed(), steps);
        points += tested;
        operations += done;
    });
    println!("crash points tested: {points}, simulated writes + syncs: {operations}");
    assert!(points as u64 >= operations, "{points} of {operations}");
}

#[test]
fn without_index_files_and_checkpoints_every_record_is_still_there() {
    for seed in 20..24 {
        sim::run(seed, move || async move {
            let sim = SimDisk::new(seed, SimDiskOptions::default());
            let moments: Moments = Arc::default();
            let directory = history(&sim, 80, &moments).await;
            let nothing_unlinked = directory.stats().unlinked_segments == 0;
            directory.maintain_now().await.unwrap();
            directory.close().await.unwrap();
            let disk: Arc<dyn Disk> = Arc::new(sim.clone());
            let acknowledged = moments.lock().0.clone();
            for file in disk.list(&Path::new(DIR).join("log")).unwrap() {
                if file.name.ends_with(".idx") {
                    disk.unlink(&Path::new(DIR).join("log").join(&file.name)).unwrap();
                }
            }
            check(Arc::new(sim.image().crash(Crash::Process, 1)), &acknowledged).await;
            for file in disk.list(&Path::new(DIR).join("state")).unwrap() {
                disk.unlink(&Path::new(DIR).join("state").join(&file.name)).unwrap();
            }
            if nothing_unlinked && directory.stats().unlinked_segments == 0 {
                check(Arc::new(sim.image().crash(Crash::Process, 1)), &acknowledged).await;
            }
        });
    }
}

#[test]
fn damage_of_the_newest_checkpoint_costs_a_longer_replay_and_nothing_else() {
    let mut unlinked = 0;
    for seed in 40..50 {
        let report = sim::run(seed, move || async move {
            let sim = SimDisk::new(seed, SimDiskOptions::default());
            let moments: Moments = Arc::default();
            let directory = history(&sim, 400, &moments).await;
            let unlinked = directory.stats().unlinked_segments;
            let acknowledged = moments.lock().0.clone();
            let state = Path::new(DIR).join("state");
            let newest = Disk::list(&sim, &state).unwrap().pop().unwrap();
            for byte in [20, 4096 + 40] {
                let damaged = sim.image().crash(Crash::Process, seed);
                damaged.flip_bit(&state.join(&newest.name), byte, 2).unwrap();
                check(Arc::new(damaged), &acknowledged).await;
            }
            unlinked
        });
        unlinked += report.output;
    }
    assert!(unlinked > 0, "no history unlinked anything");
}
