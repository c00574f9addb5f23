"""A keeper of offsets: a client that is no member of its group commits and fetches offsets there, as streaming engines with a log of their own do.

No offset is committed twice, and every one is above those before it, also those of a client that was killed: so a fetch says which commit
it has seen. The offsets are numbers only; records need not be there. May not know: faults, the verdict.
"""

import random
import threading
import time

from confluent_kafka import Consumer, KafkaException, TopicPartition

from journal import COMMON, PATIENT_MS, commit, ended, offsets_in, say

PAUSE_SECONDS_MAX = 0.2
FETCH_CHANCE = 0.4
# Below it a client counts its commits, above it stands its number: later clients have greater ones.
COMMITS_BITS = 20


class Keeper(threading.Thread):
    def __init__(self, bootstrap, topic, client, group, number, partitions):
        super().__init__()
        self.topic, self.client, self.group, self.partitions = topic, client, number, partitions
        self.commits = 0
        self.one = Consumer({**COMMON, "bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False})

    def run(self):
        self.fetch()
        while not ended.is_set():
            self.commits += 1
            chosen = random.sample(self.partitions, random.randrange(1, len(self.partitions) + 1))
            offset = (self.client << COMMITS_BITS) + self.commits
            commit(self.one, self.topic, self.client, self.group, [(partition, offset) for partition in sorted(chosen)])
            if random.random() < FETCH_CHANCE:
                self.fetch()
            ended.wait(random.uniform(0, PAUSE_SECONDS_MAX))
        self.one.close()

    def fetch(self):
        begun = time.monotonic_ns()
        try:
            asked = [TopicPartition(self.topic, partition) for partition in self.partitions]
            offsets = offsets_in(self.one.committed(asked, timeout=PATIENT_MS / 1000))
        except KafkaException:
            return
        if offsets is not None:
            say("fetched", client=self.client, group=self.group, begun=begun, offsets=offsets)
