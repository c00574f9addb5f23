"""Readings of whole partitions, from their beginning to their end: what the observer does when all is over, and a client that does nothing else.

May not know: faults, the verdict.
"""

import random
import time

from confluent_kafka import Consumer, KafkaException, TopicPartition

from journal import COMMON, PATIENT_MS, ended, polled, say
from places import place

POLL_RECORDS_MAX = 1000
PAUSE_SECONDS_MAX = 0.5


class FullRead:
    """What a consumer finds in partitions from their beginning up to `ends`, {partition: offset}.

    Each is read beyond its end until nothing more is there at that moment: compaction may have removed a record below the end since a later one of its key
    stands behind it, which the consumer must then have been given.
    """

    def __init__(self, topic, ends):
        self.topic, self.ends, self.records = topic, ends, []
        self.open = {number for number, end in ends.items() if end > 0}

    def assign(self, consumer):
        consumer.assign([TopicPartition(*place(self.topic, number), 0) for number in sorted(self.open)])

    def take(self, records, reached):
        """Records as (partition, offset, value), and (partition, offset) where nothing more was there. Only markers of transactions, and what is
        compacted, may be passed over."""
        self.records += records
        self.open -= {number for number, offset in reached if offset >= self.ends[number]}


class Rereader:
    """Assigns itself partitions and reads them as a whole, then once more, and so on."""

    def __init__(self, bootstrap, topic, client, partitions):
        self.topic, self.client, self.partitions = topic, client, partitions
        settings = {"group.id": f"{topic}-reader-{client}", "enable.auto.commit": False, "auto.offset.reset": "error", "fetch.wait.max.ms": 100}
        self.one = Consumer({**COMMON, "bootstrap.servers": bootstrap, **settings, "isolation.level": "read_committed", "enable.partition.eof": True})

    def end_of(self, number):
        """A partition's end, as long as it takes; None when the client is told to end."""
        while not ended.is_set():
            try:
                return self.one.get_watermark_offsets(TopicPartition(*place(self.topic, number)), timeout=PATIENT_MS / 1000)[1]
            except KafkaException:
                ended.wait(0.1)
        return None

    def read(self):
        begun = time.monotonic_ns()
        ends = {number: self.end_of(number) for number in self.partitions}
        if None in ends.values():
            return
        full = FullRead(self.topic, ends)
        full.assign(self.one)
        while full.open and not ended.is_set():
            full.take(*polled(self.one, self.client, self.topic, POLL_RECORDS_MAX))
        if not full.open:
            say("read", client=self.client, begun=begun, records=full.records, ends=sorted(ends.items()))

    def run(self):
        while not ended.is_set():
            self.read()
            ended.wait(random.uniform(0, PAUSE_SECONDS_MAX))
        self.one.close()
