//! UnregisterBroker (key 64, v0): removes a node from the cluster (KIP-500).
//!
//! Kafka removes the record of a dead node at once and leaves its replicas where they were. Here the node's replicas
//! are moved to other nodes first, also those of a dead node, and its record is removed when it holds no replica: the
//! request is answered when that is decided. A live node exits when it holds no replica; started again it joins as a
//! new one. BROKER_ID_NOT_REGISTERED; POLICY_VIOLATION where the other nodes are too few for its replicas.

use kafka_protocol::messages::{UnregisterBrokerRequest, UnregisterBrokerResponse};
use ottla_protocol::ids::NodeId;

use super::support::text;
use crate::handlers::context::Context;

pub(super) async fn handle(ctx: &Context, request: UnregisterBrokerRequest) -> UnregisterBrokerResponse {
    let answer = UnregisterBrokerResponse::default().with_error_message(None);
    match ctx.metadata.unregister(NodeId(request.broker_id.0)).await {
        Ok(()) => answer,
        Err(error) => answer.with_error_code(error.code().code()).with_error_message(Some(text(&error.to_string()))),
    }
}
