//! Recompresses a batch with another codec (`compression.type` of a topic). The records' bytes stay the same,
//! so duplicate header names and whatever else a client sent survive.

use bytes::{BufMut, Bytes, BytesMut};

use super::{RecordsError, payload};
use crate::batch::{ATTRIBUTES_AT, BatchHeader, HEADER_BYTES, LENGTH_AT, LENGTH_PREFIX_BYTES, write_crc};
use crate::compression::{Codec, compress};

/// The same batch with its records compressed by `codec` at `level`, and a new CRC.
/// The old codec may yield at most `limit` bytes.
pub fn recompress(
    header: &BatchHeader,
    batch: &Bytes,
    codec: Codec,
    level: Option<i32>,
    limit: usize,
) -> Result<Bytes, RecordsError> {
    rewrite(header, batch, &payload(header, batch, limit)?, codec, level)
}

/// As [`recompress`], for a batch whose records have been decompressed already: `plain`.
pub fn rewrite(
    header: &BatchHeader,
    batch: &Bytes,
    plain: &Bytes,
    codec: Codec,
    level: Option<i32>,
) -> Result<Bytes, RecordsError> {
    let records = if codec == Codec::None { plain.clone() } else { compress(codec, level, plain)? };
    let mut out = BytesMut::with_capacity(HEADER_BYTES + records.len());
    out.put_slice(&batch[..HEADER_BYTES]);
    out.put_slice(&records);
    let length = (HEADER_BYTES - LENGTH_PREFIX_BYTES + records.len()) as i32;
    out[LENGTH_AT..LENGTH_AT + 4].copy_from_slice(&length.to_be_bytes());
    let attributes = header.attributes.with_codec(codec);
    out[ATTRIBUTES_AT..ATTRIBUTES_AT + 2].copy_from_slice(&attributes.0.to_be_bytes());
    write_crc(&mut out);
    Ok(out.freeze())
}
