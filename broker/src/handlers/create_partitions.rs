//! CreatePartitions (key 37, v0-v3): adds partitions to existing topics; never removes any.
//!
//! INVALID_PARTITIONS when the number is no increase, POLICY_VIOLATION above the limits, INVALID_REPLICA_ASSIGNMENT for
//! a manual assignment that does not fit. A topic named twice in a request: INVALID_REQUEST. The answer waits for the leaders as
//! CreateTopics does.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};
use ottla_env::rt;
use ottla_protocol::ids::NodeId;

use super::support::text;
use crate::handlers::context::Context;
use crate::metadata::{MetadataError, NewPartitions};

pub(super) async fn handle(ctx: &Context, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for topic in &request.topics {
        *times.entry(topic.name.as_str()).or_default() += 1;
    }
    let once = |topic: &&CreatePartitionsTopic| times.get(topic.name.as_str()) == Some(&1);
    let asked: Vec<NewPartitions> = request.topics.iter().filter(once).map(new_partitions).collect();
    let names: Vec<String> = asked.iter().map(|topic| topic.topic.clone()).collect();
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0).max(1));
    let deadline = rt::now() + timeout;
    let added = ctx.metadata.create_partitions(asked, request.validate_only, timeout).await;
    if !request.validate_only {
        let extended = names.iter().zip(&added).filter(|(_, result)| result.is_ok());
        let extended: Vec<&str> = extended.map(|(name, _)| name.as_str()).collect();
        ctx.partitions.wait_for_first_leaders(&extended, Some(deadline)).await;
    }
    let mut added = added.into_iter();
    let results = request
        .topics
        .iter()
        .map(|topic| {
            let duplicate = || Err(MetadataError::InvalidRequest("Duplicate topic in request.".to_owned()));
            let result = if once(&topic) { added.next().unwrap_or_else(duplicate) } else { duplicate() };
            let answer = CreatePartitionsTopicResult::default().with_name(topic.name.clone()).with_error_message(None);
            match result {
                Ok(()) => answer,
                Err(error) => {
                    answer.with_error_code(error.code().code()).with_error_message(Some(text(&error.to_string())))
                }
            }
        })
        .collect();
    CreatePartitionsResponse::default().with_results(results)
}

fn new_partitions(topic: &CreatePartitionsTopic) -> NewPartitions {
    let nodes = |one: &kafka_protocol::messages::create_partitions_request::CreatePartitionsAssignment| {
        one.broker_ids.iter().map(|node| NodeId(node.0)).collect()
    };
    NewPartitions {
        topic: topic.name.to_string(),
        count: topic.count,
        assignments: topic.assignments.as_ref().map(|assignments| assignments.iter().map(nodes).collect()),
    }
}
