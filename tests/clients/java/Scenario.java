// The Java client: the scenario that every client runs against a broker.
//
// Usage: Scenario BOOTSTRAP. Prints one `ok NAME` line a step; the first failure ends it with exit code 1.

import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.BooleanSupplier;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.*;

public class Scenario {
    static final int PARTITIONS = 4;
    static final int RECORDS_PER_CODEC = 200;
    static final String RUN = Long.toHexString(System.nanoTime());
    static final String TOPIC = "java-" + RUN;
    static final String GROUP = "java-group-" + RUN;
    static String bootstrap;

    record Place(int partition, long offset) {}

    static void ok(String name) {
        System.out.println("ok " + name);
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

    static void adminCreates(Admin admin) throws Exception {
        NewTopic topic = new NewTopic(TOPIC, 2, (short) 1).configs(Map.of("retention.ms", "86400000"));
        CreateTopicsResult created = admin.createTopics(List.of(topic));
        created.all().get();
        check(created.config(TOPIC).get().get("retention.ms").value().equals("86400000"), "config in the answer");
        admin.createPartitions(Map.of(TOPIC, NewPartitions.increaseTo(PARTITIONS))).all().get();
        check(admin.describeTopics(List.of(TOPIC)).allTopicNames().get().get(TOPIC).partitions().size() == PARTITIONS, "partitions");
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, TOPIC);
        AlterConfigOp set = new AlterConfigOp(new ConfigEntry("max.message.bytes", "2000000"), AlterConfigOp.OpType.SET);
        admin.incrementalAlterConfigs(Map.of(resource, List.of(set))).all().get();
        ConfigEntry entry = admin.describeConfigs(List.of(resource)).all().get().get(resource).get("max.message.bytes");
        check(entry.value().equals("2000000") && entry.source() == ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG, entry.toString());
        check(!admin.describeCluster().nodes().get().isEmpty(), "nodes");
        check(!admin.describeLogDirs(List.of(1)).allDescriptions().get().isEmpty(), "log dirs");
        ok("admin: create topic, add partitions, describe and alter configs, describe cluster and log dirs");
    }

    static Producer<String, String> producer(String codec) {
        return new KafkaProducer<>(
            Map.of("bootstrap.servers", bootstrap, "compression.type", codec, "linger.ms", "5", "acks", "all"),
            new StringSerializer(), new StringSerializer());
    }

    static Map<Place, String> produceWithEveryCodec() throws Exception {
        Map<Place, String> sent = new HashMap<>();
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            try (Producer<String, String> producer = producer(codec)) {
                Map<String, Future<RecordMetadata>> waiting = new LinkedHashMap<>();
                for (int i = 0; i < RECORDS_PER_CODEC; i++) {
                    String value = codec + "-" + i + "-" + "x".repeat(100);
                    ProducerRecord<String, String> record = new ProducerRecord<>(TOPIC, i % PARTITIONS, "key-" + i, value);
                    record.headers().add("codec", codec.getBytes());
                    waiting.put(value, producer.send(record));
                }
                for (var each : waiting.entrySet()) {
                    RecordMetadata placed = each.getValue().get(30, TimeUnit.SECONDS);
                    sent.put(new Place(placed.partition(), placed.offset()), each.getKey());
                }
            }
        }
        check(sent.size() == 5 * RECORDS_PER_CODEC, "places: " + sent.size());
        ok("produce (idempotent): none, gzip, snappy, lz4, zstd");
        return sent;
    }

    static Consumer<String, String> consumer(boolean cooperative) {
        return new KafkaConsumer<>(
            Map.of("bootstrap.servers", bootstrap, "group.id", GROUP, "auto.offset.reset", "earliest",
                "enable.auto.commit", "false", "heartbeat.interval.ms", "300",
                "partition.assignment.strategy", cooperative
                    ? "org.apache.kafka.clients.consumer.CooperativeStickyAssignor"
                    : "org.apache.kafka.clients.consumer.RangeAssignor"),
            new StringDeserializer(), new StringDeserializer());
    }

    static class Member extends Thread {
        final Map<Place, String> seen;
        final AtomicBoolean stop = new AtomicBoolean();
        volatile Set<TopicPartition> owned = Set.of();
        volatile Throwable failure;

        Member(Map<Place, String> seen) {
            this.seen = seen;
        }

        @Override
        public void run() {
            try (Consumer<String, String> consumer = consumer(true)) {
                consumer.subscribe(List.of(TOPIC));
                while (!stop.get()) {
                    for (ConsumerRecord<String, String> r : consumer.poll(Duration.ofMillis(100))) {
                        seen.put(new Place(r.partition(), r.offset()), r.value());
                    }
                    owned = Set.copyOf(consumer.assignment());
                }
                consumer.commitSync();
            } catch (Throwable t) {
                failure = t;
            }
        }
    }

    static void consumeInAGroupWithARebalance(Map<Place, String> sent) throws Exception {
        Map<Place, String> seen = new ConcurrentHashMap<>();
        Member first = new Member(seen);
        first.start();
        waitUntil(() -> first.owned.size() == PARTITIONS, "the first consumer to own every partition: " + first.failure);
        Member second = new Member(seen);
        second.start();
        waitUntil(() -> first.owned.size() == 2 && second.owned.size() == 2, "the group to share its partitions");
        waitUntil(() -> seen.size() == sent.size(), "every record to be read");
        for (Member member : List.of(first, second)) {
            member.stop.set(true);
            member.join();
            check(member.failure == null, "member: " + member.failure);
        }
        check(seen.equals(sent), "what was read differs from what was sent");
        ok("group: cooperative, two consumers, one rebalance, every record read as sent");
    }

    static void seekByTime() throws Exception {
        long middle = System.currentTimeMillis() + 60_000;
        List<Long> placed = new ArrayList<>();
        try (Producer<String, String> producer = producer("lz4")) {
            for (int i = 0; i < 10; i++) {
                placed.add(producer.send(new ProducerRecord<>(TOPIC, 0, middle + i * 1000, null, "timed")).get().offset());
            }
        }
        TopicPartition tp = new TopicPartition(TOPIC, 0);
        try (Consumer<String, String> consumer = consumer(false)) {
            long found = consumer.offsetsForTimes(Map.of(tp, middle + 4500)).get(tp).offset();
            check(found == placed.get(5), "found " + found + " among " + placed);
            check(consumer.beginningOffsets(List.of(tp)).get(tp) == 0, "beginning");
            check(consumer.endOffsets(List.of(tp)).get(tp) == placed.get(9) + 1, "end");
            consumer.assign(List.of(tp));
            consumer.seek(tp, found);
            int read = 0;
            for (long deadline = System.nanoTime() + 30_000_000_000L; read < 5 && System.nanoTime() < deadline; ) {
                for (ConsumerRecord<String, String> r : consumer.poll(Duration.ofMillis(200))) {
                    check(r.offset() == placed.get(5 + read++), "offset " + r.offset());
                }
            }
            check(read == 5, "read " + read);
        }
        ok("seek by time");
    }

    static void commitAndResume() {
        TopicPartition tp = new TopicPartition(TOPIC, 1);
        try (Consumer<String, String> consumer = consumer(false)) {
            consumer.assign(List.of(tp));
            consumer.commitSync(Map.of(tp, new OffsetAndMetadata(7, "half way")));
        }
        try (Consumer<String, String> consumer = consumer(false)) {
            consumer.assign(List.of(tp));
            check(consumer.committed(Set.of(tp)).get(tp).metadata().equals("half way"), "metadata");
            ConsumerRecords<String, String> records = ConsumerRecords.empty();
            for (long deadline = System.nanoTime() + 30_000_000_000L; records.isEmpty() && System.nanoTime() < deadline; ) {
                records = consumer.poll(Duration.ofMillis(200));
            }
            check(records.iterator().next().offset() == 7, "resumed elsewhere");
        }
        ok("commit and resume");
    }

    static void adminLooksAround(Admin admin) throws Exception {
        check(admin.listGroups().all().get().stream().anyMatch(g -> g.groupId().equals(GROUP)), "group is not listed");
        check(admin.listConsumerGroupOffsets(GROUP).partitionsToOffsetAndMetadata().get().size() == PARTITIONS, "offsets");
        TopicPartition tp = new TopicPartition(TOPIC, 2);
        long low = admin.deleteRecords(Map.of(tp, RecordsToDelete.beforeOffset(3))).lowWatermarks().get(tp).get().lowWatermark();
        check(low == 3, "low watermark " + low);
        check(!admin.describeProducers(List.of(tp)).partitionResult(tp).get().activeProducers().isEmpty(), "producers");
        admin.deleteConsumerGroupOffsets(GROUP, Set.of(tp)).all().get();
        admin.deleteConsumerGroups(List.of(GROUP)).all().get();
        admin.deleteTopics(List.of(TOPIC)).all().get();
        waitUntil(() -> {
            try {
                return !admin.listTopics().names().get().contains(TOPIC);
            } catch (Exception e) {
                return false;
            }
        }, "the topic to be gone");
        ok("admin: groups, offsets, delete records, producers, delete group and topic");
    }

    public static void main(String[] args) throws Exception {
        bootstrap = args[0];
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            adminCreates(admin);
            Map<Place, String> sent = produceWithEveryCodec();
            consumeInAGroupWithARebalance(sent);
            seekByTime();
            commitAndResume();
            adminLooksAround(admin);
        } catch (Throwable t) {
            t.printStackTrace();
            System.exit(1);
        }
        System.exit(0);
    }
}
