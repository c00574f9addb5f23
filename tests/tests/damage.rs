//! Records that are damaged on disk at replication factor 1: their offsets answer an error, everything else is served.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::path::Path;

use ottla_tests::batch::TestBatch;
use ottla_tests::process::Broker;
use ottla_tests::raw::Raw;

const KAFKA_STORAGE_ERROR: i16 = 56;

/// Flips a bit in the one place of the log that holds these bytes.
fn damage(data: &Path, needle: &[u8]) {
    for entry in std::fs::read_dir(data.join("log")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "log") {
            continue;
        }
        let mut bytes = std::fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(needle.len()).position(|window| window == needle) {
            bytes[at + needle.len() / 2] ^= 8;
            return std::fs::write(&path, bytes).unwrap();
        }
    }
    panic!("not in the log");
}

#[test]
fn damaged_records_cost_their_own_offsets_and_nothing_else() {
    let mut broker = Broker::start(&[("OTTLA_LOG_SEGMENT_BYTES", "4194304")]);
    let mut raw = Raw::connect(broker.address());
    raw.create_topic("t", 2, &[]);
    let value = |n: i32| format!("record number {n:06} of the test").repeat(40).into_bytes();
    for n in 0..20 {
        let answer = raw.produce("t", n % 2, TestBatch::of(&[&value(n)]).encode());
        assert_eq!((answer.error_code, answer.base_offset), (0, i64::from(n / 2)));
    }
    // Killed before a checkpoint: the entries are applied again from what lies on disk.
    broker.kill();
    damage(broker.data(), &value(6));
    broker.run();
    for life in 0..2 {
        let mut raw = Raw::connect(broker.address());
        let answer = raw.produce("t", 0, TestBatch::of(&[b"more"]).encode());
        assert_eq!((answer.error_code, answer.base_offset), (0, 10 + life), "{}", broker.log_tail());
        for offset in 0..10 {
            let answer = raw.fetch("t", 0, offset, 1_000);
            let part = &answer.responses[0].partitions[0];
            let expected = if offset == 3 { KAFKA_STORAGE_ERROR } else { 0 };
            assert_eq!(part.error_code, expected, "offset {offset}");
            assert_eq!(
                part.records.as_ref().is_some_and(|records| !records.is_empty()),
                offset != 3,
                "offset {offset}"
            );
        }
        assert_eq!(raw.read_all("t", 1).len(), 10);
        assert!(broker.metric("ottla_log_sync_seconds_count", "") > 0.0);
        broker.stop();
        broker.run();
    }
}
