//! Opens at the start what the disks of this node hold.
//!
//! May not know: what the metadata records by now.

use std::collections::BTreeMap;
use std::sync::Arc;

use ottla_raft::RaftError;
use ottla_storage::data_dir::{DataDir, RecoveredReplica};
use ottla_storage::ids::{LogId, ReplicaId};

use super::unseeded::Unseeded;
use super::{OpenError, Shards, creation_of};
use crate::metadata::ShardId;
use crate::shard::closed_replicas::ClosedReplica;
use crate::shard::handle::keeps;
use crate::shard::state_machine;

/// In a shard of fewer replicas a lost one cannot be rebuilt from the others (`metadata::placement`).
const REBUILT_FROM: usize = 3;

impl Shards {
    /// Opens the replicas that the disks hold; the metadata group's may not be among them. Of several replicas of one shard the last one
    /// runs, and those beside which all later ones were created: the others were lost before, and take part no more. One that cannot
    /// be opened stays closed, and stops no other.
    pub async fn open<'a>(&self, recovered: impl IntoIterator<Item = (&'a Arc<DataDir>, &'a RecoveredReplica)>) {
        let recovered: Vec<_> = recovered.into_iter().collect();
        let creations: BTreeMap<_, _> =
            recovered.iter().filter_map(|(_, replica)| Some((replica.id, creation_of(replica).ok()?))).collect();
        let successor_of = |replica: ReplicaId, shard: ShardId| {
            let later = creations.iter().filter(|(id, creation)| **id > replica && creation.shard == shard);
            later.filter(|(_, creation)| !creation.beside.contains(&replica)).map(|(id, _)| *id).max()
        };
        let children = Unseeded::among(recovered.iter().map(|(_, replica)| *replica));
        self.await_seeds(&children);
        for (directory, replica) in recovered.iter().filter(|(_, replica)| replica.unseeded.is_none()) {
            let shard = creations.get(&replica.id).map(|creation| creation.shard);
            if let Some(successor) = shard.and_then(|shard| successor_of(replica.id, shard)) {
                let why = format!("replica {successor} has come in its place");
                self.mark_closed(replica.id, ClosedReplica { shard, why, is_lost: true });
            } else if let Err(error) = self.open_sound(directory, replica, children.splits_at(replica.id)).await {
                self.leave_closed(replica.id, shard, &error);
            }
        }
        self.give_up_seeds(children);
    }

    /// Marks a replica closed. One that may have lost what it acknowledged is rebuilt under another id if other nodes
    /// have what it had; else the operator decides what is to be done.
    pub(super) fn leave_closed(&self, replica: ReplicaId, shard: Option<ShardId>, error: &OpenError) {
        let is_damaged = matches!(error, OpenError::Raft(RaftError::Damaged { .. }));
        let image = self.0.metadata.image();
        let is_lost = is_damaged && image.expected_nodes() != 1;
        let replicas = shard.and_then(|shard| image.shard(shard)).map_or(0, |record| record.replicas.len());
        let todo = if !is_damaged {
            String::new()
        } else if is_lost && replicas >= REBUILT_FROM {
            "; it is rebuilt under a new id".to_owned()
        } else {
            format!(
                "; what it holds is not served: see `ottla unsafe-recover --accept-loss {replica}` (docs/operations.md)"
            )
        };
        self.mark_closed(replica, ClosedReplica { shard, why: format!("{error}{todo}"), is_lost });
    }

    async fn open_sound(
        &self,
        directory: &Arc<DataDir>,
        recovered: &RecoveredReplica,
        splits_at: Option<LogId>,
    ) -> Result<(), OpenError> {
        let creation = match (creation_of(recovered), &recovered.lost) {
            (Err(_), Some(what)) => {
                return Err(RaftError::Damaged { replica: recovered.id, what: what.clone() }.into());
            }
            (creation, _) => creation?,
        };
        let state = state_machine::restore(keeps(creation.kind), &recovered.state)
            .map_err(|source| OpenError::Checkpoint { replica: recovered.id, source })?;
        let (machine, view) = self.state_machine(directory, recovered.id, state);
        let group = self.0.host.open(directory.clone(), recovered, splits_at, Box::new(machine)).await?;
        self.add(creation, recovered.id, directory, group, view, None);
        Ok(())
    }
}
