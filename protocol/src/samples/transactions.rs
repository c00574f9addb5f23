//! Requests about transactions.

use kafka_protocol::messages::add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction};
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, DescribeTransactionsRequest, EndTxnRequest, GroupId,
    ListTransactionsRequest, ProducerId, TransactionalId, TxnOffsetCommitRequest, WriteTxnMarkersRequest,
};

use super::{s, topic};
use crate::request::Request;
use crate::versions::ApiKey;

pub(super) fn requests(api_key: ApiKey, version: i16) -> Vec<Request> {
    let (id, producer) = (TransactionalId(s("transaction")), ProducerId(12));
    match api_key {
        ApiKey::AddPartitionsToTxn => {
            let topics =
                vec![AddPartitionsToTxnTopic::default().with_name(topic("prices")).with_partitions(vec![0, 5])];
            let full = AddPartitionsToTxnRequest::default();
            if version < 4 {
                let one = full
                    .with_v3_and_below_transactional_id(id)
                    .with_v3_and_below_producer_id(producer)
                    .with_v3_and_below_producer_epoch(3)
                    .with_v3_and_below_topics(topics);
                return vec![one.into()];
            }
            let one = AddPartitionsToTxnTransaction::default()
                .with_transactional_id(id)
                .with_producer_id(producer)
                .with_producer_epoch(3)
                .with_verify_only(true)
                .with_topics(topics);
            vec![full.with_transactions(vec![one]).into()]
        }
        ApiKey::AddOffsetsToTxn => {
            let full = AddOffsetsToTxnRequest::default().with_transactional_id(id).with_producer_id(producer);
            vec![full.with_producer_epoch(3).with_group_id(GroupId(s("group"))).into()]
        }
        ApiKey::EndTxn => {
            let full = EndTxnRequest::default().with_transactional_id(id).with_producer_id(producer);
            vec![full.with_producer_epoch(3).with_committed(true).into()]
        }
        ApiKey::WriteTxnMarkers => {
            let one = WritableTxnMarkerTopic::default().with_name(topic("prices")).with_partition_indexes(vec![0, 5]);
            let marker = WritableTxnMarker::default()
                .with_producer_id(producer)
                .with_producer_epoch(3)
                .with_transaction_result(true)
                .with_topics(vec![one])
                .with_coordinator_epoch(9);
            vec![WriteTxnMarkersRequest::default().with_markers(vec![marker]).into()]
        }
        ApiKey::TxnOffsetCommit => vec![txn_offset_commit(version)],
        ApiKey::DescribeTransactions => {
            vec![DescribeTransactionsRequest::default().with_transactional_ids(vec![id]).into()]
        }
        _ => {
            let full = ListTransactionsRequest::default()
                .with_state_filters(vec![s("Ongoing")])
                .with_producer_id_filters(vec![producer])
                .with_duration_filter(if version >= 1 { 1_000 } else { -1 })
                .with_transactional_id_pattern((version >= 2).then(|| s("trans.*")));
            vec![full.into()]
        }
    }
}

fn txn_offset_commit(version: i16) -> Request {
    let partition = TxnOffsetCommitRequestPartition::default()
        .with_partition_index(5)
        .with_committed_offset(1_000)
        .with_committed_leader_epoch(if version >= 2 { 7 } else { -1 })
        .with_committed_metadata(Some(s("here")));
    let one = TxnOffsetCommitRequestTopic::default().with_name(topic("prices")).with_partitions(vec![partition]);
    let full = TxnOffsetCommitRequest::default()
        .with_transactional_id(TransactionalId(s("transaction")))
        .with_group_id(GroupId(s("group")))
        .with_producer_id(ProducerId(12))
        .with_producer_epoch(3)
        .with_topics(vec![one]);
    let member = full.clone().with_generation_id(4).with_member_id(s("member"));
    if version >= 3 { member.with_group_instance_id(Some(s("instance"))) } else { full }.into()
}
