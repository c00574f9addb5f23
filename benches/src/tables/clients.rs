//! The clients that people use, with their defaults: librdkafka and Kafka's own producer and consumer.

use super::produce::{SIZES, counted};
use crate::bench::{Bench, of_client};
use crate::loads::java::{self, Run};
use crate::loads::librdkafka;
use crate::table::{P50, P99, P999, Sample};
use crate::wire::Topic;

fn with_latency(run: &Run) -> Sample {
    let mut sample = of_client(run);
    for (name, value) in [P50, P99, P999].into_iter().zip(run.milliseconds) {
        sample.insert(name, value);
    }
    sample
}

/// One producer, then one consumer, of each client.
pub(crate) fn clients(bench: &mut Bench) {
    bench.begin(
        "clients",
        "librdkafka and the Java client",
        "One client process each with its defaults but acks=all: librdkafka batches up to 1 MB or 5 ms, producer-perf-test \
         16 KiB; consumers read what is there, cached. Figures of the Java client include its start; they count whole runs. \
         librdkafka stops asking for a second when 100,000 records wait: with records of 100 B that decides.",
    );
    let program = bench.librdkafka();
    for partitions in [1, 100, 10_000] {
        bench.begin_peers();
        for (size, size_name) in SIZES {
            if bench.leaves_out(&[partitions != 1, partitions > 100, size != 1024]) {
                continue;
            }
            let topic = Topic { name: format!("clients-{partitions}-{size}"), partitions };
            bench.create(&topic);
            let what = format!("{size_name}, {}", counted(partitions as usize, "partition"));
            let seconds = bench.seconds(1.0, 5.0);
            let options = librdkafka::options(&topic, size, seconds);
            bench.row(&format!("librdkafka produces {what}"), |peer| {
                of_client(&librdkafka::run(&program, peer, "produce", &options))
            });
            // As much work for both, not as much time: the tool counts records.
            let records = (bench.seconds(0.2e9, 2e9) / (size as f64 + 400.0)) as u64;
            let java = bench.jars().filter(|_| !bench.leaves_out(&[true, partitions != 1, size != 1024]));
            if let Some(jars) = java.map(std::path::Path::to_path_buf) {
                bench.row(&format!("Java produces {what}"), |peer| {
                    with_latency(&java::produce(&jars, peer, &topic, records, size, None))
                });
                if partitions <= 100 {
                    bench.row(&format!("Java consumes {what}"), |peer| {
                        of_client(&java::consume(&jars, peer, &topic, records))
                    });
                }
            }
            // With thousands of partitions librdkafka now and then forgets to ask for some of them, whoever the broker is.
            if partitions <= 100 {
                bench.row(&format!("librdkafka consumes {what}"), |peer| {
                    let mut options = options.clone();
                    options.retain(|o| !o.starts_with("set."));
                    options.push(format!("records={records}"));
                    of_client(&librdkafka::run(&program, peer, "consume", &options))
                });
            }
            if !bench.have_room() {
                bench.begin_anew();
            }
        }
    }
}
