//! Producers that commit one transaction after the other: in each a record to every partition, sent at once. What is counted is a
//! transaction; latency runs from its commit to the answer, with nothing left to be acknowledged before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::counts::{Counts, Quiet};
use crate::{Options, measure};

/// How long librdkafka may take for one of its calls.
const PATIENCE: Duration = Duration::from_secs(60);

/// `partitions=N producers=N size=BYTES`: each producer has a transactional id of its own.
pub(crate) fn transact(options: &Options) {
    let (counts, stop) = (Counts::new(), AtomicBool::new(false));
    let producers = options.number("producers", 1.0) as usize;
    let begun: Vec<BaseProducer<Quiet>> = (0..producers)
        .map(|number| {
            let mut config = options.client();
            config.set("transactional.id", format!("load-{}-{number}", std::process::id()));
            let producer: BaseProducer<Quiet> = config.create_with_context(Quiet).expect("a producer");
            producer.init_transactions(PATIENCE).expect("init_transactions");
            producer
        })
        .collect();
    std::thread::scope(|scope| {
        for producer in &begun {
            let (counts, stop) = (&counts, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    transaction(options, producer, counts);
                }
            });
        }
        measure(options, &counts, || std::thread::sleep(Duration::from_millis(1)));
        stop.store(true, Ordering::Relaxed);
    });
}

fn transaction(options: &Options, producer: &BaseProducer<Quiet>, counts: &Arc<Counts>) {
    let (topic, value) = (options.text("topic"), vec![7_u8; options.number("size", 100.0) as usize]);
    let partitions = options.number("partitions", 1.0) as i32;
    producer.begin_transaction().expect("begin_transaction");
    for partition in 0..partitions {
        let record: BaseRecord<'_, str, [u8]> = BaseRecord::to(topic).payload(&value[..]).partition(partition);
        producer.send(record).map_err(|(error, _)| error).expect("a record in librdkafka's queue");
    }
    producer.flush(PATIENCE).expect("flush");
    let asked = counts.now();
    match producer.commit_transaction(PATIENCE) {
        Ok(()) => counts.took(asked, value.len() * partitions as usize),
        Err(error) => panic!("commit_transaction: {error}"),
    }
}
