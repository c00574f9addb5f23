import java.util.List;
import java.util.Map;
import java.util.stream.LongStream;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.source.SourceRecord;
import org.apache.kafka.connect.source.SourceTask;

/** One task of NumbersSource: the key of a record is the task's number, its value the next number, which is its offset in the source, too. */
public final class NumbersTask extends SourceTask {
    private static final String NUMBER = "number";
    private static final int BATCHES_A_SECOND = 20;
    private static final long BATCH_MS = 1000 / BATCHES_A_SECOND;
    private Map<String, String> source;
    private String topic;
    private long next;
    private long batch;

    @Override
    public void start(Map<String, String> settings) {
        source = Map.of(NumbersSource.TASK, settings.get(NumbersSource.TASK));
        topic = settings.get(NumbersSource.TOPIC);
        batch = Long.parseLong(settings.get(NumbersSource.A_SECOND)) / BATCHES_A_SECOND;
        Map<String, Object> reached = context.offsetStorageReader().offset(source);
        next = reached == null ? 1 : (Long) reached.get(NUMBER) + 1;
        System.out.println("task " + source.get(NumbersSource.TASK) + " from " + next);
    }

    @Override
    public List<SourceRecord> poll() throws InterruptedException {
        Thread.sleep(BATCH_MS);
        List<SourceRecord> numbers = LongStream.range(next, next + batch).mapToObj(this::numbered).toList();
        next += batch;
        return numbers;
    }

    private SourceRecord numbered(long number) {
        return new SourceRecord(
                source, Map.of(NUMBER, number), topic, Schema.STRING_SCHEMA, source.get(NumbersSource.TASK), Schema.STRING_SCHEMA, Long.toString(number));
    }

    @Override
    public void stop() {}

    @Override
    public String version() {
        return "1";
    }
}
