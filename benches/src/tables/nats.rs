//! NATS JetStream beside Ottla: both sync each record before they acknowledge it.

use super::produce::{SIZES, counted};
use crate::bench::{Bench, drive};
use crate::loads::engine::{Group, Role};
use crate::wire::Topic;

/// One record a request, since NATS knows no batches.
pub(crate) fn nats(bench: &mut Bench) {
    bench.begin(
        "nats",
        "NATS JetStream with sync always",
        "Raw load in each one's own protocol, one record a request, eight in flight on each connection; Ottla with 16 \
         partitions, NATS with 16 streams on disk. Both sync before they acknowledge.",
    );
    let topic = Topic { name: "nats".to_owned(), partitions: 16 };
    let span = bench.span(1.0, 4.0);
    if !bench.begin_with_nats() {
        return;
    }
    bench.create(&topic);
    for (size, size_name) in SIZES {
        for connections in [1, 64] {
            if bench.leaves_out(&[size != 1024, connections != 64]) {
                continue;
            }
            let name = format!("{size_name}, {}", counted(connections, "connection"));
            bench.row(&name, |peer| {
                let role = if peer.name == "nats" { Role::Publish { depth: 8 } } else { Role::Produce { depth: 8 } };
                let group = Group { role, topic: topic.clone(), connections, records: 1, size };
                let (done, cost) = drive(peer, &[group], span);
                cost.throughput(&done[0])
            });
        }
    }
}
