//! Corruption on disk at replication factor 1: fetches of damaged records get an error, one wrong byte of a frame's
//! head is corrected, and after greater damage the node serves everything else until an operator accepts the loss.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::path::Path;

use ottla_tests::batch::TestBatch;
use ottla_tests::process::Broker;
use ottla_tests::raw::Raw;

const KAFKA_STORAGE_ERROR: i16 = 56;

/// Changes the segment of the log that holds these bytes: is given its content, and where the first of them lies.
fn in_log(data: &Path, needle: &[u8], change: impl Fn(&mut [u8], usize)) {
    for entry in std::fs::read_dir(data.join("log")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "log") {
            continue;
        }
        let mut bytes = std::fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(needle.len()).position(|window| window == needle) {
            change(&mut bytes, at);
            return std::fs::write(&path, bytes).unwrap();
        }
    }
    panic!("not in the log");
}

/// Flips a bit in the one place of the log that holds these bytes.
fn damage(data: &Path, needle: &[u8]) {
    in_log(data, needle, |bytes, at| bytes[at + needle.len() / 2] ^= 8);
}

/// Where the frame begins that holds this byte of a segment: see the pictures of a commit and of a frame.
fn frame_with(bytes: &[u8], place: usize) -> usize {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let commits = (0..place).step_by(8).rev().filter(|at| bytes[*at..].starts_with(b"OTTLACMT"));
    for commit in commits {
        let (mut at, end) = (commit + word(commit + 12), commit + word(commit + 12) + word(commit + 56));
        while at < end.min(place + 1) {
            let next = at + word(at).next_multiple_of(8).max(8);
            if next > place {
                return at;
            }
            at = next;
        }
    }
    panic!("in no frame");
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

fn value(partition: i32, n: i64) -> Vec<u8> {
    format!("record {n:04} of partition {partition}").repeat(30).into_bytes()
}

fn produce(raw: &mut Raw, partition: i32, n: i64) -> (i16, i64) {
    let answer = raw.produce("t", partition, TestBatch::of(&[&value(partition, n)]).encode());
    (answer.error_code, answer.base_offset)
}

fn fetch_error(raw: &mut Raw, partition: i32, offset: i64) -> i16 {
    raw.fetch("t", partition, offset, 500).responses[0].partitions[0].error_code
}

/// A broker that was killed: records 0 to 9 of each partition are in its checkpoint, 10 to 19 are not.
fn killed(partitions: i32) -> Broker {
    let mut broker = Broker::start(&[]);
    let mut raw = Raw::connect(broker.address());
    raw.create_topic("t", partitions, &[]);
    for n in 0..20 {
        for partition in 0..partitions {
            assert_eq!(produce(&mut raw, partition, n), (0, n));
        }
        if n == 9 {
            broker.stop();
            broker.run();
            raw = Raw::connect(broker.address());
        }
    }
    broker.kill();
    broker
}

#[test]
fn one_damaged_byte_of_a_frames_head_costs_nothing() {
    // Replica, sequence, index, clock, length of the payload, incarnation, the batch's header: the last entries, too.
    for (n, byte) in [(13, 24), (14, 33), (15, 50), (16, 58), (17, 72), (18, 9), (19, 48)] {
        let mut broker = killed(2);
        in_log(broker.data(), &value(0, n), |bytes, at| {
            let frame = frame_with(bytes, at);
            bytes[frame + byte] ^= 0x41;
        });
        for life in 0..2 {
            broker.run();
            let mut raw = Raw::connect(broker.address());
            for partition in 0..2 {
                assert_eq!(raw.read_all("t", partition).len() as i64, 20 + life, "byte {byte}: {}", broker.log_tail());
                assert_eq!(produce(&mut raw, partition, 20 + life), (0, 20 + life), "byte {byte}");
            }
            broker.kill();
        }
        assert!(broker.log().contains("is corrected by its frame's checksum"), "byte {byte}");
    }
}

#[test]
fn what_the_only_replica_lost_is_accepted_by_hand_and_the_other_shards_never_stop() {
    let mut broker = killed(4);
    in_log(broker.data(), &value(0, 13), |bytes, at| {
        let frame = frame_with(bytes, at);
        bytes[frame + 16..frame + 56].fill(0xff);
    });
    broker.run();
    let mut raw = Raw::connect(broker.address());
    let closed: Vec<i32> = (0..4).filter(|p| fetch_error(&mut raw, *p, 0) == KAFKA_STORAGE_ERROR).collect();
    assert!(closed.contains(&0) && closed.len() < 4, "{closed:?}: {}", broker.log_tail());
    for partition in (0..4).filter(|partition| !closed.contains(partition)) {
        assert_eq!(raw.read_all("t", partition).len(), 20);
        assert_eq!(produce(&mut raw, partition, 20), (0, 20));
    }
    assert_eq!(produce(&mut raw, 0, 20).0, KAFKA_STORAGE_ERROR);
    assert!(broker.metric("ottla_raft_replicas", "role=\"closed\"") == 1.0);
    let (_, page) = broker.http("/v1/shards").unwrap();
    assert!(page.contains("\"role\":\"closed\""), "{page}");
    let (status, ready) = broker.http("/readyz").unwrap();
    assert!(status == 200 && ready.contains("--accept-loss"), "{ready}");
    broker.stop();

    let (code, told) = broker.command(&["unsafe-recover", "--accept-loss", "all"]);
    assert!(code == Some(0) && told.contains("goes on alone and without what it lost"), "{told}");
    assert!(told.contains("Nothing was changed; 1 replicas"), "{told}");
    broker.run();
    assert_eq!(fetch_error(&mut Raw::connect(broker.address()), 0, 0), KAFKA_STORAGE_ERROR, "nothing was changed");
    broker.stop();
    let (code, told) = broker.command(&["unsafe-recover", "--accept-loss=all", "--execute"]);
    assert!(code == Some(0) && told.contains("1 replicas go on alone"), "{told}");

    for life in 0..3 {
        broker.run();
        let mut raw = Raw::connect(broker.address());
        for partition in 0..4 {
            let is_closed = closed.contains(&partition);
            // All offsets before the hole are served, and none of those that the lost entries may have given is used again.
            let next = produce(&mut raw, partition, 21 + life);
            assert_eq!(next.0, 0, "partition {partition}, life {life}: {}", broker.log_tail());
            assert_eq!(is_closed, next.1 > 1 << 24, "partition {partition}: {next:?}");
            assert_eq!(fetch_error(&mut raw, partition, 0), 0);
            let read_behind = raw.fetch("t", partition, next.1 - life, 500);
            let behind = &read_behind.responses[0].partitions[0];
            assert!(behind.error_code == 0 && behind.records.as_ref().is_some_and(|records| !records.is_empty()));
        }
        for offset in 0..13 {
            assert_eq!(fetch_error(&mut raw, 0, offset), 0, "offset {offset}, life {life}");
        }
        for offset in [13, 14, 19, 20, 1 << 20] {
            assert_eq!(fetch_error(&mut raw, 0, offset), KAFKA_STORAGE_ERROR, "offset {offset}, life {life}");
        }
        // What is whole behind the hole is there, at offsets of its own.
        let end = raw.list_offset("t", 0, -1).1;
        let first_behind = 13 + (1 << 24);
        assert_eq!(end, first_behind + 6 + life + 1, "{}", broker.log_tail());
        for n in 0..6 {
            let answer = raw.fetch("t", 0, first_behind + n, 500);
            let records = answer.responses[0].partitions[0].records.clone().unwrap();
            let wanted = value(0, 14 + n);
            assert!(records.windows(wanted.len()).any(|window| window == wanted), "record {}", 14 + n);
        }
        match life {
            0 => broker.kill(),
            _ => broker.stop(),
        }
    }
}

#[test]
fn what_the_metadata_of_the_only_node_lost_is_accepted_by_hand() {
    let mut broker = killed(2);
    broker.run();
    let mut raw = Raw::connect(broker.address());
    raw.create_topic("made-before-the-damage", 1, &[]);
    raw.create_topic("made-after-the-damage", 1, &[]);
    broker.kill();
    in_log(broker.data(), b"made-before-the-damage", |bytes, at| {
        let frame = frame_with(bytes, at);
        bytes[frame + 16..frame + 56].fill(0xff);
    });
    broker.spawn();
    assert_eq!(broker.wait_for_exit(), Some(1));
    assert!(broker.log().contains("unsafe-recover --accept-loss"), "{}", broker.log_tail());
    let (code, told) = broker.command(&["unsafe-recover", "--accept-loss", "all", "--execute"]);
    assert!(code == Some(0) && told.contains("goes on alone and without what it lost"), "{told}");
    for life in 0..2 {
        broker.run();
        let mut raw = Raw::connect(broker.address());
        for partition in 0..2 {
            assert_eq!(raw.read_all("t", partition).len() as i64, 20 + life);
            assert_eq!(produce(&mut raw, partition, 20 + life), (0, 20 + life));
        }
        let answer = raw.produce("made-after-the-damage", 0, TestBatch::of(&[b"more"]).encode());
        assert_eq!((answer.error_code, answer.base_offset), (0, life), "{}", broker.log_tail());
        if life == 0 {
            raw.create_topic("made-before-the-damage", 1, &[]);
        }
        broker.kill();
    }
}
