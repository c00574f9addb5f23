//! OffsetCommit (key 8, v2-v10): commits a group's offsets to `__consumer_offsets`.
//!
//! v2-v4 retention time (-1: the broker's). v6 leader epoch. v7 group.instance.id (KIP-345). v9 GROUP_ID_NOT_FOUND for
//! members of unknown groups, before ILLEGAL_GENERATION. v10 topic ids (KIP-848): UNKNOWN_TOPIC_ID. Without membership
//! (generation -1) any client may commit while the group has no members; the group id may be empty, as in Kafka. Errors
//! per partition: UNKNOWN_TOPIC_OR_PARTITION, OFFSET_METADATA_TOO_LARGE; for all other partitions: NOT_COORDINATOR,
//! UNKNOWN_MEMBER_ID, ILLEGAL_GENERATION, REBALANCE_IN_PROGRESS, FENCED_INSTANCE_ID.

use std::sync::Arc;

use kafka_protocol::messages::OffsetCommitResponse;
use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use ottla_protocol::error::ErrorCode;
use ottla_protocol::messages::{OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic};

use super::support::known_topics::known_topics;
use crate::coordinator::group::classic::MemberRef;
use crate::coordinator::group::{Commit, NewOffset};
use crate::handlers::context::Context;
use crate::metadata::Topic;

/// The retention time of v2-v4 clients that use the broker's setting.
const RETENTION_UNSET: i64 = -1;
const NAMES_TOPICS_BY_ID_FROM: i16 = 10;

pub(super) async fn handle(ctx: &Context, version: i16, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let retention_ms = Some(request.retention_time_ms).filter(|ms| version <= 4 && *ms != RETENTION_UNSET);
    let mut offsets = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    let asked: Vec<_> = request.topics.iter().map(|topic| (topic.name.as_str(), topic.topic_id)).collect();
    let known = known_topics(ctx, version >= NAMES_TOPICS_BY_ID_FROM, &asked).await;
    for (topic, known) in request.topics.into_iter().zip(known) {
        topics.push(begin(version, topic, known, &mut offsets));
    }
    let who = MemberRef {
        member_id: request.member_id.to_string(),
        instance_id: request.group_instance_id.map(|id| id.to_string()),
        generation: request.generation_id_or_member_epoch,
    };
    let commit = Commit { who, retention_ms, knows_group_not_found: version >= 9, transaction: None, offsets };
    let mut outcomes = ctx.groups.commit(&request.group_id, commit).await.into_iter();
    // Every partition that was not refused by validation takes the next outcome.
    for partition in topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
        if partition.error_code == ErrorCode::None.code() {
            partition.error_code = outcomes.next().and_then(Result::err).map_or(0, |error| error.code());
        }
    }
    OffsetCommitResponse::default().with_topics(topics)
}

fn begin(
    version: i16,
    topic: OffsetCommitRequestTopic,
    known: Result<Arc<Topic>, ErrorCode>,
    offsets: &mut Vec<NewOffset>,
) -> OffsetCommitResponseTopic {
    let mut partitions = Vec::with_capacity(topic.partitions.len());
    for asked in topic.partitions {
        let answer = OffsetCommitResponsePartition::default().with_partition_index(asked.partition_index);
        let error = match &known {
            Ok(known) if known.route(asked.partition_index).is_some() => {
                offsets.push(new_offset(known, asked));
                ErrorCode::None
            }
            Ok(_) => ErrorCode::UnknownTopicOrPartition,
            Err(error) => *error,
        };
        partitions.push(answer.with_error_code(error.code()));
    }
    let answer = OffsetCommitResponseTopic::default().with_partitions(partitions);
    if version >= NAMES_TOPICS_BY_ID_FROM { answer.with_topic_id(topic.topic_id) } else { answer.with_name(topic.name) }
}

fn new_offset(topic: &Topic, asked: OffsetCommitRequestPartition) -> NewOffset {
    NewOffset {
        topic: topic.name.clone(),
        topic_id: topic.id,
        partition: asked.partition_index,
        offset: asked.committed_offset,
        leader_epoch: asked.committed_leader_epoch,
        metadata: asked.committed_metadata.as_deref().unwrap_or_default().into(),
    }
}
