//! EndTxn (key 26, v0-v5): commits or aborts a transaction (KIP-98).
//!
//! Answered once that is decided; markers follow. v2+ PRODUCER_FENCED, before that INVALID_PRODUCER_EPOCH. v5 (KIP-890): the epoch
//! grows with each transaction, and the response has the producer of the next one.

use kafka_protocol::messages::{EndTxnRequest, EndTxnResponse, ProducerId};
use ottla_protocol::error::ErrorCode;
use ottla_protocol::ids;

use super::support::transaction_error::{KnownFrom, require_transactions};
use crate::coordinator::transaction::Producer;
use crate::handlers::context::Context;

const KNOWN_FROM: KnownFrom = KnownFrom { fenced: 2, abortable: 4 };
const BUMPS_FROM: i16 = 5;

pub(super) async fn handle(ctx: &Context, version: i16, request: &EndTxnRequest) -> EndTxnResponse {
    let none = EndTxnResponse::default().with_producer_id(ProducerId(-1)).with_producer_epoch(-1);
    match end(ctx, version, request).await {
        Ok(next) if version >= BUMPS_FROM => {
            none.with_producer_id(ProducerId(next.id.0)).with_producer_epoch(next.epoch)
        }
        Ok(_) => none,
        Err(error) => none.with_error_code(error.code()),
    }
}

async fn end(ctx: &Context, version: i16, request: &EndTxnRequest) -> Result<Producer, ErrorCode> {
    require_transactions(ctx).await?;
    let producer = Producer { id: ids::ProducerId(request.producer_id.0), epoch: request.producer_epoch };
    let bumps = version >= BUMPS_FROM;
    let ended = ctx.transactions.end(&request.transactional_id, producer, request.committed, bumps).await;
    ended.map_err(|error| KNOWN_FROM.code(version, error))
}
