"""What the jobs of pipelines.py are to read, and what has to come of it: records {number, key, time} at a steady rate.

A record is `NUMBER KEY TIME`, its time in milliseconds, never less than that of the one before; a key has one partition. May not know:
jobs, resizes.
"""

import collections
import threading
import time

from confluent_kafka import Consumer, Producer, TopicPartition

KEYS = 48
WINDOW_MS = 5000
BELL = "bell"
# Longer than any window, and any watermark, is behind.
BELL_MS = 600_000
FLUSH_SECONDS_MAX = 120


class Progress:
    """The moments in which something went on."""

    def __init__(self):
        self.moments, self.count = [], 0

    def moved(self, by=1):
        self.moments.append(time.monotonic())
        self.count += by

    def longest(self, begun, ended):
        """The longest time without, between two moments: seconds, and when it began."""
        within = [begun, *(at for at in self.moments if begun < at < ended), ended]
        return max((later - at, at) for at, later in zip(within, within[1:], strict=False))


class Records:
    """An idempotent producer with default settings in a thread of its own, and what was acknowledged."""

    def __init__(self, bootstrap, topic, partitions, rate, log):
        self.topic, self.partitions, self.rate = topic, partitions, rate
        own = {"enable.idempotence": True, "error_cb": lambda error: log.note(f"producer: {error}"), "logger": log.logger}
        self.producer = Producer({"bootstrap.servers": bootstrap, **own})
        self.errors, self.written, self.offsets = [], {}, collections.Counter()
        self.acknowledged = Progress()
        self.stops = threading.Event()
        self.thread = threading.Thread(target=self.produce)
        self.begun_ms, self.begun = int(time.time() * 1000), time.monotonic()
        self.thread.start()

    def now_ms(self):
        """A clock that nobody sets back."""
        return self.begun_ms + int(1000 * (time.monotonic() - self.begun))

    def produce(self):
        number, due = 0, time.monotonic()
        while not self.stops.is_set():
            number += 1
            self.send(number, f"key-{number % KEYS:02}", number % KEYS % self.partitions, self.now_ms())
            self.producer.poll(0)
            due += 1 / self.rate
            time.sleep(max(0.0, due - time.monotonic()))

    def send(self, number, key, partition, at):
        def told(error, message):
            if error:
                self.errors.append(f"record {number}: {error}")
                return
            self.acknowledged.moved()
            self.written[number] = (key, at)
            self.offsets[message.partition()] = max(self.offsets[message.partition()], message.offset() + 1)

        value = f"{number} {key} {at}".encode()
        self.producer.produce(self.topic, value, key.encode(), partition=partition, timestamp=at, on_delivery=told)

    def stop(self):
        """Ends with a bell in each partition, from a time at which all windows are closed."""
        self.stops.set()
        self.thread.join()
        for partition in range(self.partitions):
            self.send(-1 - partition, BELL, partition, self.now_ms() + BELL_MS)
        left = self.producer.flush(FLUSH_SECONDS_MAX)
        self.errors += [f"{left} records are not acknowledged"] if left else []

    def numbers(self):
        """Those that were acknowledged, without the bells."""
        return {number for number in self.written if number > 0}

    def windows(self):
        """Count and sum of the numbers by key and beginning of the window: {"KEY@START": "COUNT SUM"}."""
        found = collections.defaultdict(lambda: (0, 0))
        for number in self.numbers():
            key, at = self.written[number]
            count, total = found[f"{key}@{at - at % WINDOW_MS}"]
            found[f"{key}@{at - at % WINDOW_MS}"] = (count + 1, total + number)
        return {window: f"{count} {total}" for window, (count, total) in found.items()}


class Results:
    """A topic of results, read from its beginning without a group: by key the values in the order in which they came."""

    def __init__(self, bootstrap, topic, partitions):
        self.consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False})
        self.places = [TopicPartition(topic, partition, 0) for partition in range(partitions)]
        self.consumer.assign(self.places)
        self.values = collections.defaultdict(list)

    def read(self, seconds):
        """True if something came."""
        messages = self.consumer.consume(1000, seconds)
        for message in messages:
            if message.error():
                raise AssertionError(f"results: {message.error()}")
            self.values[message.key().decode()].append(message.value().decode())
        return bool(messages)

    def read_to_end(self):
        ends = {place.partition: self.consumer.get_watermark_offsets(place)[1] for place in self.places}
        count = lambda: sum(map(len, self.values.values()))
        while count() < sum(ends.values()) and self.read(10):
            pass
        self.consumer.close()
        if count() < sum(ends.values()):
            raise AssertionError(f"{count()} results read, there are {sum(ends.values())}")
