//! ElectLeaders (key 43, v0-v2): transfers leadership back to the preferred replica (KIP-460). A shard's leader leads
//! all its partitions: an election of one partition is an election of all partitions of its shard.
//!
//! v1: type of election, INVALID_REQUEST for an unknown one. No partitions named = all; of those only the ones that had
//! another leader are in the response.
//! - Preferred: ELECTION_NOT_NEEDED where the preferred replica leads; PREFERRED_LEADER_NOT_AVAILABLE where it does not
//!   answer or lacks records.
//! - Unclean: ELECTION_NOT_NEEDED where there is a leader, else ELIGIBLE_LEADERS_NOT_AVAILABLE: Raft never elects a
//!   replica that lacks acknowledged records.

use std::time::Duration;

use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse, TopicName};
use ottla_protocol::error::ErrorCode;

use super::support::text;
use crate::handlers::context::Context;
use crate::partition::{Elected, ElectionKind};

const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

pub(super) async fn handle(ctx: &Context, request: ElectLeadersRequest) -> ElectLeadersResponse {
    let kind = match request.election_type {
        PREFERRED => ElectionKind::Preferred,
        UNCLEAN => ElectionKind::Unclean,
        _ => return ElectLeadersResponse::default().with_error_code(ErrorCode::InvalidRequest.code()),
    };
    let named = request.topic_partitions.map(|topics| {
        let each =
            topics.iter().flat_map(|topic| topic.partitions.iter().map(|index| (topic.topic.to_string(), *index)));
        each.collect()
    });
    let wait = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0).max(1));
    let elected = ctx.partitions.elect(kind, named, wait).await;
    ElectLeadersResponse::default().with_replica_election_results(by_topic(elected))
}

fn by_topic(elected: Vec<Elected>) -> Vec<ReplicaElectionResult> {
    let mut topics: Vec<ReplicaElectionResult> = Vec::new();
    for (topic, index, outcome) in elected {
        let result = PartitionResult::default().with_partition_id(index).with_error_message(None);
        let result = match outcome {
            Ok(()) => result,
            Err(error) => {
                result.with_error_code(error.code().code()).with_error_message(Some(text(&error.to_string())))
            }
        };
        match topics.last_mut().filter(|last| last.topic.as_str() == topic) {
            Some(last) => last.partition_result.push(result),
            None => topics.push(
                ReplicaElectionResult::default()
                    .with_topic(TopicName(text(&topic)))
                    .with_partition_result(vec![result]),
            ),
        }
    }
    topics
}
