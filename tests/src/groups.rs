//! What a consumer without a membership does in its group: finds its coordinator, and commits an offset.
//!
//! May not know: members, generations.

use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::{FindCoordinatorRequest, GroupId, OffsetCommitRequest};

use crate::cluster::until;
use crate::raw::{Raw, text, topic_name};

/// Waits until the group has a coordinator.
pub fn find_coordinator(raw: &mut Raw, group: &str) {
    let find = FindCoordinatorRequest::default().with_key_type(0).with_coordinator_keys(vec![text(group)]);
    until("the group has a coordinator", || raw.call(4, &find).coordinators[0].error_code == 0);
}

/// Commits an offset of the topic's first partition.
pub fn commit(raw: &mut Raw, group: &str, topic: &str, offset: i64) {
    let partition = OffsetCommitRequestPartition::default().with_partition_index(0).with_committed_offset(offset);
    let topic = OffsetCommitRequestTopic::default().with_name(topic_name(topic)).with_partitions(vec![partition]);
    let commit = OffsetCommitRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    until("an offset is committed", || raw.call(7, &commit).topics[0].partitions[0].error_code == 0);
}
