// The Java client: a steady load with its own check, one of the five of tests/soak. See ../python/load.py for what it does.
//
// Usage: Load BOOTSTRAP TOPIC PARTITIONS RATE SIZE SECONDS. Last line: a JSON object with what was counted.

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.atomic.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.serialization.*;

public class Load {
    static final Duration DRAIN_MAX = Duration.ofSeconds(120);
    static final AtomicLong sent = new AtomicLong(-1);
    static final AtomicLong acknowledged = new AtomicLong();
    static final AtomicLong errors = new AtomicLong();
    static long read, gaps, duplicates;
    static double retries;

    static void produce(String bootstrap, String topic, int partitions, int rate, int size, int seconds) throws Exception {
        Map<String, Object> settings = Map.of("bootstrap.servers", bootstrap, "acks", "all", "linger.ms", 5);
        try (Producer<byte[], byte[]> producer = new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
            String padding = ".".repeat(Math.max(0, size - 20));
            long started = System.nanoTime();
            long number = 0;
            for (double elapsed = 0; elapsed < seconds; elapsed = (System.nanoTime() - started) / 1e9) {
                for (; number < elapsed * rate; number++) {
                    byte[] value = String.format("%019d %s", number / partitions, padding).getBytes(StandardCharsets.US_ASCII);
                    producer.send(new ProducerRecord<>(topic, (int) (number % partitions), null, value), (placed, failure) -> {
                        if (failure == null) {
                            acknowledged.incrementAndGet();
                        } else {
                            errors.incrementAndGet();
                            System.out.println("error " + failure);
                        }
                    });
                }
                Thread.sleep(20);
            }
            producer.flush();
            producer.metrics().forEach((name, metric) -> {
                if (name.name().equals("record-retry-total") && name.group().equals("producer-metrics")) retries = (double) metric.metricValue();
            });
            sent.set(number);
        }
    }

    static void consume(String bootstrap, String topic, int partitions) {
        Map<String, Object> settings = Map.of("bootstrap.servers", bootstrap, "group.id", topic + "-readers", "auto.offset.reset", "earliest");
        try (Consumer<byte[], byte[]> consumer = new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.subscribe(List.of(topic));
            long[] following = new long[partitions];
            long deadline = Long.MAX_VALUE;
            while (!(sent.get() >= 0 && read >= sent.get()) && System.nanoTime() < deadline) {
                if (sent.get() >= 0 && deadline == Long.MAX_VALUE) deadline = System.nanoTime() + DRAIN_MAX.toNanos();
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(500))) {
                    long number = Long.parseLong(new String(record.value(), 0, 19, StandardCharsets.US_ASCII));
                    if (number < following[record.partition()]) {
                        duplicates++;
                        continue;
                    }
                    gaps += number - following[record.partition()];
                    following[record.partition()] = number + 1;
                    read++;
                }
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        int[] numbers = Arrays.stream(arguments).skip(2).mapToInt(Integer::parseInt).toArray();
        Thread reader = new Thread(() -> consume(arguments[0], arguments[1], numbers[0]));
        reader.start();
        produce(arguments[0], arguments[1], numbers[0], numbers[1], numbers[2], numbers[3]);
        reader.join();
        System.out.printf(Locale.ROOT,
            "{\"client\": \"java\", \"sent\": %d, \"acknowledged\": %d, \"read\": %d, \"gaps\": %d, \"duplicates\": %d, \"errors\": %d, \"retries\": %.0f}%n",
            sent.get(), acknowledged.get(), read, gaps, duplicates, errors.get(), retries);
        boolean whole = acknowledged.get() == sent.get() && read == sent.get();
        System.exit(whole && gaps + duplicates + errors.get() == 0 ? 0 : 1);
    }
}
