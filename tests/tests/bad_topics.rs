//! Invalid topic names, counts and configs: the right Kafka error, and no topic is created.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    CreatePartitionsRequest, DeleteTopicsRequest, MetadataRequest, create_partitions_request::CreatePartitionsTopic,
};
use ottla_tests::process::Broker;
use ottla_tests::raw::{Raw, topic_name};

const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const INVALID_TOPIC_EXCEPTION: i16 = 17;
const TOPIC_ALREADY_EXISTS: i16 = 36;
const INVALID_PARTITIONS: i16 = 37;
const INVALID_REPLICATION_FACTOR: i16 = 38;
const INVALID_CONFIG: i16 = 40;
const POLICY_VIOLATION: i16 = 44;

fn start() -> (Broker, Raw) {
    let broker = Broker::start(&[]);
    let raw = Raw::connect(broker.address());
    (broker, raw)
}

#[test]
fn names_that_are_no_topic_names() {
    let (mut broker, mut raw) = start();
    let long = "x".repeat(250);
    for name in [".", "..", "", "../../etc", "a/b", "nul\0", "späße", "a b", &long] {
        assert_eq!(raw.try_create_topic(name, 1, 1, &[]), INVALID_TOPIC_EXCEPTION, "{name:?}");
    }
    raw.create_topic("a.b", 1, &[]);
    assert_eq!(raw.try_create_topic("a_b", 1, 1, &[]), INVALID_TOPIC_EXCEPTION, "collides with a.b in metric names");
    assert_eq!(raw.try_create_topic("a.b", 1, 1, &[]), TOPIC_ALREADY_EXISTS);
    raw.create_topic(&"y".repeat(249), 1, &[]);
    broker.stop();
}

#[test]
fn counts_factors_and_configs_out_of_range() {
    let (mut broker, mut raw) = start();
    assert_eq!(raw.try_create_topic("t", 0, 1, &[]), INVALID_PARTITIONS);
    assert_eq!(raw.try_create_topic("t", -2, 1, &[]), INVALID_PARTITIONS);
    assert_eq!(raw.try_create_topic("t", 1, 0, &[]), INVALID_REPLICATION_FACTOR);
    assert_eq!(raw.try_create_topic("t", 1, 3, &[]), INVALID_REPLICATION_FACTOR, "more replicas than brokers");
    let absurd = raw.try_create_topic("t", 1_000_000_000, 1, &[]);
    assert!([POLICY_VIOLATION, INVALID_PARTITIONS].contains(&absurd), "error {absurd}");
    for (key, value) in
        [("retention.ms", "abc"), ("retention.ms", "-2"), ("cleanup.policy", "shred"), ("no.such.config", "1")]
    {
        assert_eq!(raw.try_create_topic("t", 1, 1, &[(key, value)]), INVALID_CONFIG, "{key}={value}");
    }
    raw.create_topic("t", 2, &[]);
    for (count, code) in [(2, INVALID_PARTITIONS), (1, INVALID_PARTITIONS), (-1, INVALID_PARTITIONS), (3, 0)] {
        let topic =
            CreatePartitionsTopic::default().with_name(topic_name("t")).with_count(count).with_assignments(None);
        let request = CreatePartitionsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
        assert_eq!(raw.call(1, &request).results[0].error_code, code, "{count} partitions");
    }
    broker.stop();
}

#[test]
fn topics_that_are_not_there_and_come_back_with_a_new_id() {
    let (mut broker, mut raw) = start();
    let delete = |raw: &mut Raw| {
        let request = DeleteTopicsRequest::default().with_topic_names(vec![topic_name("t")]).with_timeout_ms(10_000);
        raw.call(5, &request).responses[0].error_code
    };
    assert_eq!(delete(&mut raw), UNKNOWN_TOPIC_OR_PARTITION);
    let id = |raw: &mut Raw| {
        let wanted = MetadataRequestTopic::default().with_name(Some(topic_name("t")));
        let request = MetadataRequest::default().with_topics(Some(vec![wanted])).with_allow_auto_topic_creation(false);
        raw.call(12, &request).topics[0].topic_id
    };
    raw.create_topic("t", 1, &[]);
    let first = id(&mut raw);
    assert!(!first.is_nil());
    assert_eq!(raw.produce("t", 0, ottla_tests::batch::TestBatch::of(&[b"old"]).encode()).error_code, 0);
    assert_eq!(delete(&mut raw), 0);
    raw.create_topic("t", 1, &[]);
    assert_ne!(id(&mut raw), first);
    assert_eq!(raw.list_offset("t", 0, -1), (0, 0), "nothing of the old topic is in the new one");
    broker.stop();
}

#[test]
fn metadata_that_names_a_hundred_thousand_topics_creates_no_storm() {
    let (mut broker, mut raw) = start();
    let before = broker.resident_bytes();
    let wanted = |n: i32| MetadataRequestTopic::default().with_name(Some(topic_name(&format!("storm-{n}"))));
    let request = MetadataRequest::default()
        .with_topics(Some((0..100_000).map(wanted).collect()))
        .with_allow_auto_topic_creation(false);
    let correlation = raw.ask(9, &request);
    if let Some(answer) = raw.answer::<MetadataRequest>(9, correlation) {
        assert!(answer.topics.iter().all(|t| t.error_code == UNKNOWN_TOPIC_OR_PARTITION));
    }
    assert!(broker.resident_bytes() < before + (256 << 20));
    let mut other = Raw::connect(broker.address());
    let all = other.call(9, &MetadataRequest::default().with_topics(None));
    assert!(all.topics.iter().all(|t| !t.name.as_ref().unwrap().0.starts_with("storm-")));
    broker.stop();
}
