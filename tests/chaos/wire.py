"""Questions to one node, over a socket of their own: what it knows of the cluster, of topics and of their settings.

Real clients ask whichever node they like; to know what each node shows it has to be asked itself. Four requests of Kafka's protocol are
enough: ApiVersions (0), Metadata (12), DescribeConfigs (4), OffsetForLeaderEpoch (4); Apache Kafka has them since 3.1. No encryption, no authentication.
May not know: faults, the verdict, which system answers.
"""

import dataclasses
import socket
import struct

METADATA, API_VERSIONS, DESCRIBE_CONFIGS, OFFSET_FOR_LEADER_EPOCH = (3, 12), (18, 0), (32, 4), (23, 4)
ALTER_REPLICA_LOG_DIRS = (34, 2)
NONE, UNKNOWN_TOPIC_OR_PARTITION = 0, 3
TOPIC_RESOURCE = 2
ANSWER_BYTES_MAX = 64 << 20
ID_BYTES = 16


class Reply:
    """The bytes of an answer, read from front to back."""

    def __init__(self, content):
        self.content, self.at = content, 0

    def take(self, count):
        self.at += count
        return self.content[self.at - count : self.at]

    def number(self, form):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def int8(self):
        return self.number(">b")

    def int16(self):
        return self.number(">h")

    def int32(self):
        return self.number(">i")

    def int64(self):
        return self.number(">q")

    def varint(self):
        value, shift = 0, 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def text(self):
        """Compact and nullable."""
        length = self.varint()
        return self.take(length - 1).decode() if length else None

    def array(self, element):
        return [element() for _ in range(self.varint() - 1)]

    def tags(self):
        for _ in range(self.varint()):
            self.varint()
            self.take(self.varint())


def varint(value):
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def text(words):
    encoded = words.encode()
    return varint(len(encoded) + 1) + encoded


def array(elements):
    return varint(len(elements) + 1) + b"".join(elements)


def ask(address, api, body, timeout, connect=socket.create_connection):
    """One request on a connection of its own. Raises OSError where no whole answer comes."""
    key, version = api
    header = struct.pack(">hhih", key, version, 1, 5) + b"chaos" + (b"" if api == API_VERSIONS else b"\0")
    with connect(address, timeout) as stream:
        stream.settimeout(timeout)
        stream.sendall(struct.pack(">i", len(header) + len(body)) + header + body)
        size = struct.unpack(">i", exactly(stream, 4))[0]
        if not 4 < size <= ANSWER_BYTES_MAX:
            raise OSError(f"{address} announces an answer of {size} bytes")
        reply = Reply(exactly(stream, size))
    reply.int32()
    if api != API_VERSIONS:
        reply.tags()
    return reply


def exactly(stream, count):
    content = bytearray()
    while len(content) < count:
        if not (more := stream.recv(count - len(content))):
            raise OSError("the connection ended before the answer did")
        content += more
    return bytes(content)


@dataclasses.dataclass
class Part:
    error: int
    leader: int | None
    replicas: list
    in_sync: list


@dataclasses.dataclass
class Topic:
    error: int
    id: str
    parts: dict


@dataclasses.dataclass
class Shown:
    """What one node says of the cluster; `nodes` by number: (host, port), `racks` by number."""

    nodes: dict
    racks: dict
    topics: dict


def metadata(address, topics=None, timeout=2, connect=socket.create_connection):
    """What the node at an address shows of these topics, or of all. Nothing is created by asking."""
    named = lambda name: bytes(ID_BYTES) + text(name) + b"\0"
    body = (b"\0" if topics is None else array([named(name) for name in topics])) + b"\0\0\0"
    reply = ask(address, METADATA, body, timeout, connect)
    reply.int32()
    nodes = reply.array(lambda: node(reply))
    reply.text()
    reply.int32()
    topics_shown = dict(reply.array(lambda: topic(reply)))
    return Shown({number: place for number, place, _ in nodes}, {number: rack for number, _, rack in nodes}, topics_shown)


def first_answer(bootstrap, topics=()):
    """What the first node that answers shows of the cluster, and of these topics. Raises OSError where none does."""
    reasons = []
    for address in bootstrap.split(","):
        host, _, port = address.rpartition(":")
        try:
            return metadata((host, int(port)), topics)
        except (OSError, ValueError) as reason:
            reasons.append(f"{address}: {reason}")
    raise OSError(f"no node answers: {'; '.join(reasons)}")


def node(reply):
    number, host, port, rack = reply.int32(), reply.text(), reply.int32(), reply.text()
    reply.tags()
    return number, (host, port), rack


def topic(reply):
    error, name, identity = reply.int16(), reply.text(), reply.take(ID_BYTES).hex()
    reply.int8()
    parts = dict(reply.array(lambda: part(reply)))
    reply.int32()
    reply.tags()
    return name, Topic(error, identity, parts)


def part(reply):
    error, number, leader = reply.int16(), reply.int32(), reply.int32()
    reply.int32()
    replicas, in_sync, _ = (reply.array(reply.int32) for _ in range(3))
    reply.tags()
    return number, Part(error, leader if leader >= 0 else None, replicas, in_sync)


def epoch_end(address, topic, partition, epoch, timeout=2, connect=socket.create_connection):
    """The last leader epoch up to this one that a partition has, and the offset where it ends, as its leader says. Raises OSError for an error."""
    asked = struct.pack(">iii", partition, -1, epoch) + b"\0"
    body = struct.pack(">i", -1) + array([text(topic) + array([asked]) + b"\0"]) + b"\0"
    reply = ask(address, OFFSET_FOR_LEADER_EPOCH, body, timeout, connect)
    reply.int32()
    ends = reply.array(lambda: (reply.text(), reply.array(lambda: partition_end(reply)), reply.tags()))
    error, found, end = ends[0][1][0]
    if error != NONE:
        raise OSError(f"{address} answers OffsetForLeaderEpoch with error {error}")
    return found, end


def partition_end(reply):
    error, _, epoch, end = reply.int16(), reply.int32(), reply.int32(), reply.int64()
    reply.tags()
    return error, epoch, end


def move_to_directory(address, path, partitions, timeout=2, connect=socket.create_connection):
    """Asks a node to move partitions, by topic, to one of its data directories. Whether it does is seen in where they are."""
    number = lambda index: struct.pack(">i", index)
    topics = [text(name) + array([number(index) for index in indexes]) + b"\0" for name, indexes in partitions.items()]
    ask(address, ALTER_REPLICA_LOG_DIRS, array([text(path) + array(topics) + b"\0"]) + b"\0", timeout, connect)


def settings(address, topics, name, timeout=2, connect=socket.create_connection):
    """One setting of each topic, as the node at an address shows it; topics that it does not know are left out."""
    asked = [bytes([TOPIC_RESOURCE]) + text(one) + array([text(name)]) + b"\0" for one in topics]
    reply = ask(address, DESCRIBE_CONFIGS, array(asked) + b"\0\0\0", timeout, connect)
    reply.int32()
    return {one: value for one, error, value in reply.array(lambda: resource(reply, name)) if error == NONE}


def resource(reply, name):
    error, _, _, topic_name = reply.int16(), reply.text(), reply.int8(), reply.text()
    values = dict(reply.array(lambda: setting(reply)))
    reply.tags()
    return topic_name, error, values.get(name)


def setting(reply):
    name, value = reply.text(), reply.text()
    reply.take(3)
    reply.array(lambda: (reply.text(), reply.text(), reply.int8(), reply.tags()))
    reply.int8()
    reply.text()
    reply.tags()
    return name, value


def answers(address, timeout=1, connect=socket.create_connection):
    """Whether the process there answers at all. A connection alone says nothing: the kernel takes it for a process that stands still."""
    try:
        return ask(address, API_VERSIONS, b"", timeout, connect).int16() == NONE
    except OSError:
        return False
