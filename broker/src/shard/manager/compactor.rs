//! Has the directories of this node do the passes of compaction that the logs of its shards have decided (design section 12.3).
//!
//! What cannot be done yet is tried again: soon if the checkpoint does not have the entry, in the next round if the disk is full or a
//! batch is to be repaired first. May not know: when a pass is due, what it keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use ottla_env::critical::Owner;
use ottla_env::rt;
use ottla_protocol::ids::PartitionId;
use ottla_storage::data_dir::{Compaction, CompactionRequest, DataDir};
use ottla_storage::ids::ReplicaId;

use super::Shards;
use crate::shard::Shard;

/// A pass that waits for its checkpoint, one of which is written every ten seconds, is tried again after so long.
const CHECKPOINT_LOOK: Duration = Duration::from_secs(1);

/// The partitions of each replica whose last pass is not done here.
type Due = BTreeMap<ReplicaId, BTreeSet<PartitionId>>;

impl Shards {
    /// Runs for as long as the process.
    pub(super) fn start_compactor(&self) {
        let shards = self.clone();
        rt::spawn_critical("compactor", Owner::process(), async move {
            let (mut due, mut soon) = (Due::new(), false);
            loop {
                let round = shards.0.task_settings.compaction_check;
                rt::sleep(if soon { round.min(CHECKPOINT_LOOK) } else { round }).await;
                soon = shards.compact(&mut due).await;
            }
        });
    }

    /// A round: each directory does one pass at a time, beside the others. True if a pass waits for a checkpoint.
    async fn compact(&self, due: &mut Due) -> bool {
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
            let (mut left, mut soon) = (Due::new(), false);
            for (directory, shard, partitions) in replicas {
                for id in partitions {
                    let outcome = last_pass(&directory, &shard, id).await;
                    soon |= outcome == Outcome::AtTheCheckpoint;
                    if outcome != Outcome::Over {
                        left.entry(shard.replica).or_default().insert(id);
                    }
                }
            }
            (left, soon)
        });
        let rounds = join_all(rounds).await;
        let soon = rounds.iter().any(|(_, soon)| *soon);
        // Replicas that are gone have nothing to do.
        *due = rounds.into_iter().flat_map(|(left, _)| left).collect();
        soon
    }
}

/// What became of a pass.
#[derive(PartialEq, Eq)]
enum Outcome {
    /// It is done here, or will never be.
    Over,
    /// It can be done once a checkpoint has the entry that decided it.
    AtTheCheckpoint,
    /// It is tried again in the next round.
    Later,
}

async fn last_pass(directory: &Arc<DataDir>, shard: &Shard, id: PartitionId) -> Outcome {
    let decided = shard.state().lock().partitions.get(&id).map(|partition| partition.compaction);
    let Some(decided) = decided else { return Outcome::Over };
    let request = CompactionRequest {
        replica: shard.replica,
        partition: id,
        number: decided.number,
        pass: decided.pass(),
        decided_at: decided.decided_at,
    };
    match directory.compact(&request).await {
        Ok(Compaction::Done | Compaction::Gone) => Outcome::Over,
        Ok(Compaction::NotYet) => Outcome::AtTheCheckpoint,
        Ok(Compaction::Damaged | Compaction::NoSpace) => Outcome::Later,
        Err(error) => {
            tracing::error!("partition={id} replica={}: not compacted: {error}", shard.replica);
            Outcome::Later
        }
    }
}
