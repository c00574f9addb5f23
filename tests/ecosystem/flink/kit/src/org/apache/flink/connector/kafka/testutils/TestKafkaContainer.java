package org.apache.flink.connector.kafka.testutils;

import org.testcontainers.lifecycle.Startable;

import java.util.List;

/**
 * Stands before the connector's class of this name, which starts a Kafka broker in Docker: here the nodes run already, and the system
 * property `ottla.bootstrap` says where. Has what the connector's contexts call. Nothing else of the kit is ours.
 */
public class TestKafkaContainer implements Startable {
    @Override
    public void start() {
        // The nodes are started, killed and stopped by the scenario.
    }

    @Override
    public void stop() {
        // As for the start.
    }

    public String getBootstrapServers() {
        return System.getProperty("ottla.bootstrap");
    }

    /**
     * Names by which containers find each other; the contexts put them before the addresses, and there has to be one. A client passes over
     * a name that does not resolve, as it does over that of a container when it runs outside of Docker.
     */
    public List<String> getNetworkAliases() {
        return List.of("container.invalid");
    }
}
