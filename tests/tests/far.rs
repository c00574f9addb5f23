//! Nodes that are far apart: 300 ms of round trip between any two of them, by proxies. They found a cluster, elect leaders, serve,
//! and go on when one of them is killed.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::time::Duration;

use ottla_tests::cluster::{Cluster, Writers, check, until};
use ottla_tests::links::delayed;
use ottla_tests::process::Broker;

const TOPIC: &str = "far";
const PARTITIONS: i32 = 3;

#[test]
fn nodes_300_ms_apart_found_a_cluster_elect_leaders_and_serve() {
    let mut cluster = Cluster::prepare_in(3, &[], |place| delayed(place, Duration::from_millis(150)));
    cluster.brokers.iter_mut().for_each(Broker::spawn);
    cluster.brokers.iter_mut().for_each(Broker::wait_until_ready);
    cluster.create_topic(TOPIC, PARTITIONS, 3);
    let writers = Writers::start(&cluster.addresses(), TOPIC, PARTITIONS);
    writers.wait_for(30);
    let leader = cluster.leader(TOPIC, 0).unwrap();
    cluster.brokers[leader - 1].kill();
    until("another node leads", || cluster.leader(TOPIC, 0).is_some_and(|now| now != leader));
    writers.wait_for(30);
    cluster.brokers[leader - 1].run();
    let acknowledged = writers.stop();
    check(&cluster, TOPIC, PARTITIONS, &acknowledged);
}
