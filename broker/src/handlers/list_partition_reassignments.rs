//! ListPartitionReassignments (key 46, v0): partitions whose shard is being reassigned (KIP-455).
//!
//! `replicas` are old and new ones; adding: in the target list and not known to be caught up; removing: not in the
//! target list. A replica that is rebuilt on its own node is neither. Unknown topics and partitions without a
//! reassignment are left out.

use kafka_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use kafka_protocol::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use kafka_protocol::messages::{
    BrokerId, ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse, TopicName,
};
use ottla_protocol::ids::NodeId;

use super::support::text;
use crate::handlers::context::Context;
use crate::metadata::{MetadataImage, Topic};

pub(super) async fn handle(
    ctx: &Context,
    request: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    let response = ListPartitionReassignmentsResponse::default().with_error_message(None);
    if let Err(error) = ctx.metadata.read_index().await {
        return response.with_error_code(error.code().code()).with_error_message(Some(text(&error.to_string())));
    }
    let image = ctx.metadata.image();
    let topics: Vec<OngoingTopicReassignment> = match &request.topics {
        None => image.topics.values().filter_map(|topic| moved(&image, topic, 0..topic.partition_count())).collect(),
        Some(named) => {
            let one = |asked: &ListPartitionReassignmentsTopics| {
                moved(&image, image.topic(&asked.name)?, asked.partition_indexes.iter().copied())
            };
            named.iter().filter_map(one).collect()
        }
    };
    response.with_topics(topics)
}

fn moved(
    image: &MetadataImage,
    topic: &Topic,
    partitions: impl Iterator<Item = i32>,
) -> Option<OngoingTopicReassignment> {
    let ids = |nodes: Vec<NodeId>| nodes.into_iter().map(|node| BrokerId(node.0)).collect::<Vec<_>>();
    let ongoing = |index: i32| {
        let record = image.shard(topic.route(index)?.shard)?;
        let (adding, removing) = (record.adding_nodes(), record.removing_nodes());
        (!adding.is_empty() || !removing.is_empty()).then(|| {
            OngoingPartitionReassignment::default()
                .with_partition_index(index)
                .with_replicas(ids(record.nodes()))
                .with_adding_replicas(ids(adding))
                .with_removing_replicas(ids(removing))
        })
    };
    let partitions: Vec<_> = partitions.filter_map(ongoing).collect();
    let name = TopicName(text(&topic.name));
    (!partitions.is_empty()).then(|| OngoingTopicReassignment::default().with_name(name).with_partitions(partitions))
}
