//! Three nodes that are apart, on disks whose syncs take their time: what a partition carries, and how long a record takes.

use std::path::Path;
use std::time::Duration;

use super::latency::paced;
use super::produce::counted;
use crate::bench::{Bench, drive, of_client};
use crate::loads::engine::{Group, Role};
use crate::loads::librdkafka;
use crate::peers::Surroundings;
use crate::table::OFFERED;
use crate::wire::Topic;

/// Records a second at which latency is measured.
const RATE: f64 = 20_000.0;
const BATCH_RECORDS: usize = 16;

/// One partition, and 16, over round trips of 1 and 40 ms.
pub(crate) fn zones(bench: &mut Bench) {
    bench.begin(
        "zones",
        "Three nodes in zones that are apart",
        "Three nodes of each, replication factor 3, acks=all, one client beside them. Between the nodes, and between them alone, \
         stands the same proxy for both, which holds up every byte for half of the round trip; a supervisor holds up each \
         fsync and fdatasync. Kafka acknowledges what its replicas have in memory, and does not wait for a sync. Latency is \
         that of records of 1 KiB at 20,000 a second to one partition: from the time at which a request should have been sent, or \
         a record was given to the client.",
    );
    let program = bench.librdkafka();
    let (seconds, milliseconds) = (bench.seconds(3.0, 8.0), Duration::from_millis);
    for (round_trip, sync) in [(1, 2), (1, 0), (40, 0)] {
        bench.begin_clusters_in(Surroundings { round_trip: milliseconds(round_trip), sync: milliseconds(sync) });
        let place = match sync {
            0 => format!("{round_trip} ms apart"),
            _ => format!("{round_trip} ms apart, syncs {sync} ms longer"),
        };
        for partitions in [1, 16] {
            let (topic, count) =
                (Topic { name: format!("zones-{partitions}"), partitions }, counted(partitions as usize, "partition"));
            bench.create(&topic);
            let options = librdkafka::options(&topic, 1024, seconds);
            bench.row(&format!("{place}: librdkafka produces 1 KiB, {count}"), |peer| {
                of_client(&librdkafka::run(&program, peer, "produce", &options))
            });
        }
        latency(bench, &place, &program);
    }
    bench.end_clusters_apart();
}

/// How long a record takes at a rate that both can serve: of connections that send batches on the dot, and of librdkafka, whose
/// lingering is part of it.
fn latency(bench: &mut Bench, place: &str, program: &Path) {
    let topic = Topic { name: "zones-latency".to_owned(), partitions: 1 };
    bench.create(&topic);
    let role = Role::Paced { rate: RATE / BATCH_RECORDS as f64 };
    let group = [Group { role, topic: topic.clone(), connections: 64, records: BATCH_RECORDS, size: 1024 }];
    let span = bench.span(3.0, 10.0);
    bench.row(&format!("{place}: 20,000 records a second, batches of 16"), |peer| {
        let (done, cost) = drive(peer, &group, span);
        let mut sample = cost.throughput(&done[0]);
        sample.insert(OFFERED, RATE);
        sample
    });
    let mut options = librdkafka::options(&topic, 1024, bench.seconds(3.0, 8.0));
    options.extend([format!("rate={RATE}"), "set.linger.ms=5".to_owned()]);
    bench.row(&format!("{place}: 20,000 records a second, librdkafka, linger.ms=5"), |peer| {
        paced(&librdkafka::run(program, peer, "produce", &options), RATE)
    });
}
