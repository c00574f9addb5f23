"""Debezium, PostgreSQL's and MariaDB's changes in compacted topics: what is left of a topic is the table, while nodes are killed.

May not know: how nodes are started, how a topic is compacted, what the changes are.
"""

import json
import pathlib
import random
import sys
import tarfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path += [str(HERE), str(HERE.parent / "connect"), str(HERE.parents[1] / "clients")]
from changes import Changes
from committed import differences
from compacted import Left, one_a_key
from compaction import SOON, compact_often
from databases import MariaDb, Postgres
from harness import INSTALLED
from worker import Worker, Workers

NAME = "debezium"
PARTITIONS = 3
ROWS, ROWS_QUICK = 500, 60
PROGRESS_SECONDS_MAX, DONE_SECONDS_MAX = 120, 180
# Keys and values without a schema in each of them.
CONVERTERS = {f"{side}_converter": "org.apache.kafka.connect.json.JsonConverter" for side in ("key", "value")}
CONVERTERS |= {f"{side}_converter_schemas_enable": "false" for side in ("key", "value")}


def plugins(place):
    """The archives that Maven has brought, unpacked as Debezium's users do."""
    place.jars(NAME)
    into = place.directory / "plugins"
    for archive in sorted((INSTALLED / NAME / "jars").glob("*.tar.gz")):
        with tarfile.open(archive) as packed:
            packed.extractall(into, filter="data")
    return into


def connector(place, database):
    """Connect makes the topics; where Debezium keeps MariaDB's schemas is a topic that it makes itself."""
    made = {"replication.factor": place.nodes, "partitions": PARTITIONS, **SOON}
    topics = {f"topic.creation.default.{name}": value for name, value in made.items()}
    kafka = {"kafka.bootstrap.servers": place.bootstrap, "kafka.topic": f"{database.name}-schemas"}
    history = {f"schema.history.internal.{name}": value for name, value in kafka.items()}
    return {**database.connector(), **topics, **history, "decimal.handling.mode": "string", "poll.interval.ms": 100}


class Captured:
    """A database, what changes it, and the topic of its table."""

    def __init__(self, place, workers, database, chance):
        self.place, self.workers, self.database = place, workers, database
        self.changes = Changes(database, chance, ROWS_QUICK if place.quick else ROWS)
        self.changes.before()
        workers.configure(database.name, connector(place, database))
        self.reaches(self.rows_are_as_in_the_table, "the rows that were there")
        self.changes.start()

    def reaches(self, condition, what, seconds=PROGRESS_SECONDS_MAX):
        def is_so():
            self.workers.restart_failed(self.database.name)
            self.changes.assert_well()
            return condition()

        self.place.until(is_so, seconds, f"{self.database.topic}: {what}")

    def found(self):
        return Left(self.place.bootstrap, self.database.topic)

    def rows(self, found):
        """Of what is left the last value of each key, as long as it is not deleted."""
        last = {json.loads(key)["id"]: value and json.loads(value)["after"] for key, value in found.by_key().items()}
        return {row: after for row, after in last.items() if after is not None}

    def rows_are_as_in_the_table(self):
        return self.rows(self.found()) == self.database.table()

    def goes_on(self, by=100):
        """So many changes more than there are now."""
        wanted = self.changes.done + by
        self.reaches(lambda: max((row["amount"] for row in self.rows(self.found()).values()), default=0) >= wanted, f"change {wanted}")

    def end(self):
        """The table against the topic from its beginning, before and after it is compacted; gives what is to be said."""
        self.changes.end()
        table = self.database.table()
        try:
            self.reaches(lambda: self.rows(self.found()) == table, "the rows of the table", DONE_SECONDS_MAX)
        except AssertionError as failure:
            raise AssertionError(f"{failure}; (id, topic, table): {differences(self.rows(self.found()), table)[:3]}") from failure
        found = one_a_key(self.place, self.database.topic)
        wrong = differences(self.rows(found), table)
        assert not wrong, f"{self.database.topic} is compacted, and is not the table any more: (id, topic, table): {wrong[:3]}"
        # Tombstones are kept for a day.
        keys, ever = {json.loads(key)["id"] for key in found.by_key()}, self.changes.ever
        assert keys == ever, f"keys without a record: {sorted(ever - keys)[:3]}; records of no row: {sorted(keys - ever)[:3]}"
        assert found.count() < self.changes.records <= found.offsets, f"{self.changes.records} records were due, {found}"
        return f"{self.database.topic}: {len(table)} rows after {self.changes.done} changes, {found}, of {self.changes.records} records written"


def through_faults(place, workers, captured):
    """Nodes killed in turn, the worker once; between two faults the changes of both go on."""
    for node in range(1, place.nodes + 1):
        place.kill(node)
        for one in captured:
            one.goes_on()
    if not place.quick:
        workers.kill(1)
        place.kill(place.chance.randint(1, place.nodes))
    for one in captured:
        one.goes_on()


def debezium(place):
    compact_often(place)
    # Made before the threads draw: each has a chance of its own.
    databases = [(kind(place), random.Random(place.chance.getrandbits(64))) for kind in ((Postgres,) if place.quick else (Postgres, MariaDb))]
    try:
        for database, _ in databases:
            database.start()
        workers = Workers(place, Worker(place, 1, NAME, "768m", plugin_path=str(plugins(place)), **CONVERTERS))
        captured = [Captured(place, workers, database, chance) for database, chance in databases]
        through_faults(place, workers, captured)
        said = "; ".join(one.end() for one in captured)
        workers.assert_no_failures()
        return f"{said}; {workers.kills} kills of the worker, {place.kills} of nodes"
    finally:
        for database, _ in databases:
            database.kill()


SCENARIOS = {NAME: debezium}
