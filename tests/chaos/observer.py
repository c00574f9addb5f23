"""The observer: what the runner itself asks the cluster, mostly when the clients have ended. It reads everything, and asks what groups have committed
and what each node shows of topics; what it was told is in the journal as a client's, number 0. May not know: faults, the verdict.
"""

import time

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

import compacted
import topics
import wire
from full_reads import FullRead
from journal import COMMON, offsets_in, value_of
from network import CLIENTS
from nodes import until
from places import COMPACT, INPUT, OUTPUT, PARTITION_FROM, PLAIN, number_of, place
from topic_admin import shown

OBSERVER = 0
PARTITIONS, FACTOR = 6, 3
TRANSACTIONAL = (INPUT, OUTPUT)
CATCH_UP_SECONDS_MAX = 60
SETTLE_SECONDS_MAX = 30
NAMES_ASKED = 200


def numbers(topics):
    """Of all partitions of these topics."""
    return [PARTITION_FROM[suffix] + partition for suffix in topics for partition in range(PARTITIONS)]


class Observer:
    def __init__(self, network, bootstrap, topic, topics, say):
        """`topics`: those of the run by what follows its name; `say`: writes a line of the journal."""
        self.network, self.bootstrap, self.topic, self.topics, self.say_line = network, bootstrap, topic, topics, say
        # By number: a client of the group, and which topic it reads.
        self.groups = {}

    def say(self, what, begun, /, **more):
        self.say_line({"do": what, "t": time.monotonic_ns(), "client": OBSERVER, "begun": begun, **more})

    def consumer(self, group, **settings):
        with self.network.inside(CLIENTS):
            return Consumer({**COMMON, "bootstrap.servers": self.bootstrap, "group.id": group, "enable.auto.commit": False, **settings})

    def follow(self, number, name, suffix=PLAIN):
        """A group, whose committed offsets will be asked for."""
        self.groups[number] = (self.consumer(name), suffix)

    def admin(self):
        with self.network.inside(CLIENTS):
            return AdminClient({**COMMON, "bootstrap.servers": self.bootstrap})

    def create_topics(self):
        factor = min(FACTOR, len(self.nodes()))
        admin = self.admin()
        settings = {self.topic + suffix: compacted.SETTINGS if suffix == COMPACT else {} for suffix in self.topics}
        for made in admin.create_topics([NewTopic(name, PARTITIONS, factor, config=own) for name, own in settings.items()]).values():
            made.result(30)
        until("the topics have leaders", lambda: all(self.has_leaders(admin, name) for name in settings))

    def has_leaders(self, admin, name):
        found = admin.list_topics(name, timeout=10).topics[name].partitions
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
        begun, (one, suffix) = time.monotonic_ns(), self.groups[group]
        try:
            asked = [TopicPartition(*place(self.topic, number)) for number in numbers([suffix])]
            offsets = offsets_in(one.committed(asked, timeout=10))
        # The coordinator is not found yet.
        except KafkaException:
            return None
        if offsets is not None:
            offsets = [(PARTITION_FROM[suffix] + partition, offset) for partition, offset in offsets]
            self.say("fetched", begun, group=group, offsets=offsets)
        return offsets and dict(offsets)

    def end_of(self, one, number):
        """One more than a partition's end; None while a leader is looked for. A consumer's first question may find its own list empty."""
        try:
            return one.get_watermark_offsets(TopicPartition(*place(self.topic, number)), timeout=30)[1] + 1
        except KafkaException:
            return None

    def ends(self, one, topics=(PLAIN,)):
        return {number: until(f"the end of partition {number} is told", lambda: self.end_of(one, number)) - 1 for number in numbers(topics)}

    def wait_for_groups(self, groups):
        """Until groups have read and committed everything."""
        for group in groups:
            one, _ = self.groups[group]
            until(f"group {group} has committed everything", lambda: self.committed(group) == self.ends(one), CATCH_UP_SECONDS_MAX)

    def wait_for_readers(self, positions, topics=(PLAIN,)):
        """Until readers have read everything; `positions`: gives the offset of each one's next record, by partition."""
        one = self.consumer(f"{self.topic}-observer")
        try:
            ends = {p: end for p, end in self.ends(one, topics).items() if end > 0}
        finally:
            one.close()
        is_there = lambda own: all(own.get(p, 0) >= end for p, end in ends.items())
        until("every reader has read everything", lambda: all(map(is_there, positions())), CATCH_UP_SECONDS_MAX)

    def wait_for_transactions(self, topics):
        """Until no transaction is open: each end for readers of committed data is that for others."""
        levels = [self.consumer(f"{self.topic}-observer", **{"isolation.level": level}) for level in ("read_committed", "read_uncommitted")]
        try:
            until("no transaction is open any more", lambda: self.ends(levels[0], topics) == self.ends(levels[1], topics), CATCH_UP_SECONDS_MAX)
        finally:
            for one in levels:
                one.close()

    def fetch_all(self, groups):
        for group in groups:
            until(f"what group {group} has committed is told", lambda: self.committed(group) is not None, CATCH_UP_SECONDS_MAX)

    # Records

    def read_all(self, rack="", settled=False):
        """Reads everything from the beginning, from the leaders or from the replicas of a zone. `settled`: when all is over."""
        if PLAIN in self.topics:
            self.read((PLAIN,), rack, settled)
        if own := [suffix for suffix in TRANSACTIONAL if suffix in self.topics]:
            self.read(own, rack, settled)
            # It shows no record that the others miss but those of zombies, and these are in the log of every replica.
            if not rack:
                self.read(own, rack, settled, uncommitted=True)
        if COMPACT in self.topics:
            self.read((COMPACT,), rack, settled)

    def read(self, topics, rack, settled, uncommitted=False):
        """Where the machine is busy that takes as long as it takes; to stand still is not to be readable."""
        level = "read_uncommitted" if uncommitted else "read_committed"
        settings = {"auto.offset.reset": "error", "client.rack": rack, "isolation.level": level, "enable.partition.eof": True}
        one = self.consumer("auditor", **settings)
        try:
            begun, ends = time.monotonic_ns(), self.ends(one, topics)
            full = FullRead(self.topic, ends)
            full.assign(one)
            deadline = time.monotonic() + CATCH_UP_SECONDS_MAX
            while full.open:
                if time.monotonic() > deadline:
                    raise AssertionError(f"partitions {sorted(full.open)} can not be read to their ends {ends}")
                for message in one.consume(1000, 0.5):
                    self.take(message, full)
                    deadline = time.monotonic() + CATCH_UP_SECONDS_MAX
            self.say("read", begun, records=full.records, ends=sorted(ends.items()), uncommitted=uncommitted, settled=settled)
        finally:
            one.close()

    def take(self, message, full):
        """A message of a full read: a record, or that nothing more is there."""
        error, offset = message.error(), message.offset()
        number = number_of(self.topic, message.topic(), message.partition())
        if error is None:
            full.take([(number, offset, value_of(message, number))], [])
        elif error.code() == KafkaError._PARTITION_EOF:
            full.take([], [(number, offset)])
        else:
            raise AssertionError(f"partition {number} at offset {offset}: {error}")

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
