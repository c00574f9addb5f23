//! Transactions: how many a second, and how long a commit takes.

use std::path::Path;

use super::produce::counted;
use crate::bench::{Bench, metered, of_client};
use crate::loads::engine::Span;
use crate::loads::{librdkafka, transactions as wire};
use crate::peers::Peer;
use crate::table::{BROKER_CORES, CLIENT_CORES, CLIENT_CPU, CPU, P50, P99, P999, RATE, RECORDS, Sample, TRANSACTIONS};
use crate::wire::Topic;

/// Bytes of a record's value.
const SIZE: usize = 100;

/// With one partition and with 100 in each transaction, by one producer and by many, on one node and on three.
pub(crate) fn transactions(bench: &mut Bench) {
    bench.begin(
        "transactions",
        "Transactions",
        "A record of 100 B to each partition, all of them acknowledged, and then the commit, whose latency is shown: from its \
         call to its return. Each producer has its own transactional id and commits one transaction after the other. \
         librdkafka: its transactional producer with its defaults, which speaks the versions before KIP-890 and waits \
         100 ms where the transaction before is not complete yet. Wire: plain requests of the versions since KIP-890, asked \
         again after 1 ms where it is not. Three nodes: replication factor 3 for all topics, those of the broker's own \
         included. **All nodes share this machine and its one disk.** Kafka acknowledges what is in memory, Ottla what is synced.",
    );
    let program = bench.librdkafka();
    for is_cluster in [false, true] {
        let nodes = if is_cluster { "three nodes" } else { "one node" };
        if is_cluster {
            bench.begin_clusters();
        } else {
            bench.begin_peers();
        }
        for partitions in [1, 100] {
            let each = counted(partitions as usize, "partition");
            for producers in [1, 16] {
                let topic = Topic { name: format!("transactions-{partitions}-{producers}"), partitions };
                bench.create(&topic);
                let seconds = bench.seconds(2.0, 8.0);
                bench.row(&format!("{nodes}, librdkafka, {each}, {}", counted(producers, "producer")), |peer| {
                    by_librdkafka(&program, peer, &topic, producers, seconds)
                });
            }
            for producers in [1, 64] {
                let topic = Topic { name: format!("transactions-wire-{partitions}-{producers}"), partitions };
                bench.create(&topic);
                let span = bench.span(3.0, 10.0);
                bench.row(&format!("{nodes}, wire, {each}, {}", counted(producers, "producer")), |peer| {
                    by_wire(peer, &topic, producers, span)
                });
            }
        }
    }
}

fn by_librdkafka(program: &Path, peer: &Peer, topic: &Topic, producers: usize, seconds: f64) -> Sample {
    let mut options = librdkafka::options(topic, SIZE, seconds);
    options.extend(["ramp=2".to_owned(), format!("producers={producers}")]);
    let run = librdkafka::run(program, peer, "transact", &options);
    let mut sample = of_client(&run);
    let [p50, p99, _] = run.milliseconds;
    sample.extend([(TRANSACTIONS, run.records / run.seconds), (P50, p50), (P99, p99)]);
    // What is counted is a transaction, not a record or its bytes.
    sample.retain(|name, _| ![RATE, RECORDS, CPU, CLIENT_CPU].contains(name));
    sample
}

fn by_wire(peer: &Peer, topic: &Topic, producers: usize, span: Span) -> Sample {
    let (done, cost) = metered(peer, |edge| wire::run(peer, topic, producers, SIZE, span, edge));
    let mut sample = cost.throughput(&done);
    sample.extend([(TRANSACTIONS, done.requests as f64 / cost.seconds)]);
    sample.retain(|name, _| [TRANSACTIONS, P50, P99, P999, BROKER_CORES, CLIENT_CORES].contains(name));
    sample
}
