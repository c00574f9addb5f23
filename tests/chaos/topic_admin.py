"""An administrator: makes topics, alters a setting, adds partitions, deletes them and makes them again, and asks nodes what they show.

A name belongs to one administrator, which does one thing after the other with it. Where an outcome is unknown, or may have been asked for
twice, it never touches that name again: what is under way may still happen, and then it can be told from what was done before.
May not know: faults, the verdict.
"""

import random
import time

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic

import wire
from journal import COMMON, ended, say

STEPS_MAX = 6
PAUSE_SECONDS_MAX = 0.3
OPERATION_SECONDS_MAX, REQUEST_SECONDS_MAX, ANSWER_SECONDS_MAX = 2.5, 5, 20
# A client that waits longer for an answer may have asked again meanwhile.
REPEATED_SECONDS = 2.5
NAMES_DESCRIBED = 6
# The setting that is altered. Values are far above a run's length, and no topic of a client has one twice.
SETTING, LEAST = "retention.ms", 7 * 86_400_000


class TopicAdmin:
    def __init__(self, bootstrap, topic, client, factors):
        """`factors`: how many replicas a topic may get, one of these."""
        self.prefix, self.client, self.bootstrap, self.factors = f"{topic}-topics-{client}", client, bootstrap, factors
        self.one = AdminClient({**COMMON, "bootstrap.servers": bootstrap})
        self.names, self.values, self.nodes = [], LEAST, {}

    def run(self):
        while not ended.is_set():
            self.find_nodes()
            self.names.append(f"{self.prefix}-{len(self.names)}")
            if not self.life(self.names[-1]):
                ended.wait(random.uniform(0, PAUSE_SECONDS_MAX))

    def find_nodes(self):
        """Those that the cluster shows; those that it showed before may be away for a while."""
        host, port = random.choice(self.bootstrap.split(",")).rsplit(":", 1)
        try:
            self.nodes |= wire.metadata((host, int(port)), []).nodes
        except OSError:
            return

    def life(self, name):
        """What becomes of a topic, until it is left as it is. False as soon as an outcome is unknown."""
        partitions = random.randrange(1, 4)
        if not self.create(name, partitions):
            return False
        for _ in range(random.randrange(STEPS_MAX)):
            if ended.is_set():
                return True
            match random.choice(("alter", "grow", "delete")):
                case "alter":
                    done = self.alter(name)
                case "grow":
                    partitions += random.randrange(1, 3)
                    grown = lambda: self.one.create_partitions([NewPartitions(name, partitions)], **self.limits())
                    done = self.change(name, grown, "grow", partitions=partitions)
                case "delete":
                    partitions = random.randrange(1, 4)
                    done = self.change(name, lambda: self.one.delete_topics([name], **self.limits()), "delete") and self.create(name, partitions)
            if not done:
                return False
            ended.wait(random.uniform(0, PAUSE_SECONDS_MAX))
        # Of some that are left nothing more is seen, and of some the end.
        return random.random() < 0.5 or self.change(name, lambda: self.one.delete_topics([name], **self.limits()), "delete")

    def limits(self):
        return {"operation_timeout": OPERATION_SECONDS_MAX, "request_timeout": REQUEST_SECONDS_MAX}

    def value(self):
        self.values += 1
        return self.values

    def create(self, name, partitions):
        value, factor = self.value(), random.choice(self.factors)
        made = NewTopic(name, partitions, factor, config={SETTING: str(value)})
        return self.change(name, lambda: self.one.create_topics([made], **self.limits()), "create", partitions=partitions, value=value)

    def alter(self, name):
        value = self.value()
        entry = ConfigEntry(SETTING, str(value), incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=[entry])
        alter = lambda: self.one.incremental_alter_configs([resource], request_timeout=REQUEST_SECONDS_MAX)
        return self.change(name, alter, "alter", value=value)

    def change(self, name, begin, what, **more):
        """Whether it was done, and surely only once."""
        say("change", client=self.client, topic=name, what=what, **more)
        began, error = time.monotonic(), None
        try:
            for answer in begin().values():
                answer.result(ANSWER_SECONDS_MAX)
        except KafkaException as failure:
            error = failure.args[0].name()
        except TimeoutError:
            error = "no answer"
        say("changed", client=self.client, topic=name, error=error)
        self.describe()
        return error is None and time.monotonic() - began < REPEATED_SECONDS

    def describe(self):
        """The latest topics as one node shows them, or as a client is told."""
        names, begun = self.names[-NAMES_DESCRIBED:], time.monotonic_ns()
        if random.random() < 0.3:
            if topics := self.told(names):
                say("described", client=self.client, begun=begun, node=None, topics=topics)
        elif self.nodes:
            number = random.choice(sorted(self.nodes))
            try:
                topics = shown(self.nodes[number], names)
            except OSError:
                return
            say("described", client=self.client, begun=begun, node=number, topics=topics)

    def told(self, names):
        """By way of the client library, which asks a node of its choice."""
        found = []
        for name, answer in self.one.describe_topics(TopicCollection(names), request_timeout=REQUEST_SECONDS_MAX).items():
            try:
                one = answer.result(ANSWER_SECONDS_MAX)
            except KafkaException as failure:
                if failure.args[0].name() == "UNKNOWN_TOPIC_OR_PART":
                    found.append([name, None, None, None])
            except TimeoutError:
                continue
            else:
                halves = (one.topic_id.get_most_significant_bits(), one.topic_id.get_least_significant_bits())
                identity = "".join(f"{half & (1 << 64) - 1:016x}" for half in halves)
                found.append([name, identity, len(one.partitions), None])
        return found


def shown(address, names, timeout=2):
    """[name, id, partitions, value of the setting] of each topic as the node at an address shows it; without an id: it knows none."""
    topics = wire.metadata(address, names, timeout).topics
    known = [name for name in names if name in topics and topics[name].error != wire.UNKNOWN_TOPIC_OR_PARTITION]
    values = wire.settings(address, known, SETTING, timeout) if known else {}
    value = lambda name: int(values[name]) if values.get(name) else None
    there = [[name, topics[name].id, len(topics[name].parts), value(name)] for name in known if topics[name].error == wire.NONE]
    return there + [[name, None, None, None] for name in names if name not in known]
