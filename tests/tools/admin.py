"""What the Python clients' admins tell of groups and nodes, in the words of Groups.java.

Usage: admin.py librdkafka|kafka-python BOOTSTRAP TOPIC. Any error, also of a single node, ends it with exit code 1.
"""

import sys

SECONDS_MAX = 20


def librdkafka(bootstrap, topic):
    from confluent_kafka import ConsumerGroupTopicPartitions
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": bootstrap})
    cluster = admin.describe_cluster(request_timeout=SECONDS_MAX).result(SECONDS_MAX)
    listed = admin.list_consumer_groups(request_timeout=SECONDS_MAX).result(SECONDS_MAX)
    if listed.errors:
        sys.exit(f"list_consumer_groups: {listed.errors}")
    names = sorted(group.group_id for group in listed.valid)
    described = [one.result(SECONDS_MAX) for one in admin.describe_consumer_groups(names, request_timeout=SECONDS_MAX).values()]
    offsets = 0
    for name in names:
        (future,) = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(name)], request_timeout=SECONDS_MAX).values()
        offsets += len(future.result(SECONDS_MAX).topic_partitions)
    metadata = admin.list_topics(topic, timeout=SECONDS_MAX)
    led = sum(one.leader >= 0 and one.error is None for one in metadata.topics[topic].partitions.values())
    return [node.id for node in cluster.nodes], names, len(described), offsets, led


def kafka_python(bootstrap, topic):
    from kafka.admin import KafkaAdminClient

    admin = KafkaAdminClient(bootstrap_servers=bootstrap.split(","), request_timeout_ms=SECONDS_MAX * 1000)
    # It asks for fenced nodes, too, which the answer tells from the others.
    nodes = [node["broker_id"] for node in admin.describe_cluster()["brokers"] if not node.get("is_fenced")]
    names = sorted(group["group_id"] for group in admin.list_groups())
    described = admin.describe_groups(names)
    offsets = sum(len(places) for places in admin.list_group_offsets(names).values())
    (about,) = admin.describe_topics([topic])
    led = sum(one["leader_id"] >= 0 for one in about["partitions"])
    return nodes, names, len(described), offsets, led


def main():
    which, bootstrap, topic = sys.argv[1:]
    nodes, names, described, offsets, led = {"librdkafka": librdkafka, "kafka-python": kafka_python}[which](bootstrap, topic)
    print("nodes", ",".join(str(node) for node in sorted(nodes)))
    print("groups", ",".join(names))
    print("described", described)
    print("offsets", offsets)
    print("led", led)


main()
