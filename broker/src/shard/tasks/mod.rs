//! The tasks of a shard's leader: adoption of partitions, splits, merges, retention, compaction, expiration of producers, forgetting of dropped
//! partitions (design sections 4 and 11), and the membership of its group.
//!
//! Everything here only proposes: apply decides. [`run`] starts a round of each task when it is due.
//! May not know: how a proposal is replicated.

pub(super) mod adoption;
mod compaction;
mod expiration;
pub(super) mod membership_reconciler;
mod merges;
mod retention;
mod splits;

use std::sync::Arc;
use std::time::Duration;

use ottla_env::rt;

use super::handle::Shard;
use super::metadata_view::MetadataView;
use crate::config::Config;
use crate::levels::COMPACTION;
use crate::replicated::error::PartitionError;
use adoption::Adoption;
pub(crate) use merges::LeaderOf;
use merges::Merges;

/// How often the tasks of a leader run, and by which times.
#[derive(Debug, Clone)]
pub struct LeaderTaskSettings {
    /// `log.retention.check.interval.ms`.
    pub retention_check: Duration,
    /// `producer.id.expiration.check.interval.ms`.
    pub producer_check: Duration,
    /// How often the log start of group offsets follows the checkpoint.
    pub offsets_check: Duration,
    /// `log.cleaner.backoff.ms`.
    pub compaction_check: Duration,
    /// `log.cleaner.enable`.
    pub compacts: bool,
}

impl LeaderTaskSettings {
    /// The same with what settings name.
    #[must_use]
    pub fn configured(self, config: &Config) -> Self {
        Self {
            retention_check: Duration::from_millis(config.log.retention_check_interval_ms.max(1)),
            producer_check: Duration::from_millis(config.transaction.producer_id_expiration_check_interval_ms.max(1)),
            compaction_check: Duration::from_millis(config.log.rewriter_backoff_ms.max(1)),
            compacts: config.log.compacts,
            ..self
        }
    }
}

impl Default for LeaderTaskSettings {
    fn default() -> Self {
        Self {
            retention_check: Duration::from_secs(300),
            producer_check: Duration::from_secs(600),
            offsets_check: Duration::from_secs(10),
            compaction_check: Duration::from_secs(15),
            compacts: true,
        }
    }
}

/// A failed round is tried again after this long.
const RETRY: Duration = Duration::from_millis(200);

/// Runs until the replica stops.
pub(crate) async fn run(
    shard: Arc<Shard>,
    metadata: Arc<dyn MetadataView>,
    settings: LeaderTaskSettings,
    leader_of: LeaderOf,
) {
    let mut images = metadata.changes();
    let mut role = shard.role_changes();
    let (mut adoption, mut merges) = (Adoption::default(), Merges::default());
    let start = rt::now();
    let (mut retention_at, mut offsets_at) = (start + settings.retention_check, start + settings.offsets_check);
    let (mut producers_at, mut compaction_at) = (start + settings.producer_check, start + settings.compaction_check);
    while !shard.role().stopped {
        let mut next = retention_at.min(offsets_at).min(producers_at).min(compaction_at);
        if shard.leading().is_some() {
            let image = images.borrow_and_update().clone();
            let adopted = adoption.reconcile(&shard, &*metadata, &image).await;
            let split = splits::reconcile(&shard, &*metadata, &image).await;
            let merged = merges.reconcile(&shard, &*metadata, &image, &leader_of).await;
            if adopted.is_err() || split.is_err() || merged.is_err() {
                next = next.min(rt::now() + RETRY);
            }
        }
        tokio::select! {
            biased;
            changed = role.changed() => if changed.is_err() { return },
            changed = images.changed() => if changed.is_err() { return },
            () = shard.adoption_requested() => {}
            () = rt::sleep_until(next) => {}
        }
        let (now, image) = (rt::now(), metadata.image());
        let acts = !shard.is_sealed();
        if now >= retention_at {
            retention_at = now + settings.retention_check;
            if acts {
                report(&shard, "retention", retention::enforce_retention(&shard, &image).await);
                report(&shard, "forgetting", expiration::forget_dropped(&shard, &image).await);
            }
        }
        if now >= offsets_at {
            offsets_at = now + settings.offsets_check;
            // From then on internal topics are compacted instead.
            if acts && image.level < COMPACTION {
                report(&shard, "group offsets", retention::follow_checkpoint(&shard).await);
            }
        }
        if now >= compaction_at {
            compaction_at = now + settings.compaction_check;
            if acts && settings.compacts {
                report(&shard, "compaction", compaction::decide_passes(&shard, &image).await);
            }
        }
        if now >= producers_at {
            producers_at = now + settings.producer_check;
            if acts {
                report(&shard, "producers", expiration::expire_producers(&shard, &image.config).await);
            }
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
