//! Fetch and group requests with one error each: the right Kafka error, and no state changes.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::{
    BrokerId, DeleteRecordsRequest, FetchRequest, FindCoordinatorRequest, GroupId, HeartbeatRequest, JoinGroupRequest,
    OffsetCommitRequest, SyncGroupRequest,
};
use ottla_tests::batch::TestBatch;
use ottla_tests::process::Broker;
use ottla_tests::raw::{Raw, text, topic_name};

const OFFSET_OUT_OF_RANGE: i16 = 1;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const OFFSET_METADATA_TOO_LARGE: i16 = 12;
const ILLEGAL_GENERATION: i16 = 22;
const INVALID_GROUP_ID: i16 = 24;
const UNKNOWN_MEMBER_ID: i16 = 25;
const INVALID_SESSION_TIMEOUT: i16 = 26;
const FETCH_SESSION_ID_NOT_FOUND: i16 = 70;
const INVALID_FETCH_SESSION_EPOCH: i16 = 71;
const FENCED_LEADER_EPOCH: i16 = 74;
const UNKNOWN_LEADER_EPOCH: i16 = 75;
const MEMBER_ID_REQUIRED: i16 = 79;

fn start() -> (Broker, Raw) {
    let broker = Broker::start(&[]);
    let mut raw = Raw::connect(broker.address());
    raw.create_topic("t", 1, &[]);
    for _ in 0..3 {
        assert_eq!(raw.produce("t", 0, TestBatch::of(&[b"a", b"b"]).encode()).error_code, 0);
    }
    (broker, raw)
}

fn fetch_with(epoch: i32, session: (i32, i32)) -> FetchRequest {
    let part = FetchPartition::default().with_current_leader_epoch(epoch).with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default().with_topic(topic_name("t")).with_partitions(vec![part]);
    let request = FetchRequest::default().with_replica_id(BrokerId(-1)).with_max_wait_ms(100).with_min_bytes(1);
    request.with_max_bytes(1 << 20).with_session_id(session.0).with_session_epoch(session.1).with_topics(vec![topic])
}

/// librdkafka's test 0081 asks so.
#[test]
fn records_are_deleted_for_a_client_that_waits_for_no_follower() {
    let (mut broker, mut raw) = start();
    let part = DeleteRecordsPartition::default().with_partition_index(0).with_offset(3);
    let topic = DeleteRecordsTopic::default().with_name(topic_name("t")).with_partitions(vec![part]);
    let answer = raw.call(2, &DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(0));
    let part = &answer.topics[0].partitions[0];
    assert_eq!((part.error_code, part.low_watermark), (0, 3));
    broker.stop();
}

#[test]
fn offsets_outside_the_partition_are_out_of_range_at_once() {
    let (mut broker, mut raw) = start();
    for offset in [-1, 7, i64::MAX] {
        let answer = raw.fetch("t", 0, offset, 30_000);
        assert_eq!(answer.responses[0].partitions[0].error_code, OFFSET_OUT_OF_RANGE, "offset {offset}");
    }
    let at_the_end = raw.fetch("t", 0, 6, 50);
    assert_eq!(at_the_end.responses[0].partitions[0].error_code, 0, "the end waits, it is not out of range");
    for partition in [-1, 1, i32::MAX] {
        assert_eq!(
            raw.fetch("t", partition, 0, 30_000).responses[0].partitions[0].error_code,
            UNKNOWN_TOPIC_OR_PARTITION
        );
    }
    let within = raw.fetch("t", 0, 1, 100);
    assert!(within.responses[0].partitions[0].records.as_ref().unwrap().len() > 61, "the whole batch that contains it");
    broker.stop();
}

#[test]
fn sessions_and_epochs_that_do_not_fit() {
    let (mut broker, mut raw) = start();
    assert_eq!(raw.call(11, &fetch_with(-1, (12345, 1))).error_code, FETCH_SESSION_ID_NOT_FOUND);
    let session = raw.call(11, &fetch_with(-1, (0, 0))).session_id;
    assert_ne!(session, 0);
    assert_eq!(raw.call(11, &fetch_with(-1, (session, 7))).error_code, INVALID_FETCH_SESSION_EPOCH);
    let epoch = |raw: &mut Raw, epoch| raw.call(11, &fetch_with(epoch, (0, -1))).responses[0].partitions[0].error_code;
    assert_eq!(epoch(&mut raw, 1_000_000), UNKNOWN_LEADER_EPOCH);
    assert_eq!(epoch(&mut raw, 0), 0);
    broker.kill();
    broker.run();
    let mut raw = Raw::connect(broker.address());
    assert_eq!(epoch(&mut raw, 0), FENCED_LEADER_EPOCH, "it was led again");
    broker.stop();
}

fn join(group: &str, session_ms: i32) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(vec![0, 0].into());
    JoinGroupRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_session_timeout_ms(session_ms)
        .with_rebalance_timeout_ms(10_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}

#[test]
fn groups_members_and_generations_that_do_not_exist() {
    let (mut broker, mut raw) = start();
    let find = FindCoordinatorRequest::default().with_key_type(0).with_coordinator_keys(vec![text("g")]);
    assert_eq!(raw.call(4, &find).coordinators[0].error_code, 0);
    assert_eq!(raw.call(5, &join("", 10_000)).error_code, INVALID_GROUP_ID);
    assert_eq!(raw.call(5, &join("g", 1)).error_code, INVALID_SESSION_TIMEOUT);
    assert_eq!(raw.call(5, &join("g", i32::MAX)).error_code, INVALID_SESSION_TIMEOUT);
    assert_eq!(raw.call(5, &join("g", 10_000)).error_code, MEMBER_ID_REQUIRED);
    let ghost = join("g", 10_000).with_member_id(text("ghost"));
    assert_eq!(raw.call(5, &ghost).error_code, UNKNOWN_MEMBER_ID);
    let beat = HeartbeatRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_member_id(text("ghost"))
        .with_generation_id(1);
    assert_eq!(raw.call(3, &beat).error_code, UNKNOWN_MEMBER_ID);
    let sync = SyncGroupRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_member_id(text("ghost"))
        .with_generation_id(1);
    assert_eq!(raw.call(3, &sync).error_code, UNKNOWN_MEMBER_ID);
    broker.stop();
}

fn commit(generation: i32, member: &str, metadata: &str) -> OffsetCommitRequest {
    let part =
        OffsetCommitRequestPartition::default().with_committed_offset(3).with_committed_metadata(Some(text(metadata)));
    let topic = OffsetCommitRequestTopic::default().with_name(topic_name("t")).with_partitions(vec![part]);
    OffsetCommitRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_generation_id_or_member_epoch(generation)
        .with_member_id(text(member))
        .with_topics(vec![topic])
}

#[test]
fn commits_of_zombies_are_refused_and_those_of_members_count() {
    let (mut broker, mut raw) = start();
    let find = FindCoordinatorRequest::default().with_key_type(0).with_coordinator_keys(vec![text("g")]);
    assert_eq!(raw.call(4, &find).coordinators[0].error_code, 0);
    let code = |raw: &mut Raw, request: &OffsetCommitRequest| raw.call(7, request).topics[0].partitions[0].error_code;
    assert_eq!(code(&mut raw, &commit(-1, "", "")), 0, "a simple consumer");
    assert_eq!(code(&mut raw, &commit(-1, "", &"m".repeat(5000))), OFFSET_METADATA_TOO_LARGE);
    let first = raw.call(5, &join("g", 10_000));
    let member = first.member_id.clone();
    let joined = raw.call(5, &join("g", 10_000).with_member_id(member.clone()));
    assert_eq!(joined.error_code, 0);
    let sync = SyncGroupRequest::default().with_group_id(GroupId(text("g"))).with_member_id(member.clone());
    assert_eq!(raw.call(3, &sync.with_generation_id(joined.generation_id)).error_code, 0);
    let generation = joined.generation_id;
    assert_eq!(code(&mut raw, &commit(generation, &member, "")), 0);
    assert_eq!(code(&mut raw, &commit(generation - 1, &member, "")), ILLEGAL_GENERATION);
    assert_eq!(code(&mut raw, &commit(generation, "ghost", "")), UNKNOWN_MEMBER_ID);
    broker.stop();
}
