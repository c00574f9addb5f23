//! ListTransactions (key 66, v0-v2): the transactional ids that this node coordinates (KIP-664).
//!
//! Filters by state (unknown ones are named in the answer) and by producer id; v1+ by how long a transaction has been open
//! (KIP-994); v2+ by a pattern of the id (KIP-1152), INVALID_REGULAR_EXPRESSION if it is none.

use std::sync::Arc;

use kafka_protocol::messages::list_transactions_response::TransactionState;
use kafka_protocol::messages::{ListTransactionsRequest, ListTransactionsResponse, ProducerId, TransactionalId};
use kafka_protocol::protocol::StrBytes;
use ottla_env::rt;
use ottla_protocol::error::ErrorCode;
use regex::Regex;

use super::support::text;
use crate::coordinator::transaction::Described;
use crate::handlers::context::Context;
use crate::replicated::transaction::Status;

/// The states that Kafka knows beside those that are written: none has an id here.
const OTHER_STATES: [&str; 2] = ["Dead", "PrepareEpochFence"];

/// A client's pattern may not take more memory than this when it is compiled.
const PATTERN_BYTES_MAX: usize = 1 << 20;

pub(super) fn handle(ctx: &Context, version: i16, request: &ListTransactionsRequest) -> ListTransactionsResponse {
    let answer = ListTransactionsResponse::default();
    let pattern = request.transactional_id_pattern.as_ref().filter(|pattern| version >= 2 && !pattern.is_empty());
    let pattern = match pattern.map(|pattern| whole(pattern)).transpose() {
        Ok(pattern) => pattern,
        Err(_) => return answer.with_error_code(ErrorCode::InvalidRegularExpression.code()),
    };
    let (states, unknown) = states(&request.state_filters);
    let now_ms = rt::wall_clock_ms();
    let is_wanted = |(id, value): &(Arc<str>, Described)| {
        let in_state = request.state_filters.is_empty() || states.contains(&value.status);
        let of_producer = request.producer_id_filters.is_empty()
            || request.producer_id_filters.iter().any(|producer| producer.0 == value.producer_id.0);
        let is_long = version < 1
            || request.duration_filter < 0
            || value.started_ms >= 0 && now_ms.saturating_sub(value.started_ms) > request.duration_filter;
        in_state && of_producer && is_long && pattern.as_ref().is_none_or(|pattern| pattern.is_match(id))
    };
    let state = |(id, value): (Arc<str>, Described)| {
        TransactionState::default()
            .with_transactional_id(TransactionalId(text(&id)))
            .with_producer_id(ProducerId(value.producer_id.0))
            .with_transaction_state(StrBytes::from_static_str(value.status.name()))
    };
    let listed = ctx.transactions.list().into_iter().filter(is_wanted).map(state).collect();
    answer.with_unknown_state_filters(unknown).with_transaction_states(listed)
}

/// A pattern that all of an id must match, as in Kafka.
fn whole(pattern: &str) -> Result<Regex, regex::Error> {
    regex::RegexBuilder::new(&format!("^(?:{pattern})$")).size_limit(PATTERN_BYTES_MAX).build()
}

/// The states of a filter, and what names none.
fn states(filters: &[StrBytes]) -> (Vec<Status>, Vec<StrBytes>) {
    let named = |filter: &StrBytes| Status::ALL.into_iter().find(|status| status.name() == filter.as_str());
    let unknown = |filter: &&StrBytes| named(filter).is_none() && !OTHER_STATES.contains(&filter.as_str());
    (filters.iter().filter_map(named).collect(), filters.iter().filter(unknown).cloned().collect())
}
