//! WriteTxnMarkers (key 27, v1-v2): ends transactions in partitions that this node leads (KIP-98).
//!
//! Coordinators of Ottla have requests of their own for it. Operators end hanging transactions by it (KIP-664):
//! `kafka-transactions.sh abort` names the producer, its epoch and the coordinator's epoch, as DescribeProducers shows them.
//! v2 has the transaction's version (KIP-1228): from 2 on the marker's epoch is the next transaction's.
//! Errors: NOT_LEADER_OR_FOLLOWER, INVALID_PRODUCER_EPOCH, TRANSACTION_COORDINATOR_FENCED, UNKNOWN_TOPIC_OR_PARTITION.

use kafka_protocol::messages::WriteTxnMarkersResponse;
use kafka_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use ottla_protocol::error::ErrorCode;
use ottla_protocol::ids::ProducerId;
use ottla_protocol::messages::{WritableTxnMarker, WritableTxnMarkerTopic, WriteTxnMarkersRequest};

use super::support::transaction_error::require_transactions;
use crate::coordinator::transaction::partitions::{NamedPartition, named};
use crate::coordinator::transaction::{MarkerOutcome, Producer};
use crate::handlers::context::Context;
use crate::replicated::transactions::Marker;

/// From this `transaction.version` on the epoch of a marker is greater than that of the transaction.
const BUMPS_FROM: i8 = 2;

pub(super) async fn handle(ctx: &Context, request: WriteTxnMarkersRequest) -> WriteTxnMarkersResponse {
    let mut markers = Vec::with_capacity(request.markers.len());
    for marker in &request.markers {
        let mut outcomes = outcomes(ctx, marker).await.into_iter();
        let of_topic = |topic: &WritableTxnMarkerTopic| {
            let one = |(index, error): (&i32, ErrorCode)| {
                WritableTxnMarkerPartitionResult::default().with_partition_index(*index).with_error_code(error.code())
            };
            let partitions = topic.partition_indexes.iter().zip(outcomes.by_ref()).map(one).collect();
            WritableTxnMarkerTopicResult::default().with_name(topic.name.clone()).with_partitions(partitions)
        };
        let topics = marker.topics.iter().map(of_topic).collect();
        markers.push(WritableTxnMarkerResult::default().with_producer_id(marker.producer_id).with_topics(topics));
    }
    WriteTxnMarkersResponse::default().with_markers(markers)
}

async fn outcomes(ctx: &Context, asked: &WritableTxnMarker) -> Vec<ErrorCode> {
    let all = named(asked.topics.iter().map(|topic| (topic.name.as_str(), topic.partition_indexes.as_slice())));
    if let Err(error) = require_transactions(ctx).await {
        // There is no coordinator behind this request: its sender looks for another leader and repeats it.
        let error = if error == ErrorCode::CoordinatorNotAvailable { ErrorCode::NotLeaderOrFollower } else { error };
        return vec![error; all.len()];
    }
    let producer = Producer { id: ProducerId(asked.producer_id.0), epoch: asked.producer_epoch };
    let (commits, coordinator_epoch) = (asked.transaction_result, asked.coordinator_epoch);
    let version = if asked.transaction_version >= BUMPS_FROM { 2 } else { 1 };
    let marker = Marker { commits, coordinator_epoch, version };
    let written = ctx.transaction_peers.write_markers_here(producer, marker, &all).await;
    let image = ctx.metadata.image();
    let told = |((topic, index), outcome): (&NamedPartition, MarkerOutcome)| match outcome {
        MarkerOutcome::Done => ErrorCode::None,
        MarkerOutcome::CoordinatorFenced => ErrorCode::TransactionCoordinatorFenced,
        MarkerOutcome::ProducerFenced => ErrorCode::InvalidProducerEpoch,
        MarkerOutcome::Retry => match image.has_partition(topic, *index) {
            true => ErrorCode::NotLeaderOrFollower,
            false => ErrorCode::UnknownTopicOrPartition,
        },
    };
    all.iter().zip(written).map(told).collect()
}
