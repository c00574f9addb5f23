//! A load by librdkafka, as applications use it: `produce` or `consume` for some seconds, with librdkafka's defaults.
//!
//! Usage: `librdkafka-load produce|consume NAME=VALUE...`. Prints `begin` when the measured window opens and one line of
//! figures when it closes, so that whoever started it can look at the broker at both ends.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

struct Counts {
    began: Instant,
    counting: AtomicBool,
    records: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
    latency: Mutex<Histogram<u64>>,
}

impl Counts {
    fn new() -> Arc<Self> {
        let latency = Histogram::new_with_bounds(1_000, 600_000_000_000, 3).expect("bounds");
        Arc::new(Self {
            began: Instant::now(),
            counting: AtomicBool::new(false),
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            latency: Mutex::new(latency),
        })
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    fn count(&self, bytes: usize) {
        self.records.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

struct Delivered(Arc<Counts>);

impl ClientContext for Delivered {}

impl ProducerContext for Delivered {
    /// The time at which the record should have been sent.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, intended: usize) {
        let counts = &self.0;
        match result {
            Ok(message) if counts.counting.load(Ordering::Relaxed) => {
                counts.count(message.payload_len());
                let took = counts.now().saturating_sub(intended as u64).max(1_000);
                counts.latency.lock().expect("histogram").saturating_record(took);
            }
            Ok(_) => {}
            Err(_) => {
                counts.errors.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

struct Options(BTreeMap<String, String>);

impl Options {
    fn text(&self, name: &str) -> &str {
        self.0.get(name).map(String::as_str).unwrap_or_else(|| panic!("{name}=... is missing"))
    }

    fn number(&self, name: &str, default: f64) -> f64 {
        self.0.get(name).map_or(default, |v| v.parse().unwrap_or_else(|_| panic!("{name}: not a number")))
    }

    /// The broker, and whatever is given as `set.NAME=VALUE`.
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
    let started = Instant::now();
    while started.elapsed() < ramp {
        step();
    }
    println!("begin");
    std::io::stdout().flush().expect("stdout");
    counts.counting.store(true, Ordering::Relaxed);
    let opened = Instant::now();
    while opened.elapsed() < window {
        step();
    }
    let seconds = opened.elapsed().as_secs_f64();
    counts.counting.store(false, Ordering::Relaxed);
    let latency = counts.latency.lock().expect("histogram");
    let at = |percent| latency.value_at_percentile(percent) as f64 / 1e6;
    println!(
        "end records={} bytes={} errors={} seconds={seconds} p50={} p99={} p999={}",
        counts.records.load(Ordering::Relaxed),
        counts.bytes.load(Ordering::Relaxed),
        counts.errors.load(Ordering::Relaxed),
        at(50.0),
        at(99.0),
        at(99.9),
    );
    std::io::stdout().flush().expect("stdout");
}

fn produce(options: &Options) {
    let counts = Counts::new();
    let producer: BaseProducer<Delivered> =
        options.client().create_with_context(Delivered(Arc::clone(&counts))).expect("a producer");
    let topic = options.text("topic").to_owned();
    let value: Vec<u8> = (0..options.number("size", 1024.0) as usize).map(|n| (n * 7919 >> 3) as u8).collect();
    let rate = options.number("rate", 0.0);
    let mut sent = 0_u64;
    let send = |intended: u64| {
        let mut record: BaseRecord<'_, str, [u8], usize> =
            BaseRecord::with_opaque_to(&topic, intended as usize).payload(&value);
        loop {
            match producer.send(record) {
                Ok(()) => return,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    producer.poll(Duration::from_millis(5));
                    record = back;
                }
                Err((error, _)) => panic!("{error}"),
            }
        }
    };
    measure(options, &counts, || {
        if rate == 0.0 {
            let now = counts.now();
            (0..500).for_each(|_| send(now));
            producer.poll(Duration::ZERO);
            return;
        }
        let time_of = |n: u64| (n as f64 * 1e9 / rate) as u64;
        while time_of(sent) <= counts.now() {
            send(time_of(sent));
            sent += 1;
        }
        producer.poll(Duration::from_nanos(time_of(sent).saturating_sub(counts.now())).min(Duration::from_millis(1)));
    });
    let _ = producer.flush(Duration::from_secs(30));
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
        _ => panic!("produce or consume"),
    }
}
