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

from confluent_kafka import KafkaException, TopicPartition

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
    """The record of a value: its number, and bytes that follow from it."""
    return b"%d:" % value + bytes((value + i) % 251 for i in range(value * 31 % 300))


def value_of(record):
    """The number of a record; one that no producer sends if a byte of it is wrong."""
    number, _, _ = record.partition(b":")
    if number.isdigit() and payload(int(number)) == record:
        return int(number)
    return DAMAGED + sum(record)


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
