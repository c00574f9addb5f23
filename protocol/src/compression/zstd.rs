//! Zstandard (KIP-110): frames usually come without a content size, because clients stream into them.

use std::ops::RangeInclusive;

use super::{Stop, read_limited};

const LEVEL_DEFAULT: i32 = 3;
/// The largest window that is accepted, as in Kafka's Java reader. It is address space: pages of it are touched
/// only as output is written, and that is limited.
const WINDOW_LOG_MAX: u32 = 27;

pub(super) fn levels() -> RangeInclusive<i32> {
    zstd::compression_level_range()
}

pub(super) fn compress(level: Option<i32>, input: &[u8]) -> Option<Vec<u8>> {
    zstd::bulk::compress(input, level.unwrap_or(LEVEL_DEFAULT)).ok()
}

pub(super) fn decompress(input: &[u8], limit: usize) -> Result<Vec<u8>, Stop> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(|_| Stop::Damaged)?;
    decoder.window_log_max(WINDOW_LOG_MAX).map_err(|_| Stop::Damaged)?;
    read_limited(decoder, input.len(), limit)
}
