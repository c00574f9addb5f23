"""Flink jobs that write exactly once, while TaskManagers, all of Flink, and nodes are killed: one result for each window, the right one.

A result that stands twice or is missing is a transaction that was committed for no checkpoint, or not for one. May not know: how nodes
and processes of Flink are started.
"""

import collections
import itertools
import pathlib
import random
import re
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE))
from cluster import Flink
from committed import Committed, Writer, aborted, create_topics, differences
from kit import kit
from resizes import Resizes
from upserts import upserts

PARTITIONS, KEYS, NUMBERS_A_SECOND = 4, 24, 300
# As in Windows.java; a record comes late by less than a window waits for it.
WINDOW_MS, LATE_MS_MAX = 5000, 1500
# Event time goes faster than the clock, so that many windows close in a run.
EVENT_MS_A_NUMBER, EVENT_BEGINS_MS = 25, 1_700_000_000_000
PROGRESS_SECONDS_MAX, DONE_SECONDS_MAX = 120, 180


def event_time(number, late):
    return EVENT_BEGINS_MS + number * EVENT_MS_A_NUMBER - late


class Plain:
    """As Windows.java reads and writes them."""

    record = "{key} {number}"

    @staticmethod
    def window(key, begins_ms):
        return f"{key}@{begins_ms}"


class Json:
    """As windows.sql does."""

    record = '{{"who": "{key}", "amount": {number}}}'

    @staticmethod
    def window(key, begins_ms):
        return f"{key}@{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(begins_ms // 1000))}"


class Numbers:
    """What is written: numbers of keys, and what each window has to hold."""

    def __init__(self, place, form):
        self.form, self.chance = form, random.Random(place.chance.getrandbits(64))
        self.names = [f"key-{key:02}" for key in range(KEYS)]
        self.writer = Writer(place.bootstrap, "numbers", self.records(), NUMBERS_A_SECOND)

    def records(self):
        for number in itertools.count(1):
            key = self.names[number % KEYS]
            yield key, self.form.record.format(key=key, number=number), event_time(number, self.chance.randint(0, LATE_MS_MAX))

    def end(self):
        """Count and sum of each window that closes. The last records close them; one a key, so that each partition has one."""
        end = event_time(len(self.writer.sent), 0) + 100 * WINDOW_MS
        last = [(key, self.form.record.format(key=key, number=0), end) for key in self.names]
        numbers = collections.defaultdict(list)
        for key, value, at in self.writer.end(last)[: -len(last)]:
            numbers[self.form.window(key, at - at % WINDOW_MS)].append(int(re.findall(r"\d+", value)[-1]))
        return {window: f"{len(of_one)} {sum(of_one)}" for window, of_one in numbers.items()}


class Run:
    """A job between two topics, and faults under which its results have to go on."""

    def __init__(self, place, form, folder, main, *arguments):
        self.place, self.main, self.arguments = place, main, arguments
        create_topics(place.bootstrap, PARTITIONS, place.nodes, "numbers", "results")
        self.flink = Flink(place, folder)
        self.numbers = Numbers(place, form)
        self.job = self.flink.submit(self.main, *self.arguments)
        self.seen = Committed(place.bootstrap, "results")

    def goes_on(self, by):
        """Waits until so many results more were committed."""
        before = self.seen.count

        def is_so():
            self.job.assert_alive()
            return self.seen.read() >= before + by

        self.place.until(is_so, PROGRESS_SECONDS_MAX, f"{by} more results after {before}")

    def kill_node_at_checkpoint(self, number):
        """Kills a node as soon as a checkpoint is seen under way: its sink has flushed, or commits, what belongs to it."""
        self.place.until(self.job.checkpoint_is_under_way, PROGRESS_SECONDS_MAX, "a checkpoint that is under way")
        self.place.kill(number)

    def resume(self):
        """All of Flink is killed, a node with it, and the job goes on where its last checkpoint left it: what that holds is committed
        once more, whether it was before or not."""
        self.flink.kill_all()
        checkpoint = self.flink.last_checkpoint(self.job)
        self.place.kill(self.place.chance.randint(1, self.place.nodes))
        self.flink.start()
        self.job = self.flink.submit(self.main, *self.arguments, checkpoint=checkpoint)

    def through_faults(self, by):
        self.goes_on(by)
        for turn in range(1 if self.place.quick else self.place.nodes):
            self.flink.kill_task_manager()
            self.goes_on(by)
            self.kill_node_at_checkpoint(1 + turn % self.place.nodes)
            self.goes_on(by)
        self.flink.kill_task_manager()
        self.kill_node_at_checkpoint(self.place.chance.randint(1, self.place.nodes))
        self.goes_on(by)
        if not self.place.quick:
            for number in range(1, self.place.nodes + 1):
                self.place.restart(number)
            self.goes_on(by)
        self.resume()
        self.goes_on(by)

    def through_resizes(self, by):
        resizes = Resizes(self.place, ["numbers", "results"], PARTITIONS)
        return resizes.through(lambda: self.goes_on(by), self.flink.kill_task_manager)

    def check(self):
        """Ends the job once all is written; says what was found."""
        wanted = self.numbers.end()
        self.place.until(lambda: self.seen.read() >= len(wanted), DONE_SECONDS_MAX, f"{len(wanted)} results; there are fewer")
        counts = self.job.checkpoint_counts()
        self.job.cancel()
        found = Committed(self.place.bootstrap, "results").read_to_end()
        wrong = differences(found, {window: [result] for window, result in wanted.items()})
        assert not wrong, f"{len(wrong)} of {len(wanted)} windows are wrong (window, found, expected): {sorted(wrong, key=str)[:5]}"
        unseen = aborted(self.place.bootstrap, "results", len(wanted))
        faults = f"{self.flink.kills} kills of Flink, {self.place.kills} of nodes, {self.place.restarts} restarts of nodes"
        written = f"{len(self.numbers.writer.sent)} numbers, {len(wanted)} windows, one result each"
        return f"{written}; {faults}; {counts.get('completed')} checkpoints after the last; {unseen} results aborted"


def checked(run):
    run.through_faults(by=200)
    return run.check()


def windows(naming):
    """`naming`: how the sink calls its transactions, a new id for each or one of a pool."""
    return lambda place: checked(Run(place, Plain, "flink", "Windows", place.bootstrap, "numbers", "results", naming))


def resized(place):
    run = Run(place, Plain, "flink", "Windows", place.bootstrap, "numbers", "results", "INCREMENTING")
    return f"{run.through_resizes(by=50)}; {run.check()}"


def sql(place):
    statements = place.directory / "windows.sql"
    statements.write_text((HERE / "sql" / "windows.sql").read_text().replace("$bootstrap", place.bootstrap))
    return checked(Run(place, Json, "flink/sql", "SqlJob", statements))


SCENARIOS = {
    "flink-windows": windows("INCREMENTING"),
    "flink-windows-pooling": windows("POOLING"),
    "flink-resizes": resized,
    "flink-sql": sql,
    "flink-upserts": upserts,
    "flink-kit": kit,
}
