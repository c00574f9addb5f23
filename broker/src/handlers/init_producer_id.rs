//! InitProducerId (key 22, v0-v5): a producer id for an idempotent producer (KIP-98), or the producer of a transactional id.
//!
//! As in Kafka, without a transactional id every request gets a new id with epoch 0, also one that names an old id
//! (v3+, KIP-360). With one: what the id had open is aborted first (CONCURRENT_TRANSACTIONS until then), and the epoch grows, so
//! that earlier clients are fenced; v3+ a client that goes on after an error names its producer and keeps it; v4+
//! PRODUCER_FENCED, before that INVALID_PRODUCER_EPOCH. INVALID_REQUEST: an empty id; INVALID_TRANSACTION_TIMEOUT: above
//! `transaction.max.timeout.ms`.

use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};
use ottla_protocol::error::ErrorCode;
use ottla_protocol::ids;

use super::support::transaction_error::{KnownFrom, require_transactions};
use crate::coordinator::transaction::{Init, TransactionError};
use crate::handlers::context::Context;

const KNOWN_FROM: KnownFrom = KnownFrom { fenced: 4, abortable: 5 };

pub(super) async fn handle(ctx: &Context, version: i16, request: &InitProducerIdRequest) -> InitProducerIdResponse {
    let outcome = match &request.transactional_id {
        Some(id) if id.is_empty() => Err(ErrorCode::InvalidRequest),
        Some(id) => transactional(ctx, version, id, request).await,
        None => idempotent(ctx).await,
    };
    match outcome {
        Ok((id, epoch)) => {
            InitProducerIdResponse::default().with_producer_id(ProducerId(id.0)).with_producer_epoch(epoch)
        }
        Err(error) => InitProducerIdResponse::default()
            .with_error_code(error.code())
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1),
    }
}

async fn idempotent(ctx: &Context) -> Result<(ids::ProducerId, i16), ErrorCode> {
    let allocated = ctx.metadata.allocate_producer_id().await;
    let allocated = allocated.inspect_err(|error| tracing::debug!("no producer id: {error}"));
    allocated.map(|id| (id, 0)).map_err(|_| ErrorCode::CoordinatorLoadInProgress)
}

async fn transactional(
    ctx: &Context,
    version: i16,
    id: &str,
    request: &InitProducerIdRequest,
) -> Result<(ids::ProducerId, i16), ErrorCode> {
    require_transactions(ctx).await?;
    let (known, epoch) = (request.producer_id.0, request.producer_epoch);
    if (known < 0) != (epoch < 0) {
        return Err(ErrorCode::InvalidRequest);
    }
    let expected = (known >= 0).then_some((ids::ProducerId(known), epoch));
    let asked = Init { timeout_ms: request.transaction_timeout_ms, expected };
    let outcome = ctx.transactions.init(id, asked).await;
    if outcome == Err(TransactionError::InvalidTransactionTimeout) {
        let (client, asked) = (&ctx.connection.client_id, request.transaction_timeout_ms);
        let max = ctx.config.transaction.timeout_ms_max;
        tracing::warn!(
            "client {client:?} asks for transaction.timeout.ms={asked}, and transaction.max.timeout.ms is {max} here"
        );
    }
    outcome.map(|producer| (producer.id, producer.epoch)).map_err(|error| KNOWN_FROM.code(version, error))
}
