"""The clients of a run, one process each, all of them librdkafka.

Usage, by workload.py: client.py producers BOOTSTRAP TOPIC CLIENT MESSAGE_TIMEOUT_MS PARTITIONS...    idempotent; one for each word, "3" or "0,1,2"
                       client.py member BOOTSTRAP TOPIC CLIENT GROUP NUMBER STRATEGY                  reads in a group and commits
                       client.py reader BOOTSTRAP TOPIC CLIENT PARTITIONS                             assigns itself partitions, reads from the start
                       client.py rereader BOOTSTRAP TOPIC CLIENT PARTITIONS                           reads everything, again and again (`full_reads.py`)
                       client.py keepers BOOTSTRAP TOPIC CLIENT PARTITIONS GROUP,NUMBER...            commit and fetch offsets (`keeper.py`)
                       client.py admin BOOTSTRAP TOPIC CLIENT FACTORS                                 changes topics (`topic_admin.py`)
                       client.py transact BOOTSTRAP TOPIC CLIENT NAME PARTITIONS                      transactions (`transactional.py`)
                       client.py transform BOOTSTRAP TOPIC CLIENT NAME GROUP NUMBER PARTITIONS        consumes, transforms and produces
                       client.py isolated BOOTSTRAP TOPIC CLIENT LEVEL PARTITIONS                     reads at an isolation level
Ends when its standard input does. May not know: faults, the verdict.
"""

import random
import sys
import threading
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from full_reads import Rereader
from journal import CLIENTS_A_PROCESS, COMMON, PATIENT_MS, commit, end_with_input, ended, offsets_in, polled, record_of, say
from keeper import Keeper
from places import place
from topic_admin import TopicAdmin
from transactional import IsolatedReader, Transactor, Transform

BURST_RECORDS_MAX, BATCH_RECORDS_MAX, BURST_PARTITIONS_MAX = 40, 16, 2
PAUSE_SECONDS_MAX = 0.15
POLL_RECORDS_MAX = 200


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
                # Small batches: several of a partition are under way at a time. No more than five of a burst, however: librdkafka polls without
                # a pause while another one is ready (150,000 times a second for each broker that does not answer, which took most of the machine).
                "batch.num.messages": BATCH_RECORDS_MAX,
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
        chosen = random.sample(self.partitions, min(len(self.partitions), BURST_PARTITIONS_MAX))
        records = [(random.choice(chosen), first + i) for i in range(count)]
        results = [(None, 0)] * count
        say("send", client=self.client, records=records)

        def answered(number):
            def callback(error, message):
                if error is None:
                    results[number] = (message.offset(), time.monotonic_ns())

            return callback

        for number, (partition, value) in enumerate(records):
            name, index = place(self.topic, partition)
            self.one.produce(name, partition=index, on_delivery=answered(number), **record_of(partition, value))
        self.one.flush()
        say("sent", client=self.client, results=results)


class Reader:
    """A consumer without a group's help: it assigns itself its partitions and reads them from their start. Nothing is reset or committed."""

    def __init__(self, bootstrap, topic, client, partitions):
        self.topic, self.client = topic, client
        settings = {"group.id": f"{topic}-reader-{client}", "enable.auto.commit": False, "auto.offset.reset": "error", "fetch.wait.max.ms": 100}
        self.one = Consumer({**COMMON, "bootstrap.servers": bootstrap, **settings})
        say("assign", client=client, partitions=partitions)
        self.one.assign([TopicPartition(topic, partition, 0) for partition in partitions])

    def run(self):
        while not ended.is_set():
            begun = time.monotonic_ns()
            records, _ = polled(self.one, self.client, self.topic, POLL_RECORDS_MAX)
            if records:
                say("poll", client=self.client, begun=begun, records=records, rebalanced=[])
        self.one.close()


class Member:
    """A member of a group. Where a partition that it gets begins is what the group has committed, else 0; nothing is ever reset."""

    def __init__(self, bootstrap, topic, client, group, number, strategy):
        self.topic, self.client, self.group = topic, client, number
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
        say("subscribe", client=client, group=number)
        self.one.subscribe([topic], on_assign=self.assigned, on_revoke=self.revoked, on_lost=self.lost)

    def assigned(self, one, given):
        if not given:
            return
        self.moved |= {tp.partition for tp in given}
        self.owned |= {tp.partition for tp in given}
        begun = time.monotonic_ns()
        while True:
            try:
                offsets = offsets_in(one.committed(given, timeout=PATIENT_MS / 1000))
            except KafkaException:
                offsets = None
            if offsets is not None:
                break
            if ended.wait(0.1):
                return
        say("fetched", client=self.client, group=self.group, begun=begun, offsets=offsets)
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
        if offsets:
            self.uncommitted -= set(commit(self.one, self.topic, self.client, self.group, offsets))

    def poll(self):
        begun = time.monotonic_ns()
        records, _ = polled(self.one, self.client, self.topic, POLL_RECORDS_MAX)
        # What was read before a rebalance took its partition is not the member's to commit.
        for partition, offset, _ in records:
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


def numbers(words):
    return [int(word) for word in words.split(",")]


def main():
    end_with_input()
    kind, bootstrap, topic, process, *rest = sys.argv[1:]
    client = int(process) * CLIENTS_A_PROCESS
    match kind:
        case "member":
            Member(bootstrap, topic, client, rest[0], int(rest[1]), rest[2]).run()
            return
        case "reader":
            Reader(bootstrap, topic, client, numbers(rest[0])).run()
            return
        case "rereader":
            Rereader(bootstrap, topic, client, numbers(rest[0])).run()
            return
        case "admin":
            TopicAdmin(bootstrap, topic, client, numbers(rest[0])).run()
            return
        case "transact":
            Transactor(bootstrap, topic, client, rest[0], numbers(rest[1])).run()
            return
        case "transform":
            Transform(bootstrap, topic, client, *rest[:2], int(rest[2]), numbers(rest[3])).run()
            return
        case "isolated":
            IsolatedReader(bootstrap, topic, client, rest[0], numbers(rest[1])).run()
            return
        case "producers":
            threads = [Bursts(bootstrap, topic, client + n, int(rest[0]), numbers(own)) for n, own in enumerate(rest[1:])]
        case "keepers":
            groups = [word.rsplit(",", 1) for word in rest[1:]]
            threads = [Keeper(bootstrap, topic, client + n, group, int(number), numbers(rest[0])) for n, (group, number) in enumerate(groups)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
