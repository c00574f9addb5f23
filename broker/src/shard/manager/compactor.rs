//! Has the directories of this node do the passes of compaction that the logs of its shards have decided, one after the other (design
//! section 12.3).
//!
//! What cannot be done yet is tried again in the next round: the checkpoint does not have the entry, the disk is full, a batch is to be
//! repaired first. May not know: when a pass is due, what it keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ottla_env::critical::Owner;
use ottla_env::rt;
use ottla_protocol::ids::PartitionId;
use ottla_storage::data_dir::{Compaction, CompactionRequest, DataDir};
use ottla_storage::ids::ReplicaId;

use super::Shards;
use crate::shard::Shard;

/// The partitions of each replica whose last pass is not done here.
type Due = BTreeMap<ReplicaId, BTreeSet<PartitionId>>;

impl Shards {
    /// Runs for as long as the process.
    pub(super) fn start_compactor(&self) {
        let shards = self.clone();
        rt::spawn_critical("compactor", Owner::process(), async move {
            let mut due = Due::new();
            loop {
                rt::sleep(shards.0.task_settings.compaction_check).await;
                shards.compact(&mut due).await;
            }
        });
    }

    async fn compact(&self, due: &mut Due) {
        let mut left = Due::new();
        for shard in self.all() {
            let Some(directory) = shard.directory() else { continue };
            let mut partitions = due.remove(&shard.replica).unwrap_or_default();
            partitions.append(&mut shard.state().lock().passes_due);
            let mut not_done = BTreeSet::new();
            for id in partitions {
                if !is_done(directory, &shard, id).await {
                    not_done.insert(id);
                }
            }
            if !not_done.is_empty() {
                left.insert(shard.replica, not_done);
            }
        }
        // Replicas that are gone have nothing to do.
        *due = left;
    }
}

/// True if the last pass over the partition is done here, or will never be.
async fn is_done(directory: &Arc<DataDir>, shard: &Shard, id: PartitionId) -> bool {
    let decided = shard.state().lock().partitions.get(&id).map(|partition| partition.compaction);
    let Some(decided) = decided else { return true };
    let request = CompactionRequest {
        replica: shard.replica,
        partition: id,
        number: decided.number,
        pass: decided.pass(),
        decided_at: decided.decided_at,
    };
    match directory.compact(&request).await {
        Ok(Compaction::Done | Compaction::Gone) => true,
        Ok(Compaction::NotYet | Compaction::Damaged | Compaction::NoSpace) => false,
        Err(error) => {
            tracing::error!("partition={id} replica={}: not compacted: {error}", shard.replica);
            false
        }
    }
}
