//! Many partitions, many offset commits: the node stays small and starts quickly.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::path::Path;

use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::{FindCoordinatorRequest, GroupId, OffsetCommitRequest, OffsetFetchRequest};
use ottla_tests::batch::TestBatch;
use ottla_tests::process::Broker;
use ottla_tests::raw::{Raw, text, topic_name};

const PARTITIONS: i32 = 10_000;
const RAFT_GROUPS_MAX: f64 = 16.0;

#[test]
fn ten_thousand_partitions_are_carried_by_a_few_raft_groups() {
    let mut broker = Broker::start(&[]);
    let mut raw = Raw::connect(broker.address());
    let before = broker.resident_bytes();
    for n in 0..10 {
        raw.create_topic(&format!("many-{n}"), PARTITIONS / 10, &[]);
    }
    for partition in 0..1_000 {
        let topic = format!("many-{}", partition % 10);
        assert_eq!(raw.produce(&topic, partition, TestBatch::of(&[b"x"]).encode()).error_code, 0);
    }
    let groups = broker.metric("ottla_raft_groups", "");
    println!(
        "{PARTITIONS} partitions, {groups} Raft groups, {} KiB more memory",
        (broker.resident_bytes() - before) >> 10
    );
    assert!((1.0..=RAFT_GROUPS_MAX).contains(&groups), "{groups} Raft groups");
    broker.kill();
    broker.run();
    let mut raw = Raw::connect(broker.address());
    assert_eq!(raw.list_offset("many-3", 333, -1), (0, 1));
    assert_eq!(raw.metadata(&["many-9"]).topics[0].partitions.len(), 1_000);
    broker.stop();
}

const COMMITS: i64 = 10_000_000;
const COMMITTED_PARTITIONS: i32 = 1_000;
const STORED_BYTES_MAX: u64 = 400 << 20;

fn commit(at: i64) -> OffsetCommitRequest {
    let part =
        |p| OffsetCommitRequestPartition::default().with_partition_index(p).with_committed_offset(at + i64::from(p));
    let topic = OffsetCommitRequestTopic::default()
        .with_name(topic_name("t"))
        .with_partitions((0..COMMITTED_PARTITIONS).map(part).collect());
    OffsetCommitRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic])
}

fn bytes_below(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else { return std::fs::metadata(path).map_or(0, |m| m.len()) };
    entries.map(|e| bytes_below(&e.unwrap().path())).sum()
}

#[test]
fn ten_million_offset_commits_stay_bounded_and_survive_a_restart() {
    let settings = [("OTTLA_LOG_SEGMENT_BYTES", "67108864"), ("KAFKA_LOG_RETENTION_CHECK_INTERVAL_MS", "500")];
    let mut broker = Broker::start(&settings);
    let mut raw = Raw::connect(broker.address());
    raw.create_topic("t", COMMITTED_PARTITIONS, &[]);
    let find = FindCoordinatorRequest::default().with_key_type(0).with_coordinator_keys(vec![text("g")]);
    assert_eq!(raw.call(4, &find).coordinators[0].error_code, 0);
    let rounds = COMMITS / i64::from(COMMITTED_PARTITIONS);
    for round in 0..rounds {
        let answer = raw.call(7, &commit(round));
        assert!(answer.topics[0].partitions.iter().all(|p| p.error_code == 0));
    }
    let (stored, resident) = (bytes_below(broker.data()), broker.resident_bytes());
    println!("{COMMITS} commits: {} MiB on disk, {} MiB in memory", stored >> 20, resident >> 20);
    // What the kept checkpoints cover goes; active and prepared segments and the checkpoints themselves stay.
    broker.wait_until("the offsets topic to shrink", 120, || {
        let answer = raw.call(7, &commit(rounds - 1));
        assert!(answer.topics[0].partitions.iter().all(|p| p.error_code == 0));
        bytes_below(broker.data()) <= STORED_BYTES_MAX
    });
    broker.kill();
    let started = std::time::Instant::now();
    broker.run();
    println!("restarted in {:?}", started.elapsed());
    let topic = OffsetFetchRequestTopics::default()
        .with_name(topic_name("t"))
        .with_partition_indexes((0..COMMITTED_PARTITIONS).collect());
    let group = OffsetFetchRequestGroup::default().with_group_id(GroupId(text("g"))).with_topics(Some(vec![topic]));
    let answer = Raw::connect(broker.address()).call(8, &OffsetFetchRequest::default().with_groups(vec![group]));
    for part in &answer.groups[0].topics[0].partitions {
        assert_eq!(part.committed_offset, rounds - 1 + i64::from(part.partition_index));
    }
    broker.stop();
}
