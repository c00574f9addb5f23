"""What a node shows of itself by Kafka's protocol alone, which is all that is known of a node that is not Ottla's or not the runner's.

A node is back when the replicas of the run's topic and of the groups' offsets are all in sync, so that the next fault takes a minority away.
May not know: faults, clients.
"""

import socket

import wire

OFFSETS_TOPIC = "__consumer_offsets"


class WireNode:
    """Of a node with `number`, `topic` and `place`, where it listens."""

    def connect(self, address, timeout):
        return socket.create_connection(address, timeout)

    def shows(self, topics):
        """What it shows of topics; None if it does not answer."""
        try:
            return wire.metadata(self.place, topics, connect=self.connect)
        except OSError:
            return None

    def answers(self):
        return wire.answers(self.place, connect=self.connect)

    def is_ready(self):
        return self.voters() is not None

    def voters(self):
        """On how many replicas it counts; None while one of those that it shows is not in sync, or it is not in the cluster itself."""
        found = self.shows([self.topic, OFFSETS_TOPIC])
        if found is None or self.number not in found.nodes:
            return None
        parts = [part for topic in found.topics.values() for part in topic.parts.values()]
        if any(part.leader is None or set(part.in_sync) != set(part.replicas) for part in parts):
            return None
        return sum(self.number in part.replicas for part in parts)

    def knows(self):
        found = self.shows([])
        return len(found.nodes) if found else 0

    def leaders(self, topic):
        found = self.shows([topic])
        return found and {number: part.leader for number, part in sorted(found.topics[topic].parts.items())}
