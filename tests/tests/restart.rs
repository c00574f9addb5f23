//! A restart after kill -9 reads from the newest checkpoint on and little else, however long the log is. Bytes are
//! counted, not seconds.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use ottla_tests::batch::TestBatch;
use ottla_tests::cluster::until;
use ottla_tests::process::Broker;
use ottla_tests::raw::Raw;

const MIB: u64 = 1 << 20;
const PARTITIONS: i32 = 64;
/// Three segments of the default size.
const ROUNDS: u64 = 11;
/// Written without a pause: more than calls for a checkpoint (64 MiB).
const ROUND_BYTES: u64 = 72 * MIB;
const BATCH_BYTES: usize = 1_000_000;

/// Bytes that the process has asked the system for so far, from the cache or the disk.
fn read_bytes(broker: &Broker) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{}/io", broker.pid())).unwrap();
    io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

/// Starts the broker; what it has read when a produce and a fetch are answered.
fn read_until_served(broker: &mut Broker) -> u64 {
    broker.run();
    let mut raw = Raw::connect(broker.address());
    let answer = raw.produce("t", 0, TestBatch::of(&[b"after the kill"]).encode());
    assert_eq!(answer.error_code, 0);
    let fetched = raw.fetch("t", 0, answer.base_offset, 0);
    assert_eq!(fetched.responses[0].partitions[0].error_code, 0);
    read_bytes(broker)
}

#[test]
fn a_ready_broker_answers_the_first_request() {
    let mut broker = Broker::start(&[]);
    Raw::connect(broker.address()).create_topic("t", 1, &[]);
    for start in 0..10 {
        broker.kill();
        broker.run();
        let answer = Raw::connect(broker.address()).produce("t", 0, TestBatch::of(&[b"at once"]).encode());
        assert_eq!((answer.error_code, answer.base_offset), (0, start), "after start {start}");
    }
    broker.stop();
}

#[test]
fn after_a_kill_little_is_read_before_the_first_answer() {
    let mut broker = Broker::start(&[]);
    let mut raw = Raw::connect(broker.address());
    raw.create_topic("t", PARTITIONS, &[]);
    broker.kill();
    let small = read_until_served(&mut broker);
    assert!(small < 20 * MIB, "{small} bytes read of a log that is nearly empty: prepared segments are not read");
    let mut raw = Raw::connect(broker.address());
    let (large, tiny) = (TestBatch::of(&[&vec![b'x'; BATCH_BYTES]]).encode(), TestBatch::of(&[b"tiny"]).encode());
    for _ in 0..ROUNDS {
        let checkpoints = || broker.metric("ottla_checkpoints_total", "");
        let before = checkpoints();
        for n in 0..i32::try_from(ROUND_BYTES / BATCH_BYTES as u64).unwrap() {
            assert_eq!(raw.produce("t", n % PARTITIONS, large.clone()).error_code, 0);
            assert_eq!(raw.produce("t", n * 7 % PARTITIONS, tiny.clone()).error_code, 0);
        }
        // How much comes in meanwhile is a question of how fast the machine writes.
        until("a checkpoint is written", || checkpoints() > before);
    }
    broker.kill();
    let long = read_until_served(&mut broker);
    println!("read before the first answer: {} MiB of a short log, {} MiB of a long one", small / MIB, long / MIB);
    // At most two segments for their index, and twice what was written since a checkpoint began.
    assert!(long < 640 * MIB, "{long} bytes read of a log of {} MiB", ROUNDS * ROUND_BYTES / MIB);
    broker.stop();
}
