"""Groups that commit with today's client, plainly in threads of their own and in transactions, and what each of them committed last.

May not know: what reads the commits, that nodes are killed.
"""

import threading
import time

from committed import SILENT
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

ASK_SECONDS, TRANSACTION_MS = 30, 60_000
# Of so many transactions one is aborted; its offsets are ones that no group commits.
PER_ABORT, ABORTED_OFFSET = 3, 1_000_000_000
# A client that is refused asks again after that.
PAUSE_SECONDS = 0.1


class Group:
    """Has no members, as that of a program that chooses its partitions itself. Each commit is one more in each partition."""

    def __init__(self, bootstrap, name, partitions):
        self.bootstrap, self.name, self.partitions = bootstrap, name, partitions
        # How often it has committed.
        self.count = 0
        self.consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": name, "enable.auto.commit": False, **SILENT})

    def offsets(self, count):
        return [TopicPartition(topic, partition, count + partition) for topic, partition in self.partitions]

    def end(self):
        """{(group, topic, partition): offset} of the last commit."""
        self.consumer.close()
        return {(self.name, one.topic, one.partition): one.offset for one in self.offsets(self.count)}


class Steady(Group):
    """Commits until its end."""

    def __init__(self, *given):
        super().__init__(*given)
        self.failure, self.refused, self.ends = None, [], threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.ends.is_set() and not self.failure:
            try:
                self.consumer.commit(offsets=self.offsets(self.count + 1), asynchronous=False)
                self.count += 1
            except KafkaException as failure:
                self.refused.append(str(failure))
                self.failure = failure if failure.args[0].fatal() else None
                # The same once more: a commit says where a group is, not how far it went.
                time.sleep(PAUSE_SECONDS)

    def end(self):
        self.ends.set()
        self.thread.join()
        assert not self.failure, f"{self.name}: {self.failure}"
        return super().end()


class InTransactions(Group):
    """Commits some times when it is told to, with a producer of its own each time: librdkafka's (2.16) waits for ever in
    send_offsets_to_transaction if the coordinator was restarted meanwhile, whatever time it is given."""

    aborted = 0

    def go_on(self, by):
        own = {"transactional.id": self.name, "transaction.timeout.ms": TRANSACTION_MS}
        producer = Producer({"bootstrap.servers": self.bootstrap, **own, **SILENT})
        producer.init_transactions(ASK_SECONDS)
        metadata = self.consumer.consumer_group_metadata()
        for number in range(by):
            is_aborted = number % PER_ABORT == 0
            producer.begin_transaction()
            producer.send_offsets_to_transaction(self.offsets(ABORTED_OFFSET if is_aborted else self.count + 1), metadata, ASK_SECONDS)
            if is_aborted:
                producer.abort_transaction(ASK_SECONDS)
                self.aborted += 1
            else:
                producer.commit_transaction(ASK_SECONDS)
                self.count += 1
