//! librdkafka through the rdkafka crate: the scenario that every client runs against a broker.
//!
//! Usage: rdkafka-scenario BOOTSTRAP. Prints what outcome.py reads; the first failure panics.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::statistics::Statistics;
use rdkafka::{Offset, TopicPartitionList};

const PARTITIONS: i32 = 4;
const RECORDS_PER_CODEC: i32 = 200;
const LARGE_BYTES: usize = 3 << 20;
const LARGE_LIMIT: &str = "4194304";
const WAIT: Duration = Duration::from_secs(60);

struct Scenario {
    bootstrap: String,
    topic: String,
    group: String,
}

/// What was written or read: (partition, offset) to key, value and headers.
type Records = BTreeMap<(i32, i64), (Option<Vec<u8>>, Vec<u8>, String)>;

static ERRORS: AtomicU64 = AtomicU64::new(0);
static WARNINGS: AtomicU64 = AtomicU64::new(0);
/// The retries of each client, as its last statistics have them.
static RETRIES: Mutex<Option<HashMap<String, u64>>> = Mutex::new(None);

/// librdkafka's own counters: statistics, errors, and what it logs as a warning.
#[derive(Default)]
struct Counters {
    /// How many partitions the group took back from this consumer.
    revoked: AtomicU64,
}

impl ClientContext for Counters {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if (level as i32) <= RDKafkaLogLevel::Warning as i32 {
            WARNINGS.fetch_add(1, Ordering::Relaxed);
            println!("  {level:?} {facility} {message}");
        }
    }
    fn error(&self, error: KafkaError, reason: &str) {
        ERRORS.fetch_add(1, Ordering::Relaxed);
        println!("  error: {error}: {reason}");
    }
    fn stats(&self, statistics: Statistics) {
        let brokers = statistics.brokers.values();
        let retries = brokers.map(|b| b.txretries + b.txerrs + b.rxerrs + b.req_timeouts).sum();
        RETRIES.lock().expect("counters").get_or_insert_default().insert(statistics.name, retries);
    }
}

impl ConsumerContext for Counters {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(partitions) = rebalance {
            self.revoked.fetch_add(partitions.count() as u64, Ordering::Relaxed);
        }
    }
}

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
        config.set("bootstrap.servers", &self.bootstrap).set("statistics.interval.ms", "100");
        config
    }

    fn admin(&self) -> AdminClient<Counters> {
        self.config().create_with_context(Counters::default()).expect("admin client")
    }

    fn producer(&self, settings: &[(&str, &str)]) -> FutureProducer<Counters> {
        let mut config = self.config();
        for (name, value) in settings {
            config.set(*name, *value);
        }
        config.set("message.timeout.ms", "30000").set("linger.ms", "5");
        config.create_with_context(Counters::default()).expect("producer")
    }

    fn consumer(&self) -> BaseConsumer<Counters> {
        self.member(&self.group, "range")
    }

    fn member(&self, group: &str, strategy: &str) -> BaseConsumer<Counters> {
        self.config()
            .set("group.id", group)
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            .set("heartbeat.interval.ms", "300")
            .set("partition.assignment.strategy", strategy)
            .create_with_context(Counters::default())
            .expect("consumer")
    }

    async fn admin_creates(&self) {
        let admin = self.admin();
        let options = AdminOptions::new();
        let topic = NewTopic::new(&self.topic, 2, TopicReplication::Fixed(rdkafka_scenario::replication_factor().into())).set("retention.ms", "86400000");
        admin.create_topics([&topic], &options).await.expect("create")[0].as_ref().expect("created");
        let more = NewPartitions::new(&self.topic, PARTITIONS as usize);
        admin.create_partitions([&more], &options).await.expect("partitions")[0].as_ref().expect("added");
        wait_until("the new partitions", || {
            let metadata = admin.inner().fetch_metadata(Some(&self.topic), WAIT).expect("metadata");
            metadata.topics()[0].partitions().len() == PARTITIONS as usize
        });
        ok("create");
        let resource = ResourceSpecifier::Topic(&self.topic);
        let alter = AlterConfig::new(resource).set("retention.ms", "43200000").set("max.message.bytes", LARGE_LIMIT);
        admin.alter_configs([&alter], &options).await.expect("alter")[0].as_ref().expect("altered");
        loop {
            let described = admin.describe_configs([&resource], &options).await.expect("describe");
            let entries = described[0].as_ref().expect("described");
            let value = |name| entries.get(name).and_then(|entry| entry.value.as_deref());
            if value("retention.ms") == Some("43200000") && value("max.message.bytes") == Some(LARGE_LIMIT) {
                break;
            }
        }
        ok("configs");
    }

    async fn produce_with_every_codec(&self) -> Records {
        let mut sent = Records::new();
        for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
            let producer = self.producer(&[("compression.codec", codec), ("enable.idempotence", "true")]);
            let mut waiting = Vec::new();
            for i in 0..RECORDS_PER_CODEC {
                let value = format!("{codec}-{i}-{}", "x".repeat(100));
                let key = format!("key-{i}");
                let headers = OwnedHeaders::new().insert(Header { key: "codec", value: Some(codec) });
                let record = FutureRecord::to(&self.topic).partition(i % PARTITIONS).key(&key).payload(&value);
                let delivery = producer.send_result(record.headers(headers)).expect("queued");
                waiting.push(((Some(key.into_bytes()), value.into_bytes(), format!("codec={codec}")), delivery));
            }
            for (record, delivery) in waiting {
                let placed = delivery.await.expect("answered").expect("delivered");
                sent.insert((placed.partition, placed.offset), record);
            }
            producer.flush(WAIT).expect("flush");
        }
        assert_eq!(sent.len(), (RECORDS_PER_CODEC * 5) as usize);
        ok("idempotent");
        sent
    }

    async fn large_record(&self) -> (i32, i64) {
        // Bytes that no codec makes small.
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        };
        let value: Vec<u8> = (0..LARGE_BYTES).map(|_| next()).collect();
        let producer = self.producer(&[("message.max.bytes", LARGE_LIMIT)]);
        let record = FutureRecord::<(), _>::to(&self.topic).partition(3).payload(&value);
        let placed = producer.send(record, WAIT).await.expect("delivered");
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(&self.topic, 3, Offset::Offset(placed.offset)).expect("offset");
        let consumer = self.consumer();
        consumer.assign(&from).expect("assign");
        let mut seen = Records::new();
        wait_until("the large record", || {
            Self::poll_into(&consumer, &mut seen);
            !seen.is_empty()
        });
        assert!(seen[&(3, placed.offset)].1 == value, "the large record differs");
        ok("large");
        (3, placed.offset)
    }

    fn poll_into(consumer: &BaseConsumer<Counters>, seen: &mut Records) {
        if let Some(message) = consumer.poll(Duration::from_millis(20)) {
            let message = message.expect("message");
            let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
            let headers: String =
                headers.map(|h| format!("{}={}", h.key, String::from_utf8_lossy(h.value.unwrap_or(b"")))).collect();
            let record = (message.key().map(<[u8]>::to_vec), message.payload().expect("value").to_vec(), headers);
            seen.insert((message.partition(), message.offset()), record);
        }
    }

    fn owned(consumer: &BaseConsumer<Counters>) -> BTreeSet<i32> {
        consumer.assignment().expect("assignment").elements().iter().map(|e| e.partition()).collect()
    }

    /// Two members with a rebalance between them: what they read, and what the first had to give up.
    fn two_members(&self, group: &str, strategy: &str, count: usize) -> (Records, u64) {
        let mut seen = Records::new();
        let first = self.member(group, strategy);
        first.subscribe(&[&self.topic]).expect("subscribe");
        wait_until("the first consumer to own every partition", || {
            Self::poll_into(&first, &mut seen);
            Self::owned(&first).len() == PARTITIONS as usize
        });
        let second = self.member(group, strategy);
        second.subscribe(&[&self.topic]).expect("subscribe");
        wait_until("the group to share its partitions and to read everything", || {
            Self::poll_into(&first, &mut seen);
            Self::poll_into(&second, &mut seen);
            let (one, two) = (Self::owned(&first), Self::owned(&second));
            one.len() == 2 && two.len() == 2 && one.is_disjoint(&two) && seen.len() == count
        });
        let revoked = first.context().revoked.load(Ordering::Relaxed);
        (seen, revoked)
    }

    fn groups(&self, sent: &Records, large: (i32, i64)) {
        let (mut seen, revoked) = self.two_members(&self.group, "range", sent.len() + 1);
        assert_eq!(revoked, PARTITIONS as u64, "an eager rebalance takes all");
        seen.remove(&large);
        assert!(seen == *sent, "what was read differs from what was sent");
        ok("codecs");
        ok("group");
        let group = format!("{}-cooperative", self.group);
        let (_, revoked) = self.two_members(&group, "cooperative-sticky", sent.len() + 1);
        assert_eq!(revoked, 2, "a cooperative rebalance takes what moves");
        ok("cooperative");
    }

    async fn seek_by_time(&self) {
        let producer = self.producer(&[]);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("clock").as_millis();
        let middle = i64::try_from(now).expect("clock") + 60_000;
        let mut placed = Vec::new();
        for i in 0..10 {
            let record =
                FutureRecord::<(), _>::to(&self.topic).partition(0).payload("timed").timestamp(middle + i * 1000);
            placed.push(producer.send(record, WAIT).await.expect("delivered").offset);
        }
        let consumer = self.consumer();
        let mut times = TopicPartitionList::new();
        times.add_partition_offset(&self.topic, 0, Offset::Offset(middle + 4500)).expect("time");
        let found = consumer.offsets_for_times(times, WAIT).expect("offsets for times");
        assert_eq!(found.elements()[0].offset(), Offset::Offset(placed[5]));
        let (low, high) = consumer.fetch_watermarks(&self.topic, 0, WAIT).expect("watermarks");
        assert_eq!((low, high), (0, placed[9] + 1));
        consumer.assign(&found).expect("assign");
        let mut seen = Records::new();
        wait_until("five records", || {
            Self::poll_into(&consumer, &mut seen);
            seen.len() == 5
        });
        assert!(seen.keys().map(|(_, offset)| *offset).eq(placed[5..].iter().copied()));
        ok("time");
    }

    fn commit_and_resume(&self) {
        let mut at = TopicPartitionList::new();
        at.add_partition_offset(&self.topic, 1, Offset::Offset(7)).expect("offset");
        at.find_partition(&self.topic, 1).expect("just added").set_metadata("half way");
        self.consumer().commit(&at, CommitMode::Sync).expect("commit");
        let mut asked = TopicPartitionList::new();
        asked.add_partition(&self.topic, 1);
        let committed = self.consumer().committed_offsets(asked, WAIT).expect("committed");
        let committed = committed.elements().pop().expect("one partition");
        assert_eq!((committed.offset(), committed.metadata()), (Offset::Offset(7), "half way"));
        ok("offsets");
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
        ok("resume");
    }

    async fn transactions(&self) {
        let name = self.topic.replace("rdkafka", "rdkafka-transactions");
        let admin = self.admin();
        let options = AdminOptions::new();
        let topic = NewTopic::new(&name, 2, TopicReplication::Fixed(rdkafka_scenario::replication_factor().into()));
        admin.create_topics([&topic], &options).await.expect("create")[0].as_ref().expect("created");
        let producer = self.producer(&[("transactional.id", &name)]);
        producer.init_transactions(WAIT).expect("init");
        let values = |prefix: &str| (0..20).map(|i| format!("{prefix}-{i}")).collect::<Vec<_>>();
        let begin = async |prefix| {
            producer.begin_transaction().expect("begin");
            for (place, value) in (0..).zip(values(prefix)) {
                let record = FutureRecord::<(), _>::to(&name).partition(place % 2).payload(&value);
                producer.send(record, WAIT).await.expect("delivered");
            }
        };
        begin("first").await;
        producer.commit_transaction(WAIT).expect("commit");
        begin("aborted").await;
        producer.abort_transaction(WAIT).expect("abort");
        begin("last").await;
        let consumer = self.member(&name, "range");
        let mut at = TopicPartitionList::new();
        at.add_partition_offset(&self.topic, 1, Offset::Offset(5)).expect("offset");
        let group = consumer.group_metadata().expect("group");
        producer.send_offsets_to_transaction(&at, &group, WAIT).expect("offsets");
        producer.commit_transaction(WAIT).expect("commit");
        // The end of a transaction is answered before its markers are written; asked for stable offsets meanwhile, librdkafka counts a
        // retry.
        let mut looks = self.config();
        looks.set("group.id", &name).set("isolation.level", "read_uncommitted");
        let looks: BaseConsumer<Counters> = looks.create_with_context(Counters::default()).expect("consumer");
        wait_until("the committed offset", || {
            let mut asked = TopicPartitionList::new();
            asked.add_partition(&self.topic, 1);
            let committed = looks.committed_offsets(asked, WAIT).expect("committed");
            committed.elements()[0].offset() == Offset::Offset(5)
        });
        let mut from = TopicPartitionList::new();
        for partition in 0..2 {
            from.add_partition_offset(&name, partition, Offset::Beginning).expect("beginning");
        }
        consumer.assign(&from).expect("assign");
        let mut seen = Records::new();
        wait_until("the committed records", || {
            Self::poll_into(&consumer, &mut seen);
            seen.len() >= 40
        });
        let read: BTreeSet<_> = seen.into_values().map(|(_, value, _)| String::from_utf8_lossy(&value).into_owned()).collect();
        assert_eq!(read, values("first").into_iter().chain(values("last")).collect());
        // A fetch that still waits would be told that its topic is gone.
        drop(consumer);
        admin.delete_topics(&[&name], &options).await.expect("delete")[0].as_ref().expect("topic deleted");
        ok("transactions");
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
        ok("groups");
        let mut before = TopicPartitionList::new();
        before.add_partition_offset(&self.topic, 2, Offset::Offset(3)).expect("offset");
        admin.delete_records(&before, &options).await.expect("records deleted");
        let consumer = self.consumer();
        assert_eq!(consumer.fetch_watermarks(&self.topic, 2, WAIT).expect("watermarks").0, 3);
        admin.delete_topics(&[&self.topic], &options).await.expect("delete")[0].as_ref().expect("topic deleted");
        ok("delete");
    }
}

#[tokio::main]
async fn main() {
    let bootstrap = std::env::args().nth(1).expect("usage: rdkafka-scenario BOOTSTRAP");
    let (_, library) = rdkafka::util::get_rdkafka_version();
    println!("version {} (librdkafka {library})", rdkafka_scenario::locked_version("rdkafka"));
    let run = SystemTime::now().duration_since(UNIX_EPOCH).expect("clock").as_nanos();
    let scenario = Scenario { bootstrap, topic: format!("rdkafka-{run}"), group: format!("rdkafka-group-{run}") };
    scenario.admin_creates().await;
    let sent = scenario.produce_with_every_codec().await;
    let large = scenario.large_record().await;
    scenario.groups(&sent, large);
    scenario.seek_by_time().await;
    scenario.commit_and_resume();
    scenario.transactions().await;
    scenario.admin_looks_around().await;
    let retries = RETRIES.lock().expect("counters").take().expect("librdkafka reported no statistics");
    println!("count retries {}", retries.values().sum::<u64>());
    println!("count errors {}", ERRORS.load(Ordering::Relaxed));
    println!("count warnings {}", WARNINGS.load(Ordering::Relaxed));
}
