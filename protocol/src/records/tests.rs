//! Reading, checking and rewriting records.

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::batch::{self, BatchBuilder, BatchLimits, NewRecord};
use crate::compression::{Codec, compress};
use crate::wire::put_varint;

const LIMIT: usize = 1 << 20;
const LIMITS: BatchLimits = BatchLimits { batch_bytes_max: 1 << 20, zstd_allowed: true, from_coordinator: false };

type OwnedRecord = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(Vec<u8>, Option<Vec<u8>>)>);

fn build(codec: Codec, records: &[OwnedRecord]) -> Bytes {
    let mut builder = BatchBuilder::new(codec);
    for (timestamp, key, value, headers) in records {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (&name[..], value.as_deref())).collect();
        builder.push(&NewRecord {
            timestamp: *timestamp,
            key: key.as_deref(),
            value: value.as_deref(),
            headers: &headers,
        });
    }
    builder.build().unwrap()
}

fn read(batch: &Bytes) -> Result<Vec<OwnedRecord>, RecordsError> {
    let header = BatchHeader::parse(batch).unwrap();
    let records = open(&header, batch, LIMIT)?;
    let owned = |record: Record<'_>| {
        let headers = record.headers.iter().map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec))).collect();
        (record.timestamp, record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec), headers)
    };
    records.iter().map(|record| record.map(owned)).collect()
}

/// A batch whose records are these bytes, with a right CRC.
fn with_payload(count: i32, payload: &[u8]) -> Bytes {
    let mut bytes = BytesMut::from(&build(Codec::None, &[(0, None, None, vec![])])[..batch::HEADER_BYTES]);
    bytes.extend_from_slice(payload);
    let length = (bytes.len() - batch::LENGTH_PREFIX_BYTES) as i32;
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[23..27].copy_from_slice(&count.wrapping_sub(1).to_be_bytes());
    bytes[57..61].copy_from_slice(&count.to_be_bytes());
    let crc = batch::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.freeze()
}

fn one_record(fill: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut record = BytesMut::new();
    fill(&mut record);
    let mut payload = BytesMut::new();
    put_varint(&mut payload, record.len() as i32);
    payload.extend_from_slice(&record);
    with_payload(1, &payload)
}

fn refused(batch: &Bytes) -> ErrorCode {
    read(batch).unwrap_err().code()
}

#[test]
fn bad_records_are_invalid_records() {
    let varints = |all: &'static [i32]| {
        move |out: &mut BytesMut| {
            out.put_u8(0);
            all.iter().for_each(|value| put_varint(out, *value));
        }
    };
    let sound = one_record(varints(&[0, 0, -1, -1, 0]));
    assert_eq!(read(&sound), Ok(vec![(0, None, None, vec![])]));
    let cases = [
        ("key length -2", one_record(varints(&[0, 0, -2, -1, 0]))),
        ("key beyond the record", one_record(varints(&[0, 0, 99, -1, 0]))),
        ("greatest key length", one_record(varints(&[0, 0, i32::MAX, -1, 0]))),
        ("value beyond the record", one_record(varints(&[0, 0, -1, 99, 0]))),
        ("header count beyond the record", one_record(varints(&[0, 0, -1, -1, 50]))),
        ("greatest header count", one_record(varints(&[0, 0, -1, -1, i32::MAX]))),
        ("header count -1", one_record(varints(&[0, 0, -1, -1, -1]))),
        ("header without a name", one_record(varints(&[0, 0, -1, -1, 1, -1, -1]))),
        ("bytes after the record", one_record(varints(&[0, 0, -1, -1, 0, 0]))),
        ("record length -1", with_payload(1, &[1, 0, 0, 0, 1, 1, 0])),
        ("record beyond the batch", with_payload(1, &[100, 0, 0, 0, 1, 1, 0])),
        ("overlong varint", with_payload(1, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])),
        ("more records than bytes", with_payload(1_000_000, &[12, 0, 0, 0, 1, 1, 0])),
        ("fewer records than stated", with_payload(2, &[12, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0])),
        ("more records than stated", with_payload(1, &[12, 0, 0, 0, 1, 1, 0, 12, 0, 0, 2, 1, 1, 0])),
        ("negative count", with_payload(-1, &[12, 0, 0, 0, 1, 1, 0])),
    ];
    for (name, batch) in cases {
        assert_eq!(refused(&batch), ErrorCode::InvalidRecord, "{name}");
    }
}

#[test]
fn timestamps_do_not_overflow() {
    let batch = build(Codec::None, &[(i64::MIN, None, None, vec![]), (i64::MAX, None, None, vec![])]);
    assert!(read(&batch).is_ok());
}

#[test]
fn a_compression_bomb_is_refused_without_being_unpacked() {
    let zeros = vec![0u8; 64 << 20];
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let batch = build(codec, &[(0, None, Some(zeros.clone()), vec![])]);
        let header = BatchHeader::parse(&batch).unwrap();
        let error = open(&header, &batch, LIMIT).unwrap_err();
        assert_eq!(error.code(), ErrorCode::MessageTooLarge, "{codec}");
        assert!(open(&header, &batch, 65 << 20).is_ok(), "{codec}");
    }
}

#[test]
fn a_batch_is_recompressed_and_its_records_stay_bit_for_bit() {
    let twice = vec![(b"name".to_vec(), Some(b"1".to_vec())), (b"name".to_vec(), None)];
    let sent = [(5, Some(b"key".to_vec()), Some(vec![b'x'; 5_000]), twice), (9, None, None, vec![])];
    let plain = build(Codec::None, &sent);
    for from in Codec::ALL {
        let batch = build(from, &sent);
        let header = batch::validate(&batch, &LIMITS).unwrap();
        for to in Codec::ALL {
            let rewritten = recompress(&header, &batch, to, None, LIMIT).unwrap();
            let header = batch::validate(&rewritten, &LIMITS).unwrap();
            assert_eq!(header.attributes.codec(), Some(to));
            assert_eq!(read(&rewritten).unwrap(), sent, "{from} to {to}");
            let back = recompress(&header, &rewritten, Codec::None, None, LIMIT).unwrap();
            assert_eq!(back, plain, "{from} to {to} and back");
        }
    }
}

#[test]
fn levels_are_the_codecs_own_and_out_of_range_is_an_error() {
    let batch = build(Codec::None, &[(0, None, Some(vec![7; 10_000]), vec![])]);
    let header = BatchHeader::parse(&batch).unwrap();
    for codec in Codec::ALL {
        for level in codec.levels().into_iter().flat_map(|levels| [*levels.start(), *levels.end()]) {
            let level = if codec == Codec::Zstd { level.max(-7) } else { level };
            assert!(recompress(&header, &batch, codec, Some(level), LIMIT).is_ok(), "{codec} {level}");
        }
    }
    assert!(recompress(&header, &batch, Codec::Gzip, Some(10), LIMIT).is_err());
    assert!(recompress(&header, &batch, Codec::Gzip, Some(-1), LIMIT).is_ok());
}

fn faults(batch: &Bytes, rules: &RecordRules) -> Vec<(i32, ErrorCode)> {
    let header = BatchHeader::parse(batch).unwrap();
    let checked = check(&header, batch, rules, LIMIT).unwrap();
    assert_eq!(checked.code(), checked.faults.first().map_or(ErrorCode::None, |fault| fault.code));
    checked.faults.iter().map(|fault| (fault.index, fault.code)).collect()
}

#[test]
fn a_null_key_is_a_fault_of_its_record_in_a_compacted_topic_only() {
    let key = Some(b"key".to_vec());
    let batch = build(Codec::Lz4, &[(0, key.clone(), None, vec![]), (0, None, None, vec![]), (0, key, None, vec![])]);
    assert_eq!(faults(&batch, &RecordRules::default()), []);
    let compacted = RecordRules { key_required: true, timestamps: None };
    assert_eq!(faults(&batch, &compacted), [(1, ErrorCode::InvalidRecord)]);
}

#[test]
fn timestamps_outside_the_bounds_are_faults_and_none_is_always_accepted() {
    let batch = build(
        Codec::None,
        &[(99, None, None, vec![]), (100, None, None, vec![]), (301, None, None, vec![]), (-1, None, None, vec![])],
    );
    let rules = RecordRules { key_required: false, timestamps: Some(TimestampBounds::around(200, 100, 100)) };
    assert_eq!(faults(&batch, &rules), [(0, ErrorCode::InvalidTimestamp), (2, ErrorCode::InvalidTimestamp)]);
    let open = RecordRules { key_required: false, timestamps: Some(TimestampBounds::around(200, i64::MAX, i64::MAX)) };
    assert_eq!(faults(&batch, &open), []);
    let header = BatchHeader::parse(&batch).unwrap();
    assert_eq!(check(&header, &batch, &open, LIMIT).unwrap().max_timestamp, 301);
}

#[test]
fn only_a_broker_may_stamp_log_append_time() {
    let batch = batch::stamp_log_append_time(&build(Codec::None, &[(1, None, None, vec![])]), 2).unwrap();
    assert_eq!(faults(&batch, &RecordRules::default()), [(0, ErrorCode::InvalidTimestamp)]);
}

/// Offsets are dense: a delta that skips would make a hole.
#[test]
fn an_offset_delta_that_is_not_the_position_is_a_fault() {
    let batch = with_payload(2, &[12, 0, 0, 0, 1, 1, 0, 12, 0, 0, 4, 1, 1, 0]);
    assert_eq!(faults(&batch, &RecordRules::default()), [(1, ErrorCode::InvalidRecord)]);
}

fn arbitrary_record() -> impl Strategy<Value = OwnedRecord> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..40);
    let nullable = || prop::option::of(bytes());
    let headers = prop::collection::vec((bytes(), nullable()), 0..4);
    (0..1i64 << 50, nullable(), nullable(), headers)
}

proptest! {
    #[test]
    fn records_read_back_as_they_were_written(
        sent in prop::collection::vec(arbitrary_record(), 1..40),
        codec in prop::sample::select(&Codec::ALL[..]),
    ) {
        let batch = build(codec, &sent);
        let header = batch::validate(&batch, &LIMITS).unwrap();
        prop_assert_eq!(header.record_count as usize, sent.len());
        prop_assert_eq!(read(&batch).unwrap(), sent);
        prop_assert_eq!(faults(&batch, &RecordRules::default()), vec![]);
    }

    #[test]
    fn garbage_records_never_panic(
        payload in prop::collection::vec(prop_oneof![0u8..8, any::<u8>()], 0..200),
        count in prop_oneof![1i32..30, any::<i32>()],
    ) {
        let batch = with_payload(count, &payload);
        let header = BatchHeader::parse(&batch).unwrap();
        if let Ok(records) = open(&header, &batch, LIMIT) {
            for record in records.iter().flatten() {
                prop_assert_eq!(record.headers.iter().count(), record.headers.count());
            }
        }
        let _ = check(&header, &batch, &RecordRules { key_required: true, timestamps: None }, LIMIT);
    }

    #[test]
    fn flipped_bytes_in_compressed_records_never_panic(
        sent in prop::collection::vec(arbitrary_record(), 1..20),
        codec in prop::sample::select(&Codec::ALL[..]),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = build(codec, &sent).to_vec();
        for (place, value) in flips {
            let place = place.index(bytes.len() - batch::HEADER_BYTES) + batch::HEADER_BYTES;
            bytes[place] = value;
        }
        let batch = Bytes::from(bytes);
        let header = BatchHeader::parse(&batch).unwrap();
        if let Ok(records) = open(&header, &batch, LIMIT) {
            prop_assert!(records.bytes().len() <= LIMIT);
            let _ = records.iter().count();
        }
    }
}

#[test]
fn an_empty_payload_compressed_or_not_holds_no_record() {
    for codec in Codec::ALL {
        assert!(compress(codec, None, &[]).is_ok(), "{codec}");
    }
    assert_eq!(read(&with_payload(0, &[])), Ok(vec![]), "what compaction leaves of a producer's last batch");
    assert_eq!(refused(&with_payload(1, &[])), ErrorCode::InvalidRecord);
}
