//! Transactions: how many a second, and how long a commit takes.

use super::produce::counted;
use crate::bench::{Bench, of_client};
use crate::loads::librdkafka;
use crate::table::{CLIENT_CPU, CPU, P50, P99, RATE, RECORDS, TRANSACTIONS};
use crate::wire::Topic;

/// With one partition and with 100 in each transaction, by one producer and by many, on one node and on three.
pub(crate) fn transactions(bench: &mut Bench) {
    bench.begin(
        "transactions",
        "Transactions",
        "librdkafka's transactional producer with its defaults: a record of 100 B to each partition, all of them acknowledged, and then \
         the commit, whose latency is shown: from its call to its return. Each producer has its own transactional id and \
         commits one transaction after the other. Three nodes: replication factor 3 for all topics, those of the broker's own \
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
            for producers in [1, 16] {
                let topic = Topic { name: format!("transactions-{partitions}-{producers}"), partitions };
                bench.create(&topic);
                let seconds = bench.seconds(2.0, 8.0);
                let mut options = librdkafka::options(&topic, 100, seconds);
                options.extend(["ramp=2".to_owned(), format!("producers={producers}")]);
                let each = counted(partitions as usize, "partition");
                bench.row(&format!("{nodes}, {each}, {}", counted(producers, "producer")), |peer| {
                    let run = librdkafka::run(&program, peer, "transact", &options);
                    let mut sample = of_client(&run);
                    let [p50, p99, _] = run.milliseconds;
                    sample.extend([(TRANSACTIONS, run.records / run.seconds), (P50, p50), (P99, p99)]);
                    // What is counted is a transaction, not a record or its bytes.
                    sample.retain(|name, _| ![RATE, RECORDS, CPU, CLIENT_CPU].contains(name));
                    sample
                });
            }
        }
    }
}
