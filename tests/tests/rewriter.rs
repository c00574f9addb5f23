//! Disk space under mixed load: short retention, a deleted topic, and a topic that never expires with a few records in
//! every segment. The directory stays within its budget, and the topic that never expires reads back byte for byte,
//! also after kills.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::path::Path;

use bytes::Bytes;
use kafka_protocol::messages::DeleteTopicsRequest;
use ottla_tests::batch::{TestBatch, now_ms};
use ottla_tests::process::Broker;
use ottla_tests::raw::{Raw, topic_name};

const SETTINGS: &[(&str, &str)] = &[
    ("OTTLA_LOG_SEGMENT_BYTES", "1048576"),
    ("OTTLA_REWRITER_RUN_BYTES", "1048576"),
    ("KAFKA_LOG_CLEANER_BACKOFF_MS", "200"),
    ("KAFKA_LOG_RETENTION_CHECK_INTERVAL_MS", "200"),
];

const WAIT_SECONDS_MAX: u64 = 120;
/// What log and runs may take when everything short-lived is gone: the active segment, prepared ones, and those of the
/// last moments. 60 MiB were written.
const BUDGET_BYTES: u64 = 10 << 20;

fn bytes_in(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries.filter_map(|entry| entry.ok()?.metadata().ok()).map(|metadata| metadata.len()).sum()
}

fn disk_bytes(data: &Path) -> u64 {
    bytes_in(&data.join("log")) + bytes_in(&data.join("runs"))
}

fn produce(raw: &mut Raw, topic: &str, partition: i32, values: &[&[u8]]) {
    let mut batch = TestBatch::of(values);
    (batch.base_timestamp, batch.max_timestamp) = (now_ms(), now_ms());
    assert_eq!(raw.produce(topic, partition, batch.encode()).error_code, 0);
}

/// Mixed load of about 20 MiB.
fn load(raw: &mut Raw, gone: &str, round: u32) {
    let bulk = vec![b'b'; 100 << 10];
    for step in 0..100 {
        produce(raw, "short", step % 2, &[&bulk]);
        produce(raw, gone, 0, &[&bulk]);
        if step % 5 == 0 {
            let value = format!("never {round} {step}");
            produce(raw, "never", step / 5 % 2, &[value.as_bytes(), b"second"]);
        }
    }
}

/// The whole partition as a consumer gets it, in bytes.
fn whole(raw: &mut Raw, partition: i32) -> Bytes {
    let answer = raw.fetch("never", partition, 0, 1_000);
    let part = &answer.responses[0].partitions[0];
    assert_eq!(part.error_code, 0);
    part.records.clone().unwrap_or_default()
}

#[test]
fn one_topic_that_never_expires_does_not_hold_the_space_of_others() {
    let mut broker = Broker::start(SETTINGS);
    let mut raw = Raw::connect(broker.address());
    raw.create_topic("short", 2, &[("retention.ms", "1500")]);
    raw.create_topic("never", 2, &[("retention.ms", "-1")]);
    let mut before = [Bytes::new(), Bytes::new()];
    for round in 0..3 {
        let gone = format!("gone-{round}");
        raw.create_topic(&gone, 1, &[]);
        load(&mut raw, &gone, round);
        let request = DeleteTopicsRequest::default().with_topic_names(vec![topic_name(&gone)]).with_timeout_ms(10_000);
        assert_eq!(raw.call(5, &request).responses[0].error_code, 0);
        if round < 2 {
            broker.kill();
            broker.run();
            raw = Raw::connect(broker.address());
        }
        for (partition, before) in (0..).zip(&mut before) {
            let now = whole(&mut raw, partition);
            assert!(now.starts_with(before), "what was written in earlier rounds has changed");
            assert_eq!(raw.list_offset("never", partition, -1), (0, i64::from(round + 1) * 20));
            *before = now;
        }
    }
    broker.wait_until("the space", WAIT_SECONDS_MAX, || disk_bytes(broker.data()) < BUDGET_BYTES);
    assert!(broker.metric("ottla_runs", "") > 0.0, "nothing was rewritten");
    assert!(broker.metric("ottla_rewritten_bytes_total", "") > 0.0);
    for restarts in 0..2 {
        for (partition, before) in (0..).zip(&before) {
            assert!(whole(&mut raw, partition) == *before, "partition {partition}, restart {restarts}");
            assert_eq!(raw.read_all("never", partition).len(), 60);
        }
        broker.kill();
        broker.run();
        raw = Raw::connect(broker.address());
        assert!(disk_bytes(broker.data()) < BUDGET_BYTES);
    }
    // The index of a run is read back from the run.
    broker.stop();
    for entry in std::fs::read_dir(broker.data().join("runs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "idx") {
            std::fs::remove_file(path).unwrap();
        }
    }
    broker.run();
    let mut raw = Raw::connect(broker.address());
    for (partition, before) in (0..).zip(&before) {
        assert!(whole(&mut raw, partition) == *before, "without its index");
    }
    broker.stop();
}
