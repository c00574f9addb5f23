#!/usr/bin/env python3
"""Tests that the verdict on a compacted topic can fail: a sound journal passes, and each way to falsify it is found and named.

Usage: tests/chaos/test_compaction.py [JUDGE]; without the checker's example `judge` cargo builds it.
"""

import collections
import itertools
import pathlib
import sys
import tempfile
import unittest

import compacted
import falsify
import history
from page import series
from places import COMPACT, PARTITION_FROM
from transactions import ABORTED, COMMITTED
from workloads import COMPACTION, MIXED, PLANS

JUDGE = [sys.argv.pop(1)] if len(sys.argv) > 1 else None
P = PARTITION_FROM[COMPACT]
OBSERVER, PRODUCER, TRANSACT, READER, KILLED, OTHER = 0, 64, 128, 192, 256, 320
SECOND = 1_000_000_000


def value_of(key, number=0, is_tombstone=False):
    """A value whose record has this key; with another number another one."""
    values = (value for value in itertools.count() if (compacted.key_of(value), compacted.is_tombstone(value)) == (key, is_tombstone))
    return next(itertools.islice(values, number, None))


FIRST, REPLACED, DELETED, TOMBSTONE = value_of(0), value_of(0, 1), value_of(1), value_of(1, 0, True)
ONCE, DROPPED, BEFORE, IN_TRANSACTION, LATE = value_of(2), value_of(2, 1), value_of(3), value_of(3, 1), value_of(4)


class Journal:
    """One partition: what stands at each offset, None for a marker."""

    def __init__(self):
        self.t, self.lines, self.log = 0, [], []

    def now(self):
        self.t += 10
        return self.t

    def say(self, what, client, **more):
        self.lines.append({"do": what, "t": self.now(), "client": client, **more})

    def append(self, values):
        self.log += values
        return [[len(self.log) - len(values) + n, self.now()] for n in range(len(values))]

    def send(self, *values):
        self.say("send", PRODUCER, records=[[P, value] for value in values])
        self.say("sent", PRODUCER, results=self.append(list(values)))

    def transaction(self, told, *values):
        self.say("begin", TRANSACT, name="name")
        self.say("write", TRANSACT, records=[[P, value] for value in values], sources=None)
        results = self.append([*values, None])[:-1]
        self.say("end", TRANSACT, commit=told != ABORTED)
        self.say("done", TRANSACT, told=told, results=results, error=None)

    def read(self, *values, client=READER, **more):
        """These are found, in the order of their offsets."""
        records = sorted([P, self.log.index(value), value] for value in values)
        self.say("read", client, begun=self.now(), records=records, ends=[[P, len(self.log)]], **more)
        return self.lines[-1]


def sound():
    made = Journal()
    made.say("initialized", TRANSACT, name="name", begun=made.now())
    made.send(FIRST, DELETED, ONCE, BEFORE)
    made.read(FIRST, DELETED, ONCE, BEFORE, role="rereader-0")
    made.send(REPLACED, TOMBSTONE)
    made.transaction(ABORTED, DROPPED)
    made.transaction(COMMITTED, IN_TRANSACTION)
    made.say("send", KILLED, records=[[P, LATE]])
    made.append([LATE])
    made.read(REPLACED, TOMBSTONE, ONCE, BEFORE, IN_TRANSACTION, LATE, role="rereader-0")
    made.read(REPLACED, ONCE, IN_TRANSACTION, LATE, client=OBSERVER, settled=True)
    return made


class Verdict(unittest.TestCase):
    def setUp(self):
        self.made = sound()
        self.journal = self.made.lines

    def laws(self):
        with tempfile.TemporaryDirectory() as directory:
            report = history.judge(history.of_journal(self.journal), pathlib.Path(directory) / "history.jsonl", JUDGE)
        self.assertEqual(report["verdict"] == "invalid", bool(report["broken"]))
        return set(report["broken"])

    def reads(self):
        return compacted.full_reads(self.journal)

    def hide(self, read, *values):
        read["records"] = [record for record in read["records"] if record[2] not in values]

    def show(self, read, *values):
        read["records"] = sorted(read["records"] + [[P, self.made.log.index(value), value] for value in values])

    def test_a_sound_journal_is_valid(self):
        self.assertEqual(self.laws(), set())
        self.assertEqual(history.complaints(self.journal), [])

    def test_a_compact_journal_says_the_same(self):
        lines = list(history.of_journal(self.journal))
        self.assertEqual(list(history.of_journal([history.compact(dict(line)) for line in self.journal])), lines)
        self.assertEqual(compacted.counts([history.compact(dict(line)) for line in self.journal]), compacted.counts(self.journal))

    def test_the_latest_record_of_a_key_is_not_there_at_the_end(self):
        for value in (REPLACED, ONCE, IN_TRANSACTION, LATE):
            self.made = sound()
            self.journal = self.made.lines
            self.hide(self.reads()[-1], value)
            self.assertIn("compaction-latest", self.laws(), value)

    def test_the_latest_record_of_a_key_is_not_there_once(self):
        self.hide(self.reads()[1], REPLACED)
        self.assertIn("compaction-latest", self.laws())

    def test_an_older_record_stands_in_place_of_the_latest(self):
        self.hide(self.reads()[-1], REPLACED)
        self.show(self.reads()[-1], FIRST)
        self.assertIn("compaction-latest", self.laws())

    def test_a_deleted_key_comes_back(self):
        self.show(self.reads()[-1], DELETED)
        self.assertEqual(self.laws(), {"compaction-latest"})
        self.show(self.reads()[-1], TOMBSTONE)
        self.assertEqual(self.laws(), set())

    def test_a_record_is_lost_to_one_of_an_aborted_transaction(self):
        for read in self.reads()[1:]:
            self.hide(read, ONCE)
        self.assertIn("compaction-latest", self.laws())

    def test_a_record_of_an_aborted_transaction_is_read(self):
        self.show(self.reads()[-1], DROPPED)
        self.assertIn("g1a", self.laws())

    def test_a_record_is_replaced_by_one_of_unknown_outcome(self):
        # Whoever reads it proves that it is there: nobody finds an older one afterwards.
        next(line for line in self.journal if line["do"] == "done" and line["told"] == COMMITTED)["told"] = None
        self.assertEqual(self.laws(), set())
        self.hide(self.reads()[-1], IN_TRANSACTION)
        self.show(self.reads()[-1], BEFORE)
        self.assertIn("compaction-latest", self.laws())

    def test_an_acknowledged_record_is_in_no_reading(self):
        for read in self.reads():
            self.hide(read, ONCE)
        self.assertIn("lost-write", self.laws())

    def test_a_record_is_replaced_while_it_is_read(self):
        # Below its end the reading finds nothing of the key, but behind it.
        first = self.reads()[0]
        self.hide(first, FIRST)
        self.assertIn("compaction-latest", self.laws())
        # By another client: this one's next reading has begun by then.
        first.update(client=OTHER, t=[line["t"] for line in self.journal if line["do"] == "sent"][1] + 1)
        self.show(first, REPLACED)
        self.assertEqual(self.laws(), set())

    def test_a_record_that_nobody_sent(self):
        self.reads()[-1]["records"][0][2] += 1 << 52
        self.assertIn("phantom-read", self.laws())

    def test_a_reading_that_took_longer_than_tombstones_stay_is_not_judged(self):
        last = self.reads()[-1]
        self.show(last, DELETED)
        last["t"] = last["begun"] + compacted.READING_SECONDS_MAX * SECOND + 1
        self.assertEqual(self.laws(), set())
        self.assertEqual(compacted.counts(self.journal)["late"], 1)
        self.assertLess(compacted.READING_SECONDS_MAX, compacted.DELETE_RETENTION_SECONDS)

    def test_of_a_transaction_any_part_may_be_compacted(self):
        self.made.transaction(COMMITTED, value_of(5), value_of(6))
        self.made.send(value_of(5, 1))
        values = (REPLACED, ONCE, IN_TRANSACTION, LATE, value_of(5, 1))
        self.made.read(*values, value_of(6), client=OBSERVER, settled=True)
        self.assertEqual((self.laws(), history.complaints(self.journal)), (set(), []))
        self.hide(self.reads()[-1], value_of(6))
        self.assertIn("compaction-latest", self.laws())

    def test_what_falsify_makes_is_found(self):
        self.assertIn("the latest of key 0", falsify.without_latest(self.journal))
        self.assertIn("compaction-latest", self.laws())


class Counts(unittest.TestCase):
    def test_what_is_gone_in_the_end(self):
        # FIRST, BEFORE and DELETED were replaced, TOMBSTONE was too old.
        expected = {"reads": 2, "observed": 1, "late": 0, "records": 7, "gone": 4, "tombstones": 1}
        self.assertEqual(compacted.counts(sound().lines), expected)

    def test_where_nothing_is_compacted_nothing_is_gone(self):
        made = sound()
        made.read(*[value for value in made.log if value not in (None, DROPPED)], client=OBSERVER, settled=True)
        found = compacted.counts(made.lines)
        self.assertEqual((found["gone"], found["tombstones"]), (0, 0))

    def test_only_the_workload_that_is_for_it_has_to_compact_something(self):
        self.assertEqual([name for name, plan in PLANS.items() if plan.proves_compaction()], [COMPACTION])
        self.assertEqual([name for name, plan in PLANS.items() if COMPACT in plan.topics()], [COMPACTION, MIXED])

    def test_what_is_written_behind_the_end_is_not_gone(self):
        made = sound()
        made.send(value_of(7))
        self.assertEqual(compacted.counts(made.lines)["gone"], 4)

    def test_without_a_reading_nothing_is_known(self):
        found = compacted.counts([line for line in sound().lines if line["do"] != "read"])
        self.assertEqual(set(found.values()), {0})

    def test_records_that_are_gone_are_not_unseen(self):
        changes, never = series.unseen(sound().lines)
        self.assertEqual((changes, never), ([], 0))


class Keys(unittest.TestCase):
    def test_few_keys_are_written_all_the_time_and_some_hardly_ever(self):
        values = [(client << 32) + n for client in (64, 65) for n in range(20_000)]
        written = collections.Counter(map(compacted.key_of, values))
        self.assertLessEqual(set(written), set(range((compacted.LEVELS + 1) * compacted.KEYS_A_LEVEL)))
        self.assertGreater(len(written), compacted.LEVELS * compacted.KEYS_A_LEVEL - 4)
        self.assertGreater(min(written[key] for key in range(compacted.KEYS_A_LEVEL)), len(values) / 10)
        self.assertLess(max(written[compacted.LEVELS * compacted.KEYS_A_LEVEL + n] for n in range(compacted.KEYS_A_LEVEL)), 20)
        tombstones = sum(map(compacted.is_tombstone, values))
        self.assertAlmostEqual(tombstones / len(values), 1 / compacted.TOMBSTONE_ONE_IN, delta=0.02)


if __name__ == "__main__":
    unittest.main()
