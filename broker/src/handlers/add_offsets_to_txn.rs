//! AddOffsetsToTxn (key 25, v0-v4): the partition of `__consumer_offsets` that keeps a group belongs to a transaction (KIP-98).
//!
//! v2+ PRODUCER_FENCED, before that INVALID_PRODUCER_EPOCH. Clients of Produce 12 do not send it: TxnOffsetCommit 5 does it.

use std::collections::BTreeSet;
use std::sync::Arc;

use kafka_protocol::messages::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};
use ottla_protocol::error::ErrorCode;
use ottla_protocol::ids::ProducerId;

use super::support::transaction_error::{KnownFrom, require_transactions};
use crate::coordinator::group::OFFSETS_TOPIC;
use crate::coordinator::transaction::{Partitions, Producer};
use crate::handlers::context::Context;

const KNOWN_FROM: KnownFrom = KnownFrom { fenced: 2, abortable: 4 };
/// `transaction.version` of clients that add partitions by requests of their own.
const ADDED_BY: i16 = 0;

pub(super) async fn handle(ctx: &Context, version: i16, request: &AddOffsetsToTxnRequest) -> AddOffsetsToTxnResponse {
    let error = add(ctx, version, request).await.err().unwrap_or(ErrorCode::None);
    AddOffsetsToTxnResponse::default().with_error_code(error.code())
}

async fn add(ctx: &Context, version: i16, request: &AddOffsetsToTxnRequest) -> Result<(), ErrorCode> {
    require_transactions(ctx).await?;
    if request.group_id.is_empty() {
        return Err(ErrorCode::InvalidGroupId);
    }
    ctx.groups.ensure_offsets_topic().await.map_err(|_| ErrorCode::CoordinatorNotAvailable)?;
    let index = ctx.groups.coordinator_partition(&request.group_id);
    let added = Partitions::from([(Arc::from(OFFSETS_TOPIC), BTreeSet::from([index]))]);
    let producer = Producer { id: ProducerId(request.producer_id.0), epoch: request.producer_epoch };
    let added = ctx.transactions.add(&request.transactional_id, producer, added, ADDED_BY).await;
    added.map_err(|error| KNOWN_FROM.code(version, error))
}
