package org.apache.kafka.common.test;

import java.io.File;
import java.nio.file.Path;
import java.util.Collections;
import java.util.HashMap;
import java.util.Map;
import java.util.SortedMap;
import java.util.TreeMap;
import kafka.raft.KafkaRaftManager;
import kafka.server.BrokerServer;
import kafka.server.ControllerServer;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AdminClientConfig;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.security.auth.SecurityProtocol;
import org.apache.kafka.common.utils.Utils;
import org.apache.kafka.controller.Controller;
import org.apache.kafka.server.common.ApiMessageAndVersion;
import ottla.kafka.BrokerView;
import ottla.kafka.NoControllers;
import ottla.kafka.NotServed;
import ottla.kafka.OttlaCluster;

/**
 * Stands on the class path before Kafka's class of this name, and has its public face: what Kafka's tests start as brokers in
 * their own process are processes of Ottla. Controllers are not served: Ottla's nodes have none that one could ask.
 */
public class KafkaClusterTestKit implements AutoCloseable {
    /** What a process of Ottla cannot load, by the beginning of its setting's name. */
    private static final Map<String, String> NOT_SERVED = new TreeMap<>(Map.of(
            "authorizer.class.name", "ACLs",
            "create.topic.policy.class.name", "JVM plug-ins",
            "alter.config.policy.class.name", "JVM plug-ins",
            "client.quota.callback.class", "JVM plug-ins",
            "principal.builder.class", "JVM plug-ins",
            "metric.reporters", "JVM plug-ins",
            "remote.log.storage.system.enable", "tiered storage"));

    private final TestKitNodes nodes;
    private final OttlaCluster cluster;
    private final SortedMap<Integer, BrokerServer> brokers = new TreeMap<>();
    private final MockFaultHandler fatal = new MockFaultHandler("fatalFaultHandler");
    private final MockFaultHandler nonFatal = new MockFaultHandler("nonFatalFaultHandler");
    private final boolean deleteOnClose;

    /** As Kafka's: settings of all nodes, and those of each. */
    public static class Builder {
        private final TestKitNodes nodes;
        private final Map<String, String> properties = new HashMap<>();
        private boolean deleteOnClose = true;

        public Builder(TestKitNodes nodes) {
            this.nodes = nodes;
        }

        public Builder setConfigProp(String name, Object value) {
            properties.put(name, String.valueOf(value));
            return this;
        }

        public Builder setStandalone(boolean standalone) {
            return this;
        }

        public Builder setInitialVoterSet(Map<Integer, Uuid> voters) {
            return this;
        }

        public Builder setDeleteOnClose(boolean deleteOnClose) {
            this.deleteOnClose = deleteOnClose;
            return this;
        }

        public KafkaClusterTestKit build() {
            return new KafkaClusterTestKit(nodes, properties, deleteOnClose);
        }
    }

    private KafkaClusterTestKit(TestKitNodes nodes, Map<String, String> given, boolean deleteOnClose) {
        this.nodes = nodes;
        this.deleteOnClose = deleteOnClose;
        if (nodes.brokerListenerProtocol() != SecurityProtocol.PLAINTEXT) throw new NotServed("TLS and SASL");
        Map<String, String> all = new HashMap<>(given);
        // What a controller decides in Kafka each node of Ottla decides.
        nodes.controllerNodes().values().forEach(node -> all.putAll(node.propertyOverrides()));
        Map<Integer, Map<String, String>> properties = new TreeMap<>();
        nodes.brokerNodes().forEach((id, node) -> {
            Map<String, String> own = new HashMap<>(all);
            own.putAll(node.propertyOverrides());
            own.keySet().removeIf(name -> name.startsWith("controller.") || name.equals("process.roles"));
            own.put("log.dirs", String.join(",", node.logDataDirectories()));
            check(own);
            properties.put(id, own);
        });
        cluster = new OttlaCluster(Path.of(nodes.baseDirectory()), nodes.brokerListenerName().value(), properties);
        cluster.nodes.forEach((id, node) -> brokers.put(id, BrokerView.of(cluster, node, properties.get(id))));
    }

    private static void check(Map<String, String> properties) {
        NOT_SERVED.forEach((name, why) -> {
            String value = properties.getOrDefault(name, "");
            if (!value.isEmpty() && !value.equals("false")) throw new NotServed(why);
        });
    }

    /** Ottla formats its directories when it starts. */
    public void format() {}

    public void startup() {
        cluster.start();
    }

    public void waitForReadyBrokers() {
        cluster.awaitReady();
    }

    public OttlaCluster cluster() {
        return cluster;
    }

    public Admin admin() {
        return admin(Map.of());
    }

    public Admin admin(Map<String, Object> settings) {
        return admin(settings, false);
    }

    public Admin admin(Map<String, Object> settings, boolean fromControllers) {
        if (fromControllers) throw new NotServed("KRaft controllers");
        Map<String, Object> own = new HashMap<>(settings);
        own.put(AdminClientConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrapServers());
        return Admin.create(own);
    }

    public String bootstrapServers() {
        return cluster.bootstrap();
    }

    public String bootstrapControllers() {
        throw new NotServed("KRaft controllers");
    }

    public Map<Integer, ControllerServer> controllers() {
        return new NoControllers();
    }

    public Controller waitForActiveController() {
        throw new NotServed("KRaft controllers");
    }

    public Map<Integer, BrokerServer> brokers() {
        return Collections.unmodifiableMap(brokers);
    }

    public Map<Integer, KafkaRaftManager<ApiMessageAndVersion>> raftManagers() {
        throw new NotServed("KRaft controllers");
    }

    public TestKitNodes nodes() {
        return nodes;
    }

    public MockFaultHandler fatalFaultHandler() {
        return fatal;
    }

    public MockFaultHandler nonFatalFaultHandler() {
        return nonFatal;
    }

    @Override
    public void close() throws Exception {
        cluster.close();
        if (deleteOnClose) Utils.delete(new File(nodes.baseDirectory()));
    }
}
