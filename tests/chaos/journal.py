"""What all clients of a run have in common: the journal that they write, the records, how patient they are, and the commit of offsets.

A journal is a JSON object a line on standard output, times in ns of the machine's monotonic clock; `history.py` says what the lines mean.
May not know: faults, the verdict, what a client does.
"""

import json
import os
import select
import sys
import threading
import time

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from compacted import is_compacted, is_tombstone, key_of
from places import number_of

# A silent peer is given up after this; librdkafka's own minute would hide how fast the cluster is.
PATIENT_MS = 3000
COMMON = {
    "socket.timeout.ms": PATIENT_MS,
    "socket.connection.setup.timeout.ms": 1000,
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 500,
    "topic.metadata.refresh.interval.ms": 2000,
    "topic.metadata.refresh.fast.interval.ms": 100,
    # librdkafka 2.10 to 2.16 may stand still for ever when it gives up brokers (confluentinc/librdkafka#5476): its main thread, at a
    # failed OffsetForLeaderEpoch, and the thread of such a broker each wait for a lock that the other one holds. From 2.16 on it gives up
    # all at once when it takes all for down: when the one node stops to which it is connected. A third of the clients did in an upgrade from 0.4.0.
    "metadata.recovery.strategy": "none",
    "log_level": 2,
}
# Clients of one process have numbers of their own from the process's number times this.
CLIENTS_A_PROCESS = 64
# A number that no producer sends: the value is damaged.
DAMAGED = 1 << 52
# The header of a tombstone.
NUMBER = "number"

ended = threading.Event()


def end_with_input():
    """The client ends when its standard input does."""

    def wait():
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait, daemon=True).start()


def is_told_to_end():
    """Whether the input has ended, also where the thread that waits for it has had no time to say so: a client that stood still meanwhile."""
    return ended.is_set() or bool(select.select([sys.stdin], [], [], 0)[0])


def say(what, /, **more):
    os.write(1, (json.dumps({"do": what, "t": time.monotonic_ns(), **more}) + "\n").encode())


def payload(value):
    """The bytes of a value: its number, and what follows from it."""
    return b"%d:" % value + bytes((value + i) % 251 for i in range(value * 31 % 300))


def record_of(number, value):
    """What is produced for a value, to the partition with this number. A tombstone has no bytes, so its number is in a header."""
    record = {"value": payload(value)}
    if not is_compacted(number):
        return record
    deleted = {"value": None, "headers": [(NUMBER, b"%d" % value)]} if is_tombstone(value) else {}
    return {**record, "key": b"%d" % key_of(value), **deleted}


def value_of(message, number):
    """The number of a record that was read from a partition; one that no producer sends if a byte of it is wrong."""
    given = {"value": message.value(), "key": message.key(), "headers": message.headers()}
    present = {what: of for what, of in given.items() if of or what == "value"}
    said = dict(given["headers"] or {}).get(NUMBER) if given["value"] is None else given["value"].partition(b":")[0]
    if said and said.isdigit() and record_of(number, int(said)) == present:
        return int(said)
    return DAMAGED + message.offset()


def polled(one, client, topic, most):
    """Records as (partition, offset, value), and (partition, offset) of ends that were reached; errors go to the journal."""
    records, reached = [], []
    for message in one.consume(most, 0.2):
        error, offset = message.error(), message.offset()
        number = message.topic() and number_of(topic, message.topic(), message.partition())
        if error is None:
            records.append((number, offset, value_of(message, number)))
        elif error.code() == KafkaError._PARTITION_EOF:
            reached.append((number, offset))
        else:
            say("error", client=client, code=error.name(), why=str(error), partition=number, offset=offset)
    return records, reached


def offsets_in(answer):
    """(partition, committed offset or None) of what `committed` answered; None if any of them is not known."""
    if not answer or any(tp.error for tp in answer):
        return None
    return [(tp.partition, None if tp.offset < 0 else tp.offset) for tp in answer]


def commit(consumer, topic, client, group, offsets):
    """Commits (partition, offset) pairs. Returns the partitions whose commit was acknowledged; of the others nothing is known."""
    say("commit", client=client, group=group, offsets=offsets)
    try:
        told = consumer.commit(offsets=[TopicPartition(topic, p, o) for p, o in offsets], asynchronous=False)
        done = [tp.partition for tp in told if tp.error is None]
        errors = {tp.error.name() for tp in told if tp.error is not None}
    except KafkaException as failure:
        done, errors = [], {failure.args[0].name()}
    say("committed", client=client, group=group, partitions=done, errors=sorted(errors))
    return done
