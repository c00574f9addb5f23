//! Produce by the raw load: single records for the cost of a request, full batches for the cost of a byte.

use std::collections::BTreeMap;

use crate::bench::{Bench, drive};
use crate::loads::engine::{Group, Role};
use crate::table::{OF_ONE, RATE};
use crate::wire::Topic;

pub(crate) const SIZES: [(usize, &str); 3] = [(1024, "1 KiB"), (100, "100 B"), (10 * 1024, "10 KiB")];

/// Records in a batch of 16 KiB: the default of Kafka's own producer.
pub(crate) fn batch_of(size: usize) -> usize {
    (16_384 / size).max(1)
}

pub(crate) fn counted(number: usize, what: &str) -> String {
    let digits = if number >= 1_000 { format!("{},{:03}", number / 1_000, number % 1_000) } else { number.to_string() };
    format!("{digits} {what}{}", if number == 1 { "" } else { "s" })
}

/// One record of 1 KiB a request.
pub(crate) fn requests(bench: &mut Bench) {
    bench.begin(
        "requests",
        "Produce, one record of 1 KiB a request",
        "Raw load, acks=all. Pipelined: eight requests in flight on each connection. What is counted is acknowledged, and \
         with Ottla synced.",
    );
    bench.begin_peers();
    let one = Topic { name: "requests-1".to_owned(), partitions: 1 };
    let many = Topic { name: "requests-16".to_owned(), partitions: 16 };
    bench.create(&one);
    bench.create(&many);
    let span = bench.span(0.8, 4.0);
    let mut row = |name: &str, topic: &Topic, connections, depth| {
        let role = Role::Produce { depth };
        let groups = [Group { role, topic: topic.clone(), connections, records: 1, size: 1024 }];
        bench.row(name, |peer| {
            let (done, cost) = drive(peer, &groups, span);
            cost.throughput(&done[0])
        });
    };
    row("1 connection", &one, 1, 1);
    row("1 connection, pipelined", &one, 1, 8);
    row("64 connections", &many, 64, 1);
    row("64 connections, pipelined", &many, 64, 8);
    row("1,000 connections", &many, 1_000, 1);
    row("1,000 connections, pipelined", &many, 1_000, 8);
}

/// Batches of 16 KiB: three sizes of records, three numbers of partitions, three of connections.
pub(crate) fn produce(bench: &mut Bench) {
    bench.begin(
        "produce",
        "Produce, batches of 16 KiB",
        "Raw load, acks=all, one batch a request and partition, uncompressed; with one connection eight requests are in \
         flight, with 64 two, with 1,000 one.",
    );
    let span = bench.span(0.8, 3.0);
    // Of each peer, by what else the row varies: what it reached with one partition.
    let mut with_one: BTreeMap<(&str, usize, String), f64> = BTreeMap::new();
    for partitions in [1, 100, 10_000] {
        bench.begin_peers();
        let topic = Topic { name: format!("produce-{partitions}"), partitions };
        bench.create(&topic);
        for (size, size_name) in SIZES {
            for (connections, depth) in [(64, 2), (1, 8), (1_000, 1)] {
                if bench.leaves_out(&[partitions != 1, size != 1024, connections != 64]) {
                    continue;
                }
                if !bench.have_room() {
                    bench.begin_anew();
                    bench.create(&topic);
                }
                let role = Role::Produce { depth };
                let groups = [Group { role, topic: topic.clone(), connections, records: batch_of(size), size }];
                let counted_partitions = counted(partitions as usize, "partition");
                let name = format!("{size_name}, {counted_partitions}, {}", counted(connections, "connection"));
                let mut row = bench.measure(&name, |peer| {
                    let (done, cost) = drive(peer, &groups, span);
                    cost.throughput(&done[0])
                });
                for peer in ["ottla", "kafka"] {
                    let Some(rate) = row.medians(peer).get(RATE).copied() else { continue };
                    let one = *with_one.entry((size_name, connections, peer.to_owned())).or_insert(rate);
                    if partitions > 1 {
                        row.note(peer, OF_ONE, rate / one);
                    }
                }
                bench.add(row);
            }
        }
    }
}
