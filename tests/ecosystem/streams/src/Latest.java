import java.nio.file.Path;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.common.config.TopicConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.processor.api.ContextualProcessor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * Keeps the latest text of each key and how often it was written, in a store whose changelog is compacted as soon as it may be; a record
 * without a value deletes its key.
 *
 * <p>Usage: Latest BOOTSTRAP INPUT OUTPUT DIRECTORY. Each record goes to OUTPUT as {@code COUNT TEXT}, or {@code deleted COUNT}, where
 * COUNT comes from the store: a restored store that lacks something, or has too much, shows in the next record of the key. The record
 * {@code all} is answered with what the store of its partition holds, key by key.
 */
public final class Latest {
    static final String STORE = "latest";
    private static final String ALL = "all";

    private Latest() {}

    public static void main(String[] args) throws InterruptedException {
        // Of the topics that Streams makes itself.
        Properties topics = new Properties();
        topics.putAll(Map.of(
                StreamsConfig.topicPrefix(TopicConfig.MIN_CLEANABLE_DIRTY_RATIO_CONFIG), "0.01",
                StreamsConfig.topicPrefix(TopicConfig.SEGMENT_MS_CONFIG), "1",
                StreamsConfig.topicPrefix(TopicConfig.DELETE_RETENTION_MS_CONFIG), "1000"));
        StreamsBuilder builder = new StreamsBuilder();
        builder.addStateStore(
                Stores.keyValueStoreBuilder(Stores.persistentKeyValueStore(STORE), Serdes.String(), Serdes.String()));
        builder.<String, String>stream(args[1]).process(Keep::new, STORE).to(args[2]);
        ExactlyOnce.run(builder, "latest", args[0], Path.of(args[3]), topics);
    }

    private static final class Keep extends ContextualProcessor<String, String, String, String> {
        private KeyValueStore<String, String> store;

        @Override
        public void init(ProcessorContext<String, String> context) {
            super.init(context);
            store = context.getStateStore(STORE);
        }

        @Override
        public void process(Record<String, String> record) {
            if (record.key().startsWith(ALL)) {
                try (var entries = store.all()) {
                    entries.forEachRemaining(entry -> context().forward(record.withKey(ALL + " " + entry.key).withValue(entry.value)));
                }
                return;
            }
            String before = store.get(record.key());
            long count = before == null ? 0 : Long.parseLong(before.split(" ")[0]);
            if (record.value() == null) {
                store.delete(record.key());
                context().forward(record.withValue("deleted " + count));
            } else {
                String now = (count + 1) + " " + record.value();
                store.put(record.key(), now);
                context().forward(record.withValue(now));
            }
        }
    }
}
