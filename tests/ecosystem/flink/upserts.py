"""Flink SQL that upserts into a compacted topic, and another job that reads it as a changelog, while TaskManagers and nodes are killed.

A reader that begins once the topic is compacted has to come to the same sums as one that saw every change. May not know: how nodes and
processes of Flink are started, how a node compacts.
"""

import itertools
import json
import pathlib
import random
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE))
from cluster import Flink
from committed import Writer, create_topics, differences
from compaction import SOON, Stored, compact_often, until_compacted

PARTITIONS, REGIONS, KEYS, NUMBERS_A_SECOND = 3, 4, 40, 300
PROGRESS_SECONDS_MAX, DONE_SECONDS_MAX = 150, 180
# As in totals.sql.
DELETED_BY = 7
# What is not due yet, and markers of transactions.
NOT_DUE_MAX = 60


def region(key):
    """As in regions.sql."""
    return key[:6]


class Numbers:
    """What is written: numbers of keys, and what the topics have to say in the end."""

    def __init__(self, place):
        self.chance = random.Random(place.chance.getrandbits(64))
        self.writer = Writer(place.bootstrap, "numbers", self.records(), NUMBERS_A_SECOND)

    def records(self):
        for number in itertools.count(1):
            key = f"zone-{number % REGIONS}/key-{self.chance.randrange(KEYS):02}"
            yield key, json.dumps({"who": key, "amount": self.chance.randint(1, 100)}), 0

    def end(self):
        """{key: value} of both topics."""
        totals, regions = {}, {}
        for key, value, _ in self.writer.end():
            count, total = totals.get(key, (0, 0))
            totals[key] = (count + 1, total + json.loads(value)["amount"])
        kept = {key: {"numbers": count, "total": total} for key, (count, total) in totals.items() if total % DELETED_BY}
        for key, of_key in kept.items():
            so_far = regions.setdefault(region(key), {"members": 0, "numbers": 0, "total": 0})
            so_far["members"] += 1
            so_far["numbers"] += of_key["numbers"]
            so_far["total"] += of_key["total"]
        return kept, regions


class Jobs:
    def __init__(self, place):
        self.place = place
        create_topics(place.bootstrap, PARTITIONS, place.nodes, "numbers")
        create_topics(place.bootstrap, PARTITIONS, place.nodes, "totals", "regions", "again", **SOON)
        # A job for each of the two TaskManagers.
        self.flink = Flink(place, "flink/sql", parallelism=1)
        self.numbers = Numbers(place)
        self.jobs = [self.begin("totals.sql", "totals"), self.begin("regions.sql", "regions")]

    def begin(self, name, output):
        statements = self.place.directory / f"{output}.sql"
        words = (HERE / "sql" / name).read_text().replace("$bootstrap", self.place.bootstrap).replace("$output", output)
        statements.write_text(words)
        return self.flink.submit("SqlJob", statements)

    def table(self, topic):
        """What a topic says by now."""
        last = Stored(self.place.bootstrap, topic, "read_committed").last()
        return {key.decode(): json.loads(value) for key, value in last.items()}

    def counted(self):
        for job in self.jobs:
            job.assert_alive()
        return sum(one["numbers"] for one in self.table("regions").values())

    def go_on(self, by):
        """Waits until so many numbers more have come through both jobs."""
        before = self.counted()
        self.place.until(lambda: self.counted() >= before + by, PROGRESS_SECONDS_MAX, f"{by} more numbers in regions after {before}")

    def through_faults(self, by):
        self.go_on(by)
        for turn in range(1 if self.place.quick else self.place.nodes):
            self.flink.kill_task_manager()
            self.go_on(by)
            self.place.until(self.jobs[0].checkpoint_is_under_way, PROGRESS_SECONDS_MAX, "a checkpoint that is under way")
            self.place.kill(1 + turn % self.place.nodes)
            self.go_on(by)

    def settle(self, topic, wanted):
        """Waits until the topic says what is wanted; there may be no later result."""
        found = {}

        def is_so():
            found.clear()
            found.update(self.table(topic))
            return found == wanted

        try:
            self.place.until(is_so, DONE_SECONDS_MAX, f"{topic} says what was written")
        except AssertionError as failure:
            wrong = differences(found, wanted)
            raise AssertionError(f"{failure}; {len(wrong)} of {len(wanted)} are wrong (key, found, expected): {sorted(wrong)[:3]}") from failure


def upserts(place):
    compact_often(place)
    jobs = Jobs(place)
    jobs.through_faults(by=1_000)
    totals, regions = jobs.numbers.end()
    jobs.settle("totals", totals)
    jobs.settle("regions", regions)
    for job in jobs.jobs:
        job.cancel()
    compacted = until_compacted(place, "totals", len(totals) + NOT_DUE_MAX)
    place.kill(place.chance.randint(1, place.nodes))
    # Begins with the compacted topic and nothing else.
    again = jobs.begin("regions.sql", "again")
    jobs.settle("again", regions)
    again.cancel()
    faults = f"{jobs.flink.kills} kills of Flink, {place.kills} of nodes"
    return f"{len(jobs.numbers.writer.sent)} numbers, {len(totals)} totals and {len(regions)} regions, exact; {compacted}; {faults}"
