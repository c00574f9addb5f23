//! One client's misbehaviour does not affect others: very many connections, clients that never read their responses,
//! replays from a cold disk.
//!
//! Beside each a producer and a consumer run, and every request of theirs is answered; the broker's memory stays within
//! its configured limits. Assertions are on counts; how long others wait is measured by `cargo compare`.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types)]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest, ProduceRequest};
use ottla_tests::batch::TestBatch;
use ottla_tests::process::Broker;
use ottla_tests::raw::{Raw, frame, topic_name};

const MIB: u64 = 1 << 20;
const CONNECTIONS: usize = 10_000;
/// What one idle or lightly used connection may cost.
const CONNECTION_BYTES_MAX: u64 = 24 << 10;
/// Files of this process beside its connections.
const FILES_BESIDE: u64 = 200;

/// Memory that is the process's own: pages of mapped files are the kernel's to take back.
fn private_bytes(broker: &Broker) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Lets this process open as many files as the system allows; how many connections that makes possible.
#[allow(unsafe_code)]
fn connections_possible() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the calls fill and read `limit`, a valid rlimit.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
    }
    CONNECTIONS.min(usize::try_from(limit.rlim_max.saturating_sub(FILES_BESIDE)).unwrap())
}

fn batch(bytes: usize) -> Bytes {
    TestBatch::of(&[&vec![b'x'; bytes]]).encode()
}

fn fetch_request(topic: &str, partition: i32, offset: i64, bytes_max: i32) -> FetchRequest {
    let part = FetchPartition::default()
        .with_partition(partition)
        .with_fetch_offset(offset)
        .with_current_leader_epoch(-1)
        .with_partition_max_bytes(bytes_max);
    let wanted = FetchTopic::default().with_topic(topic_name(topic)).with_partitions(vec![part]);
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_min_bytes(1)
        .with_max_bytes(bytes_max)
        .with_session_epoch(-1)
        .with_topics(vec![wanted])
}

/// A producer and a consumer of a partition of their own, one record after the other.
struct LivePair {
    producer: Raw,
    consumer: Raw,
    next: i64,
}

impl LivePair {
    fn start(broker: &Broker) -> Self {
        let mut producer = Raw::connect(broker.address());
        producer.create_topic("live", 1, &[]);
        Self { producer, consumer: Raw::connect(broker.address()), next: 0 }
    }

    /// The consumer waits at the end, the producer appends, the consumer has exactly that.
    fn round(&mut self) {
        let mut request = fetch_request("live", 0, self.next, 1 << 20);
        request.max_wait_ms = 30_000;
        let asked = self.consumer.ask(11, &request);
        let answer = self.producer.produce("live", 0, batch(100));
        assert_eq!((answer.error_code, answer.base_offset), (0, self.next));
        let got = self.consumer.answer::<FetchRequest>(11, asked).expect("the consumer was cut");
        let part = &got.responses[0].partitions[0];
        let records = part.records.as_ref().expect("woken with data");
        assert_eq!((part.error_code, &records[..8]), (0, &self.next.to_be_bytes()[..]));
        self.next += 1;
    }
}

#[test]
fn ten_thousand_connections_of_small_producers_are_served_beside_others() {
    const PARTITIONS: usize = 100;
    const ROUNDS: usize = 1;
    let connections = connections_possible();
    let mut broker = Broker::start(&[]);
    let mut live = LivePair::start(&broker);
    Raw::connect(broker.address()).create_topic("small", PARTITIONS as i32, &[]);
    live.round();
    let before = private_bytes(&broker);
    let mut crowd: Vec<Raw> = (0..connections).map(|_| Raw::connect(broker.address())).collect();
    let records = batch(100);
    for _ in 0..ROUNDS {
        // All at once: every connection has a request under way while the pair goes on.
        let asked: Vec<i32> = crowd
            .iter_mut()
            .enumerate()
            .map(|(n, raw)| {
                let request = Raw::produce_request("small", (n % PARTITIONS) as i32, -1, Some(records.clone()));
                raw.ask(9, &request)
            })
            .collect();
        for _ in 0..20 {
            live.round();
        }
        for (raw, asked) in crowd.iter_mut().zip(asked) {
            let answer = raw.answer::<ProduceRequest>(9, asked).expect("a small producer was cut");
            assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
        }
    }
    let written: i64 = (0..PARTITIONS).map(|p| live.producer.list_offset("small", p as i32, -1).1).sum();
    assert_eq!(written, (connections * ROUNDS) as i64, "every record once");
    let grown = private_bytes(&broker).saturating_sub(before);
    println!("{connections} connections: {} bytes of memory each", grown / connections as u64);
    let bound = 16 * MIB + connections as u64 * CONNECTION_BYTES_MAX;
    assert!(grown < bound, "{} MiB for {connections} connections, at most {} MiB", grown / MIB, bound / MIB);
    drop(crowd);
    broker.stop();
}

#[test]
fn readers_that_never_read_hold_no_answers_and_hold_up_nobody() {
    const READERS: usize = 300;
    const REQUESTS_EACH: usize = 20;
    let mut broker = Broker::start(&[("KAFKA_QUEUED_MAX_REQUEST_BYTES", "33554432")]);
    let mut raw = Raw::connect(broker.address());
    raw.create_topic("big", 1, &[]);
    for _ in 0..64 {
        assert_eq!(raw.produce("big", 0, batch(500_000)).error_code, 0);
    }
    let mut live = LivePair::start(&broker);
    live.round();
    let before = private_bytes(&broker);
    let mut request = Vec::new();
    for n in 0..REQUESTS_EACH {
        request.extend_from_slice(&frame(11, n as i32, &fetch_request("big", 0, 0, 32 << 20)));
    }
    let mut readers: Vec<Raw> = (0..READERS).map(|_| Raw::connect(broker.address())).collect();
    for reader in &mut readers {
        reader.send(&request);
    }
    for _ in 0..100 {
        live.round();
    }
    // Answers of 32 MiB are under way to each: they are in the log, not in memory.
    let grown = private_bytes(&broker).saturating_sub(before);
    println!("{READERS} readers that do not read: {} MiB of memory", grown / MIB);
    assert!(grown < 32 * MIB, "{} MiB for readers that do not read, above the budget", grown / MIB);
    // A client that starts to read gets its responses whole.
    for late in readers.iter_mut().step_by(READERS / 10) {
        for number in 0..3 {
            let answer = late.answer::<FetchRequest>(11, number).expect("a late reader was cut");
            let part = &answer.responses[0].partitions[0];
            assert_eq!((part.error_code, dense_offsets(part.records.as_ref().unwrap(), 0) > 0), (0, true));
        }
    }
    drop(readers);
    live.round();
    broker.stop();
}

/// Lets go of what the kernel has cached of the segments.
#[allow(unsafe_code)]
fn forget_cached(broker: &Broker) {
    for entry in std::fs::read_dir(broker.data().join("log")).unwrap() {
        let file = File::open(entry.unwrap().path()).unwrap();
        file.sync_all().unwrap();
        // SAFETY: only numbers are passed; the descriptor is open.
        assert_eq!(unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) }, 0);
    }
}

/// The number of batches of one record in an answer: whole ones, the first at offset `from`, none missing.
fn dense_offsets(mut records: &[u8], from: i64) -> i64 {
    let mut count = 0;
    while !records.is_empty() {
        let head: [u8; 12] = records[..12].try_into().unwrap();
        assert_eq!(head[..8], (from + count).to_be_bytes(), "offsets are dense");
        let length = u32::from_be_bytes([head[8], head[9], head[10], head[11]]) as usize + 12;
        records = &records[length..];
        count += 1;
    }
    count
}

/// Reads a partition from its start to `end` in answers of `bytes_max`; every offset is there, in order.
fn replay(broker: &Broker, partition: i32, end: i64, bytes_max: i32) {
    let mut raw = Raw::connect(broker.address());
    let mut at = 0;
    while at < end {
        let answer = raw.call(11, &fetch_request("old", partition, at, bytes_max));
        let part = &answer.responses[0].partitions[0];
        assert_eq!(part.error_code, 0, "offset {at}");
        at += dense_offsets(part.records.as_ref().expect("records below the end"), at);
    }
}

#[test]
fn a_replay_from_a_cold_disk_is_whole_and_others_go_on() {
    const PARTITIONS: i32 = 4;
    const BATCHES: i64 = 400;
    let mut broker = Broker::start(&[("OTTLA_LOG_SEGMENT_BYTES", "16777216")]);
    let mut raw = Raw::connect(broker.address());
    raw.create_topic("old", PARTITIONS, &[]);
    let records = batch(20_000);
    for _ in 0..BATCHES {
        for partition in 0..PARTITIONS {
            assert_eq!(raw.produce("old", partition, records.clone()).error_code, 0);
        }
    }
    // A new process has mapped nothing yet, so that nothing keeps pages in memory.
    broker.stop();
    forget_cached(&broker);
    broker.run();
    let mut live = LivePair::start(&broker);
    live.round();
    let before = private_bytes(&broker);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..PARTITIONS * 3)
            .map(|n| {
                let broker = &broker;
                scope
                    .spawn(move || replay(broker, n % PARTITIONS, BATCHES, [1 << 20, 300_000, 8 << 20][n as usize / 4]))
            })
            .collect();
        let live = &mut live;
        let done = &done;
        let beside = scope.spawn(move || {
            let mut rounds = 0;
            while !done.load(Ordering::Relaxed) || rounds < 100 {
                live.round();
                rounds += 1;
            }
            rounds
        });
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        done.store(true, Ordering::Relaxed);
        println!("{} rounds of the live pair beside the replay", beside.join().unwrap());
    });
    let grown = private_bytes(&broker).saturating_sub(before);
    println!("memory of the replay: {} MiB", grown / MIB);
    assert!(grown < 64 * MIB, "{} MiB", grown / MIB);
    broker.stop();
}
