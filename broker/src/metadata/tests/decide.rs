//! Decisions: refusals and their codes, placements.

use std::collections::BTreeMap;
use std::sync::Arc;

use ottla_protocol::error::ErrorCode;
use ottla_protocol::ids::NodeId;
use ottla_storage::ids::{RaftIndex, ReplicaId};
use uuid::Uuid;

use crate::config::{Config, Inputs};
use crate::levels::{FeatureLevel, Levels};
use crate::metadata::command::Command;
use crate::metadata::decide::{ControllerRequest, ControllerResponse, decide};
use crate::metadata::image::{NodeRecord, ReplicaRecord, ShardId, ShardKind};
use crate::metadata::registration::NodeRegistration;
use crate::metadata::requests::*;
use crate::metadata::state_machine::{MetadataStateMachine, Outcome};
use crate::metadata::tests::placement::{apply, cluster, node};

fn found(config: Config) -> MetadataStateMachine {
    let mut machine = MetadataStateMachine::new(Arc::new(config));
    let local = node(1, None, &[100]);
    let directory = local.directories[0].id;
    let founders = vec![ReplicaRecord { id: ReplicaId(1), node: NodeId(1), directory }];
    let registration = NodeRegistration { node: local, cluster_id: "abc".into(), founders, lost: Vec::new() };
    submit(&mut machine, ControllerRequest::RegisterNode(Box::new(registration))).unwrap();
    machine
}

fn machine() -> MetadataStateMachine {
    found(Config::default())
}

fn submit(machine: &mut MetadataStateMachine, request: ControllerRequest) -> Result<ControllerResponse, ErrorCode> {
    let decided = decide(machine.image(), &request).map_err(|error| error.code())?;
    let index = RaftIndex(machine.image().index.0 + 1);
    machine.advance(index);
    for command in decided.commands {
        let outcome = machine.apply_command(index, command.clone());
        assert!(!matches!(outcome, Outcome::Refused(_)), "{outcome:?} for {command:?}");
    }
    Ok(decided.response)
}

fn create(machine: &mut MetadataStateMachine, topic: NewTopic) -> Result<CreatedTopic, ErrorCode> {
    let id = Uuid::from_u128(u128::from(machine.image().index.0) + 1_000);
    match submit(machine, ControllerRequest::CreateTopic { topic, id })? {
        ControllerResponse::Topic(topic) => Ok(topic),
        other => panic!("{other:?}"),
    }
}

fn named(name: &str) -> NewTopic {
    NewTopic { name: name.to_owned(), ..NewTopic::default() }
}

fn configs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn the_first_node_founds_the_cluster_and_its_pool() {
    let mut machine = machine();
    let image = machine.image();
    assert_eq!(&*image.cluster_id, "abc");
    let kinds: Vec<_> = image.shards.values().map(|shard| shard.kind).collect();
    let pool = ShardKind::Pool { factor: 1, pinned: false };
    assert_eq!(kinds, [ShardKind::Metadata, pool, pool]);
    let replicas: Vec<_> = image.shards.values().map(|shard| shard.replicas[0].id.0).collect();
    assert_eq!(replicas, [1, 2, 3]);
    // A second start registers again and creates nothing.
    let epoch = image.nodes[&NodeId(1)].epoch;
    let local = node(1, None, &[50]);
    let registration =
        NodeRegistration { node: local, cluster_id: "other".into(), founders: Vec::new(), lost: Vec::new() };
    submit(&mut machine, ControllerRequest::RegisterNode(Box::new(registration))).unwrap();
    assert_eq!((machine.image().shards.len(), &*machine.image().cluster_id), (3, "abc"));
    assert!(machine.image().nodes[&NodeId(1)].epoch > epoch);
}

#[test]
fn defaults_come_from_the_configuration() {
    let mut machine = machine();
    let topic = create(&mut machine, named("t")).unwrap();
    assert_eq!((topic.partitions, topic.factor), (1, 1));
    assert_eq!(create(&mut machine, named("t")), Err(ErrorCode::TopicAlreadyExists));
}

#[test]
fn what_is_not_allowed_is_refused_with_kafkas_code() {
    let mut machine = machine();
    create(&mut machine, named("a.b")).unwrap();
    let topic = |change: fn(&mut NewTopic)| {
        let mut topic = named("x");
        change(&mut topic);
        topic
    };
    for (topic, code) in [
        (named(""), ErrorCode::InvalidTopic),
        (named("../../etc"), ErrorCode::InvalidTopic),
        (named("a_b"), ErrorCode::InvalidTopic),
        (named("__cluster_metadata"), ErrorCode::InvalidTopic),
        (named("a.b"), ErrorCode::TopicAlreadyExists),
        (topic(|t| t.partitions = Some(0)), ErrorCode::InvalidPartitions),
        (topic(|t| t.partitions = Some(-2)), ErrorCode::InvalidPartitions),
        (topic(|t| t.partitions = Some(1_000_000_000)), ErrorCode::PolicyViolation),
        (topic(|t| t.factor = Some(0)), ErrorCode::InvalidReplicationFactor),
        (topic(|t| t.factor = Some(2)), ErrorCode::InvalidReplicationFactor),
        (topic(|t| t.configs = configs(&[("retention.mss", "1")])), ErrorCode::InvalidConfig),
        (topic(|t| t.configs = configs(&[("retention.ms", "x")])), ErrorCode::InvalidConfig),
        (topic(|t| t.assignments = vec![(1, vec![NodeId(1)])]), ErrorCode::InvalidReplicaAssignment),
        (topic(|t| t.assignments = vec![(0, vec![NodeId(7)])]), ErrorCode::InvalidReplicaAssignment),
        (topic(|t| t.assignments = vec![(0, vec![])]), ErrorCode::InvalidReplicaAssignment),
        (topic(|t| t.assignments = vec![(0, vec![NodeId(1), NodeId(1)])]), ErrorCode::InvalidReplicaAssignment),
        (
            topic(|t| {
                t.assignments = vec![(0, vec![NodeId(1)])];
                t.partitions = Some(1);
            }),
            ErrorCode::InvalidRequest,
        ),
    ] {
        assert_eq!(create(&mut machine, topic.clone()), Err(code), "{topic:?}");
    }
}

#[test]
fn the_number_of_all_partitions_is_limited() {
    let file = Some(("f".to_owned(), "ottla.cluster.partitions.max=10".to_owned()));
    let mut machine = found(crate::config::load(&Inputs { file, ..Inputs::default() }).unwrap().config);
    create(&mut machine, NewTopic { partitions: Some(8), ..named("a") }).unwrap();
    let more = NewTopic { partitions: Some(3), ..named("b") };
    assert_eq!(create(&mut machine, more), Err(ErrorCode::PolicyViolation));
    create(&mut machine, NewTopic { partitions: Some(2), ..named("b") }).unwrap();
    let grow = NewPartitions { topic: "b".into(), count: 3, assignments: None };
    assert_eq!(submit(&mut machine, ControllerRequest::CreatePartitions(grow)), Err(ErrorCode::PolicyViolation));
}

#[test]
fn an_assignment_by_hand_to_the_only_node_lies_in_the_default_pool() {
    let mut machine = machine();
    let topic = NewTopic { assignments: vec![(1, vec![NodeId(1)]), (0, vec![NodeId(1)])], ..named("t") };
    let made = create(&mut machine, topic).unwrap();
    assert_eq!((made.partitions, made.factor, machine.image().shards.len()), (2, 1, 3));
}

#[test]
fn two_replicas_become_three_where_three_nodes_are() {
    let mut machine = cluster((1..=3).map(|id| node(id, None, &[100])).collect());
    let made = create(&mut machine, NewTopic { factor: Some(2), ..named("t") }).unwrap();
    assert_eq!(made.factor, 3);
}

#[test]
fn partitions_are_added_and_never_removed() {
    let mut machine = machine();
    create(&mut machine, NewTopic { partitions: Some(3), ..named("t") }).unwrap();
    let grow = |count, assignments: Option<Vec<Vec<NodeId>>>| {
        ControllerRequest::CreatePartitions(NewPartitions { topic: "t".into(), count, assignments })
    };
    assert_eq!(submit(&mut machine, grow(3, None)), Err(ErrorCode::InvalidPartitions));
    assert_eq!(submit(&mut machine, grow(2, None)), Err(ErrorCode::InvalidPartitions));
    let one = Some(vec![vec![NodeId(1)]]);
    assert_eq!(submit(&mut machine, grow(5, one.clone())), Err(ErrorCode::InvalidReplicaAssignment));
    assert_eq!(submit(&mut machine, grow(4, one)), Ok(ControllerResponse::Done));
    assert_eq!(submit(&mut machine, grow(6, None)), Ok(ControllerResponse::Done));
    let topic = machine.image().topic("t").unwrap();
    assert_eq!(topic.partition_count(), 6);
    assert!(topic.route(5).unwrap().intent > topic.route(0).unwrap().intent);
    let missing = NewPartitions { topic: "none".into(), count: 2, assignments: None };
    assert_eq!(
        submit(&mut machine, ControllerRequest::CreatePartitions(missing)),
        Err(ErrorCode::UnknownTopicOrPartition)
    );
}

#[test]
fn internal_topics_lie_apart_and_are_protected() {
    let mut machine = machine();
    let ensure =
        |id| ControllerRequest::EnsureInternal { topic: InternalTopic::ConsumerOffsets, id: Uuid::from_u128(id) };
    submit(&mut machine, ensure(5)).unwrap();
    let Ok(ControllerResponse::Topic(again)) = submit(&mut machine, ensure(6)) else { panic!("no topic") };
    assert_eq!((again.id, again.partitions), (Uuid::from_u128(5), 50));
    let image = machine.image();
    let topic = image.topic("__consumer_offsets").unwrap();
    assert!(topic.internal && topic.config.cleanup_policy.compact && !topic.config.cleanup_policy.delete);
    assert!(topic.partitions.iter().all(|route| image.shard(route.shard).unwrap().kind == ShardKind::ConsumerOffsets));
    let name = || "__consumer_offsets".to_owned();
    let grow = NewPartitions { topic: name(), count: 60, assignments: None };
    assert_eq!(submit(&mut machine, ControllerRequest::CreatePartitions(grow)), Err(ErrorCode::InvalidTopic));
    let change = ConfigChange {
        owner: ConfigOwner::Topic(name()),
        ops: vec![("cleanup.policy".into(), ConfigOp::Set("delete".into()))],
        replace: false,
    };
    assert_eq!(submit(&mut machine, ControllerRequest::ChangeConfig(change)), Err(ErrorCode::InvalidConfig));
    let user = create(&mut machine, NewTopic { partitions: Some(10), ..named("t") }).unwrap();
    let image = machine.image();
    let routes = &image.topic_by_id(&user.id).unwrap().partitions;
    assert!(routes.iter().all(|route| matches!(image.shard(route.shard).unwrap().kind, ShardKind::Pool { .. })));
}

/// As in Kafka: tools and tests make it before the first group does, and delete it.
#[test]
fn a_client_may_create_and_delete_an_internal_topic() {
    let mut machine = machine();
    let wanted = |partitions, policy: &str| NewTopic {
        partitions: Some(partitions),
        factor: Some(1),
        configs: configs(&[("cleanup.policy", policy), ("segment.bytes", "1000")]),
        ..named("__consumer_offsets")
    };
    assert_eq!(create(&mut machine, wanted(7, "delete")), Err(ErrorCode::InvalidConfig));
    assert_eq!(create(&mut machine, wanted(0, "compact")), Err(ErrorCode::InvalidPartitions));
    let made = create(&mut machine, wanted(7, "compact")).unwrap();
    assert_eq!((made.partitions, made.factor), (7, 1));
    let image = machine.image();
    let topic = image.topic("__consumer_offsets").unwrap();
    assert!(topic.internal && topic.config.cleanup_policy.compact);
    assert!(topic.partitions.iter().all(|route| image.shard(route.shard).unwrap().kind == ShardKind::ConsumerOffsets));
    let expected = [("cleanup.policy", "compact"), ("compression.type", "producer"), ("segment.bytes", "1000")];
    assert_eq!(*topic.overrides, configs(&expected));
    assert_eq!(create(&mut machine, wanted(7, "compact")), Err(ErrorCode::TopicAlreadyExists));
    let ensure =
        |id| ControllerRequest::EnsureInternal { topic: InternalTopic::ConsumerOffsets, id: Uuid::from_u128(id) };
    let Ok(ControllerResponse::Topic(again)) = submit(&mut machine, ensure(6)) else { panic!("no topic") };
    assert_eq!((again.id, again.partitions), (made.id, 7));

    // And may delete it. It is made again in the shards that it had.
    let shards = |machine: &MetadataStateMachine| machine.image().shards.keys().copied().collect::<Vec<_>>();
    let before = shards(&machine);
    let name = "__consumer_offsets".to_owned();
    let deleted = submit(&mut machine, ControllerRequest::DeleteTopic(TopicName::Name(name.clone())));
    assert_eq!(deleted, Ok(ControllerResponse::Deleted { name, id: made.id }));
    let Ok(ControllerResponse::Topic(again)) = submit(&mut machine, ensure(8)) else { panic!("no topic") };
    assert_eq!((again.id, again.partitions), (Uuid::from_u128(8), 50));
    assert_eq!(shards(&machine), before);
}

#[test]
fn topics_are_deleted_by_name_and_by_id() {
    let mut machine = machine();
    let made = create(&mut machine, named("t")).unwrap();
    let by_id = ControllerRequest::DeleteTopic(TopicName::Id(made.id));
    assert_eq!(submit(&mut machine, by_id.clone()), Ok(ControllerResponse::Deleted { name: "t".into(), id: made.id }));
    assert_eq!(submit(&mut machine, by_id), Err(ErrorCode::UnknownTopicId));
    let by_name = ControllerRequest::DeleteTopic(TopicName::Name("t".into()));
    assert_eq!(submit(&mut machine, by_name), Err(ErrorCode::UnknownTopicOrPartition));
}

fn change(owner: ConfigOwner, ops: &[(&str, ConfigOp)], replace: bool) -> ControllerRequest {
    let ops = ops.iter().map(|(name, op)| ((*name).to_owned(), op.clone())).collect();
    ControllerRequest::ChangeConfig(ConfigChange { owner, ops, replace })
}

fn set(value: &str) -> ConfigOp {
    ConfigOp::Set(value.to_owned())
}

#[test]
fn topic_configs_change_one_by_one_or_all_at_once() {
    let mut machine = machine();
    create(&mut machine, NewTopic { configs: configs(&[("retention.ms", "1")]), ..named("t") }).unwrap();
    let topic = || ConfigOwner::Topic("t".to_owned());
    let overrides = |machine: &MetadataStateMachine| machine.image().topic("t").unwrap().overrides.as_ref().clone();
    let append = ConfigOp::Append("compact".into());
    submit(&mut machine, change(topic(), &[("cleanup.policy", append.clone()), ("segment.ms", set("9"))], false))
        .unwrap();
    let expected = configs(&[("cleanup.policy", "delete,compact"), ("retention.ms", "1"), ("segment.ms", "9")]);
    assert_eq!(overrides(&machine), expected);
    let subtract = ConfigOp::Subtract("delete".into());
    let delete = ConfigOp::Delete;
    submit(&mut machine, change(topic(), &[("cleanup.policy", subtract), ("retention.ms", delete)], false)).unwrap();
    assert_eq!(overrides(&machine), configs(&[("cleanup.policy", "compact"), ("segment.ms", "9")]));
    submit(&mut machine, change(topic(), &[("retention.ms", set("3"))], true)).unwrap();
    assert_eq!(overrides(&machine), configs(&[("retention.ms", "3")]));
    for (ops, code) in [
        (vec![("retention.ms", append)], ErrorCode::InvalidConfig),
        (vec![("retention.ms", set("4")), ("retention.bytes", set("x"))], ErrorCode::InvalidConfig),
        (vec![("no.such.key", set("4"))], ErrorCode::InvalidConfig),
        (vec![("retention.ms", set("4")), ("retention.ms", set("5"))], ErrorCode::InvalidRequest),
    ] {
        assert_eq!(submit(&mut machine, change(topic(), &ops, false)), Err(code), "{ops:?}");
        assert_eq!(overrides(&machine), configs(&[("retention.ms", "3")]));
    }
    let nobody = ConfigOwner::Topic("none".into());
    let unknown = Err(ErrorCode::UnknownTopicOrPartition);
    assert_eq!(submit(&mut machine, change(nobody, &[("retention.ms", set("4"))], false)), unknown);
}

#[test]
fn a_change_that_changes_nothing_makes_no_entry() {
    let mut machine = machine();
    create(&mut machine, NewTopic { configs: configs(&[("retention.ms", "1")]), ..named("t") }).unwrap();
    let same = change(ConfigOwner::Topic("t".into()), &[("retention.ms", set("1"))], false);
    assert_eq!(decide(machine.image(), &same).unwrap().commands, []);
}

#[test]
fn nodes_take_dynamic_settings_only() {
    let mut machine = machine();
    let all = || ConfigOwner::AllNodes;
    submit(&mut machine, change(all(), &[("num.partitions", set("4"))], false)).unwrap();
    assert_eq!(machine.image().config.topics.num_partitions, 4);
    let mine = change(ConfigOwner::Node(NodeId(1)), &[("num.partitions", set("6"))], false);
    submit(&mut machine, mine).unwrap();
    assert_eq!(machine.image().config.topics.num_partitions, 6);
    submit(&mut machine, change(ConfigOwner::Node(NodeId(1)), &[("num.partitions", ConfigOp::Delete)], false)).unwrap();
    assert_eq!(create(&mut machine, named("t")).unwrap().partitions, 4);
    // Settings that Kafka's own cleaner accepts while it runs.
    for (name, value) in [("log.cleaner.backoff.ms", "15001"), ("log.cleaner.io.max.bytes.per.second", "1048576.0")] {
        submit(&mut machine, change(all(), &[(name, set(value))], false)).unwrap();
    }
    assert_eq!(machine.image().config.log.rewriter_backoff_ms, 15_001);
    // What no part of a node knows is kept, and acts nowhere.
    submit(&mut machine, change(all(), &[("some.plug.in", set("1"))], false)).unwrap();
    assert_eq!(machine.image().broker_configs[&None]["some.plug.in"], "1");
    submit(&mut machine, change(all(), &[("some.plug.in", ConfigOp::Delete)], false)).unwrap();
    for (owner, name, value, code) in [
        (all(), "node.id", "3", ErrorCode::InvalidRequest),
        (all(), "num.partitions", "0", ErrorCode::InvalidConfig),
        (ConfigOwner::Node(NodeId(9)), "num.partitions", "1", ErrorCode::InvalidRequest),
    ] {
        assert_eq!(submit(&mut machine, change(owner, &[(name, set(value))], false)), Err(code), "{name}");
    }
}

/// Nodes of this build, at that level.
fn at_level(machine: &mut MetadataStateMachine, level: FeatureLevel) {
    let nodes: Vec<_> = machine.image().nodes.values().cloned().collect();
    let understands = |node| Command::RegisterNode(NodeRecord { levels: Levels::OWN, ..node });
    let level = Command::SetFeatureLevel { level };
    apply(machine, &nodes.into_iter().map(understands).chain([level]).collect::<Vec<_>>());
}

#[test]
fn groups_have_configs_whether_they_exist_or_not() {
    let mut machine = machine();
    let group = || ConfigOwner::Group("readers".into());
    let session = |value| change(group(), &[("consumer.session.timeout.ms", set(value))], false);
    assert_eq!(submit(&mut machine, session("50000")), Err(ErrorCode::UnsupportedVersion), "below level 5");
    at_level(&mut machine, FeatureLevel(5));
    submit(&mut machine, session("50000")).unwrap();
    let set_now = |machine: &MetadataStateMachine| machine.image().group_configs.get("readers").cloned();
    assert_eq!(set_now(&machine), Some(configs(&[("consumer.session.timeout.ms", "50000")])));
    assert_eq!(decide(machine.image(), &session("50000")).unwrap().commands, []);
    for (name, value) in [("consumer.session.timeout.ms", "0"), ("share.isolation.level", "x"), ("retention.ms", "5")] {
        let refused = submit(&mut machine, change(group(), &[(name, set(value))], false));
        assert_eq!(refused, Err(ErrorCode::InvalidConfig), "{name}");
    }
    submit(&mut machine, change(group(), &[("consumer.session.timeout.ms", ConfigOp::Delete)], false)).unwrap();
    assert_eq!(set_now(&machine), None);
}

#[test]
fn a_subscription_of_client_metrics_exists_as_long_as_it_says_something() {
    let mut machine = machine();
    let owner = || ConfigOwner::ClientMetrics("s".into());
    let interval = |value| change(owner(), &[("interval.ms", set(value))], false);
    at_level(&mut machine, FeatureLevel(5));
    assert_eq!(submit(&mut machine, interval("1000")), Err(ErrorCode::UnsupportedVersion), "below level 6");
    at_level(&mut machine, FeatureLevel(6));
    submit(&mut machine, interval("1000")).unwrap();
    let set_now = |machine: &MetadataStateMachine| machine.image().client_metrics.get("s").cloned();
    assert_eq!(set_now(&machine), Some(configs(&[("interval.ms", "1000")])));
    for (name, value, code) in [
        ("interval.ms", "99", ErrorCode::InvalidRequest),
        ("interval.ms", "x", ErrorCode::InvalidConfig),
        ("match", "client_id", ErrorCode::InvalidConfig),
        ("retention.ms", "5", ErrorCode::InvalidRequest),
    ] {
        assert_eq!(submit(&mut machine, change(owner(), &[(name, set(value))], false)), Err(code), "{name}={value}");
    }
    let metrics = ConfigOp::Append("org.apache.kafka.consumer.,org.apache.kafka.producer.".to_owned());
    submit(&mut machine, change(owner(), &[("metrics", metrics), ("interval.ms", ConfigOp::Delete)], false)).unwrap();
    let both = configs(&[("metrics", "org.apache.kafka.consumer.,org.apache.kafka.producer.")]);
    assert_eq!(set_now(&machine), Some(both));
    submit(&mut machine, change(owner(), &[("metrics", ConfigOp::Delete)], false)).unwrap();
    assert_eq!(set_now(&machine), None);
}

#[test]
fn a_report_of_what_ended_already_makes_no_entry() {
    let mut machine = machine();
    create(&mut machine, named("t")).unwrap();
    let key = *machine.image().intents.keys().next().unwrap();
    let ends = ControllerRequest::EndIntents(vec![(key, crate::metadata::command::IntentEnd::Done)]);
    let commands = decide(machine.image(), &ends).unwrap().commands;
    assert!(matches!(commands.as_slice(), [Command::EndIntent { .. }]));
    submit(&mut machine, ends.clone()).unwrap();
    assert_eq!(decide(machine.image(), &ends).unwrap().commands, []);
    assert_eq!(key.shard, ShardId(1));
}
