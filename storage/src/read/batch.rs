//! One batch among the bytes of a segment: its validation, and the patch of its header before it is sent.
//!
//! May not know: where the bytes come from.

use crate::env::mutants::{self, Bug};
use crate::index::IndexedBatch;

/// Bytes of a batch before those that its own CRC-32C covers.
const CRC_FROM: usize = 21;
/// Bytes of a batch's header.
pub(super) const HEADER_BYTES: usize = 61;
/// Bytes at the front that hold base offset, length and leader epoch.
pub(super) const HEAD_BYTES: usize = 16;
/// The length, which is not changed.
pub(super) const LENGTH_PLACE: std::ops::Range<usize> = 8..12;

/// True if the bytes are one whole batch of format 2; its CRC-32C is summed only if `verify`.
pub(crate) fn is_sound(batch: &[u8], verify: bool) -> bool {
    if batch.len() < HEADER_BYTES || batch[16] != 2 {
        return false;
    }
    let length = u32::from_be_bytes([batch[8], batch[9], batch[10], batch[11]]);
    if length as usize != batch.len() - 12 {
        return false;
    }
    let crc = u32::from_be_bytes([batch[17], batch[18], batch[19], batch[20]]);
    let verify = verify && !mutants::is_on(Bug::CrcFailureSkipped);
    !verify || crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &batch[CRC_FROM..]) == u64::from(crc)
}

/// Writes base offset and leader epoch into a batch's header: both lie outside the batch's CRC.
pub(super) fn patch(head: &mut [u8], indexed: &IndexedBatch) {
    head[..8].copy_from_slice(&indexed.base_offset.0.to_be_bytes());
    if !mutants::is_on(Bug::EpochNotPatched) {
        head[12..16].copy_from_slice(&indexed.epoch.0.to_be_bytes());
    }
}
