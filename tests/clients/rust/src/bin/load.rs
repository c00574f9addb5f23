//! librdkafka through the rdkafka crate: a steady load with its own check, one of the five of tests/soak. See ../../../python/load.py for
//! what it does.
//!
//! Usage: load BOOTSTRAP TOPIC PARTITIONS RATE SIZE SECONDS. Last line: a JSON object with what was counted.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::statistics::Statistics;
use rdkafka::util::Timeout;

const DRAIN_MAX: Duration = Duration::from_secs(120);

static ACKNOWLEDGED: AtomicI64 = AtomicI64::new(0);
static ERRORS: AtomicI64 = AtomicI64::new(0);
static RETRIES: AtomicI64 = AtomicI64::new(0);
static SENT: AtomicI64 = AtomicI64::new(0);
static ENDED: AtomicBool = AtomicBool::new(false);

/// Counts what the library reports.
#[derive(Clone)]
struct Counting;

fn error(what: impl std::fmt::Display) {
    ERRORS.fetch_add(1, SeqCst);
    println!("error {what}");
}

impl ClientContext for Counting {
    fn stats(&self, statistics: Statistics) {
        let retries: i64 = statistics.brokers.values().map(|broker| broker.txretries as i64).sum();
        RETRIES.fetch_max(retries, SeqCst);
    }

    fn error(&self, failure: rdkafka::error::KafkaError, reason: &str) {
        error(format!("{failure}: {reason}"));
    }
}

impl ProducerContext for Counting {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _: ()) {
        match result {
            Ok(_) => _ = ACKNOWLEDGED.fetch_add(1, SeqCst),
            Err((failure, _)) => error(failure),
        }
    }
}

impl rdkafka::consumer::ConsumerContext for Counting {}

struct Load {
    bootstrap: String,
    topic: String,
    partitions: i64,
    rate: f64,
    size: usize,
    seconds: u64,
}

impl Load {
    fn produce(&self) {
        let producer: ThreadedProducer<Counting> = ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .set("enable.idempotence", "true")
            .set("statistics.interval.ms", "1000")
            .create_with_context(Counting)
            .expect("producer");
        let padding = ".".repeat(self.size.saturating_sub(20));
        let (started, mut number) = (Instant::now(), 0_i64);
        while started.elapsed() < Duration::from_secs(self.seconds) {
            while (number as f64) < started.elapsed().as_secs_f64() * self.rate {
                let value = format!("{:019} {padding}", number / self.partitions);
                let partition = i32::try_from(number % self.partitions).expect("a partition");
                let record = BaseRecord::<(), str>::to(&self.topic).partition(partition).payload(&value);
                if let Err((failure, _)) = producer.send(record) {
                    error(failure);
                }
                number += 1;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        producer.flush(Timeout::After(DRAIN_MAX)).expect("flush");
        SENT.store(number, SeqCst);
        ENDED.store(true, SeqCst);
    }

    /// Reads until all that was sent has come: (read, gaps, duplicates).
    fn consume(&self) -> (i64, i64, i64) {
        let consumer: BaseConsumer<Counting> = ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .set("group.id", format!("{}-readers", self.topic))
            .set("auto.offset.reset", "earliest")
            .create_with_context(Counting)
            .expect("consumer");
        consumer.subscribe(&[&self.topic]).expect("subscribe");
        let mut following = vec![0_i64; usize::try_from(self.partitions).expect("partitions")];
        let (mut read, mut gaps, mut duplicates, mut deadline) = (0, 0, 0, None);
        loop {
            if ENDED.load(SeqCst) {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + DRAIN_MAX);
                if read >= SENT.load(SeqCst) || Instant::now() > deadline {
                    return (read, gaps, duplicates);
                }
            }
            let record = match consumer.poll(Duration::from_millis(500)) {
                None => continue,
                Some(Err(failure)) => {
                    error(failure);
                    continue;
                }
                Some(Ok(record)) => record,
            };
            let text = std::str::from_utf8(&record.payload().expect("a value")[..19]).expect("text");
            let number: i64 = text.parse().expect("a number");
            let next = &mut following[usize::try_from(record.partition()).expect("a partition")];
            if number < *next {
                duplicates += 1;
                continue;
            }
            gaps += number - *next;
            *next = number + 1;
            read += 1;
        }
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| words[at].parse::<u64>().expect("a number");
    let load = Load {
        bootstrap: words[0].clone(),
        topic: words[1].clone(),
        partitions: number(2) as i64,
        rate: number(3) as f64,
        size: number(4) as usize,
        seconds: number(5),
    };
    let (read, gaps, duplicates) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| load.consume());
        load.produce();
        reader.join().expect("the reader")
    });
    let (sent, acknowledged, errors) = (SENT.load(SeqCst), ACKNOWLEDGED.load(SeqCst), ERRORS.load(SeqCst));
    println!(
        "{{\"client\": \"rdkafka\", \"sent\": {sent}, \"acknowledged\": {acknowledged}, \"read\": {read}, \"gaps\": {gaps}, \
         \"duplicates\": {duplicates}, \"errors\": {errors}, \"retries\": {}}}",
        RETRIES.load(SeqCst)
    );
    let whole = acknowledged == sent && read == sent && gaps + duplicates + errors == 0;
    std::process::exit(i32::from(!whole));
}
