//! A split of a shard, on disk: partitions that another replica serves from now on, with a crash at every write and sync.
//! What was acknowledged under either is there under the one that owns it, and the index is what the log says.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ottla_protocol::ids::Offset;

use super::crash::{Moments, check_index_files, check_partition, check_runs, observe};
use super::toy::{
    self, Accepted, DIR, Model, Toy, accepted, batch, entry, open, partition, random, read_on, split_of, write,
};
use crate::data_dir::identity::LINEAGE_FORMAT_VERSION;
use crate::data_dir::{DataDir, RecoveredReplica, SplitCut};
use crate::entry::{Entry, Verdict};
use crate::ids::{LogId, ReplicaId};
use crate::index::ExtentKey;
use crate::log::GroupCreation;
use crate::read::{ReadError, ReadRequest, Wanted};
use ottla_env::disk::Disk;
use ottla_env::sim;
use ottla_env::sim::disk::{Crash, SimDisk, SimDiskOptions, Tear};

const PARENT: u64 = 2;
const CHILD: u64 = 4;
/// The partition that the child takes.
const MOVED: i32 = 1;

/// The entries that are committed.
#[derive(Debug, Clone, Default)]
struct Committed {
    parent: Vec<Entry>,
    /// How many of them have to be here; of the others some may be.
    durable: usize,
    child: Vec<Entry>,
}

/// What both replicas have, by what they applied.
#[derive(Default)]
struct Expected {
    parent: Model,
    child: Option<(Model, LogId)>,
    kept: Accepted,
    moved: Accepted,
}

impl Committed {
    fn is_durable(&mut self) {
        self.durable = self.parent.len();
    }

    fn append(&mut self, entries: Vec<Entry>) {
        self.parent.extend(entries);
        self.is_durable();
    }
}

impl Expected {
    fn after(committed: &Committed) -> Self {
        let mut expected = Self::default();
        for entry in &committed.parent {
            let ends = expected.parent.partitions.get(&MOVED).copied();
            let verdicts = expected.parent.apply(entry);
            expected.note(entry, &verdicts);
            if split_of(entry).is_some() {
                expected.child = Some((Model::of_child(MOVED, ends.unwrap()), entry.log_id));
            }
        }
        for entry in &committed.child {
            let verdicts = expected.child.as_mut().unwrap().0.apply(entry);
            expected.note(entry, &verdicts);
        }
        expected
    }

    fn note(&mut self, entry: &Entry, verdicts: &[Verdict]) {
        for (index, line) in accepted(entry, verdicts) {
            if index == MOVED { self.moved.push(line) } else { self.kept.push(line) }
        }
    }
}

/// A parent and its child in one directory.
struct Family {
    directory: Arc<DataDir>,
    parent: Arc<Toy>,
    child: Option<Arc<Toy>>,
    /// A value of so many bytes makes the child's state longer.
    padding_bytes: usize,
    /// False: splits are left where the child has no state yet.
    commits: bool,
}

impl Family {
    /// Applies the parent's split, which is durable; makes it real as far as it is not.
    async fn split(&mut self, entry: &Entry, found: Option<&RecoveredReplica>) {
        let (directory, id) = (Arc::clone(&self.directory), ReplicaId(CHILD));
        // What was applied before belongs to the cut before, if one was taken.
        let ends = self.parent.model().partitions[&MOVED];
        self.parent.apply(entry);
        self.parent.set_splits(true);
        let key = self.parent.key(MOVED);
        let moved = directory.move_partitions(self.parent.log.id(), id, &[partition(MOVED)]);
        assert_eq!(
            (moved.as_slice(), directory.extent(id, partition(MOVED))),
            (&[key][..], key),
            "they are served at once"
        );
        // No more of the parent's than any other's.
        self.parent.drop_partition(MOVED);
        directory.checkpoint_now().await.unwrap();
        let log = match found {
            Some(found) => {
                assert_eq!((found.applied, found.unseeded), (None, Some(entry.log_id)));
                directory.replica_log(id).unwrap()
            }
            None => {
                let payload = Bytes::from_static(b"child");
                let creation = GroupCreation { replica: id, payload, vote: None, purged: Some(entry.log_id) };
                directory.create_child(self.parent.log.id(), entry.log_id.index, creation).await.unwrap()
            }
        };
        if !self.commits {
            return;
        }
        let child = Toy::of_child(&directory, log, Model::of_child(MOVED, ends), entry.log_id);
        let (parent_cut, mut child_cut) = (self.parent.cut().unwrap(), child.cut().unwrap());
        if self.padding_bytes > 0 {
            let value = Some(Bytes::from(vec![0; self.padding_bytes]));
            child_cut.changes.push((Bytes::copy_from_slice(&99_i32.to_be_bytes()), value));
        }
        let cut = SplitCut { parent: parent_cut, child: child_cut, moved };
        directory.commit_split(cut).await.unwrap();
        [&self.parent, &child].into_iter().for_each(|toy| toy.set_splits(false));
        self.child = Some(child);
    }

    /// Reads everything through its owner.
    async fn check(&self, committed: &Committed) {
        let expected = Expected::after(committed);
        assert_eq!(self.parent.model().partitions, expected.parent.partitions);
        let (next, log_start) = expected.parent.partitions[&0];
        check_partition(&self.parent, 0, &expected.kept, next, log_start).await;
        self.check_moved(&expected).await;
    }

    async fn check_moved(&self, expected: &Expected) {
        match (&self.child, &expected.child) {
            (Some(child), Some((model, _))) => {
                let (next, log_start) = model.partitions[&MOVED];
                assert_eq!(child.model().partitions, model.partitions);
                check_partition(child, MOVED, &expected.moved, next, log_start).await;
            }
            (None, None) => {
                let Some((next, log_start)) = expected.parent.partitions.get(&MOVED) else { return };
                check_partition(&self.parent, MOVED, &expected.moved, *next, *log_start).await;
            }
            (child, _) => panic!("a child is here: {}", child.is_some()),
        }
    }
}

/// Writes a long batch, of which and of whose forerunners most expires, and frees what that allows.
async fn write_long(toy: &Toy, index: u64) {
    let long = entry(1, index, vec![(0, batch(index, 1, 9_000))], "trim 0");
    toy.write(vec![long]).await;
    toy.directory.maintain_now().await.unwrap();
    if let Some(kept) = toy.directory.oldest_kept(toy.log.id()) {
        toy.log.purge(kept).await.unwrap();
    }
}

/// A parent that is split in the middle of its life; every moment is kept.
async fn history(sim: &SimDisk, steps: u64, padding_bytes: usize, moments: &Moments<Committed>) -> Family {
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let (directory, _) = open(&disk, toy::shared_segments()).await;
    // A later split of a directory does not wait for this.
    if sim::random_below(2) == 0 {
        directory.require_format(LINEAGE_FORMAT_VERSION).await.unwrap();
    }
    let parent = Toy::create(&directory, PARENT).await;
    let mut family = Family { directory, parent, child: None, padding_bytes, commits: true };
    let first = entry(1, 1, vec![(0, batch(1, 1, 9)), (MOVED, batch(2, 2, 9))], "");
    write(&family.parent, |entries| moments.lock().0.append(entries), vec![first]).await;
    for step in 0..steps {
        if step == steps / 3 {
            // Committed by other replicas: applied here before it is durable. They take several turns of the log's writer,
            // so that a creation that did not wait for them would overtake the split.
            let next = moments.lock().0.parent.len() as u64 + 1;
            let large = |index| entry(1, index, vec![(MOVED, batch(index, 1, 9_000))], "");
            let mut entries: Vec<Entry> = (next..next + 24).map(large).collect();
            let split = entry(1, next + entries.len() as u64, Vec::new(), &format!("split {MOVED}"));
            entries.push(split.clone());
            moments.lock().0.parent.extend(entries.clone());
            let durable = family.parent.append(entries.clone());
            entries.pop();
            entries.iter().for_each(|entry| family.parent.apply(entry));
            family.split(&split, None).await;
            durable.await.unwrap().unwrap();
            moments.lock().0.is_durable();
        }
        match (sim::random_below(12), &family.child) {
            (0, _) => family.directory.checkpoint_now().await.unwrap(),
            (1, _) => family.directory.maintain_now().await.unwrap(),
            (2, _) => family.directory.rewrite_now().await.unwrap(),
            (3..8, Some(child)) => {
                let split = moments.lock().0.parent.iter().find(|entry| split_of(entry).is_some()).unwrap().log_id;
                let next = split.index.0 + moments.lock().0.child.len() as u64 + 1;
                write(child, |entries| moments.lock().0.child.extend(entries), random(2, next, &[MOVED])).await;
            }
            (_, child) => {
                let next = moments.lock().0.parent.len() as u64 + 1;
                let partitions: &[i32] = if child.is_some() { &[0] } else { &[0, MOVED] };
                let entries = random(1, next, partitions);
                write(&family.parent, |entries| moments.lock().0.append(entries), entries).await;
            }
        }
    }
    family
}

/// Opens the directory after a crash; what was there besides counts as acknowledged from now on.
async fn recovered(disk: &Arc<dyn Disk>, committed: &mut Committed) -> Family {
    let (directory, found) = open(disk, toy::shared_segments()).await;
    assert!(found.iter().all(|replica| replica.lost.is_none()), "{found:?}");
    let replica = |id: u64| found.iter().find(|replica| replica.id == ReplicaId(id));
    let (parent, child) = (replica(PARENT).unwrap(), replica(CHILD));
    let last = usize::try_from(parent.last_log_id.map_or(0, |id| id.index.0)).unwrap();
    assert!(last >= committed.durable, "entries up to {} were durable, {last} are there", committed.durable);
    committed.parent.truncate(last);
    let toy = Toy::recover(&directory, parent);
    let mut family = Family { directory, parent: toy, child: None, padding_bytes: 0, commits: true };
    let applied = usize::try_from(parent.applied.map_or(0, |id| id.index.0)).unwrap();
    assert_eq!(Model::restored(&parent.state), Model::after(&committed.parent[..applied]));
    for entry in read_on(&family.parent, applied as u64 + 1, parent.last_log_id).await {
        let at = usize::try_from(entry.log_id.index.0 - 1).unwrap();
        match committed.parent.get(at) {
            Some(known) => assert!(entry == *known),
            None => committed.parent.push(entry.clone()),
        }
        match split_of(&entry) {
            Some(_) => family.split(&entry, child).await,
            None => family.parent.apply(&entry),
        }
    }
    let Some((_, split)) = Expected::after(&Committed { child: Vec::new(), ..committed.clone() }).child else {
        assert!(child.is_none(), "a child of a split that is not there");
        return family;
    };
    let applied = child.and_then(|child| child.applied);
    if family.child.is_none() {
        let child = child.expect("its parent is past the split");
        assert_eq!((child.unseeded, applied >= Some(split)), (None, true));
        family.child = Some(Toy::recover(&family.directory, child));
    }
    let toy = family.child.as_ref().unwrap();
    let next = applied.map_or(split.index.0, |id| id.index.0) + 1;
    for entry in read_on(toy, next, child.and_then(|child| child.last_log_id).or(Some(split))).await {
        let at = usize::try_from(entry.log_id.index.0 - split.index.0 - 1).unwrap();
        match committed.child.get(at) {
            Some(known) => assert!(entry == *known),
            None => committed.child.push(entry.clone()),
        }
        toy.apply(&entry);
    }
    family
}

/// A directory after a crash has everything, and goes on: also without the parent.
///
/// `at_once`: the parent goes before another checkpoint is made.
async fn check(sim: SimDisk, mut committed: Committed, at_once: bool) -> bool {
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let family = recovered(&disk, &mut committed).await;
    family.check(&committed).await;
    check_index_files(&disk, &family.directory).await;
    if !at_once {
        family.directory.maintain_now().await.unwrap();
        family.directory.rewrite_now().await.unwrap();
        family.check(&committed).await;
    }
    check_index_files(&disk, &family.directory).await;
    check_runs(&disk, &family.directory).await;
    let expected = Expected::after(&committed);
    if family.child.is_some() {
        family.directory.remove_replica(family.parent.log.id()).await.unwrap();
        without_newest(&sim, &expected).await;
        for _ in 0..3 {
            family.directory.maintain_now().await.unwrap();
        }
        family.check_moved(&expected).await;
        let key = ExtentKey::of(ReplicaId(PARENT), partition(0));
        assert_eq!(family.directory.bytes_of(key), 0, "what the parent still had is dead");
        check_index_files(&disk, &family.directory).await;
        without_indexes(disk, family, &expected).await;
        return true;
    }
    assert_eq!(family.directory.poisoned(), None);
    false
}

/// The parent is gone, and its frames are all that tells where the child's batches lie.
async fn without_indexes(disk: Arc<dyn Disk>, family: Family, expected: &Expected) {
    let Family { directory, parent, child, .. } = family;
    directory.close().await.unwrap();
    drop((directory, parent, child));
    let log = Path::new(DIR).join("log");
    for file in disk.list(&log).unwrap().into_iter().filter(|file| file.name.ends_with(".idx")) {
        disk.unlink(&log.join(file.name)).unwrap();
    }
    let (directory, found) = open(&disk, toy::shared_segments()).await;
    let [child] = &found[..] else { panic!("{found:?}") };
    let child = Toy::recover(&directory, child);
    let (next, log_start) = child.model().partitions[&MOVED];
    check_partition(&child, MOVED, &expected.moved, next, log_start).await;
    assert_eq!(directory.poisoned(), None);
}

/// The newest checkpoint is damaged right after the parent went: the one before it has the child, too.
async fn without_newest(sim: &SimDisk, expected: &Expected) {
    let newest = Disk::list(sim, &Path::new(DIR).join("state")).unwrap().pop().unwrap();
    let damaged = sim.image().crash(Crash::Process, 8);
    damaged.flip_bit(&Path::new(DIR).join("state").join(&newest.name), 20, 2).unwrap();
    let disk: Arc<dyn Disk> = Arc::new(damaged);
    let (directory, found) = open(&disk, toy::shared_segments()).await;
    let [child] = &found[..] else { panic!("{found:?}") };
    assert_eq!((&child.lost, child.unseeded, child.id), (&None, None, ReplicaId(CHILD)));
    let toy = Toy::recover(&directory, child);
    for entry in read_on(&toy, child.applied.unwrap().index.0 + 1, child.last_log_id).await {
        toy.apply(&entry);
    }
    let (next, log_start) = expected.child.as_ref().unwrap().0.partitions[&MOVED];
    check_partition(&toy, MOVED, &expected.moved, next, log_start).await;
}

/// Crash points checked, and how many of them had a child.
fn crash_everywhere(seed: u64, steps: u64) -> (usize, usize) {
    let tear = [Tear::Pages, Tear::Sectors, Tear::Garbage][usize::try_from(seed % 3).unwrap()];
    let report = sim::run(seed, move || async move {
        let sim = SimDisk::new(seed, SimDiskOptions { tear, ..SimDiskOptions::default() });
        let moments: Moments<Committed> = Arc::default();
        observe(&sim, &moments);
        drop(history(&sim, steps, 0, &moments).await);
        sim.stop_observing();
        let mut all = std::mem::take(&mut moments.lock().1);
        all.retain(|(committed, _)| !committed.parent.is_empty());
        let (points, mut split) = (all.len(), 0);
        for (number, (committed, image)) in all.into_iter().enumerate() {
            let crash = if number % 4 == 0 { Crash::Process } else { Crash::Power };
            let image = image.crash(crash, seed ^ number as u64);
            split += usize::from(check(image, committed, number % 2 == 0).await);
        }
        (points, split)
    });
    report.output
}

#[test]
fn a_crash_at_every_write_and_sync_of_a_split_loses_nothing_acknowledged() {
    let (mut points, mut split) = (0, 0);
    for seed in 0..6 {
        let one = crash_everywhere(seed, 60);
        (points, split) = (points + one.0, split + one.1);
    }
    println!("{points} crash points, {split} of them with a child");
    assert!(points - split > 100 && split > 300, "{points} crash points, {split} with a child");
}

/// Its state did not fit behind what the generation held.
#[test]
fn a_parent_can_go_as_soon_as_the_split_is_real() {
    sim::run(8, || async {
        let sim = SimDisk::new(8, SimDiskOptions::default());
        let moments: Moments<Committed> = Arc::default();
        let family = history(&sim, 3, 6 << 20, &moments).await;
        family.directory.remove_replica(ReplicaId(PARENT)).await.unwrap();
        let committed = moments.lock().0.clone();
        without_newest(&sim, &Expected::after(&committed)).await;
    });
}

/// All checkpoints are gone with the child's state, which none had: nothing waits for what only the parent can seed.
#[test]
fn a_child_without_a_state_holds_back_no_checkpoint() {
    sim::run(9, || async {
        let sim = SimDisk::new(9, SimDiskOptions::default());
        let disk: Arc<dyn Disk> = Arc::new(sim.clone());
        let (directory, _) = open(&disk, toy::shared_segments()).await;
        let parent = Toy::create(&directory, PARENT).await;
        let mut family = Family { directory, parent, child: None, padding_bytes: 0, commits: false };
        let mut committed = Committed::default();
        let first = entry(1, 1, vec![(0, batch(1, 1, 9)), (MOVED, batch(2, 2, 9))], "");
        let split = entry(1, 2, Vec::new(), &format!("split {MOVED}"));
        family.parent.append(vec![first.clone(), split.clone()]).await.unwrap().unwrap();
        family.parent.apply(&first);
        family.split(&split, None).await;
        committed.append(vec![first, split]);
        let crashed = sim.image().crash(Crash::Power, 9);
        let state = Path::new(DIR).join("state");
        for file in Disk::list(&crashed, &state).unwrap() {
            Disk::unlink(&crashed, &state.join(file.name)).unwrap();
        }
        assert!(check(crashed, committed, false).await);
    });
}

/// The bytes of a removed child are dead, and no replica owns them, until no file holds them and the child's row goes.
#[test]
fn what_an_owner_leaves_is_never_the_truth_of_whom_it_came_for() {
    sim::run(7, || async {
        let sim = SimDisk::new(7, SimDiskOptions::default());
        let moments: Moments<Committed> = Arc::default();
        let mut family = history(&sim, 60, 0, &moments).await;
        let committed = moments.lock().0.clone();
        let key = family.child.take().unwrap().key(MOVED);
        assert_eq!(key, ExtentKey::of(ReplicaId(PARENT), partition(MOVED)), "the bytes keep their name");
        let directory = &family.directory;
        directory.remove_replica(ReplicaId(CHILD)).await.unwrap();
        assert_eq!(directory.bytes_of(key), 0, "what its owner leaves is dead, whoever wrote it");
        let request = ReadRequest {
            key,
            from: Offset(0),
            up_to: Offset(9),
            bytes_max: 1,
            at_least_one: true,
            wanted: Wanted::All,
        };
        assert!(matches!(directory.export(request).await, Err(ReadError::Moved(_))));
        let (next, log_start) = family.parent.model().partitions[&0];
        check_partition(&family.parent, 0, &Expected::after(&committed).kept, next, log_start).await;
        let first = committed.parent.len() as u64 + 1;
        for index in first..first + 40 {
            write_long(&family.parent, index).await;
            directory.rewrite_now().await.unwrap();
        }
        directory.maintain_now().await.unwrap();
        assert_eq!(
            directory.checkpoint.lock().await.newest().owners.rows().count(),
            0,
            "its row goes with the last file"
        );
        assert_eq!(directory.index.owner(key), Some(ReplicaId(PARENT)));
    });
}

/// Without a checkpoint what was purged is gone. A cut of another replica writes down that it is purged, and no state.
#[test]
fn a_replica_that_lost_its_state_is_never_taken_for_a_child() {
    sim::run(10, || async {
        let sim = SimDisk::new(10, SimDiskOptions::default());
        let disk: Arc<dyn Disk> = Arc::new(sim.clone());
        let (directory, _) = open(&disk, toy::shared_segments()).await;
        directory.require_format(LINEAGE_FORMAT_VERSION).await.unwrap();
        let toy = Toy::create(&directory, PARENT).await;
        for index in 1..60 {
            write_long(&toy, index).await;
        }
        assert!(directory.stats().unlinked_segments > 0);
        directory.close().await.unwrap();
        drop((directory, toy));
        let state = Path::new(DIR).join("state");
        for file in disk.list(&state).unwrap() {
            disk.unlink(&state.join(file.name)).unwrap();
        }
        for round in 0..3 {
            let (directory, found) = open(&disk, toy::shared_segments()).await;
            let [replica] = &found[..] else { panic!("{found:?}") };
            assert_eq!((replica.lost.is_some(), replica.unseeded), (true, None));
            let other = Toy::create(&directory, 10 + round).await;
            directory.remove_replica(other.log.id()).await.unwrap();
            directory.close().await.unwrap();
        }
    });
}
