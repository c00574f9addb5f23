package org.apache.kafka.common.test.junit;

import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import kafka.server.ControllerServer;
import kafka.server.KafkaBroker;
import org.apache.kafka.clients.consumer.GroupProtocol;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.network.ListenerName;
import org.apache.kafka.common.test.ClusterInstance;
import org.apache.kafka.common.test.KafkaClusterTestKit;
import org.apache.kafka.common.test.TestKitNodes;
import org.apache.kafka.common.test.api.ClusterConfig;
import org.apache.kafka.common.test.api.Type;
import org.apache.kafka.server.authorizer.Authorizer;
import org.apache.kafka.server.fault.FaultHandlerException;
import org.junit.jupiter.api.extension.AfterTestExecutionCallback;
import org.junit.jupiter.api.extension.BeforeEachCallback;
import org.junit.jupiter.api.extension.Extension;
import org.junit.jupiter.api.extension.TestTemplateInvocationContext;
import org.opentest4j.TestAbortedException;
import ottla.kafka.NoControllers;
import ottla.kafka.NotServed;
import ottla.kafka.OttlaNode;
import ottla.kafka.SkipNotServed;

/**
 * Stands on the class path before Kafka's class of this name: the cluster of one run of a test that is annotated with @ClusterTest,
 * begun before it and ended after it.
 */
public class RaftClusterInvocationContext implements TestTemplateInvocationContext {
    private final String name;
    private final ClusterConfig config;
    private final boolean isCombined;

    public RaftClusterInvocationContext(String name, ClusterConfig config, boolean isCombined) {
        this.name = name;
        this.config = config;
        this.isCombined = isCombined;
    }

    @Override
    public String getDisplayName(int invocation) {
        return name + " [" + invocation + "] " + (isCombined ? "combined" : "isolated") + " " + String.join(",", config.displayTags());
    }

    @Override
    public List<Extension> getAdditionalExtensions() {
        Instance instance = new Instance(config, isCombined);
        return List.of(
                (BeforeEachCallback) context -> {
                    // With controllers in processes of their own or not: Ottla has none, it would be the same cluster once more.
                    if (isCombined && config.clusterTypes().contains(Type.KRAFT)) throw new TestAbortedException("twin");
                    try {
                        instance.build();
                        if (config.isAutoStart()) instance.start();
                    } catch (NotServed missing) {
                        throw SkipNotServed.skipped(missing);
                    }
                },
                (AfterTestExecutionCallback) context -> instance.stop(),
                new ClusterInstanceParameterResolver(instance));
    }

    private static final class Instance implements ClusterInstance {
        private final ClusterConfig config;
        private final boolean isCombined;
        private KafkaClusterTestKit kit;
        private boolean isStarted, isStopped;

        Instance(ClusterConfig config, boolean isCombined) {
            this.config = config;
            this.isCombined = isCombined;
        }

        void build() {
            if (kit != null) return;
            TestKitNodes nodes = new TestKitNodes.Builder()
                    .setCombined(isCombined)
                    .setNumBrokerNodes(config.numBrokers())
                    .setNumDisksPerBroker(config.numDisksPerBroker())
                    .setPerServerProperties(config.perServerOverrideProperties())
                    .setNumControllerNodes(config.numControllers())
                    .setBrokerListenerName(config.brokerListenerName())
                    .setBrokerSecurityProtocol(config.brokerSecurityProtocol())
                    .setControllerListenerName(config.controllerListenerName())
                    .setControllerSecurityProtocol(config.controllerSecurityProtocol())
                    .build();
            KafkaClusterTestKit.Builder builder = new KafkaClusterTestKit.Builder(nodes);
            config.serverProperties().forEach(builder::setConfigProp);
            kit = builder.build();
        }

        @Override
        public void start() {
            build();
            if (!isStarted) {
                isStarted = true;
                kit.startup();
            }
        }

        @Override
        public boolean started() {
            return isStarted;
        }

        @Override
        public void stop() {
            if (isStopped || kit == null) return;
            isStopped = true;
            try {
                kit.close();
            } catch (Exception e) {
                throw new IllegalStateException(e);
            }
        }

        @Override
        public boolean stopped() {
            return isStopped;
        }

        @Override
        public Type type() {
            return isCombined ? Type.CO_KRAFT : Type.KRAFT;
        }

        @Override
        public ClusterConfig config() {
            return config;
        }

        @Override
        public Map<Integer, KafkaBroker> brokers() {
            return new TreeMap<>(kit.brokers());
        }

        @Override
        public Map<Integer, ControllerServer> controllers() {
            return new NoControllers();
        }

        @Override
        public Set<Integer> controllerIds() {
            throw new NotServed("KRaft controllers");
        }

        @Override
        public ListenerName clientListener() {
            return config.brokerListenerName();
        }

        @Override
        public ListenerName controllerListenerName() {
            return config.controllerListenerName();
        }

        @Override
        public String bootstrapServers() {
            return kit.bootstrapServers();
        }

        @Override
        public String bootstrapControllers() {
            throw new NotServed("KRaft controllers");
        }

        @Override
        public List<Integer> controllerBoundPorts() {
            throw new NotServed("KRaft controllers");
        }

        @Override
        public List<Integer> brokerBoundPorts() {
            return kit.cluster().nodes.values().stream().map(node -> node.port).toList();
        }

        @Override
        public String clusterId() {
            return kit.cluster().id();
        }

        @Override
        public Set<GroupProtocol> supportedGroupProtocols() {
            return Set.of(GroupProtocol.CLASSIC);
        }

        @Override
        public Optional<FaultHandlerException> firstFatalException() {
            return Optional.empty();
        }

        @Override
        public Optional<FaultHandlerException> firstNonFatalException() {
            return Optional.empty();
        }

        private OttlaNode node(int id) {
            OttlaNode found = kit.cluster().nodes.get(id);
            if (found == null) throw new IllegalArgumentException("there is no broker " + id);
            return found;
        }

        @Override
        public void shutdownBroker(int id) {
            node(id).stop();
        }

        @Override
        public void startBroker(int id) {
            kit.cluster().start(node(id));
        }

        @Override
        public void waitForReadyBrokers() {
            kit.waitForReadyBrokers();
        }

        @Override
        public void waitTopicCreation(String topic, int partitions) {
            if (partitions <= 0) throw new IllegalArgumentException("a topic has partitions, not " + partitions);
            kit.cluster().awaitTopic(topic, partitions);
        }

        @Override
        public void waitTopicDeletion(String topic) {
            kit.cluster().awaitTopic(topic, 0);
        }

        @Override
        public void ensureConsistentMetadata() {
            kit.cluster().awaitSame();
        }

        @Override
        public void ensureConsistentMetadata(Collection<KafkaBroker> brokers, Collection<ControllerServer> controllers) {
            kit.cluster().awaitSame();
        }

        @Override
        public List<Authorizer> authorizers() {
            throw new NotServed("ACLs");
        }

        @Override
        public void waitAcls(AclBindingFilter filter, Collection<AccessControlEntry> entries) {
            throw new NotServed("ACLs");
        }
    }
}
