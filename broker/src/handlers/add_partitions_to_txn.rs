//! AddPartitionsToTxn (key 24, v0-v5): partitions belong to a transaction from now on (KIP-98).
//!
//! v2+ PRODUCER_FENCED, before that INVALID_PRODUCER_EPOCH. v4+ (KIP-890): several transactions, and whether partitions belong to one
//! already; v5+ TRANSACTION_ABORTABLE where they do not, before that INVALID_TXN_STATE. If a partition does not exist,
//! none is added: UNKNOWN_TOPIC_OR_PARTITION, and OPERATION_NOT_ATTEMPTED for the others.

use kafka_protocol::messages::add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction};
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse};
use ottla_protocol::error::ErrorCode;
use ottla_protocol::ids::ProducerId;

use super::support::transaction_error::{KnownFrom, require_transactions};
use crate::coordinator::transaction::partitions::{NamedPartition, by_topic, named};
use crate::coordinator::transaction::{Producer, TransactionError};
use crate::handlers::context::Context;

const KNOWN_FROM: KnownFrom = KnownFrom { fenced: 2, abortable: 5 };
const SEVERAL_FROM: i16 = 4;

pub(super) async fn handle(
    ctx: &Context,
    version: i16,
    request: AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    if version < SEVERAL_FROM {
        let one = AddPartitionsToTxnTransaction::default()
            .with_transactional_id(request.v3_and_below_transactional_id)
            .with_producer_id(request.v3_and_below_producer_id)
            .with_producer_epoch(request.v3_and_below_producer_epoch)
            .with_topics(request.v3_and_below_topics);
        let results = results(&one.topics, &outcomes(ctx, version, &one).await);
        return AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(results);
    }
    let mut transactions = Vec::with_capacity(request.transactions.len());
    for one in &request.transactions {
        let results = results(&one.topics, &outcomes(ctx, version, one).await);
        let answer = AddPartitionsToTxnResult::default().with_transactional_id(one.transactional_id.clone());
        transactions.push(answer.with_topic_results(results));
    }
    AddPartitionsToTxnResponse::default().with_results_by_transaction(transactions)
}

/// For each of the partitions in order.
async fn outcomes(ctx: &Context, version: i16, asked: &AddPartitionsToTxnTransaction) -> Vec<ErrorCode> {
    let all = named(asked.topics.iter().map(|topic| (topic.name.as_str(), topic.partitions.as_slice())));
    if let Err(error) = require_transactions(ctx).await {
        return vec![error; all.len()];
    }
    let producer = Producer { id: ProducerId(asked.producer_id.0), epoch: asked.producer_epoch };
    let id = asked.transactional_id.as_str();
    let told = |outcome: Result<(), TransactionError>| match outcome {
        Ok(()) => ErrorCode::None,
        Err(error) => KNOWN_FROM.code(version, error),
    };
    if asked.verify_only {
        let verified = ctx.transactions.verify(id, producer, &all).await;
        let verified = verified.unwrap_or_else(|error| vec![Err(error); all.len()]);
        return verified.into_iter().map(told).collect();
    }
    if let Some(unknown) = unknown(ctx, &all).await {
        return unknown;
    }
    let client_version = if version >= SEVERAL_FROM { 2 } else { 0 };
    let outcome = ctx.transactions.add(id, producer, by_topic(&all), client_version).await;
    vec![told(outcome); all.len()]
}

/// The answer if some of the partitions do not exist, as a read index confirms.
async fn unknown(ctx: &Context, all: &[NamedPartition]) -> Option<Vec<ErrorCode>> {
    let are_there = || {
        let image = ctx.metadata.image();
        all.iter().map(|(topic, index)| image.has_partition(topic, *index)).collect::<Vec<bool>>()
    };
    if are_there().into_iter().all(|is_there| is_there) {
        return None;
    }
    // An error of the read index leaves what is known: the client asks again.
    let _ = ctx.metadata.read_index().await;
    let are_there = are_there();
    if are_there.iter().all(|is_there| *is_there) {
        return None;
    }
    let told = |is_there| if is_there { ErrorCode::OperationNotAttempted } else { ErrorCode::UnknownTopicOrPartition };
    Some(are_there.into_iter().map(told).collect())
}

fn results(topics: &[AddPartitionsToTxnTopic], outcomes: &[ErrorCode]) -> Vec<AddPartitionsToTxnTopicResult> {
    let mut outcomes = outcomes.iter();
    let of_topic = |topic: &AddPartitionsToTxnTopic| {
        let one = |(index, error): (&i32, &ErrorCode)| {
            let answer = AddPartitionsToTxnPartitionResult::default().with_partition_index(*index);
            answer.with_partition_error_code(error.code())
        };
        let partitions = topic.partitions.iter().zip(outcomes.by_ref()).map(one).collect();
        AddPartitionsToTxnTopicResult::default().with_name(topic.name.clone()).with_results_by_partition(partitions)
    };
    topics.iter().map(of_topic).collect()
}
