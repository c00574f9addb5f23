//! A node joins while clients write: it gets its share of replicas and leaderships by itself, unless the balancer is paused, and
//! everything that was acknowledged stays.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use ottla_tests::cluster::{Cluster, Writers, keeps_all, until};
use ottla_tests::process::{Broker, free_address};
use serde_json::Value;

const TOPIC: &str = "balanced";
const PARTITIONS: i32 = 8;

fn balance(broker: &Broker, word: &str) -> Value {
    let admin = format!("http://{}", broker.admin());
    let (code, told) = broker.command(&["balance", word, "--admin", &admin, "-o", "json"]);
    assert_eq!(code, Some(0), "{word}: {told}");
    serde_json::from_str(&told).unwrap()
}

/// What each node has: replicas and shards that it is to lead.
fn shares(status: &Value) -> Vec<(u64, u64)> {
    let nodes = status["nodes"].as_array().unwrap().iter();
    nodes.map(|node| (node["replicas"].as_u64().unwrap(), node["leaders"].as_u64().unwrap())).collect()
}

fn reasons(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|step| step["reason"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_node_that_joins_gets_its_share_when_the_balancer_is_not_paused() {
    let mut cluster = Cluster::start(3, &[]);
    cluster.create_topic(TOPIC, PARTITIONS, 3);
    let writers = Writers::start(&cluster.addresses(), TOPIC, PARTITIONS);
    writers.wait_for(100);
    assert_eq!(balance(&cluster.brokers[1], "pause")["enabled"], false);
    cluster.add(free_address(), &[]).run();
    until("there is a plan for the node that has joined", || {
        let status = balance(&cluster.brokers[0], "plan");
        status["complete"] == true && shares(&status).len() == 4 && !reasons(&status["plan"]).is_empty()
    });
    let status = balance(&cluster.brokers[2], "plan");
    let has = shares(&status);
    assert!(status["enabled"] == false && has[3].0 + 2 <= has[0].0, "nothing is moved while it is paused: {has:?}");
    let planned = reasons(&status["plan"]);
    assert!(planned.iter().all(|reason| reason.contains("to node 4")), "{planned:?}");

    // What was asked for is done, and no more.
    let applied = reasons(&balance(&cluster.brokers[0], "apply")["applying"]);
    until("what was asked for is done", || {
        let status = balance(&cluster.brokers[3], "plan");
        reasons(&status["applying"]).is_empty() && status["history"].as_array().unwrap().len() == applied.len()
    });
    assert_eq!(balance(&cluster.brokers[3], "resume")["enabled"], true);
    until("every node has its share", || {
        let of = shares(&balance(&cluster.brokers[3], "history"));
        let spread = |of: Vec<u64>| of.iter().max().unwrap() - of.iter().min().unwrap();
        spread(of.iter().map(|share| share.0).collect()) <= 1 && spread(of.iter().map(|share| share.1).collect()) <= 2
    });
    writers.wait_for(100);
    keeps_all(&mut cluster, TOPIC, PARTITIONS, writers);
}

/// The shards that a topic has for itself.
fn own(broker: &Broker) -> usize {
    let admin = format!("http://{}", broker.admin());
    let (code, told) = broker.command(&["shard", "list", "--admin", &admin, "-o", "json"]);
    assert_eq!(code, Some(0), "{told}");
    let listed: Value = serde_json::from_str(&told).unwrap();
    listed["shards"].as_array().unwrap().iter().filter(|shard| shard["pinned"] == true).count()
}

#[test]
fn an_on_demand_topic_gets_shards_as_its_load_asks_for() {
    let mut cluster = Cluster::start(3, &[]);
    cluster.create_topic(TOPIC, PARTITIONS, 3);
    let configure = |settings: &[&str]| {
        let bootstrap = cluster.brokers[0].address().to_string();
        let words = [&["topic", "alter", TOPIC, "--bootstrap-server", &bootstrap], settings].concat();
        let (code, told) = cluster.brokers[0].command(&words);
        assert_eq!(code, Some(0), "{told}");
    };
    // Each partition alone has more to do than a shard is to have room for.
    configure(&["--set", "ottla.shard.mode=on-demand", "--set", "ottla.shard.bytes.per.second=1024"]);
    let writers = Writers::start(&cluster.addresses(), TOPIC, PARTITIONS);
    writers.wait_for(100);
    until("every partition has a shard of its own", || own(&cluster.brokers[2]) == PARTITIONS.unsigned_abs() as usize);
    let done = reasons(&balance(&cluster.brokers[0], "history")["history"]);
    assert!(done.iter().any(|reason| reason.contains("gets a shard of its own")), "{done:?}");
    configure(&["--set", "ottla.shard.mode=pool"]);
    until("they are back in the pool", || own(&cluster.brokers[2]) == 0);
    writers.wait_for(100);
    keeps_all(&mut cluster, TOPIC, PARTITIONS, writers);
}
