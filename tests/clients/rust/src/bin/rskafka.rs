//! rskafka: the scenario that every client runs against a broker, as far as this client goes.
//!
//! Usage: rskafka BOOTSTRAP. Prints what outcome.py reads; the first failure panics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use rskafka::client::partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};
use rskafka::record::Record;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Metadata, Subscriber};

const PARTITIONS: i32 = 4;
const RECORDS_PER_CODEC: i32 = 200;
const TIMEOUT_MS: i32 = 30_000;
const FETCH_BYTES: std::ops::Range<i32> = 1..1_000_000;

/// rskafka counts nothing itself, but it traces each warning, and each request that it does again after a pause.
struct Counters;

static WARNINGS: AtomicU64 = AtomicU64::new(0);
static RETRIES: AtomicU64 = AtomicU64::new(0);

struct Said(String);

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0 += &format!(" {}={value:?}", field.name());
    }
}

impl Subscriber for Counters {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut said = Said(String::new());
        event.record(&mut said);
        let level = *event.metadata().level();
        let again = said.0.contains("backing off") || said.0.contains("backoff_secs");
        if again {
            RETRIES.fetch_add(1, Ordering::Relaxed);
        } else if level <= Level::WARN {
            WARNINGS.fetch_add(1, Ordering::Relaxed);
        }
        if again || level <= Level::WARN {
            println!("  {level}{}", said.0);
        }
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

fn ok(step: &str) {
    println!("ok {step}");
}

fn record(codec: &str, i: i32) -> Record {
    Record {
        key: Some(format!("key-{}", i % 17).into_bytes()),
        value: Some(format!("{codec}-{i}-{}", "x".repeat(100)).into_bytes()),
        headers: BTreeMap::from([("codec".to_owned(), codec.as_bytes().to_vec()), ("empty".to_owned(), Vec::new())]),
        timestamp: DateTime::from_timestamp_millis(Utc::now().timestamp_millis()).expect("clock"),
    }
}

async fn partition(client: &Client, topic: &str, partition: i32) -> PartitionClient {
    client.partition_client(topic, partition, UnknownTopicHandling::Retry).await.expect("partition client")
}

/// Everything of a partition from an offset on.
async fn read_from(client: &PartitionClient, mut offset: i64) -> BTreeMap<i64, Record> {
    let mut seen = BTreeMap::new();
    loop {
        let (records, end) = client.fetch_records(offset, FETCH_BYTES, 1_000).await.expect("fetch");
        // What comes before the offset in its batch comes along.
        seen.extend(records.into_iter().filter(|r| r.offset >= offset).map(|r| (r.offset, r.record)));
        offset = seen.last_key_value().map_or(offset, |(last, _)| last + 1);
        if offset >= end {
            return seen;
        }
    }
}

async fn produce_and_read_with_every_codec(client: &Client, topic: &str) {
    let codecs = [
        ("none", Compression::NoCompression),
        ("gzip", Compression::Gzip),
        ("snappy", Compression::Snappy),
        ("lz4", Compression::Lz4),
        ("zstd", Compression::Zstd),
    ];
    for number in 0..PARTITIONS {
        let partition = partition(client, topic, number).await;
        let mut sent = BTreeMap::new();
        for (name, codec) in codecs {
            let records: Vec<Record> =
                (0..RECORDS_PER_CODEC).filter(|i| i % PARTITIONS == number).map(|i| record(name, i)).collect();
            let offsets = partition.produce(records.clone(), codec).await.expect("produce");
            sent.extend(offsets.into_iter().zip(records));
        }
        assert!(sent.keys().copied().eq(0..i64::try_from(sent.len()).expect("few")), "offsets are not dense from 0");
        assert!(read_from(&partition, 0).await == sent, "what was read differs from what was sent");
    }
    ok("codecs");
}

async fn large_record(partition: &PartitionClient) {
    // Bytes that no codec makes small; below the default limit of a topic, which this client cannot change.
    let mut state: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    let value: Vec<u8> = (0..1_000_000).map(|_| next()).collect();
    let record = Record { value: Some(value), key: None, headers: BTreeMap::new(), timestamp: record("", 0).timestamp };
    let offsets = partition.produce(vec![record.clone()], Compression::NoCompression).await.expect("produce");
    assert!(read_from(partition, offsets[0]).await == BTreeMap::from([(offsets[0], record)]));
    ok("large 1 MB: rskafka cannot raise the topic's limit");
}

async fn seek_by_time(partition: &PartitionClient) {
    let middle = record("", 0).timestamp + TimeDelta::minutes(1);
    let mut placed = Vec::new();
    for i in 0..10 {
        let timed = Record { timestamp: middle + TimeDelta::seconds(i), ..record("timed", 0) };
        placed.extend(partition.produce(vec![timed], Compression::Lz4).await.expect("produce"));
    }
    let at = OffsetAt::Timestamp(middle + TimeDelta::milliseconds(4_500));
    let found = partition.get_offset(at).await.expect("offset of a time");
    assert_eq!(found, placed[5]);
    assert!(read_from(partition, found).await.into_keys().eq(placed[5..].iter().copied()));
    ok("time");
}

async fn offsets_and_deletion(client: &Client, topic: &str) {
    let partition = partition(client, topic, 2).await;
    assert_eq!(partition.get_offset(OffsetAt::Earliest).await.expect("earliest"), 0);
    let each = i64::from(RECORDS_PER_CODEC * 5 / PARTITIONS);
    assert_eq!(partition.get_offset(OffsetAt::Latest).await.expect("latest"), each);
    ok("offsets beginning and end: rskafka has no groups");
    partition.delete_records(3, TIMEOUT_MS).await.expect("delete records");
    assert_eq!(partition.get_offset(OffsetAt::Earliest).await.expect("earliest"), 3);
    client.controller_client().expect("controller").delete_topic(topic, TIMEOUT_MS).await.expect("delete topic");
    wait_until_listed(client, topic, false).await;
    ok("delete");
}

async fn wait_until_listed(client: &Client, topic: &str, wanted: bool) {
    for _ in 0..600 {
        let topics = client.list_topics().await.expect("topics");
        if topics.iter().any(|t| t.name == topic && t.partitions.len() == PARTITIONS as usize) == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("waited 60 s for the topic to be there or gone");
}

#[tokio::main]
async fn main() {
    tracing::subscriber::set_global_default(Counters).expect("the only subscriber");
    println!("version {}", rdkafka_scenario::locked_version("rskafka"));
    let bootstrap = std::env::args().nth(1).expect("usage: rskafka BOOTSTRAP");
    let topic = format!("rskafka-{}", Utc::now().timestamp_micros());
    let client = ClientBuilder::new(vec![bootstrap]).build().await.expect("client");
    let controller = client.controller_client().expect("controller");
    controller.create_topic(&topic, PARTITIONS, 1, TIMEOUT_MS).await.expect("create topic");
    wait_until_listed(&client, &topic, true).await;
    ok("create without settings: rskafka sends none");
    produce_and_read_with_every_codec(&client, &topic).await;
    large_record(&partition(&client, &topic, 3).await).await;
    seek_by_time(&partition(&client, &topic, 0).await).await;
    offsets_and_deletion(&client, &topic).await;
    println!("skip configs rskafka has no calls for settings");
    println!("skip idempotent rskafka has no idempotent producer");
    for step in ["group", "cooperative", "resume", "groups"] {
        println!("skip {step} rskafka has no consumer groups");
    }
    println!("count retries {}", RETRIES.load(Ordering::Relaxed));
    println!("count warnings {}", WARNINGS.load(Ordering::Relaxed));
}
