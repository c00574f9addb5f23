//! OffsetForLeaderEpoch (key 23, v2-v4): the end offset of an epoch, so that a consumer detects diverging logs
//! (KIP-320).
//!
//! v3: replica id (consumers: -1). The response has the greatest epoch not above the requested one and its end offset;
//! -1/-1 if there is none. FENCED_LEADER_EPOCH and UNKNOWN_LEADER_EPOCH by the client's current epoch.

use futures_util::future::join_all;
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use ottla_protocol::ids::LeaderEpoch;

use crate::handlers::context::Context;
use crate::partition::{EpochEnd, PartitionError, TopicRef};

pub(super) async fn handle(ctx: &Context, request: OffsetForLeaderEpochRequest) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.into_iter().map(|topic| async move {
        let partitions = join_all(topic.partitions.iter().map(|asked| one(ctx, &topic.topic, asked))).await;
        OffsetForLeaderTopicResult::default().with_topic(topic.topic.clone()).with_partitions(partitions)
    });
    OffsetForLeaderEpochResponse::default().with_topics(join_all(topics).await)
}

async fn one(ctx: &Context, topic: &str, asked: &OffsetForLeaderPartition) -> EpochEndOffset {
    let answer = EpochEndOffset::default().with_partition(asked.partition);
    match find(ctx, topic, asked).await {
        Ok(Some(end)) => answer.with_leader_epoch(end.epoch.0).with_end_offset(end.end_offset.0),
        Ok(None) => answer.with_leader_epoch(-1).with_end_offset(-1),
        Err(error) => answer.with_error_code(error.code().code()).with_leader_epoch(-1).with_end_offset(-1),
    }
}

async fn find(
    ctx: &Context,
    topic: &str,
    asked: &OffsetForLeaderPartition,
) -> Result<Option<EpochEnd>, PartitionError> {
    let partition = ctx.partitions.find(TopicRef::Name(topic), asked.partition).await?;
    let current = (asked.current_leader_epoch >= 0).then_some(LeaderEpoch(asked.current_leader_epoch));
    partition.epoch_end(LeaderEpoch(asked.leader_epoch), current).await
}
