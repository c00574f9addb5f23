//! Replicas that are moved between the data directories of a node while clients write (KIP-113): what was acknowledged stays, also where
//! the node is killed on the way.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::collections::BTreeMap;

use kafka_protocol::messages::alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic};
use kafka_protocol::messages::{AlterReplicaLogDirsRequest, DescribeLogDirsRequest};
use ottla_tests::cluster::{Cluster, Writers, keeps_all_when_killed, try_at, until};
use ottla_tests::process::Broker;
use ottla_tests::raw::{text, topic_name};

const TOPIC: &str = "moved";
const PARTITIONS: i32 = 6;
const LOG_DIR_NOT_FOUND: i16 = 57;
const REPLICA_NOT_AVAILABLE: i16 = 9;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;

fn path(broker: &Broker, directory: &str) -> String {
    broker.data().join(directory).display().to_string()
}

/// A cluster each of whose nodes has the directories a and b.
fn start(nodes: usize) -> Cluster {
    let mut cluster = Cluster::prepare(nodes, &[]);
    for broker in &mut cluster.brokers {
        let directories = format!("{},{}", path(broker, "a"), path(broker, "b"));
        broker.set("KAFKA_LOG_DIRS", &directories);
        broker.spawn();
    }
    cluster.brokers.iter_mut().for_each(Broker::wait_until_ready);
    cluster
}

/// Moves partitions of the topic at a node; the code of each.
fn alter(broker: &Broker, path: &str, partitions: &[i32]) -> Option<Vec<i16>> {
    let topic = AlterReplicaLogDirTopic::default().with_name(topic_name(TOPIC)).with_partitions(partitions.to_vec());
    let directory = AlterReplicaLogDir::default().with_path(text(path)).with_topics(vec![topic]);
    let request = AlterReplicaLogDirsRequest::default().with_dirs(vec![directory]);
    let answer = try_at(broker.address(), |raw| raw.call(2, &request))?;
    Some(answer.results.iter().flat_map(|topic| &topic.partitions).map(|one| one.error_code).collect())
}

/// The directories of each partition at a node: where it is, and where it is going.
fn places(broker: &Broker) -> BTreeMap<i32, (Option<String>, Option<String>)> {
    let request = DescribeLogDirsRequest::default().with_topics(None);
    let Some(answer) = try_at(broker.address(), |raw| raw.call(4, &request)) else { return BTreeMap::new() };
    let mut places = BTreeMap::<i32, (Option<String>, Option<String>)>::new();
    for directory in &answer.results {
        let name = directory.log_dir.rsplit('/').next().map(ToOwned::to_owned);
        for topic in directory.topics.iter().filter(|topic| topic.name.as_str() == TOPIC) {
            for one in &topic.partitions {
                let place = places.entry(one.partition_index).or_default();
                let at = if one.is_future_key { &mut place.1 } else { &mut place.0 };
                assert!(at.is_none(), "partition {} is in {at:?} and in {name:?}", one.partition_index);
                at.clone_from(&name);
            }
        }
    }
    places
}

/// True if these partitions are in a directory, and go nowhere else.
fn are_in(broker: &Broker, directory: &str, partitions: &[i32]) -> bool {
    let places = places(broker);
    let is_there = |partition| places.get(partition) == Some(&(Some(directory.to_owned()), None));
    partitions.iter().all(is_there)
}

/// Has partitions move, and returns when that is recorded.
fn begin_move(broker: &Broker, directory: &str, partitions: &[i32]) {
    until("the moves are recorded", || {
        alter(broker, &path(broker, directory), partitions).is_some_and(|codes| codes.iter().all(|code| *code == 0))
    });
}

/// Moves partitions, and waits until they are there.
fn move_to(broker: &Broker, directory: &str, partitions: &[i32]) {
    begin_move(broker, directory, partitions);
    until("the partitions are in the other directory", || are_in(broker, directory, partitions));
}

const ALL: [i32; 6] = [0, 1, 2, 3, 4, 5];

#[test]
fn the_only_replica_of_a_partition_moves_while_it_is_written_and_over_kills() {
    let mut cluster = start(1);
    cluster.create_topic(TOPIC, PARTITIONS, 1);
    let writers = Writers::start(&cluster.addresses(), TOPIC, PARTITIONS);
    writers.wait_for(200);
    // A part of a shard is split off first.
    move_to(&cluster.brokers[0], "b", &[0, 3]);
    writers.wait_for(200);
    for (round, directory) in ["a", "b", "a"].into_iter().enumerate() {
        let broker = &cluster.brokers[0];
        begin_move(broker, directory, &ALL);
        // At once, or when some of them are there.
        until("it is time to kill", || {
            round == 0 || places(broker).values().any(|(at, _)| at.as_deref() == Some(directory))
        });
        cluster.brokers[0].kill();
        cluster.brokers[0].run();
        until("the partitions are in the other directory", || are_in(&cluster.brokers[0], directory, &ALL));
        writers.wait_for(200);
    }
    keeps_all_when_killed(&mut cluster, TOPIC, PARTITIONS, writers);
    assert!(are_in(&cluster.brokers[0], "a", &ALL));
}

#[test]
fn a_replica_of_three_moves_whether_it_leads_or_not() {
    let mut cluster = start(3);
    cluster.create_topic(TOPIC, PARTITIONS, 3);
    let writers = Writers::start(&cluster.addresses(), TOPIC, PARTITIONS);
    writers.wait_for(200);
    for directory in ["b", "a"] {
        for broker in &cluster.brokers[..2] {
            move_to(broker, directory, &ALL);
        }
        writers.wait_for(200);
    }
    keeps_all_when_killed(&mut cluster, TOPIC, PARTITIONS, writers);
}

#[test]
fn what_cannot_move_is_refused() {
    let cluster = start(3);
    cluster.create_topic(TOPIC, 1, 1);
    until("the topic is known everywhere", || {
        cluster
            .brokers
            .iter()
            .all(|broker| try_at(broker.address(), |raw| raw.metadata(&[TOPIC]).topics[0].error_code) == Some(0))
    });
    let mut leader = None;
    until("the partition is led", || {
        leader = cluster.leader(TOPIC, 0);
        leader.is_some()
    });
    let leader = leader.unwrap();
    let (here, elsewhere) = (&cluster.brokers[leader - 1], &cluster.brokers[leader % 3]);
    assert_eq!(alter(here, "/nowhere", &[0]), Some(vec![LOG_DIR_NOT_FOUND]));
    assert_eq!(alter(elsewhere, &path(elsewhere, "b"), &[0]), Some(vec![REPLICA_NOT_AVAILABLE]));
    assert_eq!(alter(here, &path(here, "b"), &[7]), Some(vec![UNKNOWN_TOPIC_OR_PARTITION]));
    move_to(here, "a", &[0]);
    move_to(here, "a", &[0]);
    move_to(here, "b", &[0]);
}
