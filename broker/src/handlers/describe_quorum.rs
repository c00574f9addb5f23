//! DescribeQuorum (key 55, v0-v2): the metadata group as partition 0 of `__cluster_metadata` (KIP-595).
//!
//! v1: when each member last answered and when it was last caught up, -1 if unknown (KIP-836). v2: directory ids,
//! messages, and the nodes' peer addresses (KIP-853). Any node forwards the request to the group's leader: only the
//! leader has the progress of the others. Any other topic or partition: UNKNOWN_TOPIC_OR_PARTITION for each. No leader:
//! NOT_LEADER_OR_FOLLOWER, which clients retry.

use std::collections::BTreeSet;

use kafka_protocol::messages::describe_quorum_request::{PartitionData as AskedPartition, TopicData as AskedTopic};
use kafka_protocol::messages::describe_quorum_response::{Listener, Node, PartitionData, ReplicaState, TopicData};
use kafka_protocol::messages::{BrokerId, DescribeQuorumRequest, DescribeQuorumResponse, TopicName};
use ottla_protocol::error::ErrorCode;
use ottla_protocol::ids::NodeId;

use super::support::text;
use crate::handlers::context::Context;
use crate::metadata::{MetadataError, MetadataImage, MetadataQuorum, QuorumMember};

/// The name of the peer listener: the Java client accepts capital letters only.
const CONTROLLER: &str = "CONTROLLER";
const METADATA_TOPIC: &str = "__cluster_metadata";

pub(super) async fn handle(ctx: &Context, version: i16, request: &DescribeQuorumRequest) -> DescribeQuorumResponse {
    if !is_metadata(&request.topics) {
        return unknown(version, &request.topics);
    }
    let described = ctx.metadata.describe_quorum().await;
    let image = ctx.metadata.image();
    let response = DescribeQuorumResponse::default();
    let (partition, nodes) = match described {
        Ok(quorum) => (partition(version, &quorum), nodes(&image, &quorum)),
        Err(error) => (failed(version, 0, code_of(&error), &error.to_string()), Vec::new()),
    };
    let name = TopicName(text(METADATA_TOPIC));
    let topic = TopicData::default().with_topic_name(name).with_partitions(vec![partition]);
    let response = response.with_topics(vec![topic]);
    if version >= 2 { response.with_nodes(nodes).with_error_message(None) } else { response }
}

/// True if the request names exactly the metadata partition.
fn is_metadata(topics: &[AskedTopic]) -> bool {
    match topics {
        [topic] => {
            let first = matches!(topic.partitions.as_slice(), [AskedPartition { partition_index: 0, .. }]);
            topic.topic_name.as_str() == METADATA_TOPIC && first
        }
        _ => false,
    }
}

fn unknown(version: i16, topics: &[AskedTopic]) -> DescribeQuorumResponse {
    let error = ErrorCode::UnknownTopicOrPartition;
    let one = |asked: &AskedPartition| failed(version, asked.partition_index, error, error.message());
    let topics = topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(one).collect();
        TopicData::default().with_topic_name(topic.topic_name.clone()).with_partitions(partitions)
    });
    DescribeQuorumResponse::default().with_topics(topics.collect()).with_error_message(None)
}

fn code_of(error: &MetadataError) -> ErrorCode {
    match error {
        MetadataError::NotController { .. } => ErrorCode::NotLeaderOrFollower,
        error => error.code(),
    }
}

fn failed(version: i16, index: i32, error: ErrorCode, message: &str) -> PartitionData {
    let answer = PartitionData::default().with_partition_index(index).with_error_code(error.code());
    let answer = answer.with_leader_id(BrokerId(-1)).with_leader_epoch(-1).with_high_watermark(-1);
    answer.with_error_message((version >= 2).then(|| text(message)))
}

fn partition(version: i16, quorum: &MetadataQuorum) -> PartitionData {
    let members = |members: &[QuorumMember]| members.iter().map(|member| state(version, member)).collect();
    PartitionData::default()
        .with_error_message(None)
        .with_leader_id(BrokerId(quorum.leader.0))
        .with_leader_epoch(i32::try_from(quorum.term).unwrap_or(i32::MAX))
        .with_high_watermark(quorum.high_watermark)
        .with_current_voters(members(&quorum.voters))
        .with_observers(members(&quorum.observers))
}

fn state(version: i16, member: &QuorumMember) -> ReplicaState {
    let state = ReplicaState::default().with_replica_id(BrokerId(member.node.0)).with_log_end_offset(member.log_end);
    let state = if version >= 2 { state.with_replica_directory_id(member.directory) } else { state };
    match version {
        0 => state,
        _ => state
            .with_last_fetch_timestamp(member.last_fetch_ms)
            .with_last_caught_up_timestamp(member.last_caught_up_ms),
    }
}

/// The members' nodes with their peer addresses.
fn nodes(image: &MetadataImage, quorum: &MetadataQuorum) -> Vec<Node> {
    let members: BTreeSet<NodeId> = quorum.voters.iter().chain(&quorum.observers).map(|member| member.node).collect();
    members
        .into_iter()
        .map(|node| {
            let endpoint = image.nodes.get(&node).and_then(|record| record.cluster_endpoint());
            let listener = endpoint.map(|place| {
                Listener::default().with_name(text(CONTROLLER)).with_host(text(&place.host)).with_port(place.port)
            });
            Node::default().with_node_id(BrokerId(node.0)).with_listeners(listener.into_iter().collect())
        })
        .collect()
}
