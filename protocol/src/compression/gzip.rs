//! Gzip: members may be concatenated, as Java's reader allows.

use std::io::Write;
use std::ops::RangeInclusive;

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

use super::{Stop, read_limited};

/// What `compression.gzip.level` takes, besides -1 for the default.
pub(super) const LEVELS: RangeInclusive<i32> = 1..=9;

pub(super) fn compress(level: Option<i32>, input: &[u8]) -> Option<Vec<u8>> {
    let level = match level {
        None | Some(-1) => Compression::default(),
        Some(level) if LEVELS.contains(&level) => Compression::new(level as u32),
        Some(_) => return None,
    };
    let mut encoder = GzEncoder::new(Vec::with_capacity(input.len() / 2), level);
    encoder.write_all(input).ok()?;
    encoder.finish().ok()
}

pub(super) fn decompress(input: &[u8], limit: usize) -> Result<Vec<u8>, Stop> {
    read_limited(MultiGzDecoder::new(input), input.len(), limit)
}
