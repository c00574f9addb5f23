//! InitProducerId (key 22, v0-v5): allocates a producer id for an idempotent producer (KIP-98).
//!
//! As in Kafka, without a transactional id every request gets a new id with epoch 0, also one that names an old id
//! (v3+, KIP-360). A transactional id: INVALID_REQUEST if empty, else TRANSACTIONAL_ID_AUTHORIZATION_FAILED: this
//! release has no transactions, and every client treats that code as fatal.

use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};
use ottla_protocol::error::ErrorCode;

use crate::handlers::context::Context;

pub(super) async fn handle(ctx: &Context, request: &InitProducerIdRequest) -> InitProducerIdResponse {
    match &request.transactional_id {
        Some(id) if id.is_empty() => return failed(ErrorCode::InvalidRequest),
        Some(_) => return failed(ErrorCode::TransactionalIdAuthorizationFailed),
        None => {}
    }
    match ctx.metadata.allocate_producer_id().await {
        Ok(id) => InitProducerIdResponse::default().with_producer_id(ProducerId(id.0)).with_producer_epoch(0),
        Err(error) => {
            tracing::debug!("no producer id: {error}");
            failed(ErrorCode::CoordinatorLoadInProgress)
        }
    }
}

fn failed(error: ErrorCode) -> InitProducerIdResponse {
    InitProducerIdResponse::default()
        .with_error_code(error.code())
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1)
}
