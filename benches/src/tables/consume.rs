//! Reading: cached batches to many connections, ten readers of one topic, and old data from a cold disk.

use super::produce::{SIZES, batch_of, counted};
use crate::bench::{Bench, drive};
use crate::loads::engine::{Engine, Group, Role, Span};
use crate::machine;
use crate::peers::Peer;
use crate::table::{P50, P99, P999, READ, Row, Sample};
use crate::wire::Topic;
use std::time::Duration;

/// Writes so many bytes to a topic, unmeasured.
pub(crate) fn fill(peer: &Peer, topic: &Topic, size: usize, bytes: u64) {
    let connections = usize::try_from(topic.partitions).unwrap().min(64);
    let role = Role::Produce { depth: 4 };
    let group = Group { role, topic: topic.clone(), connections, records: batch_of(size), size };
    let span = Span { ramp: Duration::ZERO, window: Duration::from_secs(600), bytes_max: bytes };
    let (done, _) = Engine::connect(peer.address(), &[group]).run(span, || {});
    assert_eq!(done[0].errors, 0, "errors while {} was filled", peer.name);
}

fn reading(topic: &Topic, connections: usize, bytes_max: i32) -> Vec<Group> {
    vec![Group { role: Role::Replay { bytes_max }, topic: topic.clone(), connections, records: 1, size: 1 }]
}

/// Throughput of reading what was just written.
pub(crate) fn fetch(bench: &mut Bench) {
    bench.begin(
        "fetch",
        "Fetch what is cached",
        "Raw load: one request in flight on each connection, at most 1 MiB an answer (64 KiB with 1,000 connections), \
         batches of 16 KiB.",
    );
    let span = bench.span(0.6, 3.0);
    for partitions in [1, 100, 10_000] {
        bench.begin_peers();
        for (size, size_name) in SIZES {
            let topic = Topic { name: format!("fetch-{partitions}-{size}"), partitions };
            // Of many partitions only one size: the brokers hold the partitions of all topics.
            if (partitions == 10_000 && size != 1024)
                || bench.leaves_out(&[partitions != 1, partitions > 100, size != 1024])
            {
                continue;
            }
            bench.create(&topic);
            for peer in bench.peers() {
                fill(peer, &topic, size, bench.bytes(2e8, 2e9));
            }
            for connections in [1, 64, 1_000] {
                if bench.leaves_out(&[partitions != 1, size != 1024, connections != 64]) {
                    continue;
                }
                let groups = reading(&topic, connections, if connections == 1_000 { 64 << 10 } else { 1 << 20 });
                let partitions = counted(partitions as usize, "partition");
                let name = format!("{size_name}, {partitions}, {}", counted(connections, "connection"));
                bench.row(&name, |peer| {
                    let (done, cost) = drive(peer, &groups, span);
                    cost.throughput(&done[0])
                });
            }
        }
    }
}

/// Ten readers at the end of a topic that is being written.
pub(crate) fn fanout(bench: &mut Bench) {
    bench.begin(
        "fanout",
        "Fan-out: one topic, ten live consumers",
        "16 connections produce at a fixed rate, ten consumers read each partition as it comes. Throughput and CPU count \
         what is delivered; latency runs from the intended time of sending to the arrival at a consumer.",
    );
    bench.begin_peers();
    let topic = Topic { name: "fanout".to_owned(), partitions: 16 };
    bench.create(&topic);
    let span = bench.span(1.5, 10.0);
    for (rate, records, name) in
        [(2_000.0, 1, "1 KiB, single records, 2 MB/s in"), (1_500.0, 16, "1 KiB in batches of 16 KiB, 25 MB/s in")]
    {
        let group = |role, connections| Group { role, topic: topic.clone(), connections, records, size: 1024 };
        let groups = [group(Role::Paced { rate }, 16), group(Role::Tail { bytes_max: 1 << 20 }, 160)];
        bench.row(name, |peer| {
            let (done, cost) = drive(peer, &groups, span);
            let mut sample = cost.throughput(&done[1]);
            sample.insert(crate::table::OFFERED, rate);
            sample
        });
    }
}

/// Everything from the beginning after the page cache has lost it.
pub(crate) fn catchup(bench: &mut Bench) {
    bench.begin(
        "catchup",
        "Catch-up from a cold disk",
        "The broker is stopped, the page cache of its directory emptied, the broker started; then readers take the whole \
         topic once. The last column says how much came from the disk.",
    );
    bench.end_peers();
    let bytes = bench.bytes(1e9, 6e9);
    let topic = Topic { name: "cold".to_owned(), partitions: 4 };
    let mut peers = bench.prepare();
    for peer in &mut peers {
        peer.start();
        peer.create_topic(&topic);
        fill(peer, &topic, 1024, bytes);
    }
    for (name, readers) in [("1 KiB, 1 reader", 1), ("1 KiB, 4 readers", 4)] {
        let mut samples: Vec<(String, Vec<Sample>)> = peers.iter().map(|p| (p.name.to_owned(), Vec::new())).collect();
        for _ in 0..bench.rounds() {
            for (peer, (_, list)) in peers.iter_mut().zip(&mut samples) {
                peer.stop();
                machine::drop_cache(&peer.directory);
                peer.start_again(&topic, 0);
                // What recovery has read is cold again, too.
                machine::drop_cache(&peer.directory);
                list.push(cold(peer, &topic, readers, bytes));
            }
        }
        bench.add(Row { name: name.to_owned(), peers: samples });
    }
}

fn cold(peer: &Peer, topic: &Topic, readers: usize, bytes: u64) -> Sample {
    let groups = reading(topic, readers, 1 << 20);
    let span = Span { ramp: Duration::ZERO, window: Duration::from_secs(300), bytes_max: bytes };
    let before = peer.usage();
    let (done, cost) = drive(peer, &groups, span);
    let used = peer.usage().since(before);
    let mut sample = cost.throughput(&done[0]);
    sample.retain(|name, _| ![P50, P99, P999].contains(name));
    sample.insert(READ, used.read_bytes as f64 / done[0].bytes as f64);
    sample
}
