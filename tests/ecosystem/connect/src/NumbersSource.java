import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.common.config.ConfigDef.Importance;
import org.apache.kafka.common.config.ConfigDef.Type;
import org.apache.kafka.connect.connector.Task;
import org.apache.kafka.connect.source.ExactlyOnceSupport;
import org.apache.kafka.connect.source.SourceConnector;

/**
 * A source that can be read again from any place: each task counts from 1 on, so many `a.second`, into `topic`.
 *
 * <p>May not know: what was written. Where a task goes on is what Connect kept of it.
 */
public final class NumbersSource extends SourceConnector {
    static final String TOPIC = "topic";
    static final String A_SECOND = "a.second";
    static final String TASK = "task";
    private Map<String, String> given;

    @Override
    public void start(Map<String, String> settings) {
        given = settings;
    }

    @Override
    public Class<? extends Task> taskClass() {
        return NumbersTask.class;
    }

    @Override
    public List<Map<String, String>> taskConfigs(int tasks) {
        return IntStream.range(0, tasks).mapToObj(this::taskConfig).toList();
    }

    private Map<String, String> taskConfig(int task) {
        Map<String, String> own = new HashMap<>(given);
        own.put(TASK, Integer.toString(task));
        return own;
    }

    @Override
    public ExactlyOnceSupport exactlyOnceSupport(Map<String, String> settings) {
        return ExactlyOnceSupport.SUPPORTED;
    }

    @Override
    public void stop() {}

    @Override
    public ConfigDef config() {
        return new ConfigDef()
                .define(TOPIC, Type.STRING, Importance.HIGH, "where the numbers go")
                .define(A_SECOND, Type.LONG, Importance.HIGH, "numbers a second of each task");
    }

    @Override
    public String version() {
        return "1";
    }
}
