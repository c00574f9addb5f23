//! Any one wrong byte of what a frame's CRC guards is found, and nothing is made of what is torn.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use ottla_protocol::batch::{CRC_FROM, HEADER_BYTES, crc32c};
use ottla_protocol::ids::PartitionId;
use uuid::Uuid;

use super::super::frame::{Kind, RawFrame, Stamp, encode};
use super::*;
use crate::entry::{Batches, EntryBatch};
use crate::ids::ReplicaId;

const STAMP: Stamp =
    Stamp { incarnation: 0x1122_3344_5566_7788, replica: ReplicaId(9), sequence: 77, durable_upto: 1 << 33 };

fn batch(records: usize, fill: u8) -> EntryBatch {
    let mut data = vec![fill; HEADER_BYTES + records];
    let length = (data.len() - 12) as u32;
    data[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c(&data[CRC_FROM..]);
    data[17..21].copy_from_slice(&crc.to_be_bytes());
    let partition = PartitionId { topic: Uuid::from_u128(u128::from(fill) << 70 | 5), index: i32::from(fill) };
    EntryBatch { partition, data: Bytes::from(data) }
}

fn frame(batches: Vec<EntryBatch>) -> Vec<u8> {
    let batches: Batches = batches.into();
    let payload = Bytes::from_static(b"what apply is told");
    let mut out = Vec::new();
    encode(&mut out, STAMP, &RawFrame { term: 3, index: 1_000, payload, batches, ..RawFrame::empty(Kind::Entry) });
    out
}

/// Places that the frame's CRC guards, its own and those of the length.
fn places(bytes: &[u8]) -> Vec<usize> {
    (0..8).chain(layout(bytes).unwrap().guarded().into_iter().flatten()).collect()
}

#[test]
fn every_wrong_byte_is_found_wherever_it_is() {
    for whole in [frame(Vec::new()), frame(vec![batch(40, 1)]), frame(vec![batch(9, 2), batch(300, 3), batch(0, 4)])] {
        for at in places(&whole) {
            for error in [1, 8, 128, 255, 0x5a] {
                let mut bytes = whole.clone();
                bytes[at] ^= error;
                // What follows in the commit is no part of it.
                bytes.extend([7; 24]);
                let found = correction_of(&bytes, STAMP.incarnation);
                assert_eq!(found, Some(Correction { at, byte: whole[at] }), "byte {at} by {error}");
            }
        }
    }
}

#[test]
fn a_long_frame_gets_a_wrong_bit_back_and_no_byte() {
    let whole = frame((0..60).map(|number| batch(10, number)).collect());
    for at in places(&whole).into_iter().skip(8).step_by(13).filter(|at| !(COUNT_AT..COUNT_AT + 4).contains(at)) {
        let found = |error: u8| {
            let mut bytes = whole.clone();
            bytes[at] ^= error;
            (layout(&bytes).is_some()).then(|| correction_of(&bytes, STAMP.incarnation))
        };
        if let Some(bit) = found(16) {
            assert_eq!(bit, Some(Correction { at, byte: whole[at] }), "byte {at}");
        }
        assert_eq!(found(0b101).flatten(), None, "byte {at}");
    }
}

#[test]
fn what_more_than_a_byte_is_wrong_with_stays_as_it_is() {
    let whole = frame(vec![batch(40, 1)]);
    assert_eq!(correction_of(&whole, STAMP.incarnation), None, "nothing is wrong");
    // Behind this only records follow, which the frame does not guard.
    for at in (0..170).step_by(5) {
        let mut torn = whole.clone();
        torn[at..].fill(0);
        assert_eq!(correction_of(&torn, STAMP.incarnation), None, "torn at {at}");
        let mut hit = whole.clone();
        hit[at..at + 16].iter_mut().for_each(|byte| *byte ^= 0x33);
        assert_eq!(correction_of(&hit, STAMP.incarnation), None, "16 bytes at {at}");
    }
    assert_eq!(correction_of(&whole[..40], STAMP.incarnation), None);
}
