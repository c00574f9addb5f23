"""The job of pipelines.py that is librdkafka itself: two consumers of a group with default settings, which commit by themselves.

May not know: how shards are resized.
"""

import collections
import threading
import time

from confluent_kafka import Consumer, TopicPartition
from records import Progress

CONSUMERS = 2
POLL_SECONDS = 0.1
LEAVE_SECONDS_MAX = 30


class ConsumerGroup:
    name, group = "librdkafka", "librdkafka"

    def __init__(self, place):
        self.place, self.progress = place, Progress()
        self.errors, self.assignments = [], []
        # By number: when and where it was read.
        self.read = collections.defaultdict(list)
        self.ends, self.lock = threading.Event(), threading.Lock()
        self.threads = [threading.Thread(target=self.consume, args=(number,), daemon=True) for number in range(CONSUMERS)]

    @classmethod
    def install(cls):
        """It is there: tests/setup has it."""

    def settings(self):
        note = lambda error: self.place.notices.note(f"consumer: {error}")
        own = {"group.id": self.group, "auto.offset.reset": "earliest", "error_cb": note, "logger": self.place.notices.logger}
        return {"bootstrap.servers": self.place.bootstrap, **own}

    def start(self):
        for thread in self.threads:
            thread.start()

    def has_started(self):
        return len({consumer for _, consumer in self.assignments}) == CONSUMERS

    def consume(self, number):
        consumer = Consumer(self.settings())
        assigned = lambda _, partitions: partitions and self.assignments.append((time.monotonic(), number))
        consumer.subscribe([self.place.input], on_assign=assigned)
        while not self.ends.is_set():
            message = consumer.poll(POLL_SECONDS)
            if message is None:
                continue
            with self.lock:
                if message.error():
                    self.errors.append(f"read: {message.error()}")
                    continue
                self.progress.moved()
                record = int(message.value().split()[0])
                self.read[record].append((time.monotonic(), (message.partition(), message.offset())))
        consumer.close()

    def check_alive(self):
        assert all(thread.is_alive() for thread in self.threads), "a consumer died"

    def is_through(self, records):
        with self.lock:
            return len(self.read) >= len(records.written)

    def end(self, records, resizes):
        """Ends the consumers; gives what is wrong."""
        self.ends.set()
        for thread in self.threads:
            thread.join()
        missing = set(records.written) - set(self.read)
        again = [(record, later) for record, at in self.read.items() for later in at[1:]]
        twice = [record for record, at in self.read.items() if len({place for _, place in at}) > 1]
        print(f"read: {sum(map(len, self.read.values()))} records, {len(self.read)} different ones, {len(again)} read again")
        for record, (at, place) in sorted(again, key=lambda one: one[1][0]):
            first = self.read[record][0][0]
            print(f"  partition {place[0]}, offset {place[1]}: {1000 * (at - first):.0f} ms after the first time, at resize {resizes.near(at)}")
        first = resizes.done[0].begun
        print(f"partitions were assigned {len(self.assignments)} times, {sum(at > first for at, _ in self.assignments)} of them since the first resize")
        return [
            *self.errors,
            *(f"record {record} is missing" for record in sorted(missing)),
            *(f"record {record} stands twice: {self.read[record]}" for record in twice),
            *self.not_committed(records),
        ]

    def not_committed(self, records):
        """Consumers that leave have committed what they read: the group's offsets are the ends of the partitions."""
        consumer = Consumer(self.settings())
        places = [TopicPartition(self.place.input, partition) for partition in range(records.partitions)]
        committed = {place.partition: place.offset for place in consumer.committed(places, timeout=30)}
        consumer.close()
        wrong = {partition for partition, offset in committed.items() if offset != records.offsets[partition]}
        return [f"partition {partition}: {committed[partition]} is committed, {records.offsets[partition]} is its end" for partition in wrong]

    def resizing_begins(self):
        pass

    def notices(self):
        # They are beside the producer's.
        return collections.Counter()

    def kill(self):
        self.ends.set()
        for thread in self.threads:
            if thread.is_alive():
                thread.join(LEAVE_SECONDS_MAX)
