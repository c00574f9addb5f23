//! The lag cache of one partition of `__consumer_offsets`: what its groups have committed, and the ends that the
//! leaders of the partitions answered. Pure.
//!
//! A committed offset and the ends that it was measured against are replaced together, so that a lag is never one of an
//! offset and an end of different moments. May not know: nodes, requests.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use ottla_env::rt;
use ottla_protocol::ids::Offset;
use parking_lot::Mutex;
use uuid::Uuid;

use super::status::{Status, Window};
use crate::partition::Isolation;
use crate::replicated::group::GroupStore;
use crate::replicated::group::store::StoredGroup;
use crate::shard::{CommittedPosition, ControlCount, EndsAnswer};

/// Groups of one partition of `__consumer_offsets` that are remembered before they have committed or joined.
const EARLY_MAX: usize = 100;

/// The groups of one partition of `__consumer_offsets`.
#[derive(Debug, Default)]
pub(super) struct CachedStore {
    /// Of the store as it was last looked through; an equal one holds nothing new.
    seen: Option<u64>,
    /// A round has measured what it holds: before, it is not shown, and other replicas know more.
    pub(super) is_measured: bool,
    pub(super) groups: BTreeMap<Arc<str>, Arc<Mutex<CachedGroup>>>,
    /// Groups that are not in the store yet and read committed records only, oldest first.
    early: VecDeque<Arc<str>>,
}

/// One group.
#[derive(Debug)]
pub(super) struct CachedGroup {
    pub(super) protocol_type: String,
    pub(super) generation: i32,
    pub(super) members: usize,
    /// Which records it reads, by its last OffsetFetch.
    pub(super) isolation: Isolation,
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

/// When committed offsets were read.
#[derive(Debug, Clone, Copy)]
pub(super) struct AsOf {
    pub(super) at: rt::Instant,
    /// The coordinator's time.
    pub(super) clock_ms: i64,
}

/// A committed offset beside the ends of its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Measured {
    topic: Uuid,
    pub(super) committed: i64,
    log_start: i64,
    pub(super) high_watermark: i64,
    pub(super) last_stable: i64,
    /// Control records from the position on; absent where the leader does not count them.
    control: Option<ControlCount>,
    pub(super) first_uncommitted_ms: Option<i64>,
    /// Both are as of this moment or later.
    pub(super) at: rt::Instant,
}

impl Measured {
    /// The records before the end of what a reader may see. Records that retention has removed cannot be read any more:
    /// the group resumes at the log start.
    pub(super) fn lag(&self, isolation: Isolation) -> i64 {
        let control = self.control.unwrap_or_default();
        let (end, control) = match isolation {
            Isolation::ReadUncommitted => (self.high_watermark, control.below_high_watermark),
            Isolation::ReadCommitted => (self.last_stable, control.below_last_stable),
        };
        (end - self.committed.max(self.log_start) - control).max(0)
    }

    /// True if the leader has nothing to add as long as its high watermark is this one.
    fn is_whole(&self) -> bool {
        let is_caught_up = self.lag(Isolation::ReadUncommitted) == 0;
        self.control.is_some() && (is_caught_up || self.first_uncommitted_ms.is_some())
    }
}

impl Default for CachedGroup {
    fn default() -> Self {
        let (protocol_type, topics) = (String::new(), BTreeMap::new());
        Self { protocol_type, generation: 0, members: 0, isolation: Isolation::ReadUncommitted, topics }
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
            let group = known.unwrap_or_else(|| self.add(name));
            group.lock().merge(stored);
        }
        if count != self.groups.len() {
            self.groups.retain(|name, _| store.group(name).is_some());
        }
        self.seen = Some(sum);
    }

    fn add(&mut self, name: &Arc<str>) -> Arc<Mutex<CachedGroup>> {
        let group = self.groups.entry(name.clone()).or_default().clone();
        if let Some(place) = self.early.iter().position(|early| early == name) {
            self.early.remove(place);
            group.lock().isolation = Isolation::ReadCommitted;
        }
        group
    }

    /// Records which records a group reads. One that has neither members nor offsets yet is remembered among the newest
    /// [`EARLY_MAX`].
    pub(super) fn reads(&mut self, name: &str, isolation: Isolation) {
        if let Some(group) = self.groups.get(name) {
            group.lock().isolation = isolation;
            return;
        }
        self.early.retain(|early| **early != *name);
        if isolation == Isolation::ReadCommitted {
            if self.early.len() == EARLY_MAX {
                self.early.pop_front();
            }
            self.early.push_back(name.into());
        }
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
            known: current.filter(|measured| measured.is_whole()).map(|measured| Offset(measured.high_watermark)),
            needs_time: current.is_none_or(|measured| measured.first_uncommitted_ms.is_none()),
        }
    }

    /// Records the leader's answer about `committed`, both as of `as_of` or later, in a group that reads these records.
    pub(super) fn file(&mut self, topic: Uuid, committed: i64, answer: &EndsAnswer, as_of: AsOf, isolation: Isolation) {
        let AsOf { at, clock_ms } = as_of;
        if committed != self.committed {
            return;
        }
        let current = self.current(topic).copied();
        let measured = match (answer, current) {
            (EndsAnswer::NotLeader, _) | (EndsAnswer::Unchanged, None) => return self.give_up(),
            (EndsAnswer::Unchanged, Some(known)) => Measured { at: known.at.max(at), ..known },
            (EndsAnswer::Ends(ends), current) => {
                let mut measured = Measured {
                    topic,
                    committed,
                    log_start: ends.log_start.0,
                    high_watermark: ends.high_watermark.0,
                    last_stable: ends.last_stable.0,
                    control: ends.control,
                    first_uncommitted_ms: None,
                    at,
                };
                if measured.lag(Isolation::ReadUncommitted) > 0 {
                    let known = current.and_then(|known| known.first_uncommitted_ms);
                    measured.first_uncommitted_ms = ends.first_uncommitted_ms.or(known);
                }
                measured
            }
        };
        self.measured = Some(measured);
        self.window.observe(committed, self.commit_time_ms, measured.lag(isolation), clock_ms);
    }

    /// Its status as far as was measured.
    pub(super) fn status(&self, topic: Uuid, isolation: Isolation, now_ms: i64) -> Status {
        self.measured(topic).map_or(Status::Ok, |measured| self.window.status(measured.lag(isolation), now_ms))
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
        let control = Some(ControlCount::default());
        let (high_watermark, last_stable) = (end, end);
        EndsAnswer::Ends(PartitionEnds { log_start, high_watermark, last_stable, first_uncommitted_ms, control })
    }

    /// Ends with control records between the position and each of them.
    fn with_control(
        high_watermark: (i64, i64),
        last_stable: (i64, i64),
        first_uncommitted_ms: Option<i64>,
    ) -> EndsAnswer {
        EndsAnswer::Ends(PartitionEnds {
            log_start: Offset(0),
            high_watermark: Offset(high_watermark.0),
            last_stable: Offset(last_stable.0),
            first_uncommitted_ms,
            control: Some(ControlCount { below_last_stable: last_stable.1, below_high_watermark: high_watermark.1 }),
        })
    }

    fn at(seconds: i64) -> rt::Instant {
        rt::Instant(seconds * 1_000_000_000)
    }

    /// Of a group that reads all records.
    fn file(partition: &mut CachedPartition, committed: i64, answer: &EndsAnswer, at: rt::Instant) {
        partition.file(TOPIC, committed, answer, AsOf { at, clock_ms: 0 }, Isolation::ReadUncommitted);
    }

    fn committed(offset: i64) -> CachedPartition {
        CachedPartition { committed: offset, commit_time_ms: offset, topic_id: TOPIC, ..CachedPartition::default() }
    }

    fn shown(partition: &CachedPartition) -> Option<(i64, i64, Option<i64>)> {
        partition.measured(TOPIC).map(|measured| {
            (measured.committed, measured.lag(Isolation::ReadUncommitted), measured.first_uncommitted_ms)
        })
    }

    #[test]
    fn an_offset_and_its_ends_are_shown_together() {
        let mut partition = committed(100);
        let question = partition.question(TOPIC, 3);
        assert_eq!((question.position, question.known, question.needs_time), (Offset(100), None, true));
        assert_eq!((shown(&partition), partition.is_shown()), (None, false));
        file(&mut partition, 100, &EndsAnswer::NotLeader, at(1));
        assert_eq!((shown(&partition), partition.is_shown()), (None, true), "it cannot be measured now");
        file(&mut partition, 100, &ends(0, 1_000, Some(55)), at(1));
        assert_eq!(shown(&partition), Some((100, 900, Some(55))));
        partition.committed = 400;
        assert_eq!(shown(&partition), Some((100, 900, Some(55))), "what is committed now is not measured yet");
        let question = partition.question(TOPIC, 3);
        assert_eq!((question.known, question.needs_time), (None, true));
        file(&mut partition, 100, &ends(0, 1_000, None), at(2));
        assert_eq!(shown(&partition), Some((100, 900, Some(55))), "an answer about what was committed before");
        file(&mut partition, 400, &ends(0, 1_200, Some(66)), at(2));
        assert_eq!(shown(&partition), Some((400, 800, Some(66))));
    }

    #[test]
    fn what_did_not_change_is_only_younger_and_without_a_leader_it_grows_old() {
        let mut partition = committed(100);
        file(&mut partition, 100, &ends(0, 1_000, Some(55)), at(1));
        let question = partition.question(TOPIC, 0);
        assert_eq!((question.known, question.needs_time), (Some(Offset(1_000)), false));
        file(&mut partition, 100, &EndsAnswer::Unchanged, at(5));
        assert_eq!(
            (shown(&partition), partition.measured(TOPIC).map(|m| m.at)),
            (Some((100, 900, Some(55))), Some(at(5)))
        );
        file(&mut partition, 100, &EndsAnswer::NotLeader, at(9));
        assert_eq!(
            (shown(&partition), partition.measured(TOPIC).map(|m| m.at)),
            (Some((100, 900, Some(55))), Some(at(5)))
        );
        file(&mut partition, 100, &ends(0, 1_500, None), at(9));
        assert_eq!(shown(&partition), Some((100, 1_400, Some(55))), "the first uncommitted record is the same");
    }

    #[test]
    fn what_retention_removed_is_no_lag_and_a_group_that_caught_up_is_not_behind() {
        let mut partition = committed(100);
        file(&mut partition, 100, &ends(600, 1_000, Some(77)), at(1));
        assert_eq!(shown(&partition), Some((100, 400, Some(77))));
        assert_eq!(partition.question(TOPIC, 0).position, Offset(600));
        file(&mut partition, 100, &ends(1_000, 1_000, None), at(1));
        assert_eq!(shown(&partition), Some((100, 0, None)));
    }

    fn lags(partition: &CachedPartition) -> Option<(i64, i64)> {
        let measured = partition.measured(TOPIC)?;
        Some((measured.lag(Isolation::ReadUncommitted), measured.lag(Isolation::ReadCommitted)))
    }

    #[test]
    fn control_records_are_no_lag_and_an_open_transaction_is_one_for_those_who_read_it() {
        let mut partition = committed(99);
        file(&mut partition, 99, &with_control((100, 1), (100, 1), None), at(1));
        assert_eq!((lags(&partition), shown(&partition)), (Some((0, 0)), Some((99, 0, None))), "a marker is left");
        assert_eq!(partition.question(TOPIC, 0).known, Some(Offset(100)), "the leader has nothing to add");
        file(&mut partition, 99, &with_control((130, 3), (110, 2), Some(55)), at(2));
        assert_eq!((lags(&partition), shown(&partition)), (Some((28, 9)), Some((99, 28, Some(55)))));
        partition.committed = 120;
        file(&mut partition, 120, &with_control((130, 0), (110, 0), Some(66)), at(3));
        assert_eq!(lags(&partition), Some((10, 0)), "a group that has read beyond the last stable offset");
    }

    #[test]
    fn the_status_follows_the_records_that_the_group_reads() {
        let mut partition = committed(100);
        for seconds in 0..100 {
            partition.commit_time_ms = seconds * 1_000;
            let as_of = AsOf { at: at(seconds), clock_ms: seconds * 1_000 };
            let answer = with_control((150, 1), (101, 1), Some(1));
            partition.file(TOPIC, 100, &answer, as_of, Isolation::ReadCommitted);
        }
        assert_eq!(
            partition.status(TOPIC, Isolation::ReadCommitted, 100_000),
            Status::Ok,
            "it waits for the transaction"
        );
        let mut partition = committed(100);
        for seconds in 0..100 {
            partition.commit_time_ms = seconds * 1_000;
            let as_of = AsOf { at: at(seconds), clock_ms: seconds * 1_000 };
            let answer = with_control((150, 1), (101, 1), Some(1));
            partition.file(TOPIC, 100, &answer, as_of, Isolation::ReadUncommitted);
        }
        assert_eq!(partition.status(TOPIC, Isolation::ReadUncommitted, 100_000), Status::Stall);
    }

    #[test]
    fn a_leader_that_counts_no_control_records_is_asked_for_everything_again() {
        let mut partition = committed(99);
        let old = EndsAnswer::Ends(PartitionEnds {
            log_start: Offset(0),
            high_watermark: Offset(100),
            last_stable: Offset(100),
            first_uncommitted_ms: Some(55),
            control: None,
        });
        file(&mut partition, 99, &old, at(1));
        assert_eq!((lags(&partition), partition.question(TOPIC, 0).known), (Some((1, 1)), None));
        file(&mut partition, 99, &with_control((100, 1), (100, 1), None), at(2));
        assert_eq!((lags(&partition), partition.question(TOPIC, 0).known), (Some((0, 0)), Some(Offset(100))));
    }

    #[test]
    fn a_group_reads_what_its_last_fetch_says_even_if_it_comes_before_the_group() {
        let (mut store, mut cached) = (GroupStore::new(), CachedStore::default());
        let isolation =
            |cached: &CachedStore, group: &str| cached.groups.get(group).map(|group| group.lock().isolation);
        for number in 0..EARLY_MAX {
            cached.reads(&format!("early-{number}"), Isolation::ReadCommitted);
        }
        cached.reads("a", Isolation::ReadCommitted);
        cached.reads("b", Isolation::ReadCommitted);
        cached.reads("b", Isolation::ReadUncommitted);
        assert_eq!(cached.early.len(), EARLY_MAX - 1, "b makes room for nobody");
        for group in ["a", "b", "early-0", "early-9"] {
            store_with(&mut store, group, "t", 0, Some(5));
        }
        cached.merge(&store);
        assert_eq!(isolation(&cached, "a"), Some(Isolation::ReadCommitted));
        assert_eq!(isolation(&cached, "b"), Some(Isolation::ReadUncommitted));
        assert_eq!(isolation(&cached, "early-0"), Some(Isolation::ReadUncommitted), "too many came after it");
        assert_eq!(isolation(&cached, "early-9"), Some(Isolation::ReadCommitted));
        cached.reads("a", Isolation::ReadUncommitted);
        assert_eq!(isolation(&cached, "a"), Some(Isolation::ReadUncommitted));
    }

    #[test]
    fn a_topic_of_the_same_name_is_another_one() {
        let mut partition = committed(100);
        file(&mut partition, 100, &ends(0, 1_000, Some(55)), at(1));
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
            file(partition, 5, &ends(0, 9, Some(1)), at(1));
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
