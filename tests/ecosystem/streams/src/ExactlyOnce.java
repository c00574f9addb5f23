import java.nio.file.Path;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KafkaStreams.State;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;

/**
 * How all applications run: exactly once, every update into the output, until the process is ended or killed.
 *
 * <p>Prints {@code running} each time when all tasks are assigned and restored, {@code died} with the failure of a thread that Streams
 * gave up and that is replaced. May not know: what is computed.
 */
final class ExactlyOnce {
    private static final int THREADS = 2;
    /** A transaction commits that often; a kill finds one open. */
    private static final int COMMIT_MS = 500;
    /** A killed instance holds its tasks as long; Kafka's default of 45 s would be most of the run. */
    private static final int SESSION_MS = 6000;

    private ExactlyOnce() {}

    static void run(StreamsBuilder topology, String application, String bootstrap, Path state) throws InterruptedException {
        run(topology, application, bootstrap, state, new Properties());
    }

    static void run(StreamsBuilder topology, String application, String bootstrap, Path state, Properties more) throws InterruptedException {
        Properties settings = new Properties();
        settings.putAll(more);
        settings.putAll(Map.of(
                StreamsConfig.APPLICATION_ID_CONFIG, application,
                StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap,
                StreamsConfig.STATE_DIR_CONFIG, state.toString(),
                StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2,
                StreamsConfig.NUM_STREAM_THREADS_CONFIG, THREADS,
                StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, COMMIT_MS,
                StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 0,
                ConsumerConfig.SESSION_TIMEOUT_MS_CONFIG, SESSION_MS,
                ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest"));
        settings.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.StringSerde.class);
        settings.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.StringSerde.class);
        KafkaStreams streams = new KafkaStreams(topology.build(settings), settings);
        CountDownLatch ended = new CountDownLatch(1);
        streams.setStateListener((now, before) -> {
            if (now == State.RUNNING) {
                say("running");
            }
            if (now == State.ERROR || now == State.NOT_RUNNING) {
                ended.countDown();
            }
        });
        streams.setUncaughtExceptionHandler(failure -> {
            say("died " + failure);
            failure.printStackTrace();
            return StreamThreadExceptionResponse.REPLACE_THREAD;
        });
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.start();
        ended.await();
    }

    private static void say(String what) {
        System.out.println(what);
        System.out.flush();
    }
}
