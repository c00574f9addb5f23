//! Passes of compaction over many lives of a directory: keys, tombstones, transactions, retention, rewrites, checkpoints, purges, a crash
//! between any two of them and at every write of a pass, against a plain map of keys.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use ottla_model::{is_one_life, lives_from};
use ottla_protocol::batch::{BatchBuilder, BatchHeader, ControlRecord, NewRecord, encode_control_batch};
use ottla_protocol::compression::Codec;
use ottla_protocol::ids::Offset;
use ottla_protocol::records;

use super::crash::{Moments, check_index_files, check_nothing_stays, check_runs, observe};
use super::rewrite::disk;
use super::toy::{self, Accepted, Model, Toy, entry, open, options, partition};
use crate::compact::Pass;
use crate::data_dir::unlink::Unlinking;
use crate::data_dir::{Compaction, CompactionRequest, DataDir, DataDirOptions};
use crate::entry::Entry;
use crate::ids::RaftIndex;
use crate::read::{ReadRequest, Wanted};
use crate::rewrite::RewriteOptions;
use ottla_env::disk::Disk;
use ottla_env::sim;
use ottla_env::sim::disk::{Crash, Tear};

const REPLICA: u64 = 1;
const PARTITIONS: i32 = 2;
const PRODUCERS: i64 = 2;

/// What was acknowledged.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    pub(super) entries: Vec<Entry>,
    /// By partition and number.
    pub(super) attempted: BTreeMap<(i32, u64), Pass>,
    /// By partition: the newest that is done.
    pub(super) done: BTreeMap<i32, u64>,
}

/// A record's key and the number at the end of its value; none for a marker.
pub(super) type Held = Option<(Option<u64>, Option<u64>)>;

/// A partition as its entries say.
#[derive(Default)]
pub(super) struct Written {
    pub(super) batches: Accepted,
    next: i64,
    log_start: i64,
}

pub(super) fn written(entries: &[Entry]) -> BTreeMap<i32, Written> {
    let (mut model, mut all) = (Model::default(), BTreeMap::<i32, Written>::new());
    for entry in entries {
        let verdicts = model.apply(entry);
        for (index, line) in toy::accepted(entry, &verdicts) {
            all.entry(index).or_default().batches.push(line);
        }
    }
    for (index, (next, log_start)) in model.partitions {
        let of = all.entry(index).or_default();
        (of.next, of.log_start) = (next, log_start);
    }
    all
}

fn header(batch: &Bytes) -> BatchHeader {
    BatchHeader::parse(batch).unwrap()
}

pub(super) fn held_in(base: i64, batch: &Bytes) -> Vec<(i64, Held)> {
    let header = header(batch);
    if header.attributes.is_control() {
        return vec![(base, None)];
    }
    let opened = records::open(&header, batch, 1 << 20).unwrap();
    let key = |key: &[u8]| key.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let number = |value: &[u8]| u64::from_be_bytes(value[value.len() - 8..].try_into().unwrap());
    opened
        .iter()
        .map(|record| {
            let record = record.unwrap();
            (base + i64::from(record.offset_delta), Some((record.key.map(key), record.value.map(number))))
        })
        .collect()
}

/// 0 for a commit, 1 for an abort.
fn kind_of(marker: &Bytes) -> u8 {
    let opened = records::open(&header(marker), marker, 1 << 20).unwrap();
    let key = opened.iter().next().unwrap().unwrap().key.unwrap();
    u8::from(key[3] == 0)
}

impl Written {
    /// The first offset of an open transaction, or the end.
    fn last_stable(&self) -> i64 {
        let mut open = BTreeMap::new();
        for (base, _, _, batch) in &self.batches {
            let header = header(batch);
            if header.attributes.is_control() {
                open.remove(&header.producer_id);
            } else if header.attributes.is_transactional() {
                open.entry(header.producer_id).or_insert(*base);
            }
        }
        open.into_values().min().unwrap_or(self.next)
    }

    fn is_aborted(&self, at: usize) -> bool {
        let of = header(&self.batches[at].3);
        let is_marker = |(_, _, _, batch): &&(i64, i64, i32, Bytes)| {
            let header = header(batch);
            header.attributes.is_control() && header.producer_id == of.producer_id
        };
        let marker = self.batches[at..].iter().find(is_marker);
        of.attributes.is_transactional()
            && !of.attributes.is_control()
            && marker.is_some_and(|(_, _, _, m)| kind_of(m) == 1)
    }

    /// What is to be read from the log start on, by the definition of a pass.
    fn expected(&self, pass: Pass) -> BTreeMap<i64, Held> {
        let (mut all, mut last) = (BTreeMap::new(), BTreeMap::new());
        for (at, (base, _, _, batch)) in self.batches.iter().enumerate() {
            for (offset, held) in held_in(*base, batch) {
                if offset < pass.horizon.0 && self.is_aborted(at) {
                    continue;
                }
                if let (Some((Some(key), _)), true) = (&held, offset < pass.horizon.0) {
                    last.insert(*key, offset);
                }
                all.insert(offset, held);
            }
        }
        all.retain(|offset, held| {
            let is_kept = match held {
                _ if *offset >= pass.horizon.0 => true,
                None => *offset >= pass.cutoff.0,
                Some((None, _)) => false,
                Some((Some(key), value)) => {
                    last.get(key) == Some(offset) && (value.is_some() || *offset >= pass.cutoff.0)
                }
            };
            is_kept && *offset >= self.log_start
        });
        all
    }
}

/// What can be read from an offset to another; asserts that batches follow each other, or skip nothing but what is empty.
async fn read_all(toy: &Toy, index: i32, written: &Written, wanted: Wanted) -> BTreeMap<i64, Held> {
    let (mut all, mut at) = (BTreeMap::new(), written.log_start);
    while at < written.next {
        let request = ReadRequest {
            key: toy.key(index),
            from: Offset(at),
            up_to: Offset(written.next),
            bytes_max: 3_000,
            at_least_one: true,
            wanted,
        };
        let plan = toy.directory.plan_read(request).await.unwrap();
        assert!(plan.base_offset().is_some_and(|base| base.0 <= at), "partition {index}, {at}");
        let listed: Vec<_> = plan.indexed_batches().copied().collect();
        let mut bytes = plan.read().await.unwrap().freeze();
        for batch in listed {
            assert!(wanted == Wanted::WithRecords || batch.base_offset.0 <= at, "partition {index}, {at}: {batch:?}");
            at = batch.end_offset().0;
            all.extend(held_in(batch.base_offset.0, &bytes.split_to(batch.bytes as usize)));
        }
    }
    all.retain(|offset, _| *offset >= written.log_start);
    all
}

pub(super) async fn check(toy: &Toy, history: &History) {
    for (index, written) in written(&history.entries) {
        let number = toy.directory.pass_done(toy.log.id(), partition(index)).map_or(0, |done| done.number);
        let done = history.done.get(&index).copied().unwrap_or(0);
        assert!(number >= done, "partition {index}: pass {done} was done, {number} is there");
        let pass = history.attempted.get(&(index, number)).copied();
        let expected = written.expected(pass.unwrap_or(Pass { horizon: Offset(0), cutoff: Offset(0) }));
        for wanted in [Wanted::All, Wanted::WithRecords] {
            let found = read_all(toy, index, &written, wanted).await;
            let differs = |offset: &&i64| found.get(offset) != expected.get(offset);
            let offsets: BTreeSet<i64> = found.keys().chain(expected.keys()).copied().collect();
            let wrong: Vec<_> =
                offsets.iter().filter(differs).map(|at| (at, found.get(at), expected.get(at))).collect();
            assert!(wrong.is_empty(), "partition {index} after pass {number}, {pass:?}: {wrong:?}");
        }
    }
}

/// Of a map that holds all keys here, or one of them less.
fn some_map() -> usize {
    if sim::random_below(2) == 0 { 0 } else { options().rewrite.key_map_bytes }
}

/// Opens a directory after a crash, applies what its log has, and compares. Passes have a map of so many bytes from then on.
pub(super) async fn reopened(
    disk: &Arc<dyn Disk>,
    history: &mut History,
    key_map_bytes: usize,
) -> (Arc<DataDir>, Arc<Toy>) {
    let rewrite = RewriteOptions { key_map_bytes, ..options().rewrite };
    let (directory, recovered) = open(disk, DataDirOptions { rewrite, ..options() }).await;
    let Some(found) = recovered.first() else {
        assert!(history.entries.is_empty());
        let toy = Toy::create(&directory, REPLICA).await;
        return (directory, toy);
    };
    assert_eq!(found.lost, None);
    let applied = usize::try_from(found.applied.map_or(0, |id| id.index.0)).unwrap();
    let toy = Toy::recover(&directory, found);
    let behind = toy::read_on(&toy, applied as u64 + 1, found.last_log_id).await;
    behind.iter().for_each(|entry| toy.apply(entry));
    history.entries.truncate(applied);
    history.entries.extend(behind);
    check_index_files(disk, &directory).await;
    check_runs(disk, &directory).await;
    check(&toy, history).await;
    (directory, toy)
}

fn records_of(seed: u64) -> Bytes {
    let below = sim::random_below;
    let codec = if below(3) == 0 { Codec::Lz4 } else { Codec::None };
    let mut builder = BatchBuilder::new(codec);
    if below(3) == 0 {
        builder = builder.with_producer(below(PRODUCERS as u64) as i64, 0, 0).transactional();
    }
    for record in 0..1 + below(3) {
        let key = (below(20) > 0).then(|| vec![below(8) as u8; 2]);
        let value = (below(4) > 0).then(|| {
            let mut value = vec![7; usize::try_from(below(2_500)).unwrap()];
            value.extend((seed * 10 + record).to_be_bytes());
            value
        });
        let timestamp = (seed * 10) as i64;
        builder.push(&NewRecord { timestamp, key: key.as_deref(), value: value.as_deref(), headers: &[] });
    }
    builder.build().unwrap()
}

async fn append(toy: &Toy, history: &mut History) {
    let below = sim::random_below;
    let next = history.entries.len() as u64 + 1;
    let one = |number: u64| {
        let record = if below(2) == 0 {
            ControlRecord::Commit { coordinator_epoch: 1 }
        } else {
            ControlRecord::Abort { coordinator_epoch: 1 }
        };
        let data = match below(5) {
            0 => encode_control_batch(below(PRODUCERS as u64) as i64, 0, 5, record),
            _ => records_of(next * 5 + number),
        };
        (below(PARTITIONS as u64) as i32, data)
    };
    let batches = (0..1 + below(3)).map(one).collect();
    let command = if below(25) == 0 { format!("trim {}", below(PARTITIONS as u64)) } else { String::new() };
    let entry = entry(1, next, batches, &command);
    toy.write(vec![entry.clone()]).await;
    history.entries.push(entry);
}

/// The next pass over a partition, to somewhere below the last stable offset.
fn next_pass(index: i32, history: &mut History) -> Option<CompactionRequest> {
    let below = sim::random_below;
    let all = written(&history.entries);
    let written = all.get(&index)?;
    let former = history.attempted.range((index, 0)..(index + 1, 0)).next_back();
    let (number, former) =
        former.map_or((0, Pass { horizon: Offset(0), cutoff: Offset(0) }), |((_, number), pass)| (*number, *pass));
    let last_stable = written.last_stable();
    let ends: Vec<i64> = written.batches.iter().map(|(_, end, _, _)| *end).collect();
    let ends: Vec<i64> = ends.into_iter().filter(|end| *end >= former.horizon.0 && *end <= last_stable).collect();
    let horizon = *ends.get(usize::try_from(below(ends.len().max(1) as u64)).unwrap())?;
    let cutoff = former.cutoff.0 + below((former.horizon.0 - former.cutoff.0 + 1) as u64) as i64;
    let pass = Pass { horizon: Offset(horizon), cutoff: Offset(cutoff) };
    // Some are left out.
    let number = number + 1 + below(2);
    history.attempted.insert((index, number), pass);
    let decided_at = RaftIndex(history.entries.len() as u64);
    let (replica, partition) = (crate::ids::ReplicaId(REPLICA), partition(index));
    Some(CompactionRequest { replica, partition, number, pass, decided_at })
}

async fn compact(directory: &Arc<DataDir>, history: &mut History, moments: Option<&Moments<History>>) -> bool {
    let index = sim::random_below(PARTITIONS as u64) as i32;
    let Some(request) = next_pass(index, history) else { return false };
    if let Some(moments) = moments {
        moments.lock().0 = history.clone();
    }
    let outcome = directory.compact(&request).await.unwrap();
    assert!(matches!(outcome, Compaction::Done | Compaction::NotYet), "{outcome:?}");
    if outcome == Compaction::Done {
        history.done.insert(index, request.number);
    } else {
        history.attempted.remove(&(index, request.number));
    }
    outcome == Compaction::Done
}

async fn step(directory: &Arc<DataDir>, toy: &Toy, history: &mut History) -> bool {
    match sim::random_below(30) {
        0 => directory.checkpoint_now().await.unwrap(),
        1 => directory.maintain_now().await.unwrap(),
        2 => {
            directory.rewrite_now().await.unwrap();
            directory.unlink_dead(Unlinking::AtOnce).await.unwrap();
            directory.unlink_runs(Unlinking::AtOnce).await.unwrap();
        }
        3 => {
            if let Some(kept) = directory.oldest_kept(toy.log.id()) {
                toy.log.purge(kept).await.unwrap();
            }
        }
        4..7 => {
            if sim::random_below(3) > 0 {
                directory.checkpoint_now().await.unwrap();
            }
            return compact(directory, history, None).await;
        }
        _ => append(toy, history).await,
    }
    false
}

const LIVES: u64 = 4;
const STEPS_PER_LIFE: u64 = 80;

/// Passes that were done, and files that were unlinked.
fn lives_of(seed: u64) -> (u64, u64) {
    let report = sim::run(seed, move || async move {
        let tear = [Tear::Pages, Tear::Sectors, Tear::Garbage][usize::try_from(seed % 3).unwrap()];
        let (mut sim, _) = disk(seed, tear);
        let mut history = History::default();
        let (mut passes, mut unlinked) = (0, 0);
        for life in 0..LIVES {
            let disk: Arc<dyn Disk> = Arc::new(sim.clone());
            let (directory, toy) = reopened(&disk, &mut history, some_map()).await;
            for _ in 0..STEPS_PER_LIFE {
                passes += u64::from(step(&directory, &toy, &mut history).await);
            }
            check(&toy, &history).await;
            let stats = directory.stats();
            unlinked += stats.unlinked_segments + stats.unlinked_runs;
            let crash = if life % 2 == 0 { Crash::Power } else { Crash::Process };
            sim = sim.image().crash(crash, seed + life);
        }
        let disk: Arc<dyn Disk> = Arc::new(sim.clone());
        let (directory, toy) = reopened(&disk, &mut history, some_map()).await;
        check_nothing_stays(&disk, &directory).await;
        check(&toy, &history).await;
        check_index_files(&disk, &directory).await;
        (passes, unlinked)
    });
    report.output
}

#[test]
fn what_passes_keep_is_there_over_all_lives_and_nothing_else() {
    let (mut passes, mut unlinked) = (0, 0);
    let steps = LIVES * STEPS_PER_LIFE;
    lives_from(1_200, 8 * steps, steps, |random, _| {
        let (done, gone) = lives_of(random.seed());
        passes += done;
        unlinked += gone;
    });
    println!("passes: {passes}, files unlinked: {unlinked}");
    assert!(is_one_life() || (passes > 50 && unlinked > 20), "{passes} passes, {unlinked} files unlinked");
}

/// A crash at every write and sync of a pass, and of what follows it.
fn crashes_of(seed: u64) -> usize {
    let report = sim::run(seed, move || async move {
        let (sim, disk) = disk(seed, Tear::Pages);
        let mut history = History::default();
        let (directory, toy) = reopened(&disk, &mut history, some_map()).await;
        for _ in 0..25 {
            append(&toy, &mut history).await;
        }
        directory.maintain_now().await.unwrap();
        compact(&directory, &mut history, None).await;
        for _ in 0..10 {
            append(&toy, &mut history).await;
        }
        directory.checkpoint_now().await.unwrap();
        let moments: Moments<History> = Arc::default();
        moments.lock().0 = history.clone();
        observe(&sim, &moments);
        for _ in 0..2 {
            compact(&directory, &mut history, Some(&moments)).await;
            moments.lock().0 = history.clone();
        }
        directory.maintain_now().await.unwrap();
        directory.maintain_now().await.unwrap();
        let moments = std::mem::take(&mut moments.lock().1);
        let count = moments.len();
        for (number, (mut history, image)) in moments.into_iter().enumerate() {
            let crash = if number % 2 == 0 { Crash::Power } else { Crash::Process };
            let disk: Arc<dyn Disk> = Arc::new(image.crash(crash, seed + number as u64));
            let (directory, toy) = reopened(&disk, &mut history, some_map()).await;
            check_nothing_stays(&disk, &directory).await;
            check(&toy, &history).await;
        }
        count
    });
    report.output
}

#[test]
fn a_crash_at_any_write_of_a_pass_leaves_the_old_files_in_charge_or_the_new_ones() {
    let mut moments = 0;
    lives_from(1_300, 600, 150, |random, _| moments += crashes_of(random.seed()));
    assert!(is_one_life() || moments > 50, "{moments} moments");
}

#[test]
fn the_files_that_a_pass_has_replaced_go() {
    sim::run(7, || async {
        let (_, disk) = disk(7, Tear::Pages);
        let mut history = History::default();
        let (directory, toy) = reopened(&disk, &mut history, some_map()).await;
        for _ in 0..60 {
            append(&toy, &mut history).await;
        }
        // Twice, since every seventh batch is refused.
        for _ in 0..2 {
            let commit = ControlRecord::Commit { coordinator_epoch: 1 };
            let marker = |index| move |producer| (index, encode_control_batch(producer, 0, 5, commit));
            let markers = (0..PARTITIONS).flat_map(|index| (0..PRODUCERS).map(marker(index))).collect();
            let entry = entry(1, history.entries.len() as u64 + 1, markers, "");
            toy.write(vec![entry.clone()]).await;
            history.entries.push(entry);
        }
        let number = 1;
        directory.maintain_now().await.unwrap();
        let before: BTreeSet<u64> = directory.log().segments().into_iter().map(|segment| segment.sequence).collect();
        for (index, written) in written(&history.entries) {
            let pass = Pass { horizon: Offset(written.last_stable()), cutoff: Offset(0) };
            history.attempted.insert((index, number), pass);
            let (replica, partition) = (toy.log.id(), partition(index));
            let request = CompactionRequest {
                replica,
                partition,
                number,
                pass,
                decided_at: RaftIndex(history.entries.len() as u64),
            };
            assert_eq!(directory.compact(&request).await.unwrap(), Compaction::Done);
            assert_eq!(directory.compact(&request).await.unwrap(), Compaction::Done, "once is enough");
        }
        let kept = directory.oldest_kept(toy.log.id()).unwrap();
        toy.log.purge(kept).await.unwrap();
        check_nothing_stays(&disk, &directory).await;
        check(&toy, &history).await;
        // But for the one that was written to.
        let after: BTreeSet<u64> = directory.log().segments().into_iter().map(|segment| segment.sequence).collect();
        assert!(before.intersection(&after).count() <= 1, "{before:?} before, {after:?} after");
    });
}
