//! Recompresses a batch with another codec (`compression.type` of a topic). The records' bytes stay the same,
//! so duplicate header names and whatever else a client sent survive.

use bytes::Bytes;

use super::{RecordsError, payload};
use crate::batch::{BatchHeader, with_records};
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
    Ok(with_records(batch, header.attributes.with_codec(codec), &records))
}
