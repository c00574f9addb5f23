#!/usr/bin/env python3
"""Tests that the verdict on transactions can fail: a sound journal is valid, and each way to falsify it is found and named.

Usage: tests/chaos/test_transactions.py [JUDGE]; without the checker's example `judge` cargo builds it.
"""

import pathlib
import sys
import tempfile
import unittest

import history
import transactions
from page import series
from places import INPUT, OUTPUT, PARTITION_FROM
from transactions import ABORTED, COMMITTED

JUDGE = [sys.argv.pop(1)] if len(sys.argv) > 1 else None
# Clients. The second takes the place of the first, which is a zombie from then on; the third that of the second, which is killed.
FIRST, SECOND, THIRD, TRANSFORM, READER, DIRTY, OBSERVER = 64, 128, 192, 256, 320, 384, 0
GROUP = 50
A, B = PARTITION_FROM[INPUT], PARTITION_FROM[INPUT] + 1
MADE = PARTITION_FROM[OUTPUT]
MARKER = None
# A value of each transaction; the records of one follow each other.
ONE, DROPPED, ZOMBIE, TWO, KILLED, THREE, MADE_OF = 100, 200, 300, 400, 500, 600, 10_000


class Journal:
    """What clients of a sound cluster of three partitions say. `logs`: by partition (value, is committed), or a marker."""

    def __init__(self):
        self.t, self.lines, self.logs = 1000, [], {A: [], B: [], MADE: []}
        self.open, self.positions = {}, {}

    def now(self):
        self.t += 10
        return self.t

    def say(self, what, client, /, **more):
        self.lines.append({"do": what, "t": self.now(), "client": client, **more})
        return self.lines[-1]

    def initialized(self, client, name):
        self.say("initialized", client, name=name, begun=self.now())

    def begin(self, client, name, **more):
        self.say("begin", client, name=name, **more)
        self.open[client] = []

    def write(self, client, records, sources=None):
        self.say("write", client, records=records, sources=sources)
        for partition, value in records:
            self.logs[partition].append([value, False])
            self.open[client].append((partition, len(self.logs[partition]) - 1))

    def mark(self, client, is_committed):
        """The end of a transaction in the logs."""
        for partition, offset in self.open[client]:
            self.logs[partition][offset][1] = is_committed
        for partition in sorted({partition for partition, _ in self.open[client]}):
            self.logs[partition].append(MARKER)

    def end(self, client, told, error=None, is_marked=True):
        """`told`: the outcome; None for a commit that gets no answer."""
        self.say("end", client, commit=told != ABORTED)
        if is_marked:
            self.mark(client, told == COMMITTED)
        results = [[offset, self.t] for _, offset in self.open.pop(client)]
        return self.say("done", client, told=told, results=results, error=error)

    def records(self, partitions, since=0, uncommitted=False):
        """What a reader finds; nothing stands behind an open transaction here."""
        numbered = [(p, o, entry) for p in partitions for o, entry in enumerate(self.logs[p]) if o >= since and entry is not MARKER]
        return [[p, o, value] for p, o, (value, is_committed) in numbered if is_committed or uncommitted]

    def poll(self, client, uncommitted=False):
        records = []
        for partition in self.logs:
            records += self.records([partition], self.positions.get((client, partition), 0), uncommitted)
            self.positions[client, partition] = len(self.logs[partition])
        self.say("poll", client, begun=self.now(), records=records, rebalanced=[], uncommitted=uncommitted)

    def transform(self, told):
        """All records of A and B that are not committed by the group yet, with one record for each."""
        polled = [record for p in (A, B) for record in self.records([p], self.positions.get((GROUP, p), 0))]
        begun = self.now()
        self.begin(TRANSFORM, "transform", begun=begun, polled=polled, rebalanced=[])
        # Values of another attempt are other values.
        self.write(TRANSFORM, [[MADE, MADE_OF + self.t * 10 + n] for n in range(len(polled))], [[p, o] for p, o, _ in polled])
        nexts = {partition: offset + 1 for partition, offset, _ in polled}
        self.say("offsets", TRANSFORM, group=GROUP, offsets=sorted(nexts.items()))
        self.end(TRANSFORM, told)
        if told == COMMITTED:
            self.positions.update({(GROUP, partition): offset for partition, offset in nexts.items()})
        self.say("fetched", TRANSFORM, group=GROUP, begun=self.now(), offsets=[[p, self.positions.get((GROUP, p))] for p in (A, B)])

    def read(self, uncommitted=False):
        ends = [[partition, len(log)] for partition, log in self.logs.items()]
        records = self.records(self.logs, uncommitted=uncommitted)
        self.say("read", OBSERVER, begun=self.now(), records=records, ends=ends, uncommitted=uncommitted, settled=True)


def sound():
    made = Journal()
    made.say("assign", READER, partitions=[A, B, MADE])
    made.say("assign", DIRTY, partitions=[A, B, MADE])
    made.say("subscribe", TRANSFORM, group=GROUP, transactional=True)
    made.initialized(TRANSFORM, "transform")
    made.initialized(FIRST, "producer")
    made.begin(FIRST, "producer")
    made.write(FIRST, [[A, ONE], [B, ONE + 1]])
    made.write(FIRST, [[A, ONE + 2]])
    made.end(FIRST, COMMITTED)
    made.poll(READER)
    made.begin(FIRST, "producer")
    made.write(FIRST, [[A, DROPPED], [B, DROPPED + 1]])
    made.poll(DIRTY, uncommitted=True)
    made.end(FIRST, ABORTED)
    made.transform(ABORTED)
    made.transform(COMMITTED)
    # The first stands still in a transaction, which its successor's initialization aborts; then it goes on.
    made.begin(FIRST, "producer")
    made.write(FIRST, [[A, ZOMBIE], [B, ZOMBIE + 1]])
    begun = made.now()
    made.mark(FIRST, False)
    made.say("initialized", SECOND, name="producer", begun=begun)
    made.end(FIRST, None, "_FENCED", is_marked=False)
    made.begin(SECOND, "producer")
    made.write(SECOND, [[B, TWO], [A, TWO + 1]])
    made.end(SECOND, COMMITTED)
    # Killed in a transaction.
    made.begin(SECOND, "producer")
    made.write(SECOND, [[A, KILLED]])
    made.mark(SECOND, False)
    made.initialized(THIRD, "producer")
    made.begin(THIRD, "producer")
    made.write(THIRD, [[A, THREE], [B, THREE + 1]])
    made.end(THIRD, COMMITTED)
    made.transform(COMMITTED)
    made.poll(READER)
    made.poll(DIRTY, uncommitted=True)
    made.say("fetched", OBSERVER, group=GROUP, begun=made.now(), offsets=[[p, made.positions[GROUP, p]] for p in (A, B)])
    made.read()
    made.read(uncommitted=True)
    return made


def of(journal, what):
    return [line for line in journal if line["do"] == what]


def reads(journal, uncommitted=False):
    return [line for line in of(journal, "poll") + of(journal, "read") if bool(line.get("uncommitted")) == uncommitted]


class Verdict(unittest.TestCase):
    def setUp(self):
        self.made = sound()
        self.journal = self.made.lines

    def laws(self):
        self.journal.sort(key=lambda line: line["t"])
        with tempfile.TemporaryDirectory() as directory:
            report = history.judge(history.of_journal(self.journal), pathlib.Path(directory) / "history.jsonl", JUDGE)
        self.assertEqual(report["verdict"] == "invalid", bool(report["broken"]))
        return set(report["broken"])

    def complains(self, *words):
        found = history.complaints(self.journal)
        for word in words:
            self.assertTrue(any(word in sentence for sentence in found), (word, found))
        return found

    def final(self):
        return next(line for line in of(self.journal, "read") if not line["uncommitted"])

    def place_of(self, value):
        return next([p, o, v] for p, o, v in of(self.journal, "read")[1]["records"] if v == value)

    def shown(self, *values):
        """As if the last poll and read of committed data had them, too."""
        for line in (self.final(), [line for line in of(self.journal, "poll") if line["client"] == READER][-1]):
            line["records"] = sorted(line["records"] + [self.place_of(value) for value in values])

    def hidden(self, *values):
        for line in reads(self.journal) + reads(self.journal, uncommitted=True):
            line["records"] = [record for record in line["records"] if record[2] not in values]
        for line in of(self.journal, "begin"):
            line["polled"] = [record for record in line.get("polled", []) if record[2] not in values]

    def done(self, value):
        """The line with the outcome of a transaction."""
        write = next(line for line in of(self.journal, "write") if value in [v for _, v in line["records"]])
        return next(line for line in of(self.journal, "done") if line["client"] == write["client"] and line["t"] > write["t"])

    def unknown(self, value):
        self.done(value).update(told=None, error="_TIMED_OUT")

    def test_a_sound_journal_is_valid(self):
        self.assertEqual(self.laws(), set())
        self.assertEqual(history.complaints(self.journal), [])
        expected = {"committed": 5, "aborted": 4, "unknown": 0, "fenced": 1, "transformed": 7}
        self.assertEqual(transactions.counts(self.journal), expected)

    def test_a_compact_journal_says_the_same(self):
        lines = list(history.of_journal(self.journal))
        self.assertEqual(list(history.of_journal([history.compact(dict(line)) for line in self.journal])), lines)

    def test_a_record_of_an_aborted_transaction_is_read(self):
        self.shown(DROPPED)
        self.assertIn("g1a", self.laws())

    def test_a_record_of_a_client_that_was_killed_before_it_asked_for_the_commit_is_read(self):
        self.shown(KILLED)
        self.assertIn("g1a", self.laws())

    def test_a_record_of_a_zombie_whose_commit_came_too_late_is_read(self):
        self.shown(ZOMBIE, ZOMBIE + 1)
        self.assertIn("g1a", self.laws())

    def test_a_record_is_read_before_its_commit_is_asked_for(self):
        write = next(line for line in of(self.journal, "write") if [A, ONE] in line["records"])
        early = {"do": "poll", "t": write["t"] + 5, "client": READER, "begun": write["t"] + 2, "records": [self.place_of(ONE)], "rebalanced": []}
        self.journal.append(early)
        self.complains(f"not committed yet: client {READER} read value {ONE} ")
        early["uncommitted"] = True
        self.assertEqual(history.complaints(self.journal), [])

    def test_a_transaction_reads_its_own_record(self):
        begin = of(self.journal, "begin")[-1]
        begin["polled"] = begin["polled"] + [self.place_of(of(self.journal, "write")[-1]["records"][0][1])]
        self.assertIn("precommitted-read", self.laws())

    def test_a_record_of_a_committed_transaction_is_lost(self):
        self.hidden(TWO + 1)
        self.assertIn("lost-write", self.laws())
        self.complains("half a transaction")

    def test_all_records_of_a_committed_transaction_are_lost(self):
        self.hidden(THREE, THREE + 1)
        self.assertIn("unseen", self.laws())

    def test_a_transaction_of_unknown_outcome_may_be_there_or_not(self):
        self.unknown(THREE)
        self.assertEqual((self.laws(), history.complaints(self.journal)), (set(), []))
        done = self.done(DROPPED)
        next(line for line in of(self.journal, "end") if line["client"] == FIRST and not line["commit"])["commit"] = True
        done.update(told=None, error="_TIMED_OUT")
        self.assertEqual((self.laws(), history.complaints(self.journal)), (set(), []))
        self.assertEqual(transactions.counts(self.journal)["unknown"], 2)

    def test_half_a_transaction_of_unknown_outcome(self):
        self.unknown(THREE)
        self.hidden(THREE + 1)
        self.complains("half a transaction", f"as {THREE + 1} of partition {B}")

    def test_a_zombie_commits(self):
        self.done(ZOMBIE).update(told=COMMITTED, error=None)
        self.shown(ZOMBIE, ZOMBIE + 1)
        self.complains("a zombie's commit")

    def test_a_zombie_commits_what_it_began_too_late(self):
        late = next(line for line in of(self.journal, "initialized") if line["client"] == SECOND)["t"] + 1
        self.done(ZOMBIE).update(told=COMMITTED)
        for line in self.journal:
            if line["client"] == FIRST and self.done(DROPPED)["t"] < line["t"] < late:
                line["t"] = late = late + 1
        self.assertIn("producer-fencing", self.laws())

    def test_a_zombie_writes(self):
        write = next(line for line in of(self.journal, "write") if [A, ZOMBIE] in line["records"])
        write["t"] = next(line for line in of(self.journal, "initialized") if line["client"] == SECOND)["t"] + 1
        self.journal.sort(key=lambda line: line["t"])
        self.complains("a zombie's record")
        # Even if only those see it who do not ask for committed data, as here; if nobody does it was refused.
        self.hidden(ZOMBIE, ZOMBIE + 1)
        self.assertEqual(history.complaints(self.journal), [])

    def test_whether_a_producer_is_a_zombie_is_known_only_if_its_successor_began_later(self):
        first, second = [line for line in of(self.journal, "initialized") if line["client"] in (FIRST, SECOND)]
        second["begun"] = first["t"] - 1
        self.done(ZOMBIE).update(told=COMMITTED)
        self.assertEqual(list(transactions.zombies(transactions.of_journal(self.journal), set())), [])

    def test_a_record_is_processed_twice(self):
        # The aborted attempt's records are there, too, and its outcome was never known.
        aborted = next(one for one in transactions.of_journal(self.journal) if one.client == TRANSFORM and one.told == ABORTED)
        next(line for line in of(self.journal, "end") if line["client"] == TRANSFORM)["commit"] = True
        self.unknown(aborted.writes[0].value)
        self.shown(*[write.value for write in aborted.writes])
        self.complains(f"record {ONE} at offset 0 of partition {A} was processed 2 times")

    def test_a_record_is_never_processed(self):
        last = of(self.journal, "write")[-1]
        last["sources"] = [[A, 0] if source == last["sources"][0] else source for source in last["sources"]]
        self.complains("was processed 0 times", "was processed 2 times")

    def test_offsets_of_an_aborted_transaction_are_read(self):
        of(self.journal, "offsets")[0]["offsets"] = [(A, 77)]
        of(self.journal, "fetched")[0]["offsets"] = [[A, 77], [B, None]]
        self.assertIn("committed-offset-invented", self.laws())

    def test_offsets_of_a_committed_transaction_are_forgotten(self):
        of(self.journal, "fetched")[-1]["offsets"] = of(self.journal, "fetched")[1]["offsets"]
        self.assertIn("committed-offset-forgotten", self.laws())

    def test_a_reader_of_committed_data_passes_over_a_transaction(self):
        polls = [line for line in of(self.journal, "poll") if line["client"] == READER]
        polls[0]["records"] = [record for record in polls[0]["records"] if record[2] != ONE]
        self.assertIn("poll-skip", self.laws())

    def test_a_record_of_a_transaction_is_there_twice(self):
        for read in of(self.journal, "read"):
            end = next(end for end in read["ends"] if end[0] == B)
            read["records"].append([B, end[1], TWO])
            end[1] += 1
        self.assertIn("duplicate", self.laws())

    def test_records_of_a_transaction_in_another_order(self):
        results = self.done(ONE)["results"]
        results[0], results[2] = results[2], results[0]
        self.assertIn("int-nonmonotonic-send", self.laws())


class Page(unittest.TestCase):
    def test_records_of_a_transaction_are_acknowledged_with_its_commit(self):
        journal = [
            {"do": "begin", "t": 100, "client": 1},
            {"do": "write", "t": 110, "client": 1, "records": [[100, 1], [101, 2]]},
            {"do": "poll", "t": 150, "client": 2, "begun": 140, "records": [[100, 0, 1]], "uncommitted": True},
            {"do": "done", "t": 300, "client": 1, "told": "committed", "results": [[0, 120], [0, 120]]},
            {"do": "begin", "t": 400, "client": 1},
            {"do": "write", "t": 410, "client": 1, "records": [[100, 3]]},
            {"do": "done", "t": 500, "client": 1, "told": None, "results": [[None, 0]]},
            {"do": "poll", "t": 600, "client": 3, "begun": 590, "records": [[100, 0, 1]]},
            {"do": "begin", "t": 700, "client": 1},
        ]
        found = [(point.kind, point.begun, point.ended, point.done) for point in series.points(journal) if point.kind == series.TXN]
        self.assertEqual(found, [(series.TXN, 100, 300, True), (series.TXN, 400, 500, False), (series.TXN, 700, None, False)])
        self.assertEqual(series.acknowledged(journal), [(300, 1), (300, 2)])
        self.assertEqual(series.unseen(journal), ([(300, 1), (300, 2), (600, 1)], 1))


if __name__ == "__main__":
    unittest.main()
