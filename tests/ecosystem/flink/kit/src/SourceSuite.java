import org.apache.flink.connector.kafka.testutils.KafkaSourceExternalContext.SplitMappingMode;
import org.apache.flink.connector.kafka.testutils.KafkaSourceExternalContextFactory;
import org.apache.flink.connector.kafka.testutils.TestKafkaContainer;
import org.apache.flink.connector.testframe.environment.MiniClusterTestEnvironment;
import org.apache.flink.connector.testframe.junit.annotations.TestContext;
import org.apache.flink.connector.testframe.junit.annotations.TestEnv;
import org.apache.flink.connector.testframe.junit.annotations.TestExternalSystem;
import org.apache.flink.connector.testframe.junit.annotations.TestSemantics;
import org.apache.flink.connector.testframe.testsuites.SourceTestSuiteBase;
import org.apache.flink.core.execution.CheckpointingMode;

import java.util.List;

/** Flink's suite for sources: each split a partition of one topic, and each a topic of its own. */
class SourceSuite extends SourceTestSuiteBase<String> {
    @TestSemantics
    CheckpointingMode[] semantics = {CheckpointingMode.EXACTLY_ONCE};

    @TestEnv
    MiniClusterTestEnvironment flink = new MiniClusterTestEnvironment();

    @TestExternalSystem
    Nodes nodes = new Nodes();

    @TestContext
    KafkaSourceExternalContextFactory ofPartitions =
            new KafkaSourceExternalContextFactory(new TestKafkaContainer(), List.of(), SplitMappingMode.PARTITION);

    @TestContext
    KafkaSourceExternalContextFactory ofTopics =
            new KafkaSourceExternalContextFactory(new TestKafkaContainer(), List.of(), SplitMappingMode.TOPIC);
}
