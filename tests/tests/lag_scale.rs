//! Consumer lag of many groups: 10,000 with 100,000 committed offsets on 100,000 partitions. The pages are complete,
//! and their latency is printed (`cargo test --release -p ottla-tests --test lag_scale -- --nocapture`).

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::net::SocketAddr;
use std::time::Instant;

use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    DescribeGroupsRequest, FindCoordinatorRequest, GroupId, ListGroupsRequest, OffsetCommitRequest, ProduceRequest,
};
use ottla_tests::batch::TestBatch;
use ottla_tests::process::Broker;
use ottla_tests::raw::{Raw, text, topic_name};

const TOPICS: usize = 10;
const GROUPS: i32 = 10_000;
/// Commits of one connection follow each other, each with a sync; those of many share syncs.
const CONNECTIONS: i32 = 50;

fn topic(number: usize) -> String {
    format!("many-{number}")
}

fn group(number: i32) -> GroupId {
    GroupId(text(&format!("group-{number:05}")))
}

/// One record in each partition of a topic.
fn produce_to_all(raw: &mut Raw, topic: &str) {
    let records = TestBatch::of(&[b"x"]).encode();
    let data = |index| PartitionProduceData::default().with_index(index).with_records(Some(records.clone()));
    let all =
        TopicProduceData::default().with_name(topic_name(topic)).with_partition_data((0..GROUPS).map(data).collect());
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![all]);
    let answer = raw.call(9, &request);
    assert!(answer.responses[0].partition_responses.iter().all(|partition| partition.error_code == 0));
}

/// Each group commits offset 0 of one partition of each topic, which no other group reads.
fn commit_of(number: i32) -> OffsetCommitRequest {
    let part = OffsetCommitRequestPartition::default().with_partition_index(number).with_committed_offset(0);
    let of_topic =
        |n| OffsetCommitRequestTopic::default().with_name(topic_name(&topic(n))).with_partitions(vec![part.clone()]);
    OffsetCommitRequest::default()
        .with_group_id(group(number))
        .with_generation_id_or_member_epoch(-1)
        .with_topics((0..TOPICS).map(of_topic).collect())
}

fn commit_all(to: SocketAddr) {
    let commit_some = |first: i32| {
        let mut raw = Raw::connect(to);
        let asked: Vec<_> = (first..GROUPS)
            .step_by(usize::try_from(CONNECTIONS).unwrap())
            .map(|number| raw.ask(7, &commit_of(number)))
            .collect();
        for correlation in asked {
            let answer = raw.answer::<OffsetCommitRequest>(7, correlation).unwrap();
            assert!(answer.topics.iter().all(|topic| topic.partitions[0].error_code == 0));
        }
    };
    std::thread::scope(|scope| (0..CONNECTIONS).for_each(|first| drop(scope.spawn(move || commit_some(first)))));
}

/// Does something and says how long it took.
fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let done = work();
    println!("{what}: {} ms", began.elapsed().as_millis());
    done
}

fn page(broker: &Broker, path: &str) -> String {
    let (status, body) = timed(path, || broker.http(path)).unwrap();
    assert_eq!(status, 200);
    println!("{path}: {} KiB", body.len() >> 10);
    body
}

#[test]
fn ten_thousand_groups_are_measured_and_shown() {
    let mut broker = Broker::start(&[]);
    let mut raw = Raw::connect(broker.address());
    timed("topics", || (0..TOPICS).for_each(|n| raw.create_topic(&topic(n), GROUPS, &[])));
    timed("records", || (0..TOPICS).for_each(|n| produce_to_all(&mut raw, &topic(n))));
    let find = FindCoordinatorRequest::default().with_key_type(0).with_coordinator_keys(vec![group(0).0]);
    assert_eq!(raw.call(4, &find).coordinators[0].error_code, 0);
    timed("commits", || commit_all(broker.address()));
    timed("measured", || {
        broker.wait_until("every group to be measured", 120, || {
            let page = broker.http("/metrics/groups?topic=many-9").unwrap().1;
            page.matches("kafka_consumergroup_lag{").count() == 10_000
        });
    });
    let groups = page(&broker, "/metrics/groups");
    let lags: Vec<_> = groups.lines().filter(|line| line.starts_with("kafka_consumergroup_lag{")).collect();
    assert_eq!(lags.len(), 100_000);
    assert!(lags.iter().all(|line| line.ends_with("} 1")), "a record waits in each partition");
    let default = page(&broker, "/metrics");
    assert!(!default.contains("kafka_consumergroup_lag{"), "single partitions have their own page");
    assert_eq!(default.matches("\nottla_consumergroup_lag_records{").count(), 10_000);
    assert!(default.contains("\nottla_consumergroup_omitted_series 200000\n"));
    let one = page(&broker, "/metrics/groups?scope=cluster&group=group-00077");
    assert_eq!(one.matches("kafka_consumergroup_lag{").count(), 10);
    let json = page(&broker, "/v1/groups");
    assert_eq!(json.matches("\"status\":\"OK\"").count(), 10_000);
    let listed = timed("ListGroups", || raw.call(4, &ListGroupsRequest::default()));
    assert_eq!(listed.groups.len(), 10_000);
    let all = DescribeGroupsRequest::default().with_groups((0..GROUPS).map(group).collect());
    let described = timed("DescribeGroups", || raw.call(5, &all));
    assert!(described.groups.iter().all(|group| group.error_code == 0 && group.group_state.as_str() == "Empty"));
    println!("memory: {} MiB", broker.resident_bytes() >> 20);
    broker.stop();
}
