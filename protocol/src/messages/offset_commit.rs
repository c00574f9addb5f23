//! OffsetCommit (key 8): version 10 has topics by id (KIP-848).

use kafka_protocol::messages::{GroupId, OffsetCommitResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::{message, request, structure};

message! {
    OffsetCommit;
    /// Offsets that a group commits.
    OffsetCommitRequest {
        group_id: GroupId = 0..;
        generation_id_or_member_epoch: i32 = 1.., -1;
        member_id: StrBytes = 1..;
        group_instance_id: Option<StrBytes> = 7..;
        retention_time_ms: i64 = 2..=4, -1;
        topics: Vec<OffsetCommitRequestTopic> = 0..;
    }
}

request! { OffsetCommitRequest of OffsetCommit, answered by OffsetCommitResponse }

structure! {
    /// A topic to commit offsets of.
    OffsetCommitRequestTopic {
        name: TopicName = 0..=9;
        topic_id: Uuid = 10..;
        partitions: Vec<OffsetCommitRequestPartition> = 0..;
    }
}

structure! {
    /// A partition's offset.
    OffsetCommitRequestPartition {
        partition_index: i32 = 0..;
        committed_offset: i64 = 0..;
        committed_leader_epoch: i32 = 6.., -1;
        committed_metadata: Option<StrBytes> = 0.., Some(StrBytes::default());
    }
}
