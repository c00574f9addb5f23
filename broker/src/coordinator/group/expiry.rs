//! Which offsets and groups have expired, and which belong to deleted topics. Pure: the time is an argument.
//!
//! As Kafka 4.x (KIP-211, KIP-496): while a group is empty its offsets expire together, counted from when it became
//! empty; of a stable consumer group only topics it no longer reads expire, counted from the commit; a group that never
//! had members counts from the commit; an explicit end from old clients (OffsetCommit v2-v4) wins.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::classic::State;
use crate::replicated::group::records::{CommittedOffset, GroupValue, Record};
use crate::replicated::group::schema::Reader;
use crate::replicated::group::store::StoredGroup;

/// The protocol type whose members' metadata name topics.
const CONSUMER: &str = "consumer";

/// The terms of one expiration round.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// The time.
    pub now_ms: i64,
    /// `offsets.retention.minutes`, in milliseconds; none if only offsets of deleted topics are removed.
    pub retention_ms: Option<i64>,
    /// Deleted topics, each with its id, or nil if it was not recorded.
    pub gone: BTreeSet<(Arc<str>, Uuid)>,
}

/// The tombstones due for one group, its own included if it holds nothing more; `state` is its state now.
#[must_use]
pub fn tombstones(group: &str, stored: &StoredGroup, state: State, terms: &Terms) -> Vec<Record> {
    let clock = Clock::of(stored, state);
    let mut due = Vec::new();
    let mut all = true;
    for (topic, partitions) in &stored.offsets {
        let subscribed = is_subscribed(stored.membership.as_deref(), topic);
        for (partition, offset) in partitions {
            let gone = terms.gone.contains(&(topic.clone(), offset.topic_id));
            if gone || (!subscribed && clock.is_over(offset, terms)) {
                due.push(Record::Offset {
                    group: group.to_string(),
                    topic: topic.to_string(),
                    partition: *partition,
                    value: None,
                });
            } else {
                all = false;
            }
        }
    }
    if all && state == State::Empty && stored.membership.is_some() && terms.retention_ms.is_some() {
        due.push(Record::Group { group: group.to_string(), value: None });
    }
    due
}

/// The time from which an offset's retention is counted.
enum Clock {
    Never,
    Commit,
    Since(i64),
}

impl Clock {
    fn of(stored: &StoredGroup, state: State) -> Self {
        let Some(membership) = stored.membership.as_deref().filter(|value| !value.protocol_type.is_empty()) else {
            return Self::Commit;
        };
        match state {
            State::Empty if membership.state_time_ms >= 0 => Self::Since(membership.state_time_ms),
            State::Empty => Self::Commit,
            State::Stable if subscriptions(membership).is_some() => Self::Commit,
            State::PreparingRebalance | State::CompletingRebalance | State::Stable | State::Dead => Self::Never,
        }
    }

    fn is_over(&self, offset: &CommittedOffset, terms: &Terms) -> bool {
        let since = match self {
            Self::Never => return false,
            Self::Commit => offset.commit_time_ms,
            Self::Since(at_ms) => *at_ms,
        };
        let Some(retention_ms) = terms.retention_ms else { return false };
        match offset.expire_time_ms {
            Some(at_ms) => terms.now_ms >= at_ms,
            // A negative retention keeps offsets for ever.
            None => retention_ms >= 0 && terms.now_ms.saturating_sub(since) >= retention_ms,
        }
    }
}

/// True if the group subscribes to the topic, or may do so since its metadata cannot be read.
#[must_use]
pub fn is_subscribed(membership: Option<&GroupValue>, topic: &str) -> bool {
    match membership {
        Some(value) if value.protocol_type == CONSUMER => {
            subscriptions(value).is_none_or(|topics| topics.contains(topic))
        }
        _ => false,
    }
}

/// The topics to which the members of a consumer group subscribe; none if their metadata cannot be read.
#[must_use]
pub fn subscriptions(value: &GroupValue) -> Option<BTreeSet<String>> {
    if value.protocol_type != CONSUMER {
        return None;
    }
    let mut topics = BTreeSet::new();
    for member in &value.members {
        topics.extend(subscription(&member.subscription)?);
    }
    Some(topics)
}

/// Topics of a consumer's metadata; its version 0 is the prefix of all later ones.
///
///     | version | count | topic ... | user data | owned partitions (v1+) ...
fn subscription(metadata: &Bytes) -> Option<Vec<String>> {
    let mut reader = Reader::new(metadata.clone());
    reader.i16().ok().filter(|version| *version >= 0)?;
    let count = reader.array(false).ok()?;
    (0..count).map(|_| reader.string(false).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::group::tests::subscription as subscribed_to;
    use crate::replicated::group::records::MemberValue;
    use std::collections::BTreeMap;

    const WEEK_MS: i64 = 7 * 24 * 3_600_000;

    fn membership(kind: &str, members: &[&[&str]]) -> Option<Arc<GroupValue>> {
        let members = members.iter().enumerate().map(|(n, topics)| MemberValue {
            member_id: format!("m{n}"),
            instance_id: None,
            client_id: String::new(),
            client_host: String::new(),
            rebalance_timeout_ms: 1,
            session_timeout_ms: 1,
            subscription: subscribed_to(3, topics),
            assignment: Bytes::new(),
        });
        Some(Arc::new(GroupValue {
            protocol_type: kind.into(),
            generation: 1,
            protocol: None,
            leader: None,
            state_time_ms: 1_000,
            members: members.collect(),
            awaits_assignment: false,
        }))
    }

    fn committed(commit_time_ms: i64) -> CommittedOffset {
        CommittedOffset {
            offset: 5,
            leader_epoch: -1,
            metadata: "".into(),
            commit_time_ms,
            expire_time_ms: None,
            topic_id: Uuid::nil(),
        }
    }

    fn stored(membership: Option<Arc<GroupValue>>, offsets: &[(&str, i64)]) -> StoredGroup {
        let by_topic = |(topic, at): &(&str, i64)| (Arc::from(*topic), BTreeMap::from([(0, committed(*at))]));
        StoredGroup { membership, offsets: offsets.iter().map(by_topic).collect() }
    }

    fn due(stored: &StoredGroup, state: State, now_ms: i64) -> usize {
        tombstones("g", stored, state, &Terms { now_ms, retention_ms: Some(WEEK_MS), gone: BTreeSet::new() }).len()
    }

    #[test]
    fn an_empty_groups_offsets_expire_with_it_and_not_before() {
        let group = stored(membership("consumer", &[]), &[("t", 0), ("u", 900_000)]);
        assert_eq!(due(&group, State::Empty, 1_000 + WEEK_MS - 1), 0);
        // Both offsets and the group.
        assert_eq!(due(&group, State::Empty, 1_000 + WEEK_MS), 3);
        assert_eq!(due(&group, State::PreparingRebalance, 1_000 + 9 * WEEK_MS), 0);
    }

    #[test]
    fn a_stable_group_keeps_what_it_reads_for_ever() {
        let group = stored(membership("consumer", &[&["t"], &["v"]]), &[("t", 0), ("v", 0), ("old", 10)]);
        assert_eq!(due(&group, State::Stable, WEEK_MS + 9), 0);
        assert_eq!(due(&group, State::Stable, WEEK_MS + 10), 1);
        assert_eq!(due(&group, State::CompletingRebalance, 9 * WEEK_MS), 0);
        // Nothing is known of what a connect worker reads.
        let connect = stored(membership("connect", &[&["t"]]), &[("t", 0)]);
        assert_eq!(due(&connect, State::Stable, 9 * WEEK_MS), 0);
    }

    #[test]
    fn a_simple_consumers_offset_expires_by_its_commit() {
        let group = stored(None, &[("t", 50), ("u", 60)]);
        assert_eq!(due(&group, State::Empty, WEEK_MS + 49), 0);
        assert_eq!(due(&group, State::Empty, WEEK_MS + 50), 1);
        assert_eq!(due(&group, State::Empty, WEEK_MS + 60), 2);
    }

    #[test]
    fn an_explicit_end_wins_and_a_negative_retention_keeps() {
        let mut group = stored(None, &[("t", 50)]);
        for offset in group.offsets.values_mut().flat_map(|partitions| partitions.values_mut()) {
            offset.expire_time_ms = Some(70);
        }
        assert_eq!((due(&group, State::Empty, 69), due(&group, State::Empty, 70)), (0, 1));
        let terms = Terms { now_ms: i64::MAX, retention_ms: Some(-1), gone: BTreeSet::new() };
        assert!(tombstones("g", &stored(None, &[("t", 0)]), State::Empty, &terms).is_empty());
    }

    #[test]
    fn offsets_of_a_deleted_topic_go_even_if_it_is_read() {
        let group = stored(membership("consumer", &[&["t", "u"]]), &[("t", 0), ("u", 0)]);
        let gone = BTreeSet::from([(Arc::from("t"), Uuid::nil()), (Arc::from("u"), Uuid::from_u128(9))]);
        let records = tombstones("g", &group, State::Stable, &Terms { now_ms: 1, retention_ms: Some(WEEK_MS), gone });
        assert_eq!(records.len(), 1);
        assert!(matches!(&records[0], Record::Offset { topic, .. } if topic == "t"));
    }

    #[test]
    fn a_look_for_deleted_topics_expires_nothing() {
        let group = stored(membership("consumer", &[]), &[]);
        let terms = Terms { now_ms: i64::MAX, retention_ms: None, gone: BTreeSet::new() };
        assert!(tombstones("g", &group, State::Empty, &terms).is_empty());
        assert!(tombstones("g", &stored(None, &[("t", 0)]), State::Empty, &terms).is_empty());
    }

    #[test]
    fn metadata_that_cannot_be_read_counts_as_reading_everything() {
        let mut value = membership("consumer", &[&["t"]]).map(|value| (*value).clone()).unwrap();
        assert!(is_subscribed(Some(&value), "t") && !is_subscribed(Some(&value), "u"));
        value.members[0].subscription = Bytes::from_static(&[0]);
        assert!(is_subscribed(Some(&value), "u"));
        assert!(!is_subscribed(None, "u"));
    }
}
