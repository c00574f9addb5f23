//! A compacted topic, and the internal ones: the last value of every key stays, what it replaces goes, and a restart finds the same.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::{GroupId, OffsetFetchRequest};
use ottla_tests::batch::TestBatch;
use ottla_tests::cluster::until;
use ottla_tests::groups;
use ottla_tests::process::Broker;
use ottla_tests::raw::{Raw, text, topic_name};

const TOPIC: &str = "latest";
const OFFSETS: &str = "__consumer_offsets";
const GROUP: &str = "readers";
const COMMITS: i64 = 300;
/// Passes follow one another closely, the first dirty byte is enough for one, and nothing is spared for being new.
const SETTINGS: &[(&str, &str)] = &[
    ("KAFKA_LOG_CLEANER_BACKOFF_MS", "100"),
    ("KAFKA_LOG_CLEANER_MIN_CLEANABLE_RATIO", "0.01"),
    ("KAFKA_LOG_ROLL_MS", "1"),
    ("KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS", "1"),
];

fn written(raw: &mut Raw, key: &str, value: Option<&str>) -> i64 {
    let batch = TestBatch::of_records([(Some(key.as_bytes()), value.map(str::as_bytes))]);
    let answer = raw.produce(TOPIC, 0, batch.encode());
    assert_eq!(answer.error_code, 0);
    answer.base_offset
}

/// Rounds of values for five keys, of which the third is deleted each time: the offset and value of the last one of every key.
fn writes(raw: &mut Raw, rounds: i32) -> BTreeMap<i64, Bytes> {
    let mut last = BTreeMap::new();
    for round in 0..rounds {
        for key in 0..5 {
            let (key, value) = (format!("key {key}"), format!("{round} of {key}"));
            last.insert(key.clone(), (written(raw, &key, Some(&value)), Bytes::from(value)));
        }
        written(raw, "key 2", None);
        last.remove("key 2");
    }
    last.into_values().collect()
}

fn committed(raw: &mut Raw) -> i64 {
    groups::find_coordinator(raw, GROUP);
    let topic = OffsetFetchRequestTopic::default().with_name(topic_name(TOPIC)).with_partition_indexes(vec![0]);
    let fetch = OffsetFetchRequest::default().with_group_id(GroupId(text(GROUP))).with_topics(Some(vec![topic]));
    let mut offset = -1;
    until("offsets are fetched", || {
        let answer = raw.call(7, &fetch);
        offset = answer.topics.first().map_or(-1, |topic| topic.partitions[0].committed_offset);
        answer.error_code == 0
    });
    offset
}

#[test]
fn the_last_value_of_each_key_stays_and_deleted_keys_go() {
    let mut broker = Broker::start(SETTINGS);
    let mut raw = Raw::connect(broker.address());
    raw.create_topic(TOPIC, 1, &[("cleanup.policy", "compact"), ("delete.retention.ms", "0")]);
    let last = writes(&mut raw, 40);
    for restarted in [false, true] {
        until("old values and deleted keys are gone", || {
            // Nothing is compacted for tombstones alone, as in Kafka.
            written(&mut raw, "mark", Some("mark"));
            let mut found = raw.read_all(TOPIC, 0);
            found.retain(|_, value| value != "mark");
            found == last
        });
        assert_eq!(raw.list_offset(TOPIC, 0, -2), (0, 0), "the log start stays where it was");
        if !restarted {
            assert!(broker.metric("ottla_compactions_total", "") > 0.0);
            broker.kill();
            broker.run();
            raw = Raw::connect(broker.address());
            let read = raw.read_all(TOPIC, 0);
            assert!(last.iter().all(|(offset, value)| read.get(offset) == Some(value)), "{read:?}");
        }
    }
}

#[test]
fn offsets_of_groups_are_compacted_and_can_be_read_from_their_beginning() {
    let mut broker = Broker::start(SETTINGS);
    let mut raw = Raw::connect(broker.address());
    raw.create_topic(TOPIC, 1, &[]);
    assert_eq!(committed(&mut raw), -1);
    for offset in 1..=COMMITS {
        groups::commit(&mut raw, GROUP, TOPIC, offset);
    }
    until("most commits are gone", || raw.read_all(OFFSETS, 0).len() < 20);
    let end = raw.list_offset(OFFSETS, 0, -1).1;
    assert!(raw.list_offset(OFFSETS, 0, -2) == (0, 0) && end >= COMMITS, "{end}");
    assert_eq!(committed(&mut raw), COMMITS);
    broker.kill();
    broker.run();
    let mut raw = Raw::connect(broker.address());
    assert_eq!(committed(&mut raw), COMMITS);
    assert!(raw.read_all(OFFSETS, 0).len() < 20 && raw.list_offset(OFFSETS, 0, -2) == (0, 0));
}
