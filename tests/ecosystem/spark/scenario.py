"""Spark Structured Streaming reads committed records only: a copy of a topic with aborted transactions, while nodes and Spark are killed.

May not know: how nodes are started, how Spark is installed (tests/stories).
"""

import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path += [str(HERE), str(HERE.parents[1] / "stories")]
import programs
from committed import Committed, create_topics
from transactions import Transactions

PARTITIONS, KEYS, BATCH, PAUSE_SECONDS = 4, 40, 40, 0.1
PROGRESS_SECONDS_MAX, DONE_SECONDS_MAX = 180, 240


class Copy:
    """The Spark program, and what it has copied."""

    def __init__(self, place):
        self.place, self.python = place, programs.install(programs.VERSION)
        self.seen, self.kills = Committed(place.bootstrap, "copied"), 0
        self.start()

    def start(self):
        words = [str(HERE / "copy_committed.py"), self.place.bootstrap, "numbers", "copied", str(self.place.directory / "checkpoint")]
        environment = programs.environment(programs.VERSION, self.place.directory, self.python)
        self.program = programs.Lines(str(self.python), *words, environment=environment, log=self.place.directory / "spark.log")

    def kill(self):
        self.place.say("Spark is killed")
        self.program.kill()
        self.kills += 1

    def count(self):
        assert self.program.process.poll() is None, f"Spark ended\n{self.program.tail()}"
        return self.seen.read()

    def goes_on(self, by):
        due = self.seen.catch_up() + by
        self.place.until(lambda: self.count() >= due, PROGRESS_SECONDS_MAX, f"{due} copies")


def copied_under_faults(place, numbers, copy):
    copy.goes_on(by=200)
    for node in range(1, (1 if place.quick else place.nodes) + 1):
        place.kill(node)
        copy.goes_on(by=200)
    # As long as Spark lives, its producers are idempotent: nothing is there twice.
    values = [value for of_key in copy.seen.values.values() for value in of_key]
    assert len(values) == len(set(values)), f"{len(values)} copies, {len(set(values))} of them different, and Spark was never killed"
    for _ in range(1 if place.quick else 2):
        copy.kill()
        place.kill(place.chance.randint(1, place.nodes))
        copy.start()
        copy.goes_on(by=200)
    wanted = {f"committed {number}" for number in numbers.end()}
    place.until(lambda: copy.count() and len(set().union(*copy.seen.values.values())) >= len(wanted), DONE_SECONDS_MAX, f"{len(wanted)} different copies")
    return wanted


def committed(place):
    create_topics(place.bootstrap, PARTITIONS, place.nodes, "numbers", "copied")
    copy = Copy(place)
    try:
        numbers = Transactions(place.bootstrap, "numbers", KEYS, BATCH, PAUSE_SECONDS)
        wanted = copied_under_faults(place, numbers, copy)
    finally:
        copy.program.kill()
    found = [value for of_key in Committed(place.bootstrap, "copied").read_to_end().values() for value in of_key]
    missing, foreign = wanted - set(found), set(found) - wanted
    assert not missing and not foreign, f"{len(missing)} records are missing: {sorted(missing)[:3]}; {len(foreign)} are too many: {sorted(foreign)[:3]}"
    again = f"{len(found) - len(wanted)} written again after {copy.kills} kills of Spark"
    return f"{len(wanted)} committed records copied, none of {numbers.aborted} aborted ones; {again}"


SCENARIOS = {"spark-committed": committed}
