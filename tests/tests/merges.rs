//! Shards that are split and merged again by the command line while clients write: what was acknowledged stays, over the death of a
//! leader and a restart of all nodes.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use ottla_tests::cluster::{Cluster, Writers, check, keeps_all, until};
use ottla_tests::process::Broker;
use serde_json::Value;

const TOPIC: &str = "merged";
const PARTITIONS: i32 = 8;

fn command(broker: &Broker, words: &[&str]) -> (Option<i32>, String) {
    let admin = format!("http://{}", broker.admin());
    broker.command(&[words, &["--admin", &admin, "-o", "json"]].concat())
}

fn json(broker: &Broker, words: &[&str]) -> Value {
    let (code, told) = command(broker, words);
    assert_eq!(code, Some(0), "{words:?}: {told}");
    serde_json::from_str(&told).unwrap()
}

/// Numbers of the shards that carry partitions of topics, each with its number of them.
fn shards(broker: &Broker) -> Vec<(u64, u64)> {
    let listed = json(broker, &["shard", "list"]);
    let pool = listed["shards"].as_array().unwrap().iter().filter(|shard| shard["kind"] == "pool");
    pool.map(|shard| (shard["id"].as_u64().unwrap(), shard["partitions"].as_u64().unwrap())).collect()
}

/// Splits a shard in two halves, and waits until both have what is theirs and a leader; gives the new one.
fn split(broker: &Broker, shard: u64) -> u64 {
    let child = json(broker, &["shard", "split", &shard.to_string()])["child"].as_u64().unwrap();
    until("the split is carried out, and its child is led", || {
        let described = json(broker, &["shard", "describe", &child.to_string()]);
        described["split"]["done"] == true && described["leader"].is_number()
    });
    child
}

fn is_there(broker: &Broker, shard: u64) -> bool {
    shards(broker).iter().any(|(id, _)| *id == shard)
}

/// Merges a shard into another one, and waits until it is gone.
fn merge(broker: &Broker, shard: u64, into: u64) {
    until("the merge is recorded", || {
        command(broker, &["shard", "merge", &shard.to_string(), "--into", &into.to_string()]).0 == Some(0)
    });
    until("the shard is gone", || !is_there(broker, shard));
}

#[test]
fn shards_are_split_and_merged_again_while_clients_write() {
    let mut cluster = Cluster::start(3, &[]);
    cluster.create_topic(TOPIC, PARTITIONS, 3);
    let writers = Writers::start(&cluster.addresses(), TOPIC, PARTITIONS);
    writers.wait_for(200);
    let before = shards(&cluster.brokers[0]);
    for round in 0..3 {
        let broker = &cluster.brokers[round];
        let parent = shards(broker).into_iter().find(|(_, partitions)| *partitions > 1).unwrap().0;
        let child = split(broker, parent);
        writers.wait_for(50);
        let refused_before = writers.refused();
        merge(broker, child, parent);
        assert_eq!(writers.refused(), refused_before, "clients are told nothing of a merge");
        writers.wait_for(50);
    }
    let sum = |shards: &[(u64, u64)]| shards.iter().map(|(_, partitions)| partitions).sum::<u64>();
    let after = shards(&cluster.brokers[0]);
    assert_eq!((after.len(), sum(&after)), (before.len(), sum(&before)));

    keeps_all(&mut cluster, TOPIC, PARTITIONS, writers);
}

/// A topic is given shards of its own, and puts them back.
#[test]
fn a_topic_is_resized_while_clients_write() {
    let cluster = Cluster::start(3, &[]);
    cluster.create_topic(TOPIC, PARTITIONS, 3);
    let writers = Writers::start(&cluster.addresses(), TOPIC, PARTITIONS);
    writers.wait_for(100);
    let broker = &cluster.brokers[1];
    let own = || {
        let listed = json(broker, &["shard", "list"]);
        let own = listed["shards"].as_array().unwrap().iter().filter(|shard| shard["pinned"] == true);
        own.map(|shard| shard["partitions"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    for (count, partitions) in [(8, vec![1; 8]), (1, vec![8]), (0, vec![])] {
        let bootstrap = cluster.brokers[0].address().to_string();
        let count = count.to_string();
        let words = ["topic", "resize", TOPIC, "--shards", &count, "--bootstrap-server", &bootstrap];
        let (code, told) = broker.command(&words);
        assert_eq!(code, Some(0), "{told}");
        until("the topic has as many shards as it asks for", || own() == partitions);
        writers.wait_for(50);
    }
    let (code, told) = broker.command(&[
        "topic",
        "resize",
        TOPIC,
        "--shards",
        "9",
        "--bootstrap-server",
        &cluster.brokers[0].address().to_string(),
    ]);
    assert!(code == Some(1) && told.contains("a partition is not divided"), "{told}");
    check(&cluster, TOPIC, PARTITIONS, &writers.stop());
}

/// One of its nodes is down: it cannot be sealed everywhere, so it is not sealed at all.
#[test]
fn a_merge_that_cannot_begin_stops_nobody_and_is_taken_back() {
    let mut cluster = Cluster::start(3, &[]);
    cluster.create_topic(TOPIC, PARTITIONS, 3);
    let broker = &cluster.brokers[0];
    let parent = shards(broker).into_iter().find(|(_, partitions)| *partitions > 1).unwrap().0;
    let child = split(broker, parent);
    cluster.brokers[2].kill();
    until("the others lead", || (0..PARTITIONS).all(|index| cluster.leader(TOPIC, index).is_some_and(|at| at != 3)));
    let writers = Writers::start(&cluster.addresses()[..2], TOPIC, PARTITIONS);
    writers.wait_for(50);
    let (broker, id) = (&cluster.brokers[0], child.to_string());
    json(broker, &["shard", "merge", &id, "--into", &parent.to_string()]);
    let described = json(broker, &["shard", "describe", &id]);
    assert_eq!(described["merge"]["into"], parent);
    let (code, told) = command(broker, &["shard", "split", &id]);
    assert!(code == Some(1) && told.contains("is being split or merged"), "{told}");
    writers.wait_for(100);
    json(broker, &["shard", "merge", &id, "--cancel"]);
    until("it is as before", || json(broker, &["shard", "describe", &id])["merge"].is_null());
    writers.wait_for(50);
    check(&cluster, TOPIC, PARTITIONS, &writers.stop());
}

#[test]
fn what_cannot_be_merged_is_refused_with_the_reason() {
    let cluster = Cluster::start(1, &[]);
    cluster.create_topic(TOPIC, 4, 1);
    let broker = &cluster.brokers[0];
    let pool = shards(broker);
    let child = split(broker, pool[0].0).to_string();
    let cases = [
        (vec!["99", "--into", "1"], "no shard of this number"),
        (vec![&child[..], "--into", "99"], "There is no shard 99"),
        (vec![&child[..], "--into", &child[..]], "cannot be merged with itself"),
        (vec!["1", "--into", &child[..]], "belongs to the default pool"),
        (vec![&child[..], "--cancel"], "is not being merged"),
        (vec![&child[..], "--into", "0"], "There is no shard 0"),
    ];
    for (words, reason) in cases {
        let (code, told) = command(broker, &[&["shard", "merge"], &words[..]].concat());
        assert!(code == Some(1) && told.contains(reason), "{words:?}: {told}");
    }
    merge(broker, child.parse().unwrap(), pool[0].0);
}
