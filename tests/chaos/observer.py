"""The observer: what the runner itself asks the cluster, mostly when the clients have ended. It reads everything, and asks what groups have committed
and what each node shows of topics; what it was told is in the journal as a client's, number 0. May not know: faults, the verdict.
"""

import time

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

import topics
import wire
from journal import COMMON, offsets_in, value_of
from network import CLIENTS
from nodes import until
from topic_admin import shown

OBSERVER = 0
PARTITIONS, FACTOR = 6, 3
CATCH_UP_SECONDS_MAX = 60
SETTLE_SECONDS_MAX = 30
NAMES_ASKED = 200


class Observer:
    def __init__(self, network, bootstrap, topic, say):
        """`say`: writes a line of the journal."""
        self.network, self.bootstrap, self.topic, self.say_line = network, bootstrap, topic, say
        self.groups = {}

    def say(self, what, begun, /, **more):
        self.say_line({"do": what, "t": time.monotonic_ns(), "client": OBSERVER, "begun": begun, **more})

    def consumer(self, group, **settings):
        with self.network.inside(CLIENTS):
            return Consumer({**COMMON, "bootstrap.servers": self.bootstrap, "group.id": group, "enable.auto.commit": False, **settings})

    def follow(self, number, name):
        """A group, whose committed offsets will be asked for."""
        self.groups[number] = self.consumer(name)

    def admin(self):
        with self.network.inside(CLIENTS):
            return AdminClient({**COMMON, "bootstrap.servers": self.bootstrap})

    def create_topic(self):
        factor = min(FACTOR, len(self.nodes()))
        admin = self.admin()
        admin.create_topics([NewTopic(self.topic, PARTITIONS, factor)])[self.topic].result(30)
        until("the topic has leaders", lambda: self.has_leaders(admin))

    def has_leaders(self, admin):
        found = admin.list_topics(self.topic, timeout=10).topics[self.topic].partitions
        return len(found) == PARTITIONS and all(part.leader >= 0 for part in found.values())

    def delete_topics(self):
        """What a run has made in a cluster that is not its own."""
        admin = self.admin()
        names = [name for name in admin.list_topics(timeout=10).topics if name.startswith(self.topic)]
        for answer in admin.delete_topics(names).values() if names else []:
            answer.result(30)

    def nodes(self):
        """The cluster's nodes, as the first one that answers knows them: {number: (host, port)}."""
        try:
            with self.network.inside(CLIENTS):
                return wire.first_answer(self.bootstrap).nodes
        except OSError as reason:
            raise AssertionError(str(reason)) from reason

    # Offsets

    def committed(self, group):
        """What a group has committed, by partition; None if that is not told."""
        begun = time.monotonic_ns()
        try:
            asked = [TopicPartition(self.topic, p) for p in range(PARTITIONS)]
            offsets = offsets_in(self.groups[group].committed(asked, timeout=10))
        # The coordinator is not found yet.
        except KafkaException:
            return None
        if offsets is not None:
            self.say("fetched", begun, group=group, offsets=offsets)
        return offsets and dict(offsets)

    def end_of(self, one, partition):
        """One more than a partition's end; None while a leader is looked for. A consumer's first question may find its own list empty."""
        try:
            return one.get_watermark_offsets(TopicPartition(self.topic, partition), timeout=30)[1] + 1
        except KafkaException:
            return None

    def ends(self, one):
        return {p: until(f"the end of partition {p} is told", lambda: self.end_of(one, p)) - 1 for p in range(PARTITIONS)}

    def wait_for_groups(self, groups):
        """Until groups have read and committed everything."""
        for group in groups:
            one = self.groups[group]
            until(f"group {group} has committed everything", lambda: self.committed(group) == self.ends(one), CATCH_UP_SECONDS_MAX)

    def wait_for_readers(self, positions):
        """Until readers have read everything; `positions`: gives the offset of each one's next record, by partition."""
        one = self.consumer(f"{self.topic}-observer")
        try:
            ends = {p: end for p, end in self.ends(one).items() if end > 0}
        finally:
            one.close()
        until("every reader has read everything", lambda: all(own == ends for own in positions()), CATCH_UP_SECONDS_MAX)

    def fetch_all(self, groups):
        for group in groups:
            until(f"what group {group} has committed is told", lambda: self.committed(group) is not None, CATCH_UP_SECONDS_MAX)

    # Records

    def read_all(self, rack=""):
        """Reads everything from the beginning, from the leaders or from the replicas of a zone. Where the machine is busy that
        takes as long as it takes; to stand still is not to be readable."""
        one = self.consumer("auditor", **{"auto.offset.reset": "error", "client.rack": rack})
        try:
            begun, ends, records = time.monotonic_ns(), self.ends(one), []
            next_offsets = {p: 0 for p, end in ends.items() if end > 0}
            one.assign([TopicPartition(self.topic, p, 0) for p in next_offsets])
            deadline = time.monotonic() + CATCH_UP_SECONDS_MAX
            while any(offset < ends[p] for p, offset in next_offsets.items()):
                if time.monotonic() > deadline:
                    raise AssertionError(f"partitions can not be read to their ends {ends}, only to {next_offsets}")
                before = dict(next_offsets)
                for message in one.consume(1000, 0.5):
                    if message.error() is not None:
                        raise AssertionError(f"partition {message.partition()} at offset {message.offset()}: {message.error()}")
                    if message.offset() < ends[message.partition()]:
                        records.append((message.partition(), message.offset(), value_of(message.value())))
                        next_offsets[message.partition()] = message.offset() + 1
                if next_offsets != before:
                    deadline = time.monotonic() + CATCH_UP_SECONDS_MAX
            self.say("read", begun, records=records, ends=sorted(ends.items()))
            return len(records)
        finally:
            one.close()

    # Topics

    def settle_topics(self, journal):
        """Asks every node for all topics until it shows what was acknowledged; what it shows at last is in the journal."""
        done = topics.changes(journal)
        names = sorted(done)
        deadline = time.monotonic() + SETTLE_SECONDS_MAX
        for number, address in sorted(self.nodes().items()):
            while True:
                begun, found = time.monotonic_ns(), self.shown_by(number, address, names)
                if time.monotonic() > deadline or not topics.wrong_in(done, found):
                    break
                time.sleep(0.2)
            self.say("described", begun, node=number, topics=found, settled=True)

    def shown_by(self, number, address, names):
        def ask(some):
            try:
                with self.network.inside(CLIENTS):
                    return shown(address, some, 10)
            except OSError:
                return None

        found = []
        for first in range(0, len(names), NAMES_ASKED):
            some = names[first : first + NAMES_ASKED]
            found += until(f"node {number} says what it knows of topics", lambda: ask(some))
        return found
