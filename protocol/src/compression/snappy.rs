//! Snappy, framed as xerial's Java library does it, or raw as older librdkafka sends it.
//!
//!     0                            8         12           16
//!     | 0x82 'S' 'N' 'A' 'P' 'P' 'Y' 0 | version | compatible | (length | raw snappy block)*
//!
//! A stream may hold several headers: streams are concatenated by writers that append.

use snap::raw::{Decoder, Encoder, decompress_len};

use super::Stop;

const MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const HEADER_BYTES: usize = 16;
const VERSION: u32 = 1;
const COMPATIBLE: u32 = 1;
/// Block size of the Java library.
const BLOCK_BYTES: usize = 32 * 1024;

pub(super) fn compress(input: &[u8]) -> Option<Vec<u8>> {
    let mut output = Vec::with_capacity(HEADER_BYTES + input.len() / 2);
    output.extend_from_slice(&MAGIC);
    output.extend_from_slice(&VERSION.to_be_bytes());
    output.extend_from_slice(&COMPATIBLE.to_be_bytes());
    let mut encoder = Encoder::new();
    for block in input.chunks(BLOCK_BYTES) {
        let compressed = encoder.compress_vec(block).ok()?;
        output.extend_from_slice(&u32::try_from(compressed.len()).ok()?.to_be_bytes());
        output.extend_from_slice(&compressed);
    }
    Some(output)
}

pub(super) fn decompress(input: &[u8], limit: usize) -> Result<Vec<u8>, Stop> {
    let mut output = Vec::new();
    if !input.starts_with(&MAGIC) {
        append_block(input, limit, &mut output)?;
        return Ok(output);
    }
    let mut rest = input;
    while !rest.is_empty() {
        if rest.starts_with(&MAGIC) {
            rest = rest.get(HEADER_BYTES..).ok_or(Stop::Damaged)?;
            continue;
        }
        let (length, after) = rest.split_first_chunk::<4>().ok_or(Stop::Damaged)?;
        let (block, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or(Stop::Damaged)?;
        append_block(block, limit, &mut output)?;
        rest = after;
    }
    Ok(output)
}

/// Appends one raw block. Its claimed length is accepted only within the limit and within what its bytes can
/// expand to.
fn append_block(block: &[u8], limit: usize, output: &mut Vec<u8>) -> Result<(), Stop> {
    // A copy element of three bytes yields at most 64.
    const EXPANSION_MAX: usize = 64;
    let claimed = decompress_len(block).map_err(|_| Stop::Damaged)?;
    if claimed > block.len().saturating_mul(EXPANSION_MAX) {
        return Err(Stop::Damaged);
    }
    let start = output.len();
    if claimed > limit.saturating_sub(start) {
        return Err(Stop::TooLarge);
    }
    output.resize(start + claimed, 0);
    let written = Decoder::new().decompress(block, &mut output[start..]).map_err(|_| Stop::Damaged)?;
    output.truncate(start + written);
    Ok(())
}
