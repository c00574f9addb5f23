//! Requests about transactions.

use kafka_protocol::messages::add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, DescribeTransactionsRequest, EndTxnRequest, GroupId,
    ListTransactionsRequest, ProducerId, TopicName, TransactionalId,
};
use uuid::Uuid;

use super::{id, s, topic};
use crate::messages::{
    TxnOffsetCommitRequest, TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic, WritableTxnMarker,
    WritableTxnMarkerTopic, WriteTxnMarkersRequest,
};
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
            let marker = WritableTxnMarker {
                producer_id: producer,
                producer_epoch: 3,
                transaction_result: true,
                topics: vec![WritableTxnMarkerTopic { name: topic("prices"), partition_indexes: vec![0, 5] }],
                coordinator_epoch: 9,
                transaction_version: if version >= 2 { 2 } else { 0 },
            };
            vec![WriteTxnMarkersRequest { markers: vec![marker] }.into()]
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
    let partition = TxnOffsetCommitRequestPartition {
        partition_index: 5,
        committed_offset: 1_000,
        committed_leader_epoch: if version >= 2 { 7 } else { -1 },
        committed_metadata: Some(s("here")),
    };
    let (name, topic_id) = if version >= 6 { (TopicName::default(), id()) } else { (topic("prices"), Uuid::nil()) };
    let topics = vec![TxnOffsetCommitRequestTopic { name, topic_id, partitions: vec![partition] }];
    let (transactional_id, group_id) = (TransactionalId(s("transaction")), GroupId(s("group")));
    let (producer_id, producer_epoch) = (ProducerId(12), 3);
    let anybody = TxnOffsetCommitRequest {
        transactional_id,
        group_id,
        producer_id,
        producer_epoch,
        topics,
        ..TxnOffsetCommitRequest::default()
    };
    let member = TxnOffsetCommitRequest {
        generation_id_or_member_epoch: 4,
        member_id: s("member"),
        group_instance_id: Some(s("instance")),
        ..anybody.clone()
    };
    if version >= 3 { member } else { anybody }.into()
}
