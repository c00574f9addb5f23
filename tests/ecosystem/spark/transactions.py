"""A transactional producer that commits and aborts, while nodes are killed; it keeps what it has committed.

May not know: who reads.
"""

import threading

from committed import SILENT
from confluent_kafka import KafkaException, Producer

STEP_SECONDS_MAX = 60
# Of so many transactions one is aborted, after its records were sent.
ABORTED_EACH = 3


class Transactions:
    """Numbers from 1 on, a batch of them a transaction; in a thread of its own."""

    def __init__(self, bootstrap, topic, keys, batch, pause_seconds):
        self.topic, self.keys, self.batch, self.pause_seconds = topic, keys, batch, pause_seconds
        self.committed, self.aborted, self.begun_again, self.failure = [], 0, 0, None
        self.producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": "numbers", "linger.ms": 5, **SILENT})
        self.stops = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        try:
            self.patiently(self.producer.init_transactions)
            first, turn = 1, 0
            while not self.stops.wait(self.pause_seconds):
                turn += 1
                self.transact(range(first, first + self.batch), aborts=turn % ABORTED_EACH == 0)
                first += self.batch
        except Exception as failure:
            self.failure = failure

    def patiently(self, step):
        """What may be asked again is asked again."""
        while True:
            try:
                return step(STEP_SECONDS_MAX)
            except KafkaException as failure:
                if not failure.args[0].retriable():
                    raise

    def send(self, numbers, aborts):
        for number in numbers:
            word = "aborted" if aborts else "committed"
            self.producer.produce(self.topic, f"{word} {number}", f"key-{number % self.keys}")
            self.producer.poll(0)
        # An aborted record that was never sent would try nothing.
        self.producer.flush(STEP_SECONDS_MAX)

    def transact(self, numbers, aborts):
        """One transaction; if the client has to abort it although it is to be committed, it is done again."""
        while True:
            self.producer.begin_transaction()
            try:
                self.send(numbers, aborts)
                if not aborts:
                    self.patiently(self.producer.commit_transaction)
                    self.committed += numbers
                    return
            except KafkaException as failure:
                if not failure.args[0].txn_requires_abort():
                    raise
                self.begun_again += 1
            self.patiently(self.producer.abort_transaction)
            if aborts:
                self.aborted += len(numbers)
                return

    def end(self):
        self.stops.set()
        self.thread.join()
        assert self.failure is None, f"the producer: {self.failure}"
        return self.committed
