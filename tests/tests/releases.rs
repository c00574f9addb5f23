//! Data directories of earlier releases open, with everything that was acknowledged in them, and go on.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::{GroupId, OffsetFetchRequest};
use ottla_tests::batch::TestBatch;
use ottla_tests::process::Broker;
use ottla_tests::raw::{Raw, text, topic_name};

/// What the release wrote into a partition of `old`; see `tests/fixtures/README.md`.
fn expected(partition: i32) -> Vec<Bytes> {
    let small = |n: i32| Bytes::from(format!("{partition}/{n} of 0.1.0"));
    let large = if partition == 2 { vec![Bytes::from(vec![b'z'; 200_000]); 8] } else { Vec::new() };
    (0..90).map(small).chain(large).chain((90..100).map(small)).collect()
}

fn committed(raw: &mut Raw) -> i64 {
    let topic = OffsetFetchRequestTopics::default().with_name(topic_name("old")).with_partition_indexes(vec![1]);
    let group = OffsetFetchRequestGroup::default().with_group_id(GroupId(text("g"))).with_topics(Some(vec![topic]));
    let answer = raw.call(8, &OffsetFetchRequest::default().with_groups(vec![group]));
    answer.groups[0].topics[0].partitions[0].committed_offset
}

#[test]
fn a_data_directory_of_0_1_0_opens_and_goes_on() {
    let mut broker = Broker::prepare(&[("OTTLA_LOG_SEGMENT_BYTES", "1048576"), ("KAFKA_LOG_RETENTION_MS", "-1")]);
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/v0.1.0.tar.gz");
    let unpacked = Command::new("tar").arg("-xzf").arg(fixture).arg("-C").arg(broker.directory()).status().unwrap();
    assert!(unpacked.success());
    let mut added = Vec::new();
    for life in 0..3 {
        broker.run();
        let mut raw = Raw::connect(broker.address());
        for partition in 0..3 {
            let found = raw.read_all("old", partition);
            let wanted: Vec<Bytes> = expected(partition).into_iter().chain(added.iter().cloned()).collect();
            assert!(
                found.keys().copied().eq(0..i64::try_from(wanted.len()).unwrap()),
                "life {life}, {partition}: dense"
            );
            assert!(found.values().eq(wanted.iter()), "life {life}, partition {partition}: every record is as it was");
        }
        assert_eq!(committed(&mut raw), 17, "life {life}");
        let value = Bytes::from(format!("of life {life}"));
        for partition in 0..3 {
            assert_eq!(raw.produce("old", partition, TestBatch::of(&[&value]).encode()).error_code, 0);
        }
        added.push(value);
        if life == 0 { broker.kill() } else { broker.stop() }
    }
}
