//! The lag cache of one partition of `__consumer_offsets`: what its groups have committed, and the ends that the
//! leaders of the partitions answered. Pure.
//!
//! A committed offset and the ends that it was measured against are replaced together, so that a lag is never one of an
//! offset and an end of different moments. May not know: nodes, requests.

use std::collections::BTreeMap;
use std::sync::Arc;

use ottla_env::rt;
use ottla_protocol::ids::Offset;
use parking_lot::Mutex;
use uuid::Uuid;

use super::status::{Status, Window};
use crate::replicated::group::GroupStore;
use crate::replicated::group::store::StoredGroup;
use crate::shard::{CommittedPosition, EndsAnswer};

/// The groups of one partition of `__consumer_offsets`.
#[derive(Debug, Default)]
pub(super) struct CachedStore {
    /// Of the store as it was last looked through; an equal one holds nothing new.
    seen: Option<u64>,
    /// A round has measured what it holds: before, it is not shown, and other replicas know more.
    pub(super) is_measured: bool,
    pub(super) groups: BTreeMap<Arc<str>, Arc<Mutex<CachedGroup>>>,
}

/// One group.
#[derive(Debug, Default)]
pub(super) struct CachedGroup {
    pub(super) protocol_type: String,
    pub(super) generation: i32,
    pub(super) members: usize,
    pub(super) topics: BTreeMap<Arc<str>, BTreeMap<i32, CachedPartition>>,
}

/// A group in one partition.
#[derive(Debug, Default)]
pub(super) struct CachedPartition {
    pub(super) committed: i64,
    commit_time_ms: i64,
    /// The topic's id when the offset was committed; nil if unknown.
    topic_id: Uuid,
    measured: Option<Measured>,
    /// It was not measured because its leader is not known or did not answer.
    was_tried: bool,
    pub(super) window: Window,
}

/// A committed offset beside the ends of its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Measured {
    topic: Uuid,
    pub(super) committed: i64,
    log_start: i64,
    pub(super) high_watermark: i64,
    pub(super) first_uncommitted_ms: Option<i64>,
    /// Both are as of this moment or later.
    pub(super) at: rt::Instant,
}

impl Measured {
    /// Records that retention has removed cannot be read any more: the group resumes at the log start.
    pub(super) fn lag(&self) -> i64 {
        (self.high_watermark - self.committed.max(self.log_start)).max(0)
    }
}

impl CachedStore {
    /// Updates the cache with what the groups have committed.
    pub(super) fn merge(&mut self, store: &GroupStore) {
        let sum = store.checksum();
        if self.seen == Some(sum) {
            return;
        }
        let mut count = 0;
        for (name, stored) in store.groups() {
            count += 1;
            let known = self.groups.get(name).cloned();
            let group = known.unwrap_or_else(|| self.groups.entry(name.clone()).or_default().clone());
            group.lock().merge(stored);
        }
        if count != self.groups.len() {
            self.groups.retain(|name, _| store.group(name).is_some());
        }
        self.seen = Some(sum);
    }
}

impl CachedGroup {
    fn merge(&mut self, stored: &StoredGroup) {
        let membership = stored.membership.as_deref();
        self.generation = membership.map_or(0, |value| value.generation);
        self.members = membership.map_or(0, |value| value.members.len());
        let protocol_type = membership.map_or("", |value| value.protocol_type.as_str());
        if self.protocol_type != protocol_type {
            protocol_type.clone_into(&mut self.protocol_type);
        }
        for (topic, offsets) in &stored.offsets {
            if !self.topics.contains_key(topic) {
                self.topics.insert(topic.clone(), BTreeMap::new());
            }
            let Some(partitions) = self.topics.get_mut(topic) else { continue };
            for (index, offset) in offsets {
                let partition = partitions.entry(*index).or_default();
                (partition.committed, partition.commit_time_ms) = (offset.offset, offset.commit_time_ms);
                partition.topic_id = offset.topic_id;
            }
            if partitions.len() != offsets.len() {
                partitions.retain(|index, _| offsets.contains_key(index));
            }
        }
        if self.topics.len() != stored.offsets.len() {
            self.topics.retain(|topic, _| stored.offsets.contains_key(topic));
        }
    }
}

impl CachedPartition {
    /// True if the offset was committed of this topic, and not of one of the same name that was deleted.
    pub(super) fn is_of(&self, topic: Uuid) -> bool {
        self.topic_id.is_nil() || self.topic_id == topic
    }

    /// The last ends from the leader of the partition.
    pub(super) fn measured(&self, topic: Uuid) -> Option<&Measured> {
        self.measured.as_ref().filter(|measured| measured.topic == topic)
    }

    /// Shown is what was measured, and what cannot be. What is about to be measured for the first time waits: else the
    /// sums of its topic would be unknown for that moment.
    pub(super) fn is_shown(&self) -> bool {
        self.measured.is_some() || self.was_tried
    }

    /// Records that the leader of the partition is not known, or does not answer.
    pub(super) fn give_up(&mut self) {
        self.was_tried = true;
    }

    /// What of it was measured with the offset that is committed now.
    fn current(&self, topic: Uuid) -> Option<&Measured> {
        self.measured(topic).filter(|measured| measured.committed == self.committed)
    }

    /// The position to send to the leader.
    pub(super) fn question(&self, topic: Uuid, index: i32) -> CommittedPosition {
        let current = self.current(topic);
        let log_start = current.map_or(0, |measured| measured.log_start);
        CommittedPosition {
            partition: index,
            position: Offset(self.committed.max(log_start)),
            known: current.map(|measured| Offset(measured.high_watermark)),
            needs_time: current.is_none_or(|measured| measured.first_uncommitted_ms.is_none()),
        }
    }

    /// Records the leader's answer about `committed`, both as of `at` or later; `now_ms` is the coordinator's time.
    pub(super) fn file(&mut self, topic: Uuid, committed: i64, answer: &EndsAnswer, at: rt::Instant, now_ms: i64) {
        if committed != self.committed {
            return;
        }
        let current = self.current(topic).copied();
        let measured = match (answer, current) {
            (EndsAnswer::NotLeader, _) | (EndsAnswer::Unchanged, None) => return self.give_up(),
            (EndsAnswer::Unchanged, Some(known)) => Measured { at: known.at.max(at), ..known },
            (EndsAnswer::Ends(ends), current) => {
                let (log_start, high_watermark) = (ends.log_start.0, ends.high_watermark.0);
                let mut measured =
                    Measured { topic, committed, log_start, high_watermark, first_uncommitted_ms: None, at };
                if measured.lag() > 0 {
                    let known = current.and_then(|known| known.first_uncommitted_ms);
                    measured.first_uncommitted_ms = ends.first_uncommitted_ms.or(known);
                }
                measured
            }
        };
        self.measured = Some(measured);
        self.window.observe(committed, self.commit_time_ms, measured.lag(), now_ms);
    }

    /// Its status as far as was measured.
    pub(super) fn status(&self, topic: Uuid, now_ms: i64) -> Status {
        self.measured(topic).map_or(Status::Ok, |measured| self.window.status(measured.lag(), now_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replicated::group::records::{CommittedOffset, Record};
    use crate::shard::PartitionEnds;

    const TOPIC: Uuid = Uuid::from_u128(7);

    fn ends(log_start: i64, high_watermark: i64, first_uncommitted_ms: Option<i64>) -> EndsAnswer {
        let end = Offset(high_watermark);
        let log_start = Offset(log_start);
        EndsAnswer::Ends(PartitionEnds { log_start, high_watermark: end, last_stable: end, first_uncommitted_ms })
    }

    fn at(seconds: i64) -> rt::Instant {
        rt::Instant(seconds * 1_000_000_000)
    }

    fn committed(offset: i64) -> CachedPartition {
        CachedPartition { committed: offset, commit_time_ms: offset, topic_id: TOPIC, ..CachedPartition::default() }
    }

    fn shown(partition: &CachedPartition) -> Option<(i64, i64, Option<i64>)> {
        partition.measured(TOPIC).map(|measured| (measured.committed, measured.lag(), measured.first_uncommitted_ms))
    }

    #[test]
    fn an_offset_and_its_ends_are_shown_together() {
        let mut partition = committed(100);
        let question = partition.question(TOPIC, 3);
        assert_eq!((question.position, question.known, question.needs_time), (Offset(100), None, true));
        assert_eq!((shown(&partition), partition.is_shown()), (None, false));
        partition.file(TOPIC, 100, &EndsAnswer::NotLeader, at(1), 0);
        assert_eq!((shown(&partition), partition.is_shown()), (None, true), "it cannot be measured now");
        partition.file(TOPIC, 100, &ends(0, 1_000, Some(55)), at(1), 0);
        assert_eq!(shown(&partition), Some((100, 900, Some(55))));
        partition.committed = 400;
        assert_eq!(shown(&partition), Some((100, 900, Some(55))), "what is committed now is not measured yet");
        let question = partition.question(TOPIC, 3);
        assert_eq!((question.known, question.needs_time), (None, true));
        partition.file(TOPIC, 100, &ends(0, 1_000, None), at(2), 0);
        assert_eq!(shown(&partition), Some((100, 900, Some(55))), "an answer about what was committed before");
        partition.file(TOPIC, 400, &ends(0, 1_200, Some(66)), at(2), 0);
        assert_eq!(shown(&partition), Some((400, 800, Some(66))));
    }

    #[test]
    fn what_did_not_change_is_only_younger_and_without_a_leader_it_grows_old() {
        let mut partition = committed(100);
        partition.file(TOPIC, 100, &ends(0, 1_000, Some(55)), at(1), 0);
        let question = partition.question(TOPIC, 0);
        assert_eq!((question.known, question.needs_time), (Some(Offset(1_000)), false));
        partition.file(TOPIC, 100, &EndsAnswer::Unchanged, at(5), 0);
        assert_eq!(
            (shown(&partition), partition.measured(TOPIC).map(|m| m.at)),
            (Some((100, 900, Some(55))), Some(at(5)))
        );
        partition.file(TOPIC, 100, &EndsAnswer::NotLeader, at(9), 0);
        assert_eq!(
            (shown(&partition), partition.measured(TOPIC).map(|m| m.at)),
            (Some((100, 900, Some(55))), Some(at(5)))
        );
        partition.file(TOPIC, 100, &ends(0, 1_500, None), at(9), 0);
        assert_eq!(shown(&partition), Some((100, 1_400, Some(55))), "the first uncommitted record is the same");
    }

    #[test]
    fn what_retention_removed_is_no_lag_and_a_group_that_caught_up_is_not_behind() {
        let mut partition = committed(100);
        partition.file(TOPIC, 100, &ends(600, 1_000, Some(77)), at(1), 0);
        assert_eq!(shown(&partition), Some((100, 400, Some(77))));
        assert_eq!(partition.question(TOPIC, 0).position, Offset(600));
        partition.file(TOPIC, 100, &ends(1_000, 1_000, None), at(1), 0);
        assert_eq!(shown(&partition), Some((100, 0, None)));
    }

    #[test]
    fn a_topic_of_the_same_name_is_another_one() {
        let mut partition = committed(100);
        partition.file(TOPIC, 100, &ends(0, 1_000, Some(55)), at(1), 0);
        let other = Uuid::from_u128(8);
        assert!(partition.is_of(TOPIC) && !partition.is_of(other));
        assert_eq!(partition.measured(other), None);
        partition.topic_id = Uuid::nil();
        assert!(partition.is_of(other));
        assert_eq!(partition.question(other, 0).known, None);
    }

    fn store_with(store: &mut GroupStore, group: &str, topic: &str, partition: i32, offset: Option<i64>) {
        let value = offset.map(|offset| CommittedOffset {
            offset,
            leader_epoch: -1,
            metadata: Box::default(),
            commit_time_ms: offset,
            expire_time_ms: None,
            topic_id: TOPIC,
        });
        let record = Record::Offset { group: group.to_owned(), topic: topic.to_owned(), partition, value };
        store.apply_record(record, false);
    }

    fn held(cached: &CachedStore) -> Vec<String> {
        let mut all = Vec::new();
        for (group, cached) in &cached.groups {
            for (topic, partitions) in &cached.lock().topics {
                all.extend(partitions.iter().map(|(index, at)| format!("{group} {topic}-{index} {}", at.committed)));
            }
        }
        all
    }

    #[test]
    fn what_groups_commit_comes_and_what_they_no_longer_have_goes() {
        let (mut store, mut cached) = (GroupStore::new(), CachedStore::default());
        store_with(&mut store, "a", "t", 0, Some(5));
        store_with(&mut store, "a", "t", 1, Some(6));
        store_with(&mut store, "a", "u", 0, Some(7));
        store_with(&mut store, "b", "t", 0, Some(8));
        cached.merge(&store);
        assert_eq!(held(&cached), ["a t-0 5", "a t-1 6", "a u-0 7", "b t-0 8"]);
        let measured = |cached: &CachedStore| {
            let group = cached.groups.get("a").cloned().unwrap_or_default();
            let mut group = group.lock();
            let at_0 = group.topics.get_mut("t").and_then(|partitions| partitions.remove(&0));
            at_0.is_some_and(|partition| partition.measured(TOPIC).is_some())
        };
        if let Some(group) = cached.groups.get("a")
            && let Some(partition) = group.lock().topics.get_mut("t").and_then(|partitions| partitions.get_mut(&0))
        {
            partition.file(TOPIC, 5, &ends(0, 9, Some(1)), at(1), 0);
        }
        store_with(&mut store, "a", "t", 1, None);
        store_with(&mut store, "a", "u", 0, None);
        store_with(&mut store, "b", "t", 0, None);
        store_with(&mut store, "c", "t", 3, Some(1));
        cached.merge(&store);
        assert_eq!(held(&cached), ["a t-0 5", "c t-3 1"]);
        assert!(measured(&cached), "what was measured stays");
    }
}
