//! TxnOffsetCommit (key 28, v0-v6): offsets that a group commits with a transaction (KIP-98).
//!
//! They become visible when the transaction's marker is applied in the group's partition. v3+ member and generation, judged when the
//! commit is applied (KIP-447); v5 (KIP-890) adds the group's partition to the transaction, which before it AddOffsetsToTxn
//! does; v6 topic ids (KIP-1319): UNKNOWN_TOPIC_ID, GROUP_ID_NOT_FOUND. Errors that older clients do not know are told as those that
//! they ask again for: COORDINATOR_LOAD_IN_PROGRESS.

use std::sync::Arc;

use ottla_protocol::error::ErrorCode;
use ottla_protocol::ids::ProducerId;
use ottla_protocol::messages::{
    TxnOffsetCommitRequest, TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic, TxnOffsetCommitResponse,
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};

use super::support::known_topics::known_topics;
use super::support::transaction_error::{KnownFrom, NEVER, require_transactions};
use crate::coordinator::group::classic::MemberRef;
use crate::coordinator::group::{Commit, CommitTransaction, GroupError, NewOffset, OFFSETS_TOPIC};
use crate::coordinator::transaction::{Producer, TransactionError};
use crate::handlers::context::Context;
use crate::metadata::Topic;
use crate::partition::{ProducerTransaction, TopicRef, TransactionDecision, TransactionPart};

const NAMES_MEMBER_FROM: i16 = 3;
const ADDS_FROM: i16 = 5;
const NAMES_TOPICS_BY_ID_FROM: i16 = 6;
const KNOWN_FROM: KnownFrom = KnownFrom { fenced: NEVER, abortable: 4 };
/// `transaction.version` of clients whose requests add partitions.
const ADDED_BY: i16 = 2;
/// How often a commit is tried whose transaction ends meanwhile.
const ATTEMPTS_MAX: usize = 3;

pub(super) async fn handle(ctx: &Context, version: i16, request: TxnOffsetCommitRequest) -> TxnOffsetCommitResponse {
    let asked: Vec<_> = request.topics.iter().map(|topic| (topic.name.as_str(), topic.topic_id)).collect();
    let known = known_topics(ctx, version >= NAMES_TOPICS_BY_ID_FROM, &asked).await;
    let offsets = request.topics.iter().zip(&known).flat_map(|(asked, known)| offsets(asked, known)).collect();
    let mut outcomes = commit(ctx, version, &request, offsets).await.into_iter();
    let topic = |(asked, known): (&TxnOffsetCommitRequestTopic, Result<Arc<Topic>, ErrorCode>)| {
        let one = |partition_index: i32| {
            let error = match &known {
                Ok(known) if known.route(partition_index).is_some() => {
                    outcomes.next().unwrap_or(ErrorCode::UnknownServerError)
                }
                Ok(_) => ErrorCode::UnknownTopicOrPartition,
                Err(error) => *error,
            };
            TxnOffsetCommitResponsePartition { partition_index, error_code: error.code() }
        };
        let partitions = asked.partitions.iter().map(|partition| partition.partition_index).map(one).collect();
        TxnOffsetCommitResponseTopic { name: asked.name.clone(), topic_id: asked.topic_id, partitions }
    };
    let topics = request.topics.iter().zip(known).map(topic).collect();
    TxnOffsetCommitResponse { throttle_time_ms: 0, topics }
}

/// The offsets of partitions that exist, in order.
fn offsets(asked: &TxnOffsetCommitRequestTopic, known: &Result<Arc<Topic>, ErrorCode>) -> Vec<NewOffset> {
    let Ok(topic) = known else { return Vec::new() };
    let existing = asked.partitions.iter().filter(|partition| topic.route(partition.partition_index).is_some());
    let offset = |partition: &TxnOffsetCommitRequestPartition| NewOffset {
        topic: topic.name.clone(),
        topic_id: topic.id,
        partition: partition.partition_index,
        offset: partition.committed_offset,
        leader_epoch: partition.committed_leader_epoch,
        metadata: partition.committed_metadata.as_deref().unwrap_or_default().into(),
    };
    existing.map(offset).collect()
}

/// For each offset in order.
async fn commit(
    ctx: &Context,
    version: i16,
    request: &TxnOffsetCommitRequest,
    offsets: Vec<NewOffset>,
) -> Vec<ErrorCode> {
    let count = offsets.len();
    if let Err(error) = require_transactions(ctx).await {
        return vec![error; count];
    }
    if request.group_id.is_empty() {
        return vec![ErrorCode::InvalidGroupId; count];
    }
    let who = MemberRef {
        member_id: if version >= NAMES_MEMBER_FROM { request.member_id.to_string() } else { String::new() },
        instance_id: request.group_instance_id.as_ref().map(ToString::to_string),
        generation: if version >= NAMES_MEMBER_FROM { request.generation_id_or_member_epoch } else { -1 },
    };
    let producer = Producer { id: ProducerId(request.producer_id.0), epoch: request.producer_epoch };
    let mut outcomes = Vec::new();
    for _ in 0..ATTEMPTS_MAX {
        let part = match enter(ctx, version, request, producer).await {
            Ok(part) => part,
            Err(error) => return vec![error; count],
        };
        let transaction = Some(CommitTransaction { producer: producer.id, epoch: producer.epoch, part });
        let (who, offsets) = (who.clone(), offsets.clone());
        let commit = Commit {
            who,
            retention_ms: None,
            knows_group_not_found: version >= NAMES_TOPICS_BY_ID_FROM,
            transaction,
            offsets,
        };
        outcomes = ctx.groups.commit(&request.group_id, commit).await;
        if !outcomes.contains(&Err(GroupError::TransactionEnded)) {
            break;
        }
    }
    // Each time a marker came between, while the coordinator said that the transaction is open.
    let again = refused(version, TransactionError::ConcurrentTransactions);
    let told = |outcome| if outcome == Err(GroupError::TransactionEnded) { again } else { told(outcome) };
    outcomes.into_iter().map(told).collect()
}

/// What the commit has to do with the producer's transaction in the group's partition; the coordinator is asked if none is open.
async fn enter(
    ctx: &Context,
    version: i16,
    request: &TxnOffsetCommitRequest,
    producer: Producer,
) -> Result<TransactionPart, ErrorCode> {
    let index = ctx.groups.coordinator_partition(&request.group_id);
    let found = ctx.partitions.find(TopicRef::Name(OFFSETS_TOPIC), index).await;
    let found = found.and_then(|partition| partition.transaction_of(producer.id, producer.epoch));
    let marker_number = match found.map_err(|_| ErrorCode::NotCoordinator)? {
        ProducerTransaction::Open => return Ok(TransactionPart::Continues),
        ProducerTransaction::None { marker_number } => marker_number,
    };
    let (id, partition) = (request.transactional_id.as_str(), [(Arc::from(OFFSETS_TOPIC), index)]);
    let added_by = (version >= ADDS_FROM).then_some(ADDED_BY);
    let answers = ctx.transaction_peers.ask(&ctx.transactions, id, producer, &partition, added_by).await;
    let answer = answers.into_iter().next().unwrap_or(Err(TransactionError::Internal));
    answer.map_err(|error| refused(version, error))?;
    Ok(TransactionPart::Decides(TransactionDecision::Opens { marker_number }))
}

fn refused(version: i16, error: TransactionError) -> ErrorCode {
    match error {
        // The client asks the same coordinator of the group again.
        TransactionError::ConcurrentTransactions
        | TransactionError::NotCoordinator
        | TransactionError::CoordinatorNotAvailable => ErrorCode::CoordinatorLoadInProgress,
        error => KNOWN_FROM.code(version, error),
    }
}

fn told(outcome: Result<(), GroupError>) -> ErrorCode {
    let code = outcome.err().map_or(0, GroupError::code);
    ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError)
}
