//! Decides when a partition of a compacted topic is compacted further (design section 12.2): as Kafka's cleaner, by
//! `min.cleanable.dirty.ratio`, `min.compaction.lag.ms`, `max.compaction.lag.ms`, and what stands for Kafka's active segment.
//!
//! Only proposes: apply decides, and every replica does the pass from its own bytes. May not know: when a round is due, what a pass keeps.

use ottla_protocol::ids::{Offset, PartitionId};
use ottla_storage::data_dir::DataDir;
use ottla_storage::index::{DirtyBytes, ExtentKey};
use ottla_storage::read::ReadError;

use crate::config::TopicConfig;
use crate::levels::COMPACTION;
use crate::metadata::{MetadataImage, Topic, is_internal};
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
        match dirty_bytes(directory, key, topic, (last.horizon, last_stable), (before_ms, now_ms)).await {
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

/// What a pass could go over: from the horizon of the last one to the last stable offset, without what is written at `before_ms` or later,
/// and without what Kafka would keep in the active segment, which it never compacts: the last `segment.bytes`, as far as they are younger
/// than `segment.ms` or, if that is less, `max.compaction.lag.ms`. A consumer that is no further behind sees every record. Internal topics
/// have no such consumers: coordinators take the last record of a key from memory.
async fn dirty_bytes(
    directory: &DataDir,
    key: ExtentKey,
    topic: &Topic,
    (horizon, last_stable): (Offset, Offset),
    (before_ms, now_ms): (i64, i64),
) -> Result<DirtyBytes, ReadError> {
    let config = &topic.config;
    let mut up_to = last_stable;
    if !is_internal(&topic.name) {
        let since_ms = now_ms.saturating_sub(config.segment_ms.min(config.max_compaction_lag_ms));
        let bytes = u64::from(config.segment_bytes.unsigned_abs());
        up_to = directory.retention_point(key, last_stable, Some(since_ms), Some(bytes)).await?.unwrap_or(horizon);
    }
    directory.dirty_bytes(key, horizon, up_to.max(horizon), before_ms).await
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
