"""Rows that are inserted, updated, given another key and deleted, by chance that a seed decides, a transaction after the other.

May not know: which database it is, what becomes of the changes.
"""

import threading
import time

from databases import TABLE

# What a change is to a row that is there; to one that is not it is an insert.
UPDATE, DELETE, MOVE = "update", "delete", "move"
WEIGHTS = {UPDATE: 6, DELETE: 3, MOVE: 1}
STATEMENTS_PER_TRANSACTION_MAX, TRANSACTIONS_PER_BATCH, BATCHES_A_SECOND = 5, 5, 4
NAMES = ["", "plain", "O'Reilly", '"quoted", {"json": 1}', "žluťoučký kůň", "日本語", "🦀 crab", "tab\tand\nline", None]


def quoted(text):
    return "null" if text is None else "'" + text.replace("'", "''") + "'"


class Changes:
    """In a thread of its own, from `start` on. The `amount` of a row says by the how manieth change it got what it has."""

    def __init__(self, database, chance, rows_max):
        self.database, self.chance = database, chance
        self.ids = range(1, rows_max + 1)
        # Those that are there, and those that ever were.
        self.there, self.ever = set(), set()
        # `records`: how many a topic that forgets none of them would have.
        self.done, self.records, self.failure = 0, 0, None
        self.stops = threading.Event()
        self.thread = threading.Thread(target=self.go_on, daemon=True)

    def insert(self, row):
        self.there.add(row)
        self.ever.add(row)
        self.records += 1
        return f"insert into {TABLE} values ({row}, {quoted(self.chance.choice(NAMES))}, {self.done}, {self.price()})"

    def price(self):
        return self.chance.choice(["null", f"{self.chance.randint(-10**11, 10**11) / 100:.2f}"])

    def change(self):
        """A statement."""
        self.done += 1
        row = self.chance.choice(self.ids)
        if row not in self.there:
            return self.insert(row)
        kind = self.chance.choices(list(WEIGHTS), WEIGHTS.values())[0]
        to = self.chance.choice(self.ids)
        if kind == MOVE and to not in self.there:
            self.there.remove(row)
            self.there.add(to)
            self.ever.add(to)
            # The delete, its tombstone, the insert.
            self.records += 3
            return f"update {TABLE} set id = {to}, amount = {self.done} where id = {row}"
        if kind == DELETE:
            self.there.remove(row)
            self.records += 2
            return f"delete from {TABLE} where id = {row}"
        self.records += 1
        return f"update {TABLE} set name = {quoted(self.chance.choice(NAMES))}, amount = {self.done}, price = {self.price()} where id = {row}"

    def transaction(self):
        statements = [self.change() for _ in range(self.chance.randint(1, STATEMENTS_PER_TRANSACTION_MAX))]
        return ["begin", *statements, "commit"]

    def before(self):
        """What is there when the connector comes: half of the rows."""
        self.database.sql("begin", *(self.insert(row) for row in self.ids if row % 2), "commit")

    def start(self):
        self.thread.start()

    def go_on(self):
        try:
            while not self.stops.is_set():
                batch = [statement for _ in range(TRANSACTIONS_PER_BATCH) for statement in self.transaction()]
                self.database.sql(*batch)
                time.sleep(1 / BATCHES_A_SECOND)
        except Exception as failure:  # noqa: BLE001 (whatever it is: the main thread says it)
            self.failure = failure

    def assert_well(self):
        assert self.failure is None, f"{self.database.name}: {self.failure}"

    def end(self):
        self.stops.set()
        self.thread.join()
        self.assert_well()
