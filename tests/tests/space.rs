//! Disk space: retention by time and size, deleted records and deleted topics free it; several data directories share
//! the load.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::path::Path;

use kafka_protocol::messages::{DeleteTopicsRequest, DescribeLogDirsRequest};
use ottla_tests::batch::{TestBatch, now_ms};
use ottla_tests::process::Broker;
use ottla_tests::raw::{Raw, topic_name};

const SETTINGS: &[(&str, &str)] =
    &[("OTTLA_LOG_SEGMENT_BYTES", "4194304"), ("KAFKA_LOG_RETENTION_CHECK_INTERVAL_MS", "200")];

const WAIT_SECONDS_MAX: u64 = 90;

fn segment_bytes(data: &Path) -> u64 {
    let entries = std::fs::read_dir(data.join("log")).unwrap().map(|e| e.unwrap());
    entries.filter(|e| e.path().extension().is_some_and(|x| x == "log")).map(|e| e.metadata().unwrap().len()).sum()
}

/// Produces `count` records of 256 KiB with the given timestamp.
fn fill(raw: &mut Raw, topic: &str, count: usize, timestamp: i64) {
    let value = vec![b'f'; 256 << 10];
    let mut batch = TestBatch::of(&[&value]);
    (batch.base_timestamp, batch.max_timestamp) = (timestamp, timestamp);
    let encoded = batch.encode();
    for _ in 0..count {
        assert_eq!(raw.produce(topic, 0, encoded.clone()).error_code, 0);
    }
}

fn alter(raw: &mut Raw, topic: &str, name: &str, value: &str) {
    assert_eq!(raw.set_configs(2, topic, &[(name, value)]).error_code, 0);
}

#[test]
fn retention_by_size_keeps_the_newest_and_gives_the_rest_back() {
    let mut broker = Broker::start(SETTINGS);
    let mut raw = Raw::connect(broker.address());
    raw.create_topic("t", 1, &[("retention.bytes", "2000000")]);
    fill(&mut raw, "t", 200, now_ms());
    assert_eq!(raw.list_offset("t", 0, -1), (0, 200));
    // The longest prefix of whole batches goes whose removal leaves at least retention.bytes: 8 batches stay.
    broker.wait_until("the log start", WAIT_SECONDS_MAX, || raw.list_offset("t", 0, -2) == (0, 192));
    broker.wait_until("the space", WAIT_SECONDS_MAX, || segment_bytes(broker.data()) < 24 << 20);
    assert_eq!(raw.read_all("t", 0).len(), 8);
    broker.kill();
    broker.run();
    let mut raw = Raw::connect(broker.address());
    assert_eq!(raw.list_offset("t", 0, -2), (0, 192), "the log start survives");
    assert_eq!(raw.read_all("t", 0).len(), 8);
    broker.stop();
}

#[test]
fn retention_by_time_is_raised_and_lowered_live() {
    let mut broker = Broker::start(SETTINGS);
    let mut raw = Raw::connect(broker.address());
    raw.create_topic("t", 1, &[("retention.ms", "86400000")]);
    raw.create_topic("compacted", 1, &[("cleanup.policy", "compact"), ("retention.ms", "1000")]);
    let old = now_ms() - 3_600_000;
    fill(&mut raw, "t", 10, old);
    fill(&mut raw, "t", 5, now_ms());
    let mut keyed = TestBatch::keyed(&[(Some(b"k"), b"v")]);
    (keyed.base_timestamp, keyed.max_timestamp) = (old, old);
    assert_eq!(raw.produce("compacted", 0, keyed.encode()).error_code, 0);
    assert_eq!(raw.list_offset("t", 0, -2), (0, 0));
    alter(&mut raw, "t", "retention.ms", "600000");
    broker.wait_until("the old records to go", WAIT_SECONDS_MAX, || raw.list_offset("t", 0, -2) == (0, 10));
    assert_eq!(raw.read_all("t", 0).len(), 5);
    assert_eq!(raw.list_offset("t", 0, -1), (0, 15), "offsets stay what they were");
    assert_eq!(raw.read_all("compacted", 0).len(), 1, "nothing is deleted by time from a compacted topic");
    broker.stop();
}

#[test]
fn a_deleted_topic_gives_its_space_back() {
    let mut broker = Broker::start(SETTINGS);
    let mut raw = Raw::connect(broker.address());
    raw.create_topic("gone", 1, &[]);
    raw.create_topic("kept", 1, &[]);
    fill(&mut raw, "gone", 150, now_ms());
    assert!(segment_bytes(broker.data()) > 36 << 20);
    let request = DeleteTopicsRequest::default().with_topic_names(vec![topic_name("gone")]).with_timeout_ms(10_000);
    assert_eq!(raw.call(5, &request).responses[0].error_code, 0);
    fill(&mut raw, "kept", 3, now_ms());
    broker.wait_until("the space", WAIT_SECONDS_MAX, || segment_bytes(broker.data()) < 24 << 20);
    assert_eq!(raw.read_all("kept", 0).len(), 3);
    broker.stop();
}

#[test]
fn several_data_directories_carry_partitions_of_one_topic() {
    let mut broker = Broker::prepare(&[]);
    let (first, second) = (broker.directory().join("one"), broker.directory().join("two"));
    broker.set("KAFKA_LOG_DIRS", &format!("{},{}", first.display(), second.display()));
    broker.run();
    let mut raw = Raw::connect(broker.address());
    raw.create_topic("t", 8, &[]);
    for partition in 0..8 {
        assert_eq!(raw.produce("t", partition, TestBatch::of(&[b"a", b"b"]).encode()).error_code, 0);
    }
    let described = raw.call(4, &DescribeLogDirsRequest::default().with_topics(None));
    assert_eq!(described.results.len(), 2);
    let carried: Vec<usize> =
        described.results.iter().map(|dir| dir.topics.iter().map(|t| t.partitions.len()).sum()).collect();
    assert_eq!(carried.iter().sum::<usize>(), 8, "each partition lies in one directory");
    assert!(carried.iter().all(|count| *count > 0), "both directories carry some: {carried:?}");
    broker.kill();
    broker.run();
    let mut raw = Raw::connect(broker.address());
    for partition in 0..8 {
        assert_eq!(raw.read_all("t", partition).len(), 2);
    }
    broker.stop();
}
