//! Shards that are split by the command line while clients write: what was acknowledged stays, over the death of a leader and
//! a restart of all nodes.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::collections::BTreeSet;

use ottla_tests::cluster::{Cluster, Writers, check, until};
use ottla_tests::process::Broker;
use serde_json::Value;

const TOPIC: &str = "split";
const PARTITIONS: i32 = 8;

fn json(broker: &Broker, words: &[&str]) -> Value {
    let admin = format!("http://{}", broker.admin());
    let (code, told) = broker.command(&[words, &["--admin", &admin, "-o", "json"]].concat());
    assert_eq!(code, Some(0), "{words:?}: {told}");
    serde_json::from_str(&told).unwrap()
}

/// The shards that carry partitions of the topic, with their numbers of them.
fn carrying(broker: &Broker) -> Vec<(u64, u64)> {
    let shards = json(broker, &["shard", "list"]);
    let shards = shards["shards"].as_array().unwrap().iter();
    let numbers = shards
        .filter(|shard| shard["kind"] == "pool")
        .map(|shard| (shard["id"].as_u64().unwrap(), shard["partitions"].as_u64().unwrap()));
    numbers.filter(|(_, partitions)| *partitions > 0).collect()
}

/// Splits a shard in two halves, and waits until both have what is theirs and a leader.
fn split(broker: &Broker, shard: u64) {
    let made = json(broker, &["shard", "split", &shard.to_string()]);
    let child = made["child"].as_u64().unwrap().to_string();
    until("the split is carried out, and its child is led", || {
        let described = json(broker, &["shard", "describe", &child]);
        described["split"]["done"] == true && described["leader"].is_number()
    });
}

fn split_all(cluster: &Cluster) {
    let broker = &cluster.brokers[0];
    while let Some((shard, _)) = carrying(broker).into_iter().find(|(_, partitions)| *partitions > 1) {
        split(broker, shard);
    }
}

#[test]
fn shards_are_split_until_each_partition_has_its_own_while_clients_write() {
    let mut cluster = Cluster::start(3, &[]);
    cluster.create_topic(TOPIC, PARTITIONS, 3);
    let writers = Writers::start(&cluster.addresses(), TOPIC, PARTITIONS);
    writers.wait_for(200);
    split_all(&cluster);
    let shards = carrying(&cluster.brokers[0]);
    assert_eq!(shards.iter().map(|(_, partitions)| *partitions).collect::<BTreeSet<_>>(), [1].into());
    assert_eq!(shards.len(), 8);
    writers.wait_for(200);

    let leader = cluster.leader(TOPIC, 0).unwrap();
    cluster.brokers[leader - 1].kill();
    until("another node leads", || cluster.leader(TOPIC, 0).is_some_and(|now| now != leader));
    writers.wait_for(200);
    cluster.brokers[leader - 1].run();
    writers.wait_for(200);
    let acknowledged = writers.stop();

    cluster.brokers.iter_mut().for_each(Broker::kill);
    cluster.brokers.iter_mut().for_each(Broker::spawn);
    cluster.brokers.iter_mut().for_each(Broker::wait_until_ready);
    until("every partition is led", || (0..PARTITIONS).all(|index| cluster.leader(TOPIC, index).is_some()));
    check(&cluster, TOPIC, PARTITIONS, &acknowledged);
}

#[test]
fn a_split_that_makes_no_sense_is_refused() {
    let cluster = Cluster::start(1, &[]);
    cluster.create_topic(TOPIC, PARTITIONS, 1);
    let broker = &cluster.brokers[0];
    let admin = format!("http://{}", broker.admin());
    let (shard, _) = carrying(broker)[0];
    for (words, why) in [
        (vec!["0"], "no shard of this number"),
        (vec!["999"], "no shard of this number"),
        (vec!["1", "--partition", "nowhere:0"], "no topic 'nowhere'"),
        (vec!["1", "--partition", "split"], "'split' is not <topic>:<number>"),
        (vec!["1", "--partition", "split:99"], "does not carry partition 99 of topic 'split'"),
    ] {
        let words = words.into_iter().map(|word| if word == "1" { shard.to_string() } else { word.to_owned() });
        let words: Vec<_> = ["shard", "split"].map(str::to_owned).into_iter().chain(words).collect();
        let words: Vec<_> = words.iter().map(String::as_str).chain(["--admin", &admin]).collect();
        let (code, told) = broker.command(&words);
        assert!(code == Some(1) && told.contains(why), "{words:?}: {told}");
    }
}
