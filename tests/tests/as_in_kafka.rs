//! What Kafka's own integration tests look at and few clients do: the first leader epoch, configs of groups, limits that change.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::{
    CreatePartitionsRequest, DeleteTopicsRequest, DescribeConfigsRequest, ListConfigResourcesRequest,
};
use ottla_tests::process::Broker;
use ottla_tests::raw::{Raw, text, topic_name};

const INVALID_CONFIG: i16 = 40;
const BROKER: i8 = 4;
const GROUP: i8 = 32;
/// DescribeConfigs' numbers of sources.
const DEFAULT: i8 = 5;
const DYNAMIC_GROUP: i8 = 8;

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

/// Value and source of a config of the group.
fn shown(raw: &mut Raw, group: &str, name: &str) -> (String, i8) {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(GROUP)
        .with_resource_name(text(group))
        .with_configuration_keys(None);
    let answer = raw.call(4, &DescribeConfigsRequest::default().with_resources(vec![resource]));
    let configs = &answer.results[0].configs;
    assert_eq!((answer.results[0].error_code, configs.len()), (0, 27));
    let found = configs.iter().find(|config| config.name.as_str() == name).unwrap();
    (found.value.as_deref().unwrap().to_owned(), found.config_source)
}

#[test]
fn a_groups_configs_are_set_shown_and_kept() {
    let mut broker = Broker::start(&[]);
    let mut raw = Raw::connect(broker.address());
    let session = "consumer.session.timeout.ms";
    assert_eq!(shown(&mut raw, "readers", session), ("45000".to_owned(), DEFAULT));
    assert_eq!(set(&mut raw, session, "50000"), 0);
    assert_eq!(set(&mut raw, "streams.num.standby.replicas", "-1"), INVALID_CONFIG);
    assert_eq!(set(&mut raw, "retention.ms", "1"), INVALID_CONFIG);
    broker.kill();
    broker.run();
    let mut raw = Raw::connect(broker.address());
    assert_eq!(shown(&mut raw, "readers", session), ("50000".to_owned(), DYNAMIC_GROUP));
    assert_eq!(shown(&mut raw, "others", session), ("45000".to_owned(), DEFAULT));
    let listed = raw.call(1, &ListConfigResourcesRequest::default().with_resource_types(vec![GROUP]));
    let listed: Vec<_> = listed.config_resources.iter().map(|resource| resource.resource_name.as_str()).collect();
    assert_eq!(listed, ["readers"]);
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
