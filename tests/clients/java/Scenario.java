// The Java client: the scenario that every client runs against a broker. Compiled against the oldest client that is run,
// so it uses only what all of them have.
//
// Usage: Scenario BOOTSTRAP. Prints what outcome.py reads; the first failure ends it with exit code 1.

import java.io.*;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;
import java.util.function.BooleanSupplier;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.RebalanceInProgressException;
import org.apache.kafka.common.serialization.*;

public class Scenario {
    static final int PARTITIONS = 4;
    static final int RECORDS_PER_CODEC = 200;
    /** What run.py says of the cluster. */
    static final short FACTOR = Short.parseShort(System.getenv().getOrDefault("TEST_REPLICATION_FACTOR", "1"));
    static final int LARGE_BYTES = 3 << 20;
    static final String LARGE_LIMIT = String.valueOf(4 << 20);
    static final List<String> CODECS = List.of("none", "gzip", "snappy", "lz4", "zstd");
    static final String RUN = Long.toHexString(System.nanoTime());
    static final String TOPIC = "java-" + RUN;
    static final String GROUP = "java-group-" + RUN;
    static final Map<String, Double> counted = new ConcurrentHashMap<>(Map.of("retries", 0.0, "errors", 0.0));
    static final AtomicLong warnings = new AtomicLong();
    static String bootstrap;

    record Place(int partition, long offset) {}

    static void ok(String step) {
        System.out.println("ok " + step);
    }

    static void check(boolean condition, String message) {
        if (!condition) throw new AssertionError(message);
    }

    static void waitUntil(BooleanSupplier condition, String what) throws Exception {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(60);
        while (!condition.getAsBoolean()) {
            check(System.nanoTime() < deadline, "waited 60 s for " + what);
            Thread.sleep(50);
        }
    }

    /** What the client logs as a warning or an error goes to stderr; here it is counted and shown. */
    static void countWarnings() {
        PrintStream shown = System.out;
        System.setErr(new PrintStream(shown, true) {
            @Override
            public void println(String line) {
                if (line.contains(" WARN ") || line.contains(" ERROR ")) warnings.incrementAndGet();
                shown.println("  " + line);
            }
        });
    }

    /** Adds the totals that a client counts itself. */
    static void count(Map<MetricName, ? extends Metric> metrics) {
        Map<String, String> names = Map.of("record-retry-total", "retries", "record-error-total", "errors");
        for (var metric : metrics.entrySet()) {
            String name = names.get(metric.getKey().name());
            // The same totals come again by topic.
            if (name != null && !metric.getKey().tags().containsKey("topic")) {
                counted.merge(name, (Double) metric.getValue().metricValue(), Double::sum);
            }
        }
    }

    static void adminCreates(Admin admin) throws Exception {
        NewTopic topic = new NewTopic(TOPIC, 2, FACTOR).configs(Map.of("retention.ms", "86400000"));
        CreateTopicsResult created = admin.createTopics(List.of(topic));
        created.all().get();
        check(created.config(TOPIC).get().get("retention.ms").value().equals("86400000"), "config in the answer");
        admin.createPartitions(Map.of(TOPIC, NewPartitions.increaseTo(PARTITIONS))).all().get();
        try (Consumer<byte[], byte[]> reader = reader(Map.of())) {
            waitUntil(() -> reader.partitionsFor(TOPIC).size() == PARTITIONS, "the new partitions");
        }
        check(!admin.describeCluster().nodes().get().isEmpty(), "nodes");
        check(!admin.describeLogDirs(List.of(1)).allDescriptions().get().isEmpty(), "log dirs");
        ok("create");
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, TOPIC);
        AlterConfigOp set = new AlterConfigOp(new ConfigEntry("max.message.bytes", LARGE_LIMIT), AlterConfigOp.OpType.SET);
        admin.incrementalAlterConfigs(Map.of(resource, List.of(set))).all().get();
        waitUntil(() -> {
            try {
                ConfigEntry entry = admin.describeConfigs(List.of(resource)).all().get().get(resource).get("max.message.bytes");
                return entry.value().equals(LARGE_LIMIT) && entry.source() == ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG;
            } catch (Exception e) {
                throw new AssertionError(e);
            }
        }, "the new settings");
        ok("configs");
    }

    static Map<String, Object> with(Map<String, Object> base, Map<String, Object> more) {
        Map<String, Object> all = new HashMap<>(base);
        all.putAll(more);
        return all;
    }

    static Producer<byte[], byte[]> producer(Map<String, Object> more) {
        return new KafkaProducer<>(
            with(Map.of("bootstrap.servers", bootstrap, "linger.ms", "5", "acks", "all", "enable.idempotence", "true"), more),
            new ByteArraySerializer(), new ByteArraySerializer());
    }

    static void close(Producer<?, ?> producer) {
        count(producer.metrics());
        producer.close();
    }

    /** A record as a string that can be compared. */
    static String text(byte[] key, byte[] value, org.apache.kafka.common.header.Headers headers) {
        StringBuilder text = new StringBuilder(key == null ? "" : new String(key)).append('|').append(new String(value));
        headers.forEach(header -> text.append('|').append(header.key()).append('=').append(new String(header.value())));
        return text.toString();
    }

    static Map<Place, String> produceWithEveryCodec() throws Exception {
        Map<Place, String> sent = new HashMap<>();
        for (String codec : CODECS) {
            Producer<byte[], byte[]> producer = producer(Map.of("compression.type", codec));
            Map<String, Future<RecordMetadata>> waiting = new LinkedHashMap<>();
            for (int i = 0; i < RECORDS_PER_CODEC; i++) {
                byte[] key = ("key-" + i % 17).getBytes();
                byte[] value = (codec + "-" + i + "-" + "x".repeat(100)).getBytes();
                ProducerRecord<byte[], byte[]> record = new ProducerRecord<>(TOPIC, i % PARTITIONS, key, value);
                record.headers().add("codec", codec.getBytes()).add("empty", new byte[0]);
                waiting.put(text(key, value, record.headers()), producer.send(record));
            }
            for (var each : waiting.entrySet()) {
                RecordMetadata placed = each.getValue().get(30, TimeUnit.SECONDS);
                sent.put(new Place(placed.partition(), placed.offset()), each.getKey());
            }
            close(producer);
        }
        check(sent.size() == CODECS.size() * RECORDS_PER_CODEC, "places: " + sent.size());
        ok("idempotent");
        return sent;
    }

    static Consumer<byte[], byte[]> reader(Map<String, Object> more) {
        return new KafkaConsumer<>(
            with(Map.of("bootstrap.servers", bootstrap, "group.id", GROUP, "auto.offset.reset", "earliest",
                "enable.auto.commit", "false", "heartbeat.interval.ms", "300",
                "partition.assignment.strategy", "org.apache.kafka.clients.consumer.RangeAssignor"), more),
            new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    /** Some records from where a reader stands. */
    static List<ConsumerRecord<byte[], byte[]>> read(Consumer<byte[], byte[]> reader, int atLeast) {
        List<ConsumerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (long deadline = System.nanoTime() + 30_000_000_000L; records.size() < atLeast && System.nanoTime() < deadline; ) {
            reader.poll(Duration.ofMillis(200)).forEach(records::add);
        }
        check(records.size() >= atLeast, "read " + records.size() + " of " + atLeast);
        return records;
    }

    static Place largeRecord() throws Exception {
        byte[] large = new byte[LARGE_BYTES];
        new Random().nextBytes(large);
        Producer<byte[], byte[]> producer = producer(Map.of("max.request.size", LARGE_LIMIT));
        long offset = producer.send(new ProducerRecord<>(TOPIC, 3, null, large)).get(30, TimeUnit.SECONDS).offset();
        close(producer);
        TopicPartition tp = new TopicPartition(TOPIC, 3);
        try (Consumer<byte[], byte[]> reader = reader(Map.of())) {
            reader.assign(List.of(tp));
            reader.seek(tp, offset);
            check(Arrays.equals(read(reader, 1).get(0).value(), large), "the large record differs");
        }
        ok("large");
        return new Place(3, offset);
    }

    static class Member extends Thread implements ConsumerRebalanceListener {
        final Map<Place, String> seen;
        final Map<String, Object> more;
        final AtomicBoolean stop = new AtomicBoolean();
        final CountDownLatch committed;
        final Set<TopicPartition> lost = ConcurrentHashMap.newKeySet();
        volatile Set<TopicPartition> owned = Set.of();
        volatile Throwable failure;

        Member(Map<Place, String> seen, Map<String, Object> more, CountDownLatch committed) {
            this.seen = seen;
            this.more = more;
            this.committed = committed;
            setDaemon(true);
            start();
        }

        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> partitions) {}

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
            if (!stop.get()) lost.addAll(partitions);
        }

        @Override
        public void run() {
            try (Consumer<byte[], byte[]> consumer = reader(more)) {
                consumer.subscribe(List.of(TOPIC), this);
                while (!commit(consumer)) {
                    for (ConsumerRecord<byte[], byte[]> r : consumer.poll(Duration.ofMillis(100))) {
                        seen.put(new Place(r.partition(), r.offset()), text(r.key(), r.value(), r.headers()));
                    }
                    owned = Set.copyOf(consumer.assignment());
                }
                committed.countDown();
                // Everybody commits before anybody leaves: a commit in the rebalance after a leave is refused.
                committed.await(30, TimeUnit.SECONDS);
            } catch (Throwable t) {
                failure = t;
                t.printStackTrace();
            }
        }

        /** Commits at the end; while the group rebalances, the member has to poll first. */
        boolean commit(Consumer<byte[], byte[]> consumer) {
            try {
                if (stop.get()) consumer.commitSync();
                return stop.get();
            } catch (RebalanceInProgressException | CommitFailedException e) {
                return false;
            }
        }
    }

    /** Two members with a rebalance between them, reading until all is seen; what the first one lost. */
    static int twoMembers(String group, String assignor, Map<Place, String> seen, int records) throws Exception {
        Map<String, Object> settings = Map.of("group.id", group,
            "partition.assignment.strategy", "org.apache.kafka.clients.consumer." + assignor);
        CountDownLatch committed = new CountDownLatch(2);
        Member first = new Member(seen, settings, committed);
        waitUntil(() -> first.owned.size() == PARTITIONS, "the first consumer to own every partition: " + first.failure);
        Member second = new Member(seen, settings, committed);
        waitUntil(() -> first.owned.size() == 2 && second.owned.size() == 2, "the group to share its partitions");
        waitUntil(() -> seen.size() == records, "every record to be read");
        int lost = first.lost.size();
        for (Member member : List.of(first, second)) member.stop.set(true);
        for (Member member : List.of(first, second)) {
            member.join();
            check(member.failure == null, "member: " + member.failure);
        }
        return lost;
    }

    static void groups(Map<Place, String> sent, Place large) throws Exception {
        Map<Place, String> seen = new ConcurrentHashMap<>();
        int lost = twoMembers(GROUP, "RangeAssignor", seen, sent.size() + 1);
        check(lost == PARTITIONS, "an eager rebalance took " + lost);
        seen.remove(large);
        check(seen.equals(sent), "what was read differs from what was sent");
        ok("codecs");
        ok("group");
        lost = twoMembers(GROUP + "-cooperative", "CooperativeStickyAssignor", new ConcurrentHashMap<>(), sent.size() + 1);
        check(lost == 2, "a cooperative rebalance took " + lost);
        ok("cooperative");
    }

    static void seekByTime() throws Exception {
        long middle = System.currentTimeMillis() + 60_000;
        List<Long> placed = new ArrayList<>();
        Producer<byte[], byte[]> producer = producer(Map.of("compression.type", "lz4"));
        for (int i = 0; i < 10; i++) {
            var record = new ProducerRecord<byte[], byte[]>(TOPIC, 0, middle + i * 1000, null, "timed".getBytes());
            placed.add(producer.send(record).get().offset());
        }
        close(producer);
        TopicPartition tp = new TopicPartition(TOPIC, 0);
        try (Consumer<byte[], byte[]> reader = reader(Map.of())) {
            long found = reader.offsetsForTimes(Map.of(tp, middle + 4500)).get(tp).offset();
            check(found == placed.get(5), "found " + found + " among " + placed);
            reader.assign(List.of(tp));
            reader.seek(tp, found);
            List<ConsumerRecord<byte[], byte[]>> records = read(reader, 5);
            for (int i = 0; i < 5; i++) check(records.get(i).offset() == placed.get(5 + i), "offset " + records.get(i).offset());
        }
        ok("time");
    }

    static void commitAndResume(Admin admin) throws Exception {
        TopicPartition tp = new TopicPartition(TOPIC, 1);
        try (Consumer<byte[], byte[]> reader = reader(Map.of())) {
            reader.assign(List.of(tp));
            reader.commitSync(Map.of(tp, new OffsetAndMetadata(7, "half way")));
            check(reader.beginningOffsets(List.of(tp)).get(tp) == 0, "beginning");
            check(reader.endOffsets(List.of(tp)).get(tp) == CODECS.size() * RECORDS_PER_CODEC / PARTITIONS, "end");
        }
        var committed = admin.listConsumerGroupOffsets(GROUP).partitionsToOffsetAndMetadata().get();
        check(committed.get(tp).offset() == 7, "committed: " + committed);
        check(committed.get(tp).metadata().equals("half way"), "metadata: " + committed.get(tp));
        ok("offsets");
        try (Consumer<byte[], byte[]> reader = reader(Map.of())) {
            reader.assign(List.of(tp));
            check(read(reader, 1).get(0).offset() == 7, "resumed elsewhere");
        }
        ok("resume");
    }

    /** The records of a transaction. */
    static List<String> values(String name) {
        List<String> values = new ArrayList<>();
        for (int i = 0; i < 20; i++) values.add(name + "-" + i);
        return values;
    }

    static void begin(Producer<byte[], byte[]> producer, String topic, String name) {
        producer.beginTransaction();
        int at = 0;
        for (String value : values(name)) producer.send(new ProducerRecord<>(topic, at++ % 2, null, value.getBytes()));
        producer.flush();
    }

    static void transactions(Admin admin) throws Exception {
        String topic = "java-transactions-" + RUN;
        admin.createTopics(List.of(new NewTopic(topic, 2, FACTOR))).all().get();
        Producer<byte[], byte[]> producer = producer(Map.of("transactional.id", topic));
        producer.initTransactions();
        begin(producer, topic, "first");
        producer.commitTransaction();
        begin(producer, topic, "aborted");
        producer.abortTransaction();
        begin(producer, topic, "last");
        TopicPartition tp = new TopicPartition(TOPIC, 1);
        producer.sendOffsetsToTransaction(Map.of(tp, new OffsetAndMetadata(5)), new ConsumerGroupMetadata(topic));
        producer.commitTransaction();
        close(producer);
        List<String> expected = values("first");
        expected.addAll(values("last"));
        try (Consumer<byte[], byte[]> reader = reader(Map.of("group.id", topic, "isolation.level", "read_committed"))) {
            check(reader.committed(Set.of(tp)).get(tp).offset() == 5, "committed " + reader.committed(Set.of(tp)));
            List<TopicPartition> both = List.of(new TopicPartition(topic, 0), new TopicPartition(topic, 1));
            reader.assign(both);
            reader.seekToBeginning(both);
            List<String> seen = new ArrayList<>();
            read(reader, expected.size()).forEach(record -> seen.add(new String(record.value())));
            Collections.sort(seen);
            Collections.sort(expected);
            check(seen.equals(expected), "read " + seen);
        }
        admin.deleteTopics(List.of(topic)).all().get();
        ok("transactions");
    }

    @SuppressWarnings("deprecation")
    static void adminLooksAround(Admin admin) throws Exception {
        check(admin.listConsumerGroups().all().get().stream().anyMatch(g -> g.groupId().equals(GROUP)), "group is not listed");
        var described = admin.describeConsumerGroups(List.of(GROUP)).all().get().get(GROUP);
        check(described.members().isEmpty(), "members: " + described);
        TopicPartition tp = new TopicPartition(TOPIC, 2);
        admin.deleteConsumerGroupOffsets(GROUP, Set.of(tp)).all().get();
        check(admin.listConsumerGroupOffsets(GROUP).partitionsToOffsetAndMetadata().get().get(tp) == null, "the offset is still there");
        admin.deleteConsumerGroups(List.of(GROUP)).all().get();
        ok("groups");
        long low = admin.deleteRecords(Map.of(tp, RecordsToDelete.beforeOffset(3))).lowWatermarks().get(tp).get().lowWatermark();
        check(low == 3, "low watermark " + low);
        admin.deleteTopics(List.of(TOPIC)).all().get();
        waitUntil(() -> {
            try {
                return !admin.listTopics().names().get().contains(TOPIC);
            } catch (Exception e) {
                throw new AssertionError(e);
            }
        }, "the topic to be gone");
        ok("delete");
    }

    public static void main(String[] args) throws Exception {
        bootstrap = args[0];
        countWarnings();
        Properties library = new Properties();
        library.load(Scenario.class.getResourceAsStream("/kafka/kafka-version.properties"));
        System.out.println("version " + library.getProperty("version"));
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            adminCreates(admin);
            Map<Place, String> sent = produceWithEveryCodec();
            Place large = largeRecord();
            groups(sent, large);
            seekByTime();
            commitAndResume(admin);
            transactions(admin);
            adminLooksAround(admin);
        } catch (Throwable t) {
            t.printStackTrace();
            System.exit(1);
        }
        counted.forEach((name, total) -> System.out.println("count " + name + " " + total.longValue()));
        System.out.println("count warnings " + warnings);
        System.exit(0);
    }
}
