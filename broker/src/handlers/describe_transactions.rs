//! DescribeTransactions (key 65, v0): transactional ids as their coordinator has them (KIP-664).
//!
//! Errors: NOT_COORDINATOR, TRANSACTIONAL_ID_NOT_FOUND.

use kafka_protocol::messages::describe_transactions_response::{TopicData, TransactionState};
use kafka_protocol::messages::{
    DescribeTransactionsRequest, DescribeTransactionsResponse, ProducerId, TopicName, TransactionalId,
};
use kafka_protocol::protocol::StrBytes;
use ottla_protocol::error::ErrorCode;

use super::support::text;
use crate::coordinator::transaction::{Described, TransactionError};
use crate::handlers::context::Context;

pub(super) async fn handle(ctx: &Context, request: DescribeTransactionsRequest) -> DescribeTransactionsResponse {
    let mut states = Vec::with_capacity(request.transactional_ids.len());
    for id in request.transactional_ids {
        let found = ctx.transactions.describe(&id).await;
        states.push(state(id, found));
    }
    DescribeTransactionsResponse::default().with_transaction_states(states)
}

fn state(id: TransactionalId, found: Result<Option<Described>, TransactionError>) -> TransactionState {
    let answer = TransactionState::default().with_transactional_id(id);
    match found {
        Ok(Some(value)) => {
            let topic = |(name, indexes): (&std::sync::Arc<str>, &std::collections::BTreeSet<i32>)| {
                TopicData::default()
                    .with_topic(TopicName(text(name)))
                    .with_partitions(indexes.iter().copied().collect())
            };
            answer
                .with_transaction_state(StrBytes::from_static_str(value.status.name()))
                .with_transaction_timeout_ms(value.timeout_ms)
                .with_transaction_start_time_ms(value.started_ms)
                .with_producer_id(ProducerId(value.producer_id.0))
                .with_producer_epoch(value.epoch)
                .with_topics(value.partitions.iter().map(topic).collect())
        }
        Ok(None) => answer.with_error_code(ErrorCode::TransactionalIdNotFound.code()),
        Err(error) => answer.with_error_code(error.code().code()),
    }
}
