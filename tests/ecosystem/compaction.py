"""Compaction as an application sees it: nodes that look often for what is to be compacted, and topics that hold less than was written.

Used by the scenarios of connect, debezium, offsets, streams and flink. May not know: what any application keeps in a topic, how a node compacts.
"""

import time

from committed import SILENT
from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

# How often a node looks; Kafka's default of 15 s would be most of a run.
BACKOFF_MS = 200
END_SECONDS_MAX, COMPACTED_SECONDS_MAX = 60, 90
ADMIN_SECONDS_MAX = 60
# What a topic is created with so that little of it stays uncompacted; one that an application makes is given ratio and time afterwards.
POLICY = "cleanup.policy"
EARLY = {"min.cleanable.dirty.ratio": 0.01, "segment.ms": 1}
SOON = {POLICY: "compact", **EARLY}


def compact_often(place):
    """Nodes read the setting when they start."""
    for number, broker in enumerate(place.brokers, 1):
        broker.environment["KAFKA_LOG_CLEANER_BACKOFF_MS"] = str(BACKOFF_MS)
        place.restart(number)


def compact_early(bootstrap, *topics):
    """They have to be topics that are compacted."""
    admin = AdminClient({"bootstrap.servers": bootstrap, **SILENT})
    for resource, future in admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic) for topic in topics]).items():
        policy = future.result(ADMIN_SECONDS_MAX)[POLICY].value
        assert policy == "compact", f"{resource.name} was made with {POLICY}={policy}"
    entries = [ConfigEntry(name, str(value), incremental_operation=AlterConfigOpType.SET) for name, value in EARLY.items()]
    changed = [ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries) for topic in topics]
    for future in admin.incremental_alter_configs(changed).values():
        future.result(ADMIN_SECONDS_MAX)


class Stored:
    """What a topic holds from its beginning to its end: of each partition (offset, key, value) in the order in which they stand."""

    def __init__(self, bootstrap, topic, isolation="read_uncommitted"):
        own = {"group.id": "unused", "enable.auto.commit": False, "enable.partition.eof": True, "isolation.level": isolation}
        consumer = Consumer({"bootstrap.servers": bootstrap, **own, **SILENT})
        partitions = [TopicPartition(topic, partition, 0) for partition in consumer.list_topics(topic, 30).topics[topic].partitions]
        marks = [consumer.get_watermark_offsets(partition, 30) for partition in partitions]
        # Where the log would end if every offset still had a record, less what lies below the log start.
        self.offsets = sum(end - start for start, end in marks)
        self.records = {one.partition: [] for one in partitions}
        consumer.assign(partitions)
        left, deadline = set(self.records), time.monotonic() + END_SECONDS_MAX
        while left:
            assert time.monotonic() < deadline, f"{topic}: no end in partitions {sorted(left)}"
            for message in consumer.consume(2000, 0.5):
                self.take(topic, message, left)
        consumer.close()

    def take(self, topic, message, left):
        error = message.error()
        if not error:
            self.records[message.partition()].append((message.offset(), message.key(), message.value()))
        elif error.code() == KafkaError._PARTITION_EOF:
            left.discard(message.partition())
        else:
            # A node that is killed: the client says so and reads on.
            assert error.retriable() or error.code() in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN), f"{topic}: {error}"

    def count(self):
        return sum(map(len, self.records.values()))

    def ends(self):
        """Of each partition that has records, the offset behind its last one."""
        return {partition: records[-1][0] + 1 for partition, records in self.records.items() if records}

    def last(self):
        """The last value of each key, without those that were deleted."""
        last = {key: value for records in self.records.values() for _, key, value in records}
        return {key: value for key, value in last.items() if value is not None}


def until_compacted(place, topic, records_max):
    """Waits until the topic has at most so many records, and says how many of how many that is."""
    found = []

    def is_small():
        found.append(Stored(place.bootstrap, topic))
        return found[-1].count() <= records_max

    try:
        place.until(is_small, COMPACTED_SECONDS_MAX, f"{topic} with at most {records_max} records")
    except AssertionError as failure:
        raise AssertionError(f"{failure}; it has {found[-1].count()} of {found[-1].offsets} offsets") from failure
    return f"{topic} holds {found[-1].count()} records of {found[-1].offsets} offsets"
