//! The group store: the groups of one partition of `__consumer_offsets` from its committed records. Pure, on every
//! replica.
//!
//! The shard's state machine reads a batch as a [`GroupChange`], calls [`GroupStore::judge`] before it accepts it and
//! [`GroupStore::apply`] with what it accepted, and takes [`GroupStore::changes`] into its checkpoint, whose keys
//! and values are Kafka's own records; [`GroupStore::restore`] reads them back. May not know: clocks, configuration,
//! which replica leads. Invariant: equal accepted batches make equal stores (I6); a group's generation never falls
//! while the group exists (I4); memory follows the number of live keys, not of commits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use ottla_env::mutants::{self, Bug};
use ottla_protocol::ids::{Offset, ProducerId};
use uuid::Uuid;

use super::batch;
use super::guard::Guard;
use super::pending_offsets::{self, PendingOffset, PendingOffsets, Place};
use super::records::{self, CommittedOffset, GroupValue, Record};
use super::schema::Malformed;
use crate::checksum::record_hash;

/// Kafka's codes for refusals at apply.
pub mod refusal {
    /// ILLEGAL_GENERATION: the commit is of another generation than the group's.
    pub const ILLEGAL_GENERATION: i16 = 22;
    /// UNKNOWN_MEMBER_ID: the group has members, the committer is none of them.
    pub const UNKNOWN_MEMBER_ID: i16 = 25;
    /// NON_EMPTY_GROUP: a group with members is not removed.
    pub const NON_EMPTY_GROUP: i16 = 68;
    /// INVALID_RECORD: the batch holds records that its guard does not allow.
    pub const INVALID_RECORD: i16 = 87;
    /// CONCURRENT_TRANSACTIONS stands for "changed meanwhile": an offset was committed after the expiry's cutoff.
    pub const CHANGED_MEANWHILE: i16 = 51;
}

/// Offsets of one group: by topic, by partition.
pub type Offsets = BTreeMap<Arc<str>, BTreeMap<i32, CommittedOffset>>;

/// One group as recorded. A group that only ever had offsets committed has no membership.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredGroup {
    /// Its membership as last written.
    pub membership: Option<Arc<GroupValue>>,
    /// Its committed offsets.
    pub offsets: Offsets,
}

impl StoredGroup {
    /// True if the last written membership has no members.
    #[must_use]
    pub fn has_no_members(&self) -> bool {
        self.membership.as_ref().is_none_or(|value| value.members.is_empty())
    }
}

/// A batch of `__consumer_offsets` as a replica takes it: its guard and its records, all of kinds that this release knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupChange {
    guard: Option<Guard>,
    records: Vec<Record>,
}

impl GroupChange {
    /// Reads a batch.
    ///
    /// # Errors
    /// The guard or a record cannot be read. A replica that refused or passed over what a newer release takes would give
    /// other verdicts, so other offsets: it must not go on.
    pub fn decode(guard: Option<&Bytes>, batch: &Bytes) -> Result<Self, Malformed> {
        let guard = guard.map(Guard::decode).transpose()?;
        let mut records = Vec::new();
        for (key, value) in batch::records(batch)? {
            // Copied: a slice would keep the whole entry in memory for as long as the group lives.
            records.push(Record::decode(key, value.map(|bytes| Bytes::copy_from_slice(&bytes)))?);
        }
        Ok(Self { guard, records })
    }

    /// True if it only commits offsets: a transaction may do nothing else to groups.
    #[must_use]
    pub fn only_commits(&self) -> bool {
        let commits = |record: &Record| matches!(record, Record::Offset { value: Some(_), .. });
        matches!(self.guard, Some(Guard::Commit { .. })) && self.records.iter().all(commits)
    }

    /// True if its guard claims no member: clients that are older than KIP-447 commit so in transactions, whatever members the group
    /// has.
    #[must_use]
    pub fn claims_no_member(&self) -> bool {
        matches!(&self.guard, Some(Guard::Commit { generation: ..0, member_id, .. }) if member_id.is_empty())
    }

    /// A batch that can be read.
    #[cfg(test)]
    pub(crate) fn of(guard: Option<&Guard>, batch: &Bytes) -> Self {
        Self::decode(guard.map(Guard::encode).as_ref(), batch).expect("a batch that can be read")
    }
}

/// The groups of one partition.
#[derive(Debug, Default)]
pub struct GroupStore {
    groups: BTreeMap<Arc<str>, StoredGroup>,
    /// How many offsets there are of each topic, under each of its ids.
    topics: BTreeMap<(Arc<str>, Uuid), u64>,
    /// Offsets of transactions that are open.
    pending: PendingOffsets,
    /// Keys changed since the last [`GroupStore::changes`].
    dirty: BTreeSet<Bytes>,
    /// XOR over all live records; order does not matter, so equal states have equal sums.
    checksum: u64,
}

impl GroupStore {
    /// A store without groups.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Judges whether a batch may be applied to the state as it is; the error is the code of the refusal.
    pub fn judge(&self, change: &GroupChange) -> Result<(), i16> {
        let Some(guard) = &change.guard else { return Ok(()) };
        match guard {
            Guard::Commit { group, generation, member_id } => self.judge_offsets(group, *generation, member_id),
            Guard::Membership { .. } if mutants::is_on(Bug::GenerationLostAtFailover) => Ok(()),
            Guard::Membership { group, generation, .. } => match self.membership(group) {
                Some(last) if last.generation > *generation => Err(refusal::ILLEGAL_GENERATION),
                _ => Ok(()),
            },
            Guard::Removal { group } => {
                let empty = self.groups.get(group.as_str()).is_none_or(StoredGroup::has_no_members);
                if empty { Ok(()) } else { Err(refusal::NON_EMPTY_GROUP) }
            }
            Guard::Expiry { group, cutoff_ms } => self.judge_expiry(group, *cutoff_ms, &change.records),
        }
    }

    /// The commit of a zombie is refused here even if a deposed leader accepted it.
    fn judge_offsets(&self, group: &str, generation: i32, member_id: &str) -> Result<(), i16> {
        let membership = self.membership(group).filter(|value| !value.members.is_empty());
        match membership {
            None if generation < 0 => Ok(()),
            None => Err(refusal::ILLEGAL_GENERATION),
            Some(value) if !value.members.iter().any(|m| m.member_id == member_id) => Err(refusal::UNKNOWN_MEMBER_ID),
            Some(_) if mutants::is_on(Bug::ZombieCommits) => Ok(()),
            Some(value) if value.generation != generation => Err(refusal::ILLEGAL_GENERATION),
            Some(_) => Ok(()),
        }
    }

    /// The leader chose the expired offsets from applied state; a commit that was pending then must survive.
    fn judge_expiry(&self, group: &str, cutoff_ms: i64, records: &[Record]) -> Result<(), i16> {
        if mutants::is_on(Bug::ExpiryRemovesNewerCommit) {
            return Ok(());
        }
        for record in records {
            match record {
                Record::Offset { group, topic, partition, value: None } => {
                    let current = self.offset(group, topic, *partition);
                    if current.is_some_and(|offset| offset.commit_time_ms > cutoff_ms) {
                        return Err(refusal::CHANGED_MEANWHILE);
                    }
                }
                Record::Group { value: None, .. } => {
                    if !self.groups.get(group).is_none_or(StoredGroup::has_no_members) {
                        return Err(refusal::CHANGED_MEANWHILE);
                    }
                }
                _ => return Err(refusal::INVALID_RECORD),
            }
        }
        Ok(())
    }

    /// Applies a batch of an open transaction that was accepted: its offsets wait for the marker. `base`: the batch's first offset.
    pub fn apply_transactional(&mut self, producer: ProducerId, base: Offset, change: GroupChange) {
        for (order, record) in (base.0..).zip(change.records) {
            if let Record::Offset { group, topic, partition, value: Some(value) } = record {
                let place = Place::new(&group, &topic, partition);
                if mutants::is_on(Bug::OffsetsVisibleBeforeMarker) {
                    self.replace_offset(&group, &topic, partition, Some(value));
                    continue;
                }
                self.set_pending(producer, &place, Some(PendingOffset { value, order, is_superseded: false }));
            }
        }
    }

    /// The transaction of a producer has ended: its offsets become visible, except where a later commit already is; or are gone.
    pub fn end_transaction(&mut self, producer: ProducerId, commits: bool) {
        for (place, PendingOffset { value, order, is_superseded }) in self.pending.of(producer) {
            self.set_pending(producer, &place, None);
            if (commits || mutants::is_on(Bug::AbortedOffsetsCommitted)) && !is_superseded {
                self.supersede(&place, order);
                self.replace_offset(&place.group, &place.topic, place.partition, Some(value));
            }
        }
    }

    /// True if a transaction that is open has committed an offset here (`requireStable` of OffsetFetch, KIP-447).
    #[must_use]
    pub fn is_unstable(&self, group: &str, topic: &str, partition: i32) -> bool {
        !mutants::is_on(Bug::UnstableOffsetsAnswered)
            && !self.pending.is_empty()
            && !self.pending.producers_at(&Place::new(group, topic, partition)).is_empty()
    }

    fn set_pending(&mut self, producer: ProducerId, place: &Place, offset: Option<PendingOffset>) {
        let added = offset.as_ref().map(PendingOffset::encode);
        let removed = self.pending.set(producer, place, offset);
        let key = pending_offsets::key(producer, place);
        self.note_change(key, removed.as_ref().map(PendingOffset::encode), added);
    }

    /// What was committed here before `order` is older than what is visible now.
    fn supersede(&mut self, place: &Place, order: i64) {
        for producer in self.pending.producers_at(place) {
            let older =
                self.pending.get(producer, place).filter(|offset| offset.order < order && !offset.is_superseded);
            if let Some(older) = older.cloned() {
                self.set_pending(producer, place, Some(PendingOffset { is_superseded: true, ..older }));
            }
        }
    }

    /// Applies a batch that was accepted.
    pub fn apply(&mut self, change: GroupChange) {
        let awaits = matches!(change.guard, Some(Guard::Membership { awaits_assignment: true, .. }));
        for record in change.records {
            self.apply_record(record, awaits);
        }
    }

    /// Applies one record; `awaits`: its guard says that the generation awaits its leader's assignment.
    pub(crate) fn apply_record(&mut self, record: Record, awaits: bool) {
        match record {
            Record::Offset { group, topic, partition, value } => self.set_offset(&group, &topic, partition, value),
            Record::Group { group, mut value } => {
                if let Some(value) = &mut value {
                    value.awaits_assignment |= awaits;
                }
                self.set_membership(&group, value);
            }
        }
    }

    fn set_offset(&mut self, group: &str, topic: &str, partition: i32, value: Option<CommittedOffset>) {
        if !self.pending.is_empty() {
            let place = Place::new(group, topic, partition);
            if value.is_some() {
                self.supersede(&place, i64::MAX);
            } else {
                // As in Kafka, what is deleted does not come back by a marker.
                let producers = self.pending.producers_at(&place);
                producers.into_iter().for_each(|producer| self.set_pending(producer, &place, None));
            }
        }
        self.replace_offset(group, topic, partition, value);
    }

    fn replace_offset(&mut self, group: &str, topic: &str, partition: i32, value: Option<CommittedOffset>) {
        let key = records::offset_key(group, topic, partition);
        let added = value.as_ref().map(records::encode_offset);
        let added_id = value.as_ref().map(|value| value.topic_id);
        let removed = match value {
            Some(value) => {
                let offsets = &mut self.group_mut(group).offsets;
                if !offsets.contains_key(topic) {
                    offsets.insert(Arc::from(topic), BTreeMap::new());
                }
                offsets.get_mut(topic).and_then(|by_partition| by_partition.insert(partition, value))
            }
            None => self.remove_offset(group, topic, partition),
        };
        self.count_topic(topic, added_id, removed.as_ref().map(|value| value.topic_id));
        self.note_change(key, removed.as_ref().map(records::encode_offset), added);
    }

    fn count_topic(&mut self, topic: &str, added: Option<Uuid>, removed: Option<Uuid>) {
        if added == removed {
            return;
        }
        if let Some(id) = added {
            *self.topics.entry((Arc::from(topic), id)).or_default() += 1;
        }
        let Some(id) = removed else { return };
        let key = (Arc::from(topic), id);
        if let Some(count) = self.topics.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.topics.remove(&key);
            }
        }
    }

    fn remove_offset(&mut self, group: &str, topic: &str, partition: i32) -> Option<CommittedOffset> {
        let stored = self.groups.get_mut(group)?;
        let by_partition = stored.offsets.get_mut(topic)?;
        let removed = by_partition.remove(&partition);
        if by_partition.is_empty() {
            stored.offsets.remove(topic);
        }
        self.forget_if_nothing_is_left(group);
        removed
    }

    fn set_membership(&mut self, group: &str, value: Option<GroupValue>) {
        let key = records::group_key(group);
        let added = value.as_ref().map(records::encode_group);
        let removed = match value {
            Some(value) => self.group_mut(group).membership.replace(Arc::new(value)),
            None => {
                let removed = self.groups.get_mut(group).and_then(|stored| stored.membership.take());
                self.forget_if_nothing_is_left(group);
                removed
            }
        };
        self.note_change(key, removed.map(|value| records::encode_group(&value)), added);
    }

    fn group_mut(&mut self, group: &str) -> &mut StoredGroup {
        if !self.groups.contains_key(group) {
            self.groups.insert(Arc::from(group), StoredGroup::default());
        }
        self.groups.entry(Arc::from(group)).or_default()
    }

    fn forget_if_nothing_is_left(&mut self, group: &str) {
        if self.groups.get(group).is_some_and(|stored| stored.membership.is_none() && stored.offsets.is_empty()) {
            self.groups.remove(group);
        }
    }

    fn note_change(&mut self, key: Bytes, removed: Option<Bytes>, added: Option<Bytes>) {
        if let Some(value) = removed {
            self.checksum ^= record_hash(&key, &value);
        }
        if let Some(value) = added {
            self.checksum ^= record_hash(&key, &value);
        }
        self.dirty.insert(key);
    }

    /// What changed since the last call, for the checkpoint: records' keys with their values now, `None` if gone.
    pub fn changes(&mut self) -> Vec<(Bytes, Option<Bytes>)> {
        let dirty = std::mem::take(&mut self.dirty);
        dirty
            .into_iter()
            .map(|key| {
                let value = self.value_of(&key);
                (key, value)
            })
            .collect()
    }

    /// All that the store holds is to be in the next [`GroupStore::changes`]: another shard's checkpoint begins with it.
    pub fn all_changed(&mut self) {
        self.dirty = self.live_keys().into_iter().collect();
    }

    /// The keys of everything that the store holds.
    #[must_use]
    pub fn live_keys(&self) -> Vec<Bytes> {
        let mut keys: Vec<Bytes> = self.pending.keys().collect();
        for (name, group) in &self.groups {
            if group.membership.is_some() {
                keys.push(records::group_key(name));
            }
            for (topic, offsets) in &group.offsets {
                keys.extend(offsets.keys().map(|partition| records::offset_key(name, topic, *partition)));
            }
        }
        keys
    }

    fn value_of(&self, key: &Bytes) -> Option<Bytes> {
        if let Some((producer, place)) = pending_offsets::named(key).ok()? {
            return self.pending.get(producer, &place).map(PendingOffset::encode);
        }
        match Record::decode(key.clone(), None).ok()? {
            Record::Offset { group, topic, partition, .. } => {
                self.offset(&group, &topic, partition).map(records::encode_offset)
            }
            Record::Group { group, .. } => self.membership(&group).map(records::encode_group),
        }
    }

    /// Restores one record of a checkpoint.
    ///
    /// # Errors
    /// This release does not know such a record.
    pub fn restore(&mut self, key: Bytes, value: Bytes) -> Result<(), Malformed> {
        if let Some((producer, place)) = pending_offsets::named(&key)? {
            let offset = pending_offsets::decode(&place, value)?;
            self.dirty_free(|store| store.set_pending(producer, &place, Some(offset)));
            return Ok(());
        }
        let record = Record::decode(key, Some(value))?;
        self.dirty_free(|store| store.apply_record(record, false));
        Ok(())
    }

    /// What comes from the checkpoint need not be written to it again.
    fn dirty_free(&mut self, change: impl FnOnce(&mut Self)) {
        let dirty = std::mem::take(&mut self.dirty);
        change(self);
        self.dirty = dirty;
    }

    /// Equal on every replica that applied the same entries.
    #[must_use]
    pub fn checksum(&self) -> u64 {
        self.checksum
    }

    /// One group.
    #[must_use]
    pub fn group(&self, group: &str) -> Option<&StoredGroup> {
        self.groups.get(group)
    }

    /// All groups, by id.
    pub fn groups(&self) -> impl Iterator<Item = (&Arc<str>, &StoredGroup)> {
        self.groups.iter()
    }

    /// The groups whose id comes after `cursor`, all for none.
    pub fn groups_after(&self, cursor: Option<&str>) -> impl Iterator<Item = (&Arc<str>, &StoredGroup)> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.groups.range::<str, _>((cursor.map_or(Unbounded, Excluded), Unbounded))
    }

    /// The topics of which offsets are kept, under each id that was recorded.
    pub fn topics(&self) -> impl Iterator<Item = &(Arc<str>, Uuid)> {
        self.topics.keys()
    }

    /// One committed offset.
    #[must_use]
    pub fn offset(&self, group: &str, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        self.groups.get(group)?.offsets.get(topic)?.get(&partition)
    }

    fn membership(&self, group: &str) -> Option<&GroupValue> {
        self.groups.get(group)?.membership.as_deref()
    }
}
