//! A load by librdkafka, as applications use it: `produce`, `consume` or `transact` for some seconds, with librdkafka's defaults; or
//! `watch`, a producer, and `group`, a consumer, that go on whatever happens and are asked for figures.
//!
//! Usage: `librdkafka-load produce|consume|transact|watch|group NAME=VALUE...`. Prints `begin` when the measured window opens and one line
//! of figures when it closes, so that whoever started it can look at the broker at both ends.

mod counts;
mod group;
mod transact;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use counts::{Counts, Delivered, say};

struct Options(BTreeMap<String, String>);

impl Options {
    fn text(&self, name: &str) -> &str {
        self.0.get(name).map(String::as_str).unwrap_or_else(|| panic!("{name}=... is missing"))
    }

    fn number(&self, name: &str, default: f64) -> f64 {
        self.0.get(name).map_or(default, |v| v.parse().unwrap_or_else(|_| panic!("{name}: not a number")))
    }

    /// Numbers between commas; none if it is not given.
    fn list(&self, name: &str) -> Vec<i32> {
        let all = self.0.get(name).map_or("", String::as_str).split(',').filter(|part| !part.is_empty());
        all.map(|part| part.parse().unwrap_or_else(|_| panic!("{name}: not a number"))).collect()
    }

    /// The brokers, and whatever is given as `set.NAME=VALUE`.
    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.text("to"));
        for (name, value) in &self.0 {
            if let Some(name) = name.strip_prefix("set.") {
                config.set(name, value);
            }
        }
        config
    }
}

/// Opens and closes the measured window while `step` does the work.
fn measure(options: &Options, counts: &Counts, mut step: impl FnMut()) {
    let ramp = Duration::from_secs_f64(options.number("ramp", 0.5));
    let window = Duration::from_secs_f64(options.number("seconds", 3.0));
    // The window closes early once so much payload has moved.
    let most = options.number("bytes", f64::MAX) as u64;
    let started = Instant::now();
    while started.elapsed() < ramp {
        step();
    }
    say("begin");
    counts.counting.store(true, Ordering::Relaxed);
    let opened = Instant::now();
    while opened.elapsed() < window && counts.bytes.load(Ordering::Relaxed) < most {
        step();
    }
    let took = opened.elapsed();
    counts.counting.store(false, Ordering::Relaxed);
    say(&format!("end {}", counts.take(took)));
}

/// How long a producer waits for acknowledgements at a time.
const POLL: Duration = Duration::from_millis(1);

/// What a producer sends.
struct Load {
    producer: BaseProducer<Delivered>,
    topic: String,
    value: Vec<u8>,
    /// Records a second; 0: as fast as it can.
    rate: f64,
}

impl Load {
    fn new(options: &Options, counts: &Arc<Counts>) -> Self {
        let producer = options.client().create_with_context(Delivered(Arc::clone(counts))).expect("a producer");
        let size = options.number("size", 1024.0) as usize;
        Self {
            producer,
            topic: options.text("topic").to_owned(),
            value: (0..size).map(|n| ((n * 7919) >> 3) as u8).collect(),
            rate: options.number("rate", 0.0),
        }
    }

    /// Queues a record, and waits where librdkafka's queue is full. Without a partition librdkafka chooses one.
    fn send(&self, intended: u64, partition: Option<i32>) -> Result<(), KafkaError> {
        let mut record: BaseRecord<'_, str, [u8], usize> =
            BaseRecord::with_opaque_to(&self.topic, intended as usize).payload(&self.value);
        record.partition = partition;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    self.producer.poll(Duration::from_millis(5));
                    record = back;
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// When the record with that number should be sent.
    fn time_of(&self, number: u64) -> u64 {
        (number as f64 * 1e9 / self.rate) as u64
    }

    /// Takes acknowledgements until the record with that number is due, a millisecond at most.
    fn poll_until(&self, number: u64, counts: &Counts) {
        let left = Duration::from_nanos(self.time_of(number).saturating_sub(counts.now()));
        if left >= POLL {
            self.producer.poll(POLL);
        } else {
            // librdkafka waits for whole milliseconds or not at all: turning round here would take a processor from the broker.
            std::thread::sleep(left.min(POLL / 10));
            self.producer.poll(Duration::ZERO);
        }
    }
}

fn produce(options: &Options) {
    let counts = Counts::new();
    let load = Load::new(options, &counts);
    let send = |intended| load.send(intended, None).unwrap_or_else(|error| panic!("{error}"));
    let mut sent = 0_u64;
    measure(options, &counts, || {
        if load.rate == 0.0 {
            let now = counts.now();
            (0..500).for_each(|_| send(now));
            load.producer.poll(Duration::ZERO);
            return;
        }
        while load.time_of(sent) <= counts.now() {
            send(load.time_of(sent));
            sent += 1;
        }
        load.poll_until(sent, &counts);
    });
    let _ = load.producer.flush(Duration::from_secs(30));
}

fn consume(options: &Options) {
    let counts = Counts::new();
    let stop = AtomicBool::new(false);
    let partitions = options.number("partitions", 1.0) as i32;
    let topic = options.text("topic");
    std::thread::scope(|scope| {
        for number in 0..options.number("consumers", 1.0) as usize {
            let (counts, stop) = (&counts, &stop);
            scope.spawn(move || {
                let mut config = options.client();
                config.set("group.id", format!("load-{number}")).set("enable.auto.commit", "false");
                let consumer: BaseConsumer = config.create().expect("a consumer");
                let mut all = TopicPartitionList::new();
                for p in 0..partitions {
                    all.add_partition_offset(topic, p, Offset::Beginning).expect("a partition");
                }
                consumer.assign(&all).expect("assign");
                let again = options.number("again", 1.0) > 0.0;
                let mut seen = 0_u64;
                let end = options.number("records", f64::MAX) as u64;
                while !stop.load(Ordering::Relaxed) {
                    match consumer.poll(Duration::from_millis(100)) {
                        Some(Ok(message)) => {
                            seen += 1;
                            if counts.counting.load(Ordering::Relaxed) {
                                counts.count(message.payload_len());
                            }
                        }
                        Some(Err(_)) => {
                            counts.errors.fetch_add(1, Ordering::Relaxed);
                        }
                        None => {}
                    }
                    if again && seen >= end {
                        // From the beginning again: librdkafka takes the same assignment anew.
                        consumer.unassign().expect("unassign");
                        consumer.assign(&all).expect("assign");
                        seen = 0;
                    }
                }
            });
        }
        measure(options, &counts, || std::thread::sleep(Duration::from_millis(1)));
        stop.store(true, Ordering::Relaxed);
    });
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_default();
    let pairs = arguments.map(|a| {
        let (name, value) = a.split_once('=').unwrap_or_else(|| panic!("{a}: NAME=VALUE"));
        (name.to_owned(), value.to_owned())
    });
    let options = Options(pairs.collect());
    match what.as_str() {
        "produce" => produce(&options),
        "consume" => consume(&options),
        "transact" => transact::transact(&options),
        "watch" => watch::watch(&options),
        "group" => group::group(&options),
        _ => panic!("produce, consume, transact, watch or group"),
    }
}
