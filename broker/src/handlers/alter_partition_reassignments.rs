//! AlterPartitionReassignments (key 45, v0-v1): moves partitions to other replicas (KIP-455).
//!
//! What moves is a shard: a part of one is split off first, one shard for each list of replicas. The shard's leader then adds,
//! catches up and removes replicas, one safe step at a time.
//! - An unknown node or one named twice, a partition with two lists, a part of a shard that is being moved or, below the feature
//!   level of splits, any part: INVALID_REPLICA_ASSIGNMENT.
//! - No list: cancels the reassignment in progress of a whole shard, else NO_REASSIGNMENT_IN_PROGRESS.
//! - v1: the request may forbid a change of the replication factor.

use std::time::Duration;

use kafka_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use kafka_protocol::messages::{AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse};
use ottla_protocol::ids::NodeId;

use super::support::text;
use crate::handlers::context::Context;
use crate::metadata::{MetadataError, Reassignment};

pub(super) async fn handle(
    ctx: &Context,
    version: i16,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let asked = request.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|partition| Reassignment {
            topic: topic.name.to_string(),
            index: partition.partition_index,
            nodes: partition.replicas.as_ref().map(|nodes| nodes.iter().map(|node| NodeId(node.0)).collect()),
        })
    });
    let wait = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0).max(1));
    let may_change_factor = request.allow_replication_factor_change;
    let mut outcomes = ctx.metadata.reassign(asked.collect(), may_change_factor, wait).await.into_iter();
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let outcome = outcomes.next().unwrap_or(Err(MetadataError::TimedOut));
            answer(partition.partition_index, outcome)
        });
        ReassignableTopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
    });
    let response = AlterPartitionReassignmentsResponse::default().with_error_message(None);
    let response = response.with_responses(topics.collect());
    if version >= 1 { response.with_allow_replication_factor_change(may_change_factor) } else { response }
}

fn answer(index: i32, outcome: Result<(), MetadataError>) -> ReassignablePartitionResponse {
    let answer = ReassignablePartitionResponse::default().with_partition_index(index).with_error_message(None);
    match outcome {
        Ok(()) => answer,
        Err(error) => answer.with_error_code(error.code().code()).with_error_message(Some(text(&error.to_string()))),
    }
}
