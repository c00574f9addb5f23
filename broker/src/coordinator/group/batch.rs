//! The batches of `__consumer_offsets`: read into keys and values.
//!
//! May not know: what the records mean.

use bytes::Bytes;

use super::wire::{Malformed, Reader};

/// A record's key and value.
pub(super) type KeyValue = (Bytes, Option<Bytes>);

/// Bytes of a v2 batch before its records, and the place of their count.
const HEADER_BYTES: usize = 61;
const COUNT_AT: usize = 57;
const ATTRIBUTES_AT: usize = 21;

/// The records of an uncompressed v2 batch; control batches have none.
pub(super) fn records(batch: &Bytes) -> Result<Vec<KeyValue>, Malformed> {
    if batch.len() < HEADER_BYTES {
        return Err(Malformed("batch shorter than its header"));
    }
    let attributes = Reader::new(batch.slice(ATTRIBUTES_AT..)).i16()?;
    if attributes & 0x07 != 0 {
        return Err(Malformed("compressed batch"));
    }
    if attributes & 0x20 != 0 {
        return Ok(Vec::new());
    }
    let count = Reader::new(batch.slice(COUNT_AT..)).i32()?;
    let mut body = Reader::new(batch.slice(HEADER_BYTES..));
    let mut records = Vec::new();
    for _ in 0..count {
        let length = length(&mut body)?.ok_or(Malformed("record without length"))?;
        let mut record = Reader::new(body.take(length)?);
        record.take(1)?; // attributes
        record.varlong()?; // timestamp delta
        record.varlong()?; // offset delta
        let key = length_prefixed(&mut record)?.ok_or(Malformed("record without key"))?;
        let value = length_prefixed(&mut record)?;
        records.push((key, value));
    }
    Ok(records)
}

fn length(reader: &mut Reader) -> Result<Option<usize>, Malformed> {
    match reader.varlong()? {
        -1 => Ok(None),
        n => usize::try_from(n).map(Some).map_err(|_| Malformed("negative length")),
    }
}

fn length_prefixed(reader: &mut Reader) -> Result<Option<Bytes>, Malformed> {
    match length(reader)? {
        None => Ok(None),
        Some(length) => reader.take(length).map(Some),
    }
}
