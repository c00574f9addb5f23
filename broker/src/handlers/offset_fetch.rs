//! OffsetFetch (key 9, v1-v10): a group's committed offsets.
//!
//! v2 null topics = all of the group's, and an error of the whole, which then lists no topics. v5 leader epoch. v7
//! require_stable (KIP-447): UNSTABLE_OFFSET_COMMIT where an open transaction has committed another offset; the group's
//! lag is then that to the last stable offset. v8 several groups at once (KIP-709). v9 member epochs (KIP-848), which a
//! classic group ignores. v10 topic ids: UNKNOWN_TOPIC_ID, after the topics that are known, as Kafka answers. No commit:
//! offset -1, no error. An offset committed under another id of the topic is ignored. Error: NOT_COORDINATOR.

use std::collections::BTreeMap;

use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{GroupId, OffsetFetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use ottla_env::mutants::{self, Bug};
use ottla_protocol::error::ErrorCode;
use ottla_protocol::messages::{OffsetFetchRequest, OffsetFetchRequestTopics};
use uuid::Uuid;

use super::support::text;
use crate::coordinator::group::GroupError;
use crate::handlers::context::Context;
use crate::metadata::MetadataImage;
use crate::partition::Isolation;
use crate::replicated::group::records::CommittedOffset;
use crate::replicated::group::store::{GroupStore, Offsets};

pub(super) async fn handle(ctx: &Context, version: i16, request: OffsetFetchRequest) -> OffsetFetchResponse {
    if version >= 8 {
        let asked = request.groups.into_iter().map(|asked| (asked.group_id, asked.topics)).collect();
        return OffsetFetchResponse::default().with_groups(fetch(ctx, version, asked, request.require_stable).await);
    }
    let topics = request.topics.map(|topics| {
        let same = topics.into_iter().map(|topic| OffsetFetchRequestTopics {
            name: topic.name,
            partition_indexes: topic.partition_indexes,
            ..OffsetFetchRequestTopics::default()
        });
        same.collect()
    });
    let groups = fetch(ctx, version, vec![(request.group_id, topics)], request.require_stable).await;
    single(version, groups.into_iter().next().unwrap_or_default())
}

/// What a group has committed.
#[derive(Clone, Copy)]
struct Committed<'a> {
    /// What is visible; none if there is no such group.
    offsets: Option<&'a Offsets>,
    /// Whether an open transaction has committed an offset of a partition, and the client asks for stable ones.
    is_unstable: &'a dyn Fn(&str, i32) -> bool,
}

impl Committed<'_> {
    fn answer(&self, topic: &str, index: i32, offset: Option<&CommittedOffset>) -> OffsetFetchResponsePartitions {
        if (self.is_unstable)(topic, index) {
            return committed(index, None).with_error_code(ErrorCode::UnstableOffsetCommit.code());
        }
        committed(index, offset)
    }
}

/// A group, and the requested topics; `None` for all.
type Asked = (GroupId, Option<Vec<OffsetFetchRequestTopics>>);

async fn fetch(ctx: &Context, version: i16, asked: Vec<Asked>, stable: bool) -> Vec<OffsetFetchResponseGroup> {
    let image = ctx.metadata.image();
    let read = |place: usize, store: &GroupStore| {
        let Some((group, topics)) = asked.get(place) else { return Vec::new() };
        let committed = Committed {
            offsets: store.group(group).map(|stored| &stored.offsets),
            is_unstable: &|topic, index| stable && store.is_unstable(group, topic, index),
        };
        match topics {
            None => all_topics(version, &image, committed),
            Some(topics) => {
                let answers = topics.iter().map(|topic| one_topic(version, &image, committed, topic)).collect();
                if version >= 10 { unknown_last(answers) } else { answers }
            }
        }
    };
    let names: Vec<&str> = asked.iter().map(|(group, _)| group.as_str()).collect();
    let outcomes = ctx.groups.fetch(&names, read).await;
    let isolation = if stable { Isolation::ReadCommitted } else { Isolation::ReadUncommitted };
    for ((group, topics), outcome) in asked.iter().zip(&outcomes) {
        if topics.is_some() && outcome.is_ok() {
            ctx.lags.fetched(group, &ctx.connection.client_id, isolation);
        }
    }
    asked.iter().zip(outcomes).map(|(asked, outcome)| answered(version, asked, outcome)).collect()
}

fn answered(
    version: i16,
    (group_id, topics): &Asked,
    outcome: Result<Vec<OffsetFetchResponseTopics>, GroupError>,
) -> OffsetFetchResponseGroup {
    let answer = OffsetFetchResponseGroup::default().with_group_id(group_id.clone());
    match outcome {
        Ok(topics) => answer.with_topics(topics),
        // v1 has no error of the whole.
        Err(error) if version < 2 => {
            let topics = topics.iter().flatten().map(|topic| refused_topic(version, topic, error));
            answer.with_topics(topics.collect())
        }
        Err(error) => answer.with_error_code(error.code()),
    }
}

/// The topics that are known, then those that are not, each in the order in which they were asked for.
fn unknown_last(topics: Vec<OffsetFetchResponseTopics>) -> Vec<OffsetFetchResponseTopics> {
    let unknown = ErrorCode::UnknownTopicId.code();
    let is_known = |topic: &OffsetFetchResponseTopics| topic.partitions.iter().all(|one| one.error_code != unknown);
    let (mut known, unknown): (Vec<_>, Vec<_>) = topics.into_iter().partition(is_known);
    known.extend(unknown);
    known
}

fn all_topics(version: i16, image: &MetadataImage, found: Committed<'_>) -> Vec<OffsetFetchResponseTopics> {
    let with_offsets = |(name, partitions): (&std::sync::Arc<str>, &BTreeMap<i32, CommittedOffset>)| {
        let id = image.topic(name).map_or(Uuid::nil(), |topic| topic.id);
        let current = partitions.iter().filter(|(_, offset)| counts(offset, id));
        let answers: Vec<_> = current.map(|(index, offset)| found.answer(name, *index, Some(offset))).collect();
        // A topic without an id cannot be named in v10.
        let sayable = !answers.is_empty() && (version < 10 || !id.is_nil());
        sayable.then(|| named(version, TopicName(text(name)), id).with_partitions(answers))
    };
    found.offsets.into_iter().flatten().filter_map(with_offsets).collect()
}

fn one_topic(
    version: i16,
    image: &MetadataImage,
    found: Committed<'_>,
    asked: &OffsetFetchRequestTopics,
) -> OffsetFetchResponseTopics {
    let known = if version >= 10 { image.topic_by_id(&asked.topic_id) } else { image.topic(&asked.name) };
    let answer = named(version, asked.name.clone(), asked.topic_id);
    if known.is_none() && version >= 10 {
        let unknown = |index: &i32| committed(*index, None).with_error_code(ErrorCode::UnknownTopicId.code());
        return answer.with_partitions(asked.partition_indexes.iter().map(unknown).collect());
    }
    let id = known.map_or(Uuid::nil(), |topic| topic.id);
    let name: &str = known.map_or(&asked.name, |topic| &topic.name);
    let partitions = found.offsets.and_then(|offsets| offsets.get(name));
    let current = |index: i32| partitions.and_then(|p| p.get(&index)).filter(|offset| counts(offset, id));
    let one = |index: &i32| found.answer(name, *index, current(*index));
    answer.with_partitions(asked.partition_indexes.iter().map(one).collect())
}

/// A topic that was deleted and created again starts without offsets.
fn counts(offset: &CommittedOffset, topic_id: Uuid) -> bool {
    offset.topic_id.is_nil() || topic_id.is_nil() || offset.topic_id == topic_id
}

fn named(version: i16, name: TopicName, id: Uuid) -> OffsetFetchResponseTopics {
    let topic = OffsetFetchResponseTopics::default();
    if version >= 10 { topic.with_topic_id(id) } else { topic.with_name(name) }
}

fn committed(index: i32, offset: Option<&CommittedOffset>) -> OffsetFetchResponsePartitions {
    let answer = OffsetFetchResponsePartitions::default().with_partition_index(index);
    let unknown = if mutants::is_on(Bug::UnknownOffsetAsZero) { 0 } else { -1 };
    match offset {
        None => answer
            .with_committed_offset(unknown)
            .with_committed_leader_epoch(-1)
            .with_metadata(Some(StrBytes::default())),
        Some(offset) => answer
            .with_committed_offset(offset.offset)
            .with_committed_leader_epoch(offset.leader_epoch)
            .with_metadata(Some(text(&offset.metadata))),
    }
}

/// What is answered where the whole has no error of its own.
fn refused_topic(version: i16, asked: &OffsetFetchRequestTopics, error: GroupError) -> OffsetFetchResponseTopics {
    let one = |index: &i32| committed(*index, None).with_error_code(error.code());
    named(version, asked.name.clone(), asked.topic_id)
        .with_partitions(asked.partition_indexes.iter().map(one).collect())
}

/// The response as it was before v8.
fn single(version: i16, group: OffsetFetchResponseGroup) -> OffsetFetchResponse {
    let partition = |p: OffsetFetchResponsePartitions| {
        let answer = OffsetFetchResponsePartition::default()
            .with_partition_index(p.partition_index)
            .with_committed_offset(p.committed_offset)
            .with_metadata(p.metadata)
            .with_error_code(p.error_code);
        answer.with_committed_leader_epoch(if version >= 5 { p.committed_leader_epoch } else { -1 })
    };
    let topic = |t: OffsetFetchResponseTopics| {
        OffsetFetchResponseTopic::default()
            .with_name(t.name)
            .with_partitions(t.partitions.into_iter().map(partition).collect())
    };
    let answer = OffsetFetchResponse::default().with_topics(group.topics.into_iter().map(topic).collect());
    if version >= 2 { answer.with_error_code(group.error_code) } else { answer }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(topic: &str) -> Asked {
        let topic = OffsetFetchRequestTopics {
            name: TopicName(text(topic)),
            partition_indexes: vec![0, 1],
            ..OffsetFetchRequestTopics::default()
        };
        (GroupId(text("g")), Some(vec![topic]))
    }

    #[test]
    fn an_error_of_the_whole_lists_no_topics_and_v1_tells_it_of_each_partition() {
        let refused = |version| answered(version, &asked("t"), Err(GroupError::NotCoordinator));
        let error = GroupError::NotCoordinator.code();
        let old = refused(1);
        assert_eq!(old.error_code, 0);
        let codes: Vec<_> = old.topics[0].partitions.iter().map(|one| (one.partition_index, one.error_code)).collect();
        assert_eq!(codes, [(0, error), (1, error)]);
        for version in [2, 8, 10] {
            let whole = refused(version);
            assert_eq!((whole.error_code, whole.topics.len()), (error, 0), "v{version}");
        }
    }

    #[test]
    fn topics_that_are_known_come_first() {
        let topic = |index, code| {
            let one = committed(index, None).with_error_code(code);
            OffsetFetchResponseTopics::default().with_partitions(vec![one])
        };
        let unknown = ErrorCode::UnknownTopicId.code();
        let sorted = unknown_last(vec![topic(0, unknown), topic(1, 0), topic(2, unknown), topic(3, 0)]);
        let order: Vec<_> = sorted.iter().map(|topic| topic.partitions[0].partition_index).collect();
        assert_eq!(order, [1, 3, 0, 2]);
    }
}
