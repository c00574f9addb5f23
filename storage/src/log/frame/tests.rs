//! Round trip and damage of frames.

#![allow(clippy::unwrap_used)]

use ottla_protocol::batch::{CRC_FROM, HEADER_BYTES, crc32c};
use proptest::prelude::*;

use super::*;
use crate::entry::EntryKind;
use crate::ids::LogId;

/// A record batch with these many bytes of records and a sound CRC-32C.
fn batch(records: usize, fill: u8) -> Bytes {
    let mut data = vec![fill; HEADER_BYTES + records];
    let length = (data.len() - 12) as u32;
    data[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c(&data[CRC_FROM..]);
    data[17..21].copy_from_slice(&crc.to_be_bytes());
    Bytes::from(data)
}

fn frames() -> impl Strategy<Value = RawFrame> {
    let kinds =
        prop_oneof![Just(Kind::Entry), Just(Kind::Vote), Just(Kind::Verdicts), Just(Kind::Create), Just(Kind::Lost)];
    let batches = proptest::collection::vec((any::<u128>(), any::<i32>(), 0..300_usize, any::<u8>()), 0..4);
    let payload = proptest::collection::vec(any::<u8>(), 0..200);
    (kinds, any::<u8>(), 0..=NUMBER_MAX, 0..=NUMBER_MAX, any::<i64>(), payload, batches).prop_map(
        |(kind, detail, term, index, clock_ms, payload, batches)| RawFrame {
            kind,
            detail,
            term,
            index,
            clock_ms,
            payload: Bytes::from(payload),
            batches: batches
                .into_iter()
                .map(|(topic, index, records, fill)| EntryBatch {
                    partition: PartitionId { topic: Uuid::from_u128(topic), index },
                    data: batch(records, fill),
                })
                .collect(),
        },
    )
}

const STAMP: Stamp =
    Stamp { incarnation: 0x1122_3344_5566_7788, replica: ReplicaId(9), sequence: 77, durable_upto: 1 << 33 };

proptest! {
    #[test]
    fn a_frame_comes_back_as_it_was(frame in frames()) {
        let mut out = vec![7; 16];
        encode(&mut out, STAMP, &frame);
        prop_assert_eq!((out.len() - 16) % 8, 0);
        let decoded = decode(&Bytes::from(out), 16, STAMP.incarnation).unwrap();
        prop_assert_eq!(decoded.stamp, STAMP);
        prop_assert_eq!(decoded.frame_bytes, frame.frame_bytes());
        prop_assert!(decoded.damaged_batches.is_empty());
        let entry = Entry {
            log_id: LogId::default(),
            kind: EntryKind::Normal,
            clock_ms: frame.clock_ms,
            payload: frame.payload.clone(),
            batches: frame.batches.clone(),
        };
        let layout = EntryLayout::of(&entry);
        prop_assert_eq!(layout.frame_bytes as usize, decoded.frame_bytes);
        let starts: Vec<_> = decoded.batch_ranges.iter().map(|range| range.start as u32).collect();
        prop_assert_eq!(layout.batches_at, starts);
        prop_assert_eq!(decoded.frame, frame);
    }

    #[test]
    fn no_flipped_bit_goes_unnoticed(frame in frames(), at in any::<proptest::sample::Index>(), bit in 0..8_u8) {
        let mut out = Vec::new();
        encode(&mut out, STAMP, &frame);
        let at = at.index(frame.frame_bytes());
        out[at] ^= 1 << bit;
        let noticed = match decode(&Bytes::from(out), 0, STAMP.incarnation) {
            None => true,
            Some(decoded) => !decoded.damaged_batches.is_empty(),
        };
        prop_assert!(noticed, "bit {} of byte {}", bit, at);
    }

    #[test]
    fn arbitrary_bytes_are_no_frame_and_no_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), incarnation in any::<bool>()) {
        if incarnation && bytes.len() >= 16 {
            bytes[8..16].copy_from_slice(&STAMP.incarnation.to_le_bytes());
        }
        prop_assert_eq!(decode(&Bytes::from(bytes), 0, STAMP.incarnation), None);
    }
}

#[test]
fn a_frame_of_another_incarnation_is_none() {
    let mut out = Vec::new();
    encode(&mut out, STAMP, &RawFrame::empty(Kind::Vote));
    assert_eq!(decode(&Bytes::from(out), 0, STAMP.incarnation + 1), None);
}

#[test]
fn a_batch_whose_header_is_damaged_is_never_told() {
    let mut frame = RawFrame::empty(Kind::Entry);
    let partition = PartitionId { topic: Uuid::from_u128(5), index: 3 };
    frame.batches = vec![EntryBatch { partition, data: batch(50, 1) }].into();
    let mut out = Vec::new();
    encode(&mut out, STAMP, &frame);
    let first = frame.frame_bytes() - frame.batches[0].data.len();
    for byte in 0..HEADER_BYTES {
        let mut damaged = out.clone();
        damaged[first + byte] ^= 4;
        assert_eq!(
            decode(&Bytes::from(damaged), 0, STAMP.incarnation),
            None,
            "byte {byte}: count and times are trusted"
        );
    }
}

#[test]
fn damage_within_records_leaves_the_descriptors_readable() {
    let mut frame = RawFrame::empty(Kind::Entry);
    let partition = PartitionId { topic: Uuid::from_u128(5), index: 3 };
    frame.batches =
        vec![EntryBatch { partition, data: batch(50, 1) }, EntryBatch { partition, data: batch(50, 2) }].into();
    let mut out = Vec::new();
    encode(&mut out, STAMP, &frame);
    let last = frame.frame_bytes() - 1;
    out[last] ^= 4;
    let decoded = decode(&Bytes::from(out), 0, STAMP.incarnation).unwrap();
    assert_eq!(decoded.damaged_batches, vec![1]);
    assert_eq!(decoded.frame.batches[0], frame.batches[0]);
}
