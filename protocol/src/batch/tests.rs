//! Header, patching, building and validation of batches.

use bytes::{Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};
use proptest::prelude::*;

use super::*;
use crate::error::ErrorCode;
use crate::records;

const LIMITS: BatchLimits = BatchLimits { batch_bytes_max: 1 << 20, zstd_allowed: true, from_coordinator: false };

fn batch_of(count: i32) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None).with_producer(7, 1, 40);
    for index in 0..count {
        let value = format!("value {index}");
        builder.push(&NewRecord {
            timestamp: 1_000 + i64::from(index),
            value: Some(value.as_bytes()),
            ..Default::default()
        });
    }
    builder.build().unwrap()
}

/// The batch with other bytes at one place, and a CRC that fits them.
fn altered(batch: &Bytes, at: usize, bytes: &[u8]) -> Bytes {
    let mut altered = batch.to_vec();
    altered[at..at + bytes.len()].copy_from_slice(bytes);
    write_crc(&mut altered);
    altered.into()
}

fn refused(batch: &Bytes) -> ErrorCode {
    validate(batch, &LIMITS).unwrap_err().code()
}

#[test]
fn a_built_batch_is_sound_and_says_what_was_put_in() {
    let batch = batch_of(3);
    let header = validate(&batch, &LIMITS).unwrap();
    assert_eq!(header.total_bytes(), batch.len());
    assert_eq!((header.record_count, header.last_offset_delta), (3, 2));
    assert_eq!((header.base_timestamp, header.max_timestamp), (1_000, 1_002));
    assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (7, 1, 40));
    assert_eq!((header.base_offset, header.leader_epoch), (Offset(0), LeaderEpoch(-1)));
    assert_eq!(header.last_sequence(), 42);
    assert!(header.is_idempotent() && !header.attributes.is_transactional());
}

#[test]
fn a_built_batch_is_what_kafka_protocol_builds() {
    let headers: [(&[u8], Option<&[u8]>); 2] = [(b"name", Some(b"value")), (b"null", None)];
    let mut ours = BatchBuilder::new(Codec::None).with_producer(7, 1, 40).transactional();
    let mut theirs = Vec::new();
    for index in 0..200 {
        let (key, value) = (format!("key {index}"), vec![b'v'; index]);
        let record = NewRecord {
            timestamp: 1_700_000_000_000 + index as i64 * 37,
            key: (index % 3 != 0).then_some(key.as_bytes()),
            value: (index % 5 != 0).then_some(&value),
            headers: if index % 2 == 0 { &headers } else { &[] },
        };
        ours.push(&record);
        let name = |name: &[u8]| crate::StrBytes::from_utf8(Bytes::copy_from_slice(name)).unwrap();
        theirs.push(Record {
            transactional: true,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: 7,
            producer_epoch: 1,
            timestamp_type: TimestampType::Creation,
            offset: index as i64,
            sequence: 40 + index as i32,
            timestamp: record.timestamp,
            key: record.key.map(Bytes::copy_from_slice),
            value: record.value.map(Bytes::copy_from_slice),
            headers: record
                .headers
                .iter()
                .map(|(n, v)| (name(n), v.map(Bytes::copy_from_slice)))
                .collect::<IndexMap<_, _>>(),
        });
    }
    let mut out = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut out, &theirs, &options).unwrap();
    assert_eq!(ours.build().unwrap(), out);
}

#[test]
fn patching_the_head_leaves_the_checksum_right() {
    let mut patched = batch_of(2).to_vec();
    patch_head(patched.first_chunk_mut().unwrap(), Offset(1 << 40), LeaderEpoch(9));
    let header = validate(&patched.clone().into(), &LIMITS).unwrap();
    assert_eq!((header.base_offset, header.leader_epoch), (Offset(1 << 40), LeaderEpoch(9)));
    assert_eq!((header.last_offset(), header.next_offset()), (Offset((1 << 40) + 1), Offset((1 << 40) + 2)));
    assert!(is_whole(&patched) && crc_holds(&patched));
}

#[test]
fn a_head_that_is_cut_anywhere_is_patched_as_a_whole_one() {
    let batch = batch_of(2);
    let mut whole = batch.to_vec();
    patch_head(whole.first_chunk_mut().unwrap(), Offset(-2), LeaderEpoch(i32::MAX));
    for cut in 0..=batch.len() {
        let mut parts = batch.to_vec();
        let (before, after) = parts.split_at_mut(cut);
        patch_part(before, 0, Offset(-2), LeaderEpoch(i32::MAX));
        patch_part(after, cut, Offset(-2), LeaderEpoch(i32::MAX));
        assert_eq!(parts, whole, "cut before byte {cut}");
    }
}

#[test]
fn a_batch_that_is_cut_or_altered_is_not_whole_or_not_sound() {
    let batch = batch_of(2);
    for length in 0..batch.len() {
        assert!(!is_whole(&batch[..length]), "{length} bytes");
    }
    for at in 0..batch.len() {
        let mut altered = batch.to_vec();
        altered[at] ^= 0x80;
        let guarded = (LENGTH_AT..EPOCH_AT).contains(&at) || at >= CRC_AT;
        assert_eq!(is_whole(&altered) && crc_holds(&altered), !guarded, "byte {at}");
    }
}

#[test]
fn a_field_that_is_read_alone_is_the_one_that_is_read_with_all() {
    let batch = altered(&batch_of(3), PRODUCER_ID_AT, &[5; 8]);
    let (raw, all) = (RawHeader::of(&batch).unwrap(), BatchHeader::parse(&batch).unwrap());
    assert_eq!((raw.attributes(), raw.record_count()), (all.attributes, all.record_count));
    assert_eq!((raw.total_bytes(), raw.offset_count()), (all.total_bytes(), Some(3)));
    let offset_count = |delta: i32| {
        let altered = altered(&batch, LAST_DELTA_AT, &delta.to_be_bytes());
        RawHeader::of(&altered).unwrap().offset_count()
    };
    assert_eq!((offset_count(-1), offset_count(i32::MAX)), (None, Some(1 << 31)));
}

#[test]
fn log_append_time_is_stamped_with_a_new_checksum() {
    let stamped = stamp_log_append_time(&batch_of(2), 5_555).unwrap();
    let header = validate(&stamped, &LIMITS).unwrap();
    assert!(header.attributes.is_log_append_time());
    assert_eq!((header.base_timestamp, header.max_timestamp), (1_000, 5_555));
    for record in &records::open(&header, &stamped, 1 << 20).unwrap() {
        assert_eq!(record.unwrap().timestamp, 5_555);
    }
    let corrected = correct_max_timestamp(&stamped, 1_001).unwrap();
    let header = validate(&corrected, &LIMITS).unwrap();
    assert!(!header.attributes.is_log_append_time());
    assert_eq!(header.max_timestamp, 1_001);
    assert_eq!(stamp_log_append_time(&[0; 60], 1), None);
}

#[test]
fn sequences_wrap_to_0() {
    assert_eq!(sequence_plus(i32::MAX, 0), i32::MAX);
    assert_eq!(sequence_plus(i32::MAX, 1), 0);
    assert_eq!(sequence_plus(i32::MAX - 1, 5), 3);
}

#[test]
fn markers_are_control_batches_that_read_back() {
    for record in [ControlRecord::Commit { coordinator_epoch: 5 }, ControlRecord::Abort { coordinator_epoch: 6 }] {
        let batch = encode_control_batch(9, 2, 1_234, record);
        assert_eq!(refused(&batch), ErrorCode::InvalidRecord, "clients may not write markers");
        let header = validate(&batch, &BatchLimits { from_coordinator: true, ..LIMITS }).unwrap();
        assert!(header.attributes.is_control() && header.attributes.is_transactional());
        assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (9, 2, NO_SEQUENCE));
        let records = records::open(&header, &batch, 1 << 10).unwrap();
        let read = records.iter().next().unwrap().unwrap();
        assert_eq!(ControlRecord::parse(read.key.unwrap(), read.value.unwrap()), Some(record));
    }
    assert_eq!(ControlRecord::parse(&[0, 0, 0], &[0, 0, 0, 0, 0, 1]), None);
    assert_eq!(ControlRecord::parse(&[0, 0, 0, 7], &[0, 0, 0, 0, 0, 1]), None);
    assert_eq!(ControlRecord::parse(&[0, 0, 0, 1], &[0, 0, 0, 0]), None);
}

#[test]
fn bad_batches_get_kafkas_codes() {
    let batch = batch_of(3);
    let twice = Bytes::from([&batch[..], &batch[..]].concat());
    let cut = |length: usize| batch.slice(..length);
    let cases = [
        ("no batch", Bytes::new(), ErrorCode::InvalidRecord),
        ("two batches", twice, ErrorCode::InvalidRecord),
        ("half a header", cut(30), ErrorCode::CorruptMessage),
        ("cut", cut(batch.len() - 1), ErrorCode::CorruptMessage),
        ("format 0", altered(&batch, MAGIC_AT, &[0]), ErrorCode::InvalidRecord),
        ("format 1", altered(&batch, MAGIC_AT, &[1]), ErrorCode::InvalidRecord),
        ("negative length", altered(&batch, LENGTH_AT, &(-1i32).to_be_bytes()), ErrorCode::CorruptMessage),
        ("length of a header less one", altered(&batch, LENGTH_AT, &48i32.to_be_bytes()), ErrorCode::CorruptMessage),
        ("no records", altered(&batch, COUNT_AT, &0i32.to_be_bytes()), ErrorCode::InvalidRecord),
        ("negative count", altered(&batch, COUNT_AT, &(-3i32).to_be_bytes()), ErrorCode::InvalidRecord),
        ("count above the delta", altered(&batch, COUNT_AT, &4i32.to_be_bytes()), ErrorCode::InvalidRecord),
        ("greatest delta", altered(&batch, LAST_DELTA_AT, &i32::MAX.to_be_bytes()), ErrorCode::InvalidRecord),
        ("control", altered(&batch, ATTRIBUTES_AT, &0x20i16.to_be_bytes()), ErrorCode::InvalidRecord),
        ("codec 5", altered(&batch, ATTRIBUTES_AT, &5i16.to_be_bytes()), ErrorCode::UnsupportedCompressionType),
        ("codec 7", altered(&batch, ATTRIBUTES_AT, &7i16.to_be_bytes()), ErrorCode::UnsupportedCompressionType),
        ("no sequence", altered(&batch, SEQUENCE_AT, &(-1i32).to_be_bytes()), ErrorCode::InvalidRecord),
        ("no epoch", altered(&batch, PRODUCER_EPOCH_AT, &(-1i16).to_be_bytes()), ErrorCode::InvalidRecord),
        ("producer id -2", altered(&batch, PRODUCER_ID_AT, &(-2i64).to_be_bytes()), ErrorCode::InvalidRecord),
    ];
    for (name, bytes, code) in cases {
        assert_eq!(refused(&bytes), code, "{name}");
    }
    let small = BatchLimits { batch_bytes_max: batch.len() - 1, ..LIMITS };
    assert_eq!(validate(&batch, &small).unwrap_err().code(), ErrorCode::MessageTooLarge);
    let zstd = altered(&batch, ATTRIBUTES_AT, &4i16.to_be_bytes());
    let old_produce = BatchLimits { zstd_allowed: false, ..LIMITS };
    assert!(validate(&zstd, &LIMITS).is_ok());
    assert_eq!(validate(&zstd, &old_produce).unwrap_err().code(), ErrorCode::UnsupportedCompressionType);
    let anonymous = altered(&batch, PRODUCER_ID_AT, &(-1i64).to_be_bytes());
    assert!(validate(&anonymous, &LIMITS).is_ok(), "a sequence without a producer means nothing");
    let transaction = altered(&anonymous, ATTRIBUTES_AT, &0x10i16.to_be_bytes());
    assert_eq!(refused(&transaction), ErrorCode::InvalidRecord);
}

/// CORRUPT_MESSAGE is retriable; every other code would make a producer drop records for a flipped bit.
#[test]
fn every_flipped_bit_under_the_checksum_is_answered_as_corrupt() {
    let batch = batch_of(2);
    for place in (CRC_AT..batch.len()).flat_map(|byte| (0..8).map(move |bit| (byte, bit))) {
        let mut flipped = batch.to_vec();
        flipped[place.0] ^= 1 << place.1;
        assert_eq!(refused(&flipped.into()), ErrorCode::CorruptMessage, "{place:?}");
    }
}

#[test]
fn bytes_are_split_into_their_batches() {
    let (one, two) = (batch_of(1), batch_of(5));
    let both = Bytes::from([&one[..], &two[..]].concat());
    let split: Vec<_> = split_batches(&both).map(Result::unwrap).collect();
    assert_eq!(split.iter().map(|view| view.bytes.clone()).collect::<Vec<_>>(), [one.clone(), two]);
    assert_eq!(split[0].payload(), one.slice(HEADER_BYTES..));
    let cut: Vec<_> = split_batches(&both.slice(..both.len() - 1)).collect();
    assert!(cut.len() == 2 && cut[0].is_ok() && cut[1].is_err());
    assert_eq!(split_batches(&Bytes::new()).count(), 0);
}

proptest! {
    #[test]
    fn garbage_is_never_a_batch_and_never_panics(garbage in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = garbage;
        prop_assert!(validate(&bytes.clone().into(), &LIMITS).is_err());
        if let Some(magic) = bytes.get_mut(MAGIC_AT) {
            *magic = 2;
        }
        let bytes = Bytes::from(bytes);
        prop_assert!(validate(&bytes, &LIMITS).is_err());
        prop_assert!(split_batches(&bytes).take(1_000).count() < 1_000);
    }

    #[test]
    fn the_header_reads_back_what_lies_at_its_offsets(bytes in prop::collection::vec(any::<u8>(), HEADER_BYTES..80)) {
        let header = BatchHeader::parse(&bytes).unwrap();
        let at = |from: usize, length: usize| bytes[from..from + length].iter().fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte));
        prop_assert_eq!(header.base_offset.0 as u64, at(0, 8));
        prop_assert_eq!(header.length as u32 as u64, at(8, 4));
        prop_assert_eq!(header.leader_epoch.0 as u32 as u64, at(12, 4));
        prop_assert_eq!(header.magic as u8 as u64, at(16, 1));
        prop_assert_eq!(u64::from(header.crc), at(17, 4));
        prop_assert_eq!(header.attributes.0 as u16 as u64, at(21, 2));
        prop_assert_eq!(header.last_offset_delta as u32 as u64, at(23, 4));
        prop_assert_eq!(header.base_timestamp as u64, at(27, 8));
        prop_assert_eq!(header.max_timestamp as u64, at(35, 8));
        prop_assert_eq!(header.producer_id as u64, at(43, 8));
        prop_assert_eq!(header.producer_epoch as u16 as u64, at(51, 2));
        prop_assert_eq!(header.base_sequence as u32 as u64, at(53, 4));
        prop_assert_eq!(header.record_count as u32 as u64, at(57, 4));
        let _ = (header.total_bytes(), header.next_offset(), header.last_offset(), header.last_sequence());
        prop_assert!(BatchHeader::parse(&bytes[..HEADER_BYTES - 1]).is_none());
    }
}
