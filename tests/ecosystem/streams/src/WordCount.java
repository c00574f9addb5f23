import java.nio.file.Path;
import java.util.List;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Materialized;

/**
 * Counts words: each word of a line adds one to its count, and each new count goes to the output, with the word as key.
 *
 * <p>Usage: WordCount BOOTSTRAP INPUT OUTPUT DIRECTORY. Words are distributed anew by a topic in between, the counts are kept in a store
 * with its changelog: all three have to commit together.
 */
public final class WordCount {
    private WordCount() {}

    public static void main(String[] args) throws InterruptedException {
        StreamsBuilder builder = new StreamsBuilder();
        builder.<String, String>stream(args[1])
                .flatMap((key, line) -> List.of(line.split(" ")).stream().map(word -> KeyValue.pair(word, word)).toList())
                .groupByKey()
                .count(Materialized.as("counts"))
                .toStream()
                .mapValues(count -> Long.toString(count))
                .to(args[2]);
        ExactlyOnce.run(builder, "wordcount", args[0], Path.of(args[3]));
    }
}
