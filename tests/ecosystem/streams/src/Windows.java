import java.nio.file.Path;
import java.time.Duration;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.KTable;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Suppressed;
import org.apache.kafka.streams.kstream.Suppressed.BufferConfig;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.kstream.Windowed;
import org.apache.kafka.streams.state.WindowStore;

/**
 * Counts and adds up numbers by key in windows of event time, which stands in the record's timestamp.
 *
 * <p>Usage: Windows BOOTSTRAP INPUT UPDATES FINAL DIRECTORY. Each update goes to UPDATES, and one
 * result a window to FINAL, once its time is over: {@code COUNT SUM} with the key {@code KEY@START}. What waits for the end of its window
 * has a changelog of its own. The test knows SIZE and GRACE, too.
 */
public final class Windows {
    private static final Duration SIZE = Duration.ofSeconds(5);
    private static final Duration GRACE = Duration.ofSeconds(2);

    private Windows() {}

    private static String added(String number, String so) {
        String[] countAndSum = so.split(" ");
        return (Long.parseLong(countAndSum[0]) + 1) + " " + (Long.parseLong(countAndSum[1]) + Long.parseLong(number));
    }

    private static KeyValue<String, String> flat(Windowed<String> window, String result) {
        return KeyValue.pair(window.key() + "@" + window.window().start(), result);
    }

    public static void main(String[] args) throws InterruptedException {
        StreamsBuilder builder = new StreamsBuilder();
        KTable<Windowed<String>, String> windows = builder.<String, String>stream(args[1])
                .groupByKey()
                .windowedBy(TimeWindows.ofSizeAndGrace(SIZE, GRACE))
                .aggregate(
                        () -> "0 0",
                        (key, number, so) -> added(number, so),
                        Materialized.<String, String, WindowStore<Bytes, byte[]>>as("windows")
                                .withKeySerde(Serdes.String())
                                .withValueSerde(Serdes.String()));
        windows.toStream().map(Windows::flat).to(args[2]);
        windows.suppress(Suppressed.untilWindowCloses(BufferConfig.unbounded())).toStream().map(Windows::flat).to(args[3]);
        ExactlyOnce.run(builder, "windows", args[0], Path.of(args[4]));
    }
}
