//! Batches for which `min.insync.replicas` is above the majority: applied and visible to readers already, but
//! acknowledged only when that many voters have synced them.
//!
//! May not know: topics, and where the number comes from.

use ottla_env::mutants::{self, Bug};
use ottla_env::rt;
use ottla_storage::ids::RaftIndex;

use super::group::Group;
use super::queued::QueuedBatch;
use crate::replicated::error::AppendError;
use crate::replicated::shard_state::BatchOutcome;

/// Acknowledges a stored batch of the entry at `index` when enough voters have synced it; answers
/// NOT_ENOUGH_REPLICAS_AFTER_APPEND if they have not by its deadline.
pub(super) fn acknowledge_when_replicated(
    group: &dyn Group,
    index: RaftIndex,
    batch: QueuedBatch,
    outcome: BatchOutcome,
) {
    let early = u64::from(mutants::is_on(Bug::MinIsrOneEntryEarly));
    let synced = group.synced_by(RaftIndex(index.0 - early), batch.required_in_sync);
    rt::spawn(async move {
        let in_time = rt::timeout(batch.deadline.since(rt::now()), synced).await;
        batch.finish(match in_time {
            Ok(true) => Ok(outcome),
            _ => Err(AppendError::NotEnoughReplicasAfterAppend),
        });
    });
}
