//! Nodes with a wrong clock, alone and in a cluster: nothing is lost by it, and retention goes on (needs faketime).

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::net::SocketAddr;
use std::path::Path;

use ottla_tests::batch::{TestBatch, now_ms};
use ottla_tests::cluster::{Cluster, try_at, until};
use ottla_tests::process::Broker;
use ottla_tests::raw::Raw;

const DAY_MS: i64 = 86_400_000;
const WAIT_SECONDS_MAX: u64 = 90;
const SETTINGS: &[(&str, &str)] = &[("KAFKA_LOG_RETENTION_CHECK_INTERVAL_MS", "200")];

/// The broker starts under a clock thirty days ahead, as the same process; time that passes is as it is. Not by `faketime`:
/// what it leaves in /dev/shm when it is killed makes it fail for each later process of the same number.
fn set_ahead(broker: &mut Broker) {
    let at = |machine: &str| format!("/usr/lib/{machine}-linux-gnu/faketime/libfaketimeMT.so.1");
    let library = ["x86_64", "aarch64"].map(at).into_iter().find(|path| Path::new(path).exists());
    let library = format!("LD_PRELOAD={}", library.expect("libfaketime: tests/setup installs it"));
    let [wall_only, and_so_before_0_9_10] = ["FAKETIME_DONT_FAKE_MONOTONIC=1", "DONT_FAKE_MONOTONIC=1"];
    broker.with_wrapper(&["env", &library, "FAKETIME=+30d", wall_only, and_so_before_0_9_10]);
}

fn produce(raw: &mut Raw, topic: &str, values: &[&[u8]], timestamp: i64) {
    let mut batch = TestBatch::of(values);
    (batch.base_timestamp, batch.max_timestamp) = (timestamp, timestamp);
    assert_eq!(raw.produce(topic, 0, batch.encode()).error_code, 0);
}

#[test]
fn what_is_written_after_a_start_under_a_wrong_clock_stays_and_an_operator_sets_it_right() {
    let mut broker = Broker::prepare(SETTINGS);
    set_ahead(&mut broker);
    broker.run();
    let mut raw = Raw::connect(broker.address());
    // By size alone it loses records at its first check after they came, whatever time it is.
    raw.create_topic("t", 1, &[("retention.bytes", "1000000")]);
    produce(&mut raw, "t", &[b"first"], now_ms());
    broker.kill();

    broker.with_wrapper(&[]);
    broker.run();
    let mut raw = Raw::connect(broker.address());
    let big = vec![b'f'; 256 << 10];
    for _ in 0..20 {
        produce(&mut raw, "t", &[&big], now_ms());
    }
    for _ in 0..10 {
        produce(&mut raw, "t", &[b"small".as_slice(); 100], now_ms());
    }
    assert_eq!(raw.list_offset("t", 0, -1), (0, 1_021));
    // All but the last four of the big ones: the partition has been looked at after all had come.
    broker.wait_until("retention by size", WAIT_SECONDS_MAX, || raw.list_offset("t", 0, -2).1 >= 17);
    assert_eq!(raw.list_offset("t", 0, -2), (0, 17));
    let days_ahead = broker.metric("ottla_shard_clock_ahead_seconds", "") / 86_400.0;
    assert!(days_ahead > 29.0, "{days_ahead}");
    let small = |raw: &mut Raw| raw.read_all("t", 0).values().filter(|value| value[..] == *b"small").count();
    assert_eq!(small(&mut raw), 1_000);
    assert!(broker.metric("ottla_shard_expiry_paused", "") > 0.0);
    assert!(broker.log().contains("ottla shard set-clock"), "{}", broker.log_tail());

    let admin = format!("http://{}", broker.admin());
    let (code, told) = broker.command(&["shard", "set-clock", "--all", "--admin", &admin]);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(broker.metric("ottla_shard_clock_ahead_seconds", ""), 0.0);
    assert_eq!(broker.metric("ottla_shard_expiry_paused", ""), 0.0);
    raw.create_topic("old", 1, &[]);
    produce(&mut raw, "old", &[b"old"], now_ms() - 8 * DAY_MS);
    produce(&mut raw, "old", &[b"new"], now_ms());
    broker.wait_until("retention", WAIT_SECONDS_MAX, || raw.list_offset("old", 0, -2) == (0, 1));
    assert_eq!(small(&mut raw), 1_000);

    // What was set stays, whichever node leads next.
    broker.kill();
    broker.run();
    let mut raw = Raw::connect(broker.address());
    assert_eq!(broker.metric("ottla_shard_expiry_paused", ""), 0.0);
    assert_eq!(small(&mut raw), 1_000);
    broker.stop();
}

#[test]
fn one_of_three_clocks_that_is_wrong_from_the_beginning_sets_no_shards_clock() {
    const PARTITIONS: i32 = 12;
    let mut cluster = Cluster::prepare(3, SETTINGS);
    set_ahead(&mut cluster.brokers[1]);
    cluster.brokers.iter_mut().for_each(Broker::spawn);
    cluster.brokers.iter_mut().for_each(Broker::wait_until_ready);
    cluster.create_topic("t", PARTITIONS, 3);
    let sums =
        |cluster: &Cluster, name: &str| cluster.brokers.iter().map(|broker| broker.metric(name, "")).sum::<f64>();
    let batch = TestBatch::of(&[b"a", b"b"]).encode();
    for partition in 0..PARTITIONS {
        let takes = |to: SocketAddr| try_at(to, |raw| raw.produce("t", partition, batch.clone()).error_code) == Some(0);
        until("the record is taken", || cluster.addresses().into_iter().any(takes));
    }
    // What the node leads whose clock is wrong, and nothing else, waits; and the others are checked by a time that is confirmed.
    let paused = |node: usize| cluster.brokers[node].metric("ottla_shard_expiry_paused", "");
    cluster.brokers[0].wait_until("word of the clocks", WAIT_SECONDS_MAX, || paused(0) + paused(2) == 0.0);
    assert_eq!(sums(&cluster, "ottla_shard_clock_ahead_seconds"), 0.0);
    assert_eq!(sums(&cluster, "kafka_topic_partition_oldest_offset"), 0.0);

    cluster.brokers[1].kill();
    cluster.brokers[1].with_wrapper(&[]);
    cluster.brokers[1].run();
    let all_go_on = || sums(&cluster, "ottla_shard_expiry_paused") == 0.0;
    cluster.brokers[0].wait_until("confirmed clocks everywhere", WAIT_SECONDS_MAX, all_go_on);
    assert_eq!(sums(&cluster, "ottla_shard_clock_ahead_seconds"), 0.0, "no clock was set by the wrong one");
    assert_eq!(sums(&cluster, "kafka_topic_partition_oldest_offset"), 0.0);

    // Asked at one node, the leaders on the others do it.
    let admin = format!("http://{}", cluster.brokers[0].admin());
    let (code, told) = cluster.brokers[0].command(&["shard", "set-clock", "--all", "--admin", &admin]);
    assert_eq!(code, Some(0), "{told}");
    cluster.brokers.iter_mut().for_each(Broker::stop);
}
