"""Kafka Streams with exactly_once_v2: words counted and windows of event time, while Streams and the nodes are killed. What is restored
from a compacted changelog is in restored.py.

A count's topic has to read 1, 2, 3 ... for each key: a number that stands twice or is missing is a transaction that was half done. May not
know: how nodes are started.
"""

import collections
import itertools
import pathlib
import random
import sys
import time

sys.path.append(str(pathlib.Path(__file__).resolve().parent))
from committed import Committed, Writer, aborted, create_topics, differences
from resizes import Resizes
from restored import restored

PARTITIONS = 4
LINES_A_SECOND, WORDS_A_LINE, WORDS = 150, 5, 40
NUMBERS_A_SECOND, KEYS = 400, 24
# As in Windows.java; a record comes late by less than its window waits for it.
WINDOW_MS, GRACE_MS, LATE_MS_MAX = 5000, 2000, 1500
# Event time goes faster than the clock, so that many windows close in a run.
EVENT_MS_A_NUMBER, EVENT_BEGINS_MS = 20, 1_700_000_000_000
# At least as long as a transaction of ExactlyOnce.java.
KILL_SECONDS_MAX = 0.6
PROGRESS_SECONDS_MAX, DONE_SECONDS_MAX = 90, 180


class Application:
    """A process of Streams; `seen` reads a topic in which it has to go on."""

    def __init__(self, place, main, seen, *arguments):
        self.place, self.main, self.seen = place, main, seen
        self.arguments = [place.bootstrap, *arguments, str(place.directory / "state")]
        self.kills = 0
        self.start()

    def start(self):
        self.process = self.place.java("streams", self.main, *self.arguments)

    def kill(self):
        # Committed results were just seen; a kill shall find any moment of the next transaction.
        time.sleep(self.place.chance.uniform(0, KILL_SECONDS_MAX))
        self.place.say("Streams is killed")
        self.process.kill()
        self.process.wait()
        self.kills += 1

    def stop(self):
        self.process.terminate()
        code = self.process.wait(60)
        assert code in (0, 143), f"{self.main} ended with exit code {code}"

    def goes_on(self, by):
        """Waits until so many results more were committed."""
        before = self.seen.catch_up()

        def is_so():
            assert self.process.poll() is None, f"{self.main} ended with exit code {self.process.returncode}"
            return self.seen.read() >= before + by

        self.place.until(is_so, PROGRESS_SECONDS_MAX, f"{by} more results after {before}")

    def through_faults(self, by):
        """Streams and each node killed in turn, and then both at once; between two of them the results go on."""
        self.goes_on(by)
        rounds = 1 if self.place.quick else 3
        for turn in range(rounds):
            self.kill()
            self.start()
            self.goes_on(by)
            self.place.kill(1 + turn % self.place.nodes)
            self.goes_on(by)
        self.kill()
        self.place.kill(self.place.chance.randint(1, self.place.nodes))
        self.start()
        self.goes_on(by)
        return self.faults()

    def faults(self):
        return f"{self.kills} kills of Streams, {self.place.kills} of nodes"


def through_faults(application):
    return application.through_faults(by=1_000)


def through_resizes(application):
    """Of the topics that it reads and writes, of the one between, and of the one that a killed instance's state is restored from."""
    topics = ["lines", "counts", "wordcount-counts-repartition", "wordcount-counts-changelog"]

    def kill():
        application.kill()
        application.start()

    done = Resizes(application.place, topics, PARTITIONS).through(lambda: application.goes_on(by=200), kill)
    return f"{done}; {application.faults()}"


def steps(values):
    """What is not one more than the one before, from 1 on."""
    return [(expected, value) for expected, value in enumerate(map(int, values), 1) if value != expected]


def wordcount(place, meanwhile=through_faults):
    create_topics(place.bootstrap, PARTITIONS, place.nodes, "lines", "counts")
    words = [f"word-{number:02}" for number in range(WORDS)]
    # Some words are frequent, as in a text.
    weights = [1 / (1 + number) for number in range(WORDS)]
    # Of its own: the writer draws in its thread.
    chance = random.Random(place.chance.getrandbits(64))
    lines = ((None, " ".join(chance.choices(words, weights, k=WORDS_A_LINE)), 0) for _ in itertools.count())
    writer = Writer(place.bootstrap, "lines", lines, LINES_A_SECOND)
    seen = Committed(place.bootstrap, "counts")
    application = Application(place, "WordCount", seen, "lines", "counts")
    faults = meanwhile(application)
    expected = collections.Counter(word for _, line, _ in writer.end() for word in line.split())
    total = expected.total()
    place.until(lambda: seen.read() >= total, DONE_SECONDS_MAX, f"{total} counts")
    application.stop()
    found = Committed(place.bootstrap, "counts").read_to_end()
    wrong = {word: steps(values)[:3] for word, values in found.items() if steps(values)}
    assert not wrong, f"counts that do not go up by one (expected, found): {wrong}"
    assert {word: len(values) for word, values in found.items()} == dict(expected), "other words, or other counts of them, than were written"
    return f"{len(writer.sent)} lines, {total} words, each count one more than the one before; {faults}; {aborted(place.bootstrap, 'counts', total)} records aborted"


def event_time(number, late):
    return EVENT_BEGINS_MS + number * EVENT_MS_A_NUMBER - late


def window_of(key, at):
    return f"{key}@{at - at % WINDOW_MS}"


def windows(place):
    create_topics(place.bootstrap, PARTITIONS, place.nodes, "numbers", "updates", "results")
    chance = random.Random(place.chance.getrandbits(64))
    records = ((f"key-{number % KEYS:02}", str(number), event_time(number, chance.randint(0, LATE_MS_MAX))) for number in itertools.count(1))
    writer = Writer(place.bootstrap, "numbers", records, NUMBERS_A_SECOND)
    seen = Committed(place.bootstrap, "updates")
    application = Application(place, "Windows", seen, "numbers", "updates", "results")
    faults = application.through_faults(by=1_000)
    # What closes the windows of all others; one a key, so that each partition has one. Their own stay open.
    end = event_time(len(writer.sent), 0) + 100 * WINDOW_MS
    bells = {window_of(f"key-{key:02}", end): (f"key-{key:02}", "0", end) for key in range(KEYS)}
    expected = collections.defaultdict(list)
    for key, number, at in writer.end(bells.values()):
        expected[window_of(key, at)].append(int(number))
    wanted = {window: f"{len(of_one)} {sum(of_one)}" for window, of_one in expected.items()}
    closed = Committed(place.bootstrap, "results")
    place.until(lambda: closed.read() >= len(wanted) - KEYS, DONE_SECONDS_MAX, f"{len(wanted) - KEYS} windows")
    application.stop()
    updates = Committed(place.bootstrap, "updates").read_to_end()
    wrong = {window: steps(value.split()[0] for value in values)[:3] for window, values in updates.items()}
    assert not any(wrong.values()), f"counts of windows that do not go up by one: {[(window, at) for window, at in wrong.items() if at][:3]}"
    assert {window: values[-1] for window, values in updates.items()} == wanted, "the last updates are not the windows"
    found = Committed(place.bootstrap, "results").read_to_end()
    wanted_once = {window: [result] for window, result in wanted.items() if window not in bells}
    wrong = differences(found, wanted_once)
    assert not wrong, f"{len(wrong)} windows are wrong (window, found, expected): {wrong[:3]}"
    unseen = aborted(place.bootstrap, "updates", len(writer.sent))
    return f"{len(writer.sent)} records, {len(found)} windows, one result each; {faults}; {unseen} updates aborted"


SCENARIOS = {
    "streams-wordcount": wordcount,
    "streams-windows": windows,
    "streams-resizes": lambda place: wordcount(place, through_resizes),
    "streams-restored": lambda place: restored(place, lambda seen: Application(place, "Latest", seen, "texts", "told")),
}
