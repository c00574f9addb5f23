//! Data directories of earlier releases open with every acknowledged record, and accept new ones.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use kafka_protocol::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use kafka_protocol::messages::metadata_response::MetadataResponsePartition;
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::update_features_request::FeatureUpdateKey;
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, ApiVersionsRequest, BrokerId, GroupId, ListPartitionReassignmentsRequest,
    MetadataRequest, OffsetFetchRequest, UpdateFeaturesRequest,
};
use ottla_tests::batch::TestBatch;
use ottla_tests::cluster::{try_at, until};
use ottla_tests::process::{Broker, free_address};
use ottla_tests::raw::{Raw, text, topic_name};

/// The level of `ottla.version` from which on topics are compacted.
const COMPACTION: i16 = 8;

/// What a release wrote into a partition of `old`; see `tests/fixtures/README.md`.
fn expected(partition: i32, release: &str) -> Vec<Bytes> {
    let small = |n: i32| Bytes::from(format!("{partition}/{n} of {release}"));
    let large = if partition == 2 { vec![Bytes::from(vec![b'z'; 200_000]); 8] } else { Vec::new() };
    (0..90).map(small).chain(large).chain((90..100).map(small)).collect()
}

fn committed(raw: &mut Raw) -> i64 {
    let topic = OffsetFetchRequestTopics::default().with_name(topic_name("old")).with_partition_indexes(vec![1]);
    let group = OffsetFetchRequestGroup::default().with_group_id(GroupId(text("g"))).with_topics(Some(vec![topic]));
    let answer = raw.call(8, &OffsetFetchRequest::default().with_groups(vec![group]));
    answer.groups[0].topics[0].partitions[0].committed_offset
}

/// A broker on what a release left behind, not started yet.
fn left_by(release: &str) -> Broker {
    let broker = Broker::prepare(&[("OTTLA_LOG_SEGMENT_BYTES", "1048576"), ("KAFKA_LOG_RETENTION_MS", "-1")]);
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/v{release}.tar.gz"));
    let unpacked = Command::new("tar").arg("-xzf").arg(fixture).arg("-C").arg(broker.directory()).status().unwrap();
    assert!(unpacked.success());
    broker
}

#[test]
fn a_data_directory_of_0_1_0_opens_and_goes_on() {
    let mut broker = left_by("0.1.0");
    let mut added = Vec::new();
    for life in 0..3 {
        broker.run();
        let mut raw = Raw::connect(broker.address());
        for partition in 0..3 {
            let found = raw.read_all("old", partition);
            let wanted: Vec<Bytes> = expected(partition, "0.1.0").into_iter().chain(added.iter().cloned()).collect();
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

#[test]
fn a_compacted_topic_of_0_4_0_is_cleaned() {
    let mut broker = left_by("0.4.0");
    broker.set("KAFKA_LOG_CLEANER_BACKOFF_MS", "100");
    broker.set("KAFKA_LOG_CLEANER_MIN_CLEANABLE_RATIO", "0.01");
    broker.set("KAFKA_LOG_ROLL_MS", "1");
    broker.run();
    let mut raw = Raw::connect(broker.address());
    // What was written by 0.4.0: thirty rounds of five keys, and a tombstone of the third at the end of each.
    assert_eq!(raw.read_all("keys", 0).len(), 30 * 6, "nothing is cleaned before the cluster's level allows it");
    let level = FeatureUpdateKey::default().with_feature(text("ottla.version")).with_max_version_level(COMPACTION);
    let request = UpdateFeaturesRequest::default().with_timeout_ms(10_000);
    let answer = raw.call(1, &request.with_feature_updates(vec![level.with_upgrade_type(1)]));
    assert_eq!(answer.error_code, 0, "{answer:?}");
    // A node that is alone and was off for long does not trust its clock: nothing would expire.
    let admin = format!("http://{}", broker.admin());
    let (code, told) = broker.command(&["shard", "set-clock", "--all", "--admin", &admin]);
    assert_eq!(code, Some(0), "{told}");
    let last: BTreeMap<i64, Bytes> =
        [0, 1, 3, 4].map(|key| (29 * 6 + key, Bytes::from(format!("29 of {key}")))).into_iter().collect();
    for restarted in [false, true] {
        until("old values and deleted keys are gone", || {
            // Nothing is compacted for tombstones alone, as in Kafka.
            let mark = TestBatch::of_records([(Some(&b"mark"[..]), Some(&b"mark"[..]))]);
            assert_eq!(raw.produce("keys", 0, mark.encode()).error_code, 0);
            let mut found = raw.read_all("keys", 0);
            found.retain(|_, value| value != "mark");
            found == last
        });
        for partition in 0..3 {
            let found = raw.read_all("old", partition);
            assert!(found.into_iter().eq((0..).zip(expected(partition, "0.4.0"))), "{partition}: as it was");
        }
        assert_eq!(committed(&mut raw), 17);
        if !restarted {
            broker.kill();
            broker.run();
            raw = Raw::connect(broker.address());
        }
    }
}

/// All partitions, by topic, as any node answers.
fn partitions(raw: &mut Raw) -> BTreeMap<String, Vec<MetadataResponsePartition>> {
    let request = MetadataRequest::default().with_topics(None);
    let topics = raw.call(12, &request).topics.into_iter();
    topics.map(|topic| (topic.name.unwrap().to_string(), topic.partitions)).collect()
}

#[test]
fn a_node_of_0_3_0_that_was_alone_grows_to_a_cluster_and_can_be_lost() {
    let places: Vec<_> = (0..3).map(|_| free_address().to_string()).collect();
    let mut brokers = vec![left_by("0.3.0"), Broker::prepare(&[]), Broker::prepare(&[])];
    for ((node, broker), place) in (1..).zip(&mut brokers).zip(&places) {
        broker.set("KAFKA_NODE_ID", &i32::to_string(&node));
        broker.set("OTTLA_CLUSTER_LISTENER", place);
        broker.set("OTTLA_CLUSTER_SEEDS", &places.join(","));
        broker.run();
    }
    let mut raw = Raw::connect(brokers[0].address());
    let levels = raw.call(
        3,
        &ApiVersionsRequest::default().with_client_software_name(text("t")).with_client_software_version(text("1")),
    );
    assert_eq!(
        (&*levels.finalized_features[0].name, levels.finalized_features[0].max_version_level),
        ("ottla.version", 1)
    );
    until("all nodes are known", || raw.metadata(&["old"]).brokers.len() == 3);
    let all = partitions(&mut raw);
    assert_eq!(
        all.keys().map(String::as_str).collect::<Vec<_>>(),
        ["__consumer_offsets", "old"],
        "what was deleted is"
    );
    let wanted = [2, 3, 1].map(BrokerId).to_vec();
    let topics = all.iter().map(|(name, parts)| {
        let part = |part: &MetadataResponsePartition| {
            let index = part.partition_index;
            ReassignablePartition::default().with_partition_index(index).with_replicas(Some(wanted.clone()))
        };
        ReassignableTopic::default().with_name(topic_name(name)).with_partitions(parts.iter().map(part).collect())
    });
    let request = AlterPartitionReassignmentsRequest::default().with_timeout_ms(30_000).with_topics(topics.collect());
    let answer = raw.call(1, &request);
    let errors = answer.responses.iter().flat_map(|topic| &topic.partitions).filter(|part| part.error_code != 0);
    assert_eq!((answer.error_code, errors.count()), (0, 0), "{answer:?}");
    // Before the old voters are out of the way, the loss of the only one of them is the loss of their majority.
    until("everything lies on all nodes, and nothing is under way", || {
        let whole = |part: &MetadataResponsePartition| part.replica_nodes.len() == 3 && part.isr_nodes.len() == 3;
        let request = ListPartitionReassignmentsRequest::default().with_topics(None);
        partitions(&mut raw).values().flatten().all(whole) && raw.call(0, &request).topics.is_empty()
    });
    brokers[0].kill();
    let others: Vec<_> = brokers[1..].iter().map(Broker::address).collect();
    for partition in 0..3 {
        let mut found = None;
        until("a partition is led by another node", || {
            let leader = try_at(others[0], |raw| raw.metadata(&["old"]).topics[0].partitions.clone());
            let leads = |part: &MetadataResponsePartition| part.partition_index == partition && part.error_code == 0;
            let leader = leader.and_then(|parts| parts.iter().find(|part| leads(part)).map(|part| part.leader_id.0));
            let to = leader.and_then(|leader| others.get(usize::try_from(leader).ok()?.checked_sub(2)?));
            found = to.and_then(|to| try_at(*to, |raw| raw.read_all("old", partition)));
            found.is_some()
        });
        let found: Vec<_> = found.unwrap().into_iter().collect();
        let wanted: Vec<_> = (0..).zip(expected(partition, "0.3.0")).collect();
        assert!(
            found == wanted,
            "partition {partition}: every record is as it was, {} of {}",
            found.len(),
            wanted.len()
        );
    }
    until("the group's offset is where it was", || others.iter().any(|to| try_at(*to, committed) == Some(17)));
}
