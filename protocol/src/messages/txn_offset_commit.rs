//! TxnOffsetCommit (key 28): version 6 has topics by id (KIP-1319).

use kafka_protocol::messages::{GroupId, ProducerId, TopicName, TransactionalId};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::{message, request, structure, versions};

message! {
    TxnOffsetCommit;
    /// Offsets that a group commits with a transaction.
    TxnOffsetCommitRequest {
        transactional_id: TransactionalId = 0..;
        group_id: GroupId = 0..;
        producer_id: ProducerId = 0..;
        producer_epoch: i16 = 0..;
        generation_id_or_member_epoch: i32 = 3.., -1;
        member_id: StrBytes = 3..;
        group_instance_id: Option<StrBytes> = 3..;
        topics: Vec<TxnOffsetCommitRequestTopic> = 0..;
    }
}

request! { TxnOffsetCommitRequest of TxnOffsetCommit, answered by TxnOffsetCommitResponse }

structure! {
    /// A topic to commit offsets of.
    TxnOffsetCommitRequestTopic {
        name: TopicName = 0..=5;
        topic_id: Uuid = 6..;
        partitions: Vec<TxnOffsetCommitRequestPartition> = 0..;
    }
}

structure! {
    /// A partition's offset.
    TxnOffsetCommitRequestPartition {
        partition_index: i32 = 0..;
        committed_offset: i64 = 0..;
        committed_leader_epoch: i32 = 2.., -1;
        committed_metadata: Option<StrBytes> = 0.., Some(StrBytes::default());
    }
}

message! {
    TxnOffsetCommit;
    /// What became of each offset.
    TxnOffsetCommitResponse {
        throttle_time_ms: i32 = 0..;
        topics: Vec<TxnOffsetCommitResponseTopic> = 0..;
    }
}

versions! { TxnOffsetCommitResponse of TxnOffsetCommit, header response_header_version }

structure! {
    /// A topic of the request.
    TxnOffsetCommitResponseTopic {
        name: TopicName = 0..=5;
        topic_id: Uuid = 6..;
        partitions: Vec<TxnOffsetCommitResponsePartition> = 0..;
    }
}

structure! {
    /// What became of a partition's offset.
    TxnOffsetCommitResponsePartition {
        partition_index: i32 = 0..;
        error_code: i16 = 0..;
    }
}
