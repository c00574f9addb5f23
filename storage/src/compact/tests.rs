//! Passes against a plain map of keys.

use std::collections::BTreeMap;

use ottla_protocol::batch::{BatchBuilder, BatchHeader, ControlRecord, NewRecord, encode_control_batch};
use ottla_protocol::compression::Codec;
use ottla_protocol::ids::{LeaderEpoch, Offset};
use ottla_protocol::records;
use proptest::prelude::*;

use super::*;

/// A record: the key's number, or none, and whether it has a value.
type Written = (Option<u8>, bool);

/// A batch of a log.
#[derive(Debug, Clone)]
enum Piece {
    Plain(Vec<Written>),
    /// Of a transaction that is committed, or aborted.
    Transactional(Vec<Written>, bool),
    Marker,
}

fn piece() -> impl Strategy<Value = Piece> {
    let records = || prop::collection::vec((prop::option::weighted(0.95, 0_u8..12), prop::bool::weighted(0.7)), 1..6);
    prop_oneof![
        4 => records().prop_map(Piece::Plain),
        2 => (records(), any::<bool>()).prop_map(|(records, commits)| Piece::Transactional(records, commits)),
        1 => Just(Piece::Marker),
    ]
}

/// Producers of transactions that were aborted, and of others.
const ABORTED: i64 = 1;
const COMMITTED: i64 = 2;

struct Log {
    batches: Vec<StoredBatch>,
    /// By offset: key, whether it has a value.
    records: BTreeMap<i64, Written>,
    markers: Vec<i64>,
}

fn written(pieces: &[Piece], codec: Codec) -> Log {
    let mut log = Log { batches: Vec::new(), records: BTreeMap::new(), markers: Vec::new() };
    let mut next = 100;
    for (number, piece) in pieces.iter().enumerate() {
        let (records, producer) = match piece {
            Piece::Plain(records) => (records.as_slice(), None),
            Piece::Transactional(records, commits) => (&records[..], Some(if *commits { COMMITTED } else { ABORTED })),
            Piece::Marker => (&[][..], None),
        };
        let epoch = LeaderEpoch(number as i32 / 3);
        let data = if matches!(piece, Piece::Marker) {
            log.markers.push(next);
            encode_control_batch(COMMITTED, 0, 5, ControlRecord::Commit { coordinator_epoch: 1 })
        } else {
            let builder = BatchBuilder::new(codec);
            let mut builder = match producer {
                Some(producer) => builder.with_producer(producer, 0, 0).transactional(),
                None => builder,
            };
            for (index, (key, has_value)) in records.iter().enumerate() {
                let offset = next + index as i64;
                let (key, value) = (key.map(|key| vec![key; 3]), offset.to_be_bytes());
                let value = has_value.then_some(&value[..]);
                builder.push(&NewRecord { timestamp: offset, key: key.as_deref(), value, headers: &[] });
                if producer != Some(ABORTED) {
                    log.records.insert(offset, records[index]);
                }
            }
            builder.build().unwrap()
        };
        let count = BatchHeader::parse(&data).unwrap().offset_count();
        log.batches.push(StoredBatch { base_offset: Offset(next), epoch, data });
        next += count;
    }
    log
}

fn is_aborted(producer: i64, _: Offset) -> bool {
    producer == ABORTED
}

fn end_of(batch: &StoredBatch) -> Offset {
    batch.base_offset.plus(BatchHeader::parse(&batch.data).unwrap().offset_count())
}

/// One pass over what lies below its horizon; the rest stays. `ranges`: how often the keys are read.
fn compacted(batches: &[StoredBatch], dirty_from: Offset, pass: Pass, ranges: u64) -> Vec<StoredBatch> {
    let below: Vec<_> = batches.iter().filter(|batch| batch.base_offset < pass.horizon).collect();
    let Some(first) = below.first() else { return batches.to_vec() };
    let (log_start, mut out) = (first.base_offset, Vec::new());
    let mut keeper = Keeper::new(pass, log_start, dirty_from);
    keeper.set_aborted(Box::new(is_aborted));
    let mut map = KeyMap::new(1 << 16, (3, 4));
    let mut marks = Marks::new(log_start, (pass.horizon.0 - log_start.0) as u64);
    for range in HashRange::divide(ranges) {
        map.begin(range);
        for batch in below.iter().filter(|batch| end_of(batch) > dirty_from) {
            keeper.learn(batch, &mut map).unwrap();
        }
        if ranges > 1 {
            below.iter().for_each(|batch| keeper.mark(batch, &map, &mut marks).unwrap());
        }
    }
    let superseded = if ranges > 1 { Superseded::Marked(&marks) } else { Superseded::Known(&map) };
    for batch in &below {
        keeper.keep(batch, superseded, &mut |batch| out.push(batch)).unwrap();
    }
    keeper.finish(&mut |batch| out.push(batch));
    out.extend(batches.iter().filter(|batch| batch.base_offset >= pass.horizon).cloned());
    out
}

/// The records and markers that batches hold, by offset; asserts that they cover every offset, once.
fn held(batches: &[StoredBatch]) -> (BTreeMap<i64, Written>, Vec<i64>) {
    let (mut found, mut markers, mut next) = (BTreeMap::new(), Vec::new(), batches[0].base_offset);
    for batch in batches {
        assert_eq!(batch.base_offset, next);
        next = end_of(batch);
        let header = BatchHeader::parse(&batch.data).unwrap();
        if header.attributes.is_control() {
            markers.push(batch.base_offset.0);
            continue;
        }
        let mut greatest = -1;
        for record in &records::open(&header, &batch.data, 1 << 20).unwrap() {
            let record = record.unwrap();
            let offset = batch.base_offset.0 + i64::from(record.offset_delta);
            assert!(record.value.is_none_or(|value| value == offset.to_be_bytes()), "the value of {offset}");
            assert_eq!(record.timestamp, offset);
            greatest = offset;
            if header.producer_id != ABORTED {
                found.insert(offset, (record.key.map(|key| key[0]), record.value.is_some()));
            }
        }
        assert_eq!(header.max_timestamp, greatest);
    }
    (found, markers)
}

/// What a pass is to keep, by the definition.
fn expected(log: &Log, pass: Pass) -> (BTreeMap<i64, Written>, Vec<i64>) {
    let below = |offset: &i64| *offset < pass.horizon.0;
    let mut last = BTreeMap::new();
    for (offset, (key, _)) in log.records.iter().filter(|(offset, _)| below(offset)) {
        if let Some(key) = key {
            last.insert(*key, *offset);
        }
    }
    let keeps = |offset: i64, (key, has_value): Written| {
        let is_last = key.is_some_and(|key| last.get(&key) == Some(&offset));
        !below(&offset) || is_last && (has_value || offset >= pass.cutoff.0)
    };
    let records = log.records.iter().filter(|(offset, record)| keeps(**offset, **record));
    let markers = log.markers.iter().filter(|offset| **offset >= pass.cutoff.0);
    (records.map(|(offset, record)| (*offset, *record)).collect(), markers.copied().collect())
}

/// Horizons at the ends of batches, none below the one before, and cutoffs not above the former horizon.
fn passes(log: &Log, wanted: &[(prop::sample::Index, prop::sample::Index)]) -> Vec<Pass> {
    let mut horizons: Vec<Offset> =
        wanted.iter().map(|(end, _)| end_of(&log.batches[end.index(log.batches.len())])).collect();
    horizons.sort_unstable();
    let (mut former, mut cutoff, mut passes) = (log.batches[0].base_offset, Offset(0), Vec::new());
    for (horizon, (_, at)) in horizons.into_iter().zip(wanted) {
        let upper = (former.0 - log.batches[0].base_offset.0) as usize + 1;
        cutoff = cutoff.max(log.batches[0].base_offset.plus(at.index(upper) as i64));
        passes.push(Pass { horizon, cutoff });
        former = horizon;
    }
    passes
}

proptest! {
    #[test]
    fn every_pass_keeps_what_a_plain_map_keeps(
        pieces in prop::collection::vec(piece(), 1..40),
        wanted in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..6),
        codec in prop::sample::select(&Codec::ALL[..]),
        skipped in prop::collection::vec(any::<bool>(), 6),
    ) {
        let log = written(&pieces, codec);
        let (mut all, mut some) = (log.batches.clone(), log.batches.clone());
        let (mut dirty, mut dirty_of_some) = (Offset(0), Offset(0));
        for (number, pass) in passes(&log, &wanted).into_iter().enumerate() {
            all = compacted(&all, dirty, pass, 1);
            dirty = pass.horizon;
            prop_assert_eq!(held(&all), expected(&log, pass));
            // Another replica leaves passes out, and reads its keys in parts.
            if !skipped[number] {
                some = compacted(&some, dirty_of_some, pass, 4);
                dirty_of_some = pass.horizon;
                prop_assert_eq!(&some, &all, "after pass {}", number);
            }
        }
    }
}

#[test]
fn a_pass_that_drops_everything_leaves_one_empty_batch() {
    let log = written(
        &[Piece::Plain(vec![(None, true)]), Piece::Plain(vec![(Some(1), false), (Some(2), false)])],
        Codec::None,
    );
    let horizon = end_of(&log.batches[1]);
    let after = compacted(&log.batches, Offset(0), Pass { horizon, cutoff: horizon }, 1);
    assert_eq!(after.len(), 1);
    assert_eq!((after[0].base_offset, end_of(&after[0])), (Offset(100), horizon));
}

#[test]
fn a_batch_that_cannot_be_read_is_named() {
    let mut log = written(&[Piece::Plain(vec![(Some(1), true)])], Codec::None);
    let mut data = log.batches[0].data.to_vec();
    data[60] = 9;
    log.batches[0].data = data.into();
    let pass = Pass { horizon: Offset(101), cutoff: Offset(0) };
    let mut map = KeyMap::new(1 << 10, (0, 0));
    let told = Keeper::new(pass, Offset(100), Offset(0)).learn(&log.batches[0], &mut map);
    assert!(matches!(told, Err(CompactError::Unreadable { offset: Offset(100), .. })), "{told:?}");
}

#[test]
fn a_transaction_is_not_learnt_before_it_is_known_how_it_ended() {
    let pieces = [Piece::Plain(vec![(Some(1), true)]), Piece::Transactional(vec![(Some(2), true)], false)];
    let log = written(&pieces, Codec::None);
    let transactional = &log.batches[1];
    let pass = Pass { horizon: end_of(log.batches.last().unwrap()), cutoff: Offset(0) };
    let mut map = KeyMap::new(1 << 10, (0, 0));
    let mut keeper = Keeper::new(pass, Offset(100), Offset(100));
    keeper.learn(&log.batches[0], &mut map).unwrap();
    let offset = transactional.base_offset;
    assert_eq!(keeper.learn(transactional, &mut map), Err(CompactError::Unjudged { offset }));
    keeper.set_aborted(Box::new(is_aborted));
    keeper.learn(transactional, &mut map).unwrap();
    // Below the former horizon nothing is left that was aborted.
    Keeper::new(pass, Offset(100), pass.horizon).learn(transactional, &mut map).unwrap();
}
