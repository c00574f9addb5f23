import org.apache.flink.connector.testframe.TestResource;

/** The external system of the kit: nodes that run before the kit begins and after it ends. */
final class Nodes implements TestResource {
    @Override
    public void startUp() {
        // By the scenario.
    }

    @Override
    public void tearDown() {
        // By the scenario.
    }
}
