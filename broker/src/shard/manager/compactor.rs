//! Has the directories of this node do the passes of compaction that the logs of its shards have decided (design section 12.3).
//!
//! What cannot be done yet is tried again in the next round: the checkpoint does not have the entry, the disk is full, a batch is to be
//! repaired first. May not know: when a pass is due, what it keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::join_all;
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

    /// A round: each directory does one pass at a time, beside the others.
    async fn compact(&self, due: &mut Due) {
        let mut by_directory = BTreeMap::<usize, Vec<_>>::new();
        for shard in self.all() {
            let Some(directory) = shard.directory().cloned() else { continue };
            let mut partitions = due.remove(&shard.replica).unwrap_or_default();
            partitions.append(&mut shard.state().lock().passes_due);
            if !partitions.is_empty() {
                by_directory.entry(Arc::as_ptr(&directory).addr()).or_default().push((directory, shard, partitions));
            }
        }
        let rounds = by_directory.into_values().map(|replicas| async {
            let mut left = Due::new();
            for (directory, shard, partitions) in replicas {
                for id in partitions {
                    if !is_done(&directory, &shard, id).await {
                        left.entry(shard.replica).or_default().insert(id);
                    }
                }
            }
            left
        });
        // Replicas that are gone have nothing to do.
        *due = join_all(rounds).await.into_iter().flatten().collect();
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
