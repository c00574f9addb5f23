//! rskafka, which is Rust throughout and has no consumer groups: its part of the scenario that every client runs against a broker.
//!
//! Usage: rskafka-scenario BOOTSTRAP. Prints what outcome.py reads; the first failure panics.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, TimeDelta, Utc};
use rskafka::client::partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};
use rskafka::record::Record;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

const PARTITIONS: i32 = 4;
const RECORDS_PER_CODEC: i64 = 200;
const FETCH_BYTES: i32 = 1 << 20;
const WAIT_MS: i32 = 60_000;
const CODECS: [(&str, Compression); 5] = [
    ("none", Compression::NoCompression),
    ("gzip", Compression::Gzip),
    ("snappy", Compression::Snappy),
    ("lz4", Compression::Lz4),
    ("zstd", Compression::Zstd),
];

/// What was written or read: (partition, offset) to the record.
type Records = BTreeMap<(i32, i64), Record>;

static ERRORS: AtomicU64 = AtomicU64::new(0);
static WARNINGS: AtomicU64 = AtomicU64::new(0);
static RETRIES: AtomicU64 = AtomicU64::new(0);

/// The library has no counters; what it logs is counted. It retries at level INFO, with one of these messages.
const RETRY: [&str; 2] = ["backing off", "broker asked us to throttle"];

struct Counting;

impl Subscriber for Counting {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= Level::INFO && metadata.target().starts_with("rskafka")
    }
    fn event(&self, event: &Event<'_>) {
        let mut text = String::new();
        event.record(&mut Line(&mut text));
        let counter = match *event.metadata().level() {
            Level::ERROR => &ERRORS,
            Level::WARN => &WARNINGS,
            _ if RETRY.iter().any(|retry| text.contains(retry)) => &RETRIES,
            _ => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        println!("  {} {text}", event.metadata().level());
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// The fields of an event as one line.
struct Line<'a>(&'a mut String);

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        *self.0 += &format!("{field}={value:?} ");
    }
}

fn ok(step: &str) {
    println!("ok {step}");
}

fn skip(steps: &[&str], why: &str) {
    steps.iter().for_each(|step| println!("skip {step} {why}"));
}

struct Scenario {
    client: Client,
    topic: String,
}

impl Scenario {
    async fn partition(&self, partition: i32) -> PartitionClient {
        let asked = self.client.partition_client(&self.topic, partition, UnknownTopicHandling::Error);
        asked.await.expect("partition client")
    }

    /// How many partitions the broker's list of topics gives this one.
    async fn listed_partitions(&self) -> Option<usize> {
        let topics = self.client.list_topics().await.expect("topics");
        topics.into_iter().find(|topic| topic.name == self.topic).map(|topic| topic.partitions.len())
    }

    async fn create(&self) {
        let controller = self.client.controller_client().expect("controller");
        controller.create_topic(&self.topic, PARTITIONS, rdkafka_scenario::replication_factor(), WAIT_MS).await.expect("created");
        assert_eq!(self.listed_partitions().await, Some(PARTITIONS as usize));
        ok("create create and describe only: rskafka gives no settings and adds no partitions");
    }

    async fn every_codec(&self) {
        let mut sent = Records::new();
        for (codec, compression) in CODECS {
            for partition in 0..PARTITIONS {
                let numbers = (0..RECORDS_PER_CODEC).filter(|i| i % i64::from(PARTITIONS) == i64::from(partition));
                let records: Vec<_> = numbers.map(|i| Self::record(codec, i)).collect();
                let placed =
                    self.partition(partition).await.produce(records.clone(), compression).await.expect("acknowledged");
                assert_eq!(placed.len(), records.len());
                sent.extend(placed.into_iter().map(|offset| (partition, offset)).zip(records));
            }
        }
        assert_eq!(sent.len() as i64, RECORDS_PER_CODEC * CODECS.len() as i64);
        let mut read = Records::new();
        for partition in 0..PARTITIONS {
            read.extend(self.read(partition, 0).await);
        }
        assert!(read == sent, "what was read differs from what was sent");
        ok("codecs");
    }

    fn record(codec: &str, i: i64) -> Record {
        Record {
            key: Some(format!("key-{i}").into_bytes()),
            value: Some(format!("{codec}-{i}-{}", "x".repeat(100)).into_bytes()),
            headers: BTreeMap::from([("codec".to_owned(), codec.as_bytes().to_vec())]),
            // What goes over the wire has milliseconds.
            timestamp: DateTime::from_timestamp_millis(Utc::now().timestamp_millis()).expect("now"),
        }
    }

    /// All records of a partition from an offset on.
    async fn read(&self, partition: i32, mut from: i64) -> Records {
        let client = self.partition(partition).await;
        let end = client.get_offset(OffsetAt::Latest).await.expect("end");
        let mut read = Records::new();
        while from < end {
            let (records, watermark) = client.fetch_records(from, 1..FETCH_BYTES, 1_000).await.expect("fetched");
            assert_eq!(watermark, end);
            from = records.last().expect("a fetch below the watermark has records").offset + 1;
            read.extend(records.into_iter().map(|record| ((partition, record.offset), record.record)));
        }
        read
    }

    async fn offsets(&self) {
        let client = self.partition(1).await;
        assert_eq!(client.get_offset(OffsetAt::Earliest).await.expect("beginning"), 0);
        let sent = RECORDS_PER_CODEC * CODECS.len() as i64 / i64::from(PARTITIONS);
        assert_eq!(client.get_offset(OffsetAt::Latest).await.expect("end"), sent);
        ok("offsets beginning and end (rskafka commits no offsets)");
    }

    async fn seek_by_time(&self) {
        let client = self.partition(0).await;
        let middle = Self::record("time", 0).timestamp + TimeDelta::minutes(1);
        let record = |i| Record { timestamp: middle + TimeDelta::seconds(i), ..Self::record("time", i) };
        let sent: Vec<_> = (0..10).map(record).collect();
        let mut placed = Vec::new();
        for record in &sent {
            placed
                .extend(client.produce(vec![record.clone()], Compression::NoCompression).await.expect("acknowledged"));
        }
        let asked = OffsetAt::Timestamp(middle + TimeDelta::milliseconds(4_500));
        let found = client.get_offset(asked).await.expect("offset of a time");
        assert_eq!(found, placed[5]);
        assert!(self.read(0, found).await.into_values().eq(sent[5..].iter().cloned()));
        ok("time");
    }

    async fn delete(&self) {
        let client = self.partition(2).await;
        client.delete_records(3, WAIT_MS).await.expect("records deleted");
        assert_eq!(client.get_offset(OffsetAt::Earliest).await.expect("beginning"), 3);
        assert_eq!(self.read(2, 3).await.keys().next(), Some(&(2, 3)));
        let controller = self.client.controller_client().expect("controller");
        controller.delete_topic(&self.topic, WAIT_MS).await.expect("topic deleted");
        assert_eq!(self.listed_partitions().await, None);
        ok("delete");
    }
}

#[tokio::main]
async fn main() {
    let bootstrap = std::env::args().nth(1).expect("usage: rskafka-scenario BOOTSTRAP");
    tracing::subscriber::set_global_default(Counting).expect("the only subscriber");
    println!("version {}", rdkafka_scenario::locked_version("rskafka"));
    let client = ClientBuilder::new(bootstrap.split(',').map(str::to_owned).collect()).build().await.expect("client");
    let topic = format!("rskafka-{}", Utc::now().timestamp_micros());
    let scenario = Scenario { client, topic };
    scenario.create().await;
    skip(&["configs"], "rskafka has no calls for settings");
    scenario.every_codec().await;
    skip(&["idempotent"], "rskafka has no idempotent producer");
    skip(&["large"], "rskafka cannot set the topic's limit; a record below the default limit is sent by the others");
    skip(&["group", "cooperative", "resume", "groups"], "rskafka has no consumer groups");
    scenario.offsets().await;
    scenario.seek_by_time().await;
    skip(&["transactions"], "rskafka has none");
    scenario.delete().await;
    println!("count errors {}", ERRORS.load(Ordering::Relaxed));
    println!("count retries {}", RETRIES.load(Ordering::Relaxed));
    println!("count warnings {}", WARNINGS.load(Ordering::Relaxed));
}
