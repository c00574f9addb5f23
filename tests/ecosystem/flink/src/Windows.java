import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.AggregateFunction;
import org.apache.flink.api.common.serialization.SerializationSchema;
import org.apache.flink.api.common.serialization.SimpleStringSchema;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.GlobalConfiguration;
import org.apache.flink.configuration.StateRecoveryOptions;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.sink.TransactionNamingStrategy;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.core.execution.JobClient;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.windowing.ProcessWindowFunction;
import org.apache.flink.streaming.api.windowing.assigners.TumblingEventTimeWindows;
import org.apache.flink.streaming.api.windowing.windows.TimeWindow;
import org.apache.flink.util.Collector;

import java.nio.charset.StandardCharsets;
import java.time.Duration;

/**
 * Count and sum of the numbers of each key in windows of event time, from one topic into another, exactly once.
 *
 * <p>Usage: Windows CONFIGURATION CHECKPOINT|- BOOTSTRAP INPUT OUTPUT INCREMENTING|POOLING. A record's value is "key number"; a result has
 * "key@beginning of the window" as key and "count sum" as value. Submits the job, where CHECKPOINT left it, and prints its id.
 */
public final class Windows {
    // As in scenario.py.
    private static final Duration WINDOW = Duration.ofSeconds(5);
    private static final Duration LATE_MAX = Duration.ofSeconds(2);
    // Kafka's default maximum; the connector's own default is above it.
    private static final String TRANSACTION_TIMEOUT_MS = "900000";

    private Windows() {}

    public static void main(String[] args) throws Exception {
        Configuration configuration = GlobalConfiguration.loadConfiguration(args[0]);
        if (!args[1].equals("-")) {
            configuration.set(StateRecoveryOptions.SAVEPOINT_PATH, args[1]);
        }
        // The remote cluster of the configuration; `getExecutionEnvironment` would make a local one.
        StreamExecutionEnvironment environment = new StreamExecutionEnvironment(configuration);
        build(environment, args[2], args[3], args[4], TransactionNamingStrategy.valueOf(args[5]));
        JobClient job = environment.executeAsync("windows");
        System.out.println("job " + job.getJobID());
        System.exit(0);
    }

    private static void build(StreamExecutionEnvironment environment, String bootstrap, String input, String output, TransactionNamingStrategy naming) {
        KafkaSource<String> source = KafkaSource.<String>builder()
                .setBootstrapServers(bootstrap)
                .setTopics(input)
                .setGroupId("windows")
                .setStartingOffsets(OffsetsInitializer.earliest())
                .setProperty("isolation.level", "read_committed")
                .setValueOnlyDeserializer(new SimpleStringSchema())
                .build();
        KafkaSink<Tuple2<String, String>> sink = KafkaSink.<Tuple2<String, String>>builder()
                .setBootstrapServers(bootstrap)
                .setDeliveryGuarantee(DeliveryGuarantee.EXACTLY_ONCE)
                .setTransactionalIdPrefix("windows")
                .setTransactionNamingStrategy(naming)
                .setProperty("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS)
                .setRecordSerializer(KafkaRecordSerializationSchema.<Tuple2<String, String>>builder()
                        .setTopic(output)
                        .setKeySerializationSchema(new Field(0))
                        .setValueSerializationSchema(new Field(1))
                        .build())
                .build();
        environment.fromSource(source, WatermarkStrategy.forBoundedOutOfOrderness(LATE_MAX), "numbers")
                .uid("source")
                .keyBy(value -> value.split(" ")[0])
                .window(TumblingEventTimeWindows.of(WINDOW))
                .aggregate(new CountAndSum(), new Named())
                .uid("windows")
                .sinkTo(sink)
                .uid("sink");
    }

    private static final class CountAndSum implements AggregateFunction<String, Tuple2<Long, Long>, Tuple2<Long, Long>> {
        @Override
        public Tuple2<Long, Long> createAccumulator() {
            return Tuple2.of(0L, 0L);
        }

        @Override
        public Tuple2<Long, Long> add(String value, Tuple2<Long, Long> before) {
            return Tuple2.of(before.f0 + 1, before.f1 + Long.parseLong(value.split(" ")[1]));
        }

        @Override
        public Tuple2<Long, Long> getResult(Tuple2<Long, Long> both) {
            return both;
        }

        @Override
        public Tuple2<Long, Long> merge(Tuple2<Long, Long> one, Tuple2<Long, Long> other) {
            return Tuple2.of(one.f0 + other.f0, one.f1 + other.f1);
        }
    }

    private static final class Named extends ProcessWindowFunction<Tuple2<Long, Long>, Tuple2<String, String>, String, TimeWindow> {
        @Override
        public void process(String key, Context context, Iterable<Tuple2<Long, Long>> results, Collector<Tuple2<String, String>> out) {
            for (Tuple2<Long, Long> both : results) {
                out.collect(Tuple2.of(key + "@" + context.window().getStart(), both.f0 + " " + both.f1));
            }
        }
    }

    /** Key or value of a record. A class and not a lambda: Flink asks for its type. */
    private static final class Field implements SerializationSchema<Tuple2<String, String>> {
        private final int index;

        Field(int index) {
            this.index = index;
        }

        @Override
        public byte[] serialize(Tuple2<String, String> result) {
            return result.<String>getField(index).getBytes(StandardCharsets.UTF_8);
        }
    }
}
