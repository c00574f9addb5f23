//! What Kafka's own integration tests look at and few clients do: the first leader epoch, configs of groups and of subscriptions of
//! client metrics, limits that change, internal topics that are deleted.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::{
    CreatePartitionsRequest, DeleteTopicsRequest, DescribeConfigsRequest, FindCoordinatorRequest, GroupId,
    ListConfigResourcesRequest, OffsetCommitRequest, OffsetFetchRequest,
};
use ottla_tests::cluster::until;
use ottla_tests::process::Broker;
use ottla_tests::raw::{Raw, text, topic_name};

const INVALID_CONFIG: i16 = 40;
const INVALID_REQUEST: i16 = 42;
const BROKER: i8 = 4;
const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;
/// DescribeConfigs' numbers of sources.
const DEFAULT: i8 = 5;
const DYNAMIC_CLIENT_METRICS: i8 = 7;
const DYNAMIC_GROUP: i8 = 8;

/// A type of resource, and how many configs there are of it.
const OF_CLIENT_METRICS: (i8, usize) = (CLIENT_METRICS, 3);
const OF_GROUP: (i8, usize) = (GROUP, 27);

fn epochs(raw: &mut Raw, topic: &str) -> Vec<i32> {
    let mut partitions = raw.metadata(&[topic]).topics.remove(0).partitions;
    partitions.sort_by_key(|partition| partition.partition_index);
    partitions.iter().map(|partition| partition.leader_epoch).collect()
}

/// Also in a shard that has had many leaders, and after a partition of the same name.
#[test]
fn a_new_partition_has_leader_epoch_0() {
    let mut broker = Broker::start(&[]);
    let mut raw = Raw::connect(broker.address());
    raw.create_topic("t", 2, &[]);
    assert_eq!(epochs(&mut raw, "t"), [0, 0]);
    broker.kill();
    broker.run();
    let mut raw = Raw::connect(broker.address());
    let later = epochs(&mut raw, "t");
    assert!(later.iter().all(|epoch| *epoch > 0), "it was led again: {later:?}");
    let grow = CreatePartitionsTopic::default().with_name(topic_name("t")).with_count(3).with_assignments(None);
    let grow = CreatePartitionsRequest::default().with_topics(vec![grow]).with_timeout_ms(10_000);
    assert_eq!(raw.call(1, &grow).results[0].error_code, 0);
    assert_eq!(epochs(&mut raw, "t"), [later[0], later[1], 0]);
    let delete = DeleteTopicsRequest::default().with_topic_names(vec![topic_name("t")]).with_timeout_ms(10_000);
    assert_eq!(raw.call(1, &delete).responses[0].error_code, 0);
    raw.create_topic("t", 2, &[]);
    assert_eq!(epochs(&mut raw, "t"), [0, 0]);
    broker.stop();
}

fn set(raw: &mut Raw, name: &str, value: &str) -> i16 {
    raw.set_configs(GROUP, "readers", &[(name, value)]).error_code
}

/// Value and source of a config of the group or subscription, which has this many of them.
fn shown(raw: &mut Raw, (kind, count): (i8, usize), of: &str, name: &str) -> (String, i8) {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(of))
        .with_configuration_keys(None);
    let answer = raw.call(4, &DescribeConfigsRequest::default().with_resources(vec![resource]));
    let configs = &answer.results[0].configs;
    assert_eq!((answer.results[0].error_code, configs.len()), (0, count));
    let found = configs.iter().find(|config| config.name.as_str() == name).unwrap();
    (found.value.as_deref().unwrap().to_owned(), found.config_source)
}

#[test]
fn a_groups_configs_are_set_shown_and_kept() {
    let mut broker = Broker::start(&[]);
    let mut raw = Raw::connect(broker.address());
    let session = "consumer.session.timeout.ms";
    assert_eq!(shown(&mut raw, OF_GROUP, "readers", session), ("45000".to_owned(), DEFAULT));
    assert_eq!(set(&mut raw, session, "50000"), 0);
    assert_eq!(set(&mut raw, "streams.num.standby.replicas", "-1"), INVALID_CONFIG);
    assert_eq!(set(&mut raw, "retention.ms", "1"), INVALID_CONFIG);
    broker.kill();
    broker.run();
    let mut raw = Raw::connect(broker.address());
    assert_eq!(shown(&mut raw, OF_GROUP, "readers", session), ("50000".to_owned(), DYNAMIC_GROUP));
    assert_eq!(shown(&mut raw, OF_GROUP, "others", session), ("45000".to_owned(), DEFAULT));
    assert_eq!(listed(&mut raw, 1, vec![GROUP]), ["readers"]);
    broker.stop();
}

/// The names of the resources of these types; version 0 has no types.
fn listed(raw: &mut Raw, version: i16, types: Vec<i8>) -> Vec<String> {
    let answer = raw.call(version, &ListConfigResourcesRequest::default().with_resource_types(types));
    answer.config_resources.iter().map(|resource| resource.resource_name.to_string()).collect()
}

/// As on a Kafka broker that has no receiver of telemetry: they are kept and shown, and no client is asked for metrics.
#[test]
fn subscriptions_of_client_metrics_are_set_shown_and_kept() {
    let mut broker = Broker::start(&[]);
    let mut raw = Raw::connect(broker.address());
    let set = |raw: &mut Raw, name: &str, value: &str| {
        raw.set_configs(CLIENT_METRICS, "consumers", &[(name, value)]).error_code
    };
    assert_eq!(listed(&mut raw, 0, Vec::new()), [""; 0]);
    assert_eq!(set(&mut raw, "interval.ms", "10000"), 0);
    assert_eq!(set(&mut raw, "interval.ms", "10"), INVALID_REQUEST);
    assert_eq!(set(&mut raw, "match", "client_id=("), INVALID_CONFIG);
    assert_eq!(raw.set_configs(CLIENT_METRICS, "", &[("interval.ms", "10000")]).error_code, INVALID_REQUEST);
    broker.kill();
    broker.run();
    let mut raw = Raw::connect(broker.address());
    let interval = shown(&mut raw, OF_CLIENT_METRICS, "consumers", "interval.ms");
    assert_eq!(interval, ("10000".to_owned(), DYNAMIC_CLIENT_METRICS));
    assert_eq!(shown(&mut raw, OF_CLIENT_METRICS, "consumers", "match"), (String::new(), DEFAULT));
    for (version, types) in [(0, Vec::new()), (1, vec![CLIENT_METRICS])] {
        assert_eq!(listed(&mut raw, version, types), ["consumers"]);
    }
    broker.stop();
}

/// Limits on connections that change while the node runs, for one address and for all.
#[test]
fn limits_on_connections_change_at_once() {
    let mut broker = Broker::start(&[]);
    let mut raw = Raw::connect(broker.address());
    let mut limit =
        |value: &str| raw.set_configs(BROKER, "", &[("max.connections.per.ip.overrides", value)]).error_code;
    assert_eq!(limit("127.0.0.1"), INVALID_CONFIG);
    assert_eq!(limit("127.0.0.1:2"), 0);
    let mut second = Raw::connect(broker.address());
    second.create_topic("t", 1, &[]);
    assert!(Raw::connect(broker.address()).is_closed(), "a third one is closed");
    assert_eq!(limit("127.0.0.1:3"), 0);
    Raw::connect(broker.address()).create_topic("u", 1, &[]);
    broker.stop();
}

/// As Kafka allows it; a group that goes on finds a new coordinator, which knows nothing of it.
#[test]
fn with_consumer_offsets_go_all_groups() {
    let mut broker = Broker::start(&[]);
    let mut raw = Raw::connect(broker.address());
    raw.create_topic("t", 1, &[]);
    let committed = |raw: &mut Raw| {
        let topic = OffsetFetchRequestTopic::default().with_name(topic_name("t")).with_partition_indexes(vec![0]);
        let asked = OffsetFetchRequest::default().with_group_id(GroupId(text("g"))).with_topics(Some(vec![topic]));
        let answer = raw.call(7, &asked);
        (answer.error_code, answer.topics.first().map(|topic| topic.partitions[0].committed_offset))
    };
    let commit = |raw: &mut Raw, offset: i64| {
        let partition = OffsetCommitRequestPartition::default().with_committed_offset(offset);
        let topic = OffsetCommitRequestTopic::default().with_name(topic_name("t")).with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default().with_group_id(GroupId(text("g"))).with_topics(vec![topic]);
        until("the commit is taken", || raw.call(7, &request).topics[0].partitions[0].error_code == 0);
    };
    let find = |raw: &mut Raw| {
        let request = FindCoordinatorRequest::default().with_key(text("g"));
        until("the coordinator is found", || raw.call(3, &request).error_code == 0);
    };
    find(&mut raw);
    commit(&mut raw, 7);
    assert_eq!(committed(&mut raw), (0, Some(7)));

    let delete =
        DeleteTopicsRequest::default().with_topic_names(vec![topic_name("__consumer_offsets")]).with_timeout_ms(10_000);
    assert_eq!(raw.call(1, &delete).responses[0].error_code, 0);
    assert_ne!(raw.metadata(&["__consumer_offsets"]).topics[0].error_code, 0, "it is gone");
    find(&mut raw);
    until("the new coordinator serves", || committed(&mut raw).0 == 0);
    assert_eq!(committed(&mut raw), (0, Some(-1)));
    commit(&mut raw, 1);
    assert_eq!(committed(&mut raw), (0, Some(1)));
    broker.stop();
}

const BROKER_LOGGER: i8 = 8;
const DYNAMIC_BROKER_LOGGER: i8 = 6;

/// Levels of loggers change at once, last until the node stops, and are shown by the node whose they are (KIP-412).
#[test]
fn log_levels_change_while_a_node_runs() {
    let mut broker = Broker::start(&[("KAFKA_NODE_ID", "3")]);
    let mut raw = Raw::connect(broker.address());
    let level = |raw: &mut Raw, logger: &str| {
        let resource = DescribeConfigsResource::default()
            .with_resource_type(BROKER_LOGGER)
            .with_resource_name(text("3"))
            .with_configuration_keys(Some(vec![text(logger)]));
        let answer = raw.call(4, &DescribeConfigsRequest::default().with_resources(vec![resource]));
        let found = answer.results[0].configs.first().expect("the logger is shown");
        assert!(found.config_source == DYNAMIC_BROKER_LOGGER && !found.read_only);
        found.value.as_ref().unwrap().to_string()
    };
    assert_eq!((level(&mut raw, "root"), level(&mut raw, "ottla_broker::handlers")), ("INFO".into(), "INFO".into()));
    let set =
        |raw: &mut Raw, node: &str, levels: &[(&str, &str)]| raw.set_configs(BROKER_LOGGER, node, levels).error_code;
    assert_eq!(set(&mut raw, "3", &[("ottla_broker", "DEBUG"), ("root", "WARN")]), 0);
    assert_eq!((level(&mut raw, "root"), level(&mut raw, "ottla_broker::handlers")), ("WARN".into(), "DEBUG".into()));
    assert_eq!(set(&mut raw, "3", &[("ottla_broker", "INFO"), ("kafka.server", "DEBUG")]), INVALID_CONFIG);
    assert_eq!(set(&mut raw, "3", &[("ottla_broker", "LOUD")]), INVALID_CONFIG);
    assert_eq!(set(&mut raw, "4", &[("root", "INFO")]), INVALID_REQUEST);
    assert_eq!(set(&mut raw, "", &[("root", "INFO")]), INVALID_REQUEST);
    assert_eq!(level(&mut raw, "ottla_broker"), "DEBUG");
    broker.kill();
    broker.run();
    assert_eq!(level(&mut Raw::connect(broker.address()), "ottla_broker"), "INFO");
    broker.stop();
}
