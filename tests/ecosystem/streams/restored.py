"""A state store that is restored from its compacted changelog and from nothing else: what it holds is exactly what the input says.

Streams is killed and its directory deleted, nodes are killed meanwhile; the changelog has fewer records than offsets by then. May not know:
how nodes are started, how a node compacts.
"""

import itertools
import random
import shutil

from committed import Committed, create_topics, differences
from compaction import Stored, compact_often, until_compacted
from confluent_kafka import Producer

CHANGELOG, PARTITIONS, KEYS = "latest-latest-changelog", 3, 60
# Of so many records of a key one deletes it; a key of which the last record does is not in the store.
PER_DELETE = 5
RECORDS, RECORDS_QUICK = 6_000, 2_000
ROUNDS, ROUNDS_QUICK = 4, 2
WRITTEN_SECONDS_MAX, ANSWERED_SECONDS_MAX = 60, 180
# What of a changelog is not due yet, and markers of transactions that are still there.
NOT_DUE_MAX = 120
ALL = "all"


class Texts:
    """Writes texts of keys, and knows what the output and the store have to hold."""

    def __init__(self, place):
        self.producer = Producer({"bootstrap.servers": place.bootstrap, "enable.idempotence": True, "linger.ms": 5, "log_level": 0})
        self.chance = random.Random(place.chance.getrandbits(64))
        # {key: (count, text)}, and of each key what the output reads in its order.
        self.store, self.output, self.numbers = {}, {}, itertools.count(1)
        self.errors = []

    def write(self, count):
        for _ in range(count):
            key, text = f"key-{self.chance.randrange(KEYS):02}", f"text {next(self.numbers)}"
            before = self.store.get(key, (0, ""))[0]
            if self.chance.randrange(PER_DELETE):
                self.store[key] = (before + 1, text)
                self.send(key, text, f"{before + 1} {text}")
            else:
                self.store.pop(key, None)
                self.send(key, None, f"deleted {before}")
        self.flush()

    def send(self, key, text, told):
        self.producer.produce("texts", text, key, on_delivery=lambda error, _: error and self.errors.append(str(error)))
        self.output.setdefault(key, []).append(told)
        self.producer.poll(0)

    def ask_all(self):
        """One record a partition; each store says all that it holds."""
        for partition in range(PARTITIONS):
            self.producer.produce("texts", "?", f"{ALL} of {partition}", partition=partition)
        self.flush()
        for key, (count, text) in self.store.items():
            self.output.setdefault(f"{ALL} {key}", []).append(f"{count} {text}")

    def flush(self):
        left = self.producer.flush(WRITTEN_SECONDS_MAX)
        assert not left and not self.errors, f"{left} records are not acknowledged, {len(self.errors)} failed: {self.errors[:3]}"

    def results(self):
        return sum(map(len, self.output.values()))


class Restored:
    """Rounds of writing, compaction, loss of the directory, and restoring. `application` begins stopped."""

    def __init__(self, place, application):
        self.place, self.application = place, application
        self.texts = Texts(place)
        self.compacted = "nothing"

    def answered(self):
        """Waits for every result so far."""
        seen, due = self.application.seen, self.texts.results()

        def is_so():
            assert self.application.process.poll() is None, f"Streams ended with exit code {self.application.process.returncode}"
            return seen.read() >= due

        self.place.until(is_so, ANSWERED_SECONDS_MAX, f"{due} results")
        wrong = differences({key: list(values) for key, values in seen.values.items()}, self.texts.output)
        assert not wrong, f"{len(wrong)} keys are wrong (key, found, expected): {[(key, of[-3:], to[-3:]) for key, of, to in short(wrong)]}"

    def lose(self):
        """Streams and a node are killed, and what Streams had on its disk is gone."""
        self.application.kill()
        shutil.rmtree(self.place.directory / "state")
        self.place.kill(self.place.chance.randint(1, self.place.nodes))
        self.application.start()

    def round(self):
        self.texts.write(RECORDS_QUICK if self.place.quick else RECORDS)
        self.answered()
        self.compacted = until_compacted(self.place, CHANGELOG, KEYS + NOT_DUE_MAX)
        self.judge_changelog()
        self.lose()
        # What is restored shows whole in the answer to this, and in the counts of what is written next.
        self.texts.ask_all()
        self.answered()

    def judge_changelog(self):
        """The last value of each key is what the store has to be; as a restoring Streams reads it."""
        found = {key.decode(): value.decode() for key, value in Stored(self.place.bootstrap, CHANGELOG, "read_committed").last().items()}
        wrong = differences(found, {key: f"{count} {text}" for key, (count, text) in self.texts.store.items()})
        assert not wrong, f"the changelog is wrong in {len(wrong)} keys (key, found, expected): {sorted(wrong)[:3]}"


def short(wrong):
    return [(key, found or [], expected or []) for key, found, expected in wrong[:3]]


def restored(place, application_of):
    """`application_of(seen)` begins the application whose output `seen` reads."""
    compact_often(place)
    create_topics(place.bootstrap, PARTITIONS, place.nodes, "texts", "told")
    runs = Restored(place, application_of(Committed(place.bootstrap, "told")))
    rounds = ROUNDS_QUICK if place.quick else ROUNDS
    for _ in range(rounds):
        runs.round()
    runs.texts.write(RECORDS_QUICK)
    runs.answered()
    runs.application.stop()
    found = Committed(place.bootstrap, "told").read_to_end()
    wrong = differences(dict(found), runs.texts.output)
    assert not wrong, f"{len(wrong)} keys are wrong in the end (key, found, expected): {short(wrong)}"
    told = f"{runs.texts.results()} results, exact, over {rounds} restores of a lost directory"
    return f"{told}; {runs.compacted}; {runs.application.faults()}"
