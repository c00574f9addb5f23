import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.flink.api.common.JobStatus;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.AggregateFunction;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.functions.RichFilterFunction;
import org.apache.flink.api.common.serialization.SerializationSchema;
import org.apache.flink.api.common.serialization.SimpleStringSchema;
import org.apache.flink.api.common.state.CheckpointListener;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.configuration.CheckpointingOptions;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.core.execution.JobClient;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.windowing.ProcessWindowFunction;
import org.apache.flink.streaming.api.windowing.assigners.TumblingEventTimeWindows;
import org.apache.flink.streaming.api.windowing.windows.TimeWindow;
import org.apache.flink.util.Collector;
import org.apache.flink.util.OutputTag;

/**
 * A Flink job in a cluster of its own process: counts records by key in windows of event time, at least once.
 *
 * <p>Usage: FlinkJob BOOTSTRAP INPUT OUTPUT DIRECTORY. Checkpoints go to DIRECTORY; the job ends when DIRECTORY/stop is there. Prints
 * {@code started}, what Job prints, and at the end {@code restarts}, {@code checkpoints} and {@code late} with a number each.
 */
public final class FlinkJob {
    private static final int PARALLEL = 2;
    private static final long CHECKPOINT_MS = 2000;
    private static final AtomicInteger ATTEMPT = new AtomicInteger();
    private static final AtomicLong CHECKPOINTS = new AtomicLong();
    private static final AtomicLong LATE = new AtomicLong();
    private static final OutputTag<String> TOO_LATE = new OutputTag<>("late") {};

    private FlinkJob() {}

    /** Passes every record on, counts it, and knows how often the job was begun. */
    static final class Counted extends RichFilterFunction<String> implements CheckpointListener {
        @Override
        public void open(OpenContext context) {
            ATTEMPT.accumulateAndGet(getRuntimeContext().getTaskInfo().getAttemptNumber(), Math::max);
        }

        @Override
        public boolean filter(String record) {
            Job.READ.incrementAndGet();
            return true;
        }

        @Override
        public void notifyCheckpointComplete(long checkpoint) {
            CHECKPOINTS.accumulateAndGet(checkpoint, Math::max);
        }
    }

    /** Count and sum of the numbers. */
    static final class Summary implements AggregateFunction<String, Tuple2<Long, Long>, String> {
        @Override
        public Tuple2<Long, Long> createAccumulator() {
            return Tuple2.of(0L, 0L);
        }

        @Override
        public Tuple2<Long, Long> add(String record, Tuple2<Long, Long> so) {
            return Tuple2.of(so.f0 + 1, so.f1 + Job.number(record));
        }

        @Override
        public String getResult(Tuple2<Long, Long> so) {
            return so.f0 + " " + so.f1;
        }

        @Override
        public Tuple2<Long, Long> merge(Tuple2<Long, Long> one, Tuple2<Long, Long> other) {
            return Tuple2.of(one.f0 + other.f0, one.f1 + other.f1);
        }
    }

    static final class Named extends ProcessWindowFunction<String, Tuple2<String, String>, String, TimeWindow> {
        @Override
        public void process(String key, Context context, Iterable<String> results, Collector<Tuple2<String, String>> out) {
            for (String result : results) {
                out.collect(Tuple2.of(key + "@" + context.window().getStart(), result));
            }
        }
    }

    static final class Late extends RichFilterFunction<String> {
        @Override
        public boolean filter(String record) {
            LATE.incrementAndGet();
            return false;
        }
    }

    /** A field of a result, as text. */
    static final class Text implements SerializationSchema<Tuple2<String, String>> {
        private final int field;

        Text(int field) {
            this.field = field;
        }

        @Override
        public byte[] serialize(Tuple2<String, String> result) {
            return result.<String>getField(field).getBytes(StandardCharsets.UTF_8);
        }
    }

    private static KafkaSource<String> source(String bootstrap, String topic) {
        return KafkaSource.<String>builder()
                .setBootstrapServers(bootstrap)
                .setTopics(topic)
                .setGroupId("flink")
                .setStartingOffsets(OffsetsInitializer.earliest())
                .setValueOnlyDeserializer(new SimpleStringSchema())
                .build();
    }

    private static KafkaSink<Tuple2<String, String>> sink(String bootstrap, String topic) {
        return KafkaSink.<Tuple2<String, String>>builder()
                .setBootstrapServers(bootstrap)
                .setRecordSerializer(
                        KafkaRecordSerializationSchema.<Tuple2<String, String>>builder()
                                .setTopic(topic)
                                .setKeySerializationSchema(new Text(0))
                                .setValueSerializationSchema(new Text(1))
                                .build())
                .setDeliveryGuarantee(DeliveryGuarantee.AT_LEAST_ONCE)
                .build();
    }

    public static void main(String[] args) throws Exception {
        Path directory = Path.of(args[3]).toAbsolutePath();
        Configuration settings = new Configuration();
        settings.set(CheckpointingOptions.CHECKPOINT_STORAGE, "filesystem");
        settings.set(CheckpointingOptions.CHECKPOINTS_DIRECTORY, directory.resolve("checkpoints").toUri().toString());
        StreamExecutionEnvironment flink = StreamExecutionEnvironment.createLocalEnvironment(PARALLEL, settings);
        flink.enableCheckpointing(CHECKPOINT_MS);
        // Of each partition: none is passed over because another one was read faster.
        WatermarkStrategy<String> times =
                WatermarkStrategy.<String>forMonotonousTimestamps().withTimestampAssigner((record, at) -> Job.time(record));
        SingleOutputStreamOperator<Tuple2<String, String>> results = flink.fromSource(source(args[0], args[1]), times, "input")
                .filter(new Counted())
                .filter(record -> !Job.isBell(record))
                .keyBy(Job::key)
                .window(TumblingEventTimeWindows.of(Duration.ofMillis(Job.WINDOW_MS)))
                .sideOutputLateData(TOO_LATE)
                .aggregate(new Summary(), new Named());
        results.sinkTo(sink(args[0], args[2]));
        results.getSideOutput(TOO_LATE).filter(new Late()).print();
        JobClient job = flink.executeAsync("resizing");
        while (job.getJobStatus().get() != JobStatus.RUNNING) {
            Thread.sleep(20);
        }
        Job.say("started");
        Job.tellUntilStopped(directory.resolve("stop"));
        Job.say("status " + job.getJobStatus().get());
        Job.say("restarts " + ATTEMPT.get());
        Job.say("checkpoints " + CHECKPOINTS.get());
        Job.say("late " + LATE.get());
        job.cancel().get();
        System.exit(0);
    }
}
