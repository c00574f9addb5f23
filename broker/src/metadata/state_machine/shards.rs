//! Applies commands that change the records of shards: their creation and their intended replicas.
//!
//! May not know: topics.

use std::collections::BTreeSet;
use std::sync::Arc;

use ottla_storage::ids::{RaftIndex, ReplicaId};

use super::{MetadataStateMachine, Refusal};
use crate::metadata::command::NewShard;
use crate::metadata::image::{ReplicaRecord, ShardId, ShardKind, ShardRecord, SplitRecord};
use crate::metadata::records::Record;

/// Producer ids that lost entries may have allocated: a block has a thousand.
const PRODUCER_IDS_LOST: i64 = 1 << 30;

impl MetadataStateMachine {
    pub(super) fn add_shard(&mut self, index: RaftIndex, shard: NewShard) -> Result<(), Refusal> {
        let founders = shard.replicas.iter().map(|replica| replica.id).collect();
        self.record_shard(index, shard, founders, None)
    }

    /// Records a shard with ids that were never used.
    pub(super) fn record_shard(
        &mut self,
        index: RaftIndex,
        shard: NewShard,
        founders: Vec<ReplicaId>,
        split: Option<SplitRecord>,
    ) -> Result<(), Refusal> {
        if self.image.shards.contains_key(&shard.id)
            || (shard.id != ShardId::METADATA && shard.id.0 < self.image.next_shard_id)
        {
            return Err(Refusal::Shard);
        }
        let ids: BTreeSet<_> = shard.replicas.iter().map(|replica| replica.id.0).collect();
        if ids.len() != shard.replicas.len() || ids.first().is_none_or(|id| *id < self.image.next_replica_id) {
            return Err(Refusal::ReplicaId);
        }
        // The first voters of the metadata group are recorded before their nodes are registered.
        let is_metadata = shard.id == ShardId::METADATA;
        if !is_metadata && shard.replicas.iter().any(|replica| !self.image.nodes.contains_key(&replica.node)) {
            return Err(Refusal::NoSuchNode);
        }
        self.image.next_replica_id = ids.last().map_or(0, |id| id.saturating_add(1));
        self.image.next_shard_id = self.image.next_shard_id.max(shard.id.0.saturating_add(1));
        self.note_counter(self.image.next_replica_id);
        self.put_shard(ShardRecord {
            id: shard.id,
            kind: shard.kind,
            replicas: shard.replicas,
            adding: Vec::new(),
            leaving: Vec::new(),
            founders,
            created: index,
            split,
            merge: None,
        });
        Ok(())
    }

    /// Accounts for lost entries, which may have allocated producer ids, and recorded shards that are on this node's
    /// disks: those ids are not allocated again, and the shards are recorded as their replicas describe them.
    pub(in crate::metadata) fn entries_lost(&mut self, index: RaftIndex, on_disk: &[ShardRecord]) {
        self.image.next_producer_id = self.image.next_producer_id.saturating_add(PRODUCER_IDS_LOST);
        self.note_counter(self.image.next_producer_id.unsigned_abs());
        let mut unknown: Vec<_> = on_disk.iter().filter(|shard| !self.image.shards.contains_key(&shard.id)).collect();
        unknown.sort_by_key(|shard| shard.id);
        for shard in unknown {
            let last = shard.replicas.iter().map(|replica| replica.id.0).max().unwrap_or(0);
            // A replica with an earlier id may have left its shard.
            if last < self.image.next_replica_id {
                continue;
            }
            self.image.next_replica_id = last.saturating_add(1);
            self.image.next_shard_id = self.image.next_shard_id.max(shard.id.0.saturating_add(1));
            self.note_counter(self.image.next_replica_id);
            self.put_shard(shard.clone());
        }
        self.advance(index);
    }

    pub(super) fn put_shard(&mut self, record: ShardRecord) {
        self.note(&Record::Shard(record.clone()));
        Arc::make_mut(&mut self.image.shards).insert(record.id, Arc::new(record));
    }

    pub(super) fn set_replicas(
        &mut self,
        shard: ShardId,
        before: &[ReplicaId],
        replicas: Vec<ReplicaRecord>,
    ) -> Result<(), Refusal> {
        let record = Arc::clone(self.image.shards.get(&shard).ok_or(Refusal::Shard)?);
        if !record.replicas.iter().map(|replica| &replica.id).eq(before) {
            return Err(Refusal::Replicas);
        }
        if self.image.is_resizing(shard) {
            return Err(Refusal::Split);
        }
        let wanted: BTreeSet<_> = replicas.iter().map(|replica| replica.id).collect();
        // A leaving replica that is still a member may stay after all.
        let had: BTreeSet<_> = record.members().map(|replica| replica.id).collect();
        let new: Vec<_> = replicas.iter().filter(|replica| !had.contains(&replica.id)).collect();
        let given = |replica: &&ReplicaRecord| replica.id.0 < self.image.next_replica_id;
        if replicas.is_empty() || wanted.len() != replicas.len() || new.iter().any(given) {
            return Err(Refusal::ReplicaId);
        }
        // A replica that stays must not change its node or directory.
        let is_same = |replica: &ReplicaRecord| record.members().any(|known| known == replica);
        if replicas.iter().any(|replica| had.contains(&replica.id) && !is_same(replica)) {
            return Err(Refusal::ReplicaId);
        }
        if new.iter().any(|replica| !self.image.nodes.contains_key(&replica.node)) {
            return Err(Refusal::NoSuchNode);
        }
        let last = new.iter().map(|replica| replica.id.0.saturating_add(1)).max();
        self.image.next_replica_id = self.image.next_replica_id.max(last.unwrap_or(0));
        self.note_counter(self.image.next_replica_id);
        let leaving = record.members().filter(|replica| !wanted.contains(&replica.id)).copied().collect();
        let is_new = |id: &ReplicaId| !had.contains(id) || record.adding.contains(id);
        let adding = replicas.iter().map(|replica| replica.id).filter(is_new).collect();
        // A pool shard that now has another number of replicas does not take partitions of the pool's topics any more.
        let kind = match (record.kind, i16::try_from(replicas.len())) {
            (ShardKind::Pool { factor, .. }, Ok(count)) if factor != count => {
                ShardKind::Pool { factor: count, pinned: true }
            }
            (kind, _) => kind,
        };
        self.put_shard(ShardRecord { kind, replicas, adding, leaving, ..record.as_ref().clone() });
        Ok(())
    }

    pub(super) fn forget_replicas(
        &mut self,
        shard: ShardId,
        reached: &[ReplicaId],
        left: &[ReplicaId],
    ) -> Result<(), Refusal> {
        let mut record = self.image.shards.get(&shard).ok_or(Refusal::Shard)?.as_ref().clone();
        if record.wanted() != reached.iter().copied().collect() {
            return Err(Refusal::Replicas);
        }
        let before = (record.leaving.len(), record.adding.len());
        record.leaving.retain(|replica| !left.contains(&replica.id));
        record.adding.clear();
        if (record.leaving.len(), record.adding.len()) == before {
            return Err(Refusal::Replicas);
        }
        self.put_shard(record);
        Ok(())
    }
}
