//! The index against a simple model: a vector of batches that is searched from the front.

#![allow(clippy::unwrap_used)]

mod locks;
mod steps;
mod writers;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use ottla_protocol::ids::{LeaderEpoch, Offset, PartitionId};
use proptest::prelude::*;
use uuid::Uuid;

use super::batch_index::Partition;
use super::rebuild::Rebuild;
use super::{Access, BatchIndex, Bounds, ExtentKey, IndexedBatch, file};
use crate::entry::{Entry, EntryBatch, EntryKind, EntryVerdicts, Verdict};
use crate::ids::{LogId, LogPosition, RaftIndex, ReplicaId, Term};
use crate::log::{BatchPlace, EntryLayout, EntryPlace, FrameBody, FrameSink, ScannedFrame};
use ottla_env::disk::{File, Mapping};

const REPLICA: ReplicaId = ReplicaId(3);
const SEGMENT_BYTES: u32 = 4096;

/// A file in memory.
struct MemoryFile {
    image: Vec<u8>,
    /// A partition whose lock nobody may hold while the file is read.
    unlocked: Option<Partition>,
}

impl File for MemoryFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.image.len() as u64)
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let is_free = self.unlocked.as_ref().is_none_or(|partition| partition.try_write().is_some());
        assert!(is_free, "the disk is read under the partition's lock");
        let from = self.image.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let count = from.len().min(buf.len());
        buf[..count].copy_from_slice(&from[..count]);
        Ok(count)
    }
    fn write_at(&self, _buf: &[u8], _offset: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn preallocate(&self, _bytes: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn set_len(&self, _bytes: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn sync_data(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async { Ok(()) })
    }
    fn drop_cached(&self, _from: u64) -> io::Result<()> {
        Ok(())
    }
    fn map(&self) -> io::Result<Option<Arc<dyn Mapping>>> {
        Ok(None)
    }
}

fn key(partition: i32) -> ExtentKey {
    ExtentKey::of(REPLICA, PartitionId { topic: Uuid::from_u128(9), index: partition })
}

/// A raw batch with the header fields that the index reads.
fn raw_batch(records: i32, timestamp_ms: i64, bytes: usize) -> Bytes {
    let mut batch = vec![0; bytes.max(61)];
    batch[23..27].copy_from_slice(&(records - 1).to_be_bytes());
    batch[35..43].copy_from_slice(&timestamp_ms.to_be_bytes());
    Bytes::from(batch)
}

#[derive(Debug, Clone)]
struct Batch {
    partition: i32,
    records: i32,
    timestamp_ms: i64,
    bytes: usize,
    accepted: bool,
}

fn batch() -> impl Strategy<Value = Batch> {
    (0..3i32, 1..20i32, 0..60i64, 61..400usize, prop::bool::weighted(0.8)).prop_map(
        |(partition, records, timestamp_ms, bytes, accepted)| Batch {
            partition,
            records,
            timestamp_ms,
            bytes,
            accepted,
        },
    )
}

/// Entries of batches, as one replica appended and applied them, with their frames.
struct History {
    index: BatchIndex,
    model: Vec<Vec<IndexedBatch>>,
    frames: Vec<(ScannedFrame, Vec<BatchPlace>)>,
    at: LogPosition,
    sequence: u64,
    raft_index: u64,
    ends: Vec<u32>,
    /// Where each entry lies, and up to which entry they are durable.
    places: BTreeMap<u64, EntryPlace>,
    durable: u64,
}

impl History {
    fn new() -> Self {
        Self {
            index: BatchIndex::default(),
            model: vec![Vec::new(); 3],
            frames: Vec::new(),
            at: LogPosition { segment: 1, byte: 64 },
            sequence: 0,
            raft_index: 0,
            ends: vec![0],
            places: BTreeMap::new(),
            durable: 0,
        }
    }

    fn frame(&mut self, body: FrameBody, bytes: u32) -> LogPosition {
        if self.at.byte + bytes > SEGMENT_BYTES {
            self.ends.push(self.at.byte);
            self.at = LogPosition { segment: self.at.segment + 1, byte: 64 };
        }
        let position = self.at;
        self.at.byte += bytes;
        self.sequence += 1;
        let frame = ScannedFrame { replica: REPLICA, sequence: self.sequence, position, frame_bytes: bytes, body };
        self.frames.push((frame, Vec::new()));
        position
    }

    fn append(&mut self, batches: &[Batch]) -> (Entry, Vec<BatchPlace>) {
        self.raft_index += 1;
        let data: Vec<_> = batches
            .iter()
            .map(|b| EntryBatch {
                partition: key(b.partition).partition,
                data: raw_batch(b.records, b.timestamp_ms, b.bytes),
            })
            .collect();
        let entry = Entry {
            log_id: LogId { term: Term(1), index: RaftIndex(self.raft_index) },
            kind: EntryKind::Normal,
            clock_ms: 7,
            payload: Bytes::new(),
            batches: data.into(),
        };
        let layout = EntryLayout::of(&entry);
        let position = self.frame(FrameBody::Entry(entry.clone()), layout.frame_bytes);
        let place = |(b, at): (&EntryBatch, &u32)| BatchPlace {
            partition: b.partition,
            position: LogPosition { byte: position.byte + at, ..position },
            bytes: u32::try_from(b.data.len()).unwrap(),
        };
        let places: Vec<_> = entry.batches.iter().zip(&layout.batches_at).map(place).collect();
        let place = EntryPlace { position, frame_bytes: layout.frame_bytes, commit_byte: position.byte };
        self.places.insert(self.raft_index, place);
        self.frames.last_mut().unwrap().1 = places.clone();
        (entry, places)
    }

    fn apply(&mut self, batches: &[Batch], durable: bool) -> Vec<BatchPlace> {
        let (entry, places) = self.append(batches);
        let mut verdicts = Vec::new();
        for (batch, place) in batches.iter().zip(&places) {
            if !batch.accepted {
                verdicts.push(Verdict::Rejected);
                continue;
            }
            let listed = &mut self.model[usize::try_from(batch.partition).unwrap()];
            let base_offset = listed.last().map_or(Offset(0), IndexedBatch::end_offset);
            let epoch = LeaderEpoch(i32::try_from(self.raft_index / 5).unwrap());
            verdicts.push(Verdict::Accepted { base_offset, epoch });
            listed.push(IndexedBatch {
                base_offset,
                record_count: u32::try_from(batch.records).unwrap(),
                max_timestamp_ms: batch.timestamp_ms,
                epoch,
                position: place.position,
                bytes: place.bytes,
            });
        }
        if durable {
            self.durable = self.raft_index;
        }
        self.index.record(REPLICA, |_, index| self.place_of(index), &entry, &verdicts).unwrap();
        places
    }

    fn place_of(&self, index: RaftIndex) -> Option<EntryPlace> {
        if index.0 <= self.durable { self.places.get(&index.0).copied() } else { None }
    }

    /// Verdict frames for everything applied since the last call, as a checkpoint writes them.
    fn decide(&mut self) {
        let upto = RaftIndex(self.raft_index);
        let verdicts: Vec<EntryVerdicts> = self.index.verdicts_up_to(REPLICA, upto);
        // Until they are in the log they are returned, however often they are read.
        assert_eq!(self.index.verdicts_up_to(REPLICA, upto), verdicts);
        self.index.forget_verdicts(REPLICA, upto);
        assert_eq!(self.index.verdicts_up_to(REPLICA, upto), []);
        if let (Some(first), Some(last)) = (verdicts.first(), verdicts.last()) {
            let range = (first.log_id.index, last.log_id.index);
            let position = self.frame(FrameBody::Verdicts(verdicts), 100);
            self.index.table.verdicts(position.segment, position.segment, REPLICA, range);
        }
    }

    fn rebuilt(&self, segments: BTreeSet<u64>) -> BTreeMap<u64, super::rebuild::SegmentContents> {
        let mut rebuild = Rebuild::new(segments, super::rebuild::Take::All);
        for (frame, places) in &self.frames {
            rebuild.frame(frame, places);
        }
        rebuild.finish()
    }

    fn image(&self, segment: u64) -> Vec<u8> {
        let listed = self.index.entries_in(segment);
        let runs = listed.iter().map(|(key, runs)| (*key, runs.iter().map(Vec::as_slice).collect())).collect();
        let used = self.ends.get(usize::try_from(segment).unwrap()).copied().unwrap_or(0);
        file::encode(segment, used, &self.index.table.ranges(segment).unwrap(), &runs)
    }

    fn seal(&self, segment: u64) {
        self.seal_unlocked(segment, None);
    }

    /// As `seal`; the lock of this partition is free whenever the index file is read.
    fn seal_unlocked(&self, segment: u64, unlocked: Option<Partition>) {
        let file = MemoryFile { image: self.image(segment), unlocked };
        let used = self.ends.get(usize::try_from(segment).unwrap()).copied().unwrap_or(0);
        let opened = file::open(Arc::new(file), segment, used).unwrap().unwrap();
        self.index.install(segment, opened).unwrap();
    }

    fn live(&self, partition: usize, log_start: i64) -> Vec<IndexedBatch> {
        self.model[partition].iter().filter(|indexed| indexed.end_offset().0 > log_start).copied().collect()
    }
}

fn check_reads(history: &History, partition: i32, log_start: i64) {
    let live = history.live(usize::try_from(partition).unwrap(), log_start);
    let end = history.model[usize::try_from(partition).unwrap()].last().map_or(0, |indexed| indexed.end_offset().0);
    for offset in -1..=end {
        let expected = live.iter().find(|indexed| indexed.end_offset().0 > offset.max(log_start)).copied();
        let holds = expected.filter(|indexed| indexed.base_offset.0 <= offset);
        assert_eq!(
            history.index.at(key(partition), Offset(offset), Access::MayBlock).unwrap(),
            holds,
            "offset {offset}"
        );
    }
    for timestamp_ms in -1..=61 {
        let expected = live.iter().find(|indexed| indexed.max_timestamp_ms >= timestamp_ms).copied();
        assert_eq!(history.index.by_time(key(partition), timestamp_ms, Access::MayBlock).unwrap(), expected);
    }
    let newest = live.iter().map(|indexed| indexed.max_timestamp_ms).max();
    let expected = live.iter().find(|indexed| Some(indexed.max_timestamp_ms) == newest).copied();
    assert_eq!(history.index.of_max_timestamp(key(partition), Access::MayBlock).unwrap(), expected);
    let bytes: u64 = live.iter().map(|indexed| u64::from(indexed.bytes)).sum();
    assert_eq!(history.index.bytes_of(key(partition)), bytes);
}

fn model_retention(
    live: &[IndexedBatch],
    log_start: i64,
    up_to: i64,
    cutoff: Option<i64>,
    size: Option<u64>,
) -> Option<i64> {
    let total: u64 = live.iter().map(|indexed| u64::from(indexed.bytes)).sum();
    let (mut gone, mut by_time, mut by_size) = (0, log_start, log_start);
    let (mut old, mut excess) = (cutoff.is_some(), size.is_some());
    for indexed in live.iter().filter(|indexed| indexed.end_offset().0 <= up_to) {
        old &= cutoff.is_some_and(|cutoff| indexed.max_timestamp_ms < cutoff);
        gone += u64::from(indexed.bytes);
        excess &= size.is_some_and(|size| total - gone >= size);
        if old {
            by_time = indexed.end_offset().0;
        }
        if excess {
            by_size = indexed.end_offset().0;
        }
    }
    let point = by_time.max(by_size);
    (point > log_start).then_some(point)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_index_answers_as_a_list_of_batches_would(
        entries in prop::collection::vec((prop::collection::vec(batch(), 1..5), 0..6u8), 1..40),
        cuts in prop::collection::vec(0..200i64, 3),
        seal_upto in 0..6u64,
        cutoff in prop::option::of(0..60i64), size in prop::option::of(0..3000u64), hidden in 0..40i64,
    ) {
        let mut history = History::new();
        for (batches, action) in &entries {
            history.apply(batches, true);
            if *action == 0 {
                history.decide();
            }
        }
        history.decide();
        let raise = |history: &History| {
            for (partition, log_start) in cuts.iter().enumerate() {
                let end = history.model[partition].last().map_or(0, |indexed| indexed.end_offset().0);
                history.index.raise_log_start(key(i32::try_from(partition).unwrap()), Offset((*log_start).min(end)));
            }
        };
        // Log starts move before or after the `.idx` files are written: the answers are the same.
        if seal_upto % 2 == 0 {
            raise(&history);
        }
        for segment in 1..=seal_upto.min(history.at.segment - 1) {
            history.seal(segment);
        }
        raise(&history);
        history.index.settle_all().unwrap();
        for (partition, log_start) in cuts.iter().enumerate() {
            let end = history.model[partition].last().map_or(0, |indexed| indexed.end_offset().0);
            let log_start = (*log_start).min(end);
            check_reads(&history, i32::try_from(partition).unwrap(), log_start);
            let live = history.live(partition, log_start);
            let up_to = (end - hidden).max(log_start);
            let point = history.index.retention_point(key(i32::try_from(partition).unwrap()), Offset(up_to), cutoff, size, Access::MayBlock);
            prop_assert_eq!(point.unwrap(), model_retention(&live, log_start, up_to, cutoff, size).map(Offset));
            // Sizes that are met exactly: then the batch at the border is deleted too.
            let mut rest: u64 = live.iter().map(|indexed| u64::from(indexed.bytes)).sum();
            for indexed in &live {
                rest -= u64::from(indexed.bytes);
                let point = history.index.retention_point(key(i32::try_from(partition).unwrap()), Offset(end), None, Some(rest), Access::MayBlock);
                prop_assert_eq!(point.unwrap(), Some(indexed.end_offset()));
            }
            let bounds = Bounds { from: Offset(log_start), up_to: Offset(end), bytes_max: u64::MAX, at_least_one: false };
            let planned = history.index.plan(key(i32::try_from(partition).unwrap()), bounds, Access::MayBlock).unwrap().batches;
            prop_assert_eq!(planned.iter().map(|p| p.indexed).collect::<Vec<_>>(), live);
        }
    }

    #[test]
    fn a_rebuilt_index_file_is_equal_byte_for_byte(
        entries in prop::collection::vec((prop::collection::vec(batch(), 1..5), 0..6u8), 10..60),
        log_start in 0..100i64,
    ) {
        let mut history = History::new();
        for (batches, action) in &entries {
            match action {
                // A leader that is deposed: its entry is appended, then void, and another takes its index.
                1 => {
                    history.append(batches);
                    history.raft_index -= 1;
                }
                2 => {
                    let (entry, _) = history.append(batches);
                    history.raft_index -= 1;
                    let last = LogId { term: Term(1), index: RaftIndex(entry.log_id.index.0 - 1) };
                    history.frame(FrameBody::Truncate(Some(last)), 40);
                }
                0 => {
                    history.apply(batches, true);
                    history.decide();
                }
                _ => drop(history.apply(batches, true)),
            }
        }
        history.decide();
        history.index.raise_log_start(key(0), Offset(log_start));
        let segments: BTreeSet<u64> = (1..history.at.segment).collect();
        for (segment, contents) in history.rebuilt(segments.clone()) {
            let used = history.ends[usize::try_from(segment).unwrap()];
            let rebuilt = file::encode(segment, used, &contents.ranges, &contents.entries());
            prop_assert_eq!(rebuilt, history.image(segment), "segment {}", segment);
        }
    }

    #[test]
    fn a_flipped_bit_in_an_index_file_never_changes_an_answer(
        entries in prop::collection::vec(prop::collection::vec(batch(), 1..5), 20..40), at in any::<prop::sample::Index>(),
    ) {
        let mut history = History::new();
        entries.iter().for_each(|batches| drop(history.apply(batches, true)));
        history.decide();
        let mut image = history.image(1);
        let used = history.ends.get(1).copied().unwrap_or(0);
        let bit = at.index(image.len() * 8);
        image[bit / 8] ^= 1 << (bit % 8);
        let damaged = MemoryFile { image, unlocked: None };
        if let Some(opened) = file::open(Arc::new(damaged), 1, used).unwrap() {
            history.index.install(1, opened).unwrap();
            for (partition, listed) in history.model.iter().enumerate() {
                for indexed in listed {
                    match history.index.at(key(i32::try_from(partition).unwrap()), indexed.base_offset, Access::MayBlock) {
                        Ok(found) => prop_assert_eq!(found, Some(*indexed)),
                        Err(super::IndexError::Damaged { segment }) => prop_assert_eq!(segment, 1),
                        Err(other) => panic!("{other}"),
                    }
                }
            }
        }
    }
}

fn one(records: i32) -> Batch {
    Batch { partition: 0, records, timestamp_ms: 5, bytes: 100, accepted: true }
}

#[test]
fn what_is_committed_elsewhere_before_it_is_durable_here_is_served_from_memory() {
    let mut history = History::new();
    history.apply(&[one(2)], true);
    let places = history.apply(&[one(3)], false);
    let bounds = Bounds { from: Offset(0), up_to: Offset(5), bytes_max: 1000, at_least_one: true };
    let planned = history.index.plan(key(0), bounds, Access::Resident).unwrap().batches;
    assert_eq!(planned.len(), 2);
    assert!(planned[0].data.is_none() && planned[1].data.is_some());
    assert_eq!(history.index.bytes_of(key(0)), 200);
    history.index.place_durable(REPLICA, |_, _| None).unwrap();
    history.durable = history.raft_index;
    history.index.place_durable(REPLICA, |_, index| history.place_of(index)).unwrap();
    let planned = history.index.plan(key(0), bounds, Access::Resident).unwrap().batches;
    assert!(planned[1].data.is_none());
    assert_eq!(planned[1].indexed.position, places[0].position);
    assert_eq!(history.index.bytes_of(key(0)), 200);
}

#[test]
fn an_entry_applied_again_after_a_restart_is_not_indexed_twice() {
    let mut history = History::new();
    history.apply(&[one(2)], true);
    let first = history.model[0][0];
    let partition = history.index.partition(key(0)).unwrap();
    assert!(!partition.write().push(&first).unwrap());
    assert_eq!(history.index.bytes_of(key(0)), 100);
}

#[test]
fn another_batch_at_a_known_offset_is_an_error() {
    let mut history = History::new();
    for _ in 0..60 {
        history.apply(&[one(2)], true);
    }
    history.decide();
    history.seal(1);
    let partition = history.index.partition(key(0)).unwrap();
    for number in [0, 1, 58] {
        let known = history.model[0][number];
        assert!(!partition.write().push(&known).unwrap());
        let others = [
            IndexedBatch { position: LogPosition { byte: known.position.byte + 8, ..known.position }, ..known },
            IndexedBatch { record_count: 1, ..known },
            IndexedBatch { base_offset: known.base_offset.plus(1), record_count: 1, ..known },
            IndexedBatch { epoch: LeaderEpoch(77), ..known },
        ];
        for other in others {
            // With an entry on disk it is compared by `settle_all`, which may wait for the disk.
            let told = partition.write().push(&other);
            assert!(told.is_err() || history.index.settle_all().is_err(), "{other:?}");
            partition.write().confirmed(&other);
        }
    }
    history.index.raise_log_start(key(0), Offset(100));
    let dead = IndexedBatch { epoch: LeaderEpoch(77), ..history.model[0][1] };
    assert!(!partition.write().push(&dead).unwrap(), "below log start nothing is compared");
}

#[test]
fn verdicts_on_a_replaced_entry_never_index_the_void_one() {
    let mut history = History::new();
    let (void, _) = history.append(&[one(5)]);
    history.raft_index -= 1;
    while history.at.segment < 2 {
        history.frame(FrameBody::Lost, 1000);
    }
    let (mut replacing, _) = history.append(&[one(2)]);
    replacing.log_id.term = Term(2);
    assert_eq!(replacing.log_id.index, void.log_id.index);
    history.frames.last_mut().unwrap().0.body = FrameBody::Entry(replacing.clone());
    let verdicts = vec![Verdict::Accepted { base_offset: Offset(0), epoch: LeaderEpoch(2) }];
    let position = history.at;
    while history.at.segment < position.segment + 1 {
        history.frame(FrameBody::Lost, 1000);
    }
    history.frame(
        FrameBody::Verdicts(vec![EntryVerdicts {
            log_id: replacing.log_id,
            verdicts,
            lineages: Vec::new(),
            relocated_to: None,
        }]),
        100,
    );
    // The segment between them is unlinked: its records were deleted.
    history.frames.retain(|(frame, _)| frame.position.segment != position.segment);
    let rebuilt = history.rebuilt(BTreeSet::from([1]));
    assert!(rebuilt[&1].slices.is_empty(), "{:?}", rebuilt[&1]);
}

#[test]
fn the_first_frame_of_a_relocated_entry_is_void_also_when_its_copy_is_gone() {
    for gone in [false, true] {
        let mut history = History::new();
        let (moved, _) = history.append(&[one(5)]);
        let (first, places) = history.frames.last().unwrap().clone();
        while history.at.segment < 2 {
            history.frame(FrameBody::Lost, 1000);
        }
        let segment = history.at.segment;
        let position = history.at;
        if !gone {
            let at = |place: &BatchPlace| BatchPlace { position, ..*place };
            history.frames.push((ScannedFrame { position, ..first }, places.iter().map(at).collect()));
        }
        while history.at.segment < segment + 1 {
            history.frame(FrameBody::Lost, 1000);
        }
        let verdicts = vec![Verdict::Accepted { base_offset: Offset(0), epoch: LeaderEpoch(2) }];
        let decided =
            EntryVerdicts { log_id: moved.log_id, verdicts, lineages: Vec::new(), relocated_to: Some(segment) };
        history.frame(FrameBody::Verdicts(vec![decided]), 100);
        let rebuilt = history.rebuilt(BTreeSet::from([1, segment]));
        assert!(rebuilt[&1].slices.is_empty(), "{:?}", rebuilt[&1]);
        assert_eq!(rebuilt[&segment].slices.is_empty(), gone, "{:?}", rebuilt[&segment]);
    }
}

#[test]
fn a_dropped_partition_is_dead_and_forgotten_only_with_its_segments() {
    let mut history = History::new();
    for _ in 0..60 {
        history.apply(&[one(1)], true);
    }
    history.decide();
    history.index.raise_log_start(key(0), super::partition::GONE);
    assert_eq!(history.index.bytes_of(key(0)), 0);
    assert_eq!(history.index.at(key(0), Offset(0), Access::MayBlock).unwrap(), None);
    for segment in 1..history.at.segment {
        history.seal(segment);
        assert!(history.index.table.is_dead(segment) || segment + 1 == history.at.segment);
    }
    assert_eq!(history.index.prune(history.at.segment), vec![], "the last segment still lists it");
    history.seal(history.at.segment);
    assert_eq!(history.index.prune(history.at.segment + 1), vec![key(0)]);
}

#[test]
fn a_partition_that_comes_back_to_its_replica_is_not_dead_after_a_restart() {
    let mut history = History::new();
    history.apply(&[one(3)], true);
    history.index.raise_log_start(key(0), super::partition::GONE);
    assert_eq!(history.index.take_log_starts()[&key(0)], super::partition::GONE);
    history.apply(&[one(2)], true);
    assert_eq!(history.index.take_log_starts()[&key(0)], Offset(3), "the checkpoint would bring back the end");
    assert_eq!(history.index.bytes_of(key(0)), 100);
    assert!(history.index.at(key(0), Offset(3), Access::MayBlock).unwrap().is_some());
    assert!(history.index.at(key(0), Offset(1), Access::MayBlock).unwrap().is_none());
}

#[test]
#[should_panic(expected = "segment 1: an index entry that does not follow the one before it")]
fn an_index_entry_behind_a_gap_is_never_listed_in_its_slice() {
    let position = LogPosition { segment: 1, byte: 0 };
    let (base_offset, epoch) = (Offset(5), LeaderEpoch(1));
    let batch = IndexedBatch { base_offset, record_count: 1, max_timestamp_ms: 0, epoch, position, bytes: 61 };
    super::segment_slice::SegmentSlice::new(1, Offset(4)).push(super::index_entry::IndexEntry::new(&batch, 0));
}
