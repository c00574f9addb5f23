//! Committing and removing offsets, and removing groups: what is checked now, what is appended, what is judged at
//! apply.

use std::collections::BTreeSet;
use std::sync::Arc;

use ottla_env::mutants::{self, Bug};

use super::PartitionCoordinator;
use super::command::{Commit, CommitTransaction, DeletedTopic, PendingAppends};
use crate::coordinator::group::error::GroupError;
use crate::coordinator::group::expiry;
use crate::coordinator::topic_log::{AppendFuture, Conditions};
use crate::replicated::group::batch;
use crate::replicated::group::guard::Guard;
use crate::replicated::group::records::{CommittedOffset, Record};
use crate::replicated::group::store::StoredGroup;

impl PartitionCoordinator {
    pub(super) fn commit(&mut self, group: &Arc<str>, commit: Commit) -> PendingAppends<()> {
        self.may_commit(group, &commit)?;
        let wall_ms = self.now().wall_ms;
        let expire_time_ms = commit.retention_ms.map(|retention| wall_ms.saturating_add(retention));
        let records: Vec<Record> = commit
            .offsets
            .into_iter()
            .map(|new| Record::Offset {
                group: group.to_string(),
                topic: new.topic.to_string(),
                partition: new.partition,
                value: Some(CommittedOffset {
                    offset: new.offset,
                    leader_epoch: new.leader_epoch,
                    metadata: new.metadata,
                    commit_time_ms: wall_ms,
                    expire_time_ms,
                    topic_id: new.topic_id,
                }),
            })
            .collect();
        let guard = Guard::Commit {
            group: group.to_string(),
            generation: commit.who.generation,
            member_id: commit.who.member_id,
        };
        let mut appends = self.append_all(&records, wall_ms, &guard, commit.transaction);
        if mutants::is_on(Bug::OffsetCommitAckedEarly) {
            appends.clear();
        }
        Ok(((), appends))
    }

    fn may_commit(&mut self, group: &Arc<str>, commit: &Commit) -> Result<(), GroupError> {
        let now = self.now();
        if let Some(live) = self.live.get_mut(group) {
            if live.failed {
                return Err(GroupError::CoordinatorNotAvailable);
            }
            live.machine.validate_commit(now, &commit.who, commit.transaction.is_some())?;
            self.reschedule(group);
            return Ok(());
        }
        let exists = self.store.lock().group(group).is_some();
        match (exists, commit.who.generation) {
            // The group has no members: any client may commit that does not claim to be one.
            (_, ..0) => Ok(()),
            (true, _) => Err(GroupError::UnknownMemberId),
            (false, _) if commit.knows_group_not_found => Err(GroupError::GroupIdNotFound),
            (false, _) => Err(GroupError::IllegalGeneration),
        }
    }

    pub(super) fn append_all(
        &self,
        records: &[Record],
        wall_ms: i64,
        guard: &Guard,
        transaction: Option<CommitTransaction>,
    ) -> Vec<AppendFuture> {
        let producer = transaction.map(|transaction| (transaction.producer, transaction.epoch));
        let batches = batch::build(records, wall_ms, producer);
        let append = |batch| {
            let transaction = transaction.map(|transaction| transaction.part);
            let conditions = Conditions { guard: Some(guard.encode()), transaction };
            self.log.topic().append(self.partition, self.leadership, batch, conditions)
        };
        batches.into_iter().map(append).collect()
    }

    pub(super) fn delete(&mut self, group: &Arc<str>) -> PendingAppends<()> {
        if self.live.get(group).is_some_and(|live| !live.machine.is_idle()) {
            return Err(GroupError::NonEmptyGroup);
        }
        let records = {
            let store = self.store.lock();
            let stored = store.group(group);
            match stored {
                Some(stored) => removal(group, stored),
                // Its first record may still be under way.
                None if self.live.contains_key(group) => vec![Record::Group { group: group.to_string(), value: None }],
                None => return Err(GroupError::GroupIdNotFound),
            }
        };
        let guard = Guard::Removal { group: group.to_string() };
        Ok(((), self.append_all(&records, self.now().wall_ms, &guard, None)))
    }

    pub(super) fn delete_offsets(
        &mut self,
        group: &Arc<str>,
        topics: Vec<(Arc<str>, Vec<i32>)>,
    ) -> PendingAppends<Vec<DeletedTopic>> {
        let live = self.live.get(group).filter(|live| !live.machine.is_idle());
        let is_consumer = live.is_some_and(|live| live.machine.protocol_type() == Some("consumer"));
        if live.is_some() && !is_consumer {
            return Err(GroupError::NonEmptyGroup);
        }
        let mut outcomes = Vec::new();
        let mut due = BTreeSet::new();
        {
            let store = self.store.lock();
            let stored = store.group(group);
            if stored.is_none() && live.is_none() {
                return Err(GroupError::GroupIdNotFound);
            }
            let membership = stored.and_then(|stored| stored.membership.as_deref());
            for (topic, partitions) in topics {
                // A consumer group on its way to its first generation may come to read anything.
                let may_read = is_consumer && membership.is_none();
                if may_read || (live.is_some() && expiry::is_subscribed(membership, &topic)) {
                    outcomes.push((topic, Err(GroupError::GroupSubscribedToTopic)));
                    continue;
                }
                let kept = |p: &i32| store.offset(group, &topic, *p).is_some();
                due.extend(partitions.into_iter().filter(kept).map(|p| (topic.clone(), p)));
                outcomes.push((topic, Ok(())));
            }
        }
        let records: Vec<Record> = due.iter().map(|(topic, p)| tombstone(group, topic, *p)).collect();
        // Nothing later is lost: what is committed from now on comes after these tombstones.
        let guard = Guard::Expiry { group: group.to_string(), cutoff_ms: i64::MAX };
        Ok((outcomes, self.append_all(&records, self.now().wall_ms, &guard, None)))
    }
}

fn tombstone(group: &str, topic: &str, partition: i32) -> Record {
    Record::Offset { group: group.to_string(), topic: topic.to_string(), partition, value: None }
}

/// Everything of a group, its membership last.
fn removal(group: &str, stored: &StoredGroup) -> Vec<Record> {
    let offsets = stored
        .offsets
        .iter()
        .flat_map(|(topic, partitions)| partitions.keys().map(move |partition| tombstone(group, topic, *partition)));
    let membership = stored.membership.iter().map(|_| Record::Group { group: group.to_string(), value: None });
    offsets.chain(membership).collect()
}
