//! One batch among the bytes of a segment: its validation, and the patch of its header before it is sent.
//!
//! May not know: where the bytes come from.

use ottla_protocol::batch::{self, MAGIC, RawHeader};
use ottla_protocol::ids::LeaderEpoch;

use crate::index::IndexedBatch;
use ottla_env::mutants::{self, Bug};

/// True if the bytes are one whole batch of format 2; its CRC-32C is summed only if `verify`.
pub(crate) fn is_sound(batch: &[u8], verify: bool) -> bool {
    let is_one = batch::is_whole(batch) && RawHeader::of(batch).is_some_and(|header| header.magic() == MAGIC);
    let verify = verify && !mutants::is_on(Bug::CrcFailureSkipped);
    is_one && (!verify || batch::crc_holds(batch))
}

/// Writes base offset and leader epoch into the header of a sound batch.
pub(super) fn patch(batch: &mut [u8], indexed: &IndexedBatch) {
    let IndexedBatch { base_offset, position, .. } = *indexed;
    let bytes = batch.len();
    let Some(head) = batch.first_chunk_mut() else {
        panic!("batch at offset {base_offset}, {position:?}: {bytes} bytes are sound, which is no header")
    };
    batch::patch_head(head, base_offset, epoch_of(indexed));
}

/// The same for the bytes of a batch from its byte `from` on.
pub(super) fn patch_part(part: &mut [u8], from: usize, indexed: &IndexedBatch) {
    batch::patch_part(part, from, indexed.base_offset, epoch_of(indexed));
}

/// The epoch to be sent; for a seeded bug the one that producers state.
fn epoch_of(indexed: &IndexedBatch) -> LeaderEpoch {
    if mutants::is_on(Bug::EpochNotPatched) { LeaderEpoch(-1) } else { indexed.epoch }
}
