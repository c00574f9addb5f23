"""Records that a scenario writes at a steady rate while nodes are killed, and topics as a reader of committed records sees them.

Used by the scenarios of streams, connect, flink, mirror and spark. May not know: what any application does with the records.
"""

import collections
import threading
import time

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

# A client of a node that is killed says so in its log; nothing that it logs is judged.
SILENT = {"log_level": 0}
FLUSH_SECONDS_MAX, END_SECONDS_MAX = 120, 60


def create_topics(bootstrap, partitions, replicas, *names, **settings):
    admin = AdminClient({"bootstrap.servers": bootstrap, **SILENT})
    config = {name.replace("_", "."): str(value) for name, value in settings.items()}
    for future in admin.create_topics([NewTopic(name, partitions, replicas, config=config) for name in names]).values():
        future.result(60)
    return admin


def aborted(bootstrap, topic, committed):
    """How many records the topic has beside the committed ones. No one writes any more."""
    everything = Committed(bootstrap, topic, "read_uncommitted")
    everything.read_to_end()
    return everything.count - committed


def differences(found, wanted):
    """Where two maps differ: (key, found, expected)."""
    return [(key, found.get(key), wanted.get(key)) for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key)]


class Writer:
    """An idempotent producer in a thread of its own: `a_second` of the endless `records` (key, value, time in ms) until its end."""

    def __init__(self, bootstrap, topic, records, a_second):
        self.topic, self.records, self.a_second = topic, records, a_second
        self.sent, self.acknowledged, self.errors = [], 0, []
        self.producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 20, **SILENT})
        self.stops = threading.Event()
        self.thread = threading.Thread(target=self.write, daemon=True)
        self.thread.start()

    def write(self):
        due = time.monotonic()
        while not self.stops.is_set():
            self.send(*next(self.records))
            self.producer.poll(0)
            # A steady rate, whatever happens to the nodes.
            due += 1 / self.a_second
            time.sleep(max(0.0, due - time.monotonic()))

    def send(self, key, value, at):
        self.sent.append((key, value, at))
        self.producer.produce(self.topic, value, key, timestamp=at, on_delivery=self.told)

    def told(self, error, message):
        if error:
            self.errors.append(f"{message.key()}: {error}")
        else:
            self.acknowledged += 1

    def end(self, last=()):
        """Sends the `last` records, waits until everything is acknowledged, and gives all that was sent."""
        self.stops.set()
        self.thread.join()
        for record in last:
            self.send(*record)
        left = self.producer.flush(FLUSH_SECONDS_MAX)
        assert not left and not self.errors, f"{left} records are not acknowledged, {len(self.errors)} failed: {self.errors[:3]}"
        return self.sent


class Committed:
    """A topic from its beginning: the values of each key in the order in which they stand."""

    def __init__(self, bootstrap, topic, isolation="read_committed"):
        own = {"group.id": "unused", "enable.auto.commit": False, "enable.partition.eof": True, "isolation.level": isolation}
        self.consumer = Consumer({"bootstrap.servers": bootstrap, **own, **SILENT})
        self.topic = topic
        partitions = self.consumer.list_topics(topic, 30).topics[topic].partitions
        self.consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
        self.ends = dict.fromkeys(partitions, False)
        self.values, self.count = collections.defaultdict(list), 0

    def read(self, seconds=0.5):
        """Reads on for a moment."""
        for message in self.consumer.consume(2000, seconds):
            error = message.error()
            if error and error.code() != KafkaError._PARTITION_EOF:
                # A node that is killed: the client says so and reads on.
                assert error.retriable() or error.code() in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN), f"{self.topic}: {error}"
                continue
            self.ends[message.partition()] = bool(error)
            if not error:
                key = message.key()
                self.values[key if key is None else key.decode()].append(message.value().decode())
                self.count += 1
        return self.count

    def catch_up(self):
        """Reads what is there by now; from then on each record that comes is a new one."""
        deadline, reached = time.monotonic() + END_SECONDS_MAX, set()
        while len(reached) < len(self.ends) and time.monotonic() < deadline:
            self.read()
            reached |= {partition for partition, end in self.ends.items() if end}
        return self.count

    def read_to_end(self):
        """Reads until each partition has nothing more to give; only once no one writes any more. Closes the consumer."""
        deadline = time.monotonic() + END_SECONDS_MAX
        while not all(self.ends.values()):
            self.read()
            assert time.monotonic() < deadline, f"{self.topic}: no end in partitions {[one for one, end in self.ends.items() if not end]}"
        self.consumer.close()
        return self.values
