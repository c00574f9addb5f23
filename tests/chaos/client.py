"""The workload's clients, librdkafka both: idempotent producers, and a member of a consumer group that commits what it has read.

Usage, by run.py: client.py producers BOOTSTRAP TOPIC CLIENT MESSAGE_TIMEOUT_MS PARTITIONS...
                  client.py consumer BOOTSTRAP TOPIC CLIENT GROUP STRATEGY
A producer per word of PARTITIONS ("3" or "0,1,2"). Writes a journal to stdout, a JSON object a line, times in ns of the machine's
monotonic clock; `history.py` says what the lines mean. Ends when its standard input does.
May not know: faults, the verdict.
"""

import json
import os
import random
import sys
import threading
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

# A silent peer is given up after this; librdkafka's own minute would hide how fast the cluster is.
PATIENT_MS = 3000
COMMON = {
    "socket.timeout.ms": PATIENT_MS,
    "socket.connection.setup.timeout.ms": 1000,
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 500,
    "topic.metadata.refresh.interval.ms": 2000,
    "topic.metadata.refresh.fast.interval.ms": 100,
    "log_level": 2,
}
BURST_RECORDS_MAX = 40
PAUSE_SECONDS_MAX = 0.15
POLL_RECORDS_MAX = 200
CLIENTS_A_PROCESS = 64
# A number that no producer sends: the value is damaged.
DAMAGED = 1 << 52

ended = threading.Event()


def say(what, **more):
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


class Bursts(threading.Thread):
    """A producer: sends several records at once to its partitions, waits for all outcomes, then sends the next."""

    def __init__(self, bootstrap, topic, client, timeout_ms, partitions):
        super().__init__()
        self.topic, self.client, self.partitions = topic, client, partitions
        self.sent = 0
        self.fatal = None
        self.one = Producer(
            {
                **COMMON,
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 1,
                # Small batches: several of a partition are under way at a time.
                "batch.num.messages": 5,
                "message.timeout.ms": timeout_ms,
                "retry.backoff.ms": 50,
                "retry.backoff.max.ms": 500,
                "error_cb": self.error,
            }
        )

    def error(self, error):
        if error.fatal():
            self.fatal = str(error)
            say("gave up", client=self.client, why=self.fatal)

    def run(self):
        while not ended.is_set() and not self.fatal:
            self.burst(random.randrange(1, BURST_RECORDS_MAX))
            ended.wait(random.uniform(0, PAUSE_SECONDS_MAX))

    def burst(self, count):
        first = (self.client << 32) + self.sent
        self.sent += count
        records = [(random.choice(self.partitions), first + i) for i in range(count)]
        results = [(None, 0)] * count
        say("send", client=self.client, records=records)

        def answered(number):
            def callback(error, message):
                if error is None:
                    results[number] = (message.offset(), time.monotonic_ns())

            return callback

        for number, (partition, value) in enumerate(records):
            self.one.produce(self.topic, payload(value), partition=partition, on_delivery=answered(number))
        self.one.flush()
        say("sent", client=self.client, results=results)


class Member:
    """A member of a group. Where a partition that it gets begins is what the group has committed, else 0; nothing is ever reset."""

    def __init__(self, bootstrap, topic, client, group, strategy):
        self.topic, self.client = topic, client
        self.cooperative = strategy == "cooperative-sticky"
        self.owned, self.moved, self.next, self.uncommitted = set(), set(), {}, set()
        self.one = Consumer(
            {
                **COMMON,
                "bootstrap.servers": bootstrap,
                "group.id": group,
                "partition.assignment.strategy": strategy,
                "auto.offset.reset": "error",
                "enable.auto.commit": False,
                "session.timeout.ms": 6000,
                "heartbeat.interval.ms": 500,
                "fetch.wait.max.ms": 100,
            }
        )
        say("subscribe", client=client)
        self.one.subscribe([topic], on_assign=self.assigned, on_revoke=self.revoked, on_lost=self.lost)

    def assigned(self, one, given):
        if not given:
            return
        self.moved |= {tp.partition for tp in given}
        self.owned |= {tp.partition for tp in given}
        begun = time.monotonic_ns()
        while True:
            try:
                found = one.committed(given, timeout=PATIENT_MS / 1000)
            except KafkaException:
                found = []
            if found and not any(tp.error for tp in found):
                break
            if ended.wait(0.1):
                return
        offsets = [(tp.partition, None if tp.offset < 0 else tp.offset) for tp in found]
        say("fetched", client=self.client, begun=begun, offsets=offsets)
        starts = [TopicPartition(self.topic, partition, offset or 0) for partition, offset in offsets]
        if self.cooperative:
            one.incremental_assign(starts)
        else:
            one.assign(starts)

    def revoked(self, one, taken):
        self.commit({tp.partition for tp in taken})
        self.lost(one, taken)

    def lost(self, one, taken):
        for tp in taken:
            self.moved.add(tp.partition)
            self.owned.discard(tp.partition)
            self.next.pop(tp.partition, None)
            self.uncommitted.discard(tp.partition)
        if self.cooperative:
            one.incremental_unassign(taken)
        else:
            one.unassign()

    def commit(self, partitions):
        offsets = [(p, self.next[p]) for p in sorted(partitions & self.uncommitted)]
        if not offsets:
            return
        say("commit", client=self.client, offsets=offsets)
        try:
            told = self.one.commit(offsets=[TopicPartition(self.topic, p, o) for p, o in offsets], asynchronous=False)
            done = [tp.partition for tp in told if tp.error is None]
            errors = {tp.error.name() for tp in told if tp.error is not None}
        except KafkaException as failure:
            done, errors = [], {failure.args[0].name()}
        self.uncommitted -= set(done)
        say("committed", client=self.client, partitions=done, errors=sorted(errors))

    def poll(self):
        begun = time.monotonic_ns()
        records = []
        for message in self.one.consume(POLL_RECORDS_MAX, 0.2):
            error = message.error()
            partition, offset = message.partition(), message.offset()
            if error is not None:
                say("error", client=self.client, code=error.name(), why=str(error), partition=partition, offset=offset)
                continue
            records.append((partition, offset, value_of(message.value())))
            # What was read before a rebalance took its partition is not the member's to commit.
            if partition in self.owned:
                self.next[partition] = offset + 1
                self.uncommitted.add(partition)
        moved, self.moved = sorted(self.moved), set()
        if records or moved:
            say("poll", client=self.client, begun=begun, records=records, rebalanced=moved)

    def run(self):
        while not ended.is_set():
            self.poll()
            if random.random() < 0.5:
                self.commit(set(self.next))
        self.commit(set(self.next))
        self.one.close()


def end_with_input():
    sys.stdin.read()
    ended.set()


def main():
    threading.Thread(target=end_with_input, daemon=True).start()
    kind, bootstrap, topic, process, *rest = sys.argv[1:]
    # Producers of one process are clients of their own.
    client = int(process) * CLIENTS_A_PROCESS
    if kind == "consumer":
        Member(bootstrap, topic, client, *rest).run()
        return
    timeout_ms, *sets = rest
    threads = [
        Bursts(bootstrap, topic, client + number, int(timeout_ms), [int(p) for p in partitions.split(",")])
        for number, partitions in enumerate(sets)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
