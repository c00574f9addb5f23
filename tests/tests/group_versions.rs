//! Every served version of the group APIs is answered in that version, through the whole lifecycle of a group.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, FindCoordinatorRequest, GroupId, HeartbeatRequest, JoinGroupRequest,
    LeaveGroupRequest, ListGroupsRequest, MetadataRequest, OffsetCommitRequest, OffsetDeleteRequest,
    OffsetFetchRequest, SyncGroupRequest,
};
use kafka_protocol::protocol::StrBytes;
use ottla_protocol::messages as newest;
use ottla_tests::process::Broker;
use ottla_tests::raw::{Raw, text, topic_name};
use uuid::Uuid;

const INVALID_REQUEST: i16 = 42;
const NON_EMPTY_GROUP: i16 = 68;
const GROUP_ID_NOT_FOUND: i16 = 69;
const MEMBER_ID_REQUIRED: i16 = 79;
const GROUP_SUBSCRIBED_TO_TOPIC: i16 = 86;
const UNKNOWN_TOPIC_ID: i16 = 100;

fn group(id: &str) -> GroupId {
    GroupId(text(id))
}

fn join(id: &str, member: &StrBytes) -> JoinGroupRequest {
    // Version 0 of a consumer's metadata: reads "t".
    let metadata = [&[0, 0, 0, 0, 0, 1, 0, 1][..], b"t", &[0xff; 4]].concat();
    let protocol = JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(metadata.into());
    JoinGroupRequest::default()
        .with_group_id(group(id))
        .with_member_id(member.clone())
        .with_session_timeout_ms(10_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}

/// Joins and syncs in the given versions; the member and its generation.
fn settle(raw: &mut Raw, id: &str, join_version: i16, sync_version: i16) -> (StrBytes, i32) {
    let with_timeout = |request: JoinGroupRequest| {
        if join_version >= 1 { request.with_rebalance_timeout_ms(10_000) } else { request }
    };
    let mut joined = raw.call(join_version, &with_timeout(join(id, &text(""))));
    if join_version >= 4 {
        assert_eq!(joined.error_code, MEMBER_ID_REQUIRED, "v{join_version}");
        joined = raw.call(join_version, &with_timeout(join(id, &joined.member_id)));
    }
    assert_eq!(joined.error_code, 0, "JoinGroup v{join_version}");
    assert_eq!(joined.leader, joined.member_id);
    assert_eq!(joined.members.len(), 1);
    assert_eq!(joined.protocol_name.as_deref(), Some("range"));
    let share = SyncGroupRequestAssignment::default()
        .with_member_id(joined.member_id.clone())
        .with_assignment(b"share".to_vec().into());
    let sync = SyncGroupRequest::default()
        .with_group_id(group(id))
        .with_member_id(joined.member_id.clone())
        .with_generation_id(joined.generation_id)
        .with_assignments(vec![share]);
    let synced = raw.call(sync_version, &sync);
    assert_eq!((synced.error_code, &synced.assignment[..]), (0, &b"share"[..]), "SyncGroup v{sync_version}");
    (joined.member_id, joined.generation_id)
}

fn leave(version: i16, id: &str, member: &StrBytes) -> LeaveGroupRequest {
    let request = LeaveGroupRequest::default().with_group_id(group(id));
    if version < 3 {
        return request.with_member_id(member.clone());
    }
    request.with_members(vec![MemberIdentity::default().with_member_id(member.clone())])
}

fn start() -> (Broker, Raw) {
    let broker = Broker::start(&[("KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS", "0")]);
    let mut raw = Raw::connect(broker.address());
    raw.create_topic("t", 2, &[]);
    raw.create_topic("u", 1, &[]);
    let find = FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g")]);
    assert_eq!(raw.call(4, &find).coordinators[0].error_code, 0);
    (broker, raw)
}

#[test]
fn members_come_and_go_in_every_version() {
    let (mut broker, mut raw) = start();
    let mut last = 0;
    for version in 0..=9 {
        let (member, generation) = settle(&mut raw, "g", version, version.min(5));
        assert!(generation > last, "generations rise from one life of the group to the next");
        last = generation;
        let beat = HeartbeatRequest::default()
            .with_group_id(group("g"))
            .with_member_id(member.clone())
            .with_generation_id(generation);
        assert_eq!(raw.call(version.min(4), &beat).error_code, 0);
        let leaving = version.min(5);
        let left = raw.call(leaving, &leave(leaving, "g", &member));
        assert_eq!(left.error_code, 0);
        assert_eq!(left.members.len(), usize::from(leaving >= 3));
    }
    broker.stop();
}

fn commit(version: i16, member: &StrBytes, generation: i32, offset: i64) -> OffsetCommitRequest {
    let part = OffsetCommitRequestPartition::default()
        .with_partition_index(1)
        .with_committed_offset(offset)
        .with_committed_metadata(Some(text("note")));
    let part = if version >= 6 { part.with_committed_leader_epoch(3) } else { part };
    let topics = ["t", "u"].map(|name| {
        OffsetCommitRequestTopic::default().with_name(topic_name(name)).with_partitions(vec![part.clone()])
    });
    OffsetCommitRequest::default()
        .with_group_id(group("g"))
        .with_member_id(member.clone())
        .with_generation_id_or_member_epoch(generation)
        .with_topics(topics.to_vec())
}

/// The committed offset of t-1 as OffsetFetch in this version returns it, requested by name or for all.
fn fetched(raw: &mut Raw, version: i16, all: bool) -> i64 {
    if version < 8 {
        let topic = OffsetFetchRequestTopic::default().with_name(topic_name("t")).with_partition_indexes(vec![1]);
        let topics = if all { None } else { Some(vec![topic]) };
        let answer = raw.call(version, &OffsetFetchRequest::default().with_group_id(group("g")).with_topics(topics));
        assert_eq!((answer.error_code, answer.topics.len()), (0, 1));
        let part = &answer.topics[0].partitions[0];
        assert_eq!((part.error_code, part.metadata.as_deref()), (0, Some("note")));
        return part.committed_offset;
    }
    let topic = OffsetFetchRequestTopics::default().with_name(topic_name("t")).with_partition_indexes(vec![1]);
    let topics = if all { None } else { Some(vec![topic]) };
    let asked = OffsetFetchRequestGroup::default().with_group_id(group("g")).with_topics(topics);
    let answer = raw.call(version, &OffsetFetchRequest::default().with_groups(vec![asked]));
    assert_eq!((answer.groups[0].error_code, answer.groups[0].topics.len()), (0, 1));
    answer.groups[0].topics[0].partitions[0].committed_offset
}

#[test]
fn offsets_are_committed_and_fetched_in_every_version() {
    let (mut broker, mut raw) = start();
    let (member, generation) = settle(&mut raw, "g", 5, 3);
    for version in 2..=9 {
        let answer = raw.call(version, &commit(version, &member, generation, i64::from(version)));
        assert_eq!(answer.topics[0].partitions[0].error_code, 0, "OffsetCommit v{version}");
        // u has one partition only: that one is refused alone.
        assert_eq!(answer.topics[1].partitions[0].error_code, 3);
        for fetch_version in 1..=9 {
            assert_eq!(fetched(&mut raw, fetch_version, false), i64::from(version), "OffsetFetch v{fetch_version}");
            if fetch_version >= 2 {
                assert_eq!(fetched(&mut raw, fetch_version, true), i64::from(version));
            }
        }
    }
    broker.stop();
}

/// OffsetCommit and OffsetFetch 10 know topics by their ids alone.
#[test]
fn offsets_are_committed_and_fetched_by_topic_id() {
    let (mut broker, mut raw) = start();
    let named = MetadataRequestTopic::default().with_name(Some(topic_name("t")));
    let id = raw.call(12, &MetadataRequest::default().with_topics(Some(vec![named]))).topics[0].topic_id;
    let unknown = Uuid::from_u128(7);
    let topics = [id, unknown].map(|topic_id| newest::OffsetCommitRequestTopic {
        topic_id,
        partitions: vec![newest::OffsetCommitRequestPartition {
            partition_index: 1,
            committed_offset: 9,
            committed_leader_epoch: 3,
            committed_metadata: Some(text("note")),
        }],
        ..newest::OffsetCommitRequestTopic::default()
    });
    let request = newest::OffsetCommitRequest {
        group_id: group("g"),
        topics: topics.to_vec(),
        ..newest::OffsetCommitRequest::default()
    };
    let answer = raw.call(10, &request).topics;
    let answered: Vec<_> = answer.iter().map(|topic| (topic.topic_id, topic.partitions[0].error_code)).collect();
    assert_eq!(answered, [(id, 0), (unknown, UNKNOWN_TOPIC_ID)]);

    let topics = [id, unknown].map(|topic_id| newest::OffsetFetchRequestTopics {
        topic_id,
        partition_indexes: vec![0, 1],
        ..newest::OffsetFetchRequestTopics::default()
    });
    for (topics, errors) in [(Some(topics.to_vec()), vec![0, UNKNOWN_TOPIC_ID]), (None, vec![0])] {
        let asked = newest::OffsetFetchRequestGroup {
            group_id: group("g"),
            topics,
            ..newest::OffsetFetchRequestGroup::default()
        };
        let request = newest::OffsetFetchRequest { groups: vec![asked], ..newest::OffsetFetchRequest::default() };
        let answer = &raw.call(10, &request).groups[0];
        let answered: Vec<_> = answer.topics.iter().map(|topic| topic.partitions[0].error_code).collect();
        assert_eq!((answer.error_code, answered), (0, errors));
        let last = answer.topics[0].partitions.last().unwrap();
        let metadata = last.metadata.as_deref();
        assert_eq!((answer.topics[0].topic_id, last.committed_offset, metadata), (id, 9, Some("note")));
    }
    broker.stop();
}

#[test]
fn groups_are_listed_described_and_removed_in_every_version() {
    let (mut broker, mut raw) = start();
    let (member, generation) = settle(&mut raw, "g", 5, 3);
    assert_eq!(raw.call(7, &commit(7, &member, generation, 1)).topics[0].partitions[0].error_code, 0);
    for version in 0..=5 {
        let listed = raw.call(version, &ListGroupsRequest::default());
        assert_eq!((listed.groups.len(), listed.groups[0].protocol_type.as_str()), (1, "consumer"));
        assert_eq!(listed.groups[0].group_state.as_str(), if version >= 4 { "Stable" } else { "" });
    }
    let empty_only = ListGroupsRequest::default().with_states_filter(vec![text("empty")]);
    assert!(raw.call(4, &empty_only).groups.is_empty());
    for version in 0..=6 {
        let asked = DescribeGroupsRequest::default().with_groups(vec![group("g"), group("none")]);
        let described = raw.call(version, &asked).groups;
        assert_eq!((described[0].error_code, described[0].group_state.as_str()), (0, "Stable"));
        assert_eq!(&described[0].members[0].member_assignment[..], b"share");
        let unknown = if version >= 6 { GROUP_ID_NOT_FOUND } else { 0 };
        assert_eq!((described[1].error_code, described[1].group_state.as_str()), (unknown, "Dead"));
    }
    let part = OffsetDeleteRequestPartition::default().with_partition_index(1);
    let topic = OffsetDeleteRequestTopic::default().with_name(topic_name("t")).with_partitions(vec![part]);
    let forget = OffsetDeleteRequest::default().with_group_id(group("g")).with_topics(vec![topic]);
    assert_eq!(raw.call(0, &forget).topics[0].partitions[0].error_code, GROUP_SUBSCRIBED_TO_TOPIC);
    let delete = DeleteGroupsRequest::default().with_groups_names(vec![group("g")]);
    for version in 0..=2 {
        assert_eq!(raw.call(version, &delete).results[0].error_code, NON_EMPTY_GROUP);
    }
    assert_eq!(raw.call(5, &leave(5, "g", &member)).error_code, 0);
    assert_eq!(raw.call(0, &forget).topics[0].partitions[0].error_code, 0);
    assert_eq!(raw.call(2, &delete).results[0].error_code, 0);
    assert_eq!(raw.call(2, &delete).results[0].error_code, GROUP_ID_NOT_FOUND);
    assert!(raw.call(5, &ListGroupsRequest::default()).groups.is_empty());
    broker.stop();
}

/// As Kafka lists where the features are off: nothing, and no error. A share partition has no coordinator, for good.
#[test]
fn groups_of_types_that_are_not_served_are_none() {
    let (mut broker, mut raw) = start();
    settle(&mut raw, "g", 9, 5);
    let of_types =
        |types: &[&str]| ListGroupsRequest::default().with_types_filter(types.iter().map(|t| text(t)).collect());
    for types in [&["share"][..], &["streams"], &["consumer"], &["no such type"]] {
        let answer = raw.call(5, &of_types(types));
        assert_eq!((answer.error_code, answer.groups.len()), (0, 0), "{types:?}");
    }
    let listed = raw.call(5, &of_types(&["share", "Classic"])).groups;
    assert_eq!(listed.iter().map(|group| group.group_type.as_str()).collect::<Vec<_>>(), ["classic"]);
    let key = text("g:AAAAAAAAAAAAAAAAAAAAAQ:0");
    for version in 4..=6 {
        let request = FindCoordinatorRequest::default().with_key_type(2).with_coordinator_keys(vec![key.clone()]);
        let found = raw.call(version, &request).coordinators.remove(0);
        assert_eq!((found.error_code, found.node_id.0, &found.key), (INVALID_REQUEST, -1, &key), "v{version}");
    }
    broker.stop();
}
