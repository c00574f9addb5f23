//! Requests about group offsets: the messages that this crate declares itself.

use uuid::Uuid;

use super::{group, id, s, topic, when};
use crate::messages::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic, OffsetFetchRequest,
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use crate::request::Request;
use kafka_protocol::messages::TopicName;

/// A topic of group offsets: by name before version 10, then by id.
fn name_or_id(version: i16) -> (TopicName, Uuid) {
    if version >= 10 { (TopicName::default(), id()) } else { (topic("prices"), Uuid::nil()) }
}

pub(super) fn offset_fetch(version: i16) -> Vec<Request> {
    if version <= 7 {
        let one = OffsetFetchRequestTopic { name: topic("prices"), partition_indexes: vec![0, 1] };
        let all = OffsetFetchRequest {
            group_id: group("readers"),
            topics: when(version < 2, Vec::new()),
            ..OffsetFetchRequest::default()
        };
        let require_stable = version >= 7;
        let full = OffsetFetchRequest { topics: Some(vec![one]), require_stable, ..all.clone() };
        return vec![full.into(), all.into()];
    }
    let (name, topic_id) = name_or_id(version);
    let one = OffsetFetchRequestGroup {
        group_id: group("readers"),
        member_id: when(version >= 9, s("member")),
        member_epoch: if version >= 9 { 4 } else { -1 },
        topics: Some(vec![OffsetFetchRequestTopics { name, topic_id, partition_indexes: vec![0, 1] }]),
    };
    let all = OffsetFetchRequestGroup { group_id: group("others"), topics: None, ..OffsetFetchRequestGroup::default() };
    let groups = vec![one, all];
    vec![OffsetFetchRequest { groups, require_stable: true, ..OffsetFetchRequest::default() }.into()]
}

pub(super) fn offset_commit(version: i16) -> Vec<Request> {
    let partition = OffsetCommitRequestPartition {
        partition_index: 1,
        committed_offset: 42,
        committed_leader_epoch: if version >= 6 { 3 } else { -1 },
        committed_metadata: Some(s("note")),
    };
    let no_note = OffsetCommitRequestPartition { committed_metadata: None, ..partition.clone() };
    let (name, topic_id) = name_or_id(version);
    let full = OffsetCommitRequest {
        group_id: group("readers"),
        generation_id_or_member_epoch: 6,
        member_id: s("member"),
        group_instance_id: when(version >= 7, s("instance")),
        retention_time_ms: if version <= 4 { 1_000 } else { -1 },
        topics: vec![OffsetCommitRequestTopic { name, topic_id, partitions: vec![partition, no_note] }],
    };
    vec![full.into(), OffsetCommitRequest::default().into()]
}
