//! Nodes that are killed, stopped, paused and restarted: what clients, metrics and operators see of them, and that
//! tools which query every broker are not delayed by a dead one.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::{
    DescribeClusterRequest, DescribeGroupsRequest, FindCoordinatorRequest, GroupId, ListGroupsRequest, MetadataRequest,
    OffsetCommitRequest,
};
use ottla_tests::cluster::{Cluster, try_at, until};
use ottla_tests::process::Broker;
use ottla_tests::raw::{Raw, text, topic_name};
use serde_json::Value;

const TOPIC: &str = "watched";
const PARTITIONS: i32 = 6;
const GROUPS: usize = 12;
/// A session long enough that no test sees one expire.
const LONG: &[(&str, &str)] = &[("KAFKA_BROKER_SESSION_TIMEOUT_MS", "600000")];
const SHORT: &[(&str, &str)] =
    &[("KAFKA_BROKER_SESSION_TIMEOUT_MS", "2000"), ("KAFKA_BROKER_HEARTBEAT_INTERVAL_MS", "400")];

fn three(settings: &[(&str, &str)]) -> Cluster {
    let cluster = Cluster::start(3, settings);
    cluster.create_topic(TOPIC, PARTITIONS, 3);
    until("all is well", || (0..3).all(|node| sees(&cluster, node, &BTreeSet::new())));
    cluster
}

fn described(raw: &mut Raw, version: i16, with_fenced: bool) -> BTreeSet<(i32, bool)> {
    let request = DescribeClusterRequest::default().with_include_fenced_brokers(with_fenced);
    let request = if version >= 1 { request.with_endpoint_type(1) } else { request };
    let answer = raw.call(version, &request);
    assert_eq!(answer.error_code, 0);
    answer.brokers.iter().map(|broker| (broker.broker_id.0, broker.is_fenced)).collect()
}

/// True if every API of a node shows its clients that exactly these are dead.
fn sees(cluster: &Cluster, node: usize, dead: &BTreeSet<i32>) -> bool {
    let live: BTreeSet<i32> = (1..=3).filter(|node| !dead.contains(node)).collect();
    let so = try_at(cluster.brokers[node].address(), |raw| {
        let answer = raw.metadata(&[TOPIC]);
        let brokers: BTreeSet<i32> = answer.brokers.iter().map(|broker| broker.node_id.0).collect();
        let ids =
            |nodes: &[kafka_protocol::messages::BrokerId]| nodes.iter().map(|node| node.0).collect::<BTreeSet<_>>();
        let whole = answer.topics[0].partitions.iter().all(|partition| {
            let leader = partition.leader_id.0;
            assert!(leader < 0 || brokers.contains(&leader), "leader {leader} is none of {brokers:?}");
            ids(&partition.offline_replicas) == *dead && ids(&partition.isr_nodes) == live && live.contains(&leader)
        });
        let flagged: BTreeSet<_> = (1..=3).map(|node| (node, dead.contains(&node))).collect();
        let unfenced: BTreeSet<_> = live.iter().map(|node| (*node, false)).collect();
        brokers == live
            && whole
            && (0..=2).all(|version| described(raw, version, false) == unfenced)
            && described(raw, 2, true) == flagged
    });
    so == Some(true)
}

fn live<'a>(cluster: &'a Cluster, dead: &BTreeSet<i32>) -> impl Iterator<Item = &'a Broker> {
    let dead = dead.clone();
    (1..).zip(&cluster.brokers).filter(move |(node, _)| !dead.contains(node)).map(|(_, broker)| broker)
}

/// Waits until all live nodes show their clients that exactly these are dead.
fn until_dead(cluster: &Cluster, dead: &[i32]) -> BTreeSet<i32> {
    let dead: BTreeSet<i32> = dead.iter().copied().collect();
    until(&format!("{dead:?} are known to be dead, and only they"), || {
        (0..3_usize).all(|node| dead.contains(&i32::try_from(node + 1).unwrap()) || sees(cluster, node, &dead))
    });
    dead
}

/// State of a node, and since when, as `ottla node list` has it.
fn listed(broker: &Broker, node: i64) -> (String, Option<String>) {
    let (bootstrap, admin) = (broker.address().to_string(), format!("http://{}", broker.admin()));
    let words = ["node", "list", "--bootstrap-server", &bootstrap, "--admin", &admin, "-o", "json"];
    let (code, told) = broker.command(&words);
    assert_eq!(code, Some(0), "{told}");
    let told: Value = serde_json::from_str(&told).unwrap();
    let found = told["nodes"].as_array().unwrap().iter().find(|found| found["id"] == node).unwrap().clone();
    (found["state"].as_str().unwrap().to_owned(), found["since"].as_str().map(str::to_owned))
}

/// What the metrics of the nodes that live say, `state` being that of the dead one.
fn check_metrics(cluster: &Cluster, dead: &BTreeSet<i32>, state: &str) {
    let number = f64::from(3 - i32::try_from(dead.len()).unwrap());
    let partitions = f64::from(PARTITIONS);
    let topic = format!("topic=\"{TOPIC}\"");
    // Not at once: a node that comes back serves from its replica before it is registered again, so it first shows the
    // metadata of before its death, then itself as starting.
    let ottla_nodes = |broker: &Broker, state: &str| broker.metric("ottla_nodes", &format!("state=\"{state}\""));
    until("each node counts the live nodes and the dead one", || {
        live(cluster, dead).all(|broker| {
            broker.metric("kafka_brokers", "") == number
                && broker.metric("kafka_broker_info", "") == number
                && ottla_nodes(broker, state) == f64::from(i32::from(!dead.is_empty()))
                && ottla_nodes(broker, "active") == number
        })
    });
    // A partition is shown by its leader alone; by two nodes as long as a deposed leader does not know of the next one.
    let sum = |name: &str| live(cluster, dead).map(|broker| broker.metric(name, &topic)).sum::<f64>();
    let under = if dead.is_empty() { 0.0 } else { partitions };
    until("each partition is shown once, with the replicas that are in sync", || {
        sum("kafka_topic_partition_in_sync_replica") == number * partitions
            && sum("kafka_topic_partition_under_replicated_partition") == under
    });
}

fn commit(raw: &mut Raw, group: &str) -> i16 {
    let partition = OffsetCommitRequestPartition::default().with_partition_index(0).with_committed_offset(7);
    let topic = OffsetCommitRequestTopic::default().with_name(topic_name(TOPIC)).with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    raw.call(8, &request).topics[0].partitions[0].error_code
}

fn coordinator(raw: &mut Raw, group: &str) -> Option<SocketAddr> {
    let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text(group)]);
    let answer = raw.call(4, &request);
    let found = answer.coordinators.first().filter(|found| found.error_code == 0)?;
    format!("{}:{}", &*found.host, found.port).parse().ok()
}

fn group(number: usize) -> String {
    format!("group-{number}")
}

/// Groups with committed offsets and no members, on every coordinator.
fn make_groups(cluster: &Cluster) {
    for name in (0..GROUPS).map(group) {
        until("a group has committed", || {
            let found = try_at(cluster.brokers[0].address(), |raw| coordinator(raw, &name)).flatten();
            found.is_some_and(|to| try_at(to, |raw| commit(raw, &name)) == Some(0))
        });
    }
}

/// As tools do it: every broker in the Metadata response is queried for its groups, each group's coordinator for
/// the group.
fn all_groups(to: SocketAddr) -> BTreeSet<String> {
    let mut raw = Raw::connect(to);
    let brokers = raw.metadata(&[]).brokers;
    let mut found = BTreeSet::new();
    for broker in brokers {
        let address: SocketAddr = format!("{}:{}", &*broker.host, broker.port).parse().unwrap();
        // A listed broker that does not answer makes tools end with a time-out.
        let answer = Raw::connect(address).call(4, &ListGroupsRequest::default());
        assert_eq!(answer.error_code, 0);
        found.extend(answer.groups.iter().map(|group| group.group_id.to_string()));
    }
    let is_described = |name: &String| {
        let Some(to) = coordinator(&mut raw, name) else { return false };
        let request = DescribeGroupsRequest::default().with_groups(vec![GroupId(text(name))]);
        let answer = Raw::connect(to).call(5, &request);
        answer.groups[0].error_code == 0 && &*answer.groups[0].group_state == "Empty"
    };
    found.into_iter().filter(is_described).collect()
}

#[test]
fn a_dead_node_leaves_what_everybody_is_told_and_comes_back() {
    let mut cluster = three(SHORT);
    make_groups(&cluster);
    let groups: BTreeSet<_> = (0..GROUPS).map(group).collect();
    assert_eq!(all_groups(cluster.brokers[0].address()), groups);
    for victim in 1..=3_i32 {
        let at = usize::try_from(victim - 1).unwrap();
        cluster.brokers[at].kill();
        let dead = until_dead(&cluster, &[victim]);
        check_metrics(&cluster, &dead, "fenced");
        for broker in live(&cluster, &dead) {
            let (state, since) = listed(broker, victim.into());
            assert_eq!(state, "fenced");
            assert!(since.is_some_and(|since| since.starts_with("20") && since.ends_with('Z')));
            until("all groups are told of", || all_groups(broker.address()) == groups);
        }
        cluster.brokers[at].run();
        let none = until_dead(&cluster, &[]);
        check_metrics(&cluster, &none, "fenced");
        assert_eq!(listed(&cluster.brokers[0], victim.into()).0, "active");
    }
    cluster.brokers.iter_mut().for_each(Broker::stop);
    // A whole cluster that was stopped comes back whole.
    cluster.brokers.iter_mut().for_each(Broker::spawn);
    cluster.brokers.iter_mut().for_each(Broker::wait_until_ready);
    until_dead(&cluster, &[]);
}

/// No session expires here: what is known is known because the node said so.
#[test]
fn a_node_that_stops_in_order_is_gone_at_once() {
    let mut cluster = three(LONG);
    for victim in 1..=3_i32 {
        let at = usize::try_from(victim - 1).unwrap();
        cluster.brokers[at].stop();
        let dead = until_dead(&cluster, &[victim]);
        check_metrics(&cluster, &dead, "stopped");
        let other = live(&cluster, &dead).next().unwrap();
        assert_eq!(listed(other, victim.into()).0, "stopped");
        cluster.brokers[at].run();
        until_dead(&cluster, &[]);
    }
    cluster.brokers.iter_mut().for_each(Broker::stop);
}

#[test]
fn a_node_that_stands_still_is_fenced_until_it_goes_on() {
    let mut cluster = three(SHORT);
    for victim in 1..=3_i32 {
        let at = usize::try_from(victim - 1).unwrap();
        cluster.brokers[at].signal(libc::SIGSTOP);
        until_dead(&cluster, &[victim]);
        cluster.brokers[at].signal(libc::SIGCONT);
        until_dead(&cluster, &[]);
    }
    cluster.brokers.iter_mut().for_each(Broker::stop);
}

/// Where `tests/setup` has installed Kafka's own tools; `None` where it has not been run.
fn jars() -> Option<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/clients");
    let clients = std::env::var_os("TEST_CLIENTS_DIR").map_or(own, PathBuf::from);
    Some(clients.join("jars")).filter(|jars| jars.is_dir())
}

#[test]
fn kafkas_own_tool_shows_all_groups_while_a_node_is_dead() {
    let Some(jars) = jars() else { return eprintln!("skipped: run tests/setup first") };
    let mut cluster = three(SHORT);
    make_groups(&cluster);
    cluster.brokers[1].kill();
    until_dead(&cluster, &[2]);
    let bootstrap = cluster.addresses().iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let classes = format!("{}/*", jars.display());
    for words in [&["--list"][..], &["--describe", "--all-groups"]] {
        let tool = ["-cp", &classes, "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"];
        // `timeout` sends SIGQUIT, upon which Java prints the stacks of its threads, and kills it if that does not end it.
        let output = Command::new("timeout")
            .args(["--signal=QUIT", "--kill-after=5", "120", "java"])
            .args(tool)
            .args(["--bootstrap-server", &bootstrap])
            .args(words)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !told.contains("Exception"), "{told}");
        let shown = |name: &String| told.lines().any(|line| line.split_whitespace().next() == Some(name));
        assert!((0..GROUPS).map(group).all(|name| shown(&name)), "{told}");
    }
    cluster.brokers[1].run();
    cluster.brokers.iter_mut().for_each(Broker::stop);
}

#[test]
fn a_node_that_is_cut_off_sends_clients_that_look_for_a_leader_to_other_nodes() {
    let cluster = three(LONG);
    (1..3).for_each(|other| cluster.brokers[other].signal(libc::SIGSTOP));
    let leaderless =
        |raw: &mut Raw| raw.metadata(&[TOPIC]).topics[0].partitions.iter().any(|part| part.leader_id.0 < 0);
    until("the node knows that it has no leader", || try_at(cluster.brokers[0].address(), leaderless) == Some(true));
    let mut raw = Raw::connect(cluster.brokers[0].address());
    assert!(leaderless(&mut raw), "a client's first request is answered");
    let all = MetadataRequest::default().with_topics(None);
    until("the connection is closed", || {
        let asked = raw.ask(9, &all);
        raw.answer::<MetadataRequest>(9, asked).is_none()
    });
    (1..3).for_each(|other| cluster.brokers[other].signal(libc::SIGCONT));
    until("all is well", || (0..3).all(|node| sees(&cluster, node, &BTreeSet::new())));
}
