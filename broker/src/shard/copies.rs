//! Batches that more voters must have synced than Raft needs (`min.insync.replicas` above the majority): applied and seen by
//! readers already, but answered only when the copies are there.
//!
//! May not know: topics, and who asked for the copies.

use ottla_storage::env::rt;
use ottla_storage::ids::RaftIndex;

use super::group::Group;
use super::queue::QueuedBatch;
use super::state::BatchOutcome;
use crate::partition::AppendError;

/// Answers a batch of the entry at `index` when it has its copies; NOT_ENOUGH_REPLICAS_AFTER_APPEND if it does not in time.
pub(super) fn answer_later(group: &dyn Group, index: RaftIndex, batch: QueuedBatch, outcome: BatchOutcome) {
    if !matches!(outcome, BatchOutcome::Stored { .. }) {
        return batch.finish(Ok(outcome));
    }
    let synced = group.synced_by(index, batch.copies);
    rt::spawn(async move {
        let in_time = rt::timeout(batch.deadline.since(rt::now()), synced).await;
        batch.finish(match in_time {
            Ok(true) => Ok(outcome),
            _ => Err(AppendError::NotEnoughReplicasAfterAppend),
        });
    });
}
