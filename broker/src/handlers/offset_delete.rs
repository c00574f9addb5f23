//! OffsetDelete (key 47, v0): removes a group's offsets of topics that it is not subscribed to (KIP-496).
//!
//! GROUP_SUBSCRIBED_TO_TOPIC for subscriptions of a live consumer group; NON_EMPTY_GROUP for live groups of other
//! types, whose subscriptions the broker cannot see. Other errors: INVALID_GROUP_ID, GROUP_ID_NOT_FOUND,
//! NOT_COORDINATOR, UNKNOWN_TOPIC_OR_PARTITION.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use kafka_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};
use ottla_protocol::error::ErrorCode;

use crate::handlers::context::Context;

pub(super) async fn handle(ctx: &Context, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let image = ctx.metadata.image();
    let known = |name: &str, index: i32| image.has_partition(name, index);
    let mut topics: Vec<(Arc<str>, Vec<i32>)> = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let indexes = topic.partitions.iter().map(|partition| partition.partition_index);
        topics.push((Arc::from(topic.name.as_str()), indexes.filter(|index| known(&topic.name, *index)).collect()));
    }
    let response = OffsetDeleteResponse::default();
    let outcomes: BTreeMap<Arc<str>, i16> = match ctx.groups.delete_offsets(&request.group_id, topics).await {
        Ok(outcomes) => {
            let code =
                |outcome: Result<(), crate::coordinator::group::GroupError>| outcome.err().map_or(0, |e| e.code());
            outcomes.into_iter().map(|(topic, outcome)| (topic, code(outcome))).collect()
        }
        Err(error) => return response.with_error_code(error.code()),
    };
    let answers = request.topics.into_iter().map(|topic| {
        let code = outcomes.get(topic.name.as_str()).copied().unwrap_or_default();
        let partitions = topic.partitions.iter().map(|partition| {
            let index = partition.partition_index;
            let unknown = !known(&topic.name, index);
            let code = if unknown { ErrorCode::UnknownTopicOrPartition.code() } else { code };
            OffsetDeleteResponsePartition::default().with_partition_index(index).with_error_code(code)
        });
        let partitions = partitions.collect();
        OffsetDeleteResponseTopic::default().with_name(topic.name).with_partitions(partitions)
    });
    let answers = answers.collect();
    response.with_topics(answers)
}
