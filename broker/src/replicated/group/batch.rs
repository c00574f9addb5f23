//! The batches of `__consumer_offsets`: records into batches of bounded size, and back into keys and values.
//!
//! May not know: what the records mean.

use bytes::Bytes;
use ottla_protocol::batch::{BatchBuilder, BatchHeader, NO_SEQUENCE, NewRecord};
use ottla_protocol::compression::Codec;
use ottla_protocol::ids::ProducerId;

use super::records::Record;
use super::schema::Malformed;

/// A record's key and value.
pub(crate) type KeyValue = (Bytes, Option<Bytes>);

/// A batch is closed once it is this large; one larger record still makes a batch of its own.
const BATCH_BYTES_TARGET: usize = 256 * 1024;

/// A compressed batch may not unpack to more than this.
const UNPACKED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The records of a batch; control batches have none.
pub(crate) fn records(batch: &Bytes) -> Result<Vec<KeyValue>, Malformed> {
    let header = BatchHeader::parse(batch).ok_or(Malformed("batch shorter than its header"))?;
    if header.attributes.is_control() {
        return Ok(Vec::new());
    }
    let opened = ottla_protocol::records::open(&header, batch, UNPACKED_BYTES_MAX)
        .map_err(|_| Malformed("batch that cannot be opened"))?;
    let mut records = Vec::new();
    for record in opened.iter() {
        let record = record.map_err(|_| Malformed("damaged record"))?;
        let key = record.key.ok_or(Malformed("record without key"))?;
        let value = record.value.map(|value| opened.bytes().slice_ref(value));
        records.push((opened.bytes().slice_ref(key), value));
    }
    Ok(records)
}

/// Batches that carry these records in order, all of one group. `producer`: they belong to its transaction.
pub(crate) fn build(records: &[Record], time_ms: i64, producer: Option<(ProducerId, i16)>) -> Vec<Bytes> {
    let new = || match producer {
        Some((id, epoch)) => BatchBuilder::new(Codec::None).with_producer(id.0, epoch, NO_SEQUENCE).transactional(),
        None => BatchBuilder::new(Codec::None),
    };
    let mut batches = Vec::new();
    let mut builder = new();
    for (key, value) in records.iter().map(Record::encode) {
        builder.push(&NewRecord { timestamp: time_ms, key: Some(&key), value: value.as_deref(), headers: &[] });
        if builder.bytes() >= BATCH_BYTES_TARGET {
            let full = std::mem::replace(&mut builder, new());
            batches.extend(full.build());
        }
    }
    if builder.record_count() > 0 {
        // Without a codec nothing can fail.
        batches.extend(builder.build());
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tombstone(partition: i32) -> Record {
        Record::Offset { group: "g".into(), topic: "t".repeat(200), partition, value: None }
    }

    #[test]
    fn records_are_spread_over_bounded_batches_and_keep_their_order() {
        let records: Vec<Record> = (0..5_000).map(tombstone).collect();
        let batches = build(&records, 7, None);
        assert!(batches.len() > 1);
        assert!(batches.iter().all(|batch| batch.len() < BATCH_BYTES_TARGET + 1_024));
        let read = batches.iter().flat_map(|batch| super::records(batch).unwrap());
        let read: Vec<Record> = read.map(|(key, value)| Record::decode(key, value).unwrap()).collect();
        assert_eq!(read, records);
        assert!(build(&[], 7, None).is_empty());
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let batch = &build(&[tombstone(1), tombstone(2)], 7, None)[0];
        for end in 0..batch.len() {
            assert!(super::records(&batch.slice(..end)).is_err());
        }
    }
}
