//! Decodes the record batches of a Fetch response.
//!
//! May not know: where they came from.

use std::ops::Range;

use bytes::Bytes;
use ottla_protocol::batch::{BatchHeader, HEADER_BYTES, check_crc, split_batches};
use ottla_protocol::records::open;

use super::error::ClientError;

/// The largest size of a decompressed batch.
const OPENED_BYTES_MAX: usize = 256 << 20;

/// A record that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRecord {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// None: no key.
    pub key: Option<Bytes>,
    /// None: a tombstone.
    pub value: Option<Bytes>,
    /// Names and values, in order.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// Adds the records whose offsets are `wanted` to `all`, without control records. Returns the next offset to fetch:
/// that after the last whole batch.
pub(super) fn read(
    bytes: &Bytes,
    partition: i32,
    wanted: Range<i64>,
    what: impl Fn() -> String,
    all: &mut Vec<ReadRecord>,
) -> Result<i64, ClientError> {
    let bad = |offset: i64, why: String| ClientError::BadRecords { what: format!("{} offset {offset}", what()), why };
    let mut next = wanted.start;
    // A broker may cut the last batch at its byte limit.
    for batch in split_batches(&bytes.slice(..whole_batches(bytes))) {
        let batch = batch.map_err(|error| bad(next, error.to_string()))?;
        check_crc(&batch.bytes, &batch.header).map_err(|error| bad(next, error.to_string()))?;
        if !batch.header.attributes.is_control() {
            let opened =
                open(&batch.header, &batch.bytes, OPENED_BYTES_MAX).map_err(|error| bad(next, error.to_string()))?;
            for record in &opened {
                let record = record.map_err(|error| bad(next, error.to_string()))?;
                let offset = batch.header.base_offset.plus(i64::from(record.offset_delta)).0;
                if wanted.contains(&offset) {
                    let keep = |slice: &[u8]| opened.bytes().slice_ref(slice);
                    all.push(ReadRecord {
                        partition,
                        offset,
                        timestamp: record.timestamp,
                        key: record.key.map(keep),
                        value: record.value.map(keep),
                        headers: record.headers.iter().map(|(name, value)| (keep(name), value.map(keep))).collect(),
                    });
                }
            }
        }
        next = next.max(batch.header.next_offset().0);
    }
    Ok(next)
}

/// The length of the whole batches at the front.
fn whole_batches(bytes: &Bytes) -> usize {
    let mut at = 0;
    while let Some(header) = BatchHeader::parse(&bytes[at..]) {
        let length = header.total_bytes();
        if length < HEADER_BYTES || length > bytes.len() - at {
            break;
        }
        at += length;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_protocol::batch::{BatchBuilder, ControlRecord, NewRecord, encode_control_batch, patch_head};
    use ottla_protocol::compression::Codec;
    use ottla_protocol::ids::{LeaderEpoch, Offset};

    fn at(base: i64, batch: &Bytes) -> Vec<u8> {
        let mut batch = batch.to_vec();
        patch_head(batch.first_chunk_mut().unwrap(), Offset(base), LeaderEpoch(1));
        batch
    }

    fn batch(codec: Codec, values: &[&str]) -> Bytes {
        let mut builder = BatchBuilder::new(codec);
        for value in values {
            let headers: &[(&[u8], Option<&[u8]>)] = &[(b"h", None)];
            builder.push(&NewRecord { timestamp: 7, key: Some(b"k"), value: Some(value.as_bytes()), headers });
        }
        builder.build().unwrap()
    }

    fn values(bytes: &[u8], wanted: Range<i64>) -> Result<(Vec<String>, i64), ClientError> {
        let mut all = Vec::new();
        let next = read(&Bytes::copy_from_slice(bytes), 0, wanted, || "t".to_owned(), &mut all)?;
        let text = |record: &ReadRecord| String::from_utf8(record.value.clone().unwrap().to_vec()).unwrap();
        Ok((all.iter().map(text).collect(), next))
    }

    #[test]
    fn what_is_wanted_is_read_and_control_records_are_passed_over() {
        let marker = encode_control_batch(3, 0, 7, ControlRecord::Commit { coordinator_epoch: 1 });
        let fetched = [
            at(10, &batch(Codec::None, &["a", "b"])),
            at(12, &marker),
            at(13, &batch(Codec::Zstd, &["c", "d"])),
            at(15, &batch(Codec::None, &["cut"])),
        ]
        .concat();
        let cut = &fetched[..fetched.len() - 1];
        assert_eq!(values(cut, 11..i64::MAX).unwrap(), (vec!["b".into(), "c".into(), "d".into()], 15));
        assert_eq!(values(cut, 10..14).unwrap(), (vec!["a".into(), "b".into(), "c".into()], 15));
        assert_eq!(values(&[], 4..9).unwrap(), (Vec::new(), 4));
    }

    #[test]
    fn a_damaged_batch_is_an_error_that_names_its_place() {
        let mut fetched = at(10, &batch(Codec::None, &["a"]));
        *fetched.last_mut().unwrap() ^= 1;
        let error = values(&fetched, 10..i64::MAX).unwrap_err().to_string();
        assert!(error.starts_with("t offset 10: "), "{error}");
    }
}
