//! Entry points of the fuzz targets: a function for each decoder of on-disk formats, and seed inputs. Never part of
//! a release build.
//!
//! The first byte of an input says whether its checksums are corrected before it is read: no fuzzer guesses them, and
//! damage that they see is tried, too. A function panics where a decoder does, or where what was read and written again
//! is not the same.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

#[cfg(test)]
#[path = "../../../fuzz/corpus.rs"]
mod corpus;
pub(crate) mod input;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ottla_protocol::ids::{LeaderEpoch, Offset, PartitionId};
use uuid::Uuid;

use crate::checkpoint::file::{Generation, file_name};
use crate::checkpoint::state::{Operation, Operations, ReplicaHead, State};
use crate::ids::{Lineage, LogId, LogPosition, RaftIndex, ReplicaId, RunId, Term};
use crate::index::file::{encode, open};
use crate::index::index_entry::{INDEX_ENTRY_BYTES, IndexEntry};
use crate::index::{Access, BatchIndex, Bounds, ExtentKey, IndexedBatch};
use crate::log::{RecoveryPoint, fuzzing as log};
use crate::rewrite::RetentionClass;
use crate::runs::Listing;
use crate::runs::format::{
    Extent, HeaderFound, StandIn, TAIL_BYTES, Tables, decode_header, encode_header, encode_tables,
};
use crate::runs::rebuild::index_image;
use crate::space::table::SegmentRanges;
use input::{disk_with, long, put_word, split, with_selector, word};
use ottla_env::disk::{Disk, File, OpenMode, PAGE_BYTES};
use ottla_env::sim;
use ottla_env::sim::disk::{SimDisk, SimDiskOptions};

/// The name of a target, what it does with an input, and inputs to begin with.
pub type Case = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// A target for each decoder.
pub const CASES: &[Case] = &[
    ("log_frame", log::frame, log::frame_seeds),
    ("log_commit", log::commit, log::commit_seeds),
    ("log_segment_header", log::segment_header, log::segment_header_seeds),
    ("log_mark", log::mark, log::mark_seeds),
    ("log_recovery", log::recovery, log::recovery_seeds),
    ("index_file", index_file, index_file_seeds),
    ("run_file", run_file, run_file_seeds),
    ("checkpoint", checkpoint, checkpoint_seeds),
];

fn key(index: i32) -> ExtentKey {
    ExtentKey::of(ReplicaId(3), PartitionId { topic: Uuid::from_u128(7), index })
}

fn mend_index_file(image: &mut [u8]) {
    const HEADER_BYTES: usize = 52;
    let directory_end = HEADER_BYTES.saturating_add(word(image, 12) as usize);
    if let Some(directory) = image.get(HEADER_BYTES..directory_end) {
        let crc = crc32fast::hash(directory);
        put_word(image, 44, crc);
    }
    if image.len() >= HEADER_BYTES {
        let crc = crc32fast::hash(&image[..48]);
        put_word(image, 48, crc);
    }
    for entry in image.get_mut(directory_end..).unwrap_or_default().chunks_exact_mut(INDEX_ENTRY_BYTES) {
        let crc = crc32fast::hash(&entry[..INDEX_ENTRY_BYTES - 4]);
        put_word(entry, INDEX_ENTRY_BYTES - 4, crc);
    }
}

/// An `.idx` file, and every lookup in it: a result or an error.
fn index_file(data: &[u8]) {
    let Some((mend, mut image)) = split(data) else { return };
    if mend {
        mend_index_file(&mut image);
    }
    let path = Path::new("/data/a.idx");
    let file = disk_with(path, &image, image.len()).open(path, OpenMode::Read).unwrap();
    let (segment, used_bytes) = (long(&image, 16), word(&image, 24));
    let Some(opened) = open(file, segment, used_bytes).unwrap() else { return };
    let index = BatchIndex::default();
    let keys: Vec<ExtentKey> = opened.slices.iter().map(|(key, _)| *key).take(8).collect();
    if index.install(segment, opened).is_err() {
        return;
    }
    for key in keys {
        for offset in [0, 5, 1 << 40, i64::MAX] {
            let _ = index.at(key, Offset(offset), Access::MayBlock);
            let _ = index.by_time(key, offset, Access::MayBlock);
            let bounds =
                Bounds { from: Offset(offset), up_to: Offset(i64::MAX), bytes_max: 1 << 20, at_least_one: true };
            let _ = index.plan(key, bounds, Access::MayBlock);
            let _ = index.retention_point(key, Offset(i64::MAX), Some(offset), Some(100), Access::MayBlock);
        }
        let _ = index.of_max_timestamp(key, Access::MayBlock);
        index.raise_log_start(key, Offset(6));
        let _ = (index.settle_all(), index.bytes_of(key));
    }
}

fn index_file_seeds() -> Vec<Vec<u8>> {
    let entry = |offset: u32, bytes_before: u32| {
        let position = LogPosition { segment: 4, byte: 4096 + bytes_before };
        let batch = IndexedBatch {
            base_offset: Offset(i64::from(offset)),
            record_count: 5,
            max_timestamp_ms: i64::from(offset % 7),
            epoch: LeaderEpoch(2),
            position,
            bytes: 100,
        };
        IndexEntry::new(&batch, bytes_before)
    };
    let entries: Vec<IndexEntry> = (0..9).map(|n| entry(n * 5, n * 100)).collect();
    let range = (RaftIndex(1), RaftIndex(9));
    let ranges = SegmentRanges {
        entries: BTreeMap::from([(ReplicaId(3), range)]),
        verdicts: BTreeMap::from([(ReplicaId(3), range), (ReplicaId(4), range)]),
    };
    let none = SegmentRanges::default();
    let slices = BTreeMap::from([(key(0), vec![&entries[..4], &entries[5..]]), (key(1), vec![&entries[..]])]);
    let empty = BTreeMap::new();
    with_selector([
        encode(4, 9_000, &ranges, &slices),
        encode(4, 9_000, &none, &slices),
        encode(1, 0, &ranges, &empty),
        encode(1, 0, &none, &empty),
    ])
}

fn listing(bytes: u64) -> Listing {
    let (id, lineage, class) = (RunId(9), Lineage(3), RetentionClass(2));
    Listing { id, lineage, incarnation: 77, bytes, batch_bytes: 0, class, rewrites: 1 }
}

/// A run: its header, and the index made of it.
fn run_file(data: &[u8]) {
    let Some((mend, mut image)) = split(data) else { return };
    if mend && image.len() >= PAGE_BYTES + TAIL_BYTES {
        let mut header = image[8..12].to_vec();
        header.extend_from_slice(&image[16..48]);
        put_word(&mut image, 12, crc32fast::hash(&header));
        let (tail, at) = (image.len() - TAIL_BYTES, long(&image, image.len() - TAIL_BYTES + 8));
        if let Some(tables) = usize::try_from(at).ok().and_then(|at| image.get(at..tail + 32)) {
            let crc = crc32fast::hash(tables);
            put_word(&mut image, tail + 32, crc);
        }
    }
    if let HeaderFound::Sound { id, .. } = decode_header(&image) {
        assert!(id == RunId(long(&image, 24)));
    }
    let path = Path::new("/data/9.run");
    let file: Arc<dyn File> = disk_with(path, &image, image.len()).open(path, OpenMode::Read).unwrap();
    let run = listing(image.len() as u64);
    if let Ok(index) = index_image(&run, &file) {
        index_file(&[vec![0], index].concat());
    }
}

fn run_file_seeds() -> Vec<Vec<u8>> {
    let image = |batches: &[(i32, u32)]| {
        let run = listing(0);
        let mut image = encode_header(&run);
        let mut tables = Tables::default();
        for (partition, records) in batches {
            let first_byte = u32::try_from(image.len()).unwrap();
            tables.extents.push(Extent { partition: key(*partition).partition, batches: 1, first_byte });
            tables.stand_ins.push(StandIn { byte: first_byte, timestamp_ms: 5 });
            let mut batch = vec![0; 80];
            batch[..8].copy_from_slice(&i64::from(first_byte).to_be_bytes());
            batch[8..12].copy_from_slice(&68_u32.to_be_bytes());
            batch[16] = 2;
            batch[23..27].copy_from_slice(&(records - 1).to_be_bytes());
            image.extend(batch);
        }
        let at = image.len() as u64;
        image.extend(encode_tables(&run, &tables, at));
        image
    };
    with_selector([image(&[]), image(&[(0, 1)]), image(&[(0, 3), (0, 2), (1, 7)])])
}

fn mend_checkpoint(image: &mut [u8]) {
    if image.len() < PAGE_BYTES {
        return;
    }
    let mut header = image[8..12].to_vec();
    header.extend_from_slice(&image[16..32]);
    put_word(image, 12, crc32fast::hash(&header));
    let mut at = PAGE_BYTES;
    while at + 32 <= image.len() && image[at..].starts_with(b"OTXN") {
        let end = at.saturating_add(32).saturating_add(word(image, at + 28) as usize);
        let Some(covered) = image.get(at + 8..end) else { return };
        let crc = crc32fast::hash(covered);
        put_word(image, at + 4, crc);
        at = end.next_multiple_of(PAGE_BYTES);
    }
}

/// A generation of the checkpoint: what is read is written again as a base, and reads the same.
fn checkpoint(data: &[u8]) {
    let Some((mend, mut image)) = split(data) else { return };
    if mend {
        mend_checkpoint(&mut image);
    }
    let number = long(&image, 16);
    let dir = Path::new("/data/state");
    let disk = disk_with(&dir.join(file_name(number)), &image, image.len().next_multiple_of(PAGE_BYTES));
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let Ok((_, state)) = Generation::load(&disk, dir, number) else { return };
    let mut encoded = Vec::new();
    state.operations().for_each(|operation| operation.encode(&mut encoded));
    let mut again = State::default();
    assert!(
        Operations(Bytes::from(encoded)).apply_to(&mut again, &mut BTreeMap::new()),
        "what was written is not understood"
    );
    assert!(again == state, "what was written reads differently");
}

fn checkpoint_seeds() -> Vec<Vec<u8>> {
    let id = |index| LogId { term: Term(2), index: RaftIndex(index) };
    let point = |replica| RecoveryPoint {
        replica: ReplicaId(replica),
        creation: Bytes::from_static(b"group"),
        sequence: 40,
        kept: if replica == 2 { vec![(3, 5), (9, 9)] } else { Vec::new() },
        position: LogPosition { segment: 2, byte: 4096 },
        vote: None,
        purged: Some(id(3)),
        lost: replica == 2,
    };
    let head = |replica| ReplicaHead {
        recovery_point: point(replica),
        applied: Some(id(9)),
        membership: Bytes::from_static(b"members"),
        checksum: 5,
    };
    let mut full = State::default();
    let put = |replica: u64, n: u8| Operation::Put {
        replica: ReplicaId(replica),
        key: Bytes::copy_from_slice(&[2, n]),
        value: Bytes::copy_from_slice(&[n; 9]),
    };
    let operations = [Operation::Replica(head(1)), put(1, 1), put(1, 2), Operation::Replica(head(2)), put(2, 1)];
    let others = [
        Operation::LogStart(key(0), Offset(17)),
        Operation::Run(listing(5_000)),
        Operation::NextRun(RunId(12)),
        Operation::Rewritten(3),
    ];
    for operation in operations.into_iter().chain(others) {
        assert!(full.apply(operation));
    }
    let delta = [put(2, 7), Operation::Delete { replica: ReplicaId(1), key: Bytes::copy_from_slice(&[2, 1]) }];
    let images = [(State::default(), Vec::new()), (full.clone(), Vec::new()), (full, delta.to_vec())];
    with_selector(images.map(|(state, delta)| {
        let report = sim::run(1, move || async move {
            let sim = SimDisk::new(1, SimDiskOptions::default());
            let dir = Path::new("/data/state");
            sim.create_dir_all(dir).unwrap();
            let disk: Arc<dyn Disk> = Arc::new(sim.clone());
            let mut generation = Generation::create(&disk, dir, 4, state).await.unwrap();
            if !delta.is_empty() {
                assert!(generation.append(&disk, &delta).await.unwrap());
            }
            let mut image = vec![0; usize::try_from(generation.end()).unwrap()];
            let file = sim.open(generation.path(), OpenMode::Read).unwrap();
            ottla_env::disk::read_exact_at(&*file, &mut image, 0).unwrap();
            image
        });
        report.output
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every input that was kept for its target is accepted.
    #[test]
    fn every_target_accepts_its_corpus() {
        for (name, run, _) in CASES {
            corpus::kept(name).iter().for_each(|input| run(input));
        }
    }

    /// Every target has seeds that it takes, whole and cut short and with any byte changed.
    #[test]
    fn every_target_takes_its_seeds_and_what_becomes_of_them() {
        for (name, run, seeds) in CASES {
            let seeds = seeds();
            assert!(!seeds.is_empty(), "{name}");
            for seed in seeds {
                run(&seed);
                run(&seed[..seed.len() / 2]);
                for at in (0..seed.len()).step_by(seed.len() / 24 + 1) {
                    let mut changed = seed.clone();
                    changed[at] ^= 1 << (at % 8);
                    run(&changed);
                }
            }
        }
    }
}
