//! librdkafka through the rdkafka crate: the scenario that every client runs against a broker.
//!
//! Usage: rdkafka-scenario BOOTSTRAP. Prints one `ok NAME` line a step; the first failure panics.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

const PARTITIONS: i32 = 4;
const RECORDS_PER_CODEC: i32 = 200;
const WAIT: Duration = Duration::from_secs(60);

struct Scenario {
    bootstrap: String,
    topic: String,
    group: String,
}

/// What was written or read: (partition, offset) to value.
type Records = BTreeMap<(i32, i64), Vec<u8>>;

fn ok(name: &str) {
    println!("ok {name}");
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + WAIT;
    while !condition() {
        assert!(Instant::now() < deadline, "waited {WAIT:?} for {what}");
    }
}

impl Scenario {
    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap).set("message.timeout.ms", "30000");
        config
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.config().create().expect("admin client")
    }

    fn consumer(&self) -> BaseConsumer {
        self.config()
            .remove("message.timeout.ms")
            .set("group.id", &self.group)
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            .set("heartbeat.interval.ms", "300")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .create()
            .expect("consumer")
    }

    async fn admin_creates(&self) {
        let admin = self.admin();
        let options = AdminOptions::new();
        let topic = NewTopic::new(&self.topic, 2, TopicReplication::Fixed(1)).set("retention.ms", "86400000");
        admin.create_topics([&topic], &options).await.expect("create")[0].as_ref().expect("created");
        let more = NewPartitions::new(&self.topic, PARTITIONS as usize);
        admin.create_partitions([&more], &options).await.expect("partitions")[0].as_ref().expect("added");
        let resource = ResourceSpecifier::Topic(&self.topic);
        let alter = AlterConfig::new(resource).set("retention.ms", "43200000");
        admin.alter_configs([&alter], &options).await.expect("alter")[0].as_ref().expect("altered");
        let described = admin.describe_configs([&resource], &options).await.expect("describe");
        let entry = described[0].as_ref().expect("described").get("retention.ms").expect("retention.ms").value.clone();
        assert_eq!(entry.as_deref(), Some("43200000"));
        ok("admin: create topic, add partitions, alter and describe configs");
    }

    async fn produce_with_every_codec(&self) -> Records {
        let mut sent = Records::new();
        for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
            let producer: FutureProducer = self
                .config()
                .set("compression.codec", codec)
                .set("enable.idempotence", "true")
                .set("linger.ms", "5")
                .create()
                .expect("producer");
            let mut waiting = Vec::new();
            for i in 0..RECORDS_PER_CODEC {
                let value = format!("{codec}-{i}-{}", "x".repeat(100));
                let key = format!("key-{i}");
                let headers = OwnedHeaders::new().insert(Header { key: "codec", value: Some(codec) });
                let record = FutureRecord::to(&self.topic).partition(i % PARTITIONS).key(&key).payload(&value);
                waiting.push((value.clone(), producer.send_result(record.headers(headers)).expect("queued")));
            }
            for (value, delivery) in waiting {
                let placed = delivery.await.expect("answered").expect("delivered");
                sent.insert((placed.partition, placed.offset), value.into_bytes());
            }
            producer.flush(WAIT).expect("flush");
        }
        assert_eq!(sent.len(), (RECORDS_PER_CODEC * 5) as usize);
        ok("produce (idempotent): none, gzip, snappy, lz4, zstd");
        sent
    }

    fn poll_into(consumer: &BaseConsumer, seen: &mut Records) {
        if let Some(message) = consumer.poll(Duration::from_millis(50)) {
            let message = message.expect("message");
            seen.insert((message.partition(), message.offset()), message.payload().expect("value").to_vec());
        }
    }

    fn owned(consumer: &BaseConsumer) -> BTreeSet<i32> {
        consumer.assignment().expect("assignment").elements().iter().map(|e| e.partition()).collect()
    }

    fn consume_in_a_group_with_a_rebalance(&self, sent: &Records) {
        let mut seen = Records::new();
        let first = self.consumer();
        first.subscribe(&[&self.topic]).expect("subscribe");
        wait_until("the first consumer to own every partition", || {
            Self::poll_into(&first, &mut seen);
            Self::owned(&first).len() == PARTITIONS as usize
        });
        let second = self.consumer();
        second.subscribe(&[&self.topic]).expect("subscribe");
        wait_until("the group to share its partitions and to read everything", || {
            Self::poll_into(&first, &mut seen);
            Self::poll_into(&second, &mut seen);
            let (one, two) = (Self::owned(&first), Self::owned(&second));
            one.len() == 2 && two.len() == 2 && one.is_disjoint(&two) && seen.len() == sent.len()
        });
        assert!(seen == *sent, "what was read differs from what was sent");
        ok("group: cooperative, two consumers, one rebalance, every record read as sent");
    }

    async fn seek_by_time(&self) {
        let producer: FutureProducer = self.config().create().expect("producer");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("clock").as_millis();
        let middle = i64::try_from(now).expect("clock") + 60_000;
        let mut placed = Vec::new();
        for i in 0..10 {
            let record = FutureRecord::<(), _>::to(&self.topic).partition(0).payload("timed").timestamp(middle + i * 1000);
            placed.push(producer.send(record, WAIT).await.expect("delivered").offset);
        }
        let consumer = self.consumer();
        let mut times = TopicPartitionList::new();
        times.add_partition_offset(&self.topic, 0, Offset::Offset(middle + 4500)).expect("time");
        let found = consumer.offsets_for_times(times, WAIT).expect("offsets for times");
        assert_eq!(found.elements()[0].offset(), Offset::Offset(placed[5]));
        let (low, high) = consumer.fetch_watermarks(&self.topic, 0, WAIT).expect("watermarks");
        assert_eq!((low, high), (0, placed[9] + 1));
        ok("seek by time, watermarks");
    }

    fn commit_and_resume(&self) {
        let mut at = TopicPartitionList::new();
        at.add_partition_offset(&self.topic, 1, Offset::Offset(7)).expect("offset");
        self.consumer().commit(&at, CommitMode::Sync).expect("commit");
        let consumer = self.consumer();
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(&self.topic, 1, Offset::Stored).expect("stored");
        consumer.assign(&from).expect("assign");
        let mut seen = Records::new();
        wait_until("a record after the commit", || {
            Self::poll_into(&consumer, &mut seen);
            !seen.is_empty()
        });
        assert_eq!(seen.keys().next(), Some(&(1, 7)));
        ok("commit and resume");
    }

    async fn admin_looks_around(&self) {
        let admin = self.admin();
        let options = AdminOptions::new();
        let groups = admin.inner().fetch_group_list(Some(&self.group), WAIT).expect("groups");
        assert_eq!(groups.groups().len(), 1);
        wait_until("the group to be empty", || {
            let listed = admin.inner().fetch_group_list(Some(&self.group), WAIT).expect("groups");
            listed.groups()[0].state() == "Empty"
        });
        admin.delete_groups(&[&self.group], &options).await.expect("delete")[0].as_ref().expect("group deleted");
        let mut before = TopicPartitionList::new();
        before.add_partition_offset(&self.topic, 2, Offset::Offset(3)).expect("offset");
        admin.delete_records(&before, &options).await.expect("records deleted");
        let consumer = self.consumer();
        assert_eq!(consumer.fetch_watermarks(&self.topic, 2, WAIT).expect("watermarks").0, 3);
        admin.delete_topics(&[&self.topic], &options).await.expect("delete")[0].as_ref().expect("topic deleted");
        ok("admin: list and delete group, delete records, delete topic");
    }
}

#[tokio::main]
async fn main() {
    let bootstrap = std::env::args().nth(1).expect("usage: rdkafka-scenario BOOTSTRAP");
    let run = SystemTime::now().duration_since(UNIX_EPOCH).expect("clock").as_nanos();
    let scenario = Scenario { bootstrap, topic: format!("rdkafka-{run}"), group: format!("rdkafka-group-{run}") };
    scenario.admin_creates().await;
    let sent = scenario.produce_with_every_codec().await;
    scenario.consume_in_a_group_with_a_rebalance(&sent);
    scenario.seek_by_time().await;
    scenario.commit_and_resume();
    scenario.admin_looks_around().await;
}
