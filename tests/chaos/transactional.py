"""Clients of transactions: producers whose transactions span partitions, members of a group that consume, transform and produce, readers of either
isolation level.

Each says what it is about to do and then what it was told: `history.py` has the lines. What it does not say that it asked for was never asked
for, so a transaction without `end` can never be committed. A producer that fails for good is replaced by another one with its transactional id,
in the same process. May not know: faults, the verdict.
"""

import random
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from journal import COMMON, PATIENT_MS, ended, is_told_to_end, offsets_in, polled, record_of, say
from places import INPUT, PARTITION_FROM, number_of, place

# The coordinator aborts a transaction that is open for longer: those of clients that stand still. No record is tried for longer either.
TRANSACTION_TIMEOUT_MS = 5_000
# A call that may be made again is, for so long.
PERSISTENT_SECONDS = 40
ABORT_CHANCE = 0.2
# That it is known what became of its records before a transaction is aborted on purpose.
FLUSH_CHANCE = 0.7
WRITES_MAX, RECORDS_A_WRITE_MAX = 3, 4
PAUSE_SECONDS_MAX = 0.1
TRANSFORMED_MAX = 20
POLL_RECORDS_MAX = 200
SESSION = {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500}


def persist(call, *given):
    """Makes a call until it is done or fails for good. What may be repeated goes on where it was."""
    deadline = time.monotonic() + PERSISTENT_SECONDS
    while True:
        try:
            return call(*given, PATIENT_MS / 1000)
        except KafkaException as failure:
            if not failure.args[0].retriable() or time.monotonic() > deadline:
                raise


class Transactions:
    """A producer with a transactional id, and the next one when it fails for good."""

    def __init__(self, bootstrap, topic, client, name):
        self.bootstrap, self.topic, self.client, self.name = bootstrap, topic, client, name
        self.one, self.sent = None, 0
        # Of the transaction that is open: the outcome of each record, and whether its commit was asked for.
        self.results, self.is_asked = [], False

    def is_ready(self):
        """Whether transactions can begin. Fences earlier producers of the same transactional id, until it is done or the client is told to end."""
        while self.one is None and not is_told_to_end():
            begun = time.monotonic_ns()
            one = Producer(
                {
                    **COMMON,
                    "bootstrap.servers": self.bootstrap,
                    "transactional.id": self.name,
                    "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
                    "linger.ms": 1,
                    "batch.num.messages": 5,
                    "retry.backoff.ms": 50,
                    "retry.backoff.max.ms": 500,
                }
            )
            try:
                persist(one.init_transactions)
            except KafkaException as failure:
                say("not initialized", client=self.client, name=self.name, error=failure.args[0].name())
                continue
            say("initialized", client=self.client, name=self.name, begun=begun)
            self.one = one
        return self.one is not None and not is_told_to_end()

    def attempt(self, work, commits, **more):
        """One transaction, in which `work` is done. `more`: for the journal. Returns whether it is committed."""
        self.results, self.is_asked, told, error = [], False, None, None
        say("begin", client=self.client, name=self.name, **more)
        try:
            self.one.begin_transaction()
            work()
            if not commits and random.random() < FLUSH_CHANCE:
                self.one.flush(PATIENT_MS / 1000)
            told = self.end(commits)
        except KafkaException as failure:
            error = failure.args[0]
        # Where the outcome of a commit is open an abort decides nothing.
        if error is not None and not error.fatal() and (error.txn_requires_abort() or not self.is_asked):
            try:
                told = self.end(False)
            except KafkaException as failure:
                error = failure.args[0]
        # librdkafka (2.16) gives the sequence numbers of records that an abort takes from its queues to later ones, also if they had been sent
        # and were to be sent again: where such a record is in the log, the later one is taken for it, acknowledged and lost. The epoch of the
        # next producer is another one.
        is_unsure = any(offset is None for offset, _ in self.results)
        if told is None or (told == "aborted" and is_unsure):
            self.one = None
        say("done", client=self.client, told=told, results=self.results, error=error and error.name(), why=error and error.str())
        return told == "committed"

    def write(self, records, sources=None):
        """(partition, value) pairs; `sources`: the place of the record that each is made of."""
        first = len(self.results)
        self.results += [(None, 0)] * len(records)
        say("write", client=self.client, records=records, sources=sources)
        results = self.results

        def answered(at):
            def callback(error, message):
                if error is None:
                    results[at] = (message.offset(), time.monotonic_ns())

            return callback

        for at, (number, value) in enumerate(records, first):
            name, partition = place(self.topic, number)
            self.one.produce(name, partition=partition, on_delivery=answered(at), **record_of(number, value))

    def values(self, count):
        first = (self.client << 32) + self.sent
        self.sent += count
        return range(first, first + count)

    def commit_offsets(self, group, offsets, metadata):
        """(partition, offset) pairs of a group, with the transaction."""
        say("offsets", client=self.client, group=group, offsets=offsets)
        asked = [TopicPartition(*place(self.topic, number), offset) for number, offset in offsets]
        persist(self.one.send_offsets_to_transaction, asked, metadata)

    def end(self, commits):
        self.is_asked |= commits
        say("end", client=self.client, commit=commits)
        persist(self.one.commit_transaction if commits else self.one.abort_transaction)
        return "committed" if commits else "aborted"


class Transactor:
    """Transactions of several records to several partitions, with pauses in which they are open; one in five is aborted on purpose."""

    def __init__(self, bootstrap, topic, client, name, partitions):
        self.transactions, self.partitions = Transactions(bootstrap, topic, client, name), partitions

    def run(self):
        while self.transactions.is_ready():
            self.transactions.attempt(self.work, commits=random.random() >= ABORT_CHANCE)
            ended.wait(random.uniform(0, PAUSE_SECONDS_MAX))

    def work(self):
        for _ in range(random.randrange(1, WRITES_MAX + 1)):
            values = self.transactions.values(random.randrange(1, RECORDS_A_WRITE_MAX + 1))
            self.transactions.write([(random.choice(self.partitions), value) for value in values])
            ended.wait(random.uniform(0, PAUSE_SECONDS_MAX))


class Transform:
    """A member of a group that reads committed records, and writes one for each; these and its offsets are one transaction. Where a partition
    begins, also after a transaction that was not committed, is what the group has committed, else 0."""

    def __init__(self, bootstrap, topic, client, name, group, number, partitions):
        """`number`: the group's in the journal; `partitions`: of what it writes."""
        self.topic, self.client, self.group, self.partitions = topic, client, number, partitions
        self.transactions = Transactions(bootstrap, topic, client, name)
        # Partitions that are its own; those that a rebalance has given or taken in this poll, and those of which the journal does not know that.
        self.owned, self.moved, self.rebalanced = set(), set(), set()
        settings = {"group.id": group, "isolation.level": "read_committed", "auto.offset.reset": "error", "enable.auto.commit": False}
        settings |= {"partition.assignment.strategy": "range", "enable.partition.eof": True, "fetch.wait.max.ms": 100, **SESSION}
        self.one = Consumer({**COMMON, "bootstrap.servers": bootstrap, **settings})
        say("subscribe", client=client, group=number, transactional=True)
        self.one.subscribe([topic + INPUT], on_assign=self.assigned, on_revoke=self.taken, on_lost=self.taken)

    def numbers(self, given):
        return {number_of(self.topic, tp.topic, tp.partition) for tp in given}

    def assigned(self, one, given):
        self.owned = self.numbers(given)
        self.moved |= self.owned
        self.go_back()

    def taken(self, one, taken):
        self.moved |= self.numbers(taken)
        self.owned -= self.numbers(taken)
        one.unassign()

    def go_back(self):
        """To what the group has committed. As long as a transaction with its offsets is open the answer is that it is not stable."""
        asked = [TopicPartition(*place(self.topic, number)) for number in sorted(self.owned)]
        offsets = None
        while asked and offsets is None:
            begun = time.monotonic_ns()
            try:
                offsets = offsets_in(self.one.committed(asked, timeout=PATIENT_MS / 1000))
            except KafkaException:
                pass
            if offsets is None and ended.wait(0.1):
                return
        offsets = [(PARTITION_FROM[INPUT] + partition, offset) for partition, offset in offsets or []]
        if offsets:
            say("fetched", client=self.client, group=self.group, begun=begun, offsets=offsets)
        self.one.assign([TopicPartition(*place(self.topic, number), offset or 0) for number, offset in offsets])

    def run(self):
        while self.transactions.is_ready():
            self.step()
        self.one.close()

    def step(self):
        begun = time.monotonic_ns()
        records, reached = polled(self.one, self.client, self.topic, TRANSFORMED_MAX)
        if self.moved:
            # Records of before and after the rebalance may stand side by side: they are read again.
            self.rebalanced |= self.moved
            self.moved = set()
            self.go_back()
            return
        if records:
            rebalanced, self.rebalanced = sorted(self.rebalanced), set()
            told = {"begun": begun, "polled": records, "rebalanced": rebalanced}
            if not self.transactions.attempt(lambda: self.work(records), random.random() >= ABORT_CHANCE, **told):
                self.go_back()
                return
        if reached:
            say("reached", client=self.client, ends=reached)

    def work(self, records):
        values = self.transactions.values(len(records))
        written = [(random.choice(self.partitions), value) for value in values]
        self.transactions.write(written, sources=[(partition, offset) for partition, offset, _ in records])
        nexts = {partition: offset + 1 for partition, offset, _ in records}
        ended.wait(random.uniform(0, PAUSE_SECONDS_MAX))
        self.transactions.commit_offsets(self.group, sorted(nexts.items()), self.one.consumer_group_metadata())


class IsolatedReader:
    """Assigns itself partitions and reads them from their start, at one isolation level."""

    def __init__(self, bootstrap, topic, client, level, partitions):
        self.topic, self.client, self.is_uncommitted = topic, client, level == "read_uncommitted"
        settings = {"group.id": f"{topic}-reader-{client}", "enable.auto.commit": False, "auto.offset.reset": "error", "fetch.wait.max.ms": 100}
        self.one = Consumer({**COMMON, "bootstrap.servers": bootstrap, **settings, "isolation.level": level, "enable.partition.eof": True})
        say("assign", client=client, partitions=partitions)
        self.one.assign([TopicPartition(*place(topic, number), 0) for number in partitions])

    def run(self):
        while not ended.is_set():
            begun = time.monotonic_ns()
            records, reached = polled(self.one, self.client, self.topic, POLL_RECORDS_MAX)
            if records:
                say("poll", client=self.client, begun=begun, records=records, rebalanced=[], uncommitted=self.is_uncommitted)
            if reached:
                say("reached", client=self.client, ends=reached)
        self.one.close()
