import java.nio.file.Path;
import java.time.Duration;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KafkaStreams.State;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.state.WindowStore;

/**
 * Kafka Streams: counts records by key in windows of event time, behind a topic that distributes them anew; at least once.
 *
 * <p>Usage: StreamsJob BOOTSTRAP INPUT OUTPUT DIRECTORY. Its stores are in DIRECTORY, without a topic that logs what changes in them; it
 * ends when DIRECTORY/stop is there. Prints {@code started} once each thread has its share, {@code running} after each
 * rebalance, what Job prints, and at the end {@code died} with the number of threads.
 */
public final class StreamsJob {
    private static final int THREADS = 2;
    private static final int COMMIT_MS = 2000;
    /** Partitions are not read at the same pace. */
    private static final Duration GRACE = Duration.ofMinutes(10);

    private StreamsJob() {}

    private static String added(String record, String so) {
        String[] countAndSum = so.split(" ");
        return (Long.parseLong(countAndSum[0]) + 1) + " " + (Long.parseLong(countAndSum[1]) + Job.number(record));
    }

    private static StreamsBuilder topology(String input, String output) {
        Serde<String> text = Serdes.String();
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(input, Consumed.with(text, text).withTimestampExtractor((record, at) -> Job.time((String) record.value())))
                .peek((key, record) -> Job.READ.incrementAndGet())
                .filterNot((key, record) -> Job.isBell(record))
                .groupBy((key, record) -> Job.key(record), Grouped.with("by-key", text, text))
                .windowedBy(TimeWindows.ofSizeAndGrace(Duration.ofMillis(Job.WINDOW_MS), GRACE))
                .aggregate(
                        () -> "0 0",
                        (key, record, so) -> added(record, so),
                        Materialized.<String, String, WindowStore<Bytes, byte[]>>as("windows")
                                .withKeySerde(text)
                                .withValueSerde(text)
                                .withLoggingDisabled())
                .toStream()
                .map((window, result) -> KeyValue.pair(window.key() + "@" + window.window().start(), result))
                .to(output, Produced.with(text, text));
        return builder;
    }

    public static void main(String[] args) throws Exception {
        Path directory = Path.of(args[3]).toAbsolutePath();
        Properties settings = new Properties();
        settings.putAll(Map.of(
                StreamsConfig.APPLICATION_ID_CONFIG, "streams",
                StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, args[0],
                StreamsConfig.STATE_DIR_CONFIG, directory.resolve("state").toString(),
                StreamsConfig.NUM_STREAM_THREADS_CONFIG, THREADS,
                StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, COMMIT_MS,
                StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.AT_LEAST_ONCE,
                "auto.offset.reset", "earliest"));
        AtomicInteger died = new AtomicInteger();
        KafkaStreams streams = new KafkaStreams(topology(args[1], args[2]).build(), settings);
        streams.setStateListener((now, before) -> {
            if (now == State.RUNNING) {
                Job.say("running");
            }
        });
        streams.setUncaughtExceptionHandler(failure -> {
            failure.printStackTrace();
            died.incrementAndGet();
            return StreamThreadExceptionResponse.REPLACE_THREAD;
        });
        streams.start();
        while (streams.state() != State.RUNNING || streams.metadataForLocalThreads().stream().anyMatch(one -> one.activeTasks().isEmpty())) {
            Thread.sleep(20);
        }
        Job.say("started");
        Job.tellUntilStopped(directory.resolve("stop"));
        Job.say("status " + streams.state());
        Job.say("died " + died.get());
        streams.close();
        System.exit(0);
    }
}
