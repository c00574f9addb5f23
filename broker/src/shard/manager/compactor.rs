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
use uuid::Uuid;

use super::Shards;
use crate::shard::Shard;

/// A pass that waits for its checkpoint, one of which is written every ten seconds, is tried again after so long.
const CHECKPOINT_LOOK: Duration = Duration::from_secs(1);

/// Partitions of each replica.
type Due = BTreeMap<ReplicaId, BTreeSet<PartitionId>>;

/// The partitions whose last pass is not done here.
#[derive(Default)]
struct Waiting {
    /// For a checkpoint.
    soon: Due,
    /// For a repair, or for room.
    later: Due,
}

impl Waiting {
    fn add(&mut self, replica: ReplicaId, id: PartitionId, outcome: Outcome) {
        let due = match outcome {
            Outcome::Over => return,
            Outcome::AtTheCheckpoint => &mut self.soon,
            Outcome::Later => &mut self.later,
        };
        due.entry(replica).or_default().insert(id);
    }
}

impl Shards {
    /// Runs for as long as the process.
    pub(super) fn start_compactor(&self) {
        let shards = self.clone();
        rt::spawn_critical("compactor", Owner::process(), async move {
            let (mut waiting, mut began) = (Waiting::default(), rt::now());
            loop {
                let round = shards.0.task_settings.compaction_check;
                let left = round.saturating_sub(rt::now().since(began));
                rt::sleep(if waiting.soon.is_empty() { left } else { left.min(CHECKPOINT_LOOK) }).await;
                let is_round = rt::now().since(began) >= round;
                waiting = shards.compact(waiting, is_round).await;
                if is_round {
                    began = rt::now();
                }
            }
        });
    }

    /// Each directory does one pass at a time, beside the others; those that wait for a repair or for room in a round alone.
    async fn compact(&self, mut waiting: Waiting, is_round: bool) -> Waiting {
        let mut by_directory = BTreeMap::<Uuid, Vec<_>>::new();
        for shard in self.replicas() {
            let Some(directory) = shard.directory().cloned() else { continue };
            let mut partitions = waiting.soon.remove(&shard.replica).unwrap_or_default();
            if is_round {
                partitions.append(&mut waiting.later.remove(&shard.replica).unwrap_or_default());
            }
            partitions.append(&mut shard.state().lock().passes_due);
            if !partitions.is_empty() {
                by_directory.entry(directory.directory_id()).or_default().push((directory, shard, partitions));
            }
        }
        let rounds = by_directory.into_values().map(|replicas| async {
            let mut outcomes = Vec::new();
            for (directory, shard, partitions) in replicas {
                for id in partitions {
                    outcomes.push((shard.replica, id, last_pass(&directory, &shard, id).await));
                }
            }
            outcomes
        });
        // Replicas that are gone have nothing to do; those that are left in `later` are not asked yet.
        let later = if is_round { Due::new() } else { waiting.later };
        let mut waiting = Waiting { soon: Due::new(), later };
        for (replica, id, outcome) in join_all(rounds).await.into_iter().flatten() {
            waiting.add(replica, id, outcome);
        }
        waiting
    }
}

/// What became of a pass.
#[derive(PartialEq, Eq)]
enum Outcome {
    /// It is done here, or will never be.
    Over,
    /// It can be done once a checkpoint has the entry that decided it.
    AtTheCheckpoint,
    /// It is tried again in the next round: a batch is damaged, or there is no room.
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
