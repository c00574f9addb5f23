package ottla.kafka;

import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.SortedMap;
import java.util.TreeMap;
import java.util.function.BooleanSupplier;
import java.util.function.Predicate;
import java.util.stream.Collectors;
import org.apache.kafka.common.requests.MetadataResponse;

/** The nodes of a test's cluster. Knows processes and their ports; what a test sees of them is made by the classes that it names. */
public final class OttlaCluster implements AutoCloseable {
    private static final long WAITED_MS_MAX = 60_000;

    /** By id. */
    public final SortedMap<Integer, OttlaNode> nodes = new TreeMap<>();

    /** Nodes that are not started. `properties` by id, as Kafka's server.properties would have them; `listener`: its name. */
    public OttlaCluster(Path directory, String listener, Map<Integer, Map<String, String>> properties) {
        properties.keySet().forEach(id -> nodes.put(id, new OttlaNode(id, directory.resolve("ottla-" + id))));
        String all = nodes.values().stream().map(node -> "127.0.0.1:" + node.clusterPort).collect(Collectors.joining(","));
        String seeds = nodes.size() > 1 ? all : "";
        properties.forEach((id, own) -> nodes.get(id).configure(own, listener, seeds));
    }

    public void start() {
        Runtime.getRuntime().addShutdownHook(new Thread(this::close));
        nodes.values().forEach(OttlaNode::spawn);
        awaitReady();
    }

    /** Starts one that was stopped. Kafka's controllers run all the time; of Ottla's nodes none serves before most of them run. */
    public void start(OttlaNode node) {
        node.spawn();
        if (hasMajority()) alive().forEach(OttlaNode::awaitReady);
    }

    /** Waits until every node that runs serves, and shows all of them. */
    public void awaitReady() {
        nodes.values().stream().filter(OttlaNode::isAlive).forEach(OttlaNode::awaitReady);
        long alive = alive().size();
        await("every node shows " + alive + " brokers", () -> allSay(at -> at.brokers().size() == alive));
    }

    public Collection<OttlaNode> alive() {
        return nodes.values().stream().filter(OttlaNode::isAlive).toList();
    }

    /** True if most of the nodes run. */
    public boolean hasMajority() {
        return 2 * alive().size() > nodes.size();
    }

    public String bootstrap() {
        return nodes.values().stream().map(node -> "localhost:" + node.port).collect(Collectors.joining(","));
    }

    /** As the first node that runs tells it. */
    public String id() {
        for (OttlaNode node : alive()) {
            try {
                return Wire.cluster(node.port).data().clusterId();
            } catch (IOException next) {
                // Another one may answer.
            }
        }
        throw new IllegalStateException("no node answers");
    }

    /** Waits until every node that runs has so many partitions of a topic; 0: until it knows no such topic. */
    public void awaitTopic(String topic, int partitions) {
        String what = topic + " has " + partitions + " partitions on every node";
        await(what, () -> alive().stream().allMatch(node -> partitionsOf(node, topic) == partitions));
    }

    private static int partitionsOf(OttlaNode node, String topic) {
        try {
            return node.topic(topic).map(one -> one.partitionMetadata().size()).orElse(0);
        } catch (IOException e) {
            return -1;
        }
    }

    /** Waits until all nodes that run tell the same of brokers and topics. */
    public void awaitSame() {
        await("all nodes tell the same", () -> {
            List<String> said = new ArrayList<>();
            for (OttlaNode node : alive()) {
                try {
                    MetadataResponse one = Wire.metadata(node.port, null);
                    said.add(one.brokers().stream().map(Object::toString).sorted().toList() + " "
                            + one.topicMetadata().stream().map(Object::toString).sorted().toList());
                } catch (IOException e) {
                    return false;
                }
            }
            return said.stream().distinct().count() <= 1;
        });
    }

    private boolean allSay(Predicate<MetadataResponse> wanted) {
        return alive().stream().allMatch(node -> {
            try {
                return wanted.test(Wire.metadata(node.port, List.of()));
            } catch (IOException e) {
                return false;
            }
        });
    }

    private static void await(String what, BooleanSupplier isSo) {
        long deadline = System.currentTimeMillis() + WAITED_MS_MAX;
        while (!isSo.getAsBoolean()) {
            if (System.currentTimeMillis() > deadline) throw new AssertionError("waited " + WAITED_MS_MAX + " ms until " + what);
            OttlaNode.pause();
        }
    }

    @Override
    public void close() {
        nodes.values().forEach(OttlaNode::kill);
    }
}
