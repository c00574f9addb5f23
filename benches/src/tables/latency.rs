//! Latency at a rate that both can serve, without coordinated omission; and of a live reader who is not alone.

use super::consume::fill;
use super::produce::counted;
use crate::bench::{Bench, drive, latencies, of_client};
use crate::loads::engine::{Group, Role};
use crate::loads::java::Run;
use crate::loads::librdkafka;
use crate::peers::Peer;
use crate::table::{ALONE, OFFERED, P50, P99, P999, RATE, Sample};
use crate::wire::Topic;

/// p50, p99 and p99.9 of produce at half of what Kafka reaches.
pub(crate) fn latency(bench: &mut Bench) {
    bench.begin(
        "latency",
        "Latency at half of Kafka's maximum",
        "Kafka's maximum is measured first with the same shape of load, eight requests in flight on each connection; then \
         both get half of that rate, evenly spaced. Latency runs from the time at which a request should have been sent \
         to its acknowledgement.",
    );
    bench.begin_peers();
    let topic = Topic { name: "latency".to_owned(), partitions: 16 };
    bench.create(&topic);
    let (short, span) = (bench.span(0.5, 4.0), bench.span(1.5, 10.0));
    let shapes =
        [("single records of 1 KiB", 1, 64), ("batches of 16 KiB", 16, 64), ("single records of 1 KiB", 1, 1_000)];
    for (what, records, connections) in shapes {
        let group = |role| [Group { role, topic: topic.clone(), connections, records, size: 1024 }];
        let base = bench.peers().last().expect("a peer");
        let (done, cost) = drive(base, &group(Role::Produce { depth: 8 }), short);
        let rate = done[0].requests as f64 / cost.seconds / 2.0;
        let name = format!("{what}, {}", counted(connections, "connection"));
        bench.row(&name, |peer| {
            let (done, cost) = drive(peer, &group(Role::Paced { rate }), span);
            let mut sample = cost.throughput(&done[0]);
            sample.insert(OFFERED, rate);
            sample
        });
    }
    clients_latency(bench, &["5", "0"]);
}

/// The figures of a client that was given a rate.
pub(super) fn paced(run: &Run, rate: f64) -> Sample {
    let mut sample = of_client(run);
    sample.extend([P50, P99, P999].into_iter().zip(run.milliseconds));
    sample.insert(OFFERED, rate);
    sample
}

/// The same through librdkafka: with its 5 ms of lingering, or without.
pub(super) fn clients_latency(bench: &mut Bench, lingers: &[&str]) {
    let topic = Topic { name: "latency-client".to_owned(), partitions: 16 };
    bench.create(&topic);
    let program = bench.librdkafka();
    let seconds = bench.seconds(1.5, 10.0);
    for linger in lingers {
        let options = |seconds: f64, rate: f64| {
            vec![
                format!("topic={}", topic.name),
                "size=1024".to_owned(),
                format!("seconds={seconds}"),
                format!("rate={rate}"),
                "set.acks=all".to_owned(),
                format!("set.linger.ms={linger}"),
            ]
        };
        let base = bench.peers().last().expect("a peer");
        let top = librdkafka::run(&program, base, "produce", &options(seconds / 2.0, 0.0));
        let rate = top.records / top.seconds / 2.0;
        bench.row(&format!("librdkafka, records of 1 KiB, linger.ms={linger}"), |peer| {
            paced(&librdkafka::run(&program, peer, "produce", &options(seconds, rate)), rate)
        });
    }
}

/// From producer to live reader while others read.
pub(crate) fn beside(bench: &mut Bench) {
    bench.begin(
        "beside",
        "A live reader beside others",
        "16 connections produce 2,000 records of 1 KiB a second, 16 read them as they come; latency runs from the intended \
         time of sending to the arrival at the reader. Beside them: nobody, then ten readers that ask for 50 MiB and read \
         nothing, then one that replays old data as fast as it comes, then four of them.",
    );
    bench.begin_peers();
    let (live, old) =
        (Topic { name: "live".to_owned(), partitions: 16 }, Topic { name: "old".to_owned(), partitions: 4 });
    bench.create(&live);
    bench.create(&old);
    for peer in bench.peers() {
        fill(peer, &old, 1024, bench.bytes(5e8, 4e9));
    }
    let span = bench.span(1.5, 10.0);
    let group =
        |role, topic: &Topic, connections| Group { role, topic: topic.clone(), connections, records: 1, size: 1024 };
    let rate = 2_000.0;
    let live = [group(Role::Paced { rate }, &live, 16), group(Role::Tail { bytes_max: 1 << 20 }, &live, 16)];
    let others = [
        ("alone", None),
        ("10 readers that do not read", Some(group(Role::Stuck, &old, 10))),
        ("1 replaying reader", Some(group(Role::Replay { bytes_max: 1 << 20 }, &old, 1))),
        ("4 replaying readers", Some(group(Role::Replay { bytes_max: 1 << 20 }, &old, 4))),
    ];
    let mut alone: Vec<(String, f64)> = Vec::new();
    for (name, other) in others {
        let mut groups = live.to_vec();
        groups.extend(other);
        let mut row = bench.measure(name, |peer| live_sample(peer, &groups, span, rate));
        for (peer, samples) in &mut row.peers {
            if name == "alone" {
                let p99: Vec<f64> = samples.iter().map(|s| s[P99]).collect();
                alone.push((peer.clone(), p99.iter().sum::<f64>() / p99.len() as f64));
            } else if let Some((_, p99)) = alone.iter().find(|(known, _)| known == peer) {
                for sample in samples {
                    sample.insert(ALONE, sample[P99] / p99);
                }
            }
        }
        bench.add(row);
    }
}

fn live_sample(peer: &Peer, groups: &[Group], span: crate::loads::engine::Span, rate: f64) -> Sample {
    let (done, cost) = drive(peer, groups, span);
    let mut sample = Sample::from([(OFFERED, rate)]);
    latencies(&mut sample, &done[1]);
    if let (Some(other), Role::Replay { .. }) = (done.get(2), groups.last().expect("a group").role) {
        sample.insert(RATE, other.bytes as f64 / 1e6 / cost.seconds);
    }
    sample.insert(crate::table::BROKER_CORES, cost.broker / cost.seconds);
    sample.insert(crate::table::CLIENT_CORES, cost.client / cost.seconds);
    sample
}
