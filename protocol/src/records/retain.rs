//! Batches of which compaction keeps some records, or none.
//!
//! What is kept stays as it was sent: offset, sequence, timestamp and the bytes of each record, so that duplicate header names and whatever
//! else a client sent survive. May not know: which records are kept, and why.

use bytes::{Bytes, BytesMut};

use super::{Record, RecordsError, open};
use crate::batch::{BatchHeader, with_some_records};
use crate::compression::{Codec, compress};

/// What is left of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retained {
    /// All of it: its bytes stay.
    All,
    /// No record.
    Nothing,
    /// A batch with the same first and last offset and fewer records.
    Some(Bytes),
}

/// Keeps the records of a whole batch for which `keeps` says so, in its codec. The greatest timestamp becomes that of what is kept, but
/// for LogAppendTime, where it is the time of all. The codec may yield at most `limit` bytes.
pub fn retain(
    header: &BatchHeader,
    batch: &Bytes,
    limit: usize,
    mut keeps: impl FnMut(&Record<'_>) -> bool,
) -> Result<Retained, RecordsError> {
    let records = open(header, batch, limit)?;
    let (mut kept, mut count, mut max_timestamp) = (BytesMut::new(), 0, i64::MIN);
    let (mut iter, mut from) = (records.iter(), 0);
    // What is kept since then is not copied yet: where all is kept, nothing is.
    let mut uncopied_from = 0;
    while let Some(record) = iter.next() {
        let record = record?;
        let end = iter.position();
        if keeps(&record) {
            max_timestamp = max_timestamp.max(record.timestamp);
            count += 1;
        } else {
            kept.extend_from_slice(&records.bytes()[uncopied_from..from]);
            uncopied_from = end;
        }
        from = end;
    }
    if count == records.count() {
        return Ok(Retained::All);
    }
    if count == 0 {
        return Ok(Retained::Nothing);
    }
    kept.extend_from_slice(&records.bytes()[uncopied_from..from]);
    let plain = kept.freeze();
    let codec = header.attributes.codec().ok_or(RecordsError::UnknownCodec)?;
    let bytes = if codec == Codec::None { plain } else { compress(codec, None, &plain)? };
    Ok(Retained::Some(with_some_records(batch, count, max_timestamp, &bytes)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::batch::{BatchBuilder, HEADER_BYTES, NewRecord, crc_holds, empty_batch};
    use crate::ids::{LeaderEpoch, Offset};

    const LIMIT: usize = 1 << 20;
    const FROM: i64 = 1_000;

    fn built(codec: Codec, timestamps: &[i64]) -> Bytes {
        let mut builder = BatchBuilder::new(codec).with_producer(7, 2, 40);
        for (index, timestamp) in timestamps.iter().enumerate() {
            let key = index.to_be_bytes();
            let value = [b'v'; 40];
            let headers: &[(&[u8], Option<&[u8]>)] = &[(b"twice", Some(b"1")), (b"twice", None)];
            builder.push(&NewRecord { timestamp: *timestamp, key: Some(&key), value: Some(&value), headers });
        }
        builder.build().unwrap()
    }

    fn retained(batch: &Bytes, keeps: impl Fn(i32) -> bool) -> Retained {
        let header = BatchHeader::parse(batch).unwrap();
        retain(&header, batch, LIMIT, |record| keeps(record.offset_delta)).unwrap()
    }

    proptest! {
        #[test]
        fn what_is_kept_is_as_it_was(
            codec in prop::sample::select(&Codec::ALL[..]),
            records in prop::collection::vec((FROM..FROM + 100, any::<bool>()), 1..40),
        ) {
            let timestamps: Vec<i64> = records.iter().map(|(timestamp, _)| *timestamp).collect();
            let batch = built(codec, &timestamps);
            let kept: Vec<usize> = (0..records.len()).filter(|index| records[*index].1).collect();
            let after = match retained(&batch, |delta| records[delta as usize].1) {
                Retained::All => {
                    prop_assert_eq!(kept.len(), records.len());
                    return Ok(());
                }
                Retained::Nothing => {
                    prop_assert!(kept.is_empty());
                    return Ok(());
                }
                Retained::Some(after) => after,
            };
            prop_assert!(crc_holds(&after));
            let (was, is) = (BatchHeader::parse(&batch).unwrap(), BatchHeader::parse(&after).unwrap());
            let max_timestamp = kept.iter().map(|index| timestamps[*index]).max().unwrap();
            let expected = BatchHeader {
                length: (after.len() - crate::batch::LENGTH_PREFIX_BYTES) as i32,
                crc: is.crc,
                record_count: kept.len() as i32,
                max_timestamp,
                ..was
            };
            prop_assert_eq!(is, expected);
            let (before, after) = (open(&was, &batch, LIMIT).unwrap(), open(&is, &after, LIMIT).unwrap());
            let of = |records: &super::super::Records, index: usize| {
                let record = records.iter().map(Result::unwrap).find(|record| record.offset_delta == index as i32).unwrap();
                let headers: Vec<_> = record.headers.iter().map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec))).collect();
                (record.timestamp, record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec), headers)
            };
            prop_assert_eq!(after.iter().count(), kept.len());
            for index in kept {
                prop_assert_eq!(of(&before, index), of(&after, index));
            }
        }
    }

    #[test]
    fn what_is_retained_once_more_is_as_if_it_was_retained_at_once() {
        let batch = built(Codec::Zstd, &[1, 5, 3, 4]);
        let Retained::Some(once) = retained(&batch, |delta| delta != 1) else { panic!("some are kept") };
        let Retained::Some(twice) = retained(&once, |delta| delta == 2) else { panic!("some are kept") };
        assert_eq!(retained(&batch, |delta| delta == 2), Retained::Some(twice.clone()));
        assert_eq!(BatchHeader::parse(&twice).unwrap().max_timestamp, 3);
    }

    #[test]
    fn the_time_of_appending_stays() {
        let batch = crate::batch::stamp_log_append_time(&built(Codec::None, &[1, 2]), 99).unwrap();
        let Retained::Some(after) = retained(&batch, |delta| delta == 0) else { panic!("one is kept") };
        assert_eq!(BatchHeader::parse(&after).unwrap().max_timestamp, 99);
    }

    #[test]
    fn records_that_cannot_be_read_are_an_error() {
        let batch = built(Codec::None, &[1, 2]);
        let header = BatchHeader { record_count: 3, ..BatchHeader::parse(&batch).unwrap() };
        assert!(retain(&header, &batch, LIMIT, |_| true).is_err());
    }

    #[test]
    fn an_empty_batch_covers_its_offsets() {
        let bytes = empty_batch(Offset(40), 3, LeaderEpoch(5));
        assert_eq!(bytes.len(), HEADER_BYTES);
        assert!(crc_holds(&bytes));
        let header = BatchHeader::parse(&bytes).unwrap();
        assert_eq!(
            (header.base_offset, header.next_offset(), header.leader_epoch),
            (Offset(40), Offset(43), LeaderEpoch(5))
        );
        assert_eq!((header.record_count, header.max_timestamp, header.is_idempotent()), (0, -1, false));
        assert_eq!(open(&header, &bytes, LIMIT).unwrap().iter().count(), 0);
    }
}
