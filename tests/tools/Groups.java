// What Java's AdminClient tells of groups and nodes: listConsumerGroups, describeConsumerGroups, listConsumerGroupOffsets,
// describeCluster, describeTopics. Prints one line of each, which tests/tools/run.py reads; any exception ends it with exit code 1.
//
// Usage: java -cp JARS Groups.java BOOTSTRAP TOPIC.

import java.util.*;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.common.*;

public class Groups {
    static final long SECONDS_MAX = 20;

    static <T> T wait(KafkaFuture<T> future) throws Exception {
        return future.get(SECONDS_MAX, TimeUnit.SECONDS);
    }

    public static void main(String[] given) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", given[0]))) {
            var nodes = wait(admin.describeCluster().nodes());
            System.out.println("nodes " + nodes.stream().map(Node::id).sorted().map(String::valueOf).collect(Collectors.joining(",")));
            // `all` fails if a single node does not answer.
            var names = wait(admin.listConsumerGroups().all()).stream().map(ConsumerGroupListing::groupId).sorted().toList();
            System.out.println("groups " + String.join(",", names));
            var described = wait(admin.describeConsumerGroups(names).all());
            System.out.println("described " + described.values().stream().filter(group -> group.coordinator() != null).count());
            Map<String, ListConsumerGroupOffsetsSpec> all = names.stream().collect(Collectors.toMap(name -> name, name -> new ListConsumerGroupOffsetsSpec()));
            var offsets = wait(admin.listConsumerGroupOffsets(all).all());
            System.out.println("offsets " + offsets.values().stream().mapToInt(Map::size).sum());
            var topic = wait(admin.describeTopics(List.of(given[1])).allTopicNames()).get(given[1]);
            System.out.println("led " + topic.partitions().stream().filter(one -> one.leader() != null && !one.leader().isEmpty()).count());
        }
    }
}
