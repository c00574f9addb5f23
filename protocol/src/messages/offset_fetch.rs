//! OffsetFetch (key 9): version 10 has topics by id (KIP-848).

use kafka_protocol::messages::{GroupId, OffsetFetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::{message, request, structure};

message! {
    OffsetFetch;
    /// Asks for the offsets of one group, or of several from version 8 on.
    OffsetFetchRequest {
        group_id: GroupId = 0..=7;
        topics: Option<Vec<OffsetFetchRequestTopic>> = 0..=7, Some(Vec::new());
        groups: Vec<OffsetFetchRequestGroup> = 8..;
        require_stable: bool = 7..;
    }
}

request! { OffsetFetchRequest of OffsetFetch, answered by OffsetFetchResponse }

structure! {
    /// A topic of the one group.
    OffsetFetchRequestTopic {
        name: TopicName = 0..=7;
        partition_indexes: Vec<i32> = 0..=7;
    }
}

structure! {
    /// A group; no topics stand for all of them.
    OffsetFetchRequestGroup {
        group_id: GroupId = 8..;
        member_id: Option<StrBytes> = 9..;
        member_epoch: i32 = 9.., -1;
        topics: Option<Vec<OffsetFetchRequestTopics>> = 8.., Some(Vec::new());
    }
}

structure! {
    /// A topic of a group.
    OffsetFetchRequestTopics {
        name: TopicName = 8..=9;
        topic_id: Uuid = 10..;
        partition_indexes: Vec<i32> = 8..;
    }
}
