//! The log start moves up: by time and size of a topic (`retention.ms`, `retention.bytes`), and behind the checkpoint
//! in a partition that keeps groups (design section 11).
//!
//! Only proposes: apply clamps the offset and decides. Nothing expires by a clock that has jumped. Where `cleanup.policy` does not
//! have `delete` nothing is lost by time or size. May not know: when a round is due.

use std::collections::BTreeMap;

use ottla_env::mutants::{self, Bug};
use ottla_protocol::ids::{Offset, PartitionId};

use crate::metadata::MetadataImage;
use crate::replicated::command::{Command, LogStartChange, LogStartReason, PARTITIONS_PER_ENTRY_MAX};
use crate::replicated::error::PartitionError;
use crate::replicated::kept::Keeps;
use crate::shard::Shard;

/// One command per shard: for each partition the longest prefix of whole batches that exceeds retention by time or
/// size.
pub(super) async fn enforce_retention(shard: &Shard, image: &MetadataImage) -> Result<(), PartitionError> {
    let Some(directory) = shard.directory() else { return Ok(()) };
    if shard.leading().is_none() {
        return Ok(());
    }
    let now_ms = shard.clock_for_expiry();
    let mut changes = Vec::new();
    for view in shard.read_view().all() {
        let Some(topic) = image.topic_by_id(&view.id.topic) else { continue };
        if !topic.config.cleanup_policy.delete || view.kept.is_some() {
            continue;
        }
        let cutoff_ms = topic.config.retention_ms.and_then(|keep_ms| now_ms.map(|now| now.saturating_sub(keep_ms)));
        let bytes_max = topic.config.retention_bytes.and_then(|bytes| u64::try_from(bytes).ok());
        let offsets = view.offsets();
        if (cutoff_ms.is_none() && bytes_max.is_none()) || offsets.log_start == offsets.high_watermark {
            continue;
        }
        let up_to = offsets.high_watermark;
        match directory.retention_point(directory.extent(shard.replica, view.id), up_to, cutoff_ms, bytes_max).await {
            Ok(Some(offset)) => {
                changes.push(LogStartChange { id: view.id, offset, reason: LogStartReason::Retention });
            }
            Ok(None) => {}
            Err(error) => tracing::warn!("partition={}: retention cannot read: {error}", view.id),
        }
    }
    set_log_starts(shard, changes).await
}

/// Moves the log start of internal topics up to what the oldest kept checkpoint covers: the log below it is not needed
/// any more.
pub(super) async fn follow_checkpoint(shard: &Shard) -> Result<(), PartitionError> {
    let Some(directory) = shard.directory() else { return Ok(()) };
    if shard.keeps() == Keeps::Records || shard.leading().is_none() {
        return Ok(());
    }
    let Some(kept) = directory.oldest_kept(shard.replica) else { return Ok(()) };
    let ends: BTreeMap<PartitionId, Offset> = {
        let mut points = shard.cut_points().lock();
        let covered = points.covered_by(kept.index);
        covered.map(|point| point.ends.iter().copied().collect()).unwrap_or_default()
    };
    let mut changes = Vec::new();
    for view in shard.read_view().all() {
        if let Some(end) = ends.get(&view.id)
            && *end > view.offsets().log_start
        {
            changes.push(LogStartChange { id: view.id, offset: *end, reason: LogStartReason::Checkpointed });
        }
    }
    set_log_starts(shard, changes).await
}

async fn set_log_starts(shard: &Shard, changes: Vec<LogStartChange>) -> Result<(), PartitionError> {
    if mutants::is_on(Bug::LogStartNotCarried) {
        shard.state().lock().set_log_starts(&changes);
        return Ok(());
    }
    for chunk in changes.chunks(PARTITIONS_PER_ENTRY_MAX) {
        shard.command(Command::SetLogStart(chunk.to_vec())).await?;
    }
    Ok(())
}
