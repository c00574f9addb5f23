//! DescribeProducers (key 61, v0): the producers of a partition's producer state, as any replica has it (KIP-664).

use futures_util::future::join_all;
use kafka_protocol::messages::describe_producers_response::{PartitionResponse, ProducerState, TopicResponse};
use kafka_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse, ProducerId};

use super::support::text;
use crate::handlers::context::Context;
use crate::partition::{Access, ActiveProducer, PartitionError, TopicRef};

pub(super) async fn handle(ctx: &Context, request: DescribeProducersRequest) -> DescribeProducersResponse {
    let topics = request.topics.into_iter().map(|topic| async move {
        let partitions = join_all(topic.partition_indexes.iter().map(|index| one(ctx, &topic.name, *index))).await;
        TopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions)
    });
    DescribeProducersResponse::default().with_topics(join_all(topics).await)
}

async fn one(ctx: &Context, topic: &str, index: i32) -> PartitionResponse {
    let answer = PartitionResponse::default().with_partition_index(index);
    match producers(ctx, topic, index).await {
        Ok(producers) => answer.with_active_producers(producers.iter().map(described).collect()),
        Err(error) => answer.with_error_code(error.code().code()).with_error_message(Some(text(&error.to_string()))),
    }
}

async fn producers(ctx: &Context, topic: &str, index: i32) -> Result<Vec<ActiveProducer>, PartitionError> {
    ctx.partitions.find_for(TopicRef::Name(topic), index, Access::AnyReplica).await?.producers()
}

fn described(producer: &ActiveProducer) -> ProducerState {
    ProducerState::default()
        .with_producer_id(ProducerId(producer.producer_id.0))
        .with_producer_epoch(i32::from(producer.producer_epoch))
        .with_last_sequence(producer.last_sequence)
        .with_last_timestamp(producer.last_timestamp_ms)
        .with_coordinator_epoch(producer.coordinator_epoch)
        .with_current_txn_start_offset(producer.current_txn_start_offset)
}
