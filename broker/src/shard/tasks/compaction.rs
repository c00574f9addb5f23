//! Decides when a partition of a compacted topic is compacted further (design section 12.2): as Kafka's cleaner, by
//! `min.cleanable.dirty.ratio`, `min.compaction.lag.ms` and `max.compaction.lag.ms`.
//!
//! Only proposes: apply decides, and every replica does the pass from its own bytes. May not know: when a round is due, what a pass keeps.

use ottla_protocol::ids::{Offset, PartitionId};
use ottla_storage::index::DirtyBytes;

use crate::config::TopicConfig;
use crate::levels::COMPACTION;
use crate::metadata::MetadataImage;
use crate::replicated::command::{Command, CompactionChange, PARTITIONS_PER_ENTRY_MAX};
use crate::replicated::compaction::CompactionState;
use crate::replicated::error::PartitionError;
use crate::replicated::shard_state::PartitionState;
use crate::shard::Shard;

/// A partition that may be compacted: up to its last stable offset.
struct Candidate {
    id: PartitionId,
    last: CompactionState,
    last_stable: Offset,
}

/// Passes over the partitions that are due, and that this replica has compacted as far as was decided: a pass that follows at once would
/// find replicas that are behind.
pub(super) async fn decide_passes(shard: &Shard, image: &MetadataImage) -> Result<(), PartitionError> {
    let Some(directory) = shard.directory() else { return Ok(()) };
    if shard.leading().is_none() || image.level < COMPACTION {
        return Ok(());
    }
    let Some(now_ms) = shard.clock_for_expiry() else { return Ok(()) };
    let mut changes = Vec::new();
    for Candidate { id, last, last_stable } in candidates(shard, image) {
        let Some(topic) = image.topic_by_id(&id.topic) else { continue };
        let done = directory.pass_done(shard.replica, id).map_or(0, |done| done.number);
        if done < last.number {
            continue;
        }
        let before_ms = match topic.config.min_compaction_lag_ms {
            0 => i64::MAX,
            lag_ms => now_ms.saturating_sub(lag_ms),
        };
        let key = directory.extent(shard.replica, id);
        match directory.dirty_bytes(key, last.horizon, last_stable, before_ms).await {
            Ok(found) if is_due(&topic.config, &found, now_ms) => {
                let cutoff = last.cutoff_at(now_ms, topic.config.delete_retention_ms);
                changes.push(CompactionChange { id, number: last.number + 1, horizon: found.end, cutoff });
            }
            Ok(_) => {}
            Err(error) => tracing::warn!("partition={id}: compaction cannot read: {error}"),
        }
    }
    for chunk in changes.chunks(PARTITIONS_PER_ENTRY_MAX) {
        shard.command(Command::Compact(chunk.to_vec())).await?;
    }
    Ok(())
}

fn candidates(shard: &Shard, image: &MetadataImage) -> Vec<Candidate> {
    let is_compacted =
        |id: &PartitionId| image.topic_by_id(&id.topic).is_some_and(|topic| topic.config.cleanup_policy.compact);
    let state = shard.state().lock();
    let compacted = state.partitions.iter().filter(|(id, _)| is_compacted(id));
    let candidate = |(id, partition): (&PartitionId, &PartitionState)| Candidate {
        id: *id,
        last: partition.compaction,
        last_stable: partition.last_stable(),
    };
    compacted.map(candidate).filter(|candidate| candidate.last_stable > candidate.last.horizon).collect()
}

/// True if enough is dirty, or something has been for too long.
fn is_due(topic: &TopicConfig, found: &DirtyBytes, now_ms: i64) -> bool {
    if found.dirty == 0 {
        return false;
    }
    // Sizes are far below what a double holds exactly.
    let (dirty, all) = (found.dirty as f64, (found.dirty + found.clean) as f64);
    let is_old = found.first_ms.is_some_and(|first| now_ms.saturating_sub(first) > topic.max_compaction_lag_ms);
    dirty / all > topic.min_cleanable_dirty_ratio || is_old
}
