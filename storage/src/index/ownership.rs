//! Which bytes of the index a replica serves, and what is left when it goes.
//!
//! May not know: why a partition moves, or why a replica was removed.

use std::collections::BTreeSet;

use ottla_protocol::ids::PartitionId;

use super::ExtentKey;
use super::batch_index::{BatchIndex, Partition};
use super::owners::Owners;
use super::partition::GONE;
use crate::ids::ReplicaId;

impl BatchIndex {
    /// The bytes that a replica serves of a partition.
    pub(crate) fn extent(&self, replica: ReplicaId, partition: PartitionId) -> ExtentKey {
        self.owners.read().key(replica, partition)
    }

    /// The replica that serves these bytes, here or not; `None` if they are dead.
    pub(crate) fn owner(&self, key: ExtentKey) -> Option<ReplicaId> {
        self.owners.read().owner(key)
    }

    /// Sets the owners that the checkpoint holds.
    pub(crate) fn set_owners(&self, owners: Owners) {
        *self.owners.write() = owners;
    }

    /// The bytes that a replica serves of a partition; `None` if a row says that they are another's.
    pub(crate) fn owned(&self, replica: ReplicaId, partition: PartitionId) -> Option<ExtentKey> {
        let owners = self.owners.read();
        Some(owners.key(replica, partition)).filter(|key| owners.owner(*key) == Some(replica))
    }

    /// Makes a replica the owner of bytes that another one served; returns which.
    ///
    /// # Panics
    /// When a row says that a third one owns them, or the replica has bytes of the partition already.
    pub(crate) fn move_to(&self, replica: ReplicaId, from: ReplicaId, partition: PartitionId) -> ExtentKey {
        let mut owners = self.owners.write();
        let key = owners.key(from, partition);
        let ExtentKey { lineage, .. } = key;
        let before = owners.key(replica, partition);
        // What it served before it gave the partition away is dead, if another one has taken and dropped it since.
        let is_dead = |partition: Partition| partition.read().log_start == GONE;
        let is_new = before == key || self.partition(before).is_none_or(is_dead);
        assert!(is_new, "replica {replica}, {partition}: it has lineage {} already", before.lineage);
        owners.remove(from, partition);
        assert!(owners.set(replica, key), "replica {replica}, {partition}: another one owns lineage {lineage}");
        key
    }

    /// Forgets the rows of bytes that no file holds any more, and whose owner has left.
    pub(crate) fn forget_owners(&self, pruned: &[ExtentKey], there: &[ReplicaId]) {
        let mut owners = self.owners.write();
        for key in pruned {
            if let Some(owner) = owners.row_of(*key).filter(|owner| !there.contains(owner)) {
                owners.remove(owner, key.partition);
            }
        }
    }

    /// Counts all batches that a replica owns as dead, for it was removed from the directory. Those that it wrote and
    /// another one owns live on.
    pub(crate) fn remove_replica(&self, replica: ReplicaId) {
        self.replicas.lock().remove(&replica);
        self.kill(|owner, _| owner == Some(replica));
    }

    /// Counts all batches as dead that none of these replicas owns: the others were removed, which no checkpoint contains
    /// yet.
    pub(crate) fn keep_replicas(&self, there: &[ReplicaId]) {
        self.kill(|owner, _| owner.is_none_or(|owner| !there.contains(&owner)));
    }

    /// Counts all batches as dead that a replica owns of other partitions than these.
    pub(crate) fn keep_partitions(&self, replica: ReplicaId, kept: &BTreeSet<PartitionId>) {
        self.kill(|owner, key| owner == Some(replica) && !kept.contains(&key.partition));
    }

    fn kill(&self, is_dead: impl Fn(Option<ReplicaId>, ExtentKey) -> bool) {
        for (key, partition) in self.all() {
            if is_dead(self.owner(key), key) {
                partition.write().unplaced.clear();
                self.raise_log_start(key, GONE);
            }
        }
    }
}
