//! LZ4 in its frame format: independent blocks of 64 KiB and no checksum of the content, as Kafka's own writer.

use std::io::Write;
use std::ops::RangeInclusive;

use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use super::{Stop, read_limited};

/// What `compression.lz4.level` takes. The encoder has one speed only, so the level changes nothing.
pub(super) const LEVELS: RangeInclusive<i32> = 1..=17;

pub(super) fn compress(input: &[u8]) -> Option<Vec<u8>> {
    let info = FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::with_capacity(input.len() / 2));
    encoder.write_all(input).ok()?;
    encoder.finish().ok()
}

pub(super) fn decompress(input: &[u8], limit: usize) -> Result<Vec<u8>, Stop> {
    read_limited(FrameDecoder::new(input), input.len(), limit)
}
