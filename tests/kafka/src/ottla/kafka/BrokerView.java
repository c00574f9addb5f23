package ottla.kafka;

import static org.mockito.ArgumentMatchers.any;
import static org.mockito.ArgumentMatchers.anyInt;
import static org.mockito.ArgumentMatchers.anyString;
import static org.mockito.Mockito.doAnswer;
import static org.mockito.Mockito.mock;
import static org.mockito.Mockito.withSettings;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.Set;
import java.util.stream.Collectors;
import kafka.server.BrokerServer;
import kafka.server.KafkaConfig;
import org.apache.kafka.common.network.ListenerName;
import org.apache.kafka.common.requests.MetadataResponse;
import org.apache.kafka.coordinator.group.GroupCoordinator;
import org.apache.kafka.metadata.BrokerState;
import org.apache.kafka.metadata.KRaftMetadataCache;
import org.apache.kafka.metadata.LeaderAndIsr;
import org.apache.kafka.metadata.LeaderRecoveryState;
import org.mockito.stubbing.Answer;

/**
 * A node in the shape of Kafka's BrokerServer, for tests that stop and start brokers or ask one of them what it knows. What a process
 * cannot answer from outside is not served, which skips the test.
 */
public final class BrokerView {
    private BrokerView() {}

    /** Anything that is not answered here looks into a broker. */
    private static <T> T shape(Class<T> of) {
        Answer<Object> refuses = call -> {
            // Called by debuggers, by Mockito itself and by assertion messages.
            if (call.getMethod().getName().equals("toString")) return of.getSimpleName();
            throw new NotServed("broker internals (" + of.getSimpleName() + "." + call.getMethod().getName() + ")");
        };
        return mock(of, withSettings().stubOnly().defaultAnswer(refuses));
    }

    public static BrokerServer of(OttlaCluster cluster, OttlaNode node, Map<String, String> properties) {
        BrokerServer broker = shape(BrokerServer.class);
        KRaftMetadataCache cache = cache(node);
        GroupCoordinator groups = groups();
        doAnswer(call -> config(node, properties)).when(broker).config();
        doAnswer(call -> cluster.id()).when(broker).clusterId();
        doAnswer(call -> cache).when(broker).metadataCache();
        doAnswer(call -> groups).when(broker).groupCoordinator();
        doAnswer(call -> node.port).when(broker).boundPort(any(ListenerName.class));
        doAnswer(call -> !node.isAlive()).when(broker).isShutdown();
        doAnswer(call -> state(node)).when(broker).brokerState();
        doAnswer(call -> stopped(node)).when(broker).shutdown();
        doAnswer(call -> stopped(node)).when(broker).shutdown(any(Duration.class));
        doAnswer(call -> stopped(node)).when(broker).awaitShutdown();
        doAnswer(call -> started(cluster, node)).when(broker).startup();
        return broker;
    }

    private static BrokerState state(OttlaNode node) {
        if (!node.isAlive()) return BrokerState.NOT_RUNNING;
        return node.isReady() ? BrokerState.RUNNING : BrokerState.STARTING;
    }

    private static Object stopped(OttlaNode node) {
        node.stop();
        return null;
    }

    private static Object started(OttlaCluster cluster, OttlaNode node) {
        cluster.start(node);
        return null;
    }

    /** A configuration that Kafka's own class takes: a test reads what it has set itself. */
    private static KafkaConfig config(OttlaNode node, Map<String, String> properties) {
        Map<String, Object> own = new HashMap<>(properties);
        own.put("node.id", Integer.toString(node.id));
        own.put("process.roles", "broker");
        own.put("controller.listener.names", "CONTROLLER");
        own.put("controller.quorum.voters", "3000@localhost:1");
        own.put("listeners", "PLAINTEXT://localhost:" + node.port);
        own.remove("advertised.listeners");
        own.remove("listener.security.protocol.map");
        own.remove("inter.broker.listener.name");
        return new KafkaConfig(own, false);
    }

    /** Asked what `__consumer_offsets` is to be created with: the node that creates it knows that itself. */
    private static GroupCoordinator groups() {
        GroupCoordinator groups = shape(GroupCoordinator.class);
        doAnswer(call -> new Properties()).when(groups).groupMetadataTopicConfigs();
        return groups;
    }

    /** Answered by a Metadata request to this node. */
    private static KRaftMetadataCache cache(OttlaNode node) {
        KRaftMetadataCache cache = shape(KRaftMetadataCache.class);
        doAnswer(call -> partitions(node, call.getArgument(0))).when(cache).numPartitions(anyString());
        doAnswer(call -> partitions(node, call.getArgument(0)).isPresent()).when(cache).contains(anyString());
        doAnswer(call -> leader(node, call.getArgument(0), call.getArgument(1)))
                .when(cache).getLeaderAndIsr(anyString(), anyInt());
        doAnswer(call -> topics(node)).when(cache).getAllTopics();
        doAnswer(call -> shows(node, call.getArgument(0))).when(cache).hasAliveBroker(anyInt());
        return cache;
    }

    private static MetadataResponse asked(OttlaNode node, List<String> topics) {
        try {
            return Wire.metadata(node.port, topics);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    private static Optional<MetadataResponse.TopicMetadata> topic(OttlaNode node, String name) {
        try {
            return node.topic(name);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    private static Optional<Integer> partitions(OttlaNode node, String name) {
        return topic(node, name).map(one -> one.partitionMetadata().size());
    }

    private static Optional<LeaderAndIsr> leader(OttlaNode node, String name, int partition) {
        return topic(node, name).stream()
                .flatMap(one -> one.partitionMetadata().stream())
                .filter(one -> one.partition() == partition)
                .map(one -> new LeaderAndIsr(one.leaderId.orElse(-1), one.leaderEpoch.orElse(-1), one.inSyncReplicaIds, LeaderRecoveryState.RECOVERED, 0))
                .findFirst();
    }

    private static Set<String> topics(OttlaNode node) {
        return asked(node, null).topicMetadata().stream().map(MetadataResponse.TopicMetadata::topic).collect(Collectors.toSet());
    }

    private static boolean shows(OttlaNode node, int id) {
        return asked(node, List.of()).brokers().stream().anyMatch(one -> one.id() == id);
    }
}
