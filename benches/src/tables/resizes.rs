//! A topic's shards split and merged at half of what the cluster takes at most, and what its clients notice.
//!
//! Ottla alone: Kafka has nothing of the kind.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::cluster::get;
use super::life::row_of;
use crate::bench::Bench;
use crate::loads::librdkafka::{self, Figures, Watch};
use crate::machine;
use crate::peers::Peer;
use crate::table::{
    BROKER_CORES, ERRORS, GAP, GAP_READ, OF_USUAL, OFFERED, P50, P99, P999, RATE, RECORDS, SECONDS, Sample,
};
use crate::wire::Topic;

const PARTITIONS: i32 = 64;
const SIZE: usize = 1024;
/// A gap is known when it has ended.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// 1 -> 64 -> 1.
pub(crate) fn resizes(bench: &mut Bench) {
    bench.begin(
        "resizes",
        "A topic with 1, 64 and again 1 shard",
        "Ottla alone, three nodes, replication factor 3, a topic of 64 partitions. A consumer group with \
         librdkafka's defaults reads it and commits. Its maximum is measured with one shard by an idempotent librdkafka producer; \
         then one writes records of 1 KiB at half of that to all partitions. `ottla.shard.count` is set to 64 and back to 1 \
         meanwhile. Seconds: until the topic has so many shards. A gap is the longest time in which some partition had no \
         acknowledgement, or nothing of it was read; with 64 partitions a batch of each comes every few milliseconds.",
    );
    let program = bench.librdkafka();
    let topic = Topic { name: "resized".to_owned(), partitions: PARTITIONS };
    let mut peers = bench.prepare_clusters();
    peers.truncate(1);
    let steps = [None, Some(2), Some(1), Some(64), None, Some(1)];
    let mut rows = ["1 shard", "1 -> 2 shards", "2 -> 1 shards", "1 -> 64 shards", "64 shards", "64 -> 1 shards"]
        .map(|name| row_of(name, &peers));
    let peer = peers.first_mut().expect("Ottla");
    peer.start();
    peer.create_topic(&topic);
    resize(peer, &topic, 1);
    let seconds = bench.seconds(3.0, 8.0);
    let all: Vec<String> = (0..PARTITIONS).map(|partition| partition.to_string()).collect();
    let watched = format!("watched={}", all.join(","));
    let paced = |rate: f64| {
        let own = [&*watched, "size=1024", "set.acks=all", "set.enable.idempotence=true"].map(str::to_owned);
        [vec![format!("topic={}", topic.name), format!("rate={rate}")], own.to_vec()].concat()
    };
    let first = Watch::start(&program, peer, &paced(f64::from(PARTITIONS) * 20.0));
    let consumer = [format!("topic={}", topic.name), format!("partitions={PARTITIONS}")];
    let mut consumer = Watch::start_group(&program, peer, &consumer);
    first.end();
    machine::settle();
    let mut most = librdkafka::options(&topic, SIZE, seconds);
    most.push("set.enable.idempotence=true".to_owned());
    let most = librdkafka::run(&program, peer, "produce", &most);
    let rate = most.records / most.seconds / 2.0;
    machine::settle();
    let mut producer = Watch::start(&program, peer, &paced(rate));
    std::thread::sleep(Duration::from_secs_f64(bench.seconds(3.0, 5.0)));
    let mut usual = f64::MAX;
    for (row, shards) in rows.iter_mut().zip(steps) {
        producer.look();
        consumer.look();
        let (began, used) = (Instant::now(), peer.usage());
        match shards {
            Some(shards) => {
                resize(peer, &topic, shards);
                std::thread::sleep(AFTERWARDS);
            }
            None => std::thread::sleep(Duration::from_secs_f64(bench.seconds(5.0, 15.0))),
        }
        let took = began.elapsed().as_secs_f64();
        let mut sample = noticed(&producer.look(), &consumer.look());
        usual = usual.min(sample[P999]);
        let cores = peer.usage().since(used).cpu / took;
        sample.extend([(OFFERED, rate), (BROKER_CORES, cores), (SECONDS, took)]);
        if shards.is_some() {
            sample.insert(OF_USUAL, sample[P999] / usual);
        }
        row.peers[0].1.push(sample);
    }
    let (written, read) = (producer.end(), consumer.end());
    let errors = written.of("errors") + read.of("errors");
    assert!(errors == 0.0, "{errors} errors after it");
    rows.into_iter().for_each(|row| bench.add(row));
    peer.kill();
}

/// Asks for so many shards, and waits until the topic has them.
fn resize(peer: &mut Peer, topic: &Topic, shards: usize) {
    peer.wire().set_config(topic, "ottla.shard.count", &shards.to_string());
    peer.wait_until(&format!("topic {} has {shards} shards", topic.name), |peer| carriers(peer, topic) == shards);
}

/// How many shards carry partitions of the topic, as the first node has it.
fn carriers(peer: &Peer, topic: &Topic) -> usize {
    let path = format!("/v1/topics/{}", topic.name);
    let admin = peer.nodes[0].admin.expect("an admin port");
    let answer = get(admin, &path).unwrap_or_else(|e| panic!("GET {path}: {e}"));
    let body = answer.windows(4).position(|end| end == b"\r\n\r\n").map_or(0, |at| at + 4);
    let page: Value = serde_json::from_slice(&answer[body..]).expect("a page of a topic");
    let partitions = page["partitions"].as_array().expect("its partitions");
    partitions.iter().map(|one| one["shard"].as_u64()).collect::<BTreeSet<_>>().len()
}

fn noticed(producer: &Figures, consumer: &Figures) -> Sample {
    let rate = |name| producer.of(name) / producer.of("seconds");
    Sample::from([
        (GAP, producer.of("longest")),
        (GAP_READ, consumer.of("longest")),
        (RATE, rate("bytes") / 1e6),
        (RECORDS, rate("records")),
        (P50, producer.of("p50")),
        (P99, producer.of("p99")),
        (P999, producer.of("p999")),
        (ERRORS, producer.of("errors") + consumer.of("errors")),
    ])
}
