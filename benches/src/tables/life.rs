//! A broker's life: start, kill -9 and recovery, memory, what it writes, and writing for longer than the kernel can hide.

use std::time::Duration;

use super::consume::fill;
use super::produce::batch_of;
use crate::bench::{Bench, drive};
use crate::loads::engine::{Group, Role, Span};
use crate::machine;
use crate::peers::Peer;
use crate::process::Memory;
use crate::table::{BROKER_CORES, MIB, MS, Row, Sample, WRITTEN};
use crate::wire::Topic;

fn milliseconds(took: Duration) -> Sample {
    Sample::from([(MS, took.as_secs_f64() * 1e3)])
}

pub(super) fn row_of(name: &str, peers: &[Peer]) -> Row {
    Row { name: name.to_owned(), peers: peers.iter().map(|p| (p.name.to_owned(), Vec::new())).collect() }
}

pub(super) fn size(bytes: u64) -> String {
    if bytes < 1 << 30 { format!("{} MiB", bytes >> 20) } else { format!("{} GiB", bytes >> 30) }
}

/// From the start of the process to the first acknowledged record.
pub(crate) fn start(bench: &mut Bench) {
    bench.begin(
        "start",
        "Start",
        "From the start of the process to the first acknowledged record: of a new topic in an empty directory, and after \
         SIGTERM of a topic that is there (and one old record read).",
    );
    let topic = Topic { name: "ready-1".to_owned(), partitions: 1 };
    let mut peers = bench.prepare();
    let (mut empty, mut again) = (row_of("empty directory", &peers), row_of("after a clean stop", &peers));
    for round in 0..bench.rounds() {
        if round > 0 {
            drop(peers);
            peers = bench.prepare();
        }
        for (at, peer) in peers.iter_mut().enumerate() {
            machine::settle();
            empty.peers[at].1.push(milliseconds(peer.start()));
            peer.stop();
            again.peers[at].1.push(milliseconds(peer.start_again(&topic, 0)));
            peer.stop();
        }
    }
    bench.add(empty);
    bench.add(again);
}

/// kill -9 with much in the log.
pub(crate) fn recovery(bench: &mut Bench) {
    bench.end_peers();
    let bytes = bench.bytes(f64::from(2_u32 << 30), 10.0 * f64::from(1 << 30));
    bench.begin(
        "recovery",
        "Recovery after kill -9",
        "From the start of the process, after kill -9 right behind a load, to the first acknowledged record and one old \
         record read again. Records of 1 KiB in 4 partitions.",
    );
    let topic = Topic { name: "killed".to_owned(), partitions: 4 };
    let mut row = Row { name: size(bytes), peers: Vec::new() };
    for round in 0..bench.pick(1, 2) {
        // One after the other: two such directories at a time may not fit.
        for (at, mut peer) in bench.prepare().into_iter().enumerate() {
            peer.start();
            peer.create_topic(&topic);
            fill(&peer, &topic, 1024, bytes);
            peer.kill();
            if round == 0 {
                row.peers.push((peer.name.to_owned(), Vec::new()));
            }
            let mut sample = milliseconds(peer.start_again(&topic, 0));
            sample.insert(MIB, peer.memory_mib(Memory::Resident));
            row.peers[at].1.push(sample);
        }
    }
    bench.add(row);
}

/// Resident memory in its three states.
pub(crate) fn memory(bench: &mut Bench) {
    bench.begin(
        "memory",
        "Resident memory",
        "Three seconds after the start; after a load; with 10,000 partitions. Broker cores: what it uses while nobody asks \
         for anything. Kafka's heap is as large as its scripts make it.",
    );
    let mut peers = bench.prepare();
    let one = Topic { name: "some".to_owned(), partitions: 16 };
    let many = Topic { name: "many".to_owned(), partitions: 10_000 };
    let mut rows = [row_of("idle", &peers), row_of("after a load", &peers), row_of("10,000 partitions", &peers)];
    for (at, peer) in peers.iter_mut().enumerate() {
        peer.start();
        rows[0].peers[at].1.push(quiet(peer));
        peer.create_topic(&one);
        fill(peer, &one, 1024, bench.bytes(5e8, 2e9));
        rows[1].peers[at].1.push(quiet(peer));
        peer.create_topic(&many);
        rows[2].peers[at].1.push(quiet(peer));
        peer.kill();
        // Thousands of files that nobody needs are not synced.
        machine::remove(&peer.directory);
    }
    rows.into_iter().for_each(|row| bench.add(row));
}

pub(super) fn quiet(peer: &Peer) -> Sample {
    let seconds = 3;
    let before = peer.usage().cpu;
    std::thread::sleep(Duration::from_secs(seconds));
    let cores = (peer.usage().cpu - before) / seconds as f64;
    Sample::from([(MIB, peer.memory_mib(Memory::Resident)), (BROKER_CORES, cores)])
}

/// Bytes that the process gives to the disk for each byte of payload.
pub(crate) fn written(bench: &mut Bench) {
    bench.begin(
        "written",
        "Bytes written",
        "write_bytes of the process (/proc/PID/io) for each byte of payload. Ottla pads each commit to whole pages, since \
         it syncs each; Kafka leaves that to the kernel.",
    );
    bench.begin_peers();
    let topic = Topic { name: "written".to_owned(), partitions: 16 };
    bench.create(&topic);
    let window = Duration::from_secs_f64(bench.seconds(1.0, 5.0));
    let shapes = [
        ("1 KiB single records, 1 connection", 1, 1, 1),
        ("1 KiB single records, 64 connections, pipelined", 64, 8, 1),
        ("batches of 16 KiB, 64 connections", 64, 2, 16),
    ];
    for (name, connections, depth, records) in shapes {
        let role = Role::Produce { depth };
        let groups = [Group { role, topic: topic.clone(), connections, records, size: 1024 }];
        let span = Span { ramp: Duration::ZERO, window, bytes_max: 2 << 30 };
        bench.row(name, |peer| {
            let before = peer.usage();
            let (done, _) = drive(peer, &groups, span);
            machine::sync();
            let written = peer.usage().since(before).write_bytes;
            Sample::from([(WRITTEN, written as f64 / done[0].bytes as f64)])
        });
    }
}

/// Writing for so long that unsynced data reaches the kernel's limits.
pub(crate) fn sustained(bench: &mut Bench) {
    bench.end_peers();
    let bytes = bench.bytes(2.0 * f64::from(1 << 30), 12.0 * f64::from(1 << 30));
    bench.begin(
        "sustained",
        "Produce beyond the kernel's writeback limits",
        "1 KiB records in batches of 16 KiB, 64 connections, 16 partitions, so much data that what Kafka has not synced \
         passes vm.dirty_background_ratio and, in a full run, vm.dirty_ratio.",
    );
    let topic = Topic { name: "long".to_owned(), partitions: 16 };
    let mut row = Row { name: format!("1 KiB, {}", size(bytes)), peers: Vec::new() };
    for mut peer in bench.prepare() {
        peer.start();
        peer.create_topic(&topic);
        fill(&peer, &topic, 1024, bytes / 8);
        machine::settle();
        let role = Role::Produce { depth: 2 };
        let groups = [Group { role, topic: topic.clone(), connections: 64, records: batch_of(1024), size: 1024 }];
        let span = Span { ramp: Duration::ZERO, window: Duration::from_secs(120), bytes_max: bytes };
        let (done, cost) = drive(&peer, &groups, span);
        let mut sample = cost.throughput(&done[0]);
        sample.insert(MIB, peer.memory_mib(Memory::Resident));
        row.peers.push((peer.name.to_owned(), vec![sample]));
    }
    bench.add(row);
}
