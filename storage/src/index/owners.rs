//! Which replica serves which bytes: rows for the partitions whose bytes came for another replica than the one that owns
//! them now (design section 8, "What is written").
//!
//! A row moves with the partition when a shard is split or merged; no byte does. That of a replica that has left stays until
//! no file holds the bytes: without it they would seem to be whose they were at first. May not know: why a partition moves.

use std::collections::BTreeMap;

use ottla_protocol::ids::PartitionId;

use super::ExtentKey;
use crate::entry::{Entry, EntryBatch, Verdict};
use crate::ids::{Lineage, ReplicaId};

/// The owners of a directory's lineages, as far as they are not the replicas for which the bytes came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Owners {
    rows: BTreeMap<(ReplicaId, PartitionId), Lineage>,
    owners: BTreeMap<ExtentKey, ReplicaId>,
}

impl Owners {
    /// The bytes that a replica serves of a partition.
    pub(crate) fn key(&self, replica: ReplicaId, partition: PartitionId) -> ExtentKey {
        let lineage = self.rows.get(&(replica, partition)).copied().unwrap_or(Lineage::of(replica));
        ExtentKey { partition, lineage }
    }

    /// The replica that serves these bytes, here or not; `None` if they are dead because it has others in their place.
    pub(crate) fn owner(&self, key: ExtentKey) -> Option<ReplicaId> {
        let first = ReplicaId(key.lineage.0);
        self.row_of(key).or((!self.has_row(first, key.partition)).then_some(first))
    }

    /// True if the bytes that the replica serves came for another one.
    pub(crate) fn has_row(&self, replica: ReplicaId, partition: PartitionId) -> bool {
        self.rows.contains_key(&(replica, partition))
    }

    /// Makes a replica the owner of these bytes. False if a row says that another one is, which stays so.
    #[must_use]
    pub(crate) fn set(&mut self, replica: ReplicaId, key: ExtentKey) -> bool {
        if self.row_of(key).is_some_and(|owner| owner != replica) {
            return false;
        }
        self.remove(replica, key.partition);
        if key.lineage != Lineage::of(replica) {
            self.owners.insert(key, replica);
            self.rows.insert((replica, key.partition), key.lineage);
        }
        true
    }

    /// Removes the row of a replica and partition, if there is one.
    pub(crate) fn remove(&mut self, replica: ReplicaId, partition: PartitionId) {
        if let Some(lineage) = self.rows.remove(&(replica, partition)) {
            self.owners.remove(&ExtentKey { partition, lineage });
        }
    }

    /// The lineages of the accepted batches of an entry; empty if all are those of the writer's own id.
    ///
    /// # Panics
    /// When a batch was accepted for bytes of which the writer is not the owner.
    pub(crate) fn lineages(&self, writer: ReplicaId, entry: &Entry, verdicts: &[Verdict]) -> Vec<Option<Lineage>> {
        if self.rows.is_empty() {
            return Vec::new();
        }
        let foreign = |(batch, verdict): (&EntryBatch, &Verdict)| {
            let key = self.key(writer, batch.partition);
            let (accepted, index) = (*verdict != Verdict::Rejected, entry.log_id.index.0);
            let is_its = !accepted || self.owner(key) == Some(writer);
            assert!(is_its, "replica {writer}, entry {index}: {} is another's", key.partition);
            (accepted && key.lineage != Lineage::of(writer)).then_some(key.lineage)
        };
        let lineages: Vec<_> = entry.batches.iter().zip(verdicts).map(foreign).collect();
        if lineages.iter().any(Option::is_some) { lineages } else { Vec::new() }
    }

    /// The replica that a row says to be the owner.
    pub(crate) fn row_of(&self, key: ExtentKey) -> Option<ReplicaId> {
        self.owners.get(&key).copied()
    }

    /// The rows: replica, and the bytes that it owns.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (ReplicaId, ExtentKey)> {
        self.rows
            .iter()
            .map(|((replica, partition), lineage)| (*replica, ExtentKey { partition: *partition, lineage: *lineage }))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const PARENT: ReplicaId = ReplicaId(3);
    const CHILD: ReplicaId = ReplicaId(8);

    fn partition(index: i32) -> PartitionId {
        PartitionId { topic: Uuid::from_u128(5), index }
    }

    #[test]
    fn bytes_belong_to_whom_they_came_for_until_a_row_says_otherwise() {
        let mut owners = Owners::default();
        let key = owners.key(PARENT, partition(0));
        assert_eq!((key.lineage, owners.owner(key)), (Lineage(3), Some(PARENT)));
        assert!(owners.set(CHILD, key));
        assert_eq!((owners.key(CHILD, partition(0)), owners.owner(key)), (key, Some(CHILD)));
        assert_eq!(owners.owner(owners.key(PARENT, partition(1))), Some(PARENT), "another partition is not concerned");
        assert_eq!(owners.owner(owners.key(CHILD, partition(1))), Some(CHILD));
        owners.remove(CHILD, partition(0));
        assert!(owners.set(PARENT, key));
        assert_eq!((owners.owner(key), owners.rows().count()), (Some(PARENT), 0), "a merge brings them home");
    }

    #[test]
    fn what_a_replica_had_before_its_row_is_nobodys() {
        let mut owners = Owners::default();
        let (own, other) = (owners.key(CHILD, partition(0)), owners.key(PARENT, partition(0)));
        assert!(owners.set(CHILD, other));
        assert_eq!(owners.owner(own), None);
        assert_eq!(owners.rows().collect::<Vec<_>>(), [(CHILD, other)]);
    }

    #[test]
    fn bytes_have_one_owner() {
        let mut owners = Owners::default();
        let key = owners.key(PARENT, partition(0));
        assert!(owners.set(CHILD, key));
        let before = owners.clone();
        assert!(!owners.set(ReplicaId(9), key) && !owners.set(PARENT, key));
        assert_eq!(owners, before);
    }
}
