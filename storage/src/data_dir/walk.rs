//! A walk over the batches of a partition in order, by the index alone: which they are, and which of them are control
//! batches.
//!
//! The index does not say what a batch is. A control batch has one record of a few bytes, so only batches as small as
//! that are read, and of a partition of ordinary batches none is. May not know: what is counted by it.

use std::collections::BTreeSet;

use ottla_protocol::batch::split_batches;
use ottla_protocol::ids::Offset;

use super::DataDir;
use crate::index::{Bounds, ExtentKey, IndexedBatch, Planned};
use crate::read::ReadError;

/// Control batches have 78 bytes; later versions of a marker may have some more.
const CONTROL_BYTES_MAX: u32 = 128;
/// Bytes of batches that are looked up at once: some hundreds of small ones, or one that is larger.
const STEP_BYTES: u64 = 64 * 1024;

/// A batch of a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalkedBatch {
    /// As the index lists it.
    pub indexed: IndexedBatch,
    /// It has a control record, which is no record for clients.
    pub is_control: bool,
}

impl DataDir {
    /// The batches from the one that holds `from` on that begin below `up_to`, `batches_max` at most. A damaged one
    /// is taken for an ordinary batch.
    pub async fn walk(
        &self,
        key: ExtentKey,
        from: Offset,
        up_to: Offset,
        batches_max: usize,
    ) -> Result<Vec<WalkedBatch>, ReadError> {
        let (mut walked, mut at) = (Vec::new(), from);
        while at < up_to && walked.len() < batches_max {
            let bounds = Bounds { from: at, up_to, bytes_max: STEP_BYTES, at_least_one: true };
            let mut planned = self.look_up(at, move |index, access| index.plan(key, bounds, access)).await?.batches;
            planned.truncate(batches_max - walked.len());
            let Some(last) = planned.last() else { break };
            let end = last.indexed.end_offset();
            let found: Vec<IndexedBatch> = planned.iter().map(|planned| planned.indexed).collect();
            let control = self.control_batches(key, planned).await?;
            walked.extend(found.into_iter().map(|indexed| {
                let is_control = control.contains(&indexed.base_offset);
                WalkedBatch { indexed, is_control }
            }));
            at = end;
        }
        Ok(walked)
    }

    /// Base offsets of the control batches among these.
    async fn control_batches(&self, key: ExtentKey, mut planned: Vec<Planned>) -> Result<BTreeSet<Offset>, ReadError> {
        planned.retain(|Planned { indexed, .. }| indexed.record_count == 1 && indexed.bytes <= CONTROL_BYTES_MAX);
        let Some(first) = planned.first() else { return Ok(BTreeSet::new()) };
        let from = first.indexed.base_offset;
        let bytes = match self.open_plan(key, from, planned)?.read().await {
            Ok(bytes) => bytes.freeze(),
            Err(ReadError::Damaged { .. }) => return Ok(BTreeSet::new()),
            Err(error) => return Err(error),
        };
        let headers = split_batches(&bytes).filter_map(|batch| batch.ok().map(|batch| batch.header));
        Ok(headers.filter(|header| header.attributes.is_control()).map(|header| header.base_offset).collect())
    }
}
