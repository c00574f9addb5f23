//! LZ4 in its frame format: independent blocks of 64 KiB and no checksum of the content, as Kafka's own writer.
//!
//!     | 0x184D2204 | flags | block size | content size? | dictionary? | checksum of these | block* | 0 | checksum?
//!     block: | length, top bit: not compressed | bytes | checksum? |                all numbers little-endian
//!
//! Like Kafka, one frame is read and what follows it is ignored; a frame without its end mark is damaged.

use std::io::Write;
use std::ops::RangeInclusive;

use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use super::{Stop, read_limited};

/// What `compression.lz4.level` takes. The encoder has one speed only, so the level changes nothing.
pub(super) const LEVELS: RangeInclusive<i32> = 1..=17;

const MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
const BLOCK_CHECKSUMS: u8 = 0x10;
const CONTENT_SIZE: u8 = 0x08;
const CONTENT_CHECKSUM: u8 = 0x04;
const DICTIONARY: u8 = 0x01;
const NOT_COMPRESSED: u32 = 1 << 31;

pub(super) fn compress(input: &[u8]) -> Option<Vec<u8>> {
    let info = FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::with_capacity(input.len() / 2));
    encoder.write_all(input).ok()?;
    encoder.finish().ok()
}

pub(super) fn decompress(input: &[u8], limit: usize) -> Result<Vec<u8>, Stop> {
    let length = frame_length(input).ok_or(Stop::Damaged)?;
    read_limited(FrameDecoder::new(&input[..length]), length, limit)
}

/// Length of the first frame; None if it has no end. The decoder would take a missing end mark for an end, and
/// the start of another frame for more of this one.
fn frame_length(input: &[u8]) -> Option<usize> {
    let flags = *input.strip_prefix(&MAGIC)?.first()?;
    let has = |flag: u8| flags & flag != 0;
    // Magic, flags, block size, checksum of the header.
    let mut at = 4 + 3 + if has(CONTENT_SIZE) { 8 } else { 0 } + if has(DICTIONARY) { 4 } else { 0 };
    loop {
        let word = u32::from_le_bytes(*input.get(at..)?.first_chunk()?);
        at += 4;
        if word == 0 {
            break;
        }
        at += (word & !NOT_COMPRESSED) as usize + if has(BLOCK_CHECKSUMS) { 4 } else { 0 };
    }
    at += if has(CONTENT_CHECKSUM) { 4 } else { 0 };
    (at <= input.len()).then_some(at)
}
