//! What a shard's leader does by itself, as commands: retention, the log start of group offsets, expiry of producers,
//! forgetting of dropped partitions (design sections 4 and 11).
//!
//! Everything here only proposes: apply clamps and decides. Nothing expires by a clock that has jumped. Partitions of
//! compacted topics lose nothing by time or size.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ottla_protocol::ids::{Offset, PartitionId};
use ottla_storage::env::mutants::{self, Bug};
use ottla_storage::env::rt;

use super::adoption::{self, Adoption};
use super::command::{Command, LogStartChange, LogStartReason, PARTITIONS_PER_ENTRY_MAX};
use super::metadata_view::MetadataView;
use super::shard::Shard;
use crate::config::Config;
use crate::metadata::MetadataImage;
use crate::partition::PartitionError;

/// How a shard keeps itself tidy.
#[derive(Debug, Clone)]
pub struct Upkeep {
    /// `log.retention.check.interval.ms`.
    pub retention_check: Duration,
    /// `producer.id.expiration.ms`.
    pub producer_expiration_ms: i64,
    /// How often producers are looked through.
    pub producer_check: Duration,
    /// How often the log start of group offsets follows the checkpoint.
    pub offsets_check: Duration,
}

impl Upkeep {
    /// As configured.
    #[must_use]
    pub fn from_config(config: &Config) -> Self {
        Self {
            retention_check: Duration::from_millis(config.log.retention_check_interval_ms.max(1)),
            producer_expiration_ms: i64::try_from(config.transaction.producer_id_expiration_ms).unwrap_or(i64::MAX),
            ..Self::default()
        }
    }
}

impl Default for Upkeep {
    fn default() -> Self {
        Self {
            retention_check: Duration::from_secs(300),
            producer_expiration_ms: 86_400_000,
            producer_check: Duration::from_secs(600),
            offsets_check: Duration::from_secs(10),
        }
    }
}

/// A failed round is tried again after this long.
const RETRY: Duration = Duration::from_millis(200);

/// Runs until the replica stops.
pub(crate) async fn run(shard: Arc<Shard>, metadata: Arc<dyn MetadataView>, upkeep: Upkeep) {
    let mut images = metadata.changes();
    let mut role = shard.role_changes();
    let mut adoption = Adoption::default();
    let start = rt::now();
    let (mut retention_at, mut offsets_at) = (start + upkeep.retention_check, start + upkeep.offsets_check);
    let mut producers_at = start + upkeep.producer_check;
    while !shard.role().stopped {
        let mut next = retention_at.min(offsets_at).min(producers_at);
        if shard.leading().is_some() {
            let image = images.borrow_and_update().clone();
            if adoption.reconcile(&shard, &*metadata, &image).await.is_err() {
                next = next.min(rt::now() + RETRY);
            }
        }
        tokio::select! {
            biased;
            changed = role.changed() => if changed.is_err() { return },
            changed = images.changed() => if changed.is_err() { return },
            () = shard.wanted() => {}
            () = rt::sleep_until(next) => {}
        }
        let now = rt::now();
        let image = metadata.image();
        if now >= retention_at {
            retention_at = now + upkeep.retention_check;
            report(&shard, "retention", enforce_retention(&shard, &image).await);
            report(&shard, "forgetting", forget_dropped(&shard, &image).await);
        }
        if now >= offsets_at {
            offsets_at = now + upkeep.offsets_check;
            report(&shard, "group offsets", follow_checkpoint(&shard).await);
        }
        if now >= producers_at {
            producers_at = now + upkeep.producer_check;
            report(&shard, "producers", expire_producers(&shard, upkeep.producer_expiration_ms).await);
        }
    }
}

fn report(shard: &Shard, what: &str, outcome: Result<(), PartitionError>) {
    if let Err(error) = outcome
        && shard.leading().is_some()
    {
        tracing::warn!("shard={} replica={}: {what}: {error}; tried again later", shard.creation.shard, shard.replica);
    }
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

/// One command per shard: for each partition the longest prefix of whole batches that is past time or size.
async fn enforce_retention(shard: &Shard, image: &MetadataImage) -> Result<(), PartitionError> {
    let Some(directory) = shard.directory() else { return Ok(()) };
    if shard.leading().is_none() {
        return Ok(());
    }
    let now_ms = shard.clock_for_expiry();
    let mut changes = Vec::new();
    for cell in shard.published().all() {
        let Some(topic) = image.topic_by_id(&cell.id.topic) else { continue };
        if topic.config.cleanup_policy.compact || !topic.config.cleanup_policy.delete || cell.groups.is_some() {
            continue;
        }
        let cutoff_ms = topic.config.retention_ms.and_then(|keep_ms| now_ms.map(|now| now.saturating_sub(keep_ms)));
        let bytes_max = topic.config.retention_bytes.and_then(|bytes| u64::try_from(bytes).ok());
        let marks = cell.marks();
        if (cutoff_ms.is_none() && bytes_max.is_none()) || marks.log_start == marks.high_watermark {
            continue;
        }
        let up_to = marks.high_watermark;
        match directory.retention_point(shard.extent(cell.id), up_to, cutoff_ms, bytes_max).await {
            Ok(Some(offset)) => {
                changes.push(LogStartChange { id: cell.id, offset, reason: LogStartReason::Retention });
            }
            Ok(None) => {}
            Err(error) => tracing::warn!("partition={}: retention cannot read: {error}", cell.id),
        }
    }
    set_log_starts(shard, changes).await
}

/// What the oldest kept checkpoint covers of group offsets is not needed in the log any more.
async fn follow_checkpoint(shard: &Shard) -> Result<(), PartitionError> {
    let Some(directory) = shard.directory() else { return Ok(()) };
    if !shard.keeps_groups() || shard.leading().is_none() {
        return Ok(());
    }
    let Some(kept) = directory.oldest_kept(shard.replica) else { return Ok(()) };
    let ends: BTreeMap<PartitionId, Offset> = {
        let mut points = shard.cut_points().lock();
        let covered = points.covered_by(kept.index);
        covered.map(|point| point.ends.iter().copied().collect()).unwrap_or_default()
    };
    let mut changes = Vec::new();
    for cell in shard.published().all() {
        if let Some(end) = ends.get(&cell.id)
            && *end > cell.marks().log_start
        {
            changes.push(LogStartChange { id: cell.id, offset: *end, reason: LogStartReason::Checkpointed });
        }
    }
    set_log_starts(shard, changes).await
}

async fn expire_producers(shard: &Shard, expiration_ms: i64) -> Result<(), PartitionError> {
    let Some(now_ms) = shard.clock_for_expiry() else { return Ok(()) };
    let cutoff_ms = now_ms.saturating_sub(expiration_ms);
    let any = {
        let state = shard.state().lock();
        state.partitions.values().any(|partition| !partition.producers.expired(cutoff_ms).is_empty())
    };
    if any {
        shard.command(Command::ExpireProducers { cutoff_ms }).await?;
    }
    Ok(())
}

async fn forget_dropped(shard: &Shard, image: &MetadataImage) -> Result<(), PartitionError> {
    if shard.leading().is_none() {
        return Ok(());
    }
    if let Some(floor) = adoption::floor(shard, image) {
        shard.command(Command::ForgetDropped { floor }).await?;
    }
    Ok(())
}
