//! A full disk: produce gets a retriable error, fetches go on, and freed space resumes service without a restart.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::path::PathBuf;
use std::process::Command;

use kafka_protocol::messages::DeleteRecordsRequest;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use ottla_tests::batch::TestBatch;
use ottla_tests::process::Broker;
use ottla_tests::raw::{Raw, topic_name};

/// A small file system in memory; unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf, size: &str) -> Option<Self> {
        std::fs::create_dir_all(&at).unwrap();
        let done =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&at).status();
        done.is_ok_and(|status| status.success()).then_some(Self(at))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Errors a client retries: NOT_LEADER_OR_FOLLOWER, NOT_ENOUGH_REPLICAS, KAFKA_STORAGE_ERROR, ...
const RETRIABLE: &[i16] = &[5, 6, 7, 14, 19, 20, 56];

#[test]
fn a_full_disk_refuses_writes_serves_reads_and_recovers() {
    let directory = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(directory.path().join("disk"), "256m") else {
        println!("skipped: mounting needs root");
        return;
    };
    let settings = [
        ("OTTLA_LOG_SEGMENT_BYTES", "16777216"),
        ("OTTLA_DISK_RESERVE_BYTES", "50331648"),
        ("KAFKA_LOG_RETENTION_CHECK_INTERVAL_MS", "200"),
    ];
    let mut broker = Broker::prepare(&settings);
    broker.with_data(&disk.0.join("data"));
    broker.run();
    let mut raw = Raw::connect(broker.address());
    raw.create_topic("filling", 1, &[]);
    let value = vec![7_u8; 512 << 10];
    let batch = TestBatch::of(&[&value]).encode();
    let mut stored = 0;
    let refused = loop {
        let answer = raw.produce("filling", 0, batch.clone());
        if answer.error_code != 0 {
            break answer.error_code;
        }
        stored += 1;
        assert!(stored < 1024, "the disk takes more than it has");
    };
    assert!(RETRIABLE.contains(&refused), "error {refused} is retried by clients");
    assert!(stored > 50, "only {stored} records of 512 KiB fit into 256 MiB");
    assert!(broker.is_alive());
    assert_eq!(raw.read_all("filling", 0).len(), stored, "reads go on");

    let part = DeleteRecordsPartition::default().with_partition_index(0).with_offset(-1);
    let topic = DeleteRecordsTopic::default().with_name(topic_name("filling")).with_partitions(vec![part]);
    let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
    let answer = raw.call(2, &request);
    assert_eq!(answer.topics[0].partitions[0].error_code, 0, "records can be deleted on a full disk");

    broker.wait_until("freed space to resume service", 60, || raw.produce("filling", 0, batch.clone()).error_code == 0);
    broker.stop();
    broker.run();
    assert!(!Raw::connect(broker.address()).read_all("filling", 0).is_empty());
    broker.stop();
}
