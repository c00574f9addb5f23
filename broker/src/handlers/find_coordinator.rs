//! FindCoordinator (key 10, v0-v6): the broker that coordinates a group or a transactional id.
//!
//! v1: key type and message. v4: several keys at once (KIP-699). The coordinator of a group is the leader of its
//! partition of `__consumer_offsets`, that of a transactional id the leader of its partition of `__transaction_state`;
//! both topics are created on first use; COORDINATOR_NOT_AVAILABLE until the partition has a leader. Share partitions (v6, KIP-932) and other key types: INVALID_REQUEST. Kafka
//! with share groups off answers so before v6; in v6 it answers COORDINATOR_NOT_AVAILABLE for ever, which a client
//! retries.

use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;
use ottla_protocol::error::ErrorCode;
use ottla_protocol::produce::NodeEndpoint;

use super::support::transaction_error::require_transactions;
use super::support::{endpoints, text};
use crate::coordinator::partition_for;
use crate::handlers::context::Context;
use crate::metadata::InternalTopic;
use crate::partition::{PartitionError, TopicRef};

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const SHARE: i8 = 2;

/// Why there is no coordinator.
struct Refused(ErrorCode, &'static str);

pub(super) async fn handle(ctx: &Context, version: i16, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    if version < 4 {
        let found = find(ctx, version, request.key_type, &request.key).await;
        return single(version, &found);
    }
    let mut coordinators = Vec::with_capacity(request.coordinator_keys.len());
    for key in &request.coordinator_keys {
        let found = find(ctx, version, request.key_type, key).await;
        coordinators.push(batched(key, &found));
    }
    FindCoordinatorResponse::default().with_coordinators(coordinators)
}

async fn find(ctx: &Context, version: i16, key_type: i8, key: &str) -> Result<NodeEndpoint, Refused> {
    let kind = match key_type {
        GROUP => InternalTopic::ConsumerOffsets,
        // v0 has no key type: it means groups.
        _ if version == 0 => InternalTopic::ConsumerOffsets,
        TRANSACTION => {
            let refused = |error| match error {
                ErrorCode::CoordinatorNotAvailable => Refused(error, "no leader of the metadata responds"),
                error => Refused(error, "transactions wait for the upgrade of the cluster to be finalized"),
            };
            require_transactions(ctx).await.map_err(refused)?;
            InternalTopic::TransactionState
        }
        SHARE => return Err(Refused(ErrorCode::InvalidRequest, "this release of Ottla has no share groups")),
        _ => return Err(Refused(ErrorCode::InvalidRequest, "unknown type of coordinator key")),
    };
    let unavailable = || Refused(ErrorCode::CoordinatorNotAvailable, "the coordinator is being created or elected");
    let topic = &ctx.metadata.ensure_internal(kind).await.map_err(|_| unavailable())?;
    let image = ctx.metadata.image();
    let index = partition_for(key, topic.partition_count());
    let leader = match ctx.partitions.leadership(topic, index).leader {
        Some(leader) => leader,
        // The topic was just created: a refused client retries only after a pause, so wait for its shard.
        None => {
            match ctx.partitions.find(TopicRef::Id(topic.id), index).await {
                // Another node has been elected: it is the coordinator.
                Ok(_) | Err(PartitionError::NotLeaderOrFollower) => {}
                Err(_) => return Err(unavailable()),
            }
            ctx.partitions.leadership(topic, index).leader.ok_or_else(unavailable)?
        }
    };
    endpoints::endpoint(ctx, &image, leader).ok_or_else(unavailable)
}

fn single(version: i16, found: &Result<NodeEndpoint, Refused>) -> FindCoordinatorResponse {
    let answer = FindCoordinatorResponse::default();
    match found {
        Ok(node) => answer.with_node_id(BrokerId(node.node.0)).with_host(node.host.clone()).with_port(node.port),
        Err(Refused(error, message)) => {
            let answer = answer.with_error_code(error.code()).with_node_id(BrokerId(-1)).with_port(-1);
            if version >= 1 { answer.with_error_message(Some(text(message))) } else { answer }
        }
    }
}

fn batched(key: &StrBytes, found: &Result<NodeEndpoint, Refused>) -> Coordinator {
    let answer = Coordinator::default().with_key(key.clone());
    match found {
        Ok(node) => answer.with_node_id(BrokerId(node.node.0)).with_host(node.host.clone()).with_port(node.port),
        Err(Refused(error, message)) => answer
            .with_node_id(BrokerId(-1))
            .with_port(-1)
            .with_error_code(error.code())
            .with_error_message(Some(text(message))),
    }
}
