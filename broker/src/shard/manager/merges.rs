//! Merges on this node: what apply has taken over is handed over and made durable, and reported once it is.
//!
//! The metadata keeps an absorbed shard until every replica that takes it over has reported: one that is behind still needs the
//! replica beside it. May not know: why shards are merged.

use std::sync::Arc;

use ottla_env::mutants::{self, Bug};
use ottla_raft::Merged;
use ottla_storage::data_dir::DataDir;

use super::{OpenError, Shards};
use crate::metadata::{MergePhase, MergeReplica, MergeStep, MetadataImage};

impl Shards {
    /// Hands over what waits at the absorbed shard, and makes the merge durable.
    pub(super) async fn finish_merge(&self, directory: &Arc<DataDir>, merged: Merged) -> Result<(), OpenError> {
        let pair = MergeReplica { survivor: merged.survivor(), absorbed: merged.absorbed() };
        let find = |replica| self.0.shards.find(replica);
        if let (Some(survivor), Some(absorbed)) = (find(pair.survivor), find(pair.absorbed)) {
            survivor.take_over_absorbed(&absorbed);
        }
        self.0.host.commit_merge(directory.clone(), merged).await?;
        self.0.siblings.partners.end(pair);
        tracing::info!(replica = pair.survivor.0, "it has taken over replica {}", pair.absorbed);
        Ok(())
    }

    /// Reports the merges that are carried out by replicas here; true if nothing is left to report.
    pub(super) async fn report_absorbed(&self, image: &MetadataImage) -> bool {
        let mut all = true;
        for (record, merge) in image.merges().filter(|(_, merge)| merge.phase == MergePhase::Drain) {
            for pair in &merge.replicas {
                let Some(survivor) = self.0.shards.find(pair.survivor) else { continue };
                let is_applied = survivor.state().lock().last_merge.intent >= merge.intent;
                let is_durable = self.0.host.group(pair.survivor).is_some_and(|group| group.has_no_open_resize());
                let early = mutants::is_on(Bug::AbsorbReportedEarly);
                let is_done = is_applied && is_durable || early;
                let step = MergeStep::TakenOver { absorbed: record.id, replica: pair.survivor };
                all &= is_done && self.0.metadata.report_merge(step).await;
            }
        }
        all
    }
}
