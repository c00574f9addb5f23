"""One direction of a mirror: what is written on the one side, the copy on the other, and a group that moves from the one to the other.

May not know: which side is Ottla, how the copy is made.
"""

import itertools

from committed import SILENT, Committed, Writer, create_topics
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

PARTITIONS, KEYS, A_SECOND = 3, 30, 80
GROUP_BATCH, ADMIN_SECONDS_MAX = 500, 60
# Before the mirror starts, and what it is changed to while it runs.
CONFIG, LATER_CONFIG = {"retention.ms": "86400123", "max.message.bytes": "2000123"}, ("retention.ms", "86400456")


class Direction:
    def __init__(self, place, source, target, topic, copy):
        """`source`, `target`: bootstrap and number of nodes."""
        self.place, self.topic, self.copy, self.group = place, topic, copy, f"readers-of-{topic}"
        (self.source, replicas), (self.target, _) = source, target
        self.at_target = AdminClient({"bootstrap.servers": self.target, **SILENT})
        self.at_source = create_topics(self.source, PARTITIONS, replicas, topic, **CONFIG)
        records = ((f"key-{number % KEYS:02}", str(number), 0) for number in itertools.count(1))
        self.writer = Writer(self.source, topic, records, A_SECOND)
        self.seen, self.asker, self.read, self.again = None, None, set(), 0

    def has_copy(self):
        return self.copy in self.at_target.list_topics(timeout=ADMIN_SECONDS_MAX).topics

    def count(self):
        """Of the records in the copy that a reader of committed records sees."""
        if self.seen is None:
            self.seen = Committed(self.target, self.copy)
        return self.seen.read()

    def caught_up(self):
        """The same, without any that were there before."""
        self.count()
        return self.seen.catch_up()

    def configs(self):
        """Of the copy, those that the source had when the mirror began."""
        resource = ConfigResource(ResourceType.TOPIC, self.copy)
        (future,) = self.at_target.describe_configs([resource]).values()
        entries = future.result(ADMIN_SECONDS_MAX)
        return {name: entries[name].value for name in CONFIG}

    def change_config(self):
        name, value = LATER_CONFIG
        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, self.topic, incremental_configs=[entry])
        (future,) = self.at_source.incremental_alter_configs([resource]).values()
        future.result(ADMIN_SECONDS_MAX)

    def has_changed_config(self):
        return self.configs() == {**CONFIG, **dict([LATER_CONFIG])}

    def read_as_group(self, bootstrap, topic, is_done):
        """The group's only member; it commits what it has read, and leaves."""
        own = {"group.id": self.group, "enable.auto.commit": False, "auto.offset.reset": "earliest", "isolation.level": "read_committed"}
        consumer = Consumer({"bootstrap.servers": bootstrap, **own, **SILENT})
        consumer.subscribe([topic])

        def reads_on():
            messages = [message for message in consumer.consume(GROUP_BATCH, 0.5) if not message.error()]
            for message in messages:
                number = int(message.value())
                self.again += number in self.read
                self.read.add(number)
            if messages:
                consumer.commit(asynchronous=False)
            return is_done()

        self.place.until(reads_on, 120, f"the group reads {topic}")
        consumer.close()

    def read_on_source(self):
        """Up to where the writer is now. A group that stopped far behind is translated only by a mirror that has run since."""
        wanted = self.writer.acknowledged
        self.read_as_group(self.source, self.topic, lambda: len(self.read) >= wanted)

    def translated(self):
        """The group's offsets in the copy by partition."""
        if self.asker is None:
            # Asks only, and is no member. (With the admin client's call confluent-kafka 2.16.1 once ended the process, cause unknown.)
            self.asker = Consumer({"bootstrap.servers": self.target, "group.id": self.group, **SILENT})
        places = [TopicPartition(self.copy, partition) for partition in range(PARTITIONS)]
        return {place.partition: place.offset for place in self.asker.committed(places, ADMIN_SECONDS_MAX) if place.offset >= 0}

    def is_translated(self):
        """Behind the beginning in each partition."""
        found = self.translated()
        return len(found) == PARTITIONS and all(found.values())

    def judge(self):
        """The copy against what was sent, and the group that goes on on it; gives what is to be said."""
        sent = self.writer.sent
        found = Committed(self.target, self.copy).read_to_end()
        wanted = {}
        for key, value, _ in sent:
            wanted.setdefault(key, []).append(value)
        wrong = [(key, len(wanted[key]), len(found.get(key, []))) for key in wanted if found.get(key) != wanted[key]]
        assert not wrong and len(found) == len(wanted), f"{self.copy}: (key, records, copies) that differ: {wrong[:5]}"
        before = len(self.read)
        self.read_as_group(self.target, self.copy, lambda: len(self.read) >= len(sent))
        missing = {int(value) for _, value, _ in sent} - self.read
        assert not missing, f"{self.group} has skipped {len(missing)} records: {sorted(missing)[:5]}"
        return f"{len(sent)} records in {self.copy}; {self.group} stopped after {before}, skipped none, read {self.again} again"
