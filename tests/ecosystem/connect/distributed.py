"""Kafka Connect, two distributed workers that copy a file through a topic with Kafka's own connectors for files, and keep what they know in
three compacted topics, while workers and nodes are killed.

May not know: how nodes are started, how Connect distributes its tasks, how a topic is compacted.
"""

import itertools
import json
import threading
import time

from committed import Committed, create_topics
from compacted import Left, one_a_key
from compaction import compact_early, compact_often
from worker import SETTINGS, STARTED_SECONDS_MAX, Worker, Workers

TOPIC, SOURCE, SINK = "lines", "file-source", "file-sink"
CONFIGS = SETTINGS["config.storage.topic"]
INTERNAL = [CONFIGS, SETTINGS["offset.storage.topic"], SETTINGS["status.storage.topic"]]
LINES_A_SECOND = 100
UPDATES, UPDATES_QUICK = 60, 30
# Of the records that a topic has had, at most one in so many is left.
RECORDS_PER_KEPT_MIN = 3
PROGRESS_SECONDS_MAX = 120


class Lines:
    """Appends lines to a file at a steady rate, in a thread of its own. No two are the same."""

    def __init__(self, path, chance):
        self.path, self.chance, self.written = path, chance, []
        self.stops = threading.Event()
        self.thread = threading.Thread(target=self.write, daemon=True)
        self.thread.start()

    def write(self):
        with open(self.path, "a", buffering=1) as file:
            for number in itertools.count(1):
                if self.stops.is_set():
                    return
                line = f"line {number} {self.chance:x}"
                file.write(line + "\n")
                self.written.append(line)
                time.sleep(1 / LINES_A_SECOND)

    def end(self):
        self.stops.set()
        self.thread.join()
        return self.written


class Copy:
    """A file, the topic, and the file that it is copied into."""

    def __init__(self, place):
        self.place, self.updates = place, 0
        self.into = place.directory / "copied.txt"
        create_topics(place.bootstrap, 1, place.nodes, TOPIC)
        self.lines = Lines(place.directory / "lines.txt", place.chance.getrandbits(32))
        self.workers = Workers(place, *(Worker(place, number) for number in (1, 2)))
        self.sink = {"connector.class": "FileStreamSink", "topics": TOPIC, "file": self.into}
        self.workers.configure(SINK, self.sink)
        self.update()
        compact_early(place.bootstrap, *INTERNAL)

    def update(self):
        """The source gets a config that it has never had."""
        self.source = {"connector.class": "FileStreamSource", "topic": TOPIC, "file": self.lines.path, "batch.size": 1000 + self.updates}
        self.workers.configure(SOURCE, self.source)
        self.updates += 1

    def copied(self):
        return self.into.read_text().splitlines() if self.into.exists() else []

    def reaches(self, count):
        """Waits until so many lines, other ones each, are in the second file."""

        def is_so():
            for name in (SOURCE, SINK):
                self.workers.restart_failed(name)
            return len(set(self.copied())) >= count

        self.place.until(is_so, PROGRESS_SECONDS_MAX, f"{count} lines in {self.into}")

    def goes_on(self, by=200):
        self.reaches(len(self.lines.written) + by)

    def has_last_configs(self):
        """Whether workers that were both started again have them."""
        wanted = {SOURCE: self.source, SINK: self.sink}
        found = {name: self.workers.asked("GET", f"/connectors/{name}/config") for name in wanted}
        return found == {name: {"name": name, **{key: str(value) for key, value in config.items()}} for name, config in wanted.items()}

    def assert_last_config(self, found):
        """As the compacted topic has it."""
        kept = json.loads(found.by_key()[f"connector-{SOURCE}".encode()])["properties"]
        wanted = {"name": SOURCE, **{key: str(value) for key, value in self.source.items()}}
        assert kept == wanted, f"the last config in {CONFIGS} is {kept}, not {wanted}"

    def assert_exact(self):
        """Exactly-once through the source; the sink says what it has written only now and then, so that after a kill it writes again."""
        written = self.lines.written
        found = Committed(self.place.bootstrap, TOPIC).read_to_end()[None]
        wrong = [pair for pair in zip(written, found) if pair[0] != pair[1]]
        assert not wrong and len(found) == len(written), f"{len(written)} lines, {len(found)} in {TOPIC}; (expected, found): {wrong[:3]}"
        copied = self.copied()
        first = list(dict.fromkeys(copied))
        missing, other = set(written) - set(first), set(first) - set(written)
        assert not missing and not other, f"lines missing in the copy: {sorted(missing)[:3]}; lines that were never written: {sorted(other)[:3]}"
        assert first == written, "each line is in the copy, but not in order"
        return f"{len(written)} lines, each once and in order in {TOPIC}, each in order in the sink's file, {len(copied) - len(first)} of them again"


def through_faults(copy):
    """Nodes and workers killed in turn, a config changed before each; between two faults the lines go on."""
    place = copy.place
    for turn in range(1, (1 if place.quick else place.nodes) + 1):
        copy.update()
        place.kill(turn)
        copy.goes_on()
        copy.update()
        copy.workers.kill(1 + turn % 2)
        copy.goes_on()


def through_restart(copy):
    """Both workers at once, when the topic that they begin with is compacted: the configs are its last ones."""
    one_a_key(copy.place, CONFIGS)
    copy.workers.kill(1, 2)
    copy.place.until(copy.has_last_configs, STARTED_SECONDS_MAX, "workers that have the connectors' last configs")
    copy.goes_on()


def assert_same_everywhere(copy, found):
    """Each node in turn leads no more; whoever does then has kept the same."""
    for number in range(1, copy.place.nodes + 1):
        copy.place.kill(number)
        again = Left(copy.place.bootstrap, CONFIGS)
        assert again.records == found.records, f"{CONFIGS} has {again}, and had {found}"


def distributed(place):
    compact_often(place)
    copy = Copy(place)
    copy.goes_on()
    through_faults(copy)
    for _ in range(UPDATES_QUICK if place.quick else UPDATES):
        copy.update()
    through_restart(copy)
    copy.reaches(len(copy.lines.end()))
    exact = copy.assert_exact()
    copy.workers.assert_no_failures()
    kept = {topic: one_a_key(place, topic) for topic in INTERNAL}
    copy.assert_last_config(kept[CONFIGS])
    few = kept[CONFIGS].count() * RECORDS_PER_KEPT_MIN
    assert few <= copy.updates <= kept[CONFIGS].offsets, f"{copy.updates} updates of a config, but {CONFIGS} has {kept[CONFIGS]}"
    if not place.quick:
        assert_same_everywhere(copy, kept[CONFIGS])
    said = "; ".join(f"{topic} has {found}" for topic, found in kept.items())
    return f"{exact}; {copy.updates} updates of a config; {said}; {copy.workers.kills} kills of workers, {place.kills} of nodes"
